"""Progress on standard error: bars in a terminal, plain lines in a log, and never ten seconds without a sign.

Measuring code calls a `Progress` with (stage, steps done, steps in all). Some stages are one call of a library that reports no
steps. A `Heartbeat` says in a thread of its own that such a stage is still running; it stops with its block, also on errors.
Nothing but results goes to standard output.
"""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import TYPE_CHECKING, Any, TextIO

import typer

from ...probes.model.embedded import EMBEDDED_NAME

if TYPE_CHECKING:
    from ..progress import Progress

__all__ = ["Heartbeat", "ProgressLines", "announce_conversions", "show_progress"]

LOADING = "loading the model"
"""The first stage of every command that loads a model."""

_INTERVAL = 8.0
"""Seconds without a line after which the next one is due; with a beat's length it stays under ten."""
_BEAT = 1.0
"""Seconds between two looks of a heartbeat."""


class Heartbeat:
    """Calls `tick` every `seconds` in a thread, from the start of the block to its end."""

    def __init__(self, tick: Callable[[], None], seconds: float = _BEAT) -> None:
        """Start nothing yet."""
        self._tick, self._seconds = tick, seconds
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="editguard-progress", daemon=True)

    def _run(self) -> None:
        while not self._stop.wait(self._seconds):
            try:
                self._tick()
            except (OSError, ValueError):  # nobody reads standard error any more, or it is closed
                return

    def __enter__(self) -> Heartbeat:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()


class ProgressLines:
    """Progress as lines: a line for a step when one is due, and `tick` for stages without steps.

    A stage's last step has a line too once there was a line before, so that its end is seen.
    """

    def __init__(self, write: Callable[[str], None], clock: Callable[[], float] | None = None) -> None:
        """`write` takes a line without its end; `clock` gives seconds."""
        self._write, self._clock = write, clock or time.monotonic
        self._started = self._last = self._clock()
        self._lock = threading.Lock()
        self._stage, self._done, self._total = LOADING, 0, 1
        self._written: tuple[str, int] | None = None

    def __call__(self, stage: str, done: int, total: int) -> None:
        """Take note of a step, and write it where a line is due."""
        with self._lock:
            self._stage, self._done, self._total = stage, done, total
            now = self._clock()
            ends_after_a_line = done == total > 0 and self._written is not None
            if (ends_after_a_line or now - self._last >= _INTERVAL) and self._written != (stage, done):
                self._say(now, "")

    def tick(self) -> None:
        """Say what is still running, where nothing was said for a while."""
        with self._lock:
            now = self._clock()
            if now - self._last >= _INTERVAL:
                self._say(now, "still ")

    def _say(self, now: float, still: str) -> None:
        self._last, self._written = now, (self._stage, self._done)
        steps = f": {self._done} of {self._total}" if self._total > 1 or not still else ""
        # Between the end of a stage and the next one something runs that has no name.
        text = "working" if still and self._done == self._total > 0 else f"{self._stage}{steps}"
        self._write(f"{now - self._started:6.0f} s  {still}{text}")


@contextmanager
def show_progress(model: str, *, as_json: bool = False) -> Iterator[Progress]:
    """Say at once that `model` is loaded, and yield a callback that shows progress on standard error until the block ends.

    Bars are drawn in a terminal only, and not beside JSON, which may go to the same terminal.
    """
    typer.echo(_announcement(model), err=True)
    stream = sys.stderr  # as it is now: the conversion of a model keeps what libraries write from the user
    if stream.isatty() and not as_json:
        with _bars(stream) as show:
            yield show
    else:
        lines = ProgressLines(partial(_write_line, stream))
        with Heartbeat(lines.tick):
            yield lines


def announce_conversions(*refs: str) -> None:
    """Say on standard error of each model that is a GGUF file what is read of it."""
    from ...probes.model.folders.gguf_file import describe_conversion, is_gguf_file
    from ...reports.text import visible

    for ref in refs:
        if is_gguf_file(ref):
            typer.echo(visible(describe_conversion(ref)), err=True)


def _announcement(model: str) -> str:
    if model == EMBEDDED_NAME:
        return "Loading the model (the first run converts it, about a minute) ..."
    from ...reports.text import printable

    return f"Loading the model {printable(model)} ..."


def _write_line(stream: TextIO, line: str) -> None:
    stream.write(f"{line}\n")
    stream.flush()


@contextmanager
def _bars(stream: TextIO) -> Iterator[Progress]:
    """Yield a callback that draws a bar for each stage; the first bar moves until the block ends, whatever the stage."""
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeElapsedColumn
    from rich.progress import Progress as Bars

    columns = (TextColumn("{task.description:>34}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    with Bars(*columns, console=Console(file=stream)) as drawn:
        drawn.add_task("in all", total=None)
        tasks: dict[str, Any] = {}

        def show(stage: str, done: int, total: int) -> None:
            if stage not in tasks:
                tasks[stage] = drawn.add_task(stage, total=total)
            drawn.update(tasks[stage], completed=done, total=total)

        yield show
