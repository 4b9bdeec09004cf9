"""Progress: never ten seconds without a sign, in a log and in a terminal, and an end that is sure."""

from __future__ import annotations

import io
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import redirect_stderr
from itertools import pairwise
from pathlib import Path

import pytest
from editguard.audit.cli import progress as module
from editguard.audit.cli.progress import Heartbeat, ProgressLines, show_progress
from hypothesis import given
from hypothesis import strategies as st

from ...helpers.command_line import RunCommand, messages

LONGEST_SILENCE = 10.0


class Log:
    """Lines with the time of a clock that stands still until it is moved."""

    def __init__(self) -> None:
        self.now = 0.0
        self.lines: list[tuple[float, str]] = []
        self.progress = ProgressLines(lambda line: self.lines.append((self.now, line)), lambda: self.now)

    def wait(self, seconds: float) -> None:
        """Let time pass as the heartbeat sees it: a beat each second."""
        for _ in range(int(seconds)):
            self.now += 1.0
            self.progress.tick()

    @property
    def texts(self) -> list[str]:
        return [text for _, text in self.lines]

    @property
    def silences(self) -> list[float]:
        times = [0.0, *(time for time, _ in self.lines), self.now]
        return [later - earlier for earlier, later in pairwise(times)]


def test_lines_stage_without_steps_says_that_it_still_runs() -> None:
    log = Log()
    log.progress("loading the model", 0, 1)
    log.wait(30)
    assert log.texts == [f"{seconds:6} s  still loading the model" for seconds in (8, 16, 24)]


def test_lines_steps_are_shown_now_and_then_with_the_last() -> None:
    log = Log()
    for done in range(21):
        log.progress("edits", done, 20)
        log.now += 1.0
    assert log.texts == ["     8 s  edits: 8 of 20", "    16 s  edits: 16 of 20", "    20 s  edits: 20 of 20"]


def test_lines_short_run_has_none() -> None:
    log = Log()
    log.progress("loading the model", 1, 1)
    log.wait(3)
    log.progress("edits", 2, 2)
    assert log.texts == []


@given(
    st.lists(st.tuples(st.sampled_from(["loading the model", "baselines", "edits"]), st.integers(0, 90)), max_size=12)
)
def test_lines_any_stages_leave_no_silence_of_ten_seconds(stages: list[tuple[str, int]]) -> None:
    log = Log()
    for stage, seconds in stages:
        log.progress(stage, 0, 7)
        log.wait(seconds)
        log.progress(stage, 7, 7)
    assert max(log.silences) < LONGEST_SILENCE


class Stderr(io.StringIO):
    """Standard error that is no terminal, and sets an event when a line with `text` is written to it."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self._text, self.shown = text, threading.Event()

    def write(self, text: str) -> int:
        if self._text in text:
            self.shown.set()
        return super().write(text)


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """A heartbeat and an interval that are over at once."""
    monkeypatch.setattr(module, "_INTERVAL", 0.0)
    beat = Heartbeat
    monkeypatch.setattr(module, "Heartbeat", lambda tick: beat(tick, 0.001))


def alive() -> list[str]:
    return [thread.name for thread in threading.enumerate() if thread.name == "editguard-progress"]


@pytest.mark.usefixtures("quick")
def test_show_progress_slow_stage_is_reported_while_it_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    stderr = Stderr("still sampling prefixes")
    monkeypatch.setattr(sys, "stderr", stderr)
    with show_progress("smollm2-135m") as progress:
        progress("sampling prefixes", 0, 1)
        assert stderr.shown.wait(60)
    first = stderr.getvalue().splitlines()[0]
    assert first == "Loading the model (the first run converts it, about a minute) ..."
    assert alive() == []


@pytest.mark.usefixtures("quick")
def test_show_progress_reaches_the_user_while_a_library_is_kept_silent(monkeypatch: pytest.MonkeyPatch) -> None:
    stderr = Stderr("still loading the model")
    monkeypatch.setattr(sys, "stderr", stderr)
    with show_progress("smollm2-135m"), redirect_stderr(io.StringIO()):
        assert stderr.shown.wait(60)


WITHOUT_TORCH = """
import sys
sys.modules["torch"] = None
from editguard.audit.cli.main import main
sys.argv = ["editguard", *sys.argv[1:]]
main()
"""


@pytest.mark.parametrize(
    "arguments",
    [
        ["audit", "edits.json"],
        ["audit", "edits.json", "--save-baseline", "main", "--editor", "rome"],
        ["probe"],
        ["stats", "--out", "c.safetensors"],
        ["export", "edits.json", "--out", "deltas"],
        ["apply", "one.delta.safetensors", "--out", "edited"],
        ["diff", "a", "b"],
        ["trace", "edits.json"],
        ["reproduce", "edits.json"],
    ],
    ids=lambda arguments: "-".join(arguments[:2]),
)
def test_command_announces_the_model_before_torch_is_imported(place: Path, arguments: list[str]) -> None:
    (place / "one.delta.safetensors").touch()
    done = subprocess.run(
        [sys.executable, "-c", WITHOUT_TORCH, *arguments], capture_output=True, text=True, timeout=120, check=False
    )
    assert "import of torch halted" in done.stderr
    assert "Loading the model " in done.stderr.partition("Traceback")[0]


@pytest.mark.usefixtures("quick")
@pytest.mark.parametrize("error", [ValueError("boom"), KeyboardInterrupt(), SystemExit(1)])
def test_show_progress_error_stops_the_heartbeat(error: BaseException) -> None:
    def fail() -> None:
        with show_progress("./mine") as progress:
            progress("edits", 0, 3)
            raise error

    with pytest.raises(type(error)):
        fail()
    assert alive() == []


def test_heartbeat_stops_when_nobody_reads() -> None:
    called = threading.Event()

    def tick() -> None:
        called.set()
        raise BrokenPipeError

    with Heartbeat(tick, 0.001):
        assert called.wait(60)


def test_show_progress_names_another_model_without_a_conversion(capsys: pytest.CaptureFixture[str]) -> None:
    with show_progress("./mi\x1bne"):
        pass
    assert capsys.readouterr().err == "Loading the model ./mi[U+001B]ne ...\n"


class Terminal(Stderr):
    def isatty(self) -> bool:
        return True


def test_show_progress_terminal_moves_while_a_stage_has_no_steps(monkeypatch: pytest.MonkeyPatch) -> None:
    terminal = Terminal("0:00:02")
    monkeypatch.setattr(sys, "stderr", terminal)
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setattr("rich.progress.Task.elapsed", property(ticking(terminal)))
    with show_progress("smollm2-135m") as progress:
        progress("loading the model", 0, 1)
        assert terminal.shown.wait(60)
    assert "in all" in terminal.getvalue()
    assert "loading the model" in terminal.getvalue()


def ticking(_: Terminal) -> Callable[[object], float]:
    """Return a stopwatch that moves by a second each time somebody looks at it."""
    times: Iterator[float] = (float(second) for second in range(10**6))
    return lambda _: next(times)


@pytest.mark.tiny
def test_audit_with_a_slow_search_for_values_is_never_silent(
    place: Path, checkpoint: Path, command: RunCommand, monkeypatch: pytest.MonkeyPatch
) -> None:
    from editguard.audit.editors import base

    clock = [0.0]
    silences: list[tuple[float, str]] = []
    written = [0.0]
    compute = base.optimise_values
    lines: list[ProgressLines] = []

    def write(line: str) -> None:
        silences.append((clock[0] - written[0], line))
        written[0] = clock[0]

    def make(_: object) -> ProgressLines:
        lines.append(ProgressLines(write, lambda: clock[0]))
        return lines[-1]

    def slow(*arguments: object, **options: object) -> object:
        for _ in range(45):
            clock[0] += 1.0
            lines[-1].tick()
        return compute(*arguments, **options)  # type: ignore[arg-type]

    monkeypatch.setattr(module, "ProgressLines", make)
    monkeypatch.setattr(base, "optimise_values", slow)
    result = command(
        "audit", "edits.json", "--model", checkpoint, "--layer", 0, "--stats", "identity", "--policy", "policy.toml"
    )
    assert result.code == 0, messages(result.err)
    assert len([line for _, line in silences if "still updates" in line]) >= 4
    assert max(seconds for seconds, _ in silences) < LONGEST_SILENCE
