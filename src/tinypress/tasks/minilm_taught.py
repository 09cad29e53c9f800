"""``minilm-taught``: the sentence encoder with unlabelled text to learn from, for a student that it teaches itself.

Legend: N rows, L tokens.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import torch

from tinypress.task import Companions, Split, Task, Training
from tinypress.tasks import minilm, texts
from tinypress.tasks.minilm import Columns
from tinypress.train.loop import Progress, silent

ROWS = 2_048  # of unlabelled text, each full


def load(seed: int = 0, progress: Progress = silent) -> Task:
    """``minilm`` with unlabelled text to learn from: for a student that is taught by the float network alone.

    Rows are glosses of WordNet end to end, so that none holds padding. Words and definitions that any of the five
    tasks validates or tests on are in none of them. The targets of the text are zeros, which nothing looks at. What is
    pressed ships with the tokenizer's vocabulary, takes texts of any length, and its bytes count both.
    """
    judged = minilm.load(seed, progress)
    lines = texts.glosses(held_out())[: 3 * ROWS]  # more than fill them
    columns = full_rows(lines, minilm.DEFINITION_TOKENS)
    rows = tuple(column[:ROWS] for column in columns)
    return replace(
        judged,
        name="minilm-taught",
        about=f"{judged.about.partition(':')[0]}: {len(rows[0])} rows of unlabelled text, "
        f"{len(judged.validation)} validation, {len(judged.test)} test",
        companions=lambda model: Companions({"vocab.txt": minilm.vocabulary()}),
        free_length=True,
        train=Split(rows, torch.zeros(len(rows[0]), 1)),
        training=Training(max_epochs=3, recovery_epochs=1, batch_size=32, recovery_learning_rate=1e-4),
    )


def held_out() -> set[str]:
    """The words, and the definitions, that the validation and test splits of the tasks ask for."""
    pairs = texts.definitions()[minilm.DEFINITIONS[0] : sum(minilm.DEFINITIONS)]
    words = {word for word, _ in pairs}
    for file in minilm.WORD_PAIRS:
        rows = texts.word_pairs(file)
        words |= {word.lower() for first, second, _ in rows[len(rows) // 5 :] for word in (first, second)}
    return words | {meaning for _, meaning in pairs}


def full_rows(lines: Sequence[str], length: int) -> Columns:
    """Ids [N, length] and a mask of ones: ``lines`` end to end, each row between the marks of a text of its own.

    What does not fill a last row is left out.

    Raises:
        DataError, MissingExtra: as ``network``.
    """
    tokenizer = minilm.wordpiece()
    first, last = tokenizer.token_to_id("[CLS]"), tokenizer.token_to_id("[SEP]")
    encoded = tokenizer.encode_batch(list(lines), add_special_tokens=False)
    running = torch.tensor([token for each in encoded for token in each.ids])
    inner = length - 2
    middle = running[: len(running) // inner * inner].view(-1, inner)
    marks = torch.ones(len(middle), 1, dtype=torch.long)
    ids = torch.cat([first * marks, middle, last * marks], 1)
    return ids, torch.ones_like(ids)
