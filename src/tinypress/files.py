"""Files that are whole or absent: written under a temporary name, flushed, moved into place."""

from __future__ import annotations

import errno
import hashlib
import json
import os
import tempfile
from pathlib import Path
from typing import Any

from tinypress.errors import RunError


def write_bytes(path: Path, data: bytes) -> None:
    """Write ``data`` to ``path`` so that no reader ever sees half of it.

    Raises:
        RunError: the folder cannot be written or the disk is full; nothing is left under ``path``'s name.
    """
    call = f"writing {path.name} ({len(data)} bytes)"
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.", suffix=".part")
    except OSError as error:
        raise RunError(
            call, f"the folder cannot be written ({error.strerror})", _remedy(error, path)
        ) from error
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        os.chmod(temporary, 0o644)  # noqa: PTH101  (mkstemp makes it private; a shipped file is not)
        os.replace(temporary, path)  # noqa: PTH105
    except OSError as error:
        raise RunError(
            call, f"the file could not be written ({error.strerror})", _remedy(error, path)
        ) from error
    finally:
        Path(temporary).unlink(missing_ok=True)


def _remedy(error: OSError, path: Path) -> str:
    if error.errno in (errno.EEXIST, errno.ENOTDIR, errno.EISDIR):
        inside = next((each for each in path.parents if each.exists() and not each.is_dir()), path)
        return f"Move {inside} out of the way, or choose another folder with --out; the same command then continues"
    return "Free some space or choose another folder with --out; the same command then continues"


def write_json(path: Path, value: Any) -> None:
    """Write ``value`` as indented JSON, whole or not at all."""
    text = json.dumps(value, indent=1, ensure_ascii=False, allow_nan=False)
    write_bytes(path, text.encode() + b"\n")


def canonical(value: Any) -> bytes:
    """The one byte string that stands for a JSON value: sorted keys, no spaces."""
    text = json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False)
    return text.encode()


def sha256(data: bytes) -> str:
    """Hexadecimal SHA-256 of ``data``."""
    return hashlib.sha256(data).hexdigest()
