"""The package starts light, and every module can be imported by itself.

Directions of imports and cycles are declared to import-linter, sizes to ruff: see ``pyproject.toml``.
"""

from __future__ import annotations

import ast
import importlib
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
ROOMS = ("probes", "suites", "reports", "audit")
MODULES = [
    ".".join(("editguard", *path.relative_to(ROOT).with_suffix("").parts)).removesuffix(".__init__")
    for room in ROOMS
    for path in sorted((ROOT / room).rglob("*.py"))
    if path.name != "__main__.py"
]
MOST_MODULES = 14
HEAVY = ("torch", "transformers", "datasets", "pandas", "plotly", "numpy")
HELP = """
import sys
from editguard.audit.cli.main import main
sys.argv = ["editguard", "--help"]
try:
    main()
except SystemExit as end:
    assert not end.code, end.code
"""


def loaded_after(code: str) -> set[str]:
    """Return which heavy packages a fresh interpreter has loaded after `code`."""
    script = f"{code}\nimport sys\nprint(*[name for name in {HEAVY!r} if name in sys.modules], file=sys.stderr)"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    return set(done.stderr.split())


def test_modules_imported_one_by_one_have_their_public_names() -> None:
    assert len(MODULES) > 200
    missing = []
    for module in MODULES:
        loaded = importlib.import_module(module)
        names = getattr(loaded, "__all__", [])
        assert len(names) == len(set(names)), module
        missing += [f"{module}.{name}" for name in names if not hasattr(loaded, name)]
    assert missing == []


def test_packages_in_pyproject_equal_the_folders() -> None:
    declared = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["tool"]["setuptools"]["packages"]
    folders = {path.parent for room in ROOMS for path in (ROOT / room).rglob("*.py")}
    data = {ROOT / "reports" / "html" / "templates", ROOT / "suites" / "data"}
    expected = {"editguard", *(".".join(("editguard", *path.relative_to(ROOT).parts)) for path in folders | data)}
    assert set(declared) == expected


def test_folders_hold_few_modules() -> None:
    folders = {path.parent for room in ROOMS for path in (ROOT / room).rglob("*.py")}
    sizes = {folder: sum(path.name != "__init__.py" for path in folder.glob("*.py")) for folder in folders}
    assert {str(folder): size for folder, size in sizes.items() if size > MOST_MODULES} == {}


def test_test_modules_import_no_other_test_module() -> None:
    imports = []
    for path in (ROOT / "tests").rglob("test_*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if (
                isinstance(node, ast.ImportFrom)
                and node.level
                and (node.module or "").split(".")[-1].startswith("test_")
            ):
                imports.append(f"{path.relative_to(ROOT)}:{node.lineno}")
    assert imports == []


@pytest.mark.parametrize(
    "code",
    ["import editguard, editguard.probes, editguard.suites, editguard.reports, editguard.audit", HELP],
    ids=["import", "help"],
)
def test_start_of_the_package_loads_nothing_heavy(code: str) -> None:
    assert loaded_after("import json") == set()
    assert loaded_after("import numpy") == {"numpy"}
    assert loaded_after(code) == set()
