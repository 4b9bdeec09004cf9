"""Plugins and marks that the tests of every room share."""

from __future__ import annotations

import gc
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import settings

settings.register_profile("fast", settings.get_profile("ci"), max_examples=25)

pytest_plugins = ["pytester"]

REPRESENTATIVE_FAMILIES = frozenset({"llama", "gpt2", "opt"})
"""Rotary positions, a table of positions with Conv1D, and a table of positions with linear layers."""

END_TO_END = (
    "audit/cli",
    "audit/delta",
    "audit/folders",
    "audit/pytest_plugin",
    "audit/research",
    "audit/run",
    "audit/saved_model",
    "audit/test_determinism.py",
    "audit/test_foreign_probe.py",
    "audit/test_little_memory.py",
    "audit/test_freed_memory.py",
    "audit/test_rollback.py",
    "audit/test_security.py",
    "audit/test_sequence.py",
    "ci",
    "fuzz",
    "reports/html/test_accessible.py",
    "reports/html/test_baseline_section.py",
    "reports/html/test_hostile.py",
    "reports/html/test_leaks_shown.py",
    "reports/html/test_page_in_browser.py",
    "reports/html/test_report_page.py",
    "suites/test_served_answer.py",
    "test_benchmarks.py",
)
"""Folders and files whose tests run whole commands, audits or a browser: seconds each."""

HERE = Path(__file__).parent


def is_end_to_end(path: Path) -> bool:
    """Say whether the tests under this path run whole commands, audits or a browser."""
    place = path.relative_to(HERE).as_posix() if path.is_relative_to(HERE) else ""
    return any(place == prefix or place.startswith(f"{prefix}/") for prefix in END_TO_END)


def pytest_ignore_collect(collection_path: Path, config: pytest.Config) -> bool | None:
    """Leave the modules of whole runs unread where none of their tests was asked for: imports cost seconds."""
    return True if "not end_to_end" in config.option.markexpr and is_end_to_end(collection_path) else None


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark whole runs as end_to_end, and all but three model families as slow where a test is not ``all_families``."""
    helper = sys.modules.get("tests.helpers.families")
    others = set(helper.FAMILIES) - REPRESENTATIVE_FAMILIES if helper is not None else set()
    for item in items:
        if is_end_to_end(item.path):
            item.add_marker(pytest.mark.end_to_end)
        callspec = getattr(item, "callspec", None)
        if callspec is None or item.get_closest_marker("all_families"):
            continue
        values = [
            part for value in callspec.params.values() for part in (value if isinstance(value, tuple) else (value,))
        ]
        if any(isinstance(value, str) and value in others for value in values):
            item.add_marker(pytest.mark.slow)


def pytest_collection_finish() -> None:
    """Keep what the imports made out of the garbage collector's sight: it would look through it again and again."""
    gc.collect()
    gc.freeze()


@pytest.fixture(scope="session", autouse=True)
def nothing_prepared_is_kept() -> Iterator[None]:
    """Compute what a model is prepared with each time: a test that changes code would leave its thresholds to others."""
    if "torch" not in sys.modules:  # a test without a model stays fast
        yield
        return
    from editguard.audit.prepared import store

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(store, "find_origin", lambda *_: None)
        yield
