"""What each layer of a network takes on one machine, at several widths: the file, and what it predicts.

A table is read from files that may be hostile: nothing in it is run, sizes are bounded before it is parsed, and
every number is checked.
"""

from __future__ import annotations

import bisect
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from tinypress.errors import ArtifactError, InputError
from tinypress.files import write_bytes
from tinypress.receipt import Machine

FORMAT: Literal[1] = 1
MOST_BYTES = 16 * 2**20

Width = Annotated[int, Field(ge=1, lt=2**31)]
Milliseconds = Annotated[float, Field(gt=0, lt=1e9)]
Name = Annotated[str, Field(max_length=1000)]
Widths = Mapping[str, tuple[int, int]]
"""By path of a layer: its inputs and outputs; a layer that is not named is gone."""


class _Fact(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, allow_inf_nan=False)


class Timing(_Fact):
    """Milliseconds of one call: median over rounds, and its 95 % interval."""

    inputs: Width
    outputs: Width
    median_ms: Milliseconds
    low_ms: Milliseconds
    high_ms: Milliseconds

    @model_validator(mode="after")
    def _ordered(self) -> Self:
        if not self.low_ms <= self.median_ms <= self.high_ms:
            raise ValueError("the median lies outside its interval")
        return self


class LayerTimes(_Fact):
    """The layers of one shape: their paths, the widths they have, and timings at every pair of widths.

    ``values`` is how many numbers each puts out for one output channel, and ``calls`` how often each runs.
    """

    layers: Annotated[tuple[Name, ...], Field(min_length=1, max_length=10_000, strict=False)]
    kind: Name
    inputs: Width
    outputs: Width
    values: Width
    calls: Width = 1
    timings: Annotated[tuple[Timing, ...], Field(min_length=1, max_length=10_000, strict=False)]

    @model_validator(mode="after")
    def _whole(self) -> Self:
        pairs = [(each.inputs, each.outputs) for each in self.timings]
        together = all(inputs * self.outputs == outputs * self.inputs for inputs, outputs in pairs)
        due = len({inputs for inputs, _ in pairs}) * len({outputs for _, outputs in pairs})
        if len(set(pairs)) != len(pairs) or not (together or len(pairs) == due):
            raise ValueError("the timings are not one for each pair of widths")
        if (self.inputs, self.outputs) not in pairs:
            raise ValueError("the widths that the layers have are not among the timings")
        return self


class Multiple(_Fact):
    """The widths that the runtime's kernel likes: those that ``multiple`` divides; 1 where it likes all alike.

    ``loss`` is how much longer the other widths take than in proportion, as a share, on average.
    """

    layer: Name
    kind: Name
    side: Literal["inputs", "outputs"]
    multiple: Annotated[int, Field(ge=1, le=1024)]
    loss: Annotated[float, Field(ge=0, lt=1e6)]
    timings: Annotated[tuple[Timing, ...], Field(max_length=10_000, strict=False)] = ()


class LatencyTable(_Fact):
    """The file. ``whole_ms`` is the whole network, ``call_ms`` the runtime's call of a network that does nothing."""

    format: Literal[1] = FORMAT
    task: Name
    batch: Width
    machine: Annotated[Machine, Field(strict=False)]
    call_ms: Milliseconds
    whole_ms: Milliseconds
    layers: Annotated[tuple[LayerTimes, ...], Field(min_length=1, max_length=10_000, strict=False)]
    multiples: Annotated[tuple[Multiple, ...], Field(max_length=10_000, strict=False)] = ()

    @model_validator(mode="after")
    def _once(self) -> Self:
        names = [name for row in self.layers for name in row.layers]
        if len(set(names)) != len(names):
            raise ValueError("a layer comes twice")
        return self

    def predict_ms(self, widths: Widths) -> float:
        """Milliseconds of the network with these widths: of each layer by interpolation between its timings.

        What is not in a layer (activations, pooling) is taken as in proportion to how many values the layers put out.

        Raises:
            InputError: a layer that the table does not know.
        """
        rows = {name: row for row in self.layers for name in row.layers}
        for name in widths:
            if name not in rows:
                raise InputError(
                    f"predict_ms({len(widths)} layers)",
                    f"the table has no layer {name!r}",
                    "Measure it again",
                )
        own = sum(
            row.calls * max(between(row, *widths[n]) - self.call_ms, 0.0)
            for n, row in rows.items()
            if n in widths
        )
        full = {name: (row.inputs, row.outputs) for name, row in rows.items()}
        whole = sum(row.calls * max(between(row, *full[n]) - self.call_ms, 0.0) for n, row in rows.items())
        rest = max(self.whole_ms - self.call_ms - whole, 0.0)
        # fused and cached, layers can take less together than one by one: then all are scaled to the whole
        scale = min((self.whole_ms - self.call_ms) / max(whole, 1e-12), 1.0) if not rest else 1.0
        return self.call_ms + max(scale, 0.0) * own + rest * _values(rows, widths) / _values(rows, full)


def _values(rows: Mapping[str, LayerTimes], widths: Widths) -> float:
    return float(
        sum(row.calls * row.values * widths[name][1] for name, row in rows.items() if name in widths)
    )


def between(row: LayerTimes, inputs: int, outputs: int) -> float:
    """Milliseconds at any widths: bilinear between those timed, in proportion beyond the narrowest and the widest."""
    times = {(each.inputs, each.outputs): each.median_ms for each in row.timings}
    some = sorted({pair[0] for pair in times})
    others = sorted({pair[1] for pair in times})
    if len(times) < len(some) * len(others):  # both widths go together
        return _line([(pair[1], times[pair]) for pair in sorted(times)], outputs)
    lines = [(given, _line([(out, times[given, out]) for out in others], outputs)) for given in some]
    return _line(lines, inputs)


def _line(points: Sequence[tuple[int, float]], at: int) -> float:
    if len(points) == 1:
        return points[0][1] * at / points[0][0]
    place = min(max(bisect.bisect_left([width for width, _ in points], at), 1), len(points) - 1)
    (low, first), (high, second) = points[place - 1 : place + 1]
    found = first + (second - first) * (at - low) / (high - low)
    return max(found, 0.1 * min(first, second))


def preferred_multiple(table: LatencyTable) -> int:
    """The channel multiple to prune to on this machine, for ``prune_structured(multiple=...)``: the least number that
    every multiple found divides, 1 where the kernels like all widths alike."""
    return math.lcm(*(each.multiple for each in table.multiples))


def write_latency_table(path: Path, table: LatencyTable) -> None:
    """Write the table as JSON, whole or not at all.

    Raises:
        RunError: the file cannot be written.
    """
    write_bytes(path, table.model_dump_json(indent=1).encode() + b"\n")


def read_latency_table(path: Path) -> LatencyTable:
    """Read a table that ``write_latency_table`` wrote.

    Raises:
        ArtifactError: the file is missing, no plain file, too large, or not such a table; the text names the field.
    """
    call = f"read_latency_table({path.name!r})"
    remedy = "Measure it again: tinypress latency-table TASK"
    try:
        if not path.is_file():
            raise ArtifactError(call, "there is no such file", remedy)
        with path.open("rb") as file:
            data = file.read(MOST_BYTES + 1)
    except OSError as error:
        raise ArtifactError(call, f"it cannot be read ({error.strerror})", remedy) from error
    if len(data) > MOST_BYTES:
        raise ArtifactError(call, f"it has more than {MOST_BYTES} bytes", remedy)
    try:
        return LatencyTable.model_validate_json(data)
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        place = ".".join(str(part)[:80] for part in first["loc"][:8]) or "the file"
        raise ArtifactError(call, f"{place}: {first['msg'][:200]}", remedy) from error
