"""The templates for CI systems: their steps run in a shell on a tiny model, as on a CI machine.

Actions of other authors (checkout, upload) are not run. Their inputs are compared with the files that were written.
"""

from __future__ import annotations

import json
import os
import re
import shlex
import shutil
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
from editguard.reports.log.file import read_log
from junitparser import JUnitXml
from safetensors.torch import load_file, save_file

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


class GitHub:
    """A runner for the action: its shell steps really run, and a cache that the other steps restore and save."""

    def __init__(self, folder: Path, **inputs: str) -> None:
        self.folder = folder
        declared = parsed(ACTION)["inputs"]
        assert set(inputs) <= set(declared)
        self.inputs = {name: str(entry.get("default", "")) for name, entry in declared.items()} | inputs
        self.summary, self.output = folder.parent / "summary.md", folder.parent / "output.txt"
        self.steps: dict[str, dict[str, str]] = {}
        self.caches = folder.parent / "caches"

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
            **{key: self.filled(text) for key, text in step["env"].items()},
            **variables,
        }
        return shell(["bash", "--noprofile", "--norc", "-eo", "pipefail", str(script)], self.folder, given)

    def outputs(self) -> dict[str, str]:
        return dict(line.split("=", 1) for line in self.output.read_text(encoding="utf-8").splitlines())

    def run_all(self, **variables: str) -> dict[str, ShellResult | None]:
        """Run the action from its first step to its last; returns each step that ran, with what a shell step gave."""
        results: dict[str, ShellResult | None] = {}
        self.steps = {}
        for path in (self.summary, self.output):
            path.unlink(missing_ok=True)
        for step in parsed(ACTION)["runs"]["steps"]:
            failed = any(result is not None and result.code for result in results.values())
            if not self._holds(step.get("if", "success()"), failed):
                continue
            results[step["name"]] = None
            if "run" in step:
                self.output.write_text("", encoding="utf-8")
                results[step["name"]] = self.run(step["name"], **variables)
                self.steps[step.get("id", "")] = self.outputs()
            elif step["uses"].startswith("actions/cache/"):
                self._use_cache(step)
        return results

    def action_outputs(self) -> dict[str, str]:
        return {name: self.filled(entry["value"]) for name, entry in parsed(ACTION)["outputs"].items()}

    def filled(self, text: str) -> str:
        """Fill in expressions, as the runner does: of several joined by || the first that is not empty."""

        def value(match: re.Match[str]) -> str:
            return next(filter(None, map(self._value, match[1].split(" || "))), "")

        return re.sub(r"\$\{\{ (.+?) \}\}", value, text)

    def _value(self, name: str) -> str:
        if name == "runner.os":
            return "Linux"
        if name.startswith("inputs."):
            return self.inputs[name.removeprefix("inputs.")]
        step, output = re.fullmatch(r"steps\.(\w+)\.outputs\.([\w-]+)", name).groups()  # type: ignore[union-attr]
        return self.steps.get(step, {}).get(output, "")

    def _holds(self, condition: str, failed: bool) -> bool:
        return all(self._holds_part(part, failed) for part in condition.split(" && "))

    def _holds_part(self, part: str, failed: bool) -> bool:
        if part in ("always()", "success()"):
            return part == "always()" or not failed
        name, sign, text = re.fullmatch(r"(\S+) (==|!=) '(.*)'", part).groups()  # type: ignore[union-attr]
        return (self._value(name) == text) == (sign == "==")

    def _use_cache(self, step: dict[str, Any]) -> None:
        given = {name: self.filled(text) for name, text in step["with"].items()}
        place = self.folder / given["path"]
        if "/save@" in step["uses"]:
            if not (kept := self.caches / given["key"]).exists():
                shutil.copytree(place, kept)
            return
        matching = [path for path in self.caches.glob("*") if path.name.startswith(given["restore-keys"])]
        if matching:
            shutil.copytree(max(matching, key=lambda path: path.stat().st_ctime_ns), place, dirs_exist_ok=True)


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
    uploads = {runner.filled(str(value)) for inputs in given for value in inputs.values()}
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


def without_installation(folder: Path) -> dict[str, str]:
    """Return variables with a `python` first on the path that installs nothing, and writes what it was to install."""
    (tools := folder.parent / "tools").mkdir(exist_ok=True)
    (script := tools / "python").write_text(
        '#!/bin/sh\nif [ "$1 $2 $3" = "-m pip install" ]; then shift 4; echo "$1" > "$INSTALLED"; exit 0; fi\n'
        f'exec {shlex.quote(sys.executable)} "$@"\n',
        encoding="utf-8",
    )
    script.chmod(0o755)
    path = os.pathsep.join(map(str, (tools, Path(sys.executable).parent, os.environ["PATH"])))
    return {"PATH": path, "INSTALLED": str(folder.parent / "installed.txt")}


@pytest.mark.slow
def test_action_steps_in_order_save_a_baseline_compare_with_it_and_close_the_gate(work: Path, model: Path) -> None:
    inputs = {
        "edits": "my.edits.json",
        "model": str(model),
        "policy": "policy.toml",
        "arguments": OPTIONS,
        "baselines": ".editguard-cache/baselines",
    }
    tools = without_installation(work)
    first = GitHub(work, **inputs, **{"save-baseline": "main", "package": "editguard-of-a-test"})
    results = first.run_all(**tools)
    assert [name for name, result in results.items() if result is not None and result.code] == []
    assert (work.parent / "installed.txt").read_text(encoding="utf-8") == "editguard-of-a-test\n"
    assert "Gate" not in results
    assert "Save a baseline" in results
    assert first.action_outputs() == {"exit-code": "0", "verdict": "pass", "gate": ""}
    (cache,) = first.caches.iterdir()
    assert {path.name for path in cache.iterdir()} == {"prepared", "baselines"}
    assert [path.name for path in (cache / "baselines").rglob("*.json")] == ["0001.json"]

    # Another machine: a new checkout, and nothing but what the first one kept.
    for name in ("editguard-audit", ".editguard-cache"):
        shutil.rmtree(work / name)
    second = GitHub(work, **inputs, baseline="main", **{"save-baseline": "main"})
    results = second.run_all(**tools)
    assert [name for name, result in results.items() if result is not None and result.code] == []
    assert second.action_outputs() == {"exit-code": "0", "verdict": "pass", "gate": "open"}
    shown = second.summary.read_text(encoding="utf-8")
    assert shown.index("## editguard: ✅ pass") < shown.index("## Gate open")
    assert (work / "editguard-audit" / "gate" / "report.html").exists()
    assert len([*(work / ".editguard-cache" / "prepared").iterdir()]) == 3, "what was kept was not found again"
    assert len([*first.caches.iterdir()]) == 2, "the second baseline was not kept"

    # An open gate hides no audit that failed.
    second.steps["audit"]["exit-code"] = "1"
    shutil.rmtree(work / "editguard-audit" / "gate")
    assert second.run("Gate").code == 1
    assert second.outputs() | {"gate": "open", "exit-code": "1"} == second.outputs()

    shutil.rmtree(work / "editguard-audit")
    third = GitHub(work, **inputs | {"edits": "one.edits.json"}, baseline="main", **{"save-baseline": "main"})
    results = third.run_all(**tools)
    codes = {name: result.code for name, result in results.items() if result is not None}
    assert (codes["Audit"], codes["Gate"]) == (0, 1)
    assert third.action_outputs() == {"exit-code": "1", "verdict": "pass", "gate": "closed"}
    assert "missing-edits" in third.summary.read_text(encoding="utf-8")
    assert "Save a baseline" not in results
    assert {"Keep what was written", "Keep it for later runs"} <= results.keys()
    assert len([*(work / ".editguard-cache" / "baselines").rglob("*.json")]) == 2


def test_action_failed_audit_asks_the_gate_and_keeps_its_code(work: Path, model: Path) -> None:
    inputs = {"edits": "my.edits.json", "model": str(model), "policy": "strict.toml", "arguments": OPTIONS}
    runner = GitHub(work, **inputs, baseline="gone", **{"save-baseline": "main"})
    results = runner.run_all(**without_installation(work))
    assert runner.action_outputs() == {"exit-code": "1", "verdict": "fail", "gate": "closed"}
    assert "Save a baseline" not in results
    assert not (work / ".editguard").exists()


def test_action_gate_that_cannot_tell_has_its_own_code(work: Path, model: Path) -> None:
    inputs = {"edits": "my.edits.json", "model": str(model), "policy": "strict.toml", "arguments": OPTIONS}
    runner = GitHub(work, **inputs, baseline="main", **{"gate-arguments": "--max-regress=nonsense:5%"})
    results = runner.run_all(**without_installation(work))
    assert runner.action_outputs() == {"exit-code": "2", "verdict": "fail", "gate": ""}
    assert "Findings to code scanning" not in results


def test_action_audit_without_a_verdict_asks_no_gate(work: Path) -> None:
    runner = GitHub(work, model="nowhere at all", baseline="main", **{"save-baseline": "main", "upload-sarif": "true"})
    results = runner.run_all(**without_installation(work))
    assert runner.action_outputs() == {"exit-code": "2", "verdict": "", "gate": ""}
    assert not {"Gate", "Save a baseline", "Findings to code scanning"} & results.keys()


def edited_checkpoint(model: Path, folder: Path) -> Path:
    """Return a copy of the model with one weight changed, as another tool may leave it."""
    shutil.copytree(model, folder)
    tensors = load_file(folder / "model.safetensors")
    tensors["model.layers.0.mlp.down_proj.weight"][0, 0] += 0.5
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    return folder


def audited_checkpoint(out: Path) -> tuple[str, list[str]]:
    """Return the checkpoint that an audit was of, and the ids of the edits that were looked for in it."""
    log = read_log(out / LOG)
    return str(log.header.arguments["edited"]), [record.id for record in log.edits]


def test_action_edited_checkpoint_is_audited_with_and_without_edits(work: Path, model: Path) -> None:
    edited = edited_checkpoint(model, work / "my edited")
    inputs = {"model": str(model), "edited": "my edited", "policy": "policy.toml", "arguments": OPTIONS}
    for edits, ids in (("one.edits.json", ["france"]), ("", [])):
        runner = GitHub(work, **inputs, edits=edits, out=f"out{len(ids)}")
        result = runner.run("Audit")
        assert result.code in (0, 1), result.err
        assert runner.outputs()["verdict"] in ("pass", "fail")
        runner.output.unlink()
        assert audited_checkpoint(work / f"out{len(ids)}") == (edited.name, ids)


def test_action_inputs_are_never_run(work: Path) -> None:
    names = set(parsed(ACTION)["inputs"]) - {"python-version", "package", "cache"}
    runner = GitHub(work, **dict.fromkeys(names, NASTY), cache="a 'cache'; touch pwned;")
    runner.steps["audit"] = {"exit-code": "1"}
    codes = {name: runner.run(name).code for name in ("Audit", "Gate", "Save a baseline", "Name what is kept")}
    assert codes == {"Audit": 2, "Gate": 2, "Save a baseline": 2, "Name what is kept": 0}
    assert not [*work.rglob("pwned")]


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
    assert len(scripts) == 5
    assert not [script for script in scripts if "${{" in script]
    used = [step["uses"] for step in steps if "uses" in step]
    assert len(used) == 5
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


@pytest.mark.slow
def test_gitlab_job_saves_a_baseline_compares_with_it_and_closes_the_gate(work: Path, model: Path) -> None:
    job = parsed(GITLAB)[".editguard"]
    given = {
        "EDITGUARD_EDITS": "my.edits.json",
        "EDITGUARD_MODEL": str(model),
        "EDITGUARD_POLICY": "policy.toml",
        "EDITGUARD_ARGUMENTS": OPTIONS,
        "EDITGUARD_BASELINES": ".editguard-cache/baselines",
    }
    saved = {**given, "EDITGUARD_SAVE_BASELINE": "main"}
    result = gitlab(work, **saved)
    assert result.code == 0, result.err
    baselines = work / ".editguard-cache" / "baselines" / "main"
    assert [path.name for path in baselines.iterdir()] == ["0001.json"]
    assert [path.replace("$EDITGUARD_CACHE", ".editguard-cache") for path in job["cache"]["paths"]] == [
        ".editguard-cache/"
    ]
    prepared = sorted((work / ".editguard-cache" / "prepared").iterdir())
    assert len(prepared) == 3

    compared = {**saved, "EDITGUARD_BASELINE": "main", "EDITGUARD_OUT": "second"}
    result = gitlab(work, **compared)
    assert (result.code, "The gate is open" in result.out) == (0, True), result.err
    assert (work / "second" / "gate" / "report.html").exists()
    assert sorted(path.name for path in baselines.iterdir()) == ["0001.json", "0002.json"]
    assert sorted((work / ".editguard-cache" / "prepared").iterdir()) == prepared

    result = gitlab(work, **compared | {"EDITGUARD_EDITS": "one.edits.json", "EDITGUARD_OUT": "third"})
    assert result.code == 1
    assert "missing-edits" in result.out
    allowed = {"EDITGUARD_GATE_ARGUMENTS": "--accept=nonsense"}
    result = gitlab(work, **compared | allowed | {"EDITGUARD_POLICY": "strict.toml", "EDITGUARD_OUT": "fourth"})
    assert result.code == 2, "the audit failed, and the gate could not tell"
    assert sorted(path.name for path in baselines.iterdir()) == ["0001.json", "0002.json"]


def test_gitlab_before_script_installs_the_package(work: Path) -> None:
    job, tools = parsed(GITLAB)[".editguard"], without_installation(work)
    script = "\n".join(["set -e", *job["before_script"]])
    assert shell(["sh", "-c", script], work, {**job["variables"], **tools}).code == 0
    assert (work.parent / "installed.txt").read_text(encoding="utf-8") == f"{job['variables']['EDITGUARD_PACKAGE']}\n"


def test_gitlab_edited_checkpoint_is_audited_without_edits(work: Path, model: Path) -> None:
    edited_checkpoint(model, work / "my edited")
    given = {"EDITGUARD_MODEL": str(model), "EDITGUARD_EDITED": "my edited", "EDITGUARD_EDITS": ""}
    result = gitlab(work, **given, EDITGUARD_POLICY="policy.toml", EDITGUARD_ARGUMENTS=OPTIONS)
    assert result.code in (0, 1), result.err
    assert audited_checkpoint(work / "editguard-audit") == ("my edited", [])


def test_gitlab_variables_are_never_run(work: Path) -> None:
    names = ("EDITS", "EDITED", "MODEL", "POLICY", "OUT", "ARGUMENTS", "BASELINE", "GATE_ARGUMENTS", "SAVE_BASELINE")
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
