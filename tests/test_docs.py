"""The documentation keeps up with the code: generated pages, tables of keys and fields, and links between files.

Out of scope: docs/results.md, docs/layer.md and the pictures, which are made from measurements.
"""

from __future__ import annotations

import re
import runpy
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import click
import pytest
import typer
from editguard.audit.cli import main as cli
from editguard.audit.editors.base import EDITORS
from editguard.audit.editors.builtin.exploded import Exploded
from editguard.audit.guard import GuardedEditor
from editguard.audit.policy import Policy
from editguard.audit.pytest_plugin import fixtures
from editguard.audit.pytest_plugin.options import EDITS, OPTIONS
from editguard.probes.requests.loader import load_requests
from editguard.probes.requests.request import SUFFIXES
from editguard.reports.log.schema import EditBody, Header
from editguard.reports.verdict.summary import Summary

ROOT = Path(__file__).resolve().parents[1]
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", ROOT / "CHANGELOG.md", *sorted((ROOT / "docs").glob("*.md"))]
MEASURED = {"results.md", "layer.md", "report-light.png"}

generate = SimpleNamespace(**runpy.run_path(str(ROOT / "docs" / "generate.py")))


def text(name: str) -> str:
    return (ROOT / name).read_text(encoding="utf-8")


def first_cells(page: str) -> set[str]:
    """Return the names in backticks in the first cells of a page's tables."""
    cells = [line.split("|")[1] for line in page.splitlines() if line.startswith("|")]
    return {name for cell in cells for name in re.findall(r"`([^`]+)`", cell)}


@pytest.mark.parametrize("name", sorted(generate.PAGES))
def test_generated_pages_are_what_the_registries_say(name: str) -> None:
    assert text(f"docs/{name}") == generate.PAGES[name](), "run: python docs/generate.py"


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_lead_somewhere(page: Path) -> None:
    targets = re.findall(r"\]\((?!https?:)([^)#]+)(?:#[^)]*)?\)", page.read_text(encoding="utf-8"))
    lost = [target for target in targets if not (page.parent / target).exists() and Path(target).name not in MEASURED]
    assert not lost


@pytest.mark.parametrize("key", Policy.model_fields)
def test_policy_page_gives_every_key_with_its_default(key: str) -> None:
    rows = [line for line in text("docs/policy.md").splitlines() if line.startswith(f"| `{key}` |")]
    assert len(rows) == 1
    default = getattr(Policy(), key)
    if isinstance(default, dict):
        assert all(f"`{probe}`" in rows[0] for probe in default)
    else:
        shown = {True: "true", False: "false"}[default] if isinstance(default, bool) else default
        quoted = f'"{shown}"' if isinstance(shown, str) and not isinstance(default, bool) else str(shown)
        assert rows[0].split("|")[2].strip() == f"`{quoted}`"


def test_policy_example_is_a_policy() -> None:
    import tomllib

    example = re.search(r"```toml\n(.*?)```", text("docs/policy.md"), re.DOTALL)
    assert example is not None
    policy = Policy.model_validate(tomllib.loads(example[1]))
    assert policy.rules["first-token"] == "refuse"


def test_guide_names_every_field_of_the_summary_and_none_else() -> None:
    part = text("docs/guide-audit.md").partition("## summary.json")[2].partition("## The log")[0]
    assert first_cells(part) == set(Summary.model_fields)


def options_of(command: click.Command, name: str = "") -> Iterator[tuple[str, str]]:
    """Yield (option, command's name) of a command and of those below it."""
    for below, one in getattr(command, "commands", {}).items():
        yield from options_of(one, f"{name} {below}".strip())
    if not hasattr(command, "commands"):
        yield from ((option, name) for one in command.params for option in one.opts)


def test_guide_names_all_commands_of_each_option() -> None:
    taken: dict[str, set[str]] = {}
    for option, name in options_of(typer.main.get_command(cli.app)):
        taken.setdefault(option, set()).add(name)
    rows = re.findall(r"^\| (`--[^|]+) \| ([^|]+) \|", text("docs/guide-audit.md"), re.MULTILINE)
    assert len(rows) > 20
    for cell, commands in rows:
        for option in re.findall(r"`(--[\w-]+)`", cell):
            assert {*commands.split(", ")} == taken[option], option


def test_guide_names_what_the_log_holds_of_an_edit() -> None:
    part = text("docs/guide-audit.md").partition("## The log")[2]
    row = next(line for line in part.splitlines() if line.startswith("| `edit`"))
    named = set(re.findall(r"`([^`]+)`", row)) - {"edit"}
    assert named <= set(EditBody.model_fields)
    assert "header" in first_cells(part)
    assert Header.model_fields["kind"].default == "header"


@pytest.mark.parametrize("page", ["README.md", "docs/guide-audit.md", "docs/guide-ci.md", "docs/guide-pytest.md"])
def test_every_page_about_files_of_edits_names_all_their_endings(page: str) -> None:
    named = set(re.findall(r"\.(?:edits\.)?(\w+)`", text(page)))
    assert {suffix[1:] for suffix in SUFFIXES} <= named


def test_editors_page_names_every_editor() -> None:
    assert GuardedEditor is not None
    ours = {name for name, cls in EDITORS if cls.__module__.startswith("editguard.")}
    assert Exploded.name in ours
    assert first_cells(text("docs/editors.md")) == ours


def test_guide_to_the_plugin_names_every_option_fixture_and_item() -> None:
    named = first_cells(text("docs/guide-pytest.md"))
    assert named == {*(option.flag for option in (EDITS, *OPTIONS)), *fixtures.__all__, "guard"}


@pytest.mark.parametrize("page", ["README.md", "docs/guide-audit.md"])
def test_examples_of_edits_can_be_read(page: str, tmp_path: Path) -> None:
    examples = re.findall(r"```json\n(.*?)```", text(page), re.DOTALL)
    assert examples
    for number, example in enumerate(examples):
        path = tmp_path / f"{number}.jsonl"
        path.write_text(example, encoding="utf-8")
        (request,) = load_requests(path).requests
        assert (request.subject, request.target_new) == ("Chicago", "Istanbul")


def test_each_line_of_the_threat_model_names_tests_that_there_are() -> None:
    rows = [line for line in text("docs/security.md").splitlines() if line.startswith("| ") and "held by" not in line]
    assert len(rows) > 20
    for row in rows:
        held = re.fullmatch(r" `(tests/\S+\.py)::(\w+)`(?:, `(\w+)`)? ", row.split("|")[-2])
        assert held, row
        assert all(f"def {name}(" in text(held[1]) for name in held.groups()[1:] if name), row


def test_page_text_holds_no_placeholder() -> None:
    """A figure that was to be filled in later is none."""
    assert [page.name for page in PAGES if re.search(r"@[A-Z_]+@", page.read_text(encoding="utf-8"))] == []
