"""Each of the learner's functions beside the toolkit's on the real network: the same, or where they differ.

One function here for each of theirs. It returns ``None`` where both give the same to the last bit, ``ROUNDING`` where
they agree but for the last bits, ``WORKS`` where many answers are right and theirs is one; otherwise a sentence that
says where they differ.
"""

from __future__ import annotations

import contextlib
import copy
import io
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor, nn

import tinypress
from tinypress import Compressed, Schedule
from tinypress_course.kit import pressing_with
from tinypress_course.run.networks import Given

Verdict = Literal["same", "rounding", "works", "differs", "fails", "missing"]
Functions = Mapping[str, Any]
ROUNDING: Literal["rounding"] = "rounding"
WORKS: Literal["works"] = "works"
GOOD = ("same", ROUNDING, WORKS)
SCOPES: tuple[Literal["global", "layer"], ...] = ("global", "layer")
SCHEMES: tuple[Literal["symmetric", "affine"], ...] = ("symmetric", "affine")


@dataclass(frozen=True)
class Beside:
    """How one function compares, and where it differs."""

    function: str
    verdict: Verdict
    where: str


WORDS: dict[Verdict, str] = {
    "same": "the same to the last bit",
    "rounding": "the same but for rounding",
    "works": "does what it should",
    "differs": "differs",
    "fails": "stops with an error",
    "missing": "not written: the toolkit's own takes its place",
}


def beside(functions: Functions, missing: tuple[str, ...], given: Given) -> Iterator[Beside]:
    """Call every function of the module and the toolkit's on ``given``, one after the other."""
    for name, compare in COMPARISONS.items():
        if name in missing:
            yield Beside(name, "missing", "")
            continue
        try:
            with contextlib.redirect_stdout(io.StringIO()):
                found = compare(functions, given)
        except Exception as error:  # whatever a learner's function raises belongs on the page
            yield Beside(name, "fails", f"{type(error).__name__}: {error}"[:300])
            continue
        if found is None:
            yield Beside(name, "same", "")
        elif found in (ROUNDING, WORKS):
            yield Beside(name, ROUNDING if found == ROUNDING else WORKS, "")
        else:
            yield Beside(name, "differs", found)


def _fields(names: tuple[str, ...], mine: Any, ours: Any, what: str) -> str | None:
    for name in names:
        left, right = getattr(mine, name), getattr(ours, name)
        left, right = (dict(x) if isinstance(x, Mapping) else x for x in (left, right))
        if left != right:
            return f"{name} of {what} is {left}; the toolkit says {right}"
    return None


def _count_parameters(functions: Functions, given: Given) -> str | None:
    mine, ours = (m.count_parameters(given.task.model) for m in _metrics(functions))
    return _fields(("total", "trainable", "by_layer"), mine, ours, "the watch network")


def _calculate_model_size(functions: Functions, given: Given) -> str | None:
    names = ("total_bytes", "parameter_bytes", "buffer_bytes", "by_dtype", "by_layer")
    for bits in (None, 8, 4):
        mine, ours = (m.calculate_model_size(given.task.model, bits=bits) for m in _metrics(functions))
        found = _fields(names, mine, ours, f"the watch network with bits={bits}")
        if found:
            return found
    return None


def _analyze_weight_distribution(functions: Functions, given: Given) -> str | None:
    mine, ours = (m.analyze_weight_distribution(given.task.model) for m in _metrics(functions))
    exact = True
    for layer, right in {"": ours.whole, **ours.by_layer}.items():
        for name in ("count", "mean", "std", "low", "high", "near_zero", "sparsity"):
            left, value = float(getattr(mine[layer], name)), float(getattr(right, name))
            if abs(left - value) > 1e-6 * max(1.0, abs(value)):
                return f"{name} of {layer or 'all weights'} is {left:.6g}; the toolkit says {value:.6g}"
            exact = exact and left == value
    return None if exact else ROUNDING


def _metrics(functions: Functions) -> tuple[Any, Any]:
    return functions["CompressionMetrics"], tinypress.CompressionMetrics


def _calculate_sparsity(functions: Functions, given: Given) -> str | None:
    pruned = tinypress.prune_model_by_magnitude(given.task.model, 0.8).model
    mine, ours = functions["calculate_sparsity"](pruned), tinypress.calculate_sparsity(pruned)
    return (
        None if mine == ours else f"of the network with 80 % zeros it says {mine:.6g}; the toolkit {ours:.6g}"
    )


def _prune_weights_by_magnitude(functions: Functions, given: Given) -> str | None:
    for name, layer in given.layers.items():
        mine = functions["prune_weights_by_magnitude"](layer, 0.8).model
        ours = tinypress.prune_weights_by_magnitude(layer, 0.8).model
        found = _zeros(mine.weight, ours.get_parameter("weight"), f"{name} at 80 %")
        if found:
            return found
    return None


def _prune_model_by_magnitude(functions: Functions, given: Given) -> str | None:
    for scope in SCOPES:
        mine = functions["prune_model_by_magnitude"](given.task.model, 0.8, scope=scope).model
        ours = tinypress.prune_model_by_magnitude(given.task.model, 0.8, scope=scope).model
        for name in given.layers:
            key = f"{name}.weight"
            found = _zeros(
                mine.get_parameter(key), ours.get_parameter(key), f"{name} at 80 %, scope={scope!r}"
            )
            if found:
                return found
    return None


def _zeros(mine: Tensor, ours: Tensor, what: str) -> str | None:
    if mine.shape != ours.shape:
        return f"{what}: the weights became {list(mine.shape)}"
    if torch.equal(mine, ours):
        return None
    places = int(((mine == 0) != (ours == 0)).sum())
    if not places:
        return f"{what}: kept weights have other values"
    counts = [int((tensor == 0).sum()) for tensor in (mine, ours)]
    return f"{what}: {counts[0]} zeros, the toolkit's {counts[1]}; {places} places differ"


def _quantize_layer_weights(functions: Functions, given: Given) -> str | None:
    exact = True
    for scheme in SCHEMES:
        for bits in (8, 4):
            for name, layer in given.layers.items():
                mine = functions["quantize_layer_weights"](layer, bits, scheme=scheme)
                ours = tinypress.quantize_layer_weights(layer, bits, scheme=scheme)
                found = _whole_numbers(mine, ours, f"{name} in {bits} bits, {scheme}")
                if found not in (None, ROUNDING):
                    return found
                exact = exact and found is None
    return None if exact else ROUNDING


def _whole_numbers(mine: Any, ours: Any, what: str) -> str | None:
    if mine.packed.shape != ours.packed.shape:
        return f"{what}: {len(mine.packed)} bytes, the toolkit's {len(ours.packed)}"
    for name in ("scale", "zero_point"):
        left, right = getattr(mine, name).double().flatten(), getattr(ours, name).double().flatten()
        if left.shape != right.shape or not torch.allclose(left, right, rtol=1e-5, atol=0):
            return f"{what}: {name} begins with {left[0]:.6g}, the toolkit's with {right[0]:.6g}"
    unlike = int((mine.packed != ours.packed).sum())
    if unlike > 0.001 * len(ours.packed):
        return f"{what}: {unlike} of {len(ours.packed)} bytes differ"
    return None if not unlike and torch.equal(mine.scale, ours.scale) else ROUNDING


def _dequantize_layer_weights(functions: Functions, given: Given) -> str | None:
    exact = True
    for scheme in SCHEMES:
        for name, layer in given.layers.items():
            packed = tinypress.quantize_layer_weights(layer, 4, scheme=scheme)
            mine = functions["dequantize_layer_weights"](packed)
            ours = tinypress.dequantize_layer_weights(packed)
            if mine.shape != ours.shape or not torch.allclose(mine, ours, rtol=1e-5, atol=1e-7):
                return f"{name} in 4 bits, {scheme}: other weights come back"
            exact = exact and torch.equal(mine, ours)
    return None if exact else ROUNDING


def _distillation_loss(functions: Functions, given: Given) -> str | None:
    torch.manual_seed(0)
    start = given.logits + torch.randn(given.logits.shape)
    exact = True
    for temperature, alpha in ((1.0, 0.5), (4.0, 0.7), (4.0, 1.0)):
        got = []
        for make in (functions["DistillationLoss"], tinypress.DistillationLoss):
            student = start.clone().requires_grad_()
            loss = make(temperature=temperature, alpha=alpha)(student, given.logits, given.labels)
            (gradient,) = torch.autograd.grad(loss, student)
            got.append((loss.detach(), gradient))
        (mine, slope), (ours, due) = got
        if not torch.allclose(mine, ours, rtol=1e-5) or not torch.allclose(slope, due, rtol=1e-4, atol=1e-6):
            return (
                f"T = {temperature:g}, alpha = {alpha:g}: {mine.item():.5g}, the toolkit's {ours.item():.5g}"
            )
        exact = exact and torch.equal(mine, ours) and torch.equal(slope, due)
    return None if exact else ROUNDING


def _train_with_distillation(functions: Functions, given: Given) -> str | None:
    task = given.task
    assert task.train is not None
    part = task.train.take(slice(0, 256))
    torch.manual_seed(0)
    student = type(task.model)(width=8)
    start = copy.deepcopy(student.state_dict())
    loss, schedule = tinypress.DistillationLoss(), Schedule(epochs=3, learning_rate=3e-3)
    after = []
    for train in (functions["train_with_distillation"], tinypress.train_with_distillation):
        done: Compressed = train(student, task.model, part, task.validation, loss=loss, schedule=schedule)
        after.append(_loss_of(done.model, given, loss))
    if any(not torch.equal(value, start[name]) for name, value in student.state_dict().items()):
        return "the student that came in was changed"
    before = _loss_of(student, given, loss)
    if after[0] > before - 0.5 * (before - after[1]):
        return f"3 epochs take its loss from {before:.3g} to {after[0]:.3g}, the toolkit's to {after[1]:.3g}"
    return None if after[0] == after[1] else WORKS


@torch.no_grad()
def _loss_of(network: nn.Module, given: Given, loss: Callable[..., Tensor]) -> float:
    return float(loss(copy.deepcopy(network).eval()(given.batch), given.logits, given.labels))


def _compute_neuron_importance(functions: Functions, given: Given) -> str | None:
    exact = True
    for method in ("l1", "l2", "variance"):
        for name, layer in given.layers.items():
            mine = functions["compute_neuron_importance"](layer, method)
            ours = tinypress.compute_neuron_importance(layer, method)
            if mine.shape != ours.shape or not torch.allclose(mine.double(), ours.double(), rtol=1e-4):
                return f"{method} of {name}: other numbers"
            exact = exact and torch.equal(mine, ours)
    return None if exact else ROUNDING


def _prune_layer_neurons(functions: Functions, given: Given) -> str | None:
    exact = True
    for name in ("conv1", "conv2", "conv3"):
        nets = [
            prune(given.task.model, name, 0.5, given.task.example_inputs).model.eval()
            for prune in (functions["prune_layer_neurons"], tinypress.prune_layer_neurons)
        ]
        widths = [len(net.get_parameter(f"{name}.weight")) for net in nets]
        if widths[0] != widths[1]:
            return f"{name} at a half: {widths[0]} neurons stay, the toolkit's {widths[1]}"
        with torch.no_grad():
            mine, ours = (net(given.batch) for net in nets)
        if not torch.allclose(mine, ours, rtol=1e-4, atol=1e-5):
            gap = (mine - ours).abs().max().item()
            return f"{name} at a half: the smaller networks' logits differ by up to {gap:.3g}"
        exact = exact and torch.equal(mine, ours)
    return None if exact else ROUNDING


def _compare_compression_techniques(functions: Functions, given: Given) -> str | None:
    asked: list[Any] = []

    def press(task: Any, recipes: Any, out: Any, **settings: Any) -> None:
        asked.append(list(recipes))

    with pressing_with(press):
        functions["compare_compression_techniques"](given.task, Path("runs"), engine=None, seed=0)
    if len(asked) != 1:
        return f"it presses {len(asked)} times"
    roles = [recipe.role for recipe in asked[0]]
    controls = roles.count("control")
    if roles[:1] != ["baseline"] or not controls:
        return f"{len(roles)} recipes, the first is a {roles[0] if roles else 'nothing'}, {controls} controls"
    return WORKS


def _design_pipeline(functions: Functions, given: Given) -> str | None:
    for share in (1.3, 0.4, 0.1, 0.04):
        recipe = functions["design_pipeline"](int(share * 1_000_000), 1_000_000)
        steps = [step if isinstance(step, dict) else step.model_dump() for step in recipe.steps]
        if (share > 1.2) != (not steps):
            return f"for a budget of {share:g} of the float bytes it has {len(steps)} steps"
        if steps and steps[-1]["technique"] != "quantize":
            return f"for a budget of {share:g} of the float bytes its last step is {steps[-1]['technique']}"
    return WORKS


COMPARISONS: dict[str, Callable[[Functions, Given], str | None]] = {
    "count_parameters": _count_parameters,
    "calculate_model_size": _calculate_model_size,
    "analyze_weight_distribution": _analyze_weight_distribution,
    "calculate_sparsity": _calculate_sparsity,
    "prune_weights_by_magnitude": _prune_weights_by_magnitude,
    "prune_model_by_magnitude": _prune_model_by_magnitude,
    "quantize_layer_weights": _quantize_layer_weights,
    "dequantize_layer_weights": _dequantize_layer_weights,
    "DistillationLoss": _distillation_loss,
    "train_with_distillation": _train_with_distillation,
    "compute_neuron_importance": _compute_neuron_importance,
    "prune_layer_neurons": _prune_layer_neurons,
    "compare_compression_techniques": _compare_compression_techniques,
    "design_pipeline": _design_pipeline,
}
