"""The command line: its commands, and how each of them ends."""

from __future__ import annotations

import contextlib
import os
import signal
import sys
import tempfile
import traceback
from collections.abc import Iterator
from pathlib import Path
from types import FrameType
from typing import Annotated, Any, NoReturn

import typer
import typer.exceptions

from builder import __version__
from builder.commands.base import base
from builder.commands.build import build
from builder.commands.check import check
from builder.commands.clean import clean
from builder.commands.config import config
from builder.commands.dev import dev
from builder.commands.diff import diff
from builder.commands.doctor import doctor
from builder.commands.explain import explain
from builder.commands.history import history
from builder.commands.init import eject, init
from builder.commands.lock import lock
from builder.commands.plan import plan
from builder.commands.push import promote, push
from builder.commands.rebase import rebase
from builder.commands.render import render
from builder.commands.report import report
from builder.commands.reproduce import reproduce
from builder.commands.schema import schema
from builder.commands.serve import down, up
from builder.commands.smoke import smoke
from builder.commands.verify import verify
from builder.commands.why import why
from builder.errors import INTERRUPTED, BadUsage, BuilderError, Interrupted
from builder.output import Output, is_json_wanted
from builder.process import ending_signals, redact

app = typer.Typer(
    name="builder",
    help="From a custom DALI operator to a verified Triton image in a registry.\n\n"
    "Examples:\n\n"
    "  python -m builder build                       compile, serialize, build the image\n\n"
    "  python -m builder smoke                       prove it by inference\n\n"
    "  python -m builder push localhost:5000/mydali  push what was proven, print its digest\n\n"
    "  python -m builder up                          serve what was pushed\n\n"
    "Exit codes: 2 the project or the command line, 3 the machine, 4 the build, 5 verification, 6 the push, "
    "130 interrupted.",
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    # Shells complete a command's name, and this one's is `python` when it is run as a module.
    add_completion=Path(sys.argv[0]).name != "__main__.py",
    context_settings={"help_option_names": ["-h", "--help"]},
)


def _version(asked: bool) -> None:
    if asked:
        print(f"builder {__version__}")
        raise typer.Exit


@app.callback(invoke_without_command=True)
def _options(
    context: typer.Context,
    version: Annotated[  # noqa: ARG001
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    if context.invoked_subcommand is None:
        print(context.get_help(), file=sys.stderr)
        raise typer.Exit(BadUsage.exit_code)


for each in (
    *(init, check, config, lock, build, smoke, rebase, push, promote, verify, reproduce, render, up, down),
    *(why, explain, doctor, plan, schema, base, eject),
    history,
    dev,
    diff,
    report,
    clean,
):
    app.command()(each)


class _Stopped(BaseException):
    """A signal that asks to stop. Not KeyboardInterrupt, of which typer makes an exit of its own."""


@contextlib.contextmanager
def _signals() -> Iterator[None]:
    """The first signal that asks to end ends the command through its `finally`s; later ones do not disturb these."""
    signals = ending_signals()

    def stop(number: int, _frame: FrameType | None) -> NoReturn:
        for each in signals:
            signal.signal(each, signal.SIG_IGN)
        if number == signal.SIGHUP:
            _leave_terminal()
        raise _Stopped(number)

    before = {each: signal.signal(each, stop) for each in signals}
    try:
        yield
    finally:
        for each, handler in before.items():
            signal.signal(each, handler)


def _leave_terminal() -> None:
    """Where stdout or stderr is a terminal that is gone, what the `finally`s still say goes nowhere, and fails none."""
    for descriptor in (1, 2):
        try:
            os.write(descriptor, b"")
        except OSError:
            os.dup2(os.open(os.devnull, os.O_WRONLY), descriptor)


def _program() -> str:
    """What the user typed; shells complete the installed command only."""
    name = Path(sys.argv[0]).name
    return "python -m builder" if name == "__main__.py" else name


def main(arguments: list[str] | None = None) -> NoReturn:
    """Runs one command and exits with its code."""
    sys.exit(_run(arguments))


def _run(arguments: list[str] | None) -> int:
    output = Output(json=is_json_wanted())
    try:
        with _signals():
            status: Any = app(arguments, prog_name=_program(), standalone_mode=False)
        return status if isinstance(status, int) else 0
    except BuilderError as error:
        output.error(error)
        return error.exit_code
    except _Stopped as stopped:
        number = int(stopped.args[0])
        output.error(Interrupted("interrupted", remedy="run it again; what earlier commands left is untouched"))
        return INTERRUPTED if number == signal.SIGINT else 128 + number
    except BrokenPipeError:  # as of `| head`: nobody listens any more
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 128 + signal.SIGPIPE
    except typer.exceptions.TyperException as error:
        message = error.format_message() if hasattr(error, "format_message") else str(error)
        output.error(BadUsage(message, where="python -m builder", remedy="see --help"))
        return BadUsage.exit_code
    except Exception as error:  # a mistake of ours: no traceback for the user, but one for whoever mends it
        if known := _of_the_engine(error):
            output.error(known)
            return known.exit_code
        with tempfile.NamedTemporaryFile("w", prefix="builder-", suffix=".traceback", delete=False) as report:
            report.write(redact(traceback.format_exc()))
        output.error(
            BuilderError(
                f"this is a bug of the builder: {type(error).__name__}: {redact(str(error))}",
                where=report.name,
                remedy="report it with that file",
            )
        )
        return BuilderError.exit_code


def _of_the_engine(error: Exception) -> BuilderError | None:
    """What an engine that stops in the middle makes the SDK raise, in whatever call was next."""
    if "builder.docker.engine" not in sys.modules:
        return None
    from builder.docker.engine import foreign

    return foreign(error)
