"""Which modules of a network are its blocks: small enough to be learnt by themselves, large enough to hang together.

A residual block or a layer of a transformer is one (Li et al. 2021, arXiv:2102.05426, §3.2, find that such parts serve
better than single layers and than whole stages). They are looked for from the outside in.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from torch import nn

_CONTAINERS = (nn.Sequential, nn.ModuleList, nn.ModuleDict)


def blocks_of(network: nn.Module, layers: Sequence[str]) -> list[str]:
    """Paths of modules that together hold each of ``layers`` once; the path of the network itself is ``""``.

    A block is the outermost module with at most a quarter of all layers, or half of them where a container holds
    another module of the same class beside it. Containers are gone into where what they hold has several layers
    itself. A layer that no block holds is one by itself.
    """

    def inside(path: str) -> list[str]:
        start = f"{path}." if path else ""
        return [name for name in layers if name == path or name.startswith(start)]

    def within(path: str, most: int) -> Iterator[str]:
        held = inside(path)
        if not held:
            return
        module = network.get_submodule(path)
        children = {f"{path}.{name}" if path else name: child for name, child in module.named_children()}
        container = isinstance(module, _CONTAINERS)
        of_parts = isinstance(module, nn.ModuleList | nn.ModuleDict) or (
            container and any(len(inside(name)) > 1 for name in children)
        )
        if path in layers or (path and len(held) <= most and not of_parts):
            yield path
            return
        kinds = [type(child) for child in children.values()]
        for name, child in children.items():
            repeated = container and kinds.count(type(child)) > 1
            yield from within(name, max(1, len(layers) // (2 if repeated else 4)))

    return list(within("", 0))
