"""Write files so that nothing half-written is ever seen under its final name."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

from tinypress_course.errors import CourseError


def write_text(path: Path, text: str) -> None:
    """Write ``text`` as UTF-8 to a temporary name beside ``path`` and move it into place."""
    write_bytes(path, text.encode())


def write_bytes(path: Path, content: bytes) -> None:
    """Write ``content`` to a temporary name beside ``path`` and move it into place.

    Raises:
        CourseError: the folder cannot be written to, or the disk is full.
    """
    temporary = None
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
        with os.fdopen(handle, "wb") as file:
            file.write(content)
        Path(temporary).chmod(0o644)
        Path(temporary).replace(path)
    except OSError as error:
        if temporary is not None:
            Path(temporary).unlink(missing_ok=True)
        raise CourseError(
            f"{path} cannot be written ({error.strerror}). Free the disk, or choose another folder"
        ) from error
