"""The summary of one recipe file repeated with several seeds: means, spreads and differences over seeds.

``RUN/seeds.json`` holds it; the receipts of the single runs lie beside it in ``RUN/seed-N/``. The JSON schema in
``docs/seeds.schema.json`` is made from these classes.
"""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from tinypress.files import canonical, sha256
from tinypress.receipt import Fact, Tolerance


class MeanDrop(Fact):
    """How much worse than the other network on the mean over seeds, on the same test samples; positive is worse.

    ``spread`` is the standard deviation of the ``values`` of the single seeds; None for one seed. ``low`` and ``high``
    are the 95 % interval over seeds and samples, ``seeds_low`` and ``seeds_high`` that over seeds alone, for these
    samples. ``seeds_needed`` and ``samples_needed`` estimate how many of either, the other left as it is, would settle
    a verdict of ``cannot tell``; None where no number would.
    """

    values: tuple[float, ...]
    value: float
    spread: float | None
    low: float
    high: float
    seeds_low: float
    seeds_high: float
    unit: Literal["points", "metric"]
    method: str
    verdict: Literal["within", "beyond", "cannot tell"]
    seeds_needed: int | None = None
    samples_needed: int | None = None


class SeedRow(Fact):
    """One artifact over all seeds. ``quality`` and ``bytes`` have one value a seed; ``drop`` is from the baseline."""

    name: str
    role: Literal["baseline", "candidate", "control"]
    about: str
    bytes: tuple[int, ...]
    quality: tuple[float, ...]
    mean: float
    spread: float | None
    drop: MeanDrop | None


class SeedPair(Fact):
    """A candidate beside its control, seed by seed. ``difference`` is what the control loses to the candidate:
    positive where the candidate is better."""

    name: str
    control: str
    difference: MeanDrop
    verdict: Literal["better", "worse", "cannot tell"]


class SeedSummary(Fact):
    """Everything over seeds. ``receipts`` are the checksums of the single runs, in the order of ``seeds``."""

    format: Literal[1] = 1
    tinypress: str
    task: str
    metric: str
    higher_is_better: bool
    tolerance: Tolerance
    samples: int
    groups: int
    seeds: tuple[int, ...] = Field(min_length=1)
    receipts: tuple[str, ...]
    rows: tuple[SeedRow, ...] = Field(min_length=1)
    pairs: tuple[SeedPair, ...] = ()
    checksum: str = ""

    def row(self, name: str) -> SeedRow:
        """The artifact called ``name``; raises KeyError."""
        for row in self.rows:
            if row.name == name:
                return row
        raise KeyError(name)

    def sealed(self) -> SeedSummary:
        """This summary with its checksum filled in."""
        return self.model_copy(update={"checksum": self.computed_checksum()})

    def computed_checksum(self) -> str:
        """SHA-256 of the canonical JSON of everything but the checksum."""
        return sha256(canonical(self.model_dump(mode="json", exclude={"checksum"})))
