"""Training-aware quantization (QAT): a network learns to live with its integers.

    prepare   a ``Simulated``: the network with fake-quantized weights and activations (Jacob et al. 2018,
              arXiv:1712.05877, §3), whose steps may be learnt (LSQ: Esser et al. 2020, arXiv:1902.08153)
    train     like any other network: what it learns from is an objective, on labels or on a teacher
    finish    its integers, scales and zero points as a plan

``train_quantized`` does all three.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn

from tinypress.errors import InputError
from tinypress.facts import Change, Compressed, Note, QuantizedValue
from tinypress.float_onnx import to_float_onnx
from tinypress.graph import batch_norm_pairs, trace
from tinypress.graph.run import check_can_run
from tinypress.layers import copy_model
from tinypress.quantize.affine import Scheme
from tinypress.quantize.by_layer import Bits, bits_of, check_bits, kept_float, shown
from tinypress.quantize.calibration import judge_calibration
from tinypress.quantize.fake_value import FakeValue
from tinypress.quantize.fake_weight import FakeWeight
from tinypress.quantize.fold import fold_batch_norms
from tinypress.quantize.folded_norm import use_moments_when_rounded
from tinypress.quantize.fused import fused_nodes, origins
from tinypress.quantize.layer import weight_of
from tinypress.quantize.rows import Grid
from tinypress.quantize.same_values import same_values
from tinypress.quantize.shared import choose
from tinypress.quantize.simulated import Simulated, as_shipped, freezing, keeping_zeros
from tinypress.quantize.values import calibrate
from tinypress.task import Split
from tinypress.train.checkpoint import Checkpoint
from tinypress.train.hooks import MakeHook
from tinypress.train.loop import Objective, Progress, Schedule, fit, silent
from tinypress.train.processes import Processes

_SAME = 8  # samples by which values of the two graphs are told apart


@dataclass(frozen=True)
class QuantizedTraining:
    """How weights and activations are quantized while a network is trained.

    ``bits`` is 2 to 8 for every Linear and convolution (and each of ``embeddings``) but those to ``keep``; or the bits
    of each layer by its name, where layers without a name stay float. Activations become 8-bit integers around the
    layers with 8 symmetric bits and one scale a channel, which is what integer kernels take, unless ``weights_only``.
    With ``learned_step`` the scales are learnt; else those of weights are their ranges, and those of activations
    follow theirs. ``freeze`` is the share of the steps after which batch norm's statistics and those ranges stay; where
    a layer has fewer than 8 bits, the statistics begin as those of the rounded network.
    """

    bits: Bits = 8
    scheme: Scheme = "symmetric"
    group_size: int | None = None
    weights_only: bool = False
    learned_step: bool = True
    freeze: float = 0.5
    embeddings: Collection[str] = ()
    keep: Collection[str] = ()


def train_quantized(
    model: nn.Module | Compressed,
    train: Split,
    validation: Split,
    objective: Objective,
    example_inputs: tuple[Tensor, ...],
    how: QuantizedTraining | None = None,
    *,
    calibration: Split | None = None,
    schedule: Schedule | None = None,
    hooks: Sequence[MakeHook] = (),
    checkpoint: Checkpoint | None = None,
    processes: Processes | None = None,
    progress: Progress = silent,
) -> Compressed:
    """Train a copy of ``model`` as its quantized self, and quantize it.

    The network that comes back has batch norm folded and holds the dequantized weights, as from ``quantize_model``;
    the plan holds the integers. Pruned zeros stay exactly zero. Dropout is off, as in the traced graph.

    Args:
        objective: ``supervised(loss)``, or any other that calls the network it is given on ``inputs``.
        example_inputs: one tensor [B, ...] per argument of the network.
        how: by default all weights and activations to 8 bits with learnt steps.
        calibration: where the activations' steps begin; by default 256 samples of ``train``.
        schedule: by default 3 epochs at a learning rate of 0.0001.
        hooks, checkpoint, processes: as in ``tinypress.train.fit``.

    Raises:
        InputError: a setting out of range, or a network that is quantized already.
        ModelError: nothing can be quantized, the network cannot be traced, or the loss became NaN.
        DataError: the samples became NaN or infinite, or nothing can be learnt from those of ``calibration``.
    """
    before = model if isinstance(model, Compressed) else Compressed(model)
    how = how if how is not None else QuantizedTraining()
    schedule = schedule if schedule is not None else Schedule(epochs=3, learning_rate=1e-4)
    if calibration is None:
        order = torch.randperm(len(train), generator=torch.Generator().manual_seed(schedule.seed))
        calibration = train.take(order[:256])
    ready = prepare_training(before, calibration, example_inputs, how)
    fitted = fit(
        ready.model,
        train,
        validation,
        objective,
        schedule,
        hooks=[*training_hooks(ready, how), *hooks],
        checkpoint=None
        if checkpoint is None
        else replace(checkpoint, key=f"{checkpoint.key} {described(how)}".strip()),
        processes=processes,
        progress=progress,
        what="training quantized",
    )
    steps = Change("", "training steps", 0, fitted.steps)
    return finish_training(replace(ready, model=fitted.model, changes=(*ready.changes, steps)))


def prepare_training(
    model: nn.Module | Compressed,
    calibration: Split,
    example_inputs: tuple[Tensor, ...],
    how: QuantizedTraining,
) -> Compressed:
    """A ``Simulated`` copy of the network as ``model``, to be trained; ``pruned`` holds the names in it.

    Raises:
        InputError, ModelError, DataError: as ``train_quantized``.
    """
    before = model if isinstance(model, Compressed) else Compressed(model)
    call = f"train_quantized({type(before.model).__name__}, bits={shown(how.bits)}, group_size={how.group_size!r})"
    _check(call, before, how)
    network = copy_model(before.model).eval()
    pairs = batch_norm_pairs(trace(network, example_inputs))
    kept = kept_float(call, network, how.bits, how.embeddings, how.keep)
    choices, left = choose(call, network, frozenset(how.embeddings), kept)
    grids = [Grid(bits_of(choice.names, how.bits), how.scheme, how.group_size) for choice in choices]
    if any(grid.bits < 8 for grid in grids) and len(calibration) > 1:
        first = {choice.names[0]: grid for choice, grid in zip(choices, grids, strict=True)}
        use_moments_when_rounded(call, network, first, calibration)
    folded = fold_batch_norms(network, pairs)
    traced = trace(folded, example_inputs)
    check_can_run(call, traced)
    weights = []
    for choice, grid in zip(choices, grids, strict=True):
        named = f"{call}, layer {choice.names[0]!r}"
        weight = weight_of(named, folded.get_submodule(choice.names[0]))
        tensors = tuple(f"{name}.weight" for name in choice.names)
        weights.append(FakeWeight(named, tensors, weight, grid, how.learned_step))
    integer = [name for fake in weights if fake.grid == Grid(8) for name in fake.names]
    values: list[FakeValue] = []
    notes: list[Note] = list(left)
    if not how.weights_only and integer:
        notes += judge_calibration(call, before, calibration)
        proto = to_float_onnx(folded, example_inputs)
        found = calibrate(proto, integer, calibration)
        passed = origins(proto.graph)
        own = [name for name in found if passed.get(name) not in found]
        few = tuple(column[:_SAME] for column in calibration.inputs)
        nodes = same_values(call, traced, folded, proto, own, few)
        bounds = {kernel.output: kernel.high for kernel in fused_nodes(proto.graph, integer)}
        values = _fake_values(found, nodes, passed, bounds, how.learned_step)
    elif not how.weights_only:
        text = "no layer has 8 symmetric bits and one scale a channel: activations stay float"
        notes.append(Note("TP214", "note", None, text))
    simulated = Simulated(network, traced, pairs, weights, values).to(_device(network))
    pruned = frozenset(f"model.{name}" for name in before.pruned)
    return Compressed(simulated, before.changes, (*before.notes, *notes), pruned)


def training_hooks(ready: Compressed, how: QuantizedTraining) -> tuple[MakeHook, ...]:
    """What must hold around each step: statistics freeze in time, pruned zeros stay zero."""
    return freezing(how.freeze), keeping_zeros(ready.pruned)


def finish_training(trained: Compressed) -> Compressed:
    """The quantized network of a trained ``Simulated``, with its plan."""
    simulated = trained.model
    assert isinstance(simulated, Simulated)
    network, plan = as_shipped(simulated)
    parameters = dict(network.named_parameters())
    changes = [
        Change(name.removesuffix(".weight"), "bits", 8 * parameters[name].element_size(), weight.bits)
        for name, weight in plan.weights.items()
        if name in parameters
    ]
    pruned = frozenset(name.removeprefix("model.") for name in trained.pruned) & set(parameters)
    return Compressed(network, (*trained.changes, *changes), trained.notes, pruned, plan)


def described(how: QuantizedTraining) -> str:
    """The settings as text, so that a training goes on with those that it began with."""
    bits = how.bits if isinstance(how.bits, int) else sorted(how.bits.items())
    return repr(replace(how, bits=0, embeddings=sorted(how.embeddings), keep=sorted(how.keep))) + repr(bits)


def _fake_values(
    found: Mapping[str, QuantizedValue],
    nodes: Mapping[str, str],
    passed: Mapping[str, str],
    bounds: Mapping[str, float],
    learned: bool,
) -> list[FakeValue]:
    """One for each node; a value that passes another's integers on goes with that one."""
    of_node: dict[str, list[str]] = {}
    for name in found:
        of_node.setdefault(nodes[passed.get(name, name) if passed.get(name) in found else name], []).append(
            name
        )
    return [
        FakeValue(node, tuple(names), found[names[0]], learned, bounds.get(names[0], math.inf))
        for node, names in of_node.items()
    ]


def _check(call: str, before: Compressed, how: QuantizedTraining) -> None:
    if before.plan is not None:
        raise InputError(
            call, "the network is quantized already", "Train before it is quantized, or only with this"
        )
    check_bits(call, how.bits, how.scheme, how.group_size)
    if isinstance(how.freeze, bool) or not 0 <= how.freeze <= 1:
        raise InputError(call, f"freeze is {how.freeze!r}", "Give a share of the steps, from 0 to 1")


def _device(model: nn.Module) -> torch.device:
    first = next(model.parameters(), None)
    return torch.device("cpu") if first is None else first.device
