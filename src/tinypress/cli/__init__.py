"""The command line: one file a command, each parses, calls and prints."""

from tinypress.cli.main import main

__all__ = ["main"]
