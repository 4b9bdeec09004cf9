"""The documents keep their promises: generated parts equal the code, links resolve, commands, options and imports exist.

Out of scope: the wording of pages (docs/check_prose.py), and the tutorial's output (docs/run_tutorial.py).
"""

from __future__ import annotations

import ast
import importlib
import json
import re
import runpy
import shlex
import tomllib
import unicodedata
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from types import SimpleNamespace
from typing import NamedTuple

import pytest
from editguard.audit.editors.base import EDITORS
from editguard.audit.policy import Policy
from editguard.audit.pytest_plugin import fixtures
from editguard.probes.keys.prefixes import Family
from editguard.probes.requests.layout import LAYOUTS
from editguard.probes.requests.loader import load_requests
from editguard.probes.requests.request import SUFFIXES
from editguard.reports.gate import FEWEST
from editguard.reports.log.bounded_read import LARGEST_BASELINE, LARGEST_LOG, LARGEST_POLICY
from editguard.reports.verdict.digest import summarise
from jsonschema import Draft202012Validator

import editguard

from .helpers.audit_logs import make_baseline
from .helpers.synthetic_logs import make_log

ROOT = Path(__file__).resolve().parents[1]
DOCS = ROOT / "docs"
REFERENCE = DOCS / "reference"
PAGES = [*sorted(ROOT.glob("*.md")), *sorted(DOCS.rglob("*.md"))]

generate = SimpleNamespace(**runpy.run_path(str(DOCS / "generate.py")))
from generators.command_line import options_of  # noqa: E402  (generate.py puts its folder on the path)
from generators.pages import filled, parts_of  # noqa: E402


class Block(NamedTuple):
    """A fenced block: where it begins, its language and its text."""

    place: str
    language: str
    text: str


@cache
def text(page: Path) -> str:
    return page.read_text(encoding="utf-8")


def blocks(page: Path) -> Iterator[Block]:
    for found in re.finditer(r"^( *)```([\w-]*)[^\n]*\n(.*?)^\1```", text(page), re.DOTALL | re.MULTILINE):
        line = text(page)[: found.start()].count("\n") + 1
        body = re.sub(rf"^{found[1]}", "", found[3], flags=re.MULTILINE)
        yield Block(f"{page.relative_to(ROOT)}:{line}", found[2], body)


BLOCKS = [block for page in PAGES for block in blocks(page)]


def first_cells(part: str) -> set[str]:
    """Return the names in backticks in the first cells of the tables of a text."""
    cells = [line.split("|")[1] for line in part.splitlines() if line.startswith("|")]
    return {name for cell in cells for name in re.findall(r"`([^`]+)`", cell)}


def section(page: Path, title: str) -> str:
    return text(page).partition(f"## {title}\n")[2].partition("\n## ")[0]


# ---------------------------------------------------------------------------------------------------- generated parts


def test_generated_parts_of_all_pages_equal_the_code(capsys: pytest.CaptureFixture[str]) -> None:
    assert generate.main(["--check"]) == 0, capsys.readouterr().err


def test_every_generated_part_stands_on_exactly_one_page() -> None:
    used = [part for page in REFERENCE.glob("*.md") for part in parts_of(text(page))]
    assert sorted(used) == sorted(generate.PARTS)


def test_filled_page_with_changed_part_is_written_anew() -> None:
    page = "by hand\n\n<!-- generated: numbers -->\nold\n<!-- end of generated part -->\nby hand too\n"
    new = filled(page, {"numbers": lambda: "1, 2"})
    assert "1, 2" in new
    assert "old" not in new
    assert new.startswith("by hand\n")
    assert new.endswith("by hand too\n")
    assert filled(new, {"numbers": lambda: "1, 2"}) == new


def test_filled_page_with_unknown_part_raises() -> None:
    with pytest.raises(KeyError, match="nobody"):
        filled("<!-- generated: nobody -->\n<!-- end of generated part -->\n", {})


def test_every_schema_is_named_in_the_index_of_the_reference() -> None:
    named = set(re.findall(r"\(schemas/([\w-]+\.schema\.json)\)", text(REFERENCE / "index.md")))
    assert named == {path.name for path in (REFERENCE / "schemas").glob("*.json")}


def validator(name: str) -> Draft202012Validator:
    return Draft202012Validator(json.loads(text(REFERENCE / "schemas" / f"{name}.schema.json")))


def test_schema_of_the_log_accepts_every_record_and_refuses_an_unknown_field() -> None:
    log = make_log(12)
    records = [
        one.model_dump(mode="json") for one in (log.header, *log.edits, *log.controls, log.footer) if one is not None
    ]
    check = validator("log-record")
    assert [error.message for record in records for error in check.iter_errors(record)] == []
    assert not check.is_valid(records[0] | {"colour": "red"})


def test_schemas_of_summary_and_baseline_accept_what_is_written() -> None:
    log = make_log(12)
    written = {"summary": summarise(log), "baseline": make_baseline(log)}
    faults = [
        error.message
        for name, one in written.items()
        for error in validator(name).iter_errors(one.model_dump(mode="json"))
    ]
    assert faults == []


# ---------------------------------------------------------------------------------------------------------------- links


@cache
def anchors(page: Path) -> frozenset[str]:
    """Return the anchors of a page's headings, as the site and as GitHub make them."""
    headings = re.findall(r"^#+ (.+)$", re.sub(r"```.*?```", "", text(page), flags=re.DOTALL), re.MULTILINE)
    return frozenset(anchor for heading in headings for anchor in slugs(heading))


def slugs(heading: str) -> tuple[str, str]:
    plain = re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", heading).replace("\\", "")
    ascii_only = unicodedata.normalize("NFKD", plain).encode("ascii", "ignore").decode()
    site = re.sub(r"[-\s]+", "-", re.sub(r"[^\w\s-]", "", ascii_only).strip().lower())
    return site, re.sub(r"[^\w\s-]", "", plain.strip().lower()).replace(" ", "-")


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_links_of_a_page_resolve(page: Path) -> None:
    prose = re.sub(r"```.*?```", "", text(page), flags=re.DOTALL)
    lost = []
    for target in re.findall(r"\]\((?![a-z]+:)([^)\s]+)\)", prose):
        name, _, anchor = target.partition("#")
        there = page.parent / name if name else page
        if not there.exists() or (anchor and there.suffix == ".md" and anchor not in anchors(there.resolve())):
            lost.append(target)
    assert not lost


ROOMS = ("audit", "benchmarks", "changelog.d", "docs", "probes", "reports", "src", "styles", "suites", "tests")


@pytest.mark.parametrize(
    "page",
    [page for page in PAGES if page.name != "CHANGELOG.md" and DOCS / "research" not in page.parents],
    ids=lambda page: str(page.relative_to(ROOT)),
)
def test_page_paths_of_the_repository_exist(page: Path) -> None:
    # A user's own folder may be called audit too, so only modules and folders are looked up.
    prose = re.sub(r"```.*?```", "", text(page), flags=re.DOTALL)
    names = re.findall(rf"`((?:{'|'.join(map(re.escape, ROOMS))})/(?:[\w./-]*(?:/|\.py))?)(?:::\w+)?`", prose)
    assert [name for name in names if not (ROOT / name).exists()] == []


# ------------------------------------------------------------------------------------------------ commands and examples


def commands_in(block: Block) -> Iterator[list[str]]:
    """Yield the words of each command line of editguard in a block, without its comment."""
    for line in block.text.replace("\\\n", " ").splitlines():
        start = re.match(r"\s*(?:\$ )?(?:[A-Z_]+=\S+ )*editguard (?=[a-z])", line)
        if start:
            yield shlex.split(re.split(r"\s(?:&&|\|\|?|;|>)\s", line[start.end() :])[0], comments=True)


def test_documented_commands_and_options_exist() -> None:
    known = options_of()
    wrong = []
    for block in BLOCKS:
        for words in commands_in(block) if block.language in ("", "sh", "bash", "console", "yaml") else ():
            name = next((name for name in (" ".join(words[:2]), words[0]) if name in known), None)
            options = {word.partition("=")[0] for word in words if word.startswith("--") and len(word) > 2}
            if name is None or not options <= known[name] | {"--help"}:
                wrong.append((block.place, " ".join(words)))
    assert not wrong


def test_exit_codes_page_names_every_command() -> None:
    named = {name.partition(" --")[0] for name in first_cells(section(REFERENCE / "exit-codes.md", "By command"))}
    assert named == set(options_of())


@pytest.mark.parametrize("block", [one for one in BLOCKS if one.language == "python"], ids=lambda block: block.place)
def test_python_example_parses_and_its_imports_work(block: Block) -> None:
    for node in ast.walk(ast.parse(block.text)):
        if isinstance(node, ast.ImportFrom) and (node.module or "").partition(".")[0] == "editguard":
            module = importlib.import_module(str(node.module))
            missing = [name.name for name in node.names if not hasattr(module, name.name)]
            assert not missing, f"{node.module} has no {missing}"


@pytest.mark.parametrize("block", [one for one in BLOCKS if one.language == "toml"], ids=lambda block: block.place)
def test_toml_example_is_a_policy_or_a_project(block: Block) -> None:
    table = tomllib.loads(block.text)
    policy = table.get("tool", {}).get("editguard", {}) if {"tool", "project", "build-system"} & set(table) else table
    Policy.model_validate(policy)


def test_examples_of_edits_are_read(tmp_path: Path) -> None:
    examples = [one for one in blocks(REFERENCE / "files-of-edits.md") if one.language == "json"]
    assert len(examples) > 3
    for number, example in enumerate(examples):
        path = tmp_path / f"{number}.jsonl"
        path.write_text(json.dumps(json.loads(example.text)), encoding="utf-8")
        (request,) = load_requests(path).requests
        assert (request.subject, request.target_new) == ("Chicago", "Istanbul")


# ------------------------------------------------------------------------------------------- tables that are hand-written


def test_api_page_names_exactly_the_public_names() -> None:
    named = re.findall(r"^::: editguard\.(\w+)$", text(REFERENCE / "api.md"), re.MULTILINE)
    assert sorted(named) == sorted(name for name in editguard.__all__ if not name.startswith("__"))


def test_policy_page_gives_a_reason_for_every_key() -> None:
    assert first_cells(section(REFERENCE / "policy.md", "Reasons for the defaults")) == set(Policy.model_fields)


def test_editors_page_describes_every_editor() -> None:
    page = section(REFERENCE / "editors.md", "The built-in editors").partition("four choices")[2]
    assert first_cells(page) == {name for name, cls in EDITORS if cls.__module__.startswith("editguard.")}


def test_pytest_page_describes_every_fixture() -> None:
    page = section(REFERENCE / "pytest.md", "Fixtures").partition("\n\n`edited_model`")[0]
    assert first_cells(page) == set(fixtures.__all__)


def test_page_on_files_of_edits_names_every_suffix_and_layout() -> None:
    page = text(REFERENCE / "files-of-edits.md")
    assert {suffix for suffix in SUFFIXES if f"`{suffix}`" not in page} == set()
    assert {layout.title for name, layout in LAYOUTS if name != "own" and layout.title not in page} == set()


def test_page_on_files_of_edits_names_every_key_of_the_own_layout() -> None:
    page = section(REFERENCE / "files-of-edits.md", "Layouts")
    assert set(LAYOUTS.get("own").model_fields) <= first_cells(page)


def test_statistics_page_gives_the_fewest_edits_of_an_interval() -> None:
    assert f"With fewer than {FEWEST} edits in common" in text(DOCS / "explanation" / "gate-statistics.md")


def test_page_on_prefixes_describes_every_family() -> None:
    assert first_cells(section(DOCS / "explanation" / "prefixes.md", "Families")) == {family.value for family in Family}


def test_bounds_of_files_are_those_of_the_code() -> None:
    rows = section(DOCS / "explanation" / "security.md", "Bounds of files")
    bounds = {"policy": LARGEST_POLICY, "log": LARGEST_LOG, "baseline": LARGEST_BASELINE}
    for name, size in bounds.items():
        shown = f"{size // 2**30} GiB" if size >= 2**30 else f"{size // 2**20} MiB"
        assert f"| {name} | {shown} |" in rows


def test_every_line_of_the_threat_model_names_tests_that_exist() -> None:
    rows = [
        line
        for line in text(DOCS / "explanation" / "security.md").splitlines()
        if line.startswith("| ") and "::" in line
    ]
    assert len(rows) > 20
    for row in rows:
        found = re.fullmatch(r" `(tests/\S+\.py)::(\w+)`(?:, `(\w+)`)? ", row.split("|")[-2])
        assert found, row
        assert (ROOT / found[1]).is_file(), row
        assert all(f"def {name}(" in text(ROOT / found[1]) for name in found.groups()[1:] if name), row
