"""Benchmarks name modules, functions and test files; each of them must exist."""

from __future__ import annotations

import runpy
from pathlib import Path

import pytest

pytestmark = pytest.mark.tiny

MUTANTS = Path(__file__).parents[1] / "benchmarks" / "guard_mutants.py"


def test_guard_mutants_names_only_what_exists() -> None:
    assert runpy.run_path(str(MUTANTS))["list_missing"]() == []


def test_guard_mutants_missing_test_file_or_function_is_named() -> None:
    script = runpy.run_path(str(MUTANTS))
    target = script["Target"]("editguard.audit.policy", ("decide", "gone"), ("tests/audit/test_gone.py",))
    lost = script["Target"]("editguard.audit.gone", (), ())
    assert script["list_missing"]({"policy": target, "lost": lost}) == [
        "policy: the test file tests/audit/test_gone.py does not exist.",
        "policy: editguard.audit.policy has no function gone.",
        "lost: the module editguard.audit.gone does not exist.",
    ]
