"""Which weights of a network are quantized: each tensor once, under all the names that it has."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor, nn

from tinypress.errors import InputError, ModelError
from tinypress.facts import Note
from tinypress.quantize.inputs import Layer

_LEFT_FLOAT = (
    nn.RNNBase,
    nn.MultiheadAttention,
    nn.Bilinear,
    nn.EmbeddingBag,
    nn.ConvTranspose1d,
    nn.ConvTranspose2d,
    nn.ConvTranspose3d,
)


@dataclass(frozen=True, eq=False)
class Choice:
    """One weight: the layers that own it, and every name of each. A layer that stands under two names has both."""

    layers: tuple[Layer | nn.Embedding, ...]
    names: tuple[str, ...]


def choose(
    call: str, model: nn.Module, embeddings: frozenset[str], keep: frozenset[str]
) -> tuple[list[Choice], list[Note]]:
    """The weights to quantize in the order of the network, and a note for each layer that stays float.

    Raises:
        InputError: a name in ``embeddings`` or ``keep`` is not that of such a layer.
        ModelError: no weight is left to quantize.
    """
    found: dict[int, list[tuple[str, Layer | nn.Embedding]]] = {}
    notes: list[Note] = []
    for name, layer in model.named_modules(remove_duplicate=False):
        if isinstance(layer, Layer | nn.Embedding):
            if isinstance(layer.weight, nn.Parameter):
                found.setdefault(id(layer.weight), []).append((name, layer))
            else:
                notes.append(_left(name, f"the weight of this {type(layer).__name__} is computed"))
        elif isinstance(layer, _LEFT_FLOAT) or _owns_matrix(layer):
            notes.append(_left(name, f"{type(layer).__name__} is not quantized here"))
    names = {name: layer for owners in found.values() for name, layer in owners}
    _check_names(call, names, embeddings, keep)
    choices = []
    for owners in found.values():
        reason = _reason(owners, embeddings, keep)
        if reason is None:
            layers = tuple({id(layer): layer for _, layer in owners}.values())
            choices.append(Choice(layers, tuple(name for name, _ in owners)))
        else:
            notes.append(_left(owners[0][0], reason))
    if not choices:
        raise ModelError(call, "there is no Linear or convolution to quantize", "Name another technique")
    return choices, notes


def _reason(
    owners: list[tuple[str, Layer | nn.Embedding]], embeddings: frozenset[str], keep: frozenset[str]
) -> str | None:
    """Why a weight keeps its floats."""
    if any(name in keep for name, _ in owners):
        return "it is among those to keep"
    tables = [name for name, layer in owners if isinstance(layer, nn.Embedding)]
    if not tables or any(name in embeddings for name in tables):
        return None
    if len(owners) > len(tables):
        return f"its weight is that of the embedding {tables[0]!r}, which is not among those to quantize"
    return "an Embedding is quantized only where it is named"


def _check_names(
    call: str, known: dict[str, Layer | nn.Embedding], embeddings: frozenset[str], keep: frozenset[str]
) -> None:
    for name in sorted(embeddings):
        if not isinstance(known.get(name), nn.Embedding):
            tables = [other for other, layer in known.items() if isinstance(layer, nn.Embedding)]
            raise InputError(call, f"embeddings: {name!r} is no Embedding", f"The network has {tables}")
    for name in sorted(keep):
        if name not in known:
            raise InputError(
                call, f"keep: {name!r} is no layer that could be quantized", f"Choose from {list(known)}"
            )


def _owns_matrix(layer: nn.Module) -> bool:
    """Whether a layer of another kind has a weight of two dimensions or more that would be expected to shrink."""
    weight = layer._parameters.get("weight")
    return isinstance(weight, Tensor) and weight.dim() > 1


def _left(name: str, reason: str) -> Note:
    return Note("TP210", "note", name, f"{reason}: it keeps its float weights")
