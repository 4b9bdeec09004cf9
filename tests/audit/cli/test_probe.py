"""``editguard probe`` and ``stats``: what is printed where, and one sentence for what is wrong."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import torch

from ...helpers.command_line import RunCommand, assert_one_sentence, edit_record, files_below, messages, run_in_process
from ...helpers.foreign_probes import Undeclared, install_probe

pytestmark = pytest.mark.tiny


def test_probe_json_prints_one_object_a_line(place: Path, checkpoint: Path) -> None:
    before = files_below(place)
    result = run_in_process("probe", "edits.json", "--model", checkpoint, "--layer", 0, "--stats", "identity", "--json")
    assert (result.code, messages(result.err)) == (0, [])
    first, middle = (json.loads(line) for line in result.out.splitlines())
    wanted = {
        "id",
        "decision",
        "first_token",
        "denominator",
        "denominator_prefixed",
        "denominator_ratio",
        "cosine",
        "findings",
    }
    assert wanted <= set(first)
    assert (first["id"], first["decision"], first["first_token"]) == ("chicago", "rewrite", True)
    assert (middle["id"], middle["decision"], middle["first_token"]) == ("france", "allow", False)
    for line in (first, middle):
        assert line["denominator_ratio"] == pytest.approx(line["denominator"] / line["denominator_prefixed"])
        findings = {finding["probe"]: finding for finding in line["findings"]}
        assert set(findings) >= {"crowded-key", "denominator", "first-token", "key-shift", "sink-key"}
        assert findings["crowded-key"]["value"] > 0
    written = {name: content for name, content in files_below(place).items() if not name.startswith(".cache/")}
    assert written == before


def test_probe_prints_a_table_and_its_exit_code(place: Path, checkpoint: Path, command: RunCommand) -> None:
    edits = [edit_record("France", "The capital of France is", "Paris", target_true="Paris", id="same")]
    (place / "same.json").write_text(json.dumps(edits), encoding="utf-8")
    result = command("probe", "same.json", "--model", checkpoint, "--layer", 0, "--stats", "identity")
    assert result.code in (1, 2)
    assert "Traceback" not in result.err
    result = command("probe", "edits.json", "--model", checkpoint, "--layer", 0, "--stats", "identity", "--limit", 1)
    assert result.code == 0
    assert "1 edit: 0 allow, 1 rewrite, 0 refuse; 0 invalid records skipped" in result.out


@pytest.mark.parametrize("as_json", [True, False])
def test_probe_skip_invalid_names_the_left_out_record(
    place: Path, checkpoint: Path, command: RunCommand, as_json: bool
) -> None:
    good = edit_record("France", "The capital of France is", "Paris", id="good")
    (place / "some.json").write_text(json.dumps([good, {**good, "id": "bad", "prompt": "Nothing"}]), encoding="utf-8")
    call = ("probe", "some.json", "--model", checkpoint, "--layer", 0, "--stats", "identity", "--skip-invalid")
    result = command(*call, *(["--json"] if as_json else []))
    assert "left out some.json: record 2 (id bad, line 1): subject" in result.err
    assert "left out" not in result.out


def test_probe_screen_with_an_undeclared_probe_is_refused_before_loading(
    place: Path, command: RunCommand, monkeypatch: pytest.MonkeyPatch
) -> None:
    install_probe(monkeypatch, Undeclared)
    result = command("probe", "edits.json", "--model", place / "no-model", "--screen")
    assert_one_sentence(result, "The probe 'key-norm' does not declare the figures", "leave --screen out")


def test_stats_writes_a_file_that_probe_reads(place: Path, checkpoint: Path, command: RunCommand) -> None:
    (place / "corpus.txt").write_text("Paris is not Lyon.\nIt is 2024.\n" * 20, encoding="utf-8")
    call = ("stats", "--model", checkpoint, "--layer", 0, "--corpus", "corpus.txt", "--out", "c.safetensors")
    assert command(*call).code == 0
    kept = (place / "c.safetensors").read_bytes()
    assert_one_sentence(command(*call), "exists already", "--overwrite")
    assert (place / "c.safetensors").read_bytes() == kept
    result = command("probe", "edits.json", "--model", checkpoint, "--layer", 0, "--stats", "c.safetensors", "--json")
    assert result.code == 0
    assert_one_sentence(
        command("probe", "edits.json", "--model", checkpoint, "--layer", 1, "--stats", "c.safetensors"), "c.safetensors"
    )


@pytest.mark.parametrize("layer", ["99", "-1"])
def test_probe_missing_layer_is_one_sentence(place: Path, checkpoint: Path, command: RunCommand, layer: str) -> None:
    assert_one_sentence(
        command("probe", "edits.json", "--model", checkpoint, "--layer", layer), f"Layer {layer}", "0..1"
    )


def test_probe_missing_statistics_are_one_sentence(place: Path, checkpoint: Path, command: RunCommand) -> None:
    assert_one_sentence(
        command("probe", "edits.json", "--model", checkpoint, "--stats", "no.safetensors"), "no.safetensors", "identity"
    )


def test_probe_pickle_needs_allow_pickle(place: Path, checkpoint: Path, command: RunCommand) -> None:
    from safetensors.torch import load_file

    folder = place / "pickled"
    shutil.copytree(checkpoint, folder)
    weights = folder / "model.safetensors"
    torch.save(load_file(weights), folder / "pytorch_model.bin")
    weights.unlink()
    call = ("probe", "edits.json", "--model", folder, "--layer", 0, "--stats", "identity")
    assert_one_sentence(command(*call), "pytorch_model.bin", "--allow-pickle")
    assert command(*call, "--allow-pickle", "--json").code == 0
