"""Build the exercise from a module's one source: without solutions and hidden tests, audited, whole or not at all."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from pathlib import Path

from tinypress_course.audit import audit
from tinypress_course.errors import CourseError, SourceError
from tinypress_course.findings import Finding
from tinypress_course.marks import released
from tinypress_course.module import read_module

__all__ = ["release_module", "released"]


def release_module(source: Path, out: Path) -> tuple[Finding, ...]:
    """Write the exercise of the module in ``source`` into the folder ``out``, unless the audit finds something.

    Returns:
        What the audit found. Where it is not empty, nothing was written.

    Raises:
        CourseError: ``out`` is not empty, or a file that module.yaml lists is missing.
        SourceError: the marks in the source do not come in pairs.
    """
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise CourseError(
            f"tito release {source} {out}: {out} is not empty, and nothing is written over somebody's work. "
            "Give an empty or a new folder"
        )
    contents = list(_contents(source))
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=out.parent, prefix=f".{out.name}.") as temporary:
            folder = Path(temporary) / "module"
            for name, content in contents:
                (folder / name).parent.mkdir(parents=True, exist_ok=True)
                (folder / name).write_bytes(content)
            findings = audit(source, folder)
            if not findings:
                folder.replace(out)
            return findings
    except OSError as error:
        raise CourseError(
            f"tito release {source} {out}: {out} cannot be written ({error.strerror}). Choose another folder"
        ) from error


def _contents(source: Path) -> Iterator[tuple[Path, bytes]]:
    for listed in read_module(source).files:
        path = source / listed
        if not path.exists():
            raise CourseError(
                f"{path} is missing, and module.yaml lists it under files. Add it, or strike it"
            )
        within = sorted(path.rglob("*")) if path.is_dir() else [path]
        for each in within:
            name = each.relative_to(source)
            if each.is_file() and not any(part.startswith((".", "__pycache__")) for part in name.parts):
                yield name, _released_bytes(each)


def _released_bytes(path: Path) -> bytes:
    content = path.read_bytes()
    if path.name == "README.md":
        return without_measurements(content.decode("utf-8")).encode()
    if path.suffix != ".py":
        return content
    try:
        return released(content.decode("utf-8")).encode()
    except SourceError as error:
        raise SourceError(f"{path}: {error}") from error


def without_measurements(readme: str) -> str:
    """``readme`` without the section of what the reference measured: a learner is to guess first."""
    begin, end = readme.find("<!-- measured: begin"), readme.find("<!-- measured: end")
    if begin < 0 or end < begin:
        return readme
    start, following = readme.rfind("\n## ", 0, begin), readme.find("\n## ", end)
    return readme[:start] + (readme[following:] if following >= 0 else "\n")
