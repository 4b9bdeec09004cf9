"""A sequence is exported and applied as a whole: each edit leaves the weights that it left in the audit."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from editguard.audit.delta.apply import apply_delta, save_applied
from editguard.audit.delta.export import export_edits
from editguard.audit.delta.file import Delta
from editguard.audit.delta.selection import select_deltas
from editguard.audit.folders.file_names import LOG
from editguard.audit.folders.output_folder import locked_folder
from editguard.audit.guard import GuardedEditor
from editguard.audit.run.audit import run_audit
from editguard.audit.sequence import EditSequence
from editguard.audit.serving import load_provenance
from editguard.audit.setup import Setup
from editguard.probes.errors import EditRefused, InputError
from editguard.probes.model.fingerprint import compute_fingerprint

from ...helpers.tiny_audits import load_edits
from ...helpers.tiny_models import tiny_lm
from ...helpers.tiny_setups import MID_PROMPT_REQUEST, MISSING_SUBJECT_REQUEST, lenient, tiny_setup

pytestmark = pytest.mark.tiny

REQUESTS = tuple(
    replace(MID_PROMPT_REQUEST, id=f"middle-{target}", target_new=target) for target in ("Lyon", "Istanbul", "Berlin")
)
WIDE = {"max_accumulated_ratio": 100, "max_accumulated_update": 100, "min_retained": 0}


@pytest.fixture(scope="module")
def wide() -> Setup:
    return tiny_setup(policy=lenient(**WIDE))


@pytest.fixture(scope="module")
def log(wide: Setup, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("audit")
    with locked_folder(out, overwrite=False, resume=True):
        run_audit(wide, load_edits(*REQUESTS), out, in_sequence=True)
    return out / LOG


@pytest.fixture(scope="module")
def deltas(wide: Setup, log: Path, tmp_path_factory: pytest.TempPathFactory) -> list[Delta]:
    out = tmp_path_factory.mktemp("export") / "deltas"
    export_edits(wide, REQUESTS, out, log=log, in_sequence=True)
    return [_as_controlled(delta) for delta in select_deltas([out])]


def _as_controlled(delta: Delta) -> Delta:
    """Return the delta as one whose audit had controls that held; no control holds on random weights."""
    assert delta.manifest.audit is not None
    audit = delta.manifest.audit.model_copy(update={"controls_ok": True})
    return replace(delta, manifest=delta.manifest.model_copy(update={"audit": audit}))


def test_export_in_sequence_names_places_and_chains_weights(deltas: list[Delta]) -> None:
    sites = [delta.manifest.sites[0] for delta in deltas]
    assert [delta.manifest.sequence for delta in deltas] == [1, 2, 3]
    assert [site.weight_before for site in sites[1:]] == [site.weight_edited for site in sites[:-1]]
    assert all(delta.manifest.audit is not None for delta in deltas)


def test_export_in_sequence_leaves_the_model_as_it_was(wide: Setup, deltas: list[Delta]) -> None:
    assert len(deltas) == 3
    assert compute_fingerprint(wide.lm.model) == wide.base_fingerprint


def test_apply_delta_of_a_sequence_gives_the_audited_model_and_undoes_it(wide: Setup, deltas: list[Delta]) -> None:
    model = tiny_lm().model
    before = compute_fingerprint(model)
    with EditSequence(GuardedEditor(wide)) as sequence:
        for request in REQUESTS:
            assert sequence.edit(request).kept
        audited = compute_fingerprint(wide.lm.model)
    with apply_delta(model, *deltas):
        assert compute_fingerprint(model) == audited
    assert compute_fingerprint(model) == before
    with apply_delta(model, *deltas) as applied:
        applied.commit()
    assert compute_fingerprint(model) == audited


@pytest.mark.parametrize("chosen", [(0,), (1,), (0, 1), (0, 2), (1, 0, 2), (0, 0, 1)])
def test_apply_delta_of_a_part_or_another_order_of_a_sequence_is_refused(
    deltas: list[Delta], chosen: tuple[int, ...]
) -> None:
    with (
        pytest.raises(InputError, match=r"sequence|twice"),
        apply_delta(tiny_lm().model, *(deltas[index] for index in chosen)),
    ):
        pass


def test_apply_delta_of_a_sequence_with_a_changed_edit_is_undone(deltas: list[Delta]) -> None:
    model = tiny_lm().model
    before = compute_fingerprint(model)
    left, right = deltas[1].factors[0]
    changed = replace(deltas[1], factors=(type(deltas[1].factors[0])(left * 2, right),))
    with pytest.raises(InputError, match="as audited"), apply_delta(model, deltas[0], changed, deltas[2]):
        pass
    assert compute_fingerprint(model) == before


def test_save_applied_sequence_says_audited_together(deltas: list[Delta], tmp_path: Path) -> None:
    lm = tiny_lm()
    lm.model.save_pretrained(tmp_path / "base")
    lm.tokenizer.save_pretrained(tmp_path / "base")
    save_applied(deltas, str(tmp_path / "base"), tmp_path / "edited")
    provenance = load_provenance(tmp_path / "edited")
    assert provenance.audited == "together"
    assert [edit.id for edit in provenance.edits] == [request.id for request in REQUESTS]


def test_export_in_sequence_of_an_edit_that_is_not_kept_writes_nothing(wide: Setup, tmp_path: Path) -> None:
    before = wide.site.weight.detach().clone()
    with pytest.raises(EditRefused, match="'missing' is not sound"):
        export_edits(wide, [REQUESTS[0], MISSING_SUBJECT_REQUEST], tmp_path / "deltas", in_sequence=True)
    assert not (tmp_path / "deltas").exists()
    assert torch.equal(wide.site.weight, before)


def test_export_log_of_the_other_kind_is_refused(wide: Setup, log: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="add --in-sequence"):
        export_edits(wide, REQUESTS, tmp_path / "deltas", log=log)
    out = tmp_path / "alone"
    out.mkdir()
    run_audit(wide, load_edits(*REQUESTS), out)
    with pytest.raises(InputError, match="made alone"):
        export_edits(wide, REQUESTS, tmp_path / "deltas", log=out / LOG, in_sequence=True)


def test_export_in_sequence_with_only_is_refused(wide: Setup, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="exported together"):
        export_edits(wide, REQUESTS, tmp_path / "deltas", only=[REQUESTS[0].id], in_sequence=True)
