"""An edit of several weights under the guard: measured as by plain passes, undone, kept, saved, exported and logged whole."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from editguard.audit.delta.apply import apply_delta
from editguard.audit.delta.export import export_edits
from editguard.audit.delta.file import read_delta
from editguard.audit.edit_result import Assessment, EditResult, Proposal
from editguard.audit.editors.base import EDITORS, EditContext, Stage
from editguard.audit.editors.builtin.c_rome import CRome
from editguard.audit.editors.update import WeightUpdate
from editguard.audit.folders.file_names import LOG, REPORT
from editguard.audit.guard import GuardedEditor
from editguard.audit.policy import Action, Decision
from editguard.audit.pytest_plugin.collapse import Suite
from editguard.audit.run.audit import run_audit
from editguard.audit.sequence import EditSequence
from editguard.audit.serving import load_provenance
from editguard.audit.setup import Setup, prepare
from editguard.audit.transaction import Transaction, relative_norms
from editguard.probes.errors import EditguardError, InputError
from editguard.probes.forward.partial import Row
from editguard.probes.keys.subject_keys import compute_subject_keys
from editguard.probes.model.fingerprint import compute_fingerprint, hash_tensors
from editguard.probes.model.site import find_site
from editguard.probes.requests.loader import LoadedRequests
from editguard.probes.requests.request import EditRequest
from editguard.reports.log.file import read_log
from editguard.suites.check import Bench

from ..helpers.tiny_models import tiny_lm
from ..helpers.tiny_setups import FIRST_TOKEN_REQUEST, MID_PROMPT_REQUEST, SENTENCES, lenient, tiny_setup
from ..helpers.weight_updates import scaled_update

pytestmark = pytest.mark.tiny

NAME = "two-layers"


class TwoLayers(CRome):
    """c-rome at layer 0, and at layer 1 what is left over."""

    name = NAME

    def stages(self, context: EditContext) -> Sequence[Stage]:
        return (Stage(0, self), Stage(1, self))


@pytest.fixture(autouse=True)
def two_layers(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(EDITORS._classes, NAME, TwoLayers)


@pytest.fixture
def setup() -> Iterator[Setup]:
    setup = tiny_setup()
    before = hash_tensors(setup.lm.model)
    yield setup
    assert hash_tensors(setup.lm.model) == before


def setup_at_the_upper_layer(family: str) -> Setup:
    """Return a setup whose main site is layer 1, so that its own partial passes leave out layer 0."""
    return prepare(tiny_lm(family), layer=1, policy=lenient(), statistics="identity", perplexity_corpus=SENTENCES)


def propose(guard: GuardedEditor, updates: Sequence[tuple[EditRequest, WeightUpdate]]) -> list[Proposal]:
    """Return proposals of updates that no editor computed, prepared for the guard's checks."""
    return guard._prepare_checks(
        [
            Proposal(
                assessment=Assessment(
                    request=request, evidence=None, findings=(), decision=Decision(Action.ALLOW, "rome", ("by hand",))
                ),
                update=update,
                relative_norms=relative_norms(update, guard.setup.weight_norms(update.sites)),
            )
            for request, update in updates
        ]
    )


def figures(result: EditResult) -> dict[tuple[str, ...], float]:
    return {
        (row.check, row.metric, row.condition, str(row.protocol)): math.nan if row.value is None else row.value
        for row in result.measurements
    }


# ------------------------------------------------------------------------------------------------------------- checks


@pytest.mark.parametrize("family", ["llama", "gpt2", "gptj"])
@pytest.mark.parametrize("layers", [(0,), (0, 1)], ids=["lower layer", "both layers"])
def test_several_sites_are_measured_as_by_plain_passes(family: str, layers: tuple[int, ...]) -> None:
    setup = setup_at_the_upper_layer(family)
    before = hash_tensors(setup.lm.model)
    update = scaled_update([find_site(setup.lm.model, layer) for layer in layers], (2, 1)[: len(layers)], 0.3)
    fast, plain = GuardedEditor(setup), GuardedEditor(setup.with_reference_engine())
    here, there = (guard.try_proposal(*propose(guard, [(FIRST_TOKEN_REQUEST, update)])) for guard in (fast, plain))
    assert figures(here) == pytest.approx(figures(there), rel=1e-3, abs=1e-6, nan_ok=True)
    assert here.generations == there.generations
    assert [answer.after for answer in here.prompts] == [answer.after for answer in there.prompts]
    assert figures(here)["perplexity", "ratio", "corpus", "None"] != pytest.approx(1.0, abs=1e-3)
    assert hash_tensors(setup.lm.model) == before


def test_several_sites_measured_from_the_upper_one_would_be_wrong(monkeypatch: pytest.MonkeyPatch) -> None:
    """The test above notices a stem that begins too high."""
    setup = setup_at_the_upper_layer("llama")
    update = scaled_update([find_site(setup.lm.model, layer) for layer in (0, 1)], (2, 1), 0.3)
    guard = GuardedEditor(setup)
    right = guard.try_proposal(*propose(guard, [(FIRST_TOKEN_REQUEST, update)]))
    monkeypatch.setattr(Bench, "lowest_site", property(lambda bench: bench.sites[-1]))
    guard = GuardedEditor(replace(setup, states=type(setup.states)()))
    wrong = guard.try_proposal(*propose(guard, [(FIRST_TOKEN_REQUEST, update)]))
    key = ("perplexity", "ratio", "corpus", "None")
    assert figures(wrong)[key] != pytest.approx(figures(right)[key], rel=1e-3)


def test_proposals_of_different_sites_are_prepared_on_their_own_benches() -> None:
    setup = setup_at_the_upper_layer("llama")
    low, high = (find_site(setup.lm.model, layer) for layer in (0, 1))
    updates = [scaled_update([high], [1], 0.2), scaled_update([low, high], [1, 2], 0.2), scaled_update([low], [2], 0.2)]
    pairs = [(FIRST_TOKEN_REQUEST, update) for update in updates]
    guard = GuardedEditor(setup)
    together = [guard.try_proposal(proposal) for proposal in propose(guard, pairs)]
    for pair, result in zip(pairs, together, strict=True):
        single = GuardedEditor(setup_at_the_upper_layer("llama"))
        sites = tuple(find_site(single.setup.lm.model, site.layer) for site in pair[1].sites)
        own = WeightUpdate(
            changes=tuple(replace(change, site=site) for change, site in zip(pair[1].changes, sites, strict=True)),
            editor="rome",
            needs_prefix=False,
        )
        expected = single.try_proposal(*propose(single, [(pair[0], own)]))
        assert figures(result) == pytest.approx(figures(expected), rel=1e-4, abs=1e-6, nan_ok=True)
    assert {tuple(bench.sites) for bench in setup._benches.values()} >= {(high,), (low, high), (low,)}


def test_bench_stem_while_any_site_is_edited_is_refused() -> None:
    setup = setup_at_the_upper_layer("llama")
    low, high = (find_site(setup.lm.model, layer) for layer in (0, 1))
    bench = setup.bench_for((low, high))
    rows = [Row((5, 6, 7), 0, (2,))]
    bench.stem(rows)
    for site in (low, high):
        with (
            Transaction(scaled_update([site], [1], 0.1)),
            pytest.raises(EditguardError, match=f"while an edit is in {site.path}"),
        ):
            bench.stem(rows)
    with Transaction(scaled_update([low], [1], 0.1)), pytest.raises(InputError, match="prepare the model again"):
        setup.bench_for((low,))


# ------------------------------------------------------------------------------------------------------------- editors


def test_compute_updates_seeks_the_second_value_with_the_first_change_in_place(setup: Setup) -> None:
    guard = GuardedEditor(setup)
    both, single = guard.propose_unguarded([(MID_PROMPT_REQUEST, NAME), (MID_PROMPT_REQUEST, "c-rome")])
    assert both.update is not None
    assert single.update is not None
    first, second = both.update.changes
    # The searches of the first layer are made in one batch, which decides about the last bits.
    torch.testing.assert_close(first.delta(), single.update.changes[0].delta(), rtol=1e-4, atol=1e-7)
    context = setup.edit_context.at_layer(1)
    texts = TwoLayers().contexts(setup.prefixes)
    keys = compute_subject_keys(setup.lm, context.site, MID_PROMPT_REQUEST, texts)
    with Transaction(WeightUpdate(changes=(first,), editor=NAME, needs_prefix=False)):
        edited_keys = compute_subject_keys(setup.lm, context.site, MID_PROMPT_REQUEST, texts)
    unedited, expected = (
        torch.nn.functional.normalize(context.statistics.direction(each.mean_key), dim=0)
        for each in (keys, edited_keys)
    )
    torch.testing.assert_close(second.right[:, 0], expected, rtol=1e-4, atol=1e-6)
    assert not torch.allclose(second.right[:, 0], unedited, rtol=1e-3, atol=1e-4)


def test_compute_updates_error_of_one_job_leaves_the_others(setup: Setup) -> None:
    missing = replace(MID_PROMPT_REQUEST, id="missing", subject="Berlin")
    good, bad = GuardedEditor(setup).propose_unguarded([(MID_PROMPT_REQUEST, NAME), (missing, NAME)])
    assert good.update is not None
    assert len(good.update.changes) == 2
    assert bad.refusal is not None


def test_edit_context_without_other_layers_says_so(setup: Setup) -> None:
    alone = replace(setup.edit_context, state_at=None)
    assert alone.at_layer(0) is alone
    with pytest.raises(InputError, match="edits layer 1, and only layer 0 is prepared"):
        alone.at_layer(1)


# ------------------------------------------------------------------------------------------------- audit, save, export


def load(*requests: EditRequest) -> LoadedRequests:
    return LoadedRequests(requests=requests, invalid=(), source="here", sha256="")


def test_audit_of_several_sites_logs_each_and_shows_them(setup: Setup, tmp_path: Path) -> None:
    run_audit(setup, load(MID_PROMPT_REQUEST), tmp_path, editor=NAME)
    (record,) = read_log(tmp_path / LOG).edits
    assert record.update is not None
    assert record.weights is not None
    paths = [find_site(setup.lm.model, layer).path for layer in (0, 1)]
    assert [(change.layer, change.path) for change in record.update.changes] == list(enumerate(paths))
    assert [change.statistics_sha256 for change in record.update.changes] == [
        setup.state_at(layer).statistics.sha256 for layer in (0, 1)
    ]
    parts = [change.relative_norm for change in record.update.changes]
    assert record.update.relative_norm == pytest.approx(sum(part**2 for part in parts if part is not None) ** 0.5)
    assert [*record.weights.sites] == paths
    assert record.weights.restored_ok is True
    page = (tmp_path / REPORT).read_text(encoding="utf-8")
    assert "Edited weights in edit" in page
    assert all(page.count(path) >= 2 for path in paths)


def test_audit_bound_is_compared_with_the_whole(setup: Setup) -> None:
    guard = GuardedEditor(setup)
    (proposal,) = guard.propose_unguarded([(MID_PROMPT_REQUEST, NAME)])
    assert proposal.relative_norm is not None
    between = (max(proposal.relative_norms.values()) + proposal.relative_norm) / 2
    strict = replace(guard, setup=replace(setup, policy=lenient(over_bound="refuse")))
    (refused,) = strict.propose([strict.assess(MID_PROMPT_REQUEST, NAME)], bound=between)
    assert refused.writable is None
    assert "most of it" in str(refused.refusal)


def test_export_of_several_sites_is_applied_to_the_bit(setup: Setup, tmp_path: Path) -> None:
    (tmp_path / "audit").mkdir()
    run_audit(setup, load(MID_PROMPT_REQUEST), tmp_path / "audit", editor=NAME)
    (record,) = read_log(tmp_path / "audit" / LOG).edits
    (exported,) = export_edits(setup, [MID_PROMPT_REQUEST], tmp_path / "out", editor=NAME, log=tmp_path / "audit" / LOG)
    delta = read_delta(tmp_path / "out" / exported.file)
    assert record.weights is not None
    with apply_delta(setup.lm.model, delta, unaudited=True) as applied:
        assert applied.transactions[0].edited == record.weights.edited


def test_edit_of_several_sites_is_kept_and_saved(tmp_path: Path) -> None:
    guard = GuardedEditor(tiny_setup())
    result = guard.edit(MID_PROMPT_REQUEST, NAME)
    assert result.kept
    assert result.hashes is not None
    assert all(hashes.restored is None for hashes in result.hashes.values())
    provenance = guard.save(tmp_path / "edited")
    assert load_provenance(tmp_path / "edited") == provenance
    assert [site.layer for site in provenance.edits[0].sites] == [0, 1]
    with torch.no_grad():
        find_site(guard.setup.lm.model, 1).weight.mul_(1.01)
    with pytest.raises(InputError, match="the edit is no longer in the model"):
        guard.save(tmp_path / "again")


def test_suite_takes_an_edit_of_several_sites_out_and_back(setup: Setup) -> None:
    guard = GuardedEditor(setup)
    suite, before = Suite(guard), hash_tensors(setup.lm.model)
    (proposal,) = guard.propose_unguarded([(MID_PROMPT_REQUEST, NAME)])
    assert proposal.update is not None
    with Transaction(proposal.update):
        edited = hash_tensors(setup.lm.model)
        report = suite(setup.lm, (FIRST_TOKEN_REQUEST,), False)
        assert hash_tensors(setup.lm.model) == edited
    assert hash_tensors(setup.lm.model) == before
    by_guard = figures(guard.try_proposal(proposal))
    ratio = next(row.value for row in report.measurements if (row.check, row.metric) == ("perplexity", "ratio"))
    assert ratio == pytest.approx(by_guard["perplexity", "ratio", "corpus", "None"], rel=1e-4)


# ------------------------------------------------------------------------------------------------------------ sequence


WIDE = {"max_accumulated_ratio": 1e6, "max_accumulated_update": 1e6}


def test_sequence_of_edits_at_different_sites_is_undone_whole() -> None:
    setup = tiny_setup(policy=lenient(**WIDE))
    before = hash_tensors(setup.lm.model)
    sites = [find_site(setup.lm.model, layer) for layer in (0, 1)]
    originals = [site.matrix(torch.float64) for site in sites]
    with EditSequence(GuardedEditor(setup)) as sequence:
        for request, editor in ((FIRST_TOKEN_REQUEST, "c-rome"), (MID_PROMPT_REQUEST, NAME)):
            result = sequence.edit(request, editor)
            assert result.kept
        distances = [
            float((site.matrix(torch.float64) - original).norm() / original.norm())
            for site, original in zip(sites, originals, strict=True)
        ]
        assert all(distances)
        accumulated = {row.metric: row.value for row in result.measurements if row.check == "accumulated-drift"}
        assert accumulated["relative-norm"] == pytest.approx(sum(value**2 for value in distances) ** 0.5, rel=1e-6)
        # The next edit of a layer below is measured as by plain passes.
        fast = sequence.guard
        plain = replace(fast, setup=fast.setup.with_reference_engine())
        here, there = (guard.try_unguarded(FIRST_TOKEN_REQUEST, "c-rome") for guard in (fast, plain))
        assert figures(here) == pytest.approx(figures(there), rel=1e-3, abs=1e-6, nan_ok=True)
    assert hash_tensors(setup.lm.model) == before


def test_sequence_of_several_sites_is_a_chain_that_can_be_resumed(tmp_path: Path) -> None:
    setup = tiny_setup(policy=lenient(min_retained=0, **WIDE))
    fingerprint = compute_fingerprint(setup.lm.model)
    requests = load(MID_PROMPT_REQUEST, FIRST_TOKEN_REQUEST)
    summary = run_audit(setup, requests, tmp_path, editor=NAME, in_sequence=True)
    log = read_log(tmp_path / LOG)
    assert [record.weights is not None and record.weights.kept for record in log.edits] == [True, True]
    assert not [reason for reason in summary.reasons if "weight" in reason]
    lines = (tmp_path / LOG).read_text(encoding="utf-8").splitlines(keepends=True)
    (tmp_path / LOG).write_text("".join(lines[:2]), encoding="utf-8")
    run_audit(setup, requests, tmp_path, editor=NAME, in_sequence=True, resume=True)
    again = read_log(tmp_path / LOG)
    assert [record.weights for record in again.edits] == [record.weights for record in log.edits]
    assert compute_fingerprint(setup.lm.model) == fingerprint
