"""The command ``tinypress``.

Exit codes: 0 done; 1 the receipt does not hold (verify) or nothing mends the candidate (diagnose); 2 wrong usage or
refused input; 3 a run folder or artifact that cannot be used; 130 stopped with Ctrl-C (the same command goes on).
"""

from __future__ import annotations

import sys
from importlib.metadata import version

import typer
from rich.console import Console

from tinypress.cli.compare import compare, demo
from tinypress.cli.compositions import compositions
from tinypress.cli.diagnose import diagnose
from tinypress.cli.latency_table import latency_table
from tinypress.cli.measure import measure
from tinypress.cli.new import new
from tinypress.cli.press import press
from tinypress.cli.report import report
from tinypress.cli.tasks import tasks
from tinypress.cli.verify import verify
from tinypress.errors import ArtifactError, RunError, TinypressError

app = typer.Typer(
    name="tinypress",
    no_args_is_help=True,
    rich_markup_mode="rich",
    pretty_exceptions_enable=False,
    help="Press a trained network until it fits, and hand over the file that ships with a receipt measured on it.",
    epilog="Exit codes: 0 done · 1 the receipt does not hold, or nothing mends the candidate · "
    "2 wrong usage or refused input · 3 run folder or artifact unusable · 130 stopped, the same command goes on",
)
for command in (
    demo,
    tasks,
    new,
    measure,
    latency_table,
    compare,
    compositions,
    press,
    verify,
    diagnose,
    report,
):
    app.command()(command)

_STOPPED = 130


@app.callback(invoke_without_command=True)
def _version(show: bool = typer.Option(False, "--version", help="Print the version and exit.")) -> None:
    if show:
        print(version("tinypress"))
        raise typer.Exit


def main() -> None:
    """Run the command line and exit with its code."""
    errors = Console(stderr=True)
    try:
        # a command returns its exit code; standalone mode would swallow the interrupt
        code = app(standalone_mode=False)
    except KeyboardInterrupt:
        code = _STOPPED
    except (RunError, ArtifactError) as error:
        errors.print(f"[bold red]Error[/] {_plain(error)}", highlight=False)
        sys.exit(3)
    except TinypressError as error:
        errors.print(f"[bold red]Error[/] {_plain(error)}", highlight=False)
        sys.exit(2)
    except typer.Abort:
        code = _STOPPED
    except Exception as error:
        show = getattr(error, "show", None)  # click's usage errors print themselves
        if show is None:
            raise
        show()
        sys.exit(getattr(error, "exit_code", 2))
    if code == _STOPPED:  # what typer makes of an interrupt
        errors.print("\nStopped. What is finished is kept: the same command goes on from there.")
    sys.exit(code if isinstance(code, int) else 0)


def _plain(error: TinypressError) -> str:
    return str(error).replace("[", r"\[")
