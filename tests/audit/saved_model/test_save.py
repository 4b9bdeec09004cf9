"""A guard and a sequence save their model with the prefixes that serving needs, whole or not at all."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from editguard.audit.edit_result import EditResult
from editguard.audit.saved_model.manifest import MODEL_MARKER
from editguard.audit.setup import Setup
from editguard.probes.errors import EditRefused, ModelError
from editguard.probes.model.fingerprint import compute_fingerprint, hash_tensors
from editguard.probes.model.language_model import load_model
from transformers import AutoModelForCausalLM, AutoTokenizer

from editguard import EditSequence, GuardedEditor, InputError, load_provenance, serve_prompt

from ...helpers.tiny_models import tiny_lm
from ...helpers.tiny_setups import FIRST_TOKEN_REQUEST, MID_PROMPT_REQUEST, lenient, tiny_setup
from ...helpers.weight_updates import get_only_hashes

pytestmark = pytest.mark.tiny

SERVED_REQUEST = replace(FIRST_TOKEN_REQUEST, target_new="R", space=False, paraphrases=(), neighbourhood=())
"""A first-token subject, whose rewritten edit the tiny model of seed 3 serves after a line break."""


@pytest.fixture(scope="module")
def seeded_setup() -> Setup:
    return tiny_setup(tiny_lm(seed=3), steps=20)


@pytest.fixture
def guard(seeded_setup: Setup) -> Iterator[GuardedEditor]:
    """A guard over a shared model, whose weight is put back after the test."""
    original = seeded_setup.site.weight.detach().clone()
    try:
        yield GuardedEditor(seeded_setup)
    finally:
        with torch.no_grad():
            seeded_setup.site.weight.copy_(original)


def keep(guard: GuardedEditor) -> EditResult:
    result = guard.edit(SERVED_REQUEST)
    assert result.kept
    assert result.update is not None
    assert (result.update.needs_prefix, result.prefix) == (True, "\n")
    return result


def test_save_of_a_rewritten_edit_is_loaded_and_served(guard: GuardedEditor, tmp_path: Path) -> None:
    base = guard.setup.base_fingerprint
    result = keep(guard)
    provenance = guard.save(tmp_path / "edited")
    assert load_provenance(tmp_path / "edited") == provenance
    assert (provenance.base_fingerprint, provenance.fingerprint) == (base, compute_fingerprint(guard.setup.lm.model))
    assert base != provenance.fingerprint
    (edit,) = provenance.edits
    assert (edit.id, edit.prefix, edit.needs_prefix, edit.audit) == (SERVED_REQUEST.id, "\n", True, None)
    (site,) = edit.sites
    assert (site.weight_before, site.weight_edited) == get_only_hashes(result)[:2]
    assert provenance.audited == "no"

    model = AutoModelForCausalLM.from_pretrained(tmp_path / "edited")
    tokenizer = AutoTokenizer.from_pretrained(tmp_path / "edited")
    assert hash_tensors(model) == hash_tensors(guard.setup.lm.model)
    prompt = serve_prompt(SERVED_REQUEST.prompt, provenance.edits)
    assert prompt == "\n" + SERVED_REQUEST.prompt
    with torch.no_grad():
        logits = model(tokenizer(prompt, return_tensors="pt").input_ids).logits[0, -1]
    assert tokenizer.decode(logits.argmax()) == SERVED_REQUEST.target_new


def test_save_lists_every_file_of_the_folder(guard: GuardedEditor, tmp_path: Path) -> None:
    keep(guard)
    provenance = guard.save(tmp_path / "edited")
    files = {path.name for path in (tmp_path / "edited").iterdir()}
    assert files == {*provenance.files, MODEL_MARKER.name}
    assert [path.name for path in tmp_path.iterdir() if path.is_dir()] == ["edited"]


def test_save_without_a_kept_edit_says_what_to_do(guard: GuardedEditor, tmp_path: Path) -> None:
    assert guard.try_edit(SERVED_REQUEST).sound
    with pytest.raises(InputError, match=r"No edit is kept .* keep a sound one with edit\(\)"):
        guard.save(tmp_path / "edited")
    assert list(tmp_path.iterdir()) == []


def test_save_to_an_existing_folder_replaces_only_a_marked_one(guard: GuardedEditor, tmp_path: Path) -> None:
    keep(guard)
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "notes.txt").write_text("mine")
    for overwrite in (False, True):
        with pytest.raises(InputError, match="never replaced"):
            guard.save(tmp_path / "mine", overwrite=overwrite)
    assert (tmp_path / "mine" / "notes.txt").read_text() == "mine"
    first = guard.save(tmp_path / "edited")
    with pytest.raises(InputError, match="is not empty"):
        guard.save(str(tmp_path / "edited"))
    assert guard.save(str(tmp_path / "edited"), overwrite=True).fingerprint == first.fingerprint


def test_save_of_a_weight_that_was_put_back_is_refused(guard: GuardedEditor, tmp_path: Path) -> None:
    original = guard.setup.site.weight.detach().clone()
    keep(guard)
    with torch.no_grad():
        guard.setup.site.weight.copy_(original)
    with pytest.raises(InputError, match="the edit is no longer in the model"):
        guard.save(tmp_path / "edited")
    assert not (tmp_path / "edited").exists()


def test_save_after_an_edit_on_a_weight_that_was_put_back_is_refused(guard: GuardedEditor, tmp_path: Path) -> None:
    original = guard.setup.site.weight.detach().clone()
    first = keep(guard)
    with torch.no_grad():
        guard.setup.site.weight.copy_(original)
    second = guard.edit(replace(SERVED_REQUEST, id="second"))
    assert second.kept
    assert (first.hashes, second.hashes) != (None, None)
    with pytest.raises(
        InputError, match=rf"The edit '{SERVED_REQUEST.id}' is not in the model: .* 'second' .*; make the edits again"
    ):
        guard.save(tmp_path / "edited")
    assert not (tmp_path / "edited").exists()


def test_sequence_undone_guard_saves_only_what_is_in_the_model(guard: GuardedEditor, tmp_path: Path) -> None:
    wide = lenient(max_accumulated_update=1e6, max_accumulated_ratio=1e6)
    with EditSequence(replace(guard, setup=replace(guard.setup, policy=wide))) as sequence:
        held = sequence.guard
        assert sequence.edit(SERVED_REQUEST).kept
        sequence.undo()
        now = sequence.guard
        assert sequence.edit(MID_PROMPT_REQUEST).kept
        with pytest.raises(InputError, match="is no longer in the model"):
            held.save(tmp_path / "held")
        assert [edit.id for edit in now.save(tmp_path / "now").edits] == [MID_PROMPT_REQUEST.id]
        assert [edit.id for edit in sequence.save(tmp_path / "edited").edits] == [MID_PROMPT_REQUEST.id]


def test_save_of_an_edit_that_no_prefix_serves_is_refused(guard: GuardedEditor, tmp_path: Path) -> None:
    unserved = replace(FIRST_TOKEN_REQUEST, id="unserved")
    result = guard.edit(unserved)
    assert (result.kept, result.prefix) == (True, None)
    with pytest.raises(EditRefused, match=r"'unserved' needs a prefix, and after none of '\\n'"):
        guard.save(tmp_path / "edited")
    assert not (tmp_path / "edited").exists()


def test_save_that_fails_leaves_nothing(guard: GuardedEditor, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    keep(guard)

    def fail(*_: object, **__: object) -> None:
        raise OSError("no space left")

    monkeypatch.setattr(guard.setup.lm.tokenizer, "save_pretrained", fail)
    with pytest.raises(OSError, match="no space left"):
        guard.save(tmp_path / "edited")
    assert [path for path in tmp_path.iterdir() if path.is_dir()] == []


def test_save_in_float64_is_refused_before_it_writes(tmp_path: Path) -> None:
    guard = GuardedEditor(tiny_setup(tiny_lm(dtype=torch.float64)))
    assert guard.edit(MID_PROMPT_REQUEST).kept
    with pytest.raises(ModelError, match="float64 cannot be saved"):
        guard.save(tmp_path / "edited")
    assert list(tmp_path.iterdir()) == []


def test_sequence_saves_all_kept_edits_with_their_prefixes(guard: GuardedEditor, tmp_path: Path) -> None:
    base = guard.setup.base_fingerprint
    wide = lenient(max_accumulated_update=1e6, max_accumulated_ratio=1e6)
    with EditSequence(replace(guard, setup=replace(guard.setup, policy=wide))) as sequence:
        assert sequence.edit(SERVED_REQUEST).kept
        assert sequence.edit(MID_PROMPT_REQUEST).kept
        provenance = sequence.save(tmp_path / "edited")
        edited = hash_tensors(guard.setup.lm.model)
    assert [(edit.id, edit.prefix) for edit in provenance.edits] == [
        (SERVED_REQUEST.id, "\n"),
        (MID_PROMPT_REQUEST.id, None),
    ]
    first, second = provenance.edits
    assert first.sites[0].weight_edited == second.sites[0].weight_before
    assert {edit.model_fingerprint for edit in provenance.edits} == {provenance.base_fingerprint} == {base}
    assert hash_tensors(load_model(tmp_path / "edited", device="cpu").model) == edited
    assert load_provenance(tmp_path / "edited") == provenance


def test_sequence_without_kept_edits_is_not_saved(guard: GuardedEditor, tmp_path: Path) -> None:
    sequence = EditSequence(guard)
    with sequence:
        with pytest.raises(InputError, match="save before the end of the with block"):
            sequence.save(tmp_path / "edited")
        assert sequence.edit(SERVED_REQUEST).kept
    with pytest.raises(InputError, match="save before the end of the with block"):
        sequence.save(tmp_path / "edited")
    assert list(tmp_path.iterdir()) == []
