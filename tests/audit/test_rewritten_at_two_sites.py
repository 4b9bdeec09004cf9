"""An edit that the guard rewrites at two sites: decided, made, logged, exported and asked about other first words."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from editguard.audit.delta.export import export_edits
from editguard.audit.delta.file import read_delta
from editguard.audit.edit_result import EditResult
from editguard.audit.editors.builtin import everywhere
from editguard.audit.editors.value import ValueSettings
from editguard.audit.folders.file_names import LOG
from editguard.audit.guard import GuardedEditor
from editguard.audit.policy import Action
from editguard.audit.run.audit import run_audit
from editguard.audit.run.to_log import edit_record
from editguard.audit.setup import Setup, prepare
from editguard.probes.model.fingerprint import hash_tensors
from editguard.reports.log.file import read_log
from editguard.reports.log.schema import EditRecord
from editguard.suites.check import Bench, CheckResult, EditUnderTest
from editguard.suites.checks.first_words import OtherFirstWords
from editguard.suites.constant_model import answer_constantly

from ..helpers.tiny_audits import load_edits
from ..helpers.tiny_models import tiny_lm
from ..helpers.tiny_setups import (
    FIRST_TOKEN_REQUEST,
    MID_PROMPT_REQUEST,
    MISSING_SUBJECT_REQUEST,
    SENTENCES,
    lenient,
)

pytestmark = pytest.mark.tiny

PROBES_ALLOW = dict.fromkeys(("first-token", "denominator", "key-shift", "sink-key"), "allow")


@pytest.fixture(scope="module")
def setup() -> Iterator[Setup]:
    """A tiny model of three layers, edited at layer 1, whose early site is layer 0 and has a C of its own."""
    with pytest.MonkeyPatch.context() as patch:
        # In a model of random weights first tokens have keys of their own at every layer.
        patch.setattr(everywhere, "find_early_layer", lambda *_: 0)
        prepared = prepare(
            tiny_lm(layers=3),
            layer=1,
            policy=lenient(),
            statistics="identity",
            perplexity_corpus=SENTENCES,
            settings=ValueSettings(steps=3),
        )
        early = prepared.state_at(0)
        doubled = replace(early.statistics, second_moment=2 * early.statistics.second_moment)
        prepared.further_statistics[early.site.path] = doubled
        before = hash_tensors(prepared.lm.model)
        yield prepared
        assert hash_tensors(prepared.lm.model) == before


@pytest.fixture(scope="module")
def result(setup: Setup) -> EditResult:
    return GuardedEditor(setup).try_edit(FIRST_TOKEN_REQUEST)


def under(setup: Setup, **changes: object) -> GuardedEditor:
    return GuardedEditor(replace(setup, policy=lenient(**changes)))


# ------------------------------------------------------------------------------------------------------- the decision


def test_assess_editor_that_can_edit_gives_way_to_none(setup: Setup) -> None:
    decision = GuardedEditor(setup).assess(FIRST_TOKEN_REQUEST).decision
    assert (decision.action, decision.editor) == (Action.REWRITE, "everywhere")
    assert decision.reasons
    assert not any("gives way" in reason for reason in decision.reasons)


def test_assess_alternative_is_taken_last_and_gives_its_reason(setup: Setup, monkeypatch: pytest.MonkeyPatch) -> None:
    without_early_site = replace(setup, editor_memo={})
    monkeypatch.setattr(everywhere, "find_early_layer", lambda *_: None)
    decision = GuardedEditor(without_early_site).assess(FIRST_TOKEN_REQUEST).decision
    assert (decision.action, decision.editor) == (Action.REWRITE, "prefixed")
    *of_probes, last = decision.reasons
    assert of_probes
    assert last == (
        "editor 'everywhere' gives way to 'prefixed': no edit is made at an early layer, so it acts after a prefix only: first "
        "tokens have the same key from layer 0 on"
    )


def test_assess_requested_editor_gives_way_too_and_stays_allowed(setup: Setup, monkeypatch: pytest.MonkeyPatch) -> None:
    without_early_site = replace(setup, editor_memo={})
    monkeypatch.setattr(everywhere, "find_early_layer", lambda *_: None)
    decision = GuardedEditor(without_early_site).assess(MID_PROMPT_REQUEST, "everywhere").decision
    assert (decision.action, decision.editor) == (Action.ALLOW, "prefixed")
    assert [reason for reason in decision.reasons if "gives way to 'prefixed'" in reason]


def test_assess_refused_edit_has_no_editor_to_give_way(setup: Setup, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(everywhere.Everywhere, "find_alternative", lambda *_: pytest.fail("no edit is made"))
    decision = GuardedEditor(setup).assess(MISSING_SUBJECT_REQUEST).decision
    assert (decision.action, decision.editor) == (Action.REFUSE, None)


def test_propose_update_over_the_bound_is_rewritten_at_two_sites(setup: Setup) -> None:
    unguarded, rewritten = GuardedEditor(setup).propose_unguarded(
        [(FIRST_TOKEN_REQUEST, "exploded"), (FIRST_TOKEN_REQUEST, "everywhere")]
    )
    assert unguarded.relative_norm is not None
    assert rewritten.relative_norm is not None
    assert rewritten.relative_norm < unguarded.relative_norm
    between = (unguarded.relative_norm * rewritten.relative_norm) ** 0.5
    guard = under(setup, rules=PROBES_ALLOW, max_relative_update=between)
    assessment = guard.assess(FIRST_TOKEN_REQUEST)
    exploded = replace(assessment, decision=replace(assessment.decision, editor="exploded"))
    (proposal,) = guard.propose([exploded])
    decision = proposal.assessment.decision
    assert (decision.action, decision.editor) == (Action.REWRITE, "everywhere")
    assert "over the bound" in decision.reasons[-1]
    assert proposal.writable is not None
    assert [site.layer for site in proposal.writable.sites] == [0, 1]


@pytest.mark.parametrize("editor", ["prefixed", "everywhere"])
def test_propose_update_of_an_editor_that_can_rewrite_is_refused_over_the_bound(setup: Setup, editor: str) -> None:
    guard = under(setup, max_relative_update=1e-6)
    (proposal,) = guard.propose([guard.assess(FIRST_TOKEN_REQUEST, editor)])
    decision = proposal.assessment.decision
    assert (decision.action, decision.editor) == (Action.ALLOW, editor)
    assert proposal.update is not None
    assert (proposal.update.editor, proposal.writable) == (editor, None)
    assert "over the bound" in str(proposal.refusal)


# ------------------------------------------------------------------------------------------------------------ the log


def test_edit_record_of_two_sites_holds_each_with_its_statistics(setup: Setup, result: EditResult) -> None:
    record = edit_record(setup, result, 0)
    assert (record.decision.action, record.decision.editor) == ("rewrite", "everywhere")
    update = record.update
    assert update is not None
    assert (update.editor, update.needs_prefix, update.prefix) == ("everywhere", False, None)
    early, main = (setup.state_at(layer) for layer in (0, 1))
    assert [(change.layer, change.path, change.rank) for change in update.changes] == [
        (0, early.site.path, 1),
        (1, main.site.path, 1),
    ]
    hashes = [change.statistics_sha256 for change in update.changes]
    assert hashes == [early.statistics.sha256, setup.statistics.sha256]
    assert hashes[0] != hashes[1]
    assert all(change.steps and change.final_loss is not None for change in update.changes)
    assert record.weights is not None
    assert [*record.weights.sites] == [early.site.path, main.site.path]
    assert record.weights.restored_ok is True
    assert EditRecord.model_validate_json(record.model_dump_json()) == record


def test_edit_record_served_prompt_has_no_prefix(setup: Setup, result: EditResult) -> None:
    served = next(row for row in edit_record(setup, result, 0).measurements if row.condition == "served")
    bare = next(row for row in result.measurements if (row.check, row.condition) == ("efficacy", "unprefixed"))
    assert (served.total, served.passed) == (bare.total, bare.passed)


def test_edit_record_has_leaks_and_reach_of_first_words(setup: Setup, result: EditResult) -> None:
    rows = {row.metric: row for row in edit_record(setup, result, 0).measurements if row.check == "first-words"}
    assert rows.keys() == {"leaks", "reach"}
    leaks = rows["leaks"]
    assert leaks.total > 0
    assert (leaks.threshold, leaks.verdict) == (setup.policy.max_first_word_leaks, "pass")
    assert rows["reach"].verdict == "info"


def test_hash_statistics_of_a_site_that_no_edit_needed_is_none(setup: Setup) -> None:
    assert setup.hash_statistics(replace(setup.site, path="elsewhere")) is None


# ----------------------------------------------------------------------------------------------------- audit and export


@pytest.mark.end_to_end
def test_audit_counts_the_edit_as_rewritten_and_without_a_prefix(setup: Setup, tmp_path: Path) -> None:
    summary = run_audit(setup, load_edits(FIRST_TOKEN_REQUEST, MID_PROMPT_REQUEST), tmp_path)
    assert (summary.rewritten, summary.allowed, summary.needs_prefix) == (1, 1, 0)
    first, middle = read_log(tmp_path / LOG).edits
    assert {row.metric for row in first.measurements if row.check == "first-words"} == {"leaks", "reach"}
    assert not [row for row in middle.measurements if row.check == "first-words"]


@pytest.mark.end_to_end
def test_audit_edit_that_other_first_words_take_fails(
    setup: Setup, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    request = replace(FIRST_TOKEN_REQUEST, target_new="Lyon")
    (target,) = setup.lm.tokenizer(" Lyon", add_special_tokens=False).input_ids
    measure = OtherFirstWords.measure

    def measure_constant(check: OtherFirstWords, bench: Bench, edit: EditUnderTest[Any]) -> CheckResult:
        with answer_constantly(bench.lm, target):
            return measure(check, bench, edit)

    monkeypatch.setattr(OtherFirstWords, "measure", measure_constant)
    strict = replace(setup, policy=lenient(max_first_word_leaks=0.5))
    assert run_audit(strict, load_edits(request), tmp_path).failed == 1
    (record,) = read_log(tmp_path / LOG).edits
    assert (record.outcome, record.verdict) == ("rolled-back", "fail")
    (failed,) = [row for row in record.measurements if row.verdict == "fail"]
    assert (failed.check, failed.metric, failed.passed) == ("first-words", "leaks", 0)
    assert "other words at the start of the prompt say the new target" in failed.message


@pytest.mark.end_to_end
def test_export_manifest_names_the_statistics_of_each_site(setup: Setup, tmp_path: Path) -> None:
    (exported,) = export_edits(setup, [FIRST_TOKEN_REQUEST], tmp_path / "out")
    manifest = read_delta(tmp_path / "out" / exported.file).manifest
    assert (manifest.editor, manifest.needs_prefix, manifest.prefix) == ("everywhere", False, None)
    assert [site.layer for site in manifest.sites] == [0, 1]
    early, main = (site.statistics_sha256 for site in manifest.sites)
    assert (early, main) == (setup.state_at(0).statistics.sha256, manifest.statistics_sha256)
