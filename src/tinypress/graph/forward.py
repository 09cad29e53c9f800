"""One forward pass on the example, with the errors that a user can act on."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from tinypress.errors import InputError, ModelError
from tinypress.layers import named_tensors


def describe(inputs: tuple[Tensor, ...]) -> str:
    """The shapes of ``inputs`` as error texts show them."""
    return "[" + ", ".join(str(tuple(x.shape)) for x in inputs) + "]"


def tensors_of(output: Any) -> tuple[Tensor, ...]:
    """Every tensor in what a network returned: a tensor, or tuples, lists and mappings of them."""
    if isinstance(output, Tensor):
        return (output,)
    if isinstance(output, Mapping):
        output = tuple(output.values())
    if isinstance(output, tuple | list):
        return tuple(tensor for part in output for tensor in tensors_of(part))
    return ()


def forward_eval(model: nn.Module, inputs: tuple[Tensor, ...]) -> Any:
    """``model(*inputs)`` in eval mode without gradients; every module's training flag is put back."""
    training = [(module, module.training) for module in model.modules()]
    model.eval()
    try:
        with torch.no_grad():
            # copies, because a forward() may write into what it is given
            return model(*(x.clone() for x in inputs))
    finally:
        for module, flag in training:
            module.training = flag


def check_example(call: str, model: nn.Module, example_inputs: object) -> tuple[Tensor, ...]:
    """Run the network on its example and return the tensors that come out.

    Raises:
        InputError: ``example_inputs`` is not a tuple of tensors.
        ModelError: the forward pass fails, returns no tensor, or returns NaN.
    """
    check_inputs(call, model, example_inputs)
    assert isinstance(example_inputs, tuple | list)
    shapes = describe(tuple(example_inputs))
    try:
        outputs = tensors_of(forward_eval(model, tuple(example_inputs)))
    except Exception as error:
        raise ModelError(
            call,
            f"the network does not run on example_inputs of shapes {shapes} "
            f"({type(error).__name__}: {first_line(error)})",
            "Give inputs of the shapes and dtypes that forward() expects",
        ) from error
    if not outputs:
        raise ModelError(call, "the network returns no tensor", "Return a tensor or a tuple of tensors")
    if any(x.is_floating_point() and bool(torch.isnan(x).any()) for x in outputs):
        raise ModelError(call, *_nan_source(model, shapes))
    return outputs


def check_inputs(call: str, model: nn.Module, example_inputs: object) -> None:
    """Check what can be told of an example without running the network.

    Raises:
        InputError: it is not a tuple of tensors, holds nothing, or the network has no values.
    """
    if not (
        isinstance(example_inputs, tuple | list)
        and example_inputs
        and all(isinstance(x, Tensor) for x in example_inputs)
    ):
        raise InputError(
            call,
            f"example_inputs is {_kind(example_inputs)}, not a tuple of tensors",
            "Give one tensor per argument of forward(), such as (x,)",
        )
    problem = _without_values(model, tuple(example_inputs))
    if problem is not None:
        raise InputError(call, problem, "Give one or more real samples, and a network that is loaded")


def _without_values(model: nn.Module, example_inputs: tuple[Tensor, ...]) -> str | None:
    parameters, buffers = named_tensors(model)
    for x in example_inputs:
        if x.dim() and not x.numel():
            return f"an example of shape {describe((x,))} holds nothing"
    if any(x.is_meta for x in (*example_inputs, *parameters.values(), *buffers.values())):
        return "a tensor has no values (device meta)"
    return None


def _kind(example_inputs: object) -> str:
    if not isinstance(example_inputs, tuple | list):
        return f"a {type(example_inputs).__name__}"
    other = next((type(x).__name__ for x in example_inputs if not isinstance(x, Tensor)), None)
    return "empty" if other is None else f"a {type(example_inputs).__name__} with a {other} in it"


def _nan_source(model: nn.Module, shapes: str) -> tuple[str, str]:
    for name, tensor in model.state_dict().items():
        if isinstance(tensor, Tensor) and tensor.is_floating_point() and bool(torch.isnan(tensor).any()):
            return f"{name!r} holds NaN", "Load the weights of a training that did not diverge"
    return (
        f"the network returns NaN on example_inputs of shapes {shapes}",
        "Give an example as the network sees in use, and check its layers for divisions by zero",
    )


def first_line(error: BaseException) -> str:
    """The first line of the exception's text that says something, without a trailing full stop."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[0].rstrip(".") if lines else "no message"
