"""The repository's own workflows, templates and citation are valid by the systems' schemas, and grant little."""

from __future__ import annotations

import re
import subprocess
import sys
from configparser import ConfigParser
from importlib.metadata import metadata
from pathlib import Path
from typing import Any

import pytest
import yaml

ROOT = Path(__file__).resolve().parents[2]
GITHUB = ROOT / ".github"
WORKFLOWS = sorted((GITHUB / "workflows").glob("*.yml"))
FORMS = [GITHUB / "ISSUE_TEMPLATE" / name for name in ("bug.yml", "feature.yml")]


def parsed(path: Path) -> Any:
    return yaml.safe_load(path.read_text(encoding="utf-8"))


@pytest.mark.parametrize(
    ("schema", "paths"),
    [
        ("vendor.github-workflows", WORKFLOWS),
        ("custom.github-workflows-require-timeout", WORKFLOWS),
        ("vendor.dependabot", [GITHUB / "dependabot.yml"]),
        ("vendor.github-issue-forms", FORMS),
        ("vendor.github-issue-config", [GITHUB / "ISSUE_TEMPLATE" / "config.yml"]),
        ("vendor.citation-file-format", [ROOT / "CITATION.cff"]),
    ],
    ids=["workflows", "timeouts", "dependabot", "forms", "issues", "citation"],
)
def test_files_of_the_repository_valid_by_the_builtin_schema(schema: str, paths: list[Path]) -> None:
    command = [sys.executable, "-m", "check_jsonschema", "--default-filetype", "yaml", "--builtin-schema", schema]
    done = subprocess.run([*command, *map(str, paths)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize("path", WORKFLOWS, ids=lambda path: path.stem)
def test_workflow_reads_alone_cancels_its_elders_and_pins_its_actions(path: Path) -> None:
    workflow = parsed(path)
    assert workflow["permissions"] == {"contents": "read"}
    assert workflow["concurrency"]["group"]
    steps = [step for job in workflow["jobs"].values() for step in job["steps"]]
    used = [step["uses"] for step in steps if "uses" in step]
    assert all(re.fullmatch(r"[\w-]+(/[\w-]+)+@v\d+(\.\d+\.\d+)?", action) for action in used)
    assert all(not step["with"]["persist-credentials"] for step in steps if "checkout" in step.get("uses", ""))
    # What others wrote into a pull request comes as a variable: pasted into a script, it could be code.
    assert not [step["run"] for step in steps if re.search(r"\$\{\{(?! matrix\.)", step.get("run", ""))]


def test_workflows_run_environments_that_there_are() -> None:
    tox = ConfigParser(interpolation=None)
    tox.read(ROOT / "tox.ini", encoding="utf-8")
    defined = {name.removeprefix("testenv:") for name in tox.sections()}
    run: set[str] = set()
    for path in WORKFLOWS:
        for job in parsed(path)["jobs"].values():
            listed = job.get("strategy", {}).get("matrix", {}).get("env", [])
            scripts = " ".join(step.get("run", "") for step in job["steps"])
            named = set(re.findall(r"tox run -e ([\w-]+)", scripts))
            run |= named | set(listed if "matrix.env" in scripts else [])
    assert run == {"lint", "type", "fast", "tests", "slow", "fuzz", "docs", "tasks"}
    assert run <= defined


def test_citation_has_the_version_and_licence_of_the_package() -> None:
    installed, citation = metadata("editguard"), parsed(ROOT / "CITATION.cff")
    assert (citation["version"], citation["license"]) == (installed["Version"], installed["License-Expression"])
