"""Layers taken out whole: a list that becomes shorter, or a module that passes on what it is given.

A shortened ``nn.ModuleList`` remembers which entries of the stock network it kept, so that ``structure`` can say it
and ``rebuild`` can do it again. What else counts the layers goes with them: the numbers of a Hugging Face config, its
lists with one entry a layer, the owner's own count, and the place that each layer knows of itself.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from itertools import pairwise

import torch
from torch import Tensor, nn

from tinypress.errors import ModelError
from tinypress.layers.own import own_config

_KEPT = "_tinypress_kept"
_COUNTS = ("num_hidden_layers", "num_layers", "n_layer", "n_layers")
_SIDED = {
    "encoder": ("encoder_layers", "num_encoder_layers"),
    "decoder": ("decoder_layers", "num_decoder_layers"),
}
_PLACES = ("layer_idx", "layer_index", "layer_id", "layer_number", "block_idx")


class Zero(nn.Module):
    """In place of the last layer of a residual branch that left: x + 0."""

    zero: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("zero", torch.zeros(()), persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        """[...] -> a single 0 of the dtype of x."""
        return self.zero.to(x.dtype)


def kept_entries(layer: nn.Module) -> tuple[int, ...] | None:
    """Which entries of the stock list a shortened one holds; None for one that is whole."""
    kept: tuple[int, ...] | None = vars(layer).get(_KEPT)
    return kept


def stock_path(model: nn.Module, path: str) -> str:
    """What the module at ``path`` is called in the stock network, where no list was shortened."""
    module, parts = model, []
    for part in path.split(".") if path else ():
        kept = kept_entries(module)
        parts.append(part if kept is None else str(kept[int(part)]))
        module = module.get_submodule(part)
    return ".".join(parts)


def stock_name(model: nn.Module, name: str) -> str:
    """What the parameter or buffer called ``name`` is called in the stock network."""
    path, _, leaf = name.rpartition(".")
    stock = stock_path(model, path)
    return f"{stock}.{leaf}" if stock else leaf


def names_now(model: nn.Module, stock: Collection[str]) -> frozenset[str]:
    """The parameters of ``model`` that the stock network calls by the names ``stock``; those that left are not among
    them."""
    named = [name for name, _ in model.named_parameters(remove_duplicate=False)]
    return frozenset(name for name in named if stock_name(model, name) in stock)


def shorten(model: nn.Module, path: str, kept: Sequence[int]) -> None:
    """Leave only the entries ``kept``, in rising order, in the ``nn.ModuleList`` at ``path``, in place.

    Raises:
        ModelError: there is no list of that name, or ``kept`` does not name some of its entries, each once.
    """
    call = f"shorten({path[:200]!r}, kept={str(list(kept))[:80]})"
    layers = dict(model.named_modules(remove_duplicate=False)).get(path)
    if type(layers) is not nn.ModuleList:
        raise ModelError(
            call, "the network has no nn.ModuleList of that name", "Name a list that named_modules() has"
        )
    assert isinstance(layers, nn.ModuleList)
    count = len(layers)
    places = list(kept)
    if any(type(place) is not int or not 0 <= place < count for place in places) or any(
        one >= other for one, other in pairwise(places)
    ):
        raise ModelError(call, f"the list has the entries 0 to {count - 1}", "Name some of them, in order")
    before = kept_entries(layers) or tuple(range(count))
    entries = [layers[place] for place in places]
    layers._modules.clear()
    for now, (entry, was) in enumerate(zip(entries, places, strict=True)):
        layers.append(entry)
        _renumber(entry, was, now)
    vars(layers)[_KEPT] = tuple(before[place] for place in places)
    _count_again(model, path, count, places)


def _renumber(entry: nn.Module, was: int, now: int) -> None:
    """Tell the layer its new place where it knew the old one, counted from 0 or from 1."""
    for layer in entry.modules():
        for name in _PLACES:
            value = vars(layer).get(name)
            if type(value) is int and value - was in (0, 1):
                setattr(layer, name, value - was + now)


def _count_again(model: nn.Module, path: str, count: int, kept: Sequence[int]) -> None:
    parts = path.split(".")
    above = (".".join(parts[:length]) for length in range(len(parts)))
    outermost = next((each for each in above if "config" in vars(model.get_submodule(each))), None)
    if outermost is not None:
        own_config(model, outermost)
    owner = model.get_submodule(path.rpartition(".")[0])
    for name, value in list(vars(owner).items()):
        counts = any(word in name for word in ("layer", "block", "depth")) and name not in _PLACES
        if counts and not name.startswith("_") and type(value) is int and value == count:
            setattr(owner, name, len(kept))
    configs = list(_configs(model, path))
    words = path.split(".")
    side = next((side for side in _SIDED if side in words), "")
    for place, config in enumerate(configs):
        names = _SIDED.get(side, ())
        # the config of a decoder alone counts its layers under the plain name, the whole network's the encoder's
        outer = place == len(configs) - 1
        if not (side == "decoder" and outer and any(hasattr(config, name) for name in names)):
            names = (*names, *_COUNTS)
            _shorten_lists(config, count, kept)
        for name in names:
            if _own(config, name) == count:
                setattr(config, name, len(kept))
        _shorten_stage(config, words, count, len(kept))


def _configs(model: nn.Module, path: str) -> Iterator[object]:
    """Every config on the way from the list up to the network, the nearest first, each once."""
    seen: list[object] = []
    parts = path.split(".")
    for length in range(len(parts) - 1, -1, -1):
        config = vars(model.get_submodule(".".join(parts[:length]))).get("config")
        if config is not None and not isinstance(config, dict) and all(config is not each for each in seen):
            seen.append(config)
            yield config


def _own(config: object, name: str) -> int | None:
    value = getattr(config, "__dict__", {}).get(name)
    return value if type(value) is int else None


def _shorten_lists(config: object, count: int, kept: Sequence[int]) -> None:
    """What a config says layer by layer, such as ``layer_types``."""
    for name, value in list(getattr(config, "__dict__", {}).items()):
        if "layer" in name and isinstance(value, list | tuple) and len(value) == count:
            setattr(config, name, type(value)(value[place] for place in kept))


def _shorten_stage(config: object, words: Sequence[str], count: int, now: int) -> None:
    """``depths`` holds the number of layers of each stage; the path names the stage."""
    depths = getattr(config, "__dict__", {}).get("depths")
    numbers = [int(word) for word in words if word.isdecimal()]
    if isinstance(depths, list | tuple) and numbers and numbers[-1] < len(depths):
        changed = list(depths)
        if changed[numbers[-1]] == count:
            changed[numbers[-1]] = now
            setattr(config, "depths", type(depths)(changed))  # noqa: B010
