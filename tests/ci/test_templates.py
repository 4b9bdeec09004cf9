"""The templates for CI systems: their steps run in a shell on a tiny model, as on a CI machine.

Actions of other authors (checkout, upload) are not run. Their inputs are compared with the files that were written.
"""

from __future__ import annotations

import json
import os
import re
import shlex
import subprocess
import sys
import zipfile
from collections.abc import Mapping
from importlib.util import find_spec
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import yaml
from editguard.audit.folders.file_names import AUDIT_FILES, LOG
from editguard.probes.requests.request import SUFFIXES
from junitparser import JUnitXml

from ..helpers.tiny_models import save_checkpoint
from ..helpers.tiny_setups import FIRST_TOKEN_REQUEST, MID_PROMPT_REQUEST, lenient

pytestmark = pytest.mark.tiny

ROOT = Path(__file__).resolve().parents[2]
ACTION = ROOT / "ci" / "github" / "action.yml"
GITLAB = ROOT / "ci" / "editguard.gitlab-ci.yml"
HOOKS = ROOT / ".pre-commit-hooks.yaml"
GUIDE = ROOT / "docs" / "how-to" / "ci.md"
NASTY = """$(touch pwned);touch pwned;"$(touch pwned)"'$(touch pwned)'\nEOF\ntouch pwned"""
"""A shell runs commands of this text if it is pasted into a script."""
OPTIONS = "--layer=0\n--stats=identity\n\n--seed=3"


class ShellResult(NamedTuple):
    code: int
    out: str
    err: str


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_checkpoint(tmp_path_factory.mktemp("a model"))


@pytest.fixture
def work(tmp_path: Path) -> Path:
    """A checkout: edits, a policy that they pass, and a policy that refuses the first of them."""
    folder = tmp_path / "check out"
    folder.mkdir()
    edits = [
        {"id": r.id, "subject": r.subject, "prompt": r.prompt, "target_new": r.target_new}
        for r in (FIRST_TOKEN_REQUEST, MID_PROMPT_REQUEST)
    ]
    for name, some in {"my.edits.json": edits, "one.edits.json": edits[1:]}.items():
        (folder / name).write_text(json.dumps(some), encoding="utf-8")
    for name, more in {"policy.toml": "", "strict.toml": '[rules]\nfirst-token = "refuse"\n'}.items():
        policy = lenient().model_dump(exclude={"rules"})
        text = "".join(f"{key} = {json.dumps(value)}\n" for key, value in policy.items())
        (folder / name).write_text(text + more, encoding="utf-8")
    return folder


def shell(command: list[str], folder: Path, variables: Mapping[str, str]) -> ShellResult:
    """Run a command with the installed `editguard` first on the path, as a CI machine has it after the installation."""
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
    inherited = {
        name: value for name, value in os.environ.items() if not name.startswith(("GITHUB_", "CI_", "EDITGUARD_"))
    }
    cache = {"EDITGUARD_CACHE": str(folder.parent / "cache"), "COLUMNS": "200"}
    process = subprocess.run(
        command,
        cwd=folder,
        env={**inherited, **cache, "PATH": path, **variables},
        capture_output=True,
        text=True,
        timeout=600,
        check=False,
        stdin=subprocess.DEVNULL,
    )
    return ShellResult(process.returncode, process.stdout, process.stderr)


def parsed(path: Path) -> Any:
    return yaml.safe_load(path.read_text(encoding="utf-8"))


# -------------------------------------------------------------------------------------------------------------- GitHub


def filled(text: str, inputs: Mapping[str, str]) -> str:
    """Fill in the inputs, as the runner does."""
    return re.sub(r"\$\{\{ inputs\.([\w-]+) \}\}", lambda match: inputs[match[1]], text)


class GitHub:
    """A runner for the shell steps of the action."""

    def __init__(self, folder: Path, **inputs: str) -> None:
        self.folder = folder
        declared = parsed(ACTION)["inputs"]
        assert set(inputs) <= set(declared)
        self.inputs = {name: str(entry.get("default", "")) for name, entry in declared.items()} | inputs
        self.summary, self.output = folder.parent / "summary.md", folder.parent / "output.txt"

    def run(self, name: str, **variables: str) -> ShellResult:
        """Run the step called `name`, as the runner runs `shell: bash`."""
        (step,) = [step for step in parsed(ACTION)["runs"]["steps"] if step["name"] == name]
        assert step["shell"] == "bash"
        script = self.folder.parent / "step.sh"
        script.write_text(step["run"], encoding="utf-8")
        given = {
            "GITHUB_ACTION_PATH": str(ACTION.parent),
            "GITHUB_OUTPUT": str(self.output),
            "GITHUB_STEP_SUMMARY": str(self.summary),
            **{key: filled(text, self.inputs) for key, text in step["env"].items()},
            **variables,
        }
        return shell(["bash", "--noprofile", "--norc", "-eo", "pipefail", str(script)], self.folder, given)

    def outputs(self) -> dict[str, str]:
        return dict(line.split("=", 1) for line in self.output.read_text(encoding="utf-8").splitlines())


def test_action_keeps_all_files_and_shows_no_stale_audit(work: Path, model: Path) -> None:
    runner = GitHub(
        work, edits="my.edits.json", model=str(model), policy="policy.toml", out="my out", arguments=OPTIONS
    )
    result = runner.run("Audit")
    assert result.code == 0, result.err
    assert runner.outputs() == {"exit-code": "0", "verdict": "pass"}
    assert runner.summary.read_text(encoding="utf-8").startswith("## editguard: ✅ pass\n")
    header = json.loads((work / "my out" / LOG).read_text(encoding="utf-8").splitlines()[0])
    assert (header["seed"], header["layer"], header["arguments"]["stats"]) == (3, 0, "identity")
    given = [step.get("with", {}) for step in parsed(ACTION)["runs"]["steps"]]
    uploads = {filled(str(value), runner.inputs) for inputs in given for value in inputs.values()}
    assert {"my out", "my out/results.sarif"} <= uploads
    assert {path.name for path in (work / "my out").iterdir()} - {".lock"} == {*AUDIT_FILES}

    runner.summary.unlink()
    runner.output.unlink()
    again = runner.run("Audit")
    assert (again.code, runner.outputs()) == (2, {"exit-code": "2"})
    assert "already holds an audit" in again.err
    assert "no audit: exit code 2" in (shown := runner.summary.read_text(encoding="utf-8"))
    assert "pass" not in shown


def test_action_failed_audit_writes_all_files(work: Path, model: Path) -> None:
    runner = GitHub(work, edits="my.edits.json", model=str(model), policy="strict.toml", arguments=OPTIONS)
    assert runner.run("Audit").code == 1
    assert runner.outputs() == {"exit-code": "1", "verdict": "fail"}
    assert "### Refused: 1" in runner.summary.read_text(encoding="utf-8")
    assert {path.name for path in (work / "editguard-audit").iterdir()} >= {*AUDIT_FILES}


def test_action_inputs_are_never_run(work: Path) -> None:
    inputs = dict.fromkeys(("edits", "model", "policy", "out", "arguments"), NASTY)
    assert GitHub(work, **inputs).run("Audit").code == 2
    assert not (work / "pwned").exists()


def test_action_edits_like_an_option_are_a_file(work: Path) -> None:
    result = GitHub(work, edits="--help", model="nowhere").run("Audit")
    assert result.code == 2
    assert "--help" in result.err


@pytest.mark.skipif(find_spec("pip") is None, reason="this environment has no pip")
def test_action_installs_the_given_package_or_itself(work: Path) -> None:
    wheel = work / "tiny_thing-1.0-py3-none-any.whl"
    with zipfile.ZipFile(wheel, "w") as file:
        file.writestr("tiny_thing.py", "")
        file.writestr("tiny_thing-1.0.dist-info/METADATA", "Metadata-Version: 2.1\nName: tiny-thing\nVersion: 1.0\n")
        file.writestr(
            "tiny_thing-1.0.dist-info/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n"
        )
        file.writestr("tiny_thing-1.0.dist-info/RECORD", "")
    runner, where = GitHub(work, package=f"./{wheel.name}"), work / "installed"
    result = runner.run("Install editguard", PIP_TARGET=str(where), PIP_NO_INDEX="1")
    assert result.code == 0, result.err
    assert (where / "tiny_thing.py").exists()
    # Without a package the action installs the root of its own repository.
    (step,) = [step for step in parsed(ACTION)["runs"]["steps"] if step["name"] == "Install editguard"]
    assert "$GITHUB_ACTION_PATH/../.." in step["run"]
    assert (ACTION.parent / ".." / ".." / "pyproject.toml").exists()


def test_action_scripts_have_no_expression_and_uses_have_versions() -> None:
    steps = parsed(ACTION)["runs"]["steps"]
    scripts = [step["run"] for step in steps if "run" in step]
    assert len(scripts) == 2
    assert not [script for script in scripts if "${{" in script]
    used = [step["uses"] for step in steps if "uses" in step]
    assert len(used) == 3
    assert all(re.fullmatch(r"[\w-]+(/[\w-]+)+@v\d+\.\d+\.\d+", name) for name in used)


def test_action_uploads_run_also_after_a_failure() -> None:
    uploads = [step for step in parsed(ACTION)["runs"]["steps"] if "upload" in step.get("uses", "")]
    assert len(uploads) == 2
    assert all(step["if"].startswith("always()") for step in uploads)


# -------------------------------------------------------------------------------------------------------------- GitLab


def gitlab(folder: Path, **variables: str) -> ShellResult:
    """Run the job's script as GitLab's shell executor does: all lines in one POSIX shell that stops at an error."""
    job = parsed(GITLAB)[".editguard"]
    assert set(variables) <= set(job["variables"])
    script = "\n".join(["set -e", *job["script"]])
    return shell(["sh", "-c", script], folder, {**job["variables"], **variables})


def test_gitlab_job_audits_and_has_the_exit_code(work: Path, model: Path) -> None:
    given = {"EDITGUARD_EDITS": "my.edits.json", "EDITGUARD_MODEL": str(model), "EDITGUARD_ARGUMENTS": OPTIONS}
    result = gitlab(work, **given, EDITGUARD_POLICY="strict.toml", EDITGUARD_OUT="out")
    assert result.code == 1, result.err
    artifacts = parsed(GITLAB)[".editguard"]["artifacts"]
    assert artifacts["when"] == "always"
    junit = work / artifacts["reports"]["junit"].replace("$EDITGUARD_OUT", "out")
    assert JUnitXml.fromfile(str(junit)).failures == 2
    assert [work / path.replace("$EDITGUARD_OUT/", "out") for path in artifacts["paths"]] == [junit.parent]
    header = json.loads((work / "out" / LOG).read_text(encoding="utf-8").splitlines()[0])
    assert (header["seed"], header["layer"]) == (3, 0)
    assert gitlab(work, **given, EDITGUARD_OUT="out").code == 2


def test_gitlab_variables_are_never_run(work: Path) -> None:
    names = ("EDITS", "MODEL", "POLICY", "OUT", "ARGUMENTS")
    assert gitlab(work, **dict.fromkeys((f"EDITGUARD_{name}" for name in names), NASTY)).code == 2
    assert not (work / "pwned").exists()


# ---------------------------------------------------------------------------------------------------------- pre-commit


def hook() -> dict[str, Any]:
    (entry,) = parsed(HOOKS)
    assert isinstance(entry, dict)
    return entry


def test_hook_takes_only_files_of_edits() -> None:
    (listed,) = re.findall(r"\(([a-z|]+)\)", hook()["files"])
    assert [f".{name}" for name in listed.split("|")] == [*SUFFIXES]
    assert all(re.search(hook()["files"], f"sub/a.edits{suffix}") for suffix in SUFFIXES)
    others = ["edits.json", "a.edits.json.bak", "aedits.json", "a.edits.py", "a.edits/b.json"]
    assert not [name for name in others if re.search(hook()["files"], name)]


def test_hook_probes_all_files_and_stops_a_refused_edit(work: Path, model: Path) -> None:
    assert hook()["require_serial"]
    before = {path.name: path.read_bytes() for path in work.iterdir()}
    arguments = ["--model", str(model), "--layer", "0", "--stats", "identity", "--policy"]
    call = [*shlex.split(hook()["entry"]), *arguments]
    result = shell([*call, "policy.toml", "my.edits.json", "one.edits.json"], work, {})
    assert result.code == 0, result.err
    assert result.out.index("my.edits.json") < result.out.index("2 edits: 1 allow, 1 rewrite, 0 refuse")
    assert result.out.index("one.edits.json") < result.out.index("1 edit: 1 allow, 0 rewrite, 0 refuse")
    assert shell([*call, "strict.toml", "one.edits.json", "my.edits.json"], work, {}).code == 1
    assert shell([*call, "strict.toml", "one.edits.json", "gone.edits.json"], work, {}).code == 2
    assert {path.name: path.read_bytes() for path in work.iterdir()} == before


# ---------------------------------------------------------------------------------------------------------- the formats


def valid(schema: str, path: Path) -> ShellResult:
    command = [sys.executable, "-m", "check_jsonschema", "--builtin-schema", schema, str(path)]
    process = subprocess.run(command, capture_output=True, text=True, check=False)
    return ShellResult(process.returncode, process.stdout, process.stderr)


@pytest.mark.parametrize(
    ("schema", "path"), [("vendor.github-actions", ACTION), ("vendor.gitlab-ci", GITLAB)], ids=["action", "gitlab"]
)
def test_templates_are_valid_by_the_vendors_schemas(schema: str, path: Path) -> None:
    result = valid(schema, path)
    assert result.code == 0, result.out


def example(title: str) -> str:
    """Return the configuration that the guide shows under a title."""
    part = GUIDE.read_text(encoding="utf-8").partition(f"\n## {title}\n")[2].partition("\n## ")[0]
    (block,) = re.findall(r"```yaml\n(.*?)```", part, re.DOTALL)
    return str(block)


@pytest.mark.parametrize(
    ("schema", "title", "more"),
    [("vendor.github-workflows", "GitHub", "on: push\n"), ("vendor.gitlab-ci", "GitLab", "")],
    ids=["workflow", "pipeline"],
)
def test_guide_example_is_valid_by_the_vendors_schema(schema: str, title: str, more: str, tmp_path: Path) -> None:
    (path := tmp_path / "shown.yml").write_text(more + example(title), encoding="utf-8")
    result = valid(schema, path)
    assert result.code == 0, result.out
    path.write_text("jobs:\n  edits:\n    script: {}\n", encoding="utf-8")
    assert valid(schema, path).code == 1, "the schema refuses nothing"


def test_guide_inputs_variables_and_hook_are_in_the_templates() -> None:
    (step,) = [step for step in yaml.safe_load(example("GitHub"))["jobs"]["edits"]["steps"] if "with" in step]
    assert set(step["with"]) <= set(parsed(ACTION)["inputs"])
    job = yaml.safe_load(example("GitLab"))["edits"]
    assert job["extends"] in parsed(GITLAB)
    assert set(job["variables"]) <= set(parsed(GITLAB)[job["extends"]]["variables"])
    ((used,),) = [repo["hooks"] for repo in yaml.safe_load(example("pre-commit"))["repos"]]
    assert used["id"] == hook()["id"]
