"""The house keeps its own rules: directions of imports, no cycles, a light start, public names, sizes."""

from __future__ import annotations

import ast
import importlib
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

ROOT = Path(__file__).resolve().parents[1]
MAY_IMPORT: dict[str, set[str]] = {
    "probes": {"probes"},
    "suites": {"suites", "probes"},
    "reports": {"reports"},
    "audit": {"audit", "probes", "suites", "reports"},
}
SOURCES = {
    ".".join(("editguard", *path.relative_to(ROOT).with_suffix("").parts)).removesuffix(".__init__"): path
    for room in MAY_IMPORT
    for path in sorted((ROOT / room).rglob("*.py"))
}
MOST_LINES, MOST_LINES_OF_A_FUNCTION, SECONDS = 400, 60, 0.5
HEAVY = ("torch", "transformers", "datasets", "pandas", "plotly", "numpy")

each_module = pytest.mark.parametrize("module", SOURCES)


class Import(NamedTuple):
    """One import of ours, and whether it runs when the module is loaded."""

    target: str
    at_start: bool


def _typing_only(node: ast.AST) -> bool:
    return isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test)


def _nodes(tree: ast.AST, at_start: bool = True) -> Iterator[tuple[ast.stmt, bool]]:
    for node in ast.iter_child_nodes(tree):
        inside = at_start and not isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and not _typing_only(node)
        if isinstance(node, ast.Import | ast.ImportFrom):
            yield node, at_start
        yield from _nodes(node, inside)


def imports(module: str) -> Iterator[Import]:
    """Yield every import of ours in a module's source, wherever it stands."""
    path = SOURCES[module]
    package = module if path.name == "__init__.py" else module.rpartition(".")[0]
    for node, at_start in _nodes(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        else:
            assert isinstance(node, ast.ImportFrom)
            base = node.module or ""
            if node.level:
                parent = package.split(".")[: len(package.split(".")) - node.level + 1]
                base = ".".join([*parent, *([node.module] if node.module else [])])
            # `from . import a` names a module, `from .a import b` a thing in one.
            names = [found if (found := f"{base}.{alias.name}") in SOURCES else base for alias in node.names]
        yield from (Import(name, at_start) for name in names if name.split(".")[0] == "editguard")


def test_the_sources_are_found() -> None:
    assert {module.split(".")[1] for module in SOURCES} == set(MAY_IMPORT)
    assert len(SOURCES) > 40
    assert Import("editguard.probes.errors", True) in set(imports("editguard.probes.keys.subject_keys"))
    assert Import("editguard.probes.model.language_model", False) in set(imports("editguard.probes.keys.subject_keys"))


@each_module
def test_a_room_imports_only_what_it_may(module: str) -> None:
    room = module.split(".")[1]
    for target, _ in imports(module):
        assert target in SOURCES, f"{module} imports {target}, which is not there"
        assert target.split(".")[1] in MAY_IMPORT[room], f"{module} imports {target}"


@each_module
def test_imports_between_our_modules_are_relative(module: str) -> None:
    tree = ast.parse(SOURCES[module].read_text(encoding="utf-8"))
    for node, _ in _nodes(tree):
        names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else [node.module or ""]  # type: ignore[attr-defined]
        if getattr(node, "level", 0) == 0:
            assert not any(name.split(".")[0] == "editguard" for name in names), ast.unparse(node)


def test_there_is_no_cycle_between_modules() -> None:
    graph = {module: sorted({target for target, _ in imports(module)} - {module}) for module in SOURCES}
    done: set[str] = set()

    def walk(module: str, trail: tuple[str, ...]) -> None:
        assert module not in trail, " -> ".join((*trail[trail.index(module) :], module))
        if module not in done:
            for target in graph[module]:
                walk(target, (*trail, module))
            done.add(module)

    for module in graph:
        walk(module, ())


@each_module
def test_every_module_can_be_imported_and_has_its_public_names(module: str) -> None:
    loaded = importlib.import_module(module)
    names = getattr(loaded, "__all__", [])
    assert len(names) == len(set(names))
    missing = [name for name in names if not hasattr(loaded, name)]
    assert missing == []
    assert (loaded.__doc__ or "").strip()


@each_module
def test_files_and_functions_stay_readable(module: str) -> None:
    text = SOURCES[module].read_text(encoding="utf-8")
    assert len(text.splitlines()) <= MOST_LINES
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            length = (node.end_lineno or 0) - node.lineno + 1
            assert length <= MOST_LINES_OF_A_FUNCTION, f"{node.name} has {length} lines"


def loaded_after(code: str) -> set[str]:
    """Return which heavy packages a fresh interpreter has loaded after `code`."""
    script = f"{code}\nimport sys\nprint(*[name for name in {HEAVY!r} if name in sys.modules], file=sys.stderr)"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    return set(done.stderr.split())


def test_importing_the_rooms_loads_nothing_heavy() -> None:
    assert loaded_after("import json") == set()
    assert loaded_after("import numpy") == {"numpy"}
    assert loaded_after("import editguard.probes, editguard.suites, editguard.reports, editguard.audit") == set()


HELP = """
import sys
from editguard.audit.cli.main import main
sys.argv = ["editguard", "--help"]
try:
    main()
except SystemExit as end:
    assert not end.code, end.code
"""


def test_the_help_loads_nothing_heavy() -> None:
    assert loaded_after(HELP) == set()


def test_the_help_comes_at_once() -> None:
    resource = pytest.importorskip("resource")
    script = Path(sys.executable).with_name("editguard")
    spent = []
    for _ in range(5):
        # The child's own processor time: what else runs on the machine is not its fault.
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        done = subprocess.run([script, "--help"], capture_output=True, text=True, check=True, env={**os.environ})
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        assert "audit" in done.stdout
        spent.append(after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime)
    assert min(spent) < SECONDS
