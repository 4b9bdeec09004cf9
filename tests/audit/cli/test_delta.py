"""``editguard export`` and ``apply``: files, exit codes, and one sentence for what is wrong."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from editguard.audit.delta.file import SUFFIX, encode
from editguard.audit.serving import load_provenance, serve_prompt
from editguard.probes.model.fingerprint import hash_tensors
from editguard.probes.model.language_model import load_model

from ...helpers.command_line import RunCommand, assert_one_sentence, edit_record, files_below, messages
from ...helpers.delta_files import make_delta
from ...helpers.tiny_models import tiny_lm
from ...helpers.tiny_setups import MID_PROMPT_REQUEST

pytestmark = pytest.mark.tiny

OPTIONS = ("--layer", 0, "--stats", "identity", "--policy", "policy.toml")


def test_export_then_apply_gives_the_edited_model(place: Path, checkpoint: Path, command: RunCommand) -> None:
    result = command(
        "export", "edits.json", "--model", checkpoint, *OPTIONS, "--only", "france", "--out", "deltas", "--json"
    )
    assert (result.code, messages(result.err)) == (0, [])
    (exported,) = json.loads(result.out)
    file = place / "deltas" / exported["file"]
    assert_one_sentence(command("apply", file, "--model", checkpoint, "--out", "edited"), "'france'", "--unaudited")
    assert not (place / "edited").exists()
    result = command("apply", file, "--model", checkpoint, "--out", "edited", "--unaudited")
    assert (result.code, messages(result.err)) == (0, [])
    assert [line for line in result.out.splitlines() if "audited: no" in line]
    result = command("apply", file, "--model", checkpoint, "--out", "edited", "--unaudited", "--overwrite", "--json")
    assert (result.code, messages(result.err)) == (0, [])
    hashes = hash_tensors(load_model(place / "edited", device="cpu").model)
    assert hashes["model.layers.0.mlp.down_proj.weight"] == exported["edit"]["sites"][0]["weight_edited"]
    assert json.loads(result.out) == json.loads((place / "edited" / "editguard.json").read_text())
    before = files_below(place)
    assert_one_sentence(
        command("apply", file, "--model", place / "edited", "--out", "twice", "--unaudited"), "unedited", "'france'"
    )
    assert_one_sentence(command("apply", file, "--model", checkpoint, "--out", "edited", "--unaudited"), "--overwrite")
    file.write_bytes(file.read_bytes()[:-8])
    assert_one_sentence(command("apply", file, "--model", checkpoint, "--out", "cut"), "cannot be applied")
    del before[str(file.relative_to(place))]
    assert {name: content for name, content in files_below(place).items() if name in before} == before
    assert not (place / "twice").exists()
    assert not (place / "cut").exists()


def test_export_wrong_options_are_one_sentence(place: Path, checkpoint: Path, command: RunCommand) -> None:
    export = ("export", "edits.json", "--model", checkpoint, *OPTIONS, "--only", "france", "--out", "deltas")
    assert_one_sentence(
        command(*export[:2], "--model", "no such model", "--only", "nix", "--out", "deltas"), "'nix'", "'france'"
    )
    assert_one_sentence(command(*export, "--perplexity-corpus", "gone.txt"), "gone.txt")
    assert_one_sentence(command(*export, "--check-dtype", "int8"), "'int8'", "bfloat16")
    (place / "one.txt").write_text("a")
    assert_one_sentence(command(*export, "--perplexity-corpus", "one.txt"), "has two tokens or more")
    assert not list(place.glob("deltas/*.safetensors"))


def test_export_refused_edit_exits_1_and_writes_nothing(place: Path, checkpoint: Path, command: RunCommand) -> None:
    (place / "strict.toml").write_text("controls = false", encoding="utf-8")
    before = files_below(place)
    result = command(
        "export",
        "edits.json",
        "--model",
        checkpoint,
        "--layer",
        0,
        "--stats",
        "identity",
        "--policy",
        "strict.toml",
        "--out",
        "deltas",
    )
    assert result.code == 1
    assert result.out == ""
    assert "is not sound, so nothing was exported" in result.err.splitlines()[-1]
    assert files_below(place) == before


ODD = "the capital\u202e (2)"


def test_export_and_apply_odd_id_finds_the_edit(place: Path, checkpoint: Path, command: RunCommand) -> None:
    edits = [
        edit_record(MID_PROMPT_REQUEST.subject, MID_PROMPT_REQUEST.prompt, to, id=name)
        for name, to in ((ODD, "Lyon"), ("plain", "Paris"))
    ]
    (place / "odd.json").write_text(json.dumps(edits), encoding="utf-8")
    result = command("export", "odd.json", "--model", checkpoint, *OPTIONS, "--out", "deltas")
    assert result.code == 0
    files = sorted(path.name for path in place.glob(f"deltas/*{SUFFIX}"))
    assert [name.partition("-2-")[0] for name in files] == [f"plain{SUFFIX}", "the-capital"]
    assert "\u202e" not in result.out
    shown = dict(line.split(" in ", 1) for line in result.out.splitlines()[:-1])
    assert shown["'plain'"].startswith(f"deltas/plain{SUFFIX}: by local")
    assert shown["'the capital\\u202e (2)'"].startswith(f"deltas/{files[1]}: by local")
    apply = ("apply", "deltas", "--model", checkpoint, "--out", "edited")
    assert_one_sentence(command(*apply, "--only", "other", "--unaudited"), "no edit 'other'", "'plain'")
    assert_one_sentence(command(*apply, "--unaudited"), "--unaudited-together")
    assert command(*apply, "--only", ODD, "--unaudited").code == 0
    assert [edit.id for edit in load_provenance(place / "edited").edits] == [ODD]
    assert_one_sentence(command("apply", "edited", *apply[2:]), "no editguard-export.json")
    (place / "deltas" / files[0]).write_bytes((place / "deltas" / files[1]).read_bytes())
    assert_one_sentence(command(*apply, "--only", "plain", "--unaudited", "--overwrite"), "is not the one", "'plain'")


@pytest.mark.parametrize("prefix", ["\n", None])
def test_apply_prints_edits_files_and_serving(
    place: Path, checkpoint: Path, command: RunCommand, prefix: str | None
) -> None:
    delta = make_delta(tiny_lm().model, needs_prefix=prefix is not None, prefix=prefix)
    (place / "one.delta.safetensors").write_bytes(encode(delta))
    result = command("apply", "one.delta.safetensors", "--model", checkpoint, "--out", "my edited")
    found = load_provenance(place / "my edited")
    lines = [line.strip() for line in result.out.splitlines()]
    assert lines[:5] == [
        f"Put 1 edit onto {checkpoint}:",
        "'edit-0': 'Chicago' -> 'Istanbul', by rome at layer 0",
        f"checked: the base has the fingerprint that they were made on, {found.base_fingerprint[:12]}",
        f"written: my edited, which loads again with the fingerprint {found.fingerprint[:12]}",
        "audited: alone, this model to the bit",
    ]
    if prefix is None:
        assert lines[5:] == ["serving: as it stands; no edit needs a prefix"]
        return
    assert lines[5] == "serving: 'edit-0' acts only where something stands before 'Chicago', such as '\\n'"
    names = {"serve_prompt": serve_prompt, "load_provenance": load_provenance, "text": "Chicago is"}
    exec(lines[-1], names)
    assert names["text"] == "\nChicago is"
