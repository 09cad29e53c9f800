"""The shipped file against the integer reference, layer by layer: what is simulated is what ships.

The file is run in ONNX Runtime as it will be, with the integers between its layers read out beside the answer. Each
layer of the reference is fed the integers that the runtime fed to its own, so that a difference stands where it arises.
Convolutions, products, sums and average pooling have to give the same integers, on processors where the runtime's
kernels do not saturate; every other value (what comes out of
LSTM, layer norm, softmax, a table, a layer that the runtime did not fuse) may differ by one step in a few places, where
floats lie on the edge of two integers. A product that rounds its input at run time writes floats, which have to be the
same but for the rounding of their last bits; those of an LSTM that does so go by steps of a 255th of their range.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper

from tinypress.errors import ShipError
from tinypress.facts import QuantPlan
from tinypress.measure.machine import machine
from tinypress.quantize.reference import Program, Step, UnknownOperator, evaluate, program_of
from tinypress.quantize.reference.program import Array
from tinypress.receipt import Equality
from tinypress.runtimes.fused import written_by_integer_kernels
from tinypress.runtimes.onnx import OnnxRunner, open_onnx, optimized_graph, read_model
from tinypress.ship.read_plan import plan_of_file
from tinypress.ship.signs import exact_on, said_exact_on

EXACT = frozenset({"product", "sum", "average"})
ONE_STEP_AT_MOST = 0.01
"""Share of a value's integers that may be one step off, where floats come into it."""
_OF_SOFTMAX = 0.25  # the same of the integer kernel, which sums exponentials out of a table
MOST_SAMPLES = 16
_MACS = 1_000_000_000  # that the reference may take: a second or so


@dataclass(frozen=True)
class Compared:
    """One value of the network: the layer that writes it, how many integers there were, how many differ, how far.

    Floats of layers that round their input at run time are compared as if they were integers.
    """

    layer: str
    kind: str
    value: str
    integers: int
    differing: int
    most_steps: int


def equality_of_file(path: Path, inputs: tuple[Array, ...], isa: Sequence[str]) -> Equality | None:
    """How the file at ``path`` compares with the reference of its own integers on this machine.

    ``None`` for a file whose activations are float, that has several outputs, or whose network has an operator that
    the reference does not know.

    Raises:
        ArtifactError: the file cannot be opened.
        ShipError: the runtime computes something else on this machine.
    """
    written = read_model(path)
    proto, plan = plan_of_file(written)
    if (not plan.values and not plan.dynamic) or len(proto.graph.output) != 1:
        return None
    try:
        compared, count = compare_with_reference(path.name, written, proto, plan, inputs)
    except UnknownOperator:
        return None
    return Equality(
        requantization="float32",
        samples=count,
        layers=len(compared),
        bit_equal=sum(layer.differing == 0 for layer in compared),
        exact_on=said_exact_on(written) or exact_on(written),
        checked_on=tuple(isa),
    )


def compare_with_reference(
    name: str,
    written: onnx.ModelProto,
    proto: onnx.ModelProto,
    plan: QuantPlan,
    inputs: tuple[Array, ...],
    threads: int = 1,
) -> tuple[tuple[Compared, ...], int]:
    """Compare the file ``written`` from the float graph ``proto`` and ``plan`` with the reference.

    Args:
        name: of the file, for the error.
        inputs: one array [N, ...] per input; only as many samples are used as take a second or so.

    Returns:
        what was compared, in the order of the network, and on how many samples.

    Raises:
        ShipError: a layer differs by more than it may; the first one is named.
        UnknownOperator: the network has an operator that the reference does not know.
    """
    program = program_of(proto, plan)
    runner, watched = _watched(written, program, threads)
    named = dict(zip(program.inputs, inputs, strict=True))
    _, *first = runner.session.run(None, {name: array[:1] for name, array in named.items()})
    macs = _macs(program, {name: array.size for name, array in zip(watched, first, strict=True)})
    count = min(len(inputs[0]), MOST_SAMPLES, max(1, _MACS // max(1, macs)))
    fed = {name: array[:count] for name, array in named.items()}
    answer: Array
    answer, *integers = runner.session.run(None, fed)
    own = dict(zip(watched, integers, strict=True))
    fused = written_by_integer_kernels(optimized_graph(written.SerializeToString()))
    here = bool(set(exact_on(written)) & set(machine(threads).isa))
    found: list[Compared] = []

    def compare(step: Step, ours: Array) -> Array:
        theirs: Array | None = own.get(step.output)
        if theirs is None:
            return ours
        integers = step.output in program.plan.values
        if integers or step.at_run_time:  # all others are what such a layer is fed
            exact = _is_exact(step, fused) if integers else step.kind == "dynamic"
            found.append(_compared(name, step, ours, theirs, here and exact, integers))
        return theirs

    ours = evaluate(program, fed, "float32", compare)
    _check_answer(name, program, ours, answer)
    return tuple(found), count


def _watched(written: onnx.ModelProto, program: Program, threads: int) -> tuple[OnnxRunner, list[str]]:
    """The file with the integers of every value that is computed as further outputs: no kernel is split by that."""
    moved = {step.output for step in program.steps if step.kind == "pass"}
    quantized = {node.output[0] for node in written.graph.node if node.op_type == "QuantizeLinear"}
    watched = [name for name in program.plan.values if name not in moved and f"{name}:q" in quantized]
    floats = _floats(written, program)
    proto = onnx.ModelProto()
    proto.CopyFrom(written)
    for name in watched:
        proto.graph.output.append(helper.make_tensor_value_info(f"{name}:q", TensorProto.UINT8, None))
    for name in floats:
        proto.graph.output.append(helper.make_tensor_value_info(name, TensorProto.FLOAT, None))
    return open_onnx(proto.SerializeToString(), threads, outputs=None), [*watched, *floats]


def _floats(written: onnx.ModelProto, program: Program) -> list[str]:
    """What layers that round their input at run time read and write, and the file holds as floats."""
    made = {name for node in written.graph.node for name in node.output if name}
    known = {*program.plan.values, *(value.name for value in written.graph.output)}
    wanted: dict[str, None] = {}
    for step in program.steps:
        if step.fused is not None and step.at_run_time:
            own = (
                (step.output,) if step.kind == "dynamic" else tuple(name for name in step.node.output if name)
            )
            wanted |= dict.fromkeys((*step.fused.inputs, *own))
    return [name for name in wanted if name in made and name not in known]


def _compared(
    name: str, step: Step, ours: Array, theirs: Array, exact: bool, integers: bool = True
) -> Compared:
    call = f"write_onnx({name})"
    if ours.shape != theirs.shape:
        raise ShipError(
            call,
            f"layer {step.layer!r} gives {list(theirs.shape)} numbers, the plan {list(ours.shape)}",
            _REMEDY,
        )
    off = np.abs(ours.astype(np.float64) - theirs.astype(np.float64)) / (
        1 if integers else _step(step, theirs)
    )
    steps = np.nan_to_num(np.rint(off), nan=_FAR, posinf=_FAR)
    differing, most = int(np.count_nonzero(steps)), int(steps.max(initial=0))
    share = _OF_SOFTMAX if step.node.op_type == "Softmax" else ONE_STEP_AT_MOST
    allowed = 0 if exact else max(1, int(share * steps.size))
    if most > 1 or differing > allowed:
        raise ShipError(
            call,
            f"layer {step.layer!r} does not compute what the plan says: {differing} of {steps.size} numbers of "
            f"{step.output!r} differ, by up to {most} steps",
            _REMEDY,
        )
    return Compared(step.layer, step.kind, step.output, steps.size, differing, most)


def _step(step: Step, written: Array) -> float:
    """What floats may be off by twice as little as: rounding's worth of a product, a 255th of its range of an LSTM."""
    real = written.astype(np.float64)
    size = (
        float(np.ptp(real)) / 255 if step.kind == "recurrent" else 1e-6 * float(np.abs(real).max(initial=0.0))
    )
    return max(size, float(np.finfo(np.float32).tiny))


_FAR = 2.0**60  # steps


def _is_exact(step: Step, fused: Collection[str]) -> bool:
    """Whether the integers have to be the same: those of a kernel that the runtime has fused.

    A product may write floats that are rounded after it.
    """
    in_one = f"{step.output}:q" in fused or any(name in fused for name in step.node.output)
    return step.kind in EXACT and in_one


def _check_answer(name: str, program: Program, ours: Array, theirs: Array) -> None:
    """The answer is float: the same up to the order in which floats are summed."""
    last = next(step for step in program.steps if step.output == program.output)
    size = float(np.abs(ours).max(initial=0.0))
    off = float(np.abs(ours.astype(np.float64) - theirs.astype(np.float64)).max(initial=0.0))
    if not off <= 1e-4 * size:
        raise ShipError(
            f"write_onnx({name})",
            f"layer {last.layer!r} does not compute what the plan says: its answer is off by {off:.3g} of {size:.3g}",
            _REMEDY,
        )


def _macs(program: Program, sizes: Mapping[str, int]) -> int:
    """Multiply-accumulate operations of the integer products, from how many integers each writes."""
    weights = program.plan.weights
    fan_in = {}
    for step in program.steps:
        if step.kind == "recurrent":  # four gates a unit, each of inputs and state
            fan_in[step.output] = 4 * sum(weights[name].shape[1] for name in step.node.input[1:3])
        elif step.fused is not None and step.fused.weight is not None:
            fan_in[step.output] = int(np.prod(weights[step.fused.weight].shape[1:]))
    return sum(size * fan_in.get(name, 0) for name, size in sizes.items())


_REMEDY = (
    "Do not ship it: the writer or the runtime is at fault. The float file or the archive of the same network are not "
    "concerned"
)
