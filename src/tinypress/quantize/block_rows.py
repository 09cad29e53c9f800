"""What a block inside a network is fed and what it makes, sample by sample, so that it can be run by itself.

Legend: N samples, B those of a batch. What is fed may be nested in tuples, lists and dicts; its *leaves* are all else.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from tinypress.errors import DataError
from tinypress.task import Split

_BATCH = 32
_PROBES = (2, 3)  # samples; what has one row a sample has two lengths then
_PLAIN = (bool, int, float, str)

Given = tuple[tuple[Any, ...], dict[str, Any]]
"""Arguments and keyword arguments."""


class _Enough(Exception):
    """Ends a forward pass."""


@dataclass(frozen=True)
class Block:
    """A module that is called once in a forward pass.

    ``given`` is what it was fed once, and ``by_sample`` says which of its leaves have a row a sample. ``follows`` says
    where each leaf comes from, if all it is fed is the output of the block before (-1) and leaves that this one was
    fed (their places); it is ``None`` where anything else happens in between.
    """

    path: str
    given: Given
    by_sample: tuple[bool, ...]
    follows: tuple[int, ...] | None = None


@dataclass(frozen=True)
class Rows:
    """What a block is fed: its leaves in their order, those with a row a sample as [N, ...]."""

    block: Block
    leaves: tuple[Any, ...]

    def __len__(self) -> int:
        return next(len(leaf) for leaf, rows in zip(self.leaves, self.block.by_sample, strict=True) if rows)

    def fed(self, chosen: Tensor) -> Given:
        """What the block is fed on the samples ``chosen``; it may write into it."""
        own = (
            leaf[chosen] if rows else leaf.clone() if isinstance(leaf, Tensor) else leaf
            for leaf, rows in zip(self.leaves, self.block.by_sample, strict=True)
        )
        made: Given = _rebuilt(self.block.given, own)
        return made


@dataclass(frozen=True)
class _Call:
    """One call of a block: what it was fed, as leaves, and tensors made, with how often each had been written to."""

    tree: Given
    given: list[Any]
    given_versions: list[int]
    made: list[Tensor]
    made_versions: list[int]


def find_blocks(
    network: nn.Module, paths: Sequence[str], samples: Split
) -> tuple[list[Block], dict[str, str]]:
    """Those of ``paths`` that can be run by themselves, in the order of their calls; why not, of all others."""
    seen, again = (_probe(network, paths, samples, count) for count in _PROBES)
    blocks: list[Block] = []
    reasons = {}
    for path in dict.fromkeys([*seen, *paths]):
        calls, others = seen.get(path, []), again.get(path, [])
        if len(calls) != 1 or len(others) != 1:
            several = "it is called more than once"
            reasons[path] = several if calls or others else "the calibration samples never reach it"
            continue
        given, made = (
            [_by_sample(*pair) for pair in zip(*both, strict=False)]
            for both in ((calls[0].given, others[0].given), (calls[0].made, others[0].made))
        )
        if len(calls[0].given) != len(others[0].given) or None in given or not any(given):
            reasons[path] = "what it is fed does not have one row a sample"
        elif len(calls[0].made) != 1 or made != [True]:
            reasons[path] = "what it makes is not one tensor with a row a sample"
        else:
            before = seen[blocks[-1].path][0] if blocks else None
            follows = None if before is None else _follows(before, calls[0])
            blocks.append(Block(path, calls[0].tree, tuple(bool(each) for each in given), follows))
    return blocks, reasons


@torch.no_grad()
def rows_fed(call: str, network: nn.Module, block: Block, samples: Split) -> Rows:
    """What ``network`` feeds to ``block`` on ``samples``.

    Raises:
        DataError: it holds NaN or infinity.
    """
    found: list[Given] = []

    def keep(_: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        found.append((args, kwargs))
        raise _Enough

    hook = network.get_submodule(block.path).register_forward_pre_hook(keep, with_kwargs=True)
    device = device_of(network)
    try:
        for start in range(0, len(samples), _BATCH):
            with contextlib.suppress(_Enough):
                network(*(column[start : start + _BATCH].to(device) for column in samples.inputs))
    finally:
        hook.remove()
    columns = zip(*(_leaves(given) for given in found), strict=True)
    leaves = tuple(
        torch.cat(column) if rows else column[0]
        for column, rows in zip(columns, block.by_sample, strict=True)
    )
    for leaf, rows in zip(leaves, block.by_sample, strict=True):
        if rows:
            _check(call, block.path, "is fed", leaf)
    return Rows(block, leaves)


def rows_after(block: Block, before: Rows, made: Tensor) -> Rows:
    """What ``block`` is fed if it ``follows`` the one that was fed ``before`` and made ``made``."""
    assert block.follows is not None
    leaves = tuple(made if place < 0 else before.leaves[place] for place in block.follows)
    return Rows(block, leaves)


@torch.no_grad()
def rows_made(call: str, module: nn.Module, rows: Rows) -> Tensor:
    """What ``module`` makes of ``rows``: [N, ...].

    Raises:
        DataError: it holds NaN or infinity.
    """
    parts = []
    for chosen in torch.split(torch.arange(len(rows), device=device_of(module)), _BATCH):
        args, kwargs = rows.fed(chosen)
        parts.append(only_tensor(module(*args, **kwargs)))
    made = torch.cat(parts)
    _check(call, rows.block.path, "makes", made)
    return made


def only_tensor(made: Any) -> Tensor:
    """The tensor in what a block makes, which has one."""
    (tensor,) = (leaf for leaf in _leaves(made) if isinstance(leaf, Tensor))
    return tensor


def device_of(network: nn.Module) -> torch.device:
    """Where the first parameter is."""
    first = next(network.parameters(), None)
    return torch.device("cpu") if first is None else first.device


def _check(call: str, path: str, what: str, values: Tensor) -> None:
    if not bool(torch.isfinite(values).all()):
        raise DataError(
            f"{call}, block {path!r}",
            f"what it {what} became NaN or infinite",
            "Check the calibration samples and the weights",
        )


def _probe(network: nn.Module, paths: Sequence[str], samples: Split, count: int) -> dict[str, list[_Call]]:
    """The calls of each path in a forward pass of ``count`` samples, in the order in which they end."""
    found: dict[str, list[_Call]] = {}
    hooks = []
    for path in paths:
        begun: list[tuple[Given, list[Any], list[int]]] = []

        def begin(
            _: nn.Module,
            args: tuple[Any, ...],
            kwargs: dict[str, Any],
            begun: list[tuple[Given, list[Any], list[int]]] = begun,
        ) -> None:
            leaves = _leaves((args, kwargs))
            begun.append(((args, kwargs), leaves, _versions(leaves)))

        def end(
            _: nn.Module,
            __: object,
            made: Any,
            path: str = path,
            begun: list[tuple[Given, list[Any], list[int]]] = begun,
        ) -> None:
            tensors = [leaf for leaf in _leaves(made) if isinstance(leaf, Tensor)]
            found.setdefault(path, []).append(_Call(*begun.pop(), tensors, _versions(tensors)))

        module = network.get_submodule(path)
        hooks.append(module.register_forward_pre_hook(begin, with_kwargs=True))
        hooks.append(module.register_forward_hook(end))
    rows = torch.arange(count) % len(samples)
    device = device_of(network)
    try:
        with torch.no_grad():
            network(*(column[rows].to(device) for column in samples.inputs))
    finally:
        for hook in hooks:
            hook.remove()
    return found


def _versions(leaves: Sequence[Any]) -> list[int]:
    """How often each tensor has been written to."""
    return [leaf._version if isinstance(leaf, Tensor) else 0 for leaf in leaves]


def _by_sample(one: Any, other: Any) -> bool | None:
    """Whether a leaf has a row a sample, as it was for two and for three; ``None`` where it is neither so nor alike."""
    if not (isinstance(one, Tensor) and isinstance(other, Tensor)):
        plain = isinstance(one, _PLAIN) or isinstance(other, _PLAIN)
        return None if type(one) is not type(other) or (plain and one != other) else False
    if one.shape == other.shape:
        return False
    rows = one.dim() == other.dim() > 0 and one.shape[1:] == other.shape[1:]
    return True if rows and (len(one), len(other)) == _PROBES else None


def _follows(before: _Call, after: _Call) -> tuple[int, ...] | None:
    """See ``Block.follows``. A tensor that was written to in between is another."""
    known = [*zip(before.given, before.given_versions, strict=True)]
    places = []
    for leaf, version in zip(after.given, after.given_versions, strict=True):
        if not isinstance(leaf, Tensor):
            return None
        if leaf is before.made[0] and version == before.made_versions[0]:
            places.append(-1)
            continue
        same = [place for place, (one, then) in enumerate(known) if one is leaf and then == version]
        if not same:
            return None
        places.append(same[0])
    return tuple(places)


def _leaves(tree: Any) -> list[Any]:
    if isinstance(tree, tuple | list):
        return [leaf for part in tree for leaf in _leaves(part)]
    if isinstance(tree, Mapping):
        return [leaf for part in tree.values() for leaf in _leaves(part)]
    return [tree]


def _rebuilt(tree: Any, leaves: Iterator[Any]) -> Any:
    """``tree`` with other leaves."""
    if isinstance(tree, tuple) and hasattr(tree, "_fields"):
        return type(tree)(*(_rebuilt(part, leaves) for part in tree))
    if isinstance(tree, tuple | list):
        return type(tree)(_rebuilt(part, leaves) for part in tree)
    if isinstance(tree, Mapping):
        return {name: _rebuilt(part, leaves) for name, part in tree.items()}
    return next(leaves)
