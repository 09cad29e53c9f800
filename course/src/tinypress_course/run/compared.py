"""The two receipts side by side: for each file, whether it is the same, and what differs in what was measured."""

from __future__ import annotations

from dataclasses import dataclass

from tinypress import Receipt
from tinypress_course.export import ENGINE_PARTS
from tinypress_course.run.beside import GOOD, WORDS, Beside
from tinypress_course.run.both import Both
from tinypress_course.run.side import TECHNIQUE
from tinypress_course.run.timing import Times


@dataclass(frozen=True)
class Side:
    """What was measured on one file; accuracy in percent, on test; time against the toolkit's float file."""

    kilobytes: float
    accuracy: float
    low: float
    high: float
    time: float | None
    sha256: str


@dataclass(frozen=True)
class Row:
    """One file as both engines made it; ``mine`` is None where the learner's functions could not make it."""

    name: str
    mine: Side | None
    reference: Side
    says: str

    @property
    def same(self) -> bool:
        """Whether the two files are equal to the last bit."""
        return self.mine is not None and self.mine.sha256 == self.reference.sha256


@dataclass(frozen=True)
class Compared:
    """All that the page tells."""

    functions: tuple[Beside, ...]
    rows: tuple[Row, ...]
    controls: tuple[tuple[str, Side], ...]
    headline: str

    @property
    def agrees(self) -> bool:
        """Whether no function differs, fails or is missing: files may then differ by rounding in training alone."""
        return all(each.verdict in GOOD for each in self.functions)

    @property
    def everything_same(self) -> bool:
        """Whether every file is the same and no function differs."""
        return all(row.same for row in self.rows) and self.agrees


def compared(functions: tuple[Beside, ...], both: Both, times: Times) -> Compared:
    """Put the functions' comparison, the two receipts and the times together."""
    mine = {
        each.name: _side(both.mine, each.name, times.get(("mine", each.name)))
        for each in both.mine.candidates
    }
    rows, controls = [], []
    for each in both.reference.candidates:
        side = _side(both.reference, each.name, times.get(("reference", each.name)))
        if each.role == "control":
            controls.append((each.name, side))
        else:
            steps = [step["technique"] for step in each.recipe]
            rows.append(_row(each.name, mine.get(each.name), side, steps, both.left_out))
    done = Compared(functions, tuple(rows), tuple(controls), "")
    return Compared(functions, done.rows, done.controls, _headline(done))


def _side(receipt: Receipt, name: str, time: float | None) -> Side:
    each = receipt.candidate(name)
    return Side(
        kilobytes=each.artifact.bytes / 1000,
        accuracy=100 * each.quality.value,
        low=100 * each.quality.low,
        high=100 * each.quality.high,
        time=time,
        sha256=each.artifact.sha256,
    )


def _row(name: str, mine: Side | None, reference: Side, steps: list[str], left_out: dict[str, str]) -> Row:
    if mine is None:
        why = next((f"{_function(t)}: {left_out[t]}" for t in steps if t in left_out), "it was not made")
        return Row(name, None, reference, why)
    if mine.sha256 == reference.sha256:
        return Row(name, mine, reference, "the same file, to the last bit")
    said = []
    if mine.kilobytes != reference.kilobytes:
        said.append(f"{mine.kilobytes - reference.kilobytes:+.1f} kB")
    if mine.accuracy != reference.accuracy:
        said.append(f"{mine.accuracy - reference.accuracy:+.1f} points of accuracy")
    return Row(name, mine, reference, ", ".join(said) or "other bits, the same size and accuracy")


def _function(technique: str) -> str:
    part = next(part for part, name in TECHNIQUE.items() if name == technique)
    return ENGINE_PARTS[part]


def _headline(done: Compared) -> str:
    if done.everything_same:
        return "Your engine makes the same files as the toolkit's, to the last bit."
    wrong = [each for each in done.functions if each.verdict in ("differs", "fails")]
    missing = [each for each in done.functions if each.verdict == "missing"]
    unlike = [row.name for row in done.rows if not row.same]
    said = []
    if wrong:
        said.append(
            f"{_list(each.function for each in wrong)} {'differs' if len(wrong) == 1 else 'differ'} from the toolkit's."
        )
    if missing:
        said.append(f"{_list(each.function for each in missing)}: {WORDS['missing']}.")
    if unlike and not wrong and not missing:
        said.append(
            "Every function agrees with the toolkit's, some but for rounding, which grows while a network trains."
        )
    said.append(
        f"{len(unlike)} of {len(done.rows)} files differ: {_list(unlike)}."
        if unlike
        else f"All {len(done.rows)} files are the same, to the last bit."
    )
    return " ".join(said)


def _list(names: object) -> str:
    return ", ".join(names)  # type: ignore[arg-type]
