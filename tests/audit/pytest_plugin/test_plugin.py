"""Sessions that test no edit: the plug-in costs them nothing."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from ...helpers.plugin_sessions import (
    ROOT,
    write_edits,
)
from ...helpers.tiny_setups import FIRST_TOKEN_REQUEST

pytestmark = pytest.mark.tiny


HEAVY = ("torch", "transformers", "numpy", "pandas", "plotly", "pydantic", "yaml", "typer")


COLLECTS_MODULES = f"""
import sys

def pytest_sessionfinish():
    print("loaded:", *[name for name in {HEAVY!r} if name in sys.modules])
    print("ours:", *sorted(name for name in sys.modules if name.startswith("editguard.")))
"""


def run_idle_session(folder: Path, *arguments: str) -> str:
    (folder / "conftest.py").write_text(COLLECTS_MODULES)
    (folder / "test_one.py").write_text("def test_one(): pass")
    command = [sys.executable, "-m", "pytest", "-p", "no:hypothesispytest", "-q", "-s", *arguments]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False, env={**os.environ})
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_plugin_without_edits_imports_nothing_heavy(tmp_path: Path) -> None:
    out = run_idle_session(tmp_path)
    assert "loaded:\n" in out
    (ours,) = [line for line in out.splitlines() if line.startswith("ours:")]
    parts = ("", ".fixtures", ".log", ".options", ".session")
    names = {"editguard.audit", *(f"editguard.audit.pytest_plugin{part}" for part in parts)}
    names |= {
        f"editguard.{module}"
        for module in (
            "_lazy",
            "probes",
            "probes.errors",
            "probes.model",
            "probes.model.dtypes",
            "probes.requests",
            "probes.requests.request",
        )
    }
    assert set(ours.split()[1:]) <= names
    assert names <= set(ours.split())


def test_plugin_can_be_disabled(tmp_path: Path) -> None:
    write_edits(tmp_path / "a.edits.json", FIRST_TOKEN_REQUEST)
    assert "ours:\n" in run_idle_session(tmp_path, "-p", "no:editguard")


def test_repository_tests_hold_no_file_of_edits() -> None:
    assert not [*ROOT.glob("tests/**/*.edits.*"), *ROOT.glob("benchmarks/**/*.edits.*")]
