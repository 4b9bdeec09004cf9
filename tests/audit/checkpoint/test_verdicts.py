"""The embedded model edited by published ROME: an ordinary subject passes, a first token collapses, and the controls hold."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from editguard.audit.checkpoint.audit import run_checkpoint_audit
from editguard.audit.folders.file_names import LOG
from editguard.audit.guard import GuardedEditor
from editguard.audit.policy import Policy
from editguard.audit.transaction import Transaction
from editguard.probes.model.language_model import LanguageModel
from editguard.reports.log.control_observations import ObservedBehaviour
from editguard.reports.log.file import read_log
from editguard.reports.verdict.summary import Summary
from editguard.suites.builtin import load_builtin_edits

from ...helpers.tiny_audits import load_edits

pytestmark = [pytest.mark.real, pytest.mark.timeout(1800)]

EDITS = {edit.id: edit for edit in load_builtin_edits()}
ORDINARY, FIRST_TOKEN = EDITS["mid-colosseum"], EDITS["single-chicago"]


@pytest.fixture(scope="module")
def guard(smollm2: LanguageModel) -> GuardedEditor:
    return GuardedEditor.load(smollm2, policy=Policy())


def save_edited(guard: GuardedEditor, folder: Path, name: str) -> str:
    """Save the model with the published update of one edit, as another tool would: without a guard and a check."""
    (proposal,) = replace(guard, checks=()).propose_unguarded([(EDITS[name], "rome")])
    assert proposal.update is not None
    with Transaction(proposal.update):
        guard.setup.lm.model.save_pretrained(folder)
    guard.setup.lm.tokenizer.save_pretrained(folder)
    return str(folder)


@pytest.fixture(scope="module")
def ordinary(guard: GuardedEditor, tmp_path_factory: pytest.TempPathFactory) -> tuple[Summary, Path]:
    folder = tmp_path_factory.mktemp("ordinary")
    (folder / "out").mkdir()
    edited = save_edited(guard, folder / "edited", ORDINARY.id)
    return run_checkpoint_audit(guard.setup, load_edits(ORDINARY), edited, folder / "out"), folder / "out"


def test_checkpoint_audit_of_an_ordinary_published_edit_passes(ordinary: tuple[Summary, Path]) -> None:
    summary, _ = ordinary
    assert summary.verdict == "pass"
    assert "One change of rank one in layer 9's down-projection" in (summary.change or "")
    assert summary.side_effects.failed / summary.side_effects.total < 0.05


def test_checkpoint_controls_are_the_base_and_a_damaged_copy(ordinary: tuple[Summary, Path]) -> None:
    base, damaged = read_log(ordinary[1] / LOG).controls
    assert (base.expect, damaged.expect) == ("unedited", "collapse")
    assert base.ok
    assert damaged.ok
    assert {m.check for m in base.measurements if m.verdict == "fail"} == {"efficacy"}
    assert all(sighting.ok for sighting in damaged.sightings if sighting.ok is not None)
    assert {s.name for s in damaged.sightings if s.seen is ObservedBehaviour.FAILS} >= {"perplexity", "locality"}


def test_checkpoint_audit_of_a_published_first_token_edit_collapses_and_is_explained(
    guard: GuardedEditor, tmp_path: Path
) -> None:
    (tmp_path / "out").mkdir()
    edited = save_edited(guard, tmp_path / "edited", FIRST_TOKEN.id)
    setup = replace(guard.setup, policy=Policy(controls=False))
    summary = run_checkpoint_audit(setup, load_edits(FIRST_TOKEN), edited, tmp_path / "out")
    assert summary.verdict == "fail"
    assert summary.reasons[0].startswith("The edited model collapsed: its perplexity is ")
    assert summary.reasons[1].startswith("The probes expect it of the edit 'single-chicago'")
    assert summary.may_ship == []
