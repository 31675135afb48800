"""The command line ``dream-cad``.

Results go to standard output, everything else to standard error. Exit codes: 0 done, 1 failed,
2 wrong usage. With DREAM_CAD_LOG_LEVEL=DEBUG errors come with their traceback.
"""

from __future__ import annotations

import sys
import traceback
from collections.abc import Sequence
from typing import Annotated

import typer
from typer.exceptions import Abort, Exit, TyperException

from dream_cad import __version__
from dream_cad.cli import (
    doctor,
    generate,
    keys,
    licenses,
    mcp,
    models,
    package,
    plan,
    pull,
    queue_control,
    remote,
)
from dream_cad.cli.console import show_error
from dream_cad.exceptions import DreamCadError, InvalidConfigError
from dream_cad.log import configure_logging
from dream_cad.settings import get_settings

FAILURE = 1
USAGE = 2

app = typer.Typer(
    name="dream-cad",
    help="Text prompts and pictures become 3D meshes.",
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
)
app.command("generate")(generate.generate)
app.command("package")(package.package)
app.command("submit")(remote.submit)
app.command("status")(remote.status)
app.command("fetch")(remote.fetch)
app.command("cancel")(remote.cancel)
app.command("mcp")(mcp.mcp)
app.command("models")(models.models)
app.command("pull")(pull.pull)
app.command("doctor")(doctor.doctor)
app.command("plan")(plan.plan)
app.add_typer(keys.app, name="keys")
app.add_typer(queue_control.app, name="queue")
app.add_typer(licenses.app, name="licenses")


def _show_version(value: bool) -> None:
    if value:
        typer.echo(f"dream-cad {__version__}")
        raise typer.Exit


@app.callback(invoke_without_command=True)
def start(
    context: typer.Context,
    version: Annotated[
        bool,
        typer.Option("--version", help="Show the version.", callback=_show_version, is_eager=True),
    ] = False,
) -> None:
    """Set up logging; without a command, show the help."""
    configure_logging()
    if context.invoked_subcommand is None:
        typer.echo(context.get_help())


def run(arguments: Sequence[str] | None = None) -> int:
    """Run one command line and return its exit code.

    Args:
        arguments: without the program's name; those of this process when None.
    """
    try:
        outcome = app(args=None if arguments is None else list(arguments), standalone_mode=False)
    except Exit as error:
        return error.exit_code
    except TyperException as error:
        show_error(error.format_message())
        return error.exit_code
    except DreamCadError as error:
        return _report(error)
    except (Abort, KeyboardInterrupt):
        show_error("Aborted.")
        return FAILURE
    except Exception as error:  # noqa: BLE001 - the last door: a fault of ours, told briefly
        return _report_fault(error)
    return outcome if isinstance(outcome, int) else 0


def main() -> None:
    """Entry point of the console script."""
    sys.exit(run())


def _report(error: DreamCadError) -> int:
    if _is_debugging():
        traceback.print_exception(error)
    show_error(error.message, error.hint)
    return USAGE if isinstance(error, InvalidConfigError) else FAILURE


def _report_fault(error: Exception) -> int:
    if _is_debugging():
        traceback.print_exception(error)
    text = str(error).partition("\n")[0] or "no message"
    show_error(
        f"Internal fault, {type(error).__name__}: {text}",
        "DREAM_CAD_LOG_LEVEL=DEBUG shows where.",
    )
    return FAILURE


def _is_debugging() -> bool:
    try:
        return get_settings().log_level == "DEBUG"
    except InvalidConfigError:
        return False
