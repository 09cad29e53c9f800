"""The config that a Hugging Face network was built from says the widths of the cut network, where it can.

Which of its numbers are the widths is found by building the network again: a config is right when what its class
makes of it (on the meta device, where no memory is filled) has the shapes of the cut network.
"""

from __future__ import annotations

import copy
import itertools
import warnings
from collections import Counter
from collections.abc import Callable, Iterator, Mapping

import torch
from torch import nn

from tinypress.facts import Note
from tinypress.layers import config_numbers, copy_model, own_config, put_config, replace_module, set_width
from tinypress.shrink.adapt import Sizes

_MOST_TRIES = 24
_MOST_SIZES = 3  # that one size may have become

Shapes = Mapping[str, tuple[int, ...]]


def fit_configs(
    before: nn.Module, after: nn.Module, sizes: Sizes, right: Callable[[nn.Module], bool]
) -> tuple[Note, ...]:
    """Set the numbers in the configs of ``after``, in place; a note (TP306) for each config that cannot say them.

    ``sizes`` are those that the operations of the network see; ``right`` tells whether a network computes what it
    has to, since a number may change that and no shape.
    """
    notes = []
    for path, layer in networks_of_configs(after):
        due = _shapes(layer)
        if due == _shapes(before.get_submodule(path)):
            continue
        own_config(after, path)
        numbers = config_numbers(layer)
        options = _options(numbers, _moves(sizes))
        said = _fitting(layer, numbers, options, due)
        needed = None if said is None else _needed(after, path, numbers, said, options, right)
        if needed is not None:
            for name, value in needed.items():
                set_width(layer, name, value)
            if right(after):
                continue
            for name in needed:
                put_config(layer, name, numbers[name])
        notes.append(_unsaid(path, layer, "these widths"))
    return tuple(notes)


def configs_without_pairs(before: nn.Module, after: nn.Module) -> tuple[Note, ...]:
    """A note (TP306) for each network with a config in which layers became two: no config says that."""
    return tuple(
        _unsaid(path, layer, "two layers in the place of one")
        for path, layer in networks_of_configs(after)
        if _shapes(layer) != _shapes(before.get_submodule(path))
    )


def _unsaid(path: str, layer: nn.Module, what: str) -> Note:
    text = (
        f"{path or type(layer).__name__}: no config describes {what}, so that from_pretrained() cannot open it; "
        "open it with read_archive on the original network"
    )
    return Note("TP306", "note", path or None, text)


def networks_of_configs(model: nn.Module) -> Iterator[tuple[str, nn.Module]]:
    """The outermost modules that were built from a config."""
    seen: list[str] = []
    for path, layer in model.named_modules():
        inside = any(outer == "" or path.startswith(f"{outer}.") for outer in seen)
        if not inside and config_numbers(layer):
            seen.append(path)
            yield path, layer


def _shapes(model: nn.Module) -> Shapes:
    return {name: tuple(tensor.shape) for name, tensor in model.state_dict().items()}


def _moves(sizes: Sizes) -> dict[int, list[int]]:
    """What each size became, the most frequent first."""
    counts: dict[int, Counter[int]] = {}
    for own in sizes.values():
        for was, now in own.values():
            counts.setdefault(was, Counter())[now] += 1
    return {was: [now for now, _ in found.most_common(_MOST_SIZES)] for was, found in counts.items()}


def _options(numbers: Mapping[str, int], moves: Mapping[int, list[int]]) -> dict[str, list[int]]:
    """For each number that may be a width what it may have become, the likeliest first."""
    found = {
        name: list(dict.fromkeys([*moves[value], value])) for name, value in numbers.items() if value in moves
    }
    return {name: values for name, values in found.items() if len(values) > 1}


def _fitting(
    layer: nn.Module, numbers: Mapping[str, int], options: Mapping[str, list[int]], due: Shapes
) -> dict[str, int] | None:
    """Numbers whose network has the shapes ``due``: from the likeliest, one is changed as long as that helps."""
    best = dict(numbers) | {name: values[0] for name, values in options.items()}
    wrong = _mismatches(layer, best, due)
    tries = 1
    better = True
    while wrong and better:
        better = False
        for name, values in options.items():
            for value in values:
                if value == best[name] or tries >= _MOST_TRIES:
                    continue
                tries += 1
                tried = _mismatches(layer, {**best, name: value}, due)
                if tried < wrong:
                    best, wrong, better = {**best, name: value}, tried, True
    return None if wrong else best


def _needed(
    model: nn.Module,
    path: str,
    numbers: Mapping[str, int],
    said: Mapping[str, int],
    options: Mapping[str, list[int]],
    right: Callable[[nn.Module], bool],
) -> dict[str, int] | None:
    """Of what was changed in ``said`` the numbers without which the network built from it differs; None if none is
    right. A size may coincide with a number that is no width, and a number of heads changes no shape."""
    due = _shapes(model.get_submodule(path))

    def fits(tried: Mapping[str, int]) -> bool:
        built = _built(model.get_submodule(path), tried)
        return built is not None and _shapes(built) == due and right(_opened(model, path, built))

    others = ({**said, name: value} for name, values in options.items() for value in values)
    found = next((tried for tried in itertools.chain([said], others) if fits(tried)), None)
    if found is None:
        return None
    changed = {name: value for name, value in found.items() if value != numbers[name]}
    for name in list(changed):
        fewer = {key: value for key, value in changed.items() if key != name}
        if fits({**numbers, **fewer}):
            changed = fewer
    return changed


def _opened(model: nn.Module, path: str, built: nn.Module) -> nn.Module:
    """``model`` with ``built``, filled, in the place of the network at ``path``: as from_pretrained() would open it."""
    layer = model.get_submodule(path)
    values = {**dict(layer.named_parameters(remove_duplicate=False)), **dict(layer.named_buffers())}
    for name, module in built.named_modules():
        for store in (module._parameters, module._buffers):
            for short in list(store):
                store[short] = values.get(f"{name}.{short}".lstrip("."), store[short])
    opened = copy_model(model) if path else built
    if path:
        replace_module(opened, path, built)
    return opened.train(model.training)


def _mismatches(layer: nn.Module, numbers: Mapping[str, int], due: Shapes) -> int:
    """How many tensors of the network that is built from ``numbers`` have another shape than ``due``."""
    built = _built(layer, numbers)
    if built is None:
        return len(due) + 1
    shapes = _shapes(built)
    return sum(shapes.get(name) != shape for name, shape in due.items()) + len(shapes.keys() - due.keys())


def _built(layer: nn.Module, numbers: Mapping[str, int]) -> nn.Module | None:
    """What the class of ``layer`` makes of its config with ``numbers``, without memory."""
    holder = nn.Module()
    vars(holder)["config"] = copy.deepcopy(layer.config)
    for name, value in numbers.items():
        put_config(holder, name, value)
    try:
        with warnings.catch_warnings(), torch.device("meta"):
            warnings.simplefilter("ignore")
            built: nn.Module = type(layer)(holder.config)
            return built
    except Exception:  # whatever the constructor says to numbers that do not go together
        return None
