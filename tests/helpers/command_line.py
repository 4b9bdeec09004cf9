"""Running the command line in tests: in this process or in one of its own, and what it says on standard error.

The fixtures `place` and `command` of tests/audit/cli/conftest.py build on this.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

__all__ = [
    "CommandResult",
    "RunCommand",
    "assert_one_sentence",
    "files_below",
    "messages",
    "run_in_process",
    "edit_record",
]

_PROGRESS = re.compile(r" *\d+ s  .*|Loading the model .*\.\.\.|The built-in suite is used, \d+ edits?; .*")


class CommandResult(NamedTuple):
    """Exit code, standard output and standard error."""

    code: int
    out: str
    err: str


RunCommand = Callable[..., CommandResult]


def run_in_process(*arguments: str | Path, columns: int = 200) -> CommandResult:
    """Run the command line in a process of its own."""
    done = subprocess.run(
        [sys.executable, "-m", "editguard.audit.cli.main", *map(str, arguments)],
        capture_output=True,
        text=True,
        encoding="utf-8",
        timeout=600,
        check=False,
        env=os.environ | {"COLUMNS": str(columns)},
    )
    return CommandResult(done.returncode, done.stdout, done.stderr)


def messages(err: str) -> list[str]:
    """Return the lines of standard error that say something other than progress."""
    return [line for line in err.splitlines() if not _PROGRESS.fullmatch(line)]


def assert_one_sentence(result: CommandResult, *parts: str) -> None:
    """Assert that a command ended as wrong input, with one line that holds all `parts`."""
    assert result.code == 2
    assert result.out == ""
    (line,) = messages(result.err)
    assert line.startswith("editguard: ")
    assert not [part for part in parts if part not in line], line


def files_below(folder: Path) -> dict[str, bytes]:
    """Return the content of all files below `folder` by their relative path; locks are left out."""
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file() and path.name != ".lock"
    }


def edit_record(subject: str, prompt: str, target: str = "Istanbul", **more: object) -> dict[str, object]:
    """Return a record of editguard's own layout."""
    return {"subject": subject, "prompt": prompt, "target_new": target, **more}
