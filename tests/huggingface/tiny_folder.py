"""A Hugging Face folder of a few kilobytes: a seeded BERT and its tokenizer, as save_pretrained() writes them."""

from __future__ import annotations

import json
from pathlib import Path

import torch
import transformers
from torch import nn

_LETTERS = "abcdefghijklmnopqrstuvwxyz"
WORDS = [
    *(
        "[PAD]",
        "[UNK]",
        "[CLS]",
        "[SEP]",
        "[MASK]",
        "the",
        "dog",
        "cat",
        "rain",
        "sings",
        "sleeps",
        "writes",
        "late",
    ),
    *("at", "night", "teacher", "old", "child", *_LETTERS, *(f"##{letter}" for letter in _LETTERS[:16])),
]


def write_folder(path: Path, *, shard_bytes: int | None = None, hidden: int = 32) -> Path:
    """Write the folder and return it; ``shard_bytes`` cuts its weights into shards with an index."""
    path.mkdir(parents=True)
    (path / "vocab.txt").write_text("\n".join(WORDS) + "\n")
    tokenizer = transformers.BertTokenizer(str(path / "vocab.txt"))
    tokenizer.save_pretrained(path)
    config = transformers.BertConfig(
        vocab_size=len(WORDS), hidden_size=hidden, num_hidden_layers=2, num_attention_heads=4,
        intermediate_size=48, max_position_embeddings=32,
    )  # fmt: skip
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(1)
        model = transformers.BertModel(config).eval()
        for parameter in model.parameters():
            if parameter.dim() > 1:
                nn.init.normal_(parameter, std=0.2)
    sharded = {} if shard_bytes is None else {"max_shard_size": shard_bytes}
    model.save_pretrained(path, **sharded)
    return path


def change_config(folder: Path, **values: object) -> None:
    """Put ``values`` into config.json; None takes a key out."""
    config = {**json.loads((folder / "config.json").read_text()), **values}
    (folder / "config.json").write_text(json.dumps({k: v for k, v in config.items() if v is not None}))
