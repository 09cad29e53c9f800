"""Read what learners handed in: zips and folders, taken for hostile. Nothing is unpacked to disk and nothing executed.

A submission may hold ``submission.json``, the work and ``journal.json``; other names in it are not looked at. One that
cannot be read is a failure of that learner alone.
"""

from __future__ import annotations

import csv
import hashlib
import io
import json
import math
import os
import stat
import unicodedata
import zipfile
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path, PurePosixPath

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from tinypress_course.errors import CourseError
from tinypress_course.module import JOURNAL, SOURCE

CARD = "submission.json"
NOTEBOOK = str(Path(SOURCE).with_suffix(".ipynb"))
MARKS = "marks.csv"
MOST_BYTES = {CARD: 1 << 16, SOURCE: 1 << 20, NOTEBOOK: 20 << 20, JOURNAL: 2 << 20, MARKS: 1 << 20}
_MOST_ARCHIVE_BYTES, _MOST_ENTRIES = 64 << 20, 1000
_ENCRYPTED = 1


class Card(BaseModel):
    """submission.json."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    format: int
    learner: str = Field(min_length=1, max_length=80)
    module: str


class Unreadable(Exception):
    """What is wrong with a submission, for its teacher."""


@dataclass(frozen=True)
class Submission:
    """What one learner handed in as ``source``; ``failure`` says why it cannot be graded."""

    learner: str
    source: str
    files: Mapping[str, str] = field(default_factory=dict)
    failure: str = ""

    @property
    def key(self) -> str:
        """A name for exactly this content."""
        text = json.dumps([self.learner, self.failure, sorted(self.files.items())])
        return hashlib.sha256(text.encode()).hexdigest()

    @property
    def work(self) -> str:
        """The name of the file that is graded: the script where both are there."""
        return SOURCE if SOURCE in self.files else NOTEBOOK


def read_submissions(folder: Path, module: str) -> list[Submission]:
    """All submissions to ``module`` in ``folder``, by learner.

    Raises:
        CourseError: there is no such folder, or nothing in it.
    """
    if not folder.is_dir():
        raise CourseError(f"tito grade {folder}: there is no such folder. Give the one with the submissions")
    places = sorted(
        each for each in folder.iterdir()
        if not each.name.startswith(".") and (each.suffix.lower() == ".zip" or each.is_dir() or each.is_symlink())
    )  # fmt: skip
    if not places:
        raise CourseError(
            f"tito grade {folder}: there are no submissions in it. Put what `tito submit` made there, NAME.zip each"
        )
    read = [_read(place, module) for place in places]
    return sorted(_only_once(read), key=lambda each: (_same(each.learner), each.source))


def _read(place: Path, module: str) -> Submission:
    name = _printable(place.stem if place.suffix.lower() == ".zip" else place.name)
    source = _printable(place.name)
    try:
        raw = _from_folder(place) if place.is_dir() or place.is_symlink() else _from_zip(place)
        files = {each: _text(each, content) for each, content in raw.items()}
        if CARD in files:
            card = _card(files[CARD])
            name = card.learner
            if card.module != module:
                raise Unreadable(f"it is for the module {_printable(card.module)}, and {module} is graded")
        if SOURCE not in files and NOTEBOOK not in files:
            raise Unreadable(f"it holds no {SOURCE}")
    except Unreadable as error:
        return Submission(name, source, failure=str(error))
    except OSError as error:
        return Submission(name, source, failure=f"it cannot be read ({error.strerror})")
    return Submission(name, source, files)


def _card(text: str) -> Card:
    try:
        card = Card.model_validate_json(text)
    except ValidationError as error:
        first = error.errors()[0]
        raise Unreadable(
            f"{CARD}: {'.'.join(map(str, first['loc'])) or 'the file'}: {first['msg']}"
        ) from error
    if card.format != 1:
        raise Unreadable(f"{CARD} has format {card.format}; this tito reads format 1")
    learner = unicodedata.normalize("NFC", card.learner).strip()
    if not learner or learner != _printable(learner):
        raise Unreadable(f"{CARD}: the learner's name holds characters that cannot be printed, or none")
    return card.model_copy(update={"learner": learner})


def _from_folder(folder: Path) -> dict[str, bytes]:
    if folder.is_symlink():
        raise Unreadable("it is a link, and links are not followed")
    found = {}
    for name in (CARD, SOURCE, NOTEBOOK, JOURNAL):
        if not os.path.lexists(folder / name):
            continue
        try:
            handle = os.open(folder / name, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
        except OSError as error:
            raise Unreadable(f"{name} cannot be opened, or is a link ({error.strerror})") from error
        with os.fdopen(handle, "rb") as file:
            if not stat.S_ISREG(os.fstat(handle).st_mode):
                raise Unreadable(f"{name} is no file")
            found[name] = _most(name, file.read(MOST_BYTES[name] + 1))
    return found


def _from_zip(path: Path) -> dict[str, bytes]:
    if not path.is_file():  # a pipe would never end
        raise Unreadable("it is no file")
    if path.stat().st_size > _MOST_ARCHIVE_BYTES:
        raise Unreadable(f"the archive is larger than {_MOST_ARCHIVE_BYTES >> 20} MiB")
    try:
        with zipfile.ZipFile(path) as archive:
            entries = archive.infolist()
            if len(entries) > _MOST_ENTRIES:
                raise Unreadable(f"the archive holds {len(entries)} entries; {_MOST_ENTRIES} are read")
            chosen = _chosen([entry for entry in entries if not entry.is_dir()])
            return {name: _most(name, _content(archive, name, entry)) for name, entry in chosen.items()}
    except (Unreadable, OSError):
        raise
    except Exception as error:  # an archive made to break its reader breaks it anywhere
        raise Unreadable(
            f"the archive is broken ({_printable(str(error)) or type(error).__name__})"
        ) from error


def _chosen(entries: list[zipfile.ZipInfo]) -> dict[str, zipfile.ZipInfo]:
    """The entries that are read, by name: at the top, or in the one folder that holds them all."""
    for entry in entries:
        parts = PurePosixPath(entry.filename).parts
        if entry.filename.startswith("/") or ".." in parts or "\\" in entry.filename:
            raise Unreadable(f"the archive names a place outside itself: {_printable(entry.filename)[:80]}")
    paths = [(PurePosixPath(entry.filename), entry) for entry in entries if "__MACOSX" not in entry.filename]
    paths = [(path, entry) for path, entry in paths if path.parts]
    tops = {path.parts[0] for path, _ in paths}
    depth = 2 if len(tops) == 1 and all(len(path.parts) > 1 for path, _ in paths) else 1
    known = [
        (path.name, entry) for path, entry in paths if len(path.parts) == depth and path.name in MOST_BYTES
    ]
    for name, times in Counter(name for name, _ in known).items():
        if times > 1:
            raise Unreadable(f"the archive holds {name} {times} times")
    return {name: entry for name, entry in known if name != MARKS}


def _content(archive: zipfile.ZipFile, name: str, entry: zipfile.ZipInfo) -> bytes:
    if stat.S_ISLNK(entry.external_attr >> 16):
        raise Unreadable(f"{name} is a link, and links are not followed")
    if entry.flag_bits & _ENCRYPTED:
        raise Unreadable(f"{name} is encrypted")
    if entry.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
        raise Unreadable(f"{name} is compressed in an unusual way; use plain zip")
    with archive.open(entry) as file:
        return file.read(MOST_BYTES[name] + 1)  # whatever size the archive claims


def _most(name: str, content: bytes) -> bytes:
    if len(content) > MOST_BYTES[name]:
        raise Unreadable(f"{name} is larger than {MOST_BYTES[name] >> 10} KiB")
    return content


def _text(name: str, content: bytes) -> str:
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise Unreadable(f"{name} is not UTF-8 (byte {error.start})") from error


def _printable(text: str) -> str:
    return "".join(c if c.isprintable() else "?" for c in text)[:80]


def _same(learner: str) -> str:
    return unicodedata.normalize("NFKC", learner).casefold()


def _only_once(read: list[Submission]) -> list[Submission]:
    """Submissions of one learner fail together: nobody can say which is meant."""
    by_learner: dict[str, list[Submission]] = {}
    for each in read:
        by_learner.setdefault(_same(each.learner), []).append(each)
    done = []
    for group in by_learner.values():
        if len(group) == 1:
            done += group
            continue
        names = ", ".join(_printable(each.source) for each in group)
        done += [
            replace(each, files={}, failure=f"{len(group)} submissions bear this name: {names}")
            for each in group
        ]
    return done


def read_marks(folder: Path) -> dict[str, float]:
    """The teacher's own marks in ``marks.csv``, 0 to 1, by learner; empty where there is no such file.

    Raises:
        CourseError: a line is no mark, or a learner has two.
    """
    path = folder / MARKS
    if not path.exists():
        return {}
    try:
        rows = list(csv.DictReader(io.StringIO(path.read_text(encoding="utf-8-sig"))))
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise CourseError(f"{path} cannot be read ({error}). Save it as CSV in UTF-8") from error
    marks: dict[str, float] = {}
    for number, row in enumerate(rows, start=2):
        learner, given = (row.get("learner") or "").strip(), (row.get("mark") or "").strip()
        try:
            mark = float(given)
        except ValueError:
            mark = math.nan
        if not learner or not 0 <= mark <= 1:
            raise CourseError(
                f"{path}, line {number}: {learner!r}, {given!r}: give the columns learner,mark with marks from 0 to 1"
            )
        if _same(learner) in marks:
            raise CourseError(f"{path}, line {number}: {learner!r} has a mark already. Keep one of them")
        marks[_same(learner)] = mark
    return marks


def mark_of(marks: Mapping[str, float], learner: str) -> float | None:
    """The mark of ``learner``, however the name is written."""
    return marks.get(_same(learner))


def ignored_marks(marks: Mapping[str, float], learners: Sequence[str]) -> tuple[str, ...]:
    """Names in ``marks`` that no submission bears."""
    return tuple(sorted(marks.keys() - {_same(learner) for learner in learners}))
