"""The command line: the application, its exit codes and how errors are shown.

Each command has its own module. Nothing heavy is imported before a command really runs, so that ``--help`` is quick.

Exit codes belong to the class of an error. 0: pass. 1: the audit, an edit or the gate did not pass. 2: wrong input or usage,
or the device failed. 3: a fault of editguard. 130 and 143: ended by an interrupt or by SIGTERM. 141: the reader of the output
is gone.
"""

from __future__ import annotations

import errno
import os
import signal
import sys
import traceback
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from typing import Annotated, Any, NoReturn

import typer

from .audit import audit
from .delta import apply, export
from .gate import app as baseline_app
from .gate import compare, gate, override
from .list import list_names
from .options import PlainCommand, PlainGroup
from .probe import probe, stats
from .report import report
from .research import diff, fingerprint, reproduce, trace

__all__ = ["app", "main"]

_NO_ROOM = (errno.ENOSPC, errno.EDQUOT)
_SIGPIPE = 128 + signal.SIGPIPE if hasattr(signal, "SIGPIPE") else 128 + 13
"""What a shell shows for a program that ended because the reader of its output was gone."""
_SIGTERM = 128 + signal.SIGTERM
_WITH_LOG = ("audit", "reproduce")
"""Commands that log each edit as it ends; all others write what they made at the end, whole."""
_USAGE_ERROR: type[Any] = next(cls for cls in typer.BadParameter.__mro__ if cls.__name__ == "ClickException")
"""Base of typer's errors of usage; newer versions of typer bring a click of their own."""

app = typer.Typer(
    cls=PlainGroup,
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
    help="Safety audit and regression tests for edits of facts inside language models.",
)


def _print_version(wanted: bool) -> None:
    if wanted:
        from importlib.metadata import version

        typer.echo(f"editguard {version('editguard')}")
        raise typer.Exit


@app.callback()
def _options(
    version: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Print the version and exit.")
    ] = False,
) -> None:
    """Safety audit and regression tests for edits of facts inside language models.

    Example: editguard audit edits.json --model ./my-model --out my-audit
    """


for _command in (
    audit,
    probe,
    stats,
    report,
    export,
    apply,
    diff,
    fingerprint,
    trace,
    reproduce,
    compare,
    gate,
    override,
):
    app.command(cls=PlainCommand)(_command)
app.command("list", cls=PlainCommand)(list_names)
app.add_typer(baseline_app, name="baseline")


class _Terminated(BaseException):
    """SIGTERM arrived; raised in the main thread, so that an edit that is being checked is undone."""


def main() -> None:
    """Run the command line; errors that editguard raises on purpose are one line on standard error."""
    from ...probes.errors import EditguardError
    from ...reports.text import visible
    from ..freed_memory import keep_freed_memory

    keep_freed_memory()
    try:
        with _sigterm_raises():
            code = app(standalone_mode=False, prog_name="editguard")
            sys.stdout.flush()
    except SystemExit as ended:
        if _is_without_reader(ended.__context__):  # typer ends with 1 there, which would read as a closed gate
            _end_without_reader()
        raise
    except EditguardError as error:
        # A message may repeat a name out of a foreign file.
        _end(visible(f"editguard: {error}"), error.exit_code)
    except _USAGE_ERROR as error:
        _end_wrong_usage(error)
    except _Terminated:
        _end(f"editguard: ended by SIGTERM; {_describe_rest(sys.argv[1:])}.", _SIGTERM)
    except OSError as error:
        if _is_without_reader(error):
            _end_without_reader()
        if error.errno not in _NO_ROOM:
            _report_own_fault()
        _end(visible(f"editguard: A file cannot be written ({error}); make room, or give another folder."), 2)
    except Exception:  # the outermost frame: Python's own exit code 1 would read as "the gate is closed"
        _report_own_fault()
    sys.exit(code if isinstance(code, int) else 0)


@contextmanager
def _sigterm_raises() -> Iterator[None]:
    """Let SIGTERM raise `_Terminated` in the block; a second one ends the process at once."""

    def end(*_: object) -> NoReturn:
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        raise _Terminated

    try:
        before = signal.signal(signal.SIGTERM, end)
    except ValueError:  # not in the main thread
        yield
        return
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def _describe_rest(arguments: Sequence[str]) -> str:
    """Say what a command that was ended leaves; the arguments before the command's name are flags."""
    name = next((argument for argument in arguments if not argument.startswith("-")), "")
    return "what was logged before is sound" if name in _WITH_LOG else "nothing unfinished was written; start again"


def _end(message: str, code: int) -> NoReturn:
    typer.echo(message, err=True)
    sys.exit(code)


def _end_wrong_usage(error: Any) -> NoReturn:
    """Say in one line what is wrong with the command line; a command group without a command shows its help."""
    from ...reports.text import visible

    if type(error).__name__ == "NoArgsIsHelpError":
        typer.echo(error.format_message())  # printed already, where rich draws it
        sys.exit(error.exit_code)
    context = getattr(error, "ctx", None)
    hint = "" if context is None else f" See '{context.command_path} --help'."
    # Typer puts the kind of Python's exception before what a choice says.
    message = " ".join(error.format_message().split()).replace(": Value error, ", ": ")
    stop = "" if message.endswith("?") else "."
    _end(visible(f"editguard: {message.rstrip('.')}{stop}{hint}"), error.exit_code)


def _is_without_reader(error: BaseException | None) -> bool:
    return isinstance(error, OSError) and error.errno == errno.EPIPE


def _end_without_reader() -> NoReturn:
    """End as a program does that SIGPIPE ended, without Python's complaint when it flushes standard output."""
    with suppress(OSError, ValueError):
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    sys.exit(_SIGPIPE)


def _report_own_fault() -> NoReturn:
    traceback.print_exc()
    _end("editguard: this is a fault of editguard itself; please report it with the lines above.", 3)


if __name__ == "__main__":
    main()
