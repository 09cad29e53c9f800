"""Trains a built-in network until validation stops improving, once: the weights are kept in the user's cache."""

from __future__ import annotations

import inspect
import os
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path

import platformdirs
import safetensors
import safetensors.torch
import torch
from torch import Tensor, nn

from tinypress.files import canonical, sha256, write_bytes
from tinypress.task import Split, Training
from tinypress.train import loop, objective, schedule
from tinypress.train.loop import Progress, Schedule, fit, supervised


def cache_folder() -> Path:
    """Where trained built-in networks are kept: ``$TINYPRESS_CACHE`` or the user's cache folder."""
    return Path(os.environ.get("TINYPRESS_CACHE") or platformdirs.user_cache_dir("tinypress"))


def trained(
    name: str,
    build: Callable[[], nn.Module],
    train: Split,
    validation: Split,
    loss: Callable[[Tensor, Tensor], Tensor],
    training: Training,
    seed: int,
    progress: Progress,
) -> nn.Module:
    """The network of ``build()`` trained with ``seed``, from the cache where it is already there.

    The cache key holds everything that the weights depend on, the thread count and the code included.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = build()
    key = {
        "name": name,
        "model": inspect.getsource(type(model)),
        "loop": [inspect.getsource(part) for part in (loop, objective, schedule)],
        "training": asdict(training),
        "data": [sha256(x.numpy().tobytes()) for x in (*train.inputs, train.targets, validation.targets)],
        "seed": seed,
        "threads": torch.get_num_threads(),
        "torch": torch.__version__,
    }
    path = cache_folder() / f"{name}-{sha256(canonical(key))[:16]}.safetensors"
    if path.exists():
        try:
            model.load_state_dict(safetensors.torch.load(path.read_bytes()))
            return model.eval()
        except (safetensors.SafetensorError, RuntimeError):
            path.unlink()  # a damaged cache entry is only a copy: train again
    settings = Schedule(
        epochs=training.max_epochs,
        learning_rate=training.learning_rate,
        batch_size=training.batch_size,
        weight_decay=training.weight_decay,
        patience=training.patience,
        seed=seed,
    )
    fitted = fit(
        model, train, validation, supervised(loss), settings, progress=progress, what=f"training {name}"
    )
    write_bytes(path, safetensors.torch.save(dict(fitted.model.state_dict())))
    return fitted.model
