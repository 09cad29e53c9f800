"""How each function of the module is called with plain data, and what is seen of its answer, as plain data.

The same probes run in a learner's own process and in a grader's sandbox. They judge nothing: what they return
are the tensors themselves, and the judging is done elsewhere. ``functions`` maps names to the functions under
test; ``inputs`` is what a check drew.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping
from dataclasses import asdict, is_dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from tinypress_course.kit import QuantizedWeight, Schedule, Split, pressing_with
from tinypress_course.models import Plain, layer_data, layer_from, network_data, network_from

Functions = Mapping[str, Any]
Inputs = Mapping[str, Plain]


def call(functions: Functions, function: str, inputs: Inputs) -> dict[str, Plain]:
    """What ``function`` does with ``inputs``: what is seen of its answer, or ``{"error": ..., "message": ...}``."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter(
                "ignore"
            )  # or the answer would depend on who calls: a test makes errors of them
            return PROBES[function](functions, inputs)
    except KeyboardInterrupt:
        raise
    except BaseException as error:  # whatever a learner's function raises is an answer too, exit() as well
        return described(error)


def described(error: BaseException) -> dict[str, Plain]:
    """An error as an answer: its class, those above it, and its text."""
    kinds = [kind.__name__ for kind in type(error).__mro__ if issubclass(kind, BaseException)]
    said = _said(error)
    if kinds[0] == "NotImplementedError" and said:  # torch's own; the exercise's says nothing
        kinds = kinds[1:]
    return {"error": kinds[0], "kinds": kinds, "message": said}


def _said(error: BaseException) -> str:
    try:
        return str(error).encode("utf-8", "replace").decode()[:500]
    except Exception:  # an error that cannot even say what it is
        return "(no text)"


def is_error(answer: Mapping[str, Plain]) -> bool:
    """Whether an answer is an exception."""
    return set(answer) == {"error", "kinds", "message"}


def _count_parameters(functions: Functions, inputs: Inputs) -> dict[str, Plain]:
    counted = functions["CompressionMetrics"].count_parameters(network_from(inputs["model"]))
    return {
        "total": counted.total,
        "trainable": counted.trainable,
        "by_layer": dict(counted.by_layer),
    }


def _calculate_model_size(functions: Functions, inputs: Inputs) -> dict[str, Plain]:
    options = {"bits": inputs["bits"]} if "bits" in inputs else {}
    size = functions["CompressionMetrics"].calculate_model_size(network_from(inputs["model"]), **options)
    return {
        "total_bytes": size.total_bytes,
        "parameter_bytes": size.parameter_bytes,
        "buffer_bytes": size.buffer_bytes,
        "by_dtype": dict(size.by_dtype),
        "by_layer": dict(size.by_layer),
    }


def _analyze_weight_distribution(functions: Functions, inputs: Inputs) -> dict[str, Plain]:
    options = {"near_zero": inputs["near_zero"]} if "near_zero" in inputs else {}
    metrics = functions["CompressionMetrics"]
    summaries = metrics.analyze_weight_distribution(network_from(inputs["model"]), **options)
    return {
        layer: {name: _number(value) for name, value in asdict(each).items()}
        for layer, each in summaries.items()
    }


def _calculate_sparsity(functions: Functions, inputs: Inputs) -> dict[str, Plain]:
    given = inputs["of"]
    return {
        "sparsity": functions["calculate_sparsity"](
            given if isinstance(given, Tensor) else network_from(given)
        )
    }


def _prune_weights_by_magnitude(functions: Functions, inputs: Inputs) -> dict[str, Plain]:
    layer = layer_from(inputs["layer"])
    done = functions["prune_weights_by_magnitude"](layer, inputs["sparsity"])
    return {
        "layer": layer_data(done.model),
        "input_after": layer_data(layer),
        "same_object": done.model is layer,
        "changes": _changes(done),
        "pruned": sorted(done.pruned),
    }


def _prune_model_by_magnitude(functions: Functions, inputs: Inputs) -> dict[str, Plain]:
    model = network_from(inputs["model"])
    options = {"scope": inputs["scope"]} if "scope" in inputs else {}
    done = functions["prune_model_by_magnitude"](model, inputs["sparsity"], **options)
    return {
        "model": network_data(done.model),
        "input_after": network_data(model),
        "changes": _changes(done),
        "pruned": sorted(done.pruned),
    }


def _quantize_layer_weights(functions: Functions, inputs: Inputs) -> dict[str, Plain]:
    layer = layer_from(inputs["layer"])
    options = {name: inputs[name] for name in ("scheme", "per_channel") if name in inputs}
    quantized = functions["quantize_layer_weights"](layer, inputs.get("bits", 8), **options)
    return {
        "packed": quantized.packed,
        "shape": [int(size) for size in quantized.shape],
        "bits": quantized.bits,
        "scheme": quantized.scheme,
        "axis": quantized.axis,
        "scale": quantized.scale,
        "zero_point": quantized.zero_point,
        "input_after": layer_data(layer),
    }


def _dequantize_layer_weights(functions: Functions, inputs: Inputs) -> dict[str, Plain]:
    given = inputs["quantized"]
    quantized = (
        QuantizedWeight(**{**given, "shape": tuple(given["shape"])}) if isinstance(given, dict) else given
    )
    return {"weight": functions["dequantize_layer_weights"](quantized)}


def _distillation_loss(functions: Functions, inputs: Inputs) -> dict[str, Plain]:
    made = functions["DistillationLoss"](temperature=inputs["temperature"], alpha=inputs["alpha"])
    student = inputs["student"].clone().requires_grad_()
    teacher = inputs["teacher"].clone().requires_grad_()
    loss = made(student, teacher, inputs["labels"])
    if loss.numel() == 1 and loss.requires_grad:
        loss.backward()
    return {"loss": loss.detach(), "gradient": student.grad, "is_module": isinstance(made, nn.Module)}


def watched_loss(student_logits: Tensor, teacher_logits: Tensor, labels: Tensor) -> Tensor:
    """The loss by which a training is watched."""
    soft = nn.functional.mse_loss(student_logits, teacher_logits)
    return soft + 0.1 * nn.functional.cross_entropy(student_logits, labels)


def _train_with_distillation(functions: Functions, inputs: Inputs) -> dict[str, Plain]:
    student, teacher = network_from(inputs["student"]), network_from(inputs["teacher"])
    train = Split((inputs["train_inputs"].clone(),), inputs["train_targets"].clone())
    validation = Split((inputs["validation_inputs"].clone(),), inputs["validation_targets"].clone())
    seen: list[dict[str, Plain]] = []
    kept: list[dict[str, Plain]] = []
    made: list[int] = []

    def loss(student_logits: Tensor, teacher_logits: Tensor, labels: Tensor) -> Tensor:
        given = {"student": student_logits, "teacher": teacher_logits, "labels": labels}
        learns = {
            "student_learns": student_logits.requires_grad,
            "teacher_learns": teacher_logits.requires_grad,
        }
        seen.append({name: value.detach().clone() for name, value in given.items()} | learns)
        value = watched_loss(student_logits, teacher_logits, labels)
        broken = inputs.get("broken")
        return value * broken["factor"] if broken and len(seen) > broken["after"] else value

    def keep_zeros(model: nn.Module) -> Callable[[], None]:
        zeros = {name: parameter == 0 for name, parameter in model.named_parameters()}
        made.append(len(seen))

        def keep() -> None:
            kept.append({"calls": len(seen), "gradient": _gradient(model)})
            for name, parameter in model.named_parameters():
                parameter.data.masked_fill_(zeros[name], 0.0)

        return keep

    def run(schedule: Plain) -> Any:
        options: dict[str, Any] = {} if schedule is None else {"loss": loss, "schedule": Schedule(**schedule)}
        if inputs.get("keep_zeros"):
            options["after_step"] = keep_zeros
        return functions["train_with_distillation"](student, teacher, train, validation, **options)

    done = run(inputs["schedule"])
    answer = {
        "model": network_data(done.model),
        "student_after": network_data(student),
        "teacher_after": network_data(teacher),
        "same_object": done.model is student,
        "losses": seen[:400],
        "kept": kept[:400],
        "made": made,
    }
    if "again" in inputs:
        seen.clear()
        run(inputs["again"])
        answer["again"] = seen[:400]
    return answer


def _gradient(model: nn.Module) -> Tensor | None:
    """All gradients in one row; None where some are not there."""
    rows = [None if p.grad is None else p.grad.detach().flatten() for p in model.parameters()]
    there = [row for row in rows if row is not None]
    return torch.cat(there) if there and len(there) == len(rows) else None


def _compute_neuron_importance(functions: Functions, inputs: Inputs) -> dict[str, Plain]:
    layer = layer_from(inputs["layer"])
    options = {name: inputs[name] for name in ("activations", "seed") if name in inputs}
    importance = functions["compute_neuron_importance"]
    answer = {"importance": _detached(importance(layer, inputs.get("method", "l2"), **options))}
    if "again" in inputs:
        options["seed"] = inputs["again"]
        answer["again"] = _detached(importance(layer, inputs.get("method", "l2"), **options))
    return answer


def _prune_layer_neurons(functions: Functions, inputs: Inputs) -> dict[str, Plain]:
    model = network_from(inputs["model"])
    examples = (inputs["example_inputs"],)
    options = {name: inputs[name] for name in ("importance", "seed") if name in inputs}
    if "calibration" in inputs:
        options["calibration"] = (inputs["calibration"],)
    prune = functions["prune_layer_neurons"]
    done = prune(model, inputs["layer"], inputs["ratio"], examples, **options)
    answer = {
        "model": network_data(done.model),
        "input_after": network_data(model),
        "changes": _changes(done),
        **_forward(done.model, examples),
    }
    if "again" in inputs:
        options["seed"] = inputs["again"]
        answer["again"] = network_data(
            prune(model, inputs["layer"], inputs["ratio"], examples, **options).model
        )
    return answer


def _forward(model: nn.Module, examples: tuple[Tensor, ...]) -> dict[str, Plain]:
    """What ``model`` answers to ``examples`` in evaluation mode, or why it does not."""
    try:
        with torch.no_grad():
            return {"output": model.eval()(*examples)}
    except Exception as error:  # a network that does not run is what its check is about
        return {"broke": f"{type(error).__name__}: {error}"[:300]}


def _compare_compression_techniques(functions: Functions, inputs: Inputs) -> dict[str, Plain]:
    asked: list[dict[str, Plain]] = []

    def press(task: Any, recipes: Any, out: Any, **settings: Any) -> str:
        asked.append(
            {
                "task": task,
                "out": str(out),
                "recipes": [_recipe(recipe) for recipe in recipes],
                **{name: settings.get(name) for name in ("engine", "seed")},
            }
        )
        return "the receipt"

    with pressing_with(press):
        answer = functions["compare_compression_techniques"](
            inputs["task"], Path(inputs["out"]), engine=inputs["engine"], seed=inputs["seed"]
        )
    return {"asked": asked, "answer": answer}


def _design_pipeline(functions: Functions, inputs: Inputs) -> dict[str, Plain]:
    design = functions["design_pipeline"]
    budgets = inputs["budget_bytes"]
    if isinstance(budgets, list):
        return {"recipes": [_recipe(design(each, inputs["float_bytes"])) for each in budgets]}
    return {"recipe": _recipe(design(budgets, inputs["float_bytes"]))}


def _recipe(recipe: Any) -> Plain:
    if hasattr(recipe, "model_dump"):
        return recipe.model_dump(mode="json")
    data = asdict(recipe) if is_dataclass(recipe) and not isinstance(recipe, type) else dict(recipe)
    steps = [
        step.model_dump(mode="json") if hasattr(step, "model_dump") else dict(step) for step in data["steps"]
    ]
    return {**data, "steps": steps, "ship": list(data["ship"])}


def _changes(done: Any) -> Plain:
    return [[c.layer, c.what, _number(c.was), _number(c.now)] for c in done.changes]


def _detached(value: Any) -> Plain:
    return value.detach() if isinstance(value, Tensor) else value


def _number(value: Any) -> Plain:
    return value.item() if isinstance(value, Tensor) and value.numel() == 1 else value


PROBES: dict[str, Callable[[Functions, Inputs], dict[str, Plain]]] = {
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
