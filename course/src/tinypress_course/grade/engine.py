"""A learner's four techniques as an ``Engine``: each call goes to the sandbox and comes back as plain data.

What comes back was made by a learner's code. It is put into copies of the parent's own layers, and only where it has
the kinds and sizes that it must have.
"""

from __future__ import annotations

import copy
import math
from collections import OrderedDict
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from tinypress import Change, Compressed, DistillationLoss, Engine, QuantizedWeight
from tinypress_course.checks.base import Answer
from tinypress_course.models import Plain, layer_data, layer_from, network_data
from tinypress_course.probes import is_error

PARTS = {
    "score": "prune_weights_by_magnitude",
    "quantize": "quantize_layer_weights",
    "loss": "DistillationLoss",
    "shrink": "prune_layer_neurons",
}
Ask = Callable[[str, Mapping[str, Plain]], Answer]

# The watch network as a chain: its layers by name, in the order in which its forward() calls them.
CHAIN = (
    "conv1", "norm1", "relu", "pool1", "conv2", "norm2", "relu", "pool2",
    "conv3", "norm3", "relu", "average", "flatten", "dropout", "head",
)  # fmt: skip


class Refused(Exception):
    """What came back from the sandbox cannot be used; the text says why, beginning with the function's name."""


def engine_of(ask: Ask, own: frozenset[str], name: str) -> Engine:
    """An engine whose parts in ``own``, names of functions, are asked for; the others are the toolkit's."""
    toolkit = Engine()
    proxies: dict[str, Any] = {
        "score": _score(ask),
        "quantize": _quantize(ask),
        "loss": _make_loss(ask),
        "shrink": _shrink(ask),
    }
    chosen = {p: proxies[p] if function in own else getattr(toolkit, p) for p, function in PARTS.items()}
    return Engine(**chosen, name=name)


def asked(ask: Ask, function: str, inputs: Mapping[str, Plain]) -> Answer:
    """The answer of ``function``, which is no error.

    Raises:
        Refused: it is one.
    """
    answer = ask(function, inputs)
    if is_error(answer):
        raise Refused(f"{function} raised {answer['error']}: {answer['message'][:200]}")
    return answer


def _score(ask: Ask) -> Callable[..., Compressed]:
    def prune_weights_by_magnitude(layer: nn.Module, sparsity: float) -> Compressed:
        name = PARTS["score"]
        answer = asked(ask, name, {"layer": layer_data(layer), "sparsity": float(sparsity)})
        pruned = copy.deepcopy(layer)
        weight = _tensor(name, answer, "layer", "state", "weight")
        if weight.shape != pruned.weight.shape or weight.dtype != pruned.weight.dtype:
            raise Refused(f"{name} gave weights {list(weight.shape)} for {list(pruned.weight.shape)}")  # type: ignore[arg-type]
        pruned.weight = nn.Parameter(weight)
        return Compressed(pruned)

    return prune_weights_by_magnitude


def _quantize(ask: Ask) -> Callable[..., QuantizedWeight]:
    def quantize_layer_weights(
        layer: nn.Module, bits: int = 8, *, scheme: Any = "symmetric", per_channel: bool = True
    ) -> QuantizedWeight:
        name = PARTS["quantize"]
        settings = {"bits": bits, "scheme": scheme, "per_channel": per_channel}
        answer = asked(ask, name, {"layer": layer_data(layer), **settings})
        shape, axis = tuple(layer.weight.shape), answer.get("axis")  # type: ignore[arg-type]
        tensors = {field: _tensor(name, answer, field) for field in ("packed", "scale", "zero_point")}
        if answer.get("shape") != list(shape) or answer.get("bits") != bits or answer.get("scheme") != scheme:
            raise Refused(f"{name} gave another shape, number of bits or scheme than it was asked for")
        if axis not in (None, 0) or isinstance(axis, bool):
            raise Refused(f"{name} gave scales along axis {axis!r}")
        sizes = {field: tensor.numel() for field, tensor in tensors.items()}
        scales = 1 if axis is None else shape[0]
        if sizes != {"packed": math.ceil(math.prod(shape) * bits / 8), "scale": scales, "zero_point": scales}:
            raise Refused(f"{name} gave tensors of other lengths than {bits} bits for each weight need")
        return QuantizedWeight(
            packed=tensors["packed"].to(torch.uint8).flatten(),
            shape=shape,
            bits=bits,
            scheme=scheme,
            axis=axis,
            scale=tensors["scale"].float().flatten(),
            zero_point=tensors["zero_point"].to(torch.int32).flatten(),
        )

    return quantize_layer_weights


class _AskedLoss(torch.autograd.Function):
    """A loss whose value and gradient were computed in the sandbox."""

    @staticmethod
    def forward(ctx: Any, student: Tensor, value: Tensor, gradient: Tensor) -> Tensor:
        ctx.save_for_backward(gradient)
        return value.clone()

    @staticmethod
    def backward(ctx: Any, *grad_outputs: Tensor) -> Any:
        (gradient,) = ctx.saved_tensors
        return grad_outputs[0] * gradient, None, None


def _make_loss(ask: Ask) -> Callable[..., Any]:
    name = PARTS["loss"]

    def make(temperature: float, alpha: float) -> Callable[[Tensor, Tensor, Tensor], Tensor]:
        DistillationLoss(temperature, alpha)  # refuses what is out of range

        def loss(student_logits: Tensor, teacher_logits: Tensor, labels: Tensor) -> Tensor:
            answer = asked(
                ask,
                name,
                {
                    "student": student_logits.detach(),
                    "teacher": teacher_logits.detach(),
                    "labels": labels,
                    "temperature": temperature,
                    "alpha": alpha,
                },
            )
            value, gradient = _tensor(name, answer, "loss"), _tensor(name, answer, "gradient")
            if value.numel() != 1 or gradient.shape != student_logits.shape:
                raise Refused(
                    f"{name} gave a loss {list(value.shape)} with a gradient {list(gradient.shape)}"
                )
            kept = gradient.to(student_logits.dtype)
            return _AskedLoss.apply(student_logits, value.reshape(()).to(student_logits.dtype), kept)  # type: ignore[no-any-return, no-untyped-call]

        return loss

    return make


def _shrink(ask: Ask) -> Callable[..., Compressed]:
    def prune_layer_neurons(
        model: nn.Module,
        layer: str,
        ratio: float,
        example_inputs: tuple[Tensor, ...],
        *,
        importance: str = "l2",
        calibration: tuple[Tensor, ...] | None = None,
        seed: int = 0,
    ) -> Compressed:
        name = PARTS["shrink"]
        inputs = {
            "model": network_data(chain_of(model)),
            "layer": layer,
            "ratio": float(ratio),
            "example_inputs": example_inputs[0],
            "importance": importance,
            "seed": seed,
        }
        if importance == "activation" and calibration is not None:
            inputs["calibration"] = calibration[0]
        answer = asked(ask, name, inputs)
        smaller = onto(model, answer.get("model"))
        was, now = (_width(net.get_submodule(layer)) for net in (model, smaller))
        return Compressed(smaller, changes=(Change(layer, "neurons", was, now),))

    return prune_layer_neurons


def chain_of(model: nn.Module) -> nn.Sequential:
    """The watch network as layers that run one after the other, under their own names, in the same mode."""
    layers = [
        (f"{name}{at}" if name == "relu" else name, _link(model, name)) for at, name in enumerate(CHAIN)
    ]
    return nn.Sequential(OrderedDict(layers)).train(model.training)


def onto(model: nn.Module, data: Plain) -> nn.Module:
    """A copy of the watch network ``model`` with the layers of the chain ``data``, none of them larger than before.

    Raises:
        Refused: the chain has other layers, or tensors of other kinds or larger ones.
    """
    function = PARTS["shrink"]
    chain = network_data(chain_of(model))["layers"]
    given = data.get("layers") if isinstance(data, dict) else None
    if not isinstance(given, list) or len(given) != len(chain):
        raise Refused(f"{function} gave no network with the layers of the one that it got")
    smaller = copy.deepcopy(model)
    for was, now in zip(chain, given, strict=True):
        if not isinstance(now, dict) or (now.get("name"), now.get("kind")) != (was["name"], was["kind"]):
            raise Refused(f"{function} gave another layer in place of {was['name']}")
        if was["state"]:
            setattr(smaller, was["name"], _resized(function, was, now.get("state"), model.training))
    return smaller


def _link(model: nn.Module, name: str) -> nn.Module:
    if name == "relu":
        return nn.ReLU()
    return nn.Flatten() if name == "flatten" else model.get_submodule(name)


def _resized(function: str, was: dict[str, Plain], state: Plain, training: bool) -> nn.Module:
    """The layer ``was`` with the tensors of ``state``, its widths read off them."""
    old = was["state"]
    if not isinstance(state, dict) or state.keys() != old.keys():
        raise Refused(f"{function} gave {was['name']} without some of its tensors, or with others")
    for key, tensor in state.items():
        fits = isinstance(tensor, Tensor) and tensor.dtype == old[key].dtype and tensor.ndim == old[key].ndim
        if not fits or any(
            now > before or now < 1 for now, before in zip(tensor.shape, old[key].shape, strict=True)
        ):
            raise Refused(f"{function} gave {was['name']}.{key} larger than it was, or of another kind")
    width, options = len(state["weight"]), dict(was["options"])
    sizes = {"Linear": ("out_features", "in_features"), "Conv1d": ("out_channels", "in_channels")}
    if was["kind"] in sizes:
        outputs, inputs = sizes[was["kind"]]
        options |= {outputs: width, inputs: state["weight"].shape[1]}
    else:
        options |= {"num_features": width}
    layer: nn.Module = layer_from({"kind": was["kind"], "options": options, "state": state})
    return layer.train(training)


def _width(layer: nn.Module) -> int:
    return len(layer.weight)  # type: ignore[arg-type]


def _tensor(function: str, answer: Answer, *path: str) -> Tensor:
    value: Any = answer
    for key in path:
        value = value.get(key) if isinstance(value, Mapping) else None
    if not isinstance(value, Tensor) or not bool(torch.isfinite(value).all()):
        raise Refused(f"{function} gave no finite tensor as {'.'.join(path)}")
    return value
