"""What a run of ``quantize_checkpoint`` that was killed had already written."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from tinypress.archive.shards import Shards
from tinypress.files import write_json

_STATE = ".quantize_checkpoint.json"


def source_of(shards: Shards, name: str) -> list[int]:
    """Size and time of change of a source file, by which it is known again."""
    stat = (shards.source / name).stat()
    return [stat.st_size, stat.st_mtime_ns]


def finished(shards: Shards, settings: Mapping[str, Any]) -> dict[str, list[int]]:
    """The shards that an earlier run with these settings finished from the sources as they are now."""
    state = shards.target / _STATE
    try:
        known = json.loads(state.read_bytes())
        done = dict(known["done"]) if known["settings"] == dict(settings) else {}
    except (OSError, ValueError, KeyError, TypeError):
        return {}
    return {
        name: done[name]
        for name in shards.names
        if (shards.target / name).is_file() and done.get(name) == source_of(shards, name)
    }


def remember(shards: Shards, settings: Mapping[str, Any], done: Mapping[str, list[int]] | None) -> None:
    """Note down which shards are finished; ``None`` once all of them are."""
    state = shards.target / _STATE
    if done is None:
        state.unlink(missing_ok=True)
    else:
        write_json(state, {"settings": dict(settings), "done": dict(done)})
