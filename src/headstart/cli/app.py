"""The commands by name, and what every one of them shares: errors, exit codes, interruption.

Exit codes: 0 done, 1 failed, 2 bad usage or bad input, 130 interrupted.
"""

from __future__ import annotations

import functools
import io
import os
import sys
from collections.abc import Callable
from typing import Any, NoReturn

import typer

import headstart
from headstart.cli import (
    cache,
    compare,
    data,
    data_audit,
    doctor,
    evaluate,
    export,
    lr,
    models,
    predict,
    recipe,
    report,
    run,
    serve,
    studio,
    summary,
)
from headstart.errors import HeadstartError

DEBUG_VARIABLE = "HEADSTART_DEBUG"
INTERRUPTED = 130

app = typer.Typer(
    name="headstart",
    help="From a folder of labelled pictures to a tested image classifier, by transfer learning.",
    epilog="Example: headstart run --data flowers/ --out runs/flowers",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    context_settings={"help_option_names": ["-h", "--help"]},
)


def interruptible(command: Callable[..., None]) -> Callable[..., None]:
    """The command, with one line for Ctrl-C, which typer would pass over in silence."""

    @functools.wraps(command)
    def wrapped(*arguments: Any, **options: Any) -> None:
        try:
            command(*arguments, **options)
        except KeyboardInterrupt:
            fail("Interrupted.", INTERRUPTED)

    return wrapped


for _module in (
    *(run, compare, predict, evaluate, export, report, serve, studio),
    *(models, summary, lr, cache, doctor),
):
    app.command(name=_module.NAME, epilog=_module.EXAMPLE)(interruptible(_module.command))

app.command(name=recipe.LIST_NAME, epilog=recipe.LIST_EXAMPLE)(interruptible(recipe.list_command))
app.command(name=recipe.NAME, epilog=recipe.EXAMPLE)(interruptible(recipe.command))

_data = typer.Typer(
    help=data.SUMMARY, epilog=data.EXAMPLE, no_args_is_help=True, rich_markup_mode=None
)
_data_commands: dict[str, Callable[..., None]] = {"audit": data_audit.audit, **data.COMMANDS}
for _name, _command in _data_commands.items():
    _data.command(name=_name, epilog=data.EXAMPLE)(interruptible(_command))
app.add_typer(_data, name=data.NAME)


@app.callback(invoke_without_command=True)
def common(
    version: bool = typer.Option(False, "--version", help="Print the version and stop."),
) -> None:
    """From a folder of labelled pictures to a tested image classifier, by transfer learning."""
    if version:
        print(f"headstart {headstart.__version__}")
        raise typer.Exit


def main() -> NoReturn:
    """Run the command line and leave with the right exit code."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):  # a terminal that lacks a letter shows its code
            stream.reconfigure(errors="backslashreplace")
    try:
        app()
    except KeyboardInterrupt:  # before the first command's own work
        fail("Interrupted.", INTERRUPTED)
    except HeadstartError as error:
        fail(str(error), error.exit_code)
    except BrokenPipeError:  # the reader of our output left, as `| head` does
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(0)
    except MemoryError:
        fail("The memory is full. Lower --image-size, or free some memory.", 1)
    except Exception as error:
        if os.environ.get(DEBUG_VARIABLE):
            raise
        fail_on_gpu(error)
        fail(
            f"A defect in Headstart: {type(error).__name__}: {error}. Please report it; "
            f"{DEBUG_VARIABLE}=1 shows where it happened.",
            1,
        )
    sys.exit(0)


def fail_on_gpu(error: Exception) -> None:
    """Leave with a sentence where the error is torch's on a GPU."""
    if "torch" in sys.modules:
        from headstart.runtime import gpu_problem

        told = gpu_problem(error)
        if told is not None:
            fail(str(told), told.exit_code)


def fail(message: str, exit_code: int) -> NoReturn:
    """Print one sentence on standard error and leave."""
    print(f"headstart: {message}", file=sys.stderr)
    sys.exit(exit_code)
