"""``minilm-taught``: the sentence encoder with unlabelled text to learn from, for a student that it teaches itself."""

from __future__ import annotations

from dataclasses import replace

import torch

from tinypress.task import Companions, Split, Task, Training
from tinypress.tasks import minilm, texts
from tinypress.train.loop import Progress, silent

ROWS = 24_000
"""Texts without labels."""

_PIECE = 24  # words of a mail that make one text


def load(seed: int = 0, progress: Progress = silent) -> Task:
    """``minilm`` with unlabelled text to learn from: for a student that is taught by the float network alone.

    Sentences and single words, as an encoder of sentences meets them. Words and definitions that any of the five tasks
    validates or tests on are in none of them; of films and mail only the train splits are read, without their labels.
    The targets of the text are zeros, which nothing looks at. What is pressed ships with the tokenizer's vocabulary,
    takes texts of any length, and its bytes count both.
    """
    judged = minilm.load(seed, progress)
    columns = minilm.tokens(unlabelled(ROWS), minilm.DEFINITION_TOKENS)
    return replace(
        judged,
        name="minilm-taught",
        about=f"{judged.about.partition(':')[0]}: {ROWS} rows of unlabelled text, "
        f"{len(judged.validation)} validation, {len(judged.test)} test",
        companions=lambda model: Companions({"vocab.txt": minilm.vocabulary()}),
        free_length=True,
        train=Split(columns, torch.zeros(ROWS, 1)),
        training=Training(max_epochs=3, recovery_epochs=1, batch_size=64, recovery_learning_rate=5e-4),
    )


def unlabelled(count: int) -> list[str]:
    """``count`` texts in an order that is always the same: all of films and mail, single words, and else glosses.

    Raises:
        DataError: a package with texts is not installed.
    """
    without = held_out()
    films = [sentence for sentence, _ in texts.film_sentences()[: minilm.FILMS[0]]]
    mails = [piece for mail, _ in texts.mail()[: minilm.MAILS[0]] for piece in pieces(mail)]
    words = [word for word, _ in texts.definitions() if word not in without]
    several = [*films, *mails, *words[: count // 6]]
    lines = [*several, *texts.glosses(without)[: max(0, count - len(several))]]
    order = torch.randperm(len(lines), generator=torch.Generator().manual_seed(0))
    return [lines[place] for place in order.tolist()][:count]


def pieces(text: str) -> list[str]:
    """The first 240 words of ``text``, 24 at a time; a rest of a few is left out."""
    words = text.split()[:240]
    return [" ".join(words[start : start + _PIECE]) for start in range(0, len(words) - _PIECE // 3, _PIECE)]


def held_out() -> set[str]:
    """The words, and the definitions, that the validation and test splits of the tasks ask for."""
    pairs = texts.definitions()[minilm.DEFINITIONS[0] : sum(minilm.DEFINITIONS)]
    words = {word for word, _ in pairs}
    for file in minilm.WORD_PAIRS:
        rows = texts.word_pairs(file)
        words |= {word.lower() for first, second, _ in rows[len(rows) // 5 :] for word in (first, second)}
    return words | {meaning for _, meaning in pairs}
