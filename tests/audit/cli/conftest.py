"""Tests of the command line do not depend on the terminal that runs them."""

from __future__ import annotations

import pytest


@pytest.fixture(autouse=True)
def no_columns(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let no width of the terminal that runs the tests decide where lines break; pytest-xdist sets one."""
    monkeypatch.delenv("COLUMNS", raising=False)
