"""Every rule of the author's linter on one module."""

from __future__ import annotations

from pathlib import Path

from tinypress_course.findings import Finding
from tinypress_course.lint import graded, prose, spoken
from tinypress_course.lint.script import read_script

RULES = (*graded.RULES, *spoken.RULES, *prose.RULES)


def findings_in(folder: Path) -> tuple[Finding, ...]:
    """What an author has to mend in the module in ``folder``, by file and line.

    Raises:
        CourseError: the module cannot be read far enough to look.
    """
    script = read_script(folder)
    return tuple(sorted({finding for rule in RULES for finding in rule(script)}))
