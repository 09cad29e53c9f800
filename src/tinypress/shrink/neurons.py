"""Structured pruning: remove neurons, of one layer or of the whole network, so that it really gets smaller."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import cast

from torch import Tensor, nn

from tinypress.errors import InputError, ModelError, TinypressError
from tinypress.facts import Change, Compressed, Note
from tinypress.graph import Traced, trace
from tinypress.layers import copy_model
from tinypress.protocols import Shrink
from tinypress.shrink.activity import record_activity
from tinypress.shrink.cutting import Cut
from tinypress.shrink.distance import check_forward
from tinypress.shrink.groups import Group, Survey, has_neurons, neuron_dim, note, survey
from tinypress.shrink.importance import Importance, check_method, group_importance, least_important
from tinypress.shrink.keep import check_paths, held_by
from tinypress.shrink.surgery import Outcome, operate


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
    """Remove the round(ratio * width) least important neurons of ``layer`` with all that hangs on them.

    Gone with a neuron are its weights and bias, its batch norm, its places in the layers that read it, and
    the neurons of other layers that it is added to. At least one neuron stays; among equally important
    ones the earlier index goes first. What is left computes what the old network computed with the removed
    neurons read as zero. A layer whose neurons cannot be followed is left alone, with a note.

    Args:
        model: the network; not changed. Its training mode is that of the result.
        layer: path of a linear layer or convolution, as in ``named_modules()``.
        ratio: fraction of the neurons to remove, 0 <= ratio < 1.
        example_inputs: one tensor [B, ...] per argument of ``forward``.
        importance: ``l1``, ``l2``, ``variance``, ``activation`` or ``random``; of several layers whose outputs
            are added, each one's importance is divided by its mean and they are summed.
        calibration: samples for ``activation``, one tensor [N, ...] per argument of ``forward``.
        seed: of ``random``.

    Raises:
        InputError: a ratio outside [0, 1), an unknown importance, or no calibration for ``activation``.
        ModelError: no such layer, a layer without neurons, the network's output layer, NaN in what neurons are
            scored by, or a network that does not run or cannot be traced.
    """
    call = f"prune_layer_neurons({type(model).__name__}, {layer!r}, {ratio!r}, importance={importance!r})"
    _check_settings(call, model, ratio, importance, calibration)
    _check_layer(call, model, layer)
    traced = trace(model, example_inputs)
    found = survey(traced, model)
    name = _weight_name(model, layer)
    dim = neuron_dim(model.get_submodule(layer))
    group = next((g for g in found.groups if g.slice_of(name, dim)), None)
    if group is None:
        path = name.rpartition(".")[0]
        fence = found.left.get(path)
        if fence is not None and fence.why == "output":
            raise ModelError(
                call,
                f"the neurons of {layer!r} are the network's output",
                "Name a layer before it: the head keeps one neuron for each class",
            )
        return Compressed(copy_model(model), notes=(note(path, fence, model),))
    return _shrink_groups(call, model, [group], ratio, (traced, found), importance, calibration, seed)


def shrink_model(
    model: nn.Module,
    ratio: float,
    example_inputs: tuple[Tensor, ...],
    *,
    importance: str = "l2",
    calibration: tuple[Tensor, ...] | None = None,
    seed: int = 0,
    shrink: Shrink = prune_layer_neurons,
    keep: Sequence[str] = (),
) -> Compressed:
    """Remove ``ratio`` of the neurons of every layer that can lose some.

    Layers whose outputs are added or otherwise tied lose the same neurons, once. All are scored on the network
    as it came in, before any is cut. The g-th group draws its ``random`` importance with ``seed + g``.

    Args:
        model: the network; not changed.
        ratio: fraction of the neurons to remove from each layer, 0 <= ratio < 1.
        example_inputs: one tensor [B, ...] per argument of ``forward``.
        importance: see ``prune_layer_neurons``.
        calibration: see ``prune_layer_neurons``.
        seed: of ``random``.
        shrink: what removes the neurons of one layer. Another function than ``prune_layer_neurons`` is called
            for one layer after the other, each time on the result so far, and its network is run. It begins
            with the last layer, so that what comes into a neuron is still whole when the neuron is scored.
        keep: paths of layers, or of modules with all that is in them, that keep their neurons.

    Raises:
        InputError: as ``prune_layer_neurons``.
        ModelError: as ``prune_layer_neurons``; or no layer can lose neurons; or what ``shrink`` returned does
            not run or has lost the shape of its output.
    """
    call = f"shrink_model({type(model).__name__}, {ratio!r}, importance={importance!r})"
    _check_settings(call, model, ratio, importance, calibration)
    check_paths(call, model, keep)
    traced = trace(model, example_inputs)
    found = survey(traced, model)
    notes = tuple(note(layer, fence, model) for layer, fence in found.left.items())
    chosen, kept = [], []
    for group in found.groups:
        held = held_by(group.producers, keep)
        odd = next((p for p in group.producers if not has_neurons(model.get_submodule(p))), None)
        if odd is not None and (importance == "activation" or shrink is not prune_layer_neurons):
            kind = type(model.get_submodule(odd)).__name__
            by = "its activity" if importance == "activation" else "this engine"
            text = f"{odd} ({kind}) keeps all its neurons: {by} knows linear layers and convolutions alone"
            kept.append(Note("TP303", "note", odd, text))
        elif held is None:
            chosen.append(group)
        else:
            text = f"{', '.join(group.producers)}: all neurons are kept as asked (keep={held!r})"
            kept.append(Note("TP303", "note", group.producers[0], text))
    notes = (*notes, *kept)
    if not chosen:
        reasons = "; ".join(n.text for n in notes) or "it has no linear layer or convolution"
        raise ModelError(
            call,
            f"no layer can lose neurons ({reasons})",
            "Prune single weights or quantize instead, or give it a hidden layer",
        )
    if shrink is prune_layer_neurons:
        done = _shrink_groups(call, model, chosen, ratio, (traced, found), importance, calibration, seed)
    else:
        done = _shrink_by(call, model, chosen, ratio, example_inputs, importance, calibration, seed, shrink)
    return Compressed(done.model, done.changes, (*notes, *done.notes), done.pruned, done.plan)


def _shrink_groups(
    call: str,
    model: nn.Module,
    groups: Sequence[Group],
    ratio: float,
    graph: tuple[Traced, Survey],
    importance: str,
    calibration: tuple[Tensor, ...] | None,
    seed: int,
) -> Compressed:
    activity: dict[str, Tensor] = {}
    if importance == "activation" and calibration is not None:
        paths = [path for group in groups for path in group.producers]
        activity = record_activity(call, model, paths, calibration)
    cuts, notes = [], []
    for position, group in enumerate(groups):
        scores = group_importance(model, group, cast(Importance, importance), activity, seed + position)
        cut = Cut(group, least_important(group, scores, ratio))
        if cut.units:
            cuts.append(cut)
        elif ratio > 0:
            first = group.producers[0]
            text = f"{first} keeps its {group.width} neurons: {ratio:g} of them is less than one"
            notes.append(Note("TP303", "note", first, text))
    outcome: Outcome = operate(model, cuts, *graph)
    return Compressed(outcome.model, outcome.changes, (*notes, *outcome.notes))


def _shrink_by(
    call: str,
    model: nn.Module,
    groups: Sequence[Group],
    ratio: float,
    example_inputs: tuple[Tensor, ...],
    importance: str,
    calibration: tuple[Tensor, ...] | None,
    seed: int,
    shrink: Shrink,
) -> Compressed:
    done = Compressed(copy_model(model))
    changes: list[Change] = []
    notes: list[Note] = []
    for position, group in reversed(list(enumerate(groups))):
        layer = group.producers[0]
        name = getattr(shrink, "__name__", type(shrink).__name__)
        remedy = f"Let {name} return a network that runs on example_inputs and keeps its output's shape"
        try:
            done = shrink(
                done.model,
                layer,
                ratio,
                example_inputs,
                importance=importance,
                calibration=calibration,
                seed=seed + position,
            )
        except TinypressError:
            raise
        except Exception as error:
            problem = f"{name} failed at layer {layer!r} ({type(error).__name__}: {error})"
            raise ModelError(call, problem, remedy) from error
        returned: object = done
        if not isinstance(returned, Compressed):
            problem = f"{name} returned a {type(returned).__name__} for layer {layer!r}, not a Compressed"
            raise ModelError(call, problem, remedy)
        failure = check_forward(done.model, model, tuple(example_inputs))
        if failure is not None:
            raise ModelError(call, f"{name} broke the network at layer {layer!r} ({failure})", remedy)
        changes[:0] = done.changes
        notes[:0] = done.notes
    return Compressed(done.model, tuple(changes), tuple(notes), done.pruned, done.plan)


def _check_settings(
    call: str, model: object, ratio: object, importance: object, calibration: tuple[Tensor, ...] | None
) -> None:
    if not isinstance(model, nn.Module):
        raise ModelError(call, f"model is a {type(model).__name__}", "Give a torch.nn.Module")
    if (
        not isinstance(ratio, int | float)
        or isinstance(ratio, bool)
        or math.isnan(ratio)
        or not 0 <= ratio < 1
    ):
        raise InputError(
            call,
            f"ratio is {ratio!r}, not a fraction with 0 <= ratio < 1",
            "Give the fraction of neurons to remove, e.g. 0.5",
        )
    check_method(call, importance)
    if importance == "activation" and calibration is None:
        raise InputError(
            call,
            "the importance 'activation' needs calibration samples",
            "Give calibration=(inputs,), one tensor per argument of forward(), or choose 'l2'",
        )


def _check_layer(call: str, model: nn.Module, layer: str) -> None:
    check_paths(call, model, [layer])
    kind = model.get_submodule(layer)
    if not has_neurons(kind):
        named = [name for name, module in model.named_modules() if has_neurons(module)]
        raise ModelError(
            call,
            f"{layer!r} is a {type(kind).__name__}, which has no neurons of its own",
            f"Name a linear layer or a convolution: {', '.join(named) or 'this network has none'}",
        )


def _weight_name(model: nn.Module, layer: str) -> str:
    """The first full name of the layer's weight, by which the graph knows it."""
    weight = model.get_submodule(layer).weight
    return next((name for name, p in model.named_parameters() if p is weight), f"{layer}.weight")
