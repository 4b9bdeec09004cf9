"""Plugins and marks that the tests of every room share."""

from __future__ import annotations

import sys

import pytest

pytest_plugins = ["pytester"]

REPRESENTATIVE_FAMILIES = frozenset({"llama", "gpt2", "opt"})
"""Rotary positions, a table of positions with Conv1D, and a table of positions with linear layers."""


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark the cases of all other model families as slow, except where a test is marked ``all_families``."""
    helper = sys.modules.get("tests.helpers.families")
    if helper is None:
        return
    others = set(helper.FAMILIES) - REPRESENTATIVE_FAMILIES
    for item in items:
        callspec = getattr(item, "callspec", None)
        if callspec is None or item.get_closest_marker("all_families"):
            continue
        values = [
            part for value in callspec.params.values() for part in (value if isinstance(value, tuple) else (value,))
        ]
        if any(isinstance(value, str) and value in others for value in values):
            item.add_marker(pytest.mark.slow)
