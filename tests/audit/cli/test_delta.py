"""``editguard export`` and ``apply``: files, exit codes, and one sentence for what is wrong."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from editguard.audit.delta.file import SUFFIX, encode
from editguard.audit.serving import load_provenance, serve_prompt
from editguard.probes.model.fingerprint import tensor_hashes
from editguard.probes.model.language_model import load_model

from ...helpers.delta_files import made
from ...helpers.tiny_models import tiny_lm
from ...helpers.tiny_setups import MID_PROMPT_REQUEST
from .test_main import Command, command, one_sentence, place, record, tree

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


def test_an_export_judges_by_the_audits_own_sentences_and_dtype(
    place: Path, checkpoint: Path, command: Command
) -> None:
    export = ("export", "edits.json", "--model", checkpoint, *OPTIONS, "--only", "france", "--out", "deltas")
    one_sentence(
        command(*export[:2], "--model", "no such model", "--only", "nix", "--out", "deltas"), "'nix'", "'france'"
    )
    one_sentence(command(*export, "--perplexity-corpus", "gone.txt"), "gone.txt")
    one_sentence(command(*export, "--check-dtype", "int8"), "'int8'", "bfloat16")
    (place / "one.txt").write_text("a")
    one_sentence(command(*export, "--perplexity-corpus", "one.txt"), "none of two tokens")
    assert not list(place.glob("deltas/*.safetensors"))


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


ODD = "the capital\u202e (2)"


def test_an_edit_is_found_by_its_id_whatever_characters_it_has(place: Path, checkpoint: Path, command: Command) -> None:
    edits = [record(MID_PROMPT_REQUEST.subject, MID_PROMPT_REQUEST.prompt, to, id=name) for name, to in ((ODD, "Lyon"), ("plain", "Paris"))]
    (place / "odd.json").write_text(json.dumps(edits), encoding="utf-8")
    ran = command("export", "odd.json", "--model", checkpoint, *OPTIONS, "--out", "deltas")
    assert ran.code == 0
    files = sorted(path.name for path in place.glob(f"deltas/*{SUFFIX}"))
    assert [name.partition("-2-")[0] for name in files] == [f"plain{SUFFIX}", "the-capital"]
    assert "\u202e" not in ran.out
    shown = dict(line.split(" in ", 1) for line in ran.out.splitlines()[:-1])
    assert shown["'plain'"].startswith(f"deltas/plain{SUFFIX}: by rome")
    assert shown["'the capital\\u202e (2)'"].startswith(f"deltas/{files[1]}: by rome")
    apply = ("apply", "deltas", "--model", checkpoint, "--out", "edited")
    one_sentence(command(*apply, "--only", "other", "--unaudited"), "no edit 'other'", "'plain'")
    one_sentence(command(*apply, "--unaudited"), "--unaudited-together")
    assert command(*apply, "--only", ODD, "--unaudited").code == 0
    assert [edit.id for edit in load_provenance(place / "edited").edits] == [ODD]
    one_sentence(command("apply", "edited", *apply[2:]), "no editguard-export.json")
    (place / "deltas" / files[0]).write_bytes((place / "deltas" / files[1]).read_bytes())
    one_sentence(command(*apply, "--only", "plain", "--unaudited", "--overwrite"), "is not the one", "'plain'")


@pytest.mark.parametrize("prefix", ["\n", None])
def test_apply_says_what_was_put_onto_what_and_how_it_is_served(
    place: Path, checkpoint: Path, command: Command, prefix: str | None
) -> None:
    delta = made(tiny_lm().model, needs_prefix=prefix is not None, prefix=prefix)
    (place / "one.delta.safetensors").write_bytes(encode(delta))
    ran = command("apply", "one.delta.safetensors", "--model", checkpoint, "--out", "my edited")
    found = load_provenance(place / "my edited")
    lines = [line.strip() for line in ran.out.splitlines()]
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
