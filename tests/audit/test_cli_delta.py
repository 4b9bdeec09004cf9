"""``editguard export`` and ``apply``: files, exit codes, and one sentence for what is wrong."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from editguard.probes.fingerprint import tensor_hashes
from editguard.probes.model import load_model

from .test_cli import Command, command, one_sentence, place, tree

__all__ = ["command", "place"]

pytestmark = pytest.mark.tiny

OPTIONS = ("--layer", 0, "--stats", "identity", "--policy", "policy.toml")


def test_an_edit_goes_from_export_through_apply_to_a_model_that_can_be_audited(
    place: Path, checkpoint: Path, command: Command
) -> None:
    ran = command(
        "export", "edits.json", "--model", checkpoint, *OPTIONS, "--only", "france", "--out", "deltas", "--json"
    )
    assert (ran.code, ran.err) == (0, "")
    (exported,) = json.loads(ran.out)
    file = place / "deltas" / exported["file"]
    one_sentence(command("apply", file, "--model", checkpoint, "--out", "edited"), "'france'", "--unaudited")
    assert not (place / "edited").exists()
    ran = command("apply", file, "--model", checkpoint, "--out", "edited", "--unaudited")
    assert (ran.code, ran.err) == (0, "")
    assert [line for line in ran.out.splitlines() if "audited: no" in line]
    ran = command("apply", file, "--model", checkpoint, "--out", "edited", "--unaudited", "--overwrite", "--json")
    assert (ran.code, ran.err) == (0, "")
    hashes = tensor_hashes(load_model(place / "edited", device="cpu").model)
    assert hashes["model.layers.0.mlp.down_proj.weight"] == exported["edit"]["weight_edited"]
    assert json.loads(ran.out) == json.loads((place / "edited" / "editguard.json").read_text())
    before = tree(place)
    one_sentence(
        command("apply", file, "--model", place / "edited", "--out", "twice", "--unaudited"), "unedited", "'france'"
    )
    one_sentence(command("apply", file, "--model", checkpoint, "--out", "edited", "--unaudited"), "--overwrite")
    file.write_bytes(file.read_bytes()[:-8])
    one_sentence(command("apply", file, "--model", checkpoint, "--out", "cut"), "cannot be applied")
    one_sentence(command("apply", "nothing", "--model", checkpoint, "--out", "cut"), "cannot be applied")
    del before[str(file.relative_to(place))]
    assert {name: content for name, content in tree(place).items() if name in before} == before
    assert not (place / "twice").exists()
    assert not (place / "cut").exists()


def test_an_export_of_an_edit_that_is_refused_closes_the_gate_and_writes_nothing(
    place: Path, checkpoint: Path, command: Command
) -> None:
    (place / "strict.toml").write_text("controls = false", encoding="utf-8")
    before = tree(place)
    ran = command(
        "export", "edits.json", "--model", checkpoint, "--layer", 0, "--stats", "identity", "--policy", "strict.toml",
        "--out", "deltas",
    )  # fmt: skip
    assert ran.code == 1
    assert ran.out == ""
    assert "is not sound, so nothing was exported" in ran.err.splitlines()[-1]
    assert tree(place) == before
