"""The command ``tito``."""

from tinypress_course.cli.main import main

__all__ = ["main"]
