"""The config that a Hugging Face network was built from says the widths of the cut network, where it can.

Which of its numbers are the widths is found by building the network again: a config is right when what its class
makes of it (on the meta device, where no memory is filled) has the shapes of the cut network.
"""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Callable, Iterator, Mapping

from torch import nn

from tinypress.facts import Note
from tinypress.graph.record import Run
from tinypress.layers import config_numbers, copy_model, own_config, put_config, replace_module, set_width
from tinypress.shrink.adapt import Sizes
from tinypress.shrink.building import Builds, Shapes, shapes_of

_MOST_TRIES = 24
_MOST_SIZES = 3  # that one size may have become


def fit_configs(
    before: nn.Module,
    after: nn.Module,
    sizes: Sizes,
    is_right: Callable[[nn.Module], bool],
    recorded: Callable[[], Run | None],
) -> tuple[Note, ...]:
    """Set the numbers in the configs of ``after``, in place; a note (TP306) for each config that cannot say them.

    A number may change what a network computes and no shape. So every operation is compared, without values; where
    that does not tell, ``is_right`` is asked.

    Args:
        before: the whole network.
        after: the cut network.
        sizes: those that the operations of the network see.
        is_right: tells whether a network computes what it has to.
        recorded: what ``after`` does without values, as it is; None where that cannot be recorded.
    """
    notes = []
    run: Run | None = None
    for path, layer in networks_of_configs(after):
        due, were = shapes_of(layer), shapes_of(before.get_submodule(path))
        if due == were:
            continue
        own_config(after, path)
        numbers = config_numbers(layer)
        options = _options(numbers, _moves(sizes))
        builds = Builds(layer)
        one = [values for values in options.values() if len(values) == 2]
        if len(options) == len(one) == 1:  # there is nothing else to try
            said = builds.only(
                {**numbers, **{name: values[0] for name, values in options.items()}}, due, were
            )
        else:
            said = _fitting(builds, numbers, options, due)
        needed = None
        if said is not None:
            run = run or recorded()
            like = _Likeness(run, path)
            needed = _needed(after, path, builds, numbers, said, options, like, is_right)
        if needed is not None:
            for name, value in needed.items():
                set_width(layer, name, value)
            if like.with_numbers(needed) or is_right(after):
                continue
            for name in needed:
                put_config(layer, name, numbers[name])
        notes.append(_unsaid(path, layer, "these widths"))
    return tuple(notes)


class _Likeness:
    """Whether a network does what was recorded; None where nothing was."""

    def __init__(self, run: Run | None, path: str) -> None:
        self._run, self._path = run, path

    def with_network(self, built: nn.Module) -> bool | None:
        """With ``built`` in the place of the network at the path; ``built`` is used up."""
        if self._run is None:
            return None
        model = self._run.empty.network
        old = model.get_submodule(self._path)
        same = self._run.is_of(_put(model, self._path, built, old))
        if self._path:
            replace_module(model, self._path, old)
        return same

    def with_numbers(self, numbers: Mapping[str, int]) -> bool | None:
        """With these numbers in the config of the network at the path."""
        if self._run is None:
            return None
        model = self._run.empty.network
        own_config(model, self._path)
        layer = model.get_submodule(self._path)
        before = config_numbers(layer)
        for name, value in numbers.items():
            put_config(layer, name, value)
        same = self._run.is_of(model)
        if not same:
            for name in numbers:
                put_config(layer, name, before[name])
        return same


def configs_without_pairs(before: nn.Module, after: nn.Module) -> tuple[Note, ...]:
    """A note (TP306) for each network with a config in which layers became two: no config says that."""
    return tuple(
        _unsaid(path, layer, "two layers in the place of one")
        for path, layer in networks_of_configs(after)
        if shapes_of(layer) != shapes_of(before.get_submodule(path))
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


def _moves(sizes: Sizes) -> dict[int, list[int]]:
    """What each size became, the most frequent first."""
    counted = Counter(itertools.chain.from_iterable(own.values() for own in sizes.values()))
    moves: dict[int, list[int]] = {}
    for (was, now), _ in counted.most_common():
        moves.setdefault(was, []).append(now)
    return {was: found[:_MOST_SIZES] for was, found in moves.items()}


def _options(numbers: Mapping[str, int], moves: Mapping[int, list[int]]) -> dict[str, list[int]]:
    """For each number that may be a width what it may have become, the likeliest first."""
    found = {
        name: list(dict.fromkeys([*moves[value], value])) for name, value in numbers.items() if value in moves
    }
    return {name: values for name, values in found.items() if len(values) > 1}


def _fitting(
    builds: Builds, numbers: Mapping[str, int], options: Mapping[str, list[int]], due: Shapes
) -> dict[str, int] | None:
    """Numbers whose network has the shapes ``due``: from the likeliest, one is changed as long as that helps."""
    best = dict(numbers) | {name: values[0] for name, values in options.items()}
    wrong = _mismatches(builds.shapes(best), due)
    tries = 1
    better = True
    counts = builds.counts()
    while wrong and better:
        better = False
        # a number of layers is as likely as not no width that has become another
        for name in sorted(options, key=lambda name: numbers[name] not in counts):
            for value in options[name]:
                nothing = {**best, name: value} == numbers  # has the shapes of what was not cut
                if not wrong or nothing or value == best[name] or tries >= _MOST_TRIES:
                    continue
                tries += 1
                tried = _mismatches(builds.shapes({**best, name: value}), due)
                if tried < wrong:
                    best, wrong, better = {**best, name: value}, tried, True
    return None if wrong else best


def _needed(
    model: nn.Module,
    path: str,
    builds: Builds,
    numbers: Mapping[str, int],
    said: Mapping[str, int],
    options: Mapping[str, list[int]],
    like: _Likeness,
    is_right: Callable[[nn.Module], bool],
) -> dict[str, int] | None:
    """Of what was changed in ``said`` the numbers without which the network built from it differs; None if none is
    right. A size may coincide with a number that is no width, and a number of heads changes no shape."""

    def fits(tried: Mapping[str, int], run: bool = True) -> bool:
        """Whether what is built computes what it has to; it is run, if it may be, where that is not clear."""
        if not builds.makes(tried, like=said):
            return False
        same = like.with_network(builds.built(tried))
        return bool(same) or ((run or same is None) and is_right(_opened(model, path, builds.built(tried))))

    others = ({**said, name: value} for name, values in options.items() for value in values)
    found = next((tried for tried in itertools.chain([said], others) if fits(tried)), None)
    if found is None:
        return None
    changed = {name: value for name, value in found.items() if value != numbers[name]}
    for name in list(changed):
        fewer = {key: value for key, value in changed.items() if key != name}
        if fits({**numbers, **fewer}, run=False):
            changed = fewer
    return changed


def _opened(model: nn.Module, path: str, built: nn.Module) -> nn.Module:
    """``model`` with ``built``, filled, in the place of the network at ``path``: as from_pretrained() would open it."""
    return _put(copy_model(model, share=True) if path else model, path, built, model.get_submodule(path))


def _put(model: nn.Module, path: str, built: nn.Module, layer: nn.Module) -> nn.Module:
    """``model`` with ``built`` at ``path``, in place, holding the tensors of ``layer``; ``built`` where that is all."""
    values = {**dict(layer.named_parameters(remove_duplicate=False)), **dict(layer.named_buffers())}
    for name, module in built.named_modules():
        for store in (module._parameters, module._buffers):
            for short in list(store):
                store[short] = values.get(f"{name}.{short}".lstrip("."), store[short])
    if path:
        replace_module(model, path, built)
    return (model if path else built).train(model.training)


def _mismatches(shapes: Shapes | None, due: Shapes) -> int:
    """How many tensors have another shape than ``due``; more than there are where no network was built."""
    if shapes is None:
        return len(due) + 1
    return sum(shapes.get(name) != shape for name, shape in due.items()) + len(shapes.keys() - due.keys())
