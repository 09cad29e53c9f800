"""What the course refuses: every message names the file or the call, says the problem and what to do."""

from __future__ import annotations


class CourseError(ValueError):
    """Something that ``tito`` refuses, with the remedy in its text."""


class SourceError(CourseError):
    """A module's file cannot be read as one."""


class JournalError(CourseError):
    """The journal cannot be read."""
