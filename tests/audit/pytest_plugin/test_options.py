"""Options of the plug-in: a wrong value is refused before anything runs."""

from __future__ import annotations

import os

import pytest

from ...helpers.plugin_sessions import (
    NOWHERE,
    RunPytest,
    write_edits,
)
from ...helpers.tiny_setups import FIRST_TOKEN_REQUEST, MID_PROMPT_REQUEST

pytestmark = pytest.mark.tiny


@pytest.mark.parametrize(
    ("name", "value", "legal"),
    [
        ("seed", "one", "a whole number from 0 upwards"),
        ("seed", "-1", "a whole number from 0 upwards"),
        ("layer", "1.5", "a whole number from 0 upwards"),
        ("dtype", "float8", "auto, float32, bfloat16, float16"),
        ("device", "gpu", "auto, cpu, mps, cuda, cuda:N"),
        ("policy", "no.toml", "a file that is there"),
        ("stats", "no.safetensors", "'identity'"),
        ("edits", "no.json", "'builtin'"),
        ("out", "a.edits.json", "a folder"),
        ("out", "a.edits.json/below/it", "a folder"),
    ],
)
@pytest.mark.parametrize("how", ["flag", "ini"])
def test_options_illegal_value_is_named_with_the_legal_ones(
    pytester: pytest.Pytester,
    run: RunPytest,
    name: str,
    value: str,
    legal: str,
    how: str,
) -> None:
    write_edits(pytester.path / "a.edits.json", FIRST_TOKEN_REQUEST)
    if how == "ini":
        pytester.makeini(f"[pytest]\neditguard_{name} = {value}\n")
    ran = run(*([f"--editguard-{name}={value}"] if how == "flag" else []))
    assert ran.ret == pytest.ExitCode.USAGE_ERROR
    (line,) = [line for line in ran.errlines if "editguard" in line]
    assert repr(value) in line
    assert legal in line
    assert (f"--editguard-{name}" if how == "flag" else f"editguard_{name}") in line


def test_options_unknown_editor_is_refused_before_anything_runs(pytester: pytest.Pytester, run: RunPytest) -> None:
    write_edits(pytester.path / "a.edits.json", FIRST_TOKEN_REQUEST)
    ran = run("--editguard-editor=rme", NOWHERE)
    assert ran.ret == pytest.ExitCode.USAGE_ERROR
    assert "did you mean 'rome'?" in ran.stderr.str()
    pytester.makeini("[pytest]\neditguard_editor = rme\n")
    ran = run(NOWHERE)
    assert ran.ret == pytest.ExitCode.INTERRUPTED
    assert "did you mean 'rome'?" in ran.stdout.str()


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() == 0, reason="root may write anywhere")
def test_options_folder_without_write_access_is_refused(pytester: pytest.Pytester, run: RunPytest) -> None:
    (pytester.path / "closed").mkdir(mode=0o500)
    ran = run("--editguard-out=closed/out")
    assert ran.ret == pytest.ExitCode.USAGE_ERROR
    assert "a folder that can be written to" in ran.stderr.str()


def test_options_illegal_log_folder_starts_no_workers(pytester: pytest.Pytester) -> None:
    pytest.importorskip("xdist")
    write_edits(pytester.path / "a.edits.json", MID_PROMPT_REQUEST)
    ran = pytester.runpytest_subprocess("-n2", NOWHERE, "--editguard-out=a.edits.json")
    assert ran.ret == pytest.ExitCode.USAGE_ERROR
    assert "--editguard-out = 'a.edits.json' must be a folder" in ran.stderr.str()
    assert "gw0" not in ran.stdout.str()
