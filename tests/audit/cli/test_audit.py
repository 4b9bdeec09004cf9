"""``editguard audit``: files, exit codes, and one sentence for what is wrong."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
from editguard.audit.folders.file_names import AUDIT_FILES, LOG, REPORT, SUMMARY
from editguard.reports.log.file import read_log

from ...helpers.command_line import RunCommand, assert_one_sentence, edit_record, files_below, messages

pytestmark = pytest.mark.tiny


def test_audit_writes_files_that_report_writes_again(place: Path, checkpoint: Path, command: RunCommand) -> None:
    call = (
        "audit",
        "edits.json",
        "--model",
        checkpoint,
        "--layer",
        0,
        "--stats",
        "identity",
        "--policy",
        "policy.toml",
    )
    result = command(*call, "--out", "out", "--engine", "reference", "--check-dtype", "bfloat16", "--json")
    assert result.code == 0
    assert json.loads(result.out) == json.loads((place / "out" / SUMMARY).read_text(encoding="utf-8"))
    header = read_log(place / "out" / LOG).header
    assert header.arguments["engine"] == "reference"
    assert header.arguments["policy"] == "policy.toml"
    assert header.settings["check_dtype"] == "bfloat16"
    assert {one.metric for one in header.baseline} == {"perplexity", "perplexity-exact"}
    assert "Checks computed in" in (place / "out" / REPORT).read_text(encoding="utf-8")
    written = files_below(place / "out")
    assert set(written) == {*AUDIT_FILES}

    # What is there is not written over unasked, and not given up before the new audit can begin either.
    assert_one_sentence(command(*call, "--out", "out"), "already holds an audit", "--overwrite")
    assert_one_sentence(command(*call, "--out", "out", "--overwrite", "--layer", 99), "Layer 99")
    assert files_below(place / "out") == written

    assert_one_sentence(command("report", "out", "--out", "edits.json"), "edits.json", "is a file")
    result = command("report", "out", "--out", "again")
    assert result.code == 0
    assert "PASS" in result.out
    assert files_below(place / "again") == {name: written[name] for name in AUDIT_FILES if name != LOG}
    assert command(*call, "--out", "out", "--overwrite").code == 0


def test_audit_in_sequence_is_in_log_report_and_errors(place: Path, checkpoint: Path, command: RunCommand) -> None:
    call = (
        "audit",
        "edits.json",
        "--model",
        checkpoint,
        "--layer",
        0,
        "--stats",
        "identity",
        "--policy",
        "policy.toml",
    )
    result = command(*call, "--out", "out", "--in-sequence", "--json")
    assert result.code in (0, 1)
    assert json.loads(result.out)["sequence"]["kept"] >= 0
    assert read_log(place / "out" / LOG).header.in_sequence
    assert "in sequence: " in command("report", "out").out
    assert_one_sentence(
        command("export", "edits.json", "--model", "not-asked", "--log", "out", "--out", "deltas"),
        "is of edits in sequence",
        "add --in-sequence",
    )
    # Before anything is loaded.
    assert_one_sentence(
        command("audit", "edits.json", "--model", "not-asked", "--out", "out", "--resume"),
        "begun with another in_sequence (True, now False)",
        "--overwrite",
    )
    assert_one_sentence(
        command(*call, "--out", "out", "--resume"), "begun with another in_sequence (True, now False)", "--overwrite"
    )


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ({"subject": "France", "prompt": "The capital of France is"}, "target_new"),
        (edit_record("Berlin", "The capital of France is"), "Berlin"),
        (edit_record("France", "The capital of France is", target="  "), "target_new"),
    ],
    ids=["missing-field", "not-in-prompt", "blank"],
)
def test_audit_wrong_records_are_listed_one_a_line(place: Path, command: RunCommand, wrong: object, said: str) -> None:
    good = edit_record("France", "The capital of France is")
    (place / "edits.jsonl").write_text(f"{json.dumps(good)}\n{json.dumps(wrong)}\n", encoding="utf-8")
    result = command("audit", "edits.jsonl", "--out", "out")
    assert (result.code, result.out) == (2, "")
    first, listed = result.err.splitlines()
    assert first.startswith(
        "editguard: 1 of 2 records in 'edits.jsonl' is wrong; correct it, or leave it out with --skip-invalid"
    )
    assert listed.startswith("edits.jsonl:2: ")
    assert said in listed
    assert not (place / "out").exists()


def test_audit_checkpoint_of_nan_never_passes(place: Path, checkpoint: Path, command: RunCommand) -> None:
    from safetensors.torch import load_file, save_file

    folder = place / "broken"
    shutil.copytree(checkpoint, folder)
    tensors = load_file(folder / "model.safetensors")
    tensors["model.norm.weight"].fill_(float("nan"))
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    result = command("audit", "edits.json", "--model", folder, "--layer", 0, "--stats", "identity", "--out", "out")
    (line,) = messages(result.err)
    assert result.code == 1
    assert line.startswith("editguard: ")
    assert "NaN" in line
    assert not (place / "out" / SUMMARY).exists()


def test_audit_without_edits_says_first_that_it_takes_the_builtin_suite(place: Path, command: RunCommand) -> None:
    result = command("audit", "--model", "./nowhere", "--limit", 3, "--out", "out")
    first, second, error = result.err.splitlines()
    assert first == "The built-in suite is used, 3 edits; name a file of edits for your own."
    assert second == "Loading the model ./nowhere ..."
    assert error.startswith("editguard: There is no model folder './nowhere'")
    assert command("probe", "--model", "./nowhere").err.startswith("The built-in suite is used, 60 edits; ")


def test_audit_all_records_wrong_does_not_offer_to_skip_them(place: Path, command: RunCommand) -> None:
    (place / "bad.json").write_text(json.dumps([edit_record("Paris", "Nothing")]), encoding="utf-8")
    result = command("audit", "bad.json", "--out", "out")
    assert (result.code, result.out) == (2, "")
    assert "1 of 1 record in 'bad.json' is wrong; correct it." in result.err
    assert "--skip-invalid" not in result.err


def test_audit_tasks_are_in_log_and_report(place: Path, checkpoint: Path, command: RunCommand) -> None:
    shutil.copytree(checkpoint, place / "edited")
    call = ("audit", "--model", checkpoint, "--layer", 0, "--stats", "identity", "--policy", "policy.toml")
    result = command(*call, "--edited", "edited", "--tasks", "cloze", "--out", "out")
    # The tiny model knows no fact, and what it cannot lose is unmeasured.
    assert result.code == 1
    log = read_log(place / "out" / LOG)
    assert log.header.arguments["tasks"] == "cloze"
    assert log.model is not None
    (loss,) = [row for row in log.model.measurements if row.check == "task:cloze" and row.metric == "loss"]
    assert (loss.verdict, loss.total) == ("unmeasured", 100)
    page = (place / "out" / REPORT).read_text(encoding="utf-8")
    assert 'aria-label="Tasks"' in page
    assert loss.message in page


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (("--tasks", "cloze"), "--edited"),
        (("--edited", "other", "--tasks", "closed"), "did you mean 'cloze'?"),
        (("--edited", "other", "--tasks", ","), "--tasks cloze,endings"),
    ],
)
def test_audit_tasks_that_cannot_be_asked_are_refused_before_the_model_is_loaded(
    place: Path, command: RunCommand, options: tuple[str, ...], said: str
) -> None:
    assert_one_sentence(command("audit", *options, "--model", "no-such-model", "--out", "out"), said)
    assert not (place / "out").exists()
