"""What a layer's tensors say about the layer: its widths, and the shapes of all that a network owns."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field

from torch import Tensor, nn
from torch.nn.modules.batchnorm import _NormBase
from torch.nn.modules.conv import _ConvNd, _ConvTransposeNd
from torch.nn.parameter import is_lazy

from tinypress.errors import ModelError
from tinypress.layers.depth import Zero, kept_entries
from tinypress.layers.own import own_widths

Size = int | list[int]


@dataclass(frozen=True)
class LayerShape:
    """The widths of one module: plain data that JSON can carry.

    ``module`` is its path, ``kind`` its class name, ``attributes`` the widths that the class keeps as numbers
    (``in_channels``, ``num_features``...) or the entries that a shortened list kept, ``tensors`` the shape of each
    parameter and persistent buffer that the module owns directly, by short name.
    """

    module: str
    kind: str
    attributes: Mapping[str, Size] = field(default_factory=dict)
    tensors: Mapping[str, list[int]] = field(default_factory=dict)


def _linear(layer: nn.Linear) -> dict[str, Size]:
    return {"in_features": layer.weight.shape[1], "out_features": layer.weight.shape[0]}


def _convolution(layer: _ConvNd) -> dict[str, Size]:
    first, second = layer.weight.shape[:2]
    groups = layer.groups
    if isinstance(layer, _ConvTransposeNd):
        return {"in_channels": first, "out_channels": second * groups, "groups": groups}
    if groups == layer.in_channels and groups > 1 and second == 1:
        groups = max(first // (layer.out_channels // layer.in_channels), 1)
    return {"in_channels": second * groups, "out_channels": first, "groups": groups}


def _batch_norm(layer: _NormBase) -> dict[str, Size]:
    owned = layer.weight if layer.weight is not None else layer.running_mean
    return {"num_features": layer.num_features if owned is None else len(owned)}


def _group_norm(layer: nn.GroupNorm) -> dict[str, Size]:
    return {"num_channels": layer.num_channels if layer.weight is None else len(layer.weight)}


def _layer_norm(layer: nn.LayerNorm | nn.RMSNorm) -> dict[str, Size]:
    shape = layer.normalized_shape if layer.weight is None else layer.weight.shape
    return {"normalized_shape": list(shape)}


def _embedding(layer: nn.Embedding | nn.EmbeddingBag) -> dict[str, Size]:
    return {"num_embeddings": layer.weight.shape[0], "embedding_dim": layer.weight.shape[1]}


def _prelu(layer: nn.PReLU) -> dict[str, Size]:
    return {"num_parameters": len(layer.weight)}


def _recurrent(layer: nn.RNNBase) -> dict[str, Size]:
    tensors = owned_tensors(layer)
    return {"input_size": tensors["weight_ih_l0"].shape[1], "hidden_size": tensors["weight_hh_l0"].shape[1]}


# Each class with the attributes it keeps, and the rule that reads them off the tensors.
_Classes = type[nn.Module] | tuple[type[nn.Module], ...]
_RULES: tuple[tuple[_Classes, tuple[str, ...], Callable[..., dict[str, Size]]], ...] = (
    (nn.Linear, ("in_features", "out_features"), _linear),
    (_ConvNd, ("in_channels", "out_channels", "groups"), _convolution),
    (_NormBase, ("num_features",), _batch_norm),
    (nn.GroupNorm, ("num_channels",), _group_norm),
    ((nn.LayerNorm, nn.RMSNorm), ("normalized_shape",), _layer_norm),
    ((nn.Embedding, nn.EmbeddingBag), ("num_embeddings", "embedding_dim"), _embedding),
    (nn.PReLU, ("num_parameters",), _prelu),
    (nn.RNNBase, ("input_size", "hidden_size"), _recurrent),
)  # fmt: skip


def fit_attributes(layer: nn.Module) -> None:
    """Set the widths that ``layer`` keeps as attributes to what its tensors now say, in place.

    A grouped convolution keeps its ``groups``; a depthwise one (``groups == in_channels``) keeps its channel
    multiplier and loses groups. Modules without such attributes are left as they are.
    """
    for classes, _, read in _RULES:
        if isinstance(layer, classes):
            for name, value in read(layer).items():
                setattr(layer, name, tuple(value) if isinstance(value, list) else value)


def has_widths(layer: nn.Module) -> bool:
    """True for the classes whose widths are known by name, and what is derived from them."""
    return any(isinstance(layer, classes) for classes, _, _ in _RULES)


def can_resize(layer: nn.Module) -> bool:
    """True if new tensors and ``fit_attributes`` are all it takes: torch's other modules (LSTM, attention)
    keep widths that would go stale, a user's own module is taken at its tensors."""
    if isinstance(layer, nn.RNNBase) and layer.proj_size:
        return False
    return bool(attributes_of(layer)) or not type(layer).__module__.startswith("torch.")


def owned_tensors(layer: nn.Module) -> dict[str, Tensor]:
    """The parameters and persistent buffers that ``layer`` owns directly, by short name."""
    owned: dict[str, Tensor] = {k: v for k, v in layer._parameters.items() if v is not None}
    hidden = layer._non_persistent_buffers_set
    return owned | {k: v for k, v in layer._buffers.items() if v is not None and k not in hidden}


def parameters_once(model: nn.Module) -> Iterator[tuple[str, nn.Parameter]]:
    """Every parameter with its first full name; one that several modules share comes once."""
    return iter(model.named_parameters(remove_duplicate=True))


def replace_module(model: nn.Module, path: str, new: nn.Module) -> None:
    """Put ``new`` at ``path`` inside ``model``, in place, in the same training mode as what was there.

    Raises:
        ModelError: ``path`` is empty or names no module.
    """
    parent_path, _, name = path.rpartition(".")
    parent = dict(model.named_modules(remove_duplicate=False)).get(parent_path)
    old = None if parent is None else parent._modules.get(name)
    if parent is None or old is None:
        raise ModelError(
            f"replace_module(model, {path!r})",
            "the network has no module of that name",
            "Name a module that named_modules() lists, other than the network itself",
        )
    setattr(parent, name, new.train(old.training))


def structure(model: nn.Module) -> tuple[LayerShape, ...]:
    """The widths of every module that has some or owns tensors, and of every ``nn.Identity``, ``Zero`` and shortened
    list, in module order.

    A module that appears in several places comes once, under its first path.

    Raises:
        ModelError: a lazy module has not seen its first input yet.
    """
    return tuple(
        _shape_of(path, layer)
        for path, layer in model.named_modules()
        if isinstance(layer, nn.Identity | Zero)
        or owned_tensors(layer)
        or own_widths(layer)
        or kept_entries(layer) is not None
    )


def _shape_of(path: str, layer: nn.Module) -> LayerShape:
    tensors = owned_tensors(layer)
    if any(is_lazy(tensor) for tensor in tensors.values()):
        raise ModelError(
            f"structure({path!r})",
            f"the lazy {type(layer).__name__} has no shape yet",
            "Run the network once on an example before it is pressed",
        )
    return LayerShape(
        path, type(layer).__name__, attributes_of(layer), {k: list(v.shape) for k, v in tensors.items()}
    )


def attributes_of(layer: nn.Module) -> dict[str, Size]:
    """The widths that ``layer`` keeps as attributes, as it states them; of a shortened list the entries it kept."""
    kept = kept_entries(layer)
    if kept is not None:
        return {"kept": list(kept)}
    for classes, names, _ in _RULES:
        if isinstance(layer, classes):
            values = {name: getattr(layer, name) for name in names}
            return {k: list(v) if isinstance(v, tuple | list) else v for k, v in values.items()}
    return dict(own_widths(layer))
