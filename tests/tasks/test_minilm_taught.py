"""The unlabelled text that a student of the sentence encoder learns from."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
import torch

from tasks.test_minilm import installed
from tinypress.tasks import minilm, minilm_taught, texts


class Letters:
    """A tokenizer that knows letters: a is 1, b is 2 and so on."""

    def token_to_id(self, token: str) -> int:
        return {"[CLS]": 101, "[SEP]": 102}[token]

    def encode_batch(self, lines: list[str], add_special_tokens: bool) -> list[SimpleNamespace]:
        assert not add_special_tokens
        return [SimpleNamespace(ids=[ord(letter) - 96 for letter in line]) for line in lines]


def test_rows_are_full_and_lose_nothing_but_the_last_bit(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(minilm, "wordpiece", Letters)
    ids, mask = minilm_taught.full_rows(["abc", "de", "fghij", "k"], 5)
    assert ids.tolist() == [[101, 1, 2, 3, 102], [101, 4, 5, 6, 102], [101, 7, 8, 9, 102]]
    assert torch.equal(mask, torch.ones_like(ids))


@installed
def test_what_is_tested_is_in_no_text() -> None:
    kept_out = minilm_taught.held_out()
    found = texts.glosses(kept_out)
    everything = texts.glosses(())
    assert len(set(found)) == len(found) > 90_000
    parts = {part.strip() for text in found for part in text.split(";")}
    assert not parts & kept_out
    tested = texts.definitions()[minilm.DEFINITIONS[0] : sum(minilm.DEFINITIONS)]
    whole = {part.strip() for text in everything for part in text.split(";")}
    assert {meaning for _, meaning in tested} <= whole  # so the test above could have failed
