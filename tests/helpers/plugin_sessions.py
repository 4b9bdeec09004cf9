"""Files, options and texts of the pytest sessions that the plug-in is tested with."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Protocol

import pytest
from editguard.probes.requests.request import EditRequest
from editguard.suites.check import list_single_edit_checks

from .tiny_setups import lenient

ITEMS = {"guard", *list_single_edit_checks()}

NOWHERE = "--editguard-model=./no/such/model"

REFUSING = 'first-token = "refuse"'

ASKS_FOR_THE_GUARD = """
def test_asks(guarded_editor):
    pass
"""

ROOT = Path(__file__).resolve().parents[2]

GUIDE = ROOT / "docs" / "reference" / "pytest.md"

Run = pytest.RunResult


class RunPytest(Protocol):
    """Runs pytest in this process with the given arguments."""

    def __call__(self, *arguments: str | Path) -> Run: ...


def write_edits(path: Path, *requests: EditRequest) -> Path:
    fields = ("id", "subject", "prompt", "target_new", "target_true", "paraphrases", "neighbourhood")
    records = [{name: getattr(request, name) for name in fields} for request in requests]
    path.write_text(json.dumps(records), encoding="utf-8")
    return path


def write_policy(path: Path, *rules: str, **changes: object) -> Path:
    values = lenient(**changes).model_dump().items()
    lines = [f"{name} = {json.dumps(value)}" for name, value in values if name != "rules"]
    path.write_text("\n".join([*lines, "[rules]", *rules]), encoding="utf-8")
    return path


def list_items(ran: Run) -> list[str]:
    return [line for line in ran.outlines if "::" in line and not line.startswith("ERROR")]


def read_example() -> str:
    """Return the only Python example of the page about the plug-in."""
    (example,) = re.findall(r"```python\n(.*?)```", GUIDE.read_text(encoding="utf-8"), re.DOTALL)
    return example
