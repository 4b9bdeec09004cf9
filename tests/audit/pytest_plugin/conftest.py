"""Sessions of pytest in an empty folder."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
from editguard.audit.editors.builtin.exploded import Exploded
from editguard.audit.pytest_plugin.collapse import CollapseReport
from editguard.audit.pytest_plugin.nodes import EditsFile

from ...helpers.plugin_sessions import (
    Run,
    RunPytest,
    write_policy,
)


@pytest.fixture
def run(pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch) -> RunPytest:
    """Run pytest in this process, in an empty folder."""
    monkeypatch.setenv("EDITGUARD_CACHE", str(pytester.path / ".cache"))
    assert Exploded.control
    assert {EditsFile.__module__, CollapseReport.__module__} <= {*sys.modules}

    def inner(*arguments: str | Path) -> Run:
        return pytester.runpytest_inprocess("-p", "no:xdist", *map(str, arguments))

    return inner


@pytest.fixture
def tiny(checkpoint: Path, pytester: pytest.Pytester) -> list[str]:
    """The options of a session on a tiny model, with bounds that edits of random weights keep."""
    policy = write_policy(pytester.path / "policy.toml")
    return [
        f"--editguard-model={checkpoint}",
        "--editguard-layer=0",
        "--editguard-stats=identity",
        f"--editguard-policy={policy}",
        "--editguard-out=out",
    ]
