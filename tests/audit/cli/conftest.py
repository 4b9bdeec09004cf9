"""A folder to stand in, and the command line run in this process."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest
from editguard.audit.cli.main import main

from ...helpers.command_line import CommandResult, RunCommand, edit_record
from ...helpers.tiny_setups import FIRST_TOKEN_REQUEST, MID_PROMPT_REQUEST, lenient


@pytest.fixture(autouse=True)
def no_columns(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let no width of the terminal that runs the tests decide where lines break; pytest-xdist sets one."""
    monkeypatch.delenv("COLUMNS", raising=False)


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty folder to stand in, with a file of two good edits."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("EDITGUARD_CACHE", str(tmp_path / ".cache"))
    edits = [edit_record(r.subject, r.prompt, r.target_new, id=r.id) for r in (FIRST_TOKEN_REQUEST, MID_PROMPT_REQUEST)]
    (tmp_path / "edits.json").write_text(json.dumps(edits), encoding="utf-8")
    policy = [f"{name} = {json.dumps(value)}" for name, value in lenient().model_dump().items() if name != "rules"]
    (tmp_path / "policy.toml").write_text("\n".join(policy), encoding="utf-8")
    return tmp_path


@pytest.fixture
def command(monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> RunCommand:
    """Run the command line in this process, as its entry point would."""

    def run(*arguments: str | Path) -> CommandResult:
        monkeypatch.setattr(sys, "argv", ["editguard", *map(str, arguments)])
        with pytest.raises(SystemExit) as stopped:
            main()
        code = stopped.value.code
        return CommandResult(code if isinstance(code, int) else 0 if code is None else 1, *capfd.readouterr())

    return run
