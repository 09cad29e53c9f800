"""What a number does not say aloud: one function a finding, each returning its text or nothing."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from tinypress.facts import Note, Severity
from tinypress.measure.artifact import ArtifactFacts
from tinypress.measure.islands import Island
from tinypress.press.choose import PassedOver, meets
from tinypress.receipt import Candidate, Finding, Layer, Machine, Receipt
from tinypress.ship.signs import DOT_PRODUCTS


@dataclass(frozen=True)
class Seen:
    """A measured candidate beside its baseline."""

    candidate: Candidate
    baseline: Candidate
    facts: ArtifactFacts
    machine: Machine


def _sparsity(candidate: Candidate) -> float:
    return 1 - candidate.nonzero_parameters / max(1, candidate.parameters)


def zeros_save_no_bytes(seen: Seen) -> str | None:
    zeros = _sparsity(seen.candidate)
    if seen.candidate.artifact.runtime != "onnxruntime" or zeros < 0.3:
        return None
    return (
        f"{zeros:.0%} of the parameters are zero, and ONNX stores every one of them: "
        "the zeros make this file no smaller. The archive stores them as a bitmap"
    )


def zeros_save_no_time(seen: Seen) -> str | None:
    zeros = _sparsity(seen.candidate)
    latency = seen.candidate.latency_ms
    if zeros < 0.3 or latency is None or seen.candidate.macs != seen.baseline.macs:
        return None
    runtime = "ONNX Runtime" if seen.candidate.artifact.runtime == "onnxruntime" else "PyTorch"
    return f"{runtime} multiplies by the zeros ({zeros:.0%} of the parameters) as by any number: they save no time"


def slower(seen: Seen) -> str | None:
    latency = seen.candidate.latency_ms
    if latency is None or latency.ratio_to_baseline.low <= 1 or seen.candidate.role == "baseline":
        return None
    ratio = latency.ratio_to_baseline
    here, there = seen.candidate.artifact.runtime, seen.baseline.artifact.runtime
    between = f", in {here}, where the baseline runs in {there}" if here != there else ""
    return f"it takes {ratio.value:.2f}x the baseline's time [{ratio.low:.2f}, {ratio.high:.2f}]{between}"


def time_lags_macs(seen: Seen) -> str | None:
    latency, baseline = seen.candidate.latency_ms, seen.baseline
    if latency is None or not seen.candidate.macs or not baseline.macs:
        return None
    if seen.candidate.artifact.runtime != baseline.artifact.runtime:  # then it is the runtime that differs
        return None
    macs = seen.candidate.macs / baseline.macs
    if macs > 0.8 or latency.ratio_to_baseline.low < 1.5 * macs:
        return None
    return (
        f"MACs fell to {macs:.2f}x but time to {latency.ratio_to_baseline.value:.2f}x: on a network this small "
        "memory traffic and the cost of calling each operator weigh more than arithmetic"
    )


def float_in_torch(seen: Seen) -> str | None:
    if seen.candidate.artifact.runtime != "torch":
        return None
    packed = [layer.name for layer in seen.candidate.layers if layer.bits < 16]
    if not packed:
        return None
    return (
        f"the archive stores {len(packed)} layers as integers, and PyTorch computes with them in float: "
        "bytes are saved, time is not"
    )


def float_layers(seen: Seen) -> str | None:
    quantized = any(layer.bits <= 8 for layer in seen.candidate.layers)
    names = [name for name in seen.facts.float_layers if name not in seen.facts.unpacked_layers]
    if not quantized or not names:
        return None
    return f"these layers stayed in float: {', '.join(names)}"


def unpacked_to_float(seen: Seen) -> str | None:
    if not seen.facts.unpacked_layers:
        return None
    return (
        f"the runtime turns the integers of these layers into floats before it computes: "
        f"{', '.join(seen.facts.unpacked_layers)}. Their bytes are saved in the file, not in memory, and no time is"
    )


def stored_twice(seen: Seen) -> str | None:
    alike: dict[tuple[object, ...], list[Layer]] = {}
    for layer in seen.candidate.layers:
        if layer.bytes:
            key = tuple(sorted(layer.weight_shape)), layer.bits, layer.histogram.model_dump_json()
            alike.setdefault(key, []).append(layer)
    twice = [layers for layers in alike.values() if len(layers) > 1]
    if seen.candidate.artifact.runtime != "onnxruntime" or not twice:
        return None
    spared = sum(layer.bytes for layers in twice for layer in layers[1:])
    names = "; ".join(" and ".join(layer.name for layer in layers) for layers in twice)
    return (
        f"these layers hold the same weight, and the file stores it for each ({spared} bytes more): {names}"
    )


def not_compared(seen: Seen) -> str | None:
    if not seen.facts.macs_int8 or seen.candidate.artifact.runtime != "onnxruntime":
        return None
    if seen.candidate.equality is not None:
        return None
    return (
        "its integers were not compared with the integer reference, which does not know an operator of this network: "
        "that the file computes what was simulated is shown by its quality alone"
    )


def one_step_off(seen: Seen) -> str | None:
    equality = seen.candidate.equality
    if equality is None or equality.bit_equal == equality.layers:
        return None
    return (
        f"{equality.layers - equality.bit_equal} of {equality.layers} layers differ from the integer reference by one "
        "step in a few places, where floats lie on the edge of two integers"
    )


def no_dot_product(seen: Seen) -> str | None:
    integer = seen.facts.macs_int8 > 0
    fast = {*DOT_PRODUCTS, "asimddp", "i8mm"} & set(seen.machine.isa)
    if not integer or fast:
        return None
    return (
        "this processor has no 8-bit dot-product instructions (VNNI or the like): integer kernels gain less here "
        "than on one that has. The file's weights are unsigned for it; pressed on such a processor they are signed, "
        "which its dot products take"
    )


def only_with_dot_products(seen: Seen) -> str | None:
    equality = seen.candidate.equality
    if equality is None or "avx2" in equality.exact_on:
        return None
    return (
        "its weights are signed bytes, for the 8-bit dot products of this processor. Where there are none (AVX2 alone) "
        "the runtime saturates and computes something else; with signed_weights = false the recipe makes a file that "
        "is exact on both and uses no dot products"
    )


Check = Callable[[Seen], str | None]

# code, severity, what to look for
CHECKS: tuple[tuple[str, Severity, Check], ...] = (
    ("TP101", "warning", zeros_save_no_bytes),
    ("TP102", "warning", zeros_save_no_time),
    ("TP105", "note", float_in_torch),
    ("TP202", "warning", float_layers),
    ("TP203", "note", no_dot_product),
    ("TP206", "note", stored_twice),
    ("TP207", "warning", not_compared),
    ("TP208", "note", one_step_off),
    ("TP209", "note", only_with_dot_products),
    ("TP213", "note", unpacked_to_float),
)
TIMED_CHECKS: tuple[tuple[str, Severity, Check], ...] = (
    ("TP103", "warning", slower),
    ("TP104", "note", time_lags_macs),
)


def with_findings(seen: Seen, notes: tuple[Note, ...], memory_reason: str | None) -> Candidate:
    """The candidate with its findings: the techniques' notes, the missing numbers, and the checks."""
    found = [Finding(code=n.code, severity=n.severity, layer=n.layer, text=n.text) for n in notes]
    if memory_reason is not None:
        text = f"peak memory was not measured: {memory_reason}"
        found.append(Finding(code="TP501", severity="note", layer=None, text=text))
    found += [_of_island(island) for island in seen.facts.islands]
    found += _run(CHECKS, seen)
    latency = seen.candidate.latency_ms
    if latency is not None:
        latency = latency.model_copy(update={"findings": tuple(_run(TIMED_CHECKS, seen))})
    return seen.candidate.model_copy(update={"findings": tuple(dict.fromkeys(found)), "latency_ms": latency})


def _of_island(island: Island) -> Finding:
    text = f"{island.operator} runs in float, with its integers turned to floats and back: {island.reason}"
    return Finding(code="TP205", severity="warning", layer=island.layer, text=text)


def _run(checks: tuple[tuple[str, Severity, Check], ...], seen: Seen) -> list[Finding]:
    texts = [(code, severity, check(seen)) for code, severity, check in checks]
    return [
        Finding(code=code, severity=severity, layer=None, text=text) for code, severity, text in texts if text
    ]


def choice_findings(
    candidates: Sequence[Candidate], slower: Sequence[PassedOver], chosen: str, max_bytes: int | None
) -> tuple[tuple[Candidate, ...], tuple[Finding, ...]]:
    """The candidates, the reason beside the times of those that were passed over, and what is said of the choice."""
    reasons = {each.candidate.name: _passed_over(each) for each in slower}
    told = []
    for candidate in candidates:
        if candidate.name in reasons and candidate.latency_ms is not None:
            findings = (*candidate.latency_ms.findings, reasons[candidate.name])
            latency = candidate.latency_ms.model_copy(update={"findings": findings})
            candidate = candidate.model_copy(update={"latency_ms": latency})
        told.append(candidate)
    taken = next(c for c in candidates if c.name == chosen)
    if meets(taken, max_bytes):
        return tuple(told), ()
    text = f"no file of at most {max_bytes} bytes is within the tolerance; the chosen one has {taken.artifact.bytes}"
    return tuple(told), (Finding(code="TP407", severity="warning", layer=None, text=text),)


def _passed_over(each: PassedOver) -> Finding:
    candidate, faster = each.candidate, each.faster
    ours, theirs = candidate.artifact.bytes, faster.artifact.bytes
    assert candidate.latency_ms is not None
    assert faster.latency_ms is not None
    times = faster.latency_ms.ratio_to_baseline.value / candidate.latency_ms.ratio_to_baseline.value
    text = (
        f"it is within the tolerance and was not chosen: the float file of the same network, {faster.name!r}, takes "
        f"{times:.2f}x its time, beyond the intervals, so that its integers save bytes only ({ours} against "
        f"{theirs}). A limit that {faster.name!r} exceeds, such as --max-bytes {ours}, takes it out of the choice"
    )
    return Finding(code="TP106", severity="warning", layer=None, text=text)


def control_findings(receipt: Receipt, control_of: dict[str, str]) -> tuple[Finding, ...]:
    """For each control that does as well as what it controls: a finding that says so."""
    found = []
    for control_name, name in sorted(control_of.items()):
        control, candidate = receipt.candidate(control_name), receipt.candidate(name)
        better = control.quality.value - candidate.quality.value
        if not receipt.higher_is_better:
            better = -better
        if better < 0:
            continue
        found.append(
            Finding(
                code="TP401",
                severity="warning",
                layer=None,
                text=(
                    f"the control {control_name!r} ({control.about}) does as well as {name!r} on test "
                    f"({control.quality.value:.4f} against {candidate.quality.value:.4f}): "
                    "the technique is not what made the difference here"
                ),
            )
        )
    return tuple(found)
