"""A stock network rebuilt to the widths of a cut one. The shapes may be hostile: nothing that a file names is
imported, run or looked up as an attribute, and a shape that does not fit the stock network is refused."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn
from torch.nn.modules.conv import _ConvNd

from tinypress.errors import ModelError
from tinypress.layers.copying import copy_model
from tinypress.layers.depth import Zero, kept_entries, shorten
from tinypress.layers.own import set_width
from tinypress.layers.pairs import Pair, can_be_paired, paired
from tinypress.layers.widths import (
    LayerShape,
    attributes_of,
    can_resize,
    fit_attributes,
    has_widths,
    owned_tensors,
    replace_module,
)


def rebuild(stock: nn.Module, shapes: Sequence[LayerShape], *, limit_elements: int = 2**31) -> nn.Module:
    """A copy of ``stock`` whose layers have the given shapes, ready for ``load_state_dict``.

    Resized tensors hold zeros; dtype, device, ``requires_grad`` and shared parameters are those of the stock.
    A module of kind ``Identity`` or ``Zero`` is replaced by one, a list keeps the entries that it kept; a bias may
    be added or left out.

    Args:
        stock: the network as its builder returns it.
        shapes: what ``structure`` said of the network to be rebuilt; may come from an untrusted file.
        limit_elements: the most elements that all tensors together may have.

    Raises:
        ModelError: the shapes are not those of a resized ``stock``; the text names the module.
    """
    model = copy_model(stock)
    _check_form(shapes)
    _shorten_lists(model, shapes)
    _replace_by_identity(model, shapes)
    _replace_by_pairs(model, shapes)
    by_path = dict(model.named_modules(remove_duplicate=False))
    listed: set[nn.Module] = set()
    resized: dict[Tensor, tuple[str, Tensor]] = {}
    elements = 0
    for shape in shapes:
        layer = by_path.get(shape.module)
        if layer is None:
            raise _refuse(shape.module, "the stock network has no module of that name")
        if type(layer).__name__ != shape.kind:
            raise _refuse(
                shape.module, f"it is a {type(layer).__name__} in the stock network, not a {shape.kind}"
            )
        if layer in listed:
            raise _refuse(shape.module, "it is listed twice")
        listed.add(layer)
        elements += sum(math.prod(sizes) for sizes in shape.tensors.values())
        if elements > limit_elements:
            raise _refuse(shape.module, f"the network would have more than {limit_elements} elements")
        _resize(layer, shape, resized)
    for path, layer in model.named_modules():
        if layer not in listed and owned_tensors(layer):
            raise _refuse(path, "it owns tensors in the stock network and is not listed")
        for short, tensor in owned_tensors(layer).items():
            if tensor in resized:
                raise _refuse(path, f"its {short} is shared with {resized[tensor][0]} but was not resized")
    return model


_IN_PLACE: Mapping[str, type[nn.Module]] = {"Identity": nn.Identity, "Zero": Zero}


def _refuse(module: object, problem: str) -> ModelError:
    return ModelError(
        f"rebuild(module={str(module)[:200]!r})",
        problem,
        "Rebuild from the stock network that these shapes were made from",
    )


def _whole(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _check_form(shapes: Sequence[LayerShape]) -> None:
    for shape in shapes:
        if not (isinstance(shape.module, str) and isinstance(shape.kind, str)):
            raise _refuse(shape.module, "its name and kind are not text")
        if not (isinstance(shape.attributes, Mapping) and isinstance(shape.tensors, Mapping)):
            raise _refuse(shape.module, "its attributes and tensors are not mappings")
        for name, sizes in shape.tensors.items():
            if not (isinstance(sizes, list | tuple) and len(sizes) <= 16 and all(map(_whole, sizes))):
                raise _refuse(shape.module, f"the shape of {str(name)[:80]!r} is not a list of whole numbers")
            if any(size < 0 or size >= 2**40 for size in sizes):
                raise _refuse(shape.module, f"the shape of {str(name)[:80]!r} is out of range")


def _shorten_lists(model: nn.Module, shapes: Sequence[LayerShape]) -> None:
    """Lists in the order of the modules: an inner one is named by where it stands in the shortened outer one."""
    for shape in shapes:
        if shape.kind != "ModuleList":
            continue
        kept = shape.attributes.get("kept")
        if list(shape.attributes) != ["kept"] or not isinstance(kept, list) or shape.tensors:
            raise _refuse(shape.module, "a list says which entries it kept, and nothing else")
        before = kept_entries(dict(model.named_modules(remove_duplicate=False)).get(shape.module, model))
        if before is not None:  # the stock was itself shortened, from a list that is counted in here too
            kept = [before.index(place) if place in before else -1 for place in kept]
        try:
            shorten(model, shape.module, kept)
        except ModelError as error:
            raise _refuse(shape.module, error.problem) from error


def _replace_by_identity(model: nn.Module, shapes: Sequence[LayerShape]) -> None:
    listed = {shape.module for shape in shapes}
    if len(listed) != len(shapes):
        raise _refuse(", ".join(sorted(listed)), "a module is listed twice")
    for shape in shapes:
        if shape.kind not in _IN_PLACE:
            continue
        paths = dict(model.named_modules(remove_duplicate=False))
        old = paths.get(shape.module)
        if old is None or old is model:
            raise _refuse(shape.module, "the stock network has no module of that name")
        if type(old).__name__ == shape.kind:
            continue
        new = _IN_PLACE[shape.kind]()
        for path, layer in paths.items():
            if layer is old and (path == shape.module or path not in listed):
                replace_module(model, path, new)


def _replace_by_pairs(model: nn.Module, shapes: Sequence[LayerShape]) -> None:
    """Put two layers where ``LAYER.0`` and ``LAYER.1`` are listed and the stock has one, as factorising does."""
    listed = {shape.module: shape for shape in shapes}
    for path, layer in list(model.named_modules()):
        first, second = listed.get(f"{path}.0"), listed.get(f"{path}.1")
        if not path or path in listed or first is None or second is None or list(layer.children()):
            continue
        sizes = first.tensors.get("weight", [])
        separable = len(sizes) > 2 and sizes[1] == 1 and first.attributes.get("groups") == sizes[0]
        pair: Pair = "separable" if separable else "low rank"
        weight = owned_tensors(layer).get("weight")
        if weight is None or not can_be_paired(layer, pair) or not 0 < (sizes or [0])[0] <= weight.numel():
            raise _refuse(path, "it is two layers here and cannot be in the stock network")
        replace_module(model, path, paired(layer, pair, sizes[0]))


def _resize(layer: nn.Module, shape: LayerShape, resized: dict[Tensor, tuple[str, Tensor]]) -> None:
    """Give ``layer`` tensors of the declared shapes; ``resized`` maps a stock tensor to what took its place,
    so that modules which shared a parameter go on sharing it."""
    owned = owned_tensors(layer)
    same = True
    for name in owned.keys() - shape.tensors.keys():
        if name != "bias":
            raise _refuse(shape.module, f"its {name} is missing")
        layer.register_parameter(name, None)
        same = False
    for name, sizes in shape.tensors.items():
        old = owned.get(name)
        if old is not None and list(old.shape) == list(sizes):
            continue
        if name not in layer._parameters and name not in layer._buffers:
            raise _refuse(shape.module, f"a {shape.kind} has no {str(name)[:80]!r}")
        if any(size == 0 for size in sizes):
            raise _refuse(shape.module, f"the shape {list(sizes)} of {name} has no elements")
        if old is None:
            _add_bias(layer, shape, name)
        elif not can_resize(layer):
            raise _refuse(shape.module, f"a {shape.kind} cannot be resized")
        elif old.dim() != len(sizes):
            raise _refuse(shape.module, f"its {name} has {old.dim()} dimensions, not {len(sizes)}")
        else:
            _, new = resized.setdefault(old, (f"{shape.module}.{name}", _zeros_like(old, sizes)))
            if list(new.shape) != list(sizes):
                raise _refuse(shape.module, f"its {name} is shared and is given two shapes")
            setattr(layer, name, new)
        same = False
    if isinstance(layer, _ConvNd) and _whole(groups := shape.attributes.get("groups")):
        layer.groups = max(int(groups), 1)  # type: ignore[arg-type]
    if not has_widths(layer) and kept_entries(layer) is None:
        for name, value in shape.attributes.items():
            if not _whole(value) or not 0 < value < 2**31:  # type: ignore[operator]
                raise _refuse(shape.module, f"its {str(name)[:80]} is {str(value)[:80]}")
            set_width(layer, name, int(value))  # type: ignore[arg-type]
    if not same:
        fit_attributes(layer)
    if attributes_of(layer) != dict(shape.attributes) or any(
        not all(map(_whole, value if isinstance(value, list) else [value]))
        for value in shape.attributes.values()
    ):
        raise _refuse(
            shape.module,
            f"its attributes {str(dict(shape.attributes))[:200]} are not {attributes_of(layer)}, "
            "which its tensors ask for",
        )


def _add_bias(layer: nn.Module, shape: LayerShape, name: str) -> None:
    """A bias that the stock lacks: what folding a batch norm into a convolution leaves behind."""
    weight = owned_tensors(layer).get("weight")
    out = shape.attributes.get("out_channels", shape.attributes.get("out_features"))
    if name != "bias" or weight is None or list(shape.tensors[name]) != [out]:
        raise _refuse(shape.module, f"its {name} {list(shape.tensors[name])} is not in the stock network")
    layer.bias = nn.Parameter(torch.zeros(shape.tensors[name], dtype=weight.dtype, device=weight.device))


def _zeros_like(old: Tensor, sizes: Sequence[int]) -> Tensor:
    new = torch.zeros(list(sizes), dtype=old.dtype, device=old.device)
    return nn.Parameter(new, requires_grad=old.requires_grad) if isinstance(old, nn.Parameter) else new
