"""The command ``tito``: a learner's way from an empty file to a network on the receipt, and a teacher's gradebook.

Exit codes: 0 done; 1 something does not hold yet (test, doctor, run, lint, release); 2 wrong usage or refused
input; 130 stopped with Ctrl-C.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from importlib import import_module
from importlib.metadata import version

import typer
from rich.console import Console

from tinypress_course.errors import CourseError

# each command is the function of its name in the file of its name
LEARN = ("doctor", "start", "test", "hint", "status", "notebook", "export", "run", "submit")
TEACH = ("release", "grade", "lint")
_STOPPED = 130


def app_for(arguments: Sequence[str]) -> typer.Typer:
    """The command line; only the command that is called is imported, since most of them import PyTorch."""
    app = typer.Typer(
        name="tito",
        no_args_is_help=True,
        rich_markup_mode="rich",
        pretty_exceptions_enable=False,
        help="Write the compression techniques by hand, and watch your own functions press a real network.",
        epilog="Exit codes: 0 done · 1 something does not hold yet · 2 wrong usage or refused input · 130 stopped",
    )
    called = next((each for each in arguments if each in LEARN + TEACH), None)
    for panel, names in (("For learners", LEARN), ("For teachers and authors", TEACH)):
        for name in names if called is None else [each for each in names if each == called]:
            command = getattr(import_module(f"tinypress_course.cli.{name}"), name)
            app.command(name, rich_help_panel=panel)(command)
    app.callback(invoke_without_command=True)(_version)
    return app


def _version(show: bool = typer.Option(False, "--version", help="Print the version and exit.")) -> None:
    if show:
        print(version("tinypress-course"))
        raise typer.Exit


def main() -> None:
    """Run the command line and exit with its code."""
    errors = Console(stderr=True)
    try:
        code = app_for(sys.argv[1:])(standalone_mode=False)  # a command returns its exit code
    except (KeyboardInterrupt, typer.Abort):
        code = _STOPPED
    except Exception as error:
        if isinstance(error, CourseError) or _is_tinypress_error(error):
            errors.print("[bold red]Error[/]", end=" ")
            errors.print(str(error), markup=False, highlight=False, soft_wrap=True)
            sys.exit(2)
        show = getattr(error, "show", None)  # usage errors print themselves
        if show is None:
            raise
        show()
        sys.exit(getattr(error, "exit_code", 2))
    if code == _STOPPED:
        errors.print("\nStopped.")
    sys.exit(code if isinstance(code, int) else 0)


def _is_tinypress_error(error: Exception) -> bool:
    from tinypress import TinypressError

    return isinstance(error, TinypressError)
