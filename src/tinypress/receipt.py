"""The receipt: the facts of one run, each number measured on the artifact named beside it.

A number that could not be measured is ``None``, with a finding that says why. The JSON schema in
``docs/receipt.schema.json`` is made from these classes, and a test holds the two together.
"""

from __future__ import annotations

from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from tinypress.files import canonical, sha256


class Fact(BaseModel):
    """Frozen, and nothing it does not know is let in."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


class Machine(Fact):
    cpu: str
    isa: tuple[str, ...]
    threads: int
    runtimes: dict[str, str]


class Tolerance(Fact):
    value: float
    unit: Literal["points", "metric"]


class File(Fact):
    """A file beside an artifact. ``path`` is relative to the run folder."""

    path: str
    bytes: int
    sha256: str


class Artifact(Fact):
    """A file that ships, with the ``files`` that ship beside it: config, tokenizer. ``path`` is relative to the run
    folder; ``bytes`` are those of all of them, ``sha256`` is of the file at ``path``."""

    path: str
    runtime: Literal["onnxruntime", "torch"]
    bytes: int
    sha256: str
    files: tuple[File, ...] = ()


class Finding(Fact):
    code: str
    severity: Literal["note", "warning"]
    layer: str | None
    text: str


class Ratio(Fact):
    value: float
    low: float
    high: float


class Latency(Fact):
    """Milliseconds of one forward pass, timed in turn with the baseline.

    ``findings`` are those that follow from the times; they vary with them from run to run."""

    median: float
    low: float
    high: float
    batch: int
    threads: int
    ratio_to_baseline: Ratio
    findings: tuple[Finding, ...] = ()


class Quantity(Fact):
    """A number with the way it was found."""

    value: float
    method: str


class Validation(Fact):
    value: float
    samples: int
    groups: int


class Quality(Fact):
    value: float
    low: float
    high: float
    samples: int
    groups: int
    split: Literal["test"] = "test"
    evaluated_in: str


class Drop(Fact):
    """How much worse than the baseline on the same test samples; positive is worse.

    ``samples_needed`` estimates how many test samples would settle a verdict of ``cannot tell``.
    """

    value: float
    low: float
    high: float
    unit: Literal["points", "metric"]
    method: str
    verdict: Literal["within", "beyond", "cannot tell"]
    mcnemar_p: float | None = None
    samples_needed: int | None = None


class Histogram(Fact):
    """Counts of weights in equal bins from ``low`` to ``high``."""

    low: float
    high: float
    counts: tuple[int, ...]


class Layer(Fact):
    """One layer as it stands in the artifact. ``weight_shape`` is [out, in, ...]; ``bits`` are those stored
    for each weight; ``bytes`` are those of its weight and bias as stored."""

    name: str
    kind: str
    weight_shape: tuple[int, ...]
    parameters: int
    nonzero_parameters: int
    bits: int
    bytes: int
    macs: int | None
    histogram: Histogram


class Equality(Fact):
    """How the artifact's integers compare with the integer reference, each layer fed what the runtime fed it.

    ``requantization`` names the arithmetic of the reference. ``layers`` were compared on ``samples`` samples;
    ``bit_equal`` of them gave the same integers, the others differ by one step in a few places. ``checked_on`` is
    the processor's instruction sets, ``exact_on`` those on which the runtime's kernels for these integers neither
    saturate nor round on the way.
    """

    requantization: Literal["float32"]
    samples: int
    layers: int
    bit_equal: int
    exact_on: tuple[str, ...]
    checked_on: tuple[str, ...]


class Candidate(Fact):
    name: str
    role: Literal["baseline", "candidate", "control"]
    about: str
    recipe: tuple[dict[str, Any], ...]
    artifact: Artifact
    parameters: int
    nonzero_parameters: int
    macs: int | None
    latency_ms: Latency | None
    peak_memory_bytes: Quantity | None
    energy_mj: Quantity | None
    validation: Validation
    quality: Quality
    drop: Drop | None
    seconds: float
    layers: tuple[Layer, ...]
    equality: Equality | None = None
    findings: tuple[Finding, ...] = ()

    @property
    def all_findings(self) -> tuple[Finding, ...]:
        """The findings on the artifact, and after them those on its latency."""
        return (*self.findings, *(self.latency_ms.findings if self.latency_ms is not None else ()))


class Receipt(Fact):
    """Everything that was measured in one run. ``checksum`` is of the canonical form of all the rest.

    ``max_bytes`` is the limit that the chosen file was asked to meet.
    """

    format: Literal[1] = 1
    tinypress: str
    task: str
    about: str
    metric: str
    higher_is_better: bool
    machine: Machine
    seed: int
    trained_on: str = "cpu"
    tolerance: Tolerance
    max_bytes: int | None = None
    candidates: tuple[Candidate, ...] = Field(min_length=1)
    pareto: tuple[str, ...]
    chosen: str
    findings: tuple[Finding, ...] = ()
    checksum: str = ""

    @property
    def baseline(self) -> Candidate:
        """The candidate that all others are compared with."""
        return next(c for c in self.candidates if c.role == "baseline")

    def candidate(self, name: str) -> Candidate:
        """The candidate called ``name``; raises KeyError."""
        for candidate in self.candidates:
            if candidate.name == name:
                return candidate
        raise KeyError(name)

    def sealed(self) -> Receipt:
        """This receipt with its checksum filled in."""
        return self.model_copy(update={"checksum": self.computed_checksum()})

    def computed_checksum(self) -> str:
        """SHA-256 of the canonical JSON of everything but the checksum."""
        return sha256(canonical(self.model_dump(mode="json", exclude={"checksum"})))
