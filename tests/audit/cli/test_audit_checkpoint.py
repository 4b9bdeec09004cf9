"""``audit --edited`` on the command line: verdict, exit code, and options that have no meaning there."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from editguard.audit.folders.file_names import LOG, REPORT
from editguard.reports.log.file import read_log

from ...helpers.command_line import RunCommand
from ...helpers.tiny_models import tiny_lm

pytestmark = pytest.mark.tiny


def save_edited(folder: Path, scale: float = 0.1) -> str:
    lm = tiny_lm()
    with torch.no_grad():
        lm.model.get_parameter("model.layers.1.mlp.down_proj.weight")[0] += scale
    lm.model.save_pretrained(folder)
    lm.tokenizer.save_pretrained(folder)
    return str(folder)


def base_arguments(place: Path, checkpoint: Path) -> list[str]:
    return ["--model", str(checkpoint), "--policy", str(place / "policy.toml"), "--layer", "0", "--stats", "identity"]


def test_audit_edited_without_a_file_judges_the_model_alone(place: Path, checkpoint: Path, command: RunCommand) -> None:
    edited = save_edited(place / "edited")
    result = command("audit", *base_arguments(place, checkpoint), "--edited", edited, "--out", "out", "--json")
    summary = json.loads(result.out)
    assert result.code == (0 if summary["verdict"] == "pass" else 1)
    assert summary["edits"] == 0
    assert summary["edited"] == edited
    assert read_log(place / "out" / LOG).model is not None
    page = (place / "out" / REPORT).read_text(encoding="utf-8")
    assert "May this checkpoint ship?" in page
    assert "model.layers.1.mlp.down_proj.weight" in page


def test_audit_edited_with_a_file_prints_how_many_edits_hold(
    place: Path, checkpoint: Path, command: RunCommand
) -> None:
    edited = save_edited(place / "edited")
    result = command("audit", "edits.json", *base_arguments(place, checkpoint), "--edited", edited, "--out", "out")
    assert "2 edits in " in result.out
    assert len(read_log(place / "out" / LOG).edits) == 2


def test_audit_edited_that_is_no_model_is_told_before_the_base_is_loaded(place: Path, command: RunCommand) -> None:
    result = command("audit", "--model", "not-a-model", "--edited", "./nowhere", "--out", "out")
    assert result.code == 2
    assert "There is no model folder './nowhere'" in result.err
    assert "neither a folder here" not in result.err


@pytest.mark.parametrize("option", [["--editor", "rome"], ["--in-sequence"], ["--resume"]])
def test_audit_edited_with_an_option_about_making_edits_is_refused(
    place: Path, checkpoint: Path, command: RunCommand, option: list[str]
) -> None:
    result = command("audit", "edits.json", *base_arguments(place, checkpoint), "--edited", "edited", *option)
    assert result.code == 2
    assert f"{option[0]} is about edits that the audit makes" in result.err
