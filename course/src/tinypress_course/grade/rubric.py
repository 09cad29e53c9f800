"""The rubric: how the points are made up, read from rubric.yaml and checked. Points, shares and limits are all data."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Self

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from tinypress_course.errors import CourseError
from tinypress_course.journal import Value

RUBRIC = Path(__file__).with_name("rubric.yaml")
Points = Annotated[float, Field(ge=0, le=100)]
Share = Annotated[float, Field(ge=0, le=1)]
Names = tuple[str, ...]


class _Fact(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


class Technical(_Fact):
    """Points for what the functions do; the automatic points, 0 to 100, are scaled to these."""

    points: Points


class Predictions(_Fact):
    """Points for guesses that were written down before the measurement, by step; all steps count the same."""

    points: Points
    names: dict[int, Names]


class Claims(_Fact):
    """Points for conclusions that agree with the learner's own measurement of the same name, ``tolerance`` apart."""

    points: Points
    tolerance: Share
    names: dict[int, Names]


class Teacher(_Fact):
    """Points that the teacher's own mark, 0 to 1, is scaled to."""

    points: Points


class Range(_Fact):
    """Where a measurement lies in any honest run: between ``low`` and ``high``, or one of ``words``."""

    low: float | None = None
    high: float | None = None
    words: tuple[Value, ...] = ()

    def holds(self, value: Value) -> bool:
        """Whether ``value`` is plausible."""
        if self.words:
            return any(type(value) is type(word) and value == word for word in self.words)
        if isinstance(value, bool | str):
            return False
        return (self.low is None or value >= self.low) and (self.high is None or value <= self.high)


class Tradeoffs(_Fact):
    """Understanding: predictions, claims and the teacher's reading."""

    predictions: Predictions
    claims: Claims
    teacher: Teacher
    plausible: dict[str, Range]

    @property
    def points(self) -> float:
        """All points of this part."""
        return self.predictions.points + self.claims.points + self.teacher.points


class Application(_Fact):
    """A byte budget that is drawn from ``budget_shares`` of the float file, once for a class.

    ``fits`` are the points for a file within it. A file that fits gets all ``quality`` points where it loses at most
    the task's tolerance on validation, none from ``worthless_loss`` points lost, and shares of them in between.
    ``parts`` are the shares of all this that go with a function for which the toolkit's own had to stand in.
    """

    task: str
    budget_shares: Annotated[tuple[Share, ...], Field(min_length=1)]
    fits: Points
    quality: Points
    worthless_loss: Annotated[float, Field(gt=0)]
    parts: dict[str, Share]
    most_epochs: Annotated[int, Field(ge=1)]
    most_steps: Annotated[int, Field(ge=1)]

    @property
    def points(self) -> float:
        """All points of this part."""
        return self.fits + self.quality

    @model_validator(mode="after")
    def _parts_fit(self) -> Self:
        if sum(self.parts.values()) > 1 + 1e-9:
            raise ValueError("the shares of all parts together are more than 1")
        return self


class Likeness(_Fact):
    """When a function is named as like the toolkit's source, or like another submission.

    ``window`` tokens make a print, of ``guarantee`` neighbours one is kept; functions of fewer than ``least_prints``
    are not compared.
    """

    window: Annotated[int, Field(ge=4)]
    guarantee: Annotated[int, Field(ge=1)]
    least_prints: Annotated[int, Field(ge=1)]
    toolkit: Share
    submission: Share


class Limits(_Fact):
    """What a learner's code may take."""

    import_seconds: Annotated[float, Field(gt=0)]
    call_seconds: Annotated[float, Field(gt=0)]
    technical_seconds: Annotated[float, Field(gt=0)]
    application_seconds: Annotated[float, Field(gt=0)]
    memory_bytes: Annotated[int, Field(ge=1 << 26)]
    answer_bytes: Annotated[int, Field(ge=1 << 20, le=1 << 30)]


class Rubric(_Fact):
    """Everything that a grade depends on besides the work itself."""

    technical: Technical
    tradeoffs: Tradeoffs
    application: Application
    likeness: Likeness
    limits: Limits

    @property
    def points(self) -> float:
        """All points that there are."""
        return self.technical.points + self.tradeoffs.points + self.application.points

    @model_validator(mode="after")
    def _makes_hundred(self) -> Self:
        if abs(self.points - 100) > 1e-9:
            raise ValueError(f"the points of all parts together are {self.points:g}, not 100")
        return self


def read_rubric(path: Path = RUBRIC) -> Rubric:
    """The rubric in ``path``.

    Raises:
        CourseError: it cannot be read, or its parts do not fit together; the first problem is named.
    """
    try:
        return Rubric.model_validate(yaml.safe_load(path.read_text(encoding="utf-8")))
    except ValidationError as error:
        first = error.errors()[0]
        place = ".".join(map(str, first["loc"])) or "the file"
        raise CourseError(f"{path}: {place}: {first['msg']}. Correct it, or leave out --rubric") from error
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise CourseError(f"{path} is no rubric that can be read ({error}). Leave out --rubric") from error
