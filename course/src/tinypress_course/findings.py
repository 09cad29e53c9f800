"""What the author's tools find in a module: where it is, of which kind, and what it is, as data."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, order=True)
class Finding:
    """One thing to mend, in ``line`` of ``file``; ``code`` is the short name of what was looked for."""

    file: str
    line: int
    code: str
    text: str

    def __str__(self) -> str:
        return f"{self.file}:{self.line}: {self.code}: {self.text}"
