"""Edits of two sites: where the early one is, what its direction avoids, and that both together act with no prefix."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import pytest
import torch
from editguard.audit.editors.base import EDITORS, EditContext, EditorTexts, Plan, compute_updates
from editguard.audit.editors.builtin import everywhere
from editguard.audit.editors.builtin.prefixed import Prefixed
from editguard.audit.editors.search import optimise_values
from editguard.audit.editors.start_editor import StartEditor
from editguard.audit.editors.surroundings import find_surroundings
from editguard.audit.editors.update import WeightUpdate
from editguard.audit.editors.value import OptimisedValue
from editguard.audit.guard import GuardedEditor
from editguard.audit.policy import Policy
from editguard.audit.setup import Setup, prepare
from editguard.audit.transaction import Transaction
from editguard.probes.errors import RequestError, StatisticsError
from editguard.probes.forward.hooks import stop_after
from editguard.probes.keys.first_token_keys import list_check_words
from editguard.probes.keys.subject_keys import compute_row_keys, compute_subject_keys, locate
from editguard.probes.model.fingerprint import hash_tensors
from editguard.probes.requests.request import EditRequest
from editguard.suites.builtin import load_builtin_edits

from ...helpers.tiny_models import tiny_lm
from ...helpers.tiny_setups import FIRST_TOKEN_REQUEST, MID_PROMPT_REQUEST, SENTENCES, lenient

pytestmark = pytest.mark.tiny


def setup_at(layer: int, policy: Policy | None = None) -> Setup:
    return prepare(
        tiny_lm(),
        layer=layer,
        policy=policy or lenient(rewrite_editor="everywhere"),
        statistics="identity",
        perplexity_corpus=SENTENCES,
    )


@pytest.fixture
def setup(monkeypatch: pytest.MonkeyPatch) -> Iterator[Setup]:
    # In a model of random weights first tokens have keys of their own at every layer.
    monkeypatch.setattr(everywhere, "find_early_layer", lambda *_: 0)
    setup = setup_at(1)
    before = hash_tensors(setup.lm.model)
    yield setup
    assert hash_tensors(setup.lm.model) == before


def plan_start(context: EditContext, request: EditRequest) -> Plan:
    early = context.at_layer(0)
    editor = StartEditor(())
    keys = compute_subject_keys(early.lm, early.site, request, editor.contexts(early.prefixes))
    (surroundings,) = find_surroundings(early.lm, [request], seed=0)
    return editor.plan(early, request, keys, EditorTexts((), surroundings))


def output_at(context: EditContext, ids: tuple[int, ...], at: int) -> torch.Tensor:
    """The early site's output at one token of a text, by the model as it is now."""
    with torch.no_grad(), stop_after(context.site.module) as captured:
        context.lm.run(input_ids=torch.tensor([ids]))
    return captured[0][1].reshape(-1, context.site.d_model)[at].double()


def test_everywhere_update_changes_the_main_and_the_early_site_and_needs_no_prefix(setup: Setup) -> None:
    (update,) = compute_updates(setup.edit_context, [("everywhere", FIRST_TOKEN_REQUEST)])
    assert isinstance(update, WeightUpdate)
    assert [site.layer for site in update.sites] == [0, 1]
    assert (update.editor, update.needs_prefix) == ("everywhere", False)


def test_everywhere_first_change_is_that_of_prefixed_and_the_second_is_sought_with_it_in_place(setup: Setup) -> None:
    context = setup.edit_context
    both, alone = compute_updates(context, [("everywhere", FIRST_TOKEN_REQUEST), ("prefixed", FIRST_TOKEN_REQUEST)])
    assert isinstance(both, WeightUpdate)
    assert isinstance(alone, WeightUpdate)
    early, main = both.changes
    assert torch.allclose(main.delta(), alone.changes[0].delta(), atol=1e-6)
    starts = everywhere.list_special_tokens(context.lm)[: everywhere._MOST_STARTS]
    lefts = []
    for written in (True, False):
        with Transaction(alone if written else alone.scale(0.0)):
            editor = StartEditor(starts)
            at_start = replace(context.at_layer(0), prefix_cache=None)
            keys = compute_subject_keys(
                at_start.lm, at_start.site, FIRST_TOKEN_REQUEST, editor.contexts(at_start.prefixes)
            )
            (surroundings,) = find_surroundings(at_start.lm, [FIRST_TOKEN_REQUEST], seed=0)
            plan = editor.plan(at_start, FIRST_TOKEN_REQUEST, keys, EditorTexts((), surroundings))
            (value,) = optimise_values(at_start.lm, at_start.site, [plan.problem])
            assert isinstance(value, OptimisedValue)
            lefts.append(editor.finish(plan, value, at_start.statistics).changes[0].delta())
    assert torch.allclose(early.delta(), lefts[0], atol=1e-5 * float(early.norm))
    assert not torch.allclose(early.delta(), lefts[1], atol=1e-3 * float(early.norm))


def test_start_plan_shares_are_what_the_written_edit_gives_each_row(setup: Setup) -> None:
    context = setup.edit_context
    plan, early = plan_start(context, FIRST_TOKEN_REQUEST), context.at_layer(0)
    direction, problem = plan.direction, plan.problem
    assert direction is not None
    assert len(problem.shares) == len(problem.rows)
    before = [output_at(early, row.ids, row.at) for row in problem.rows]
    delta = torch.randn(early.site.d_model, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    original = early.site.matrix(torch.float64)
    early.site.write(original + torch.outer(delta / float(direction @ plan.insertion.key.double()), direction))
    try:
        after = [output_at(early, row.ids, row.at) for row in problem.rows]
    finally:
        early.site.write(original)
    for share, old, new in zip(problem.shares, before, after, strict=True):
        assert torch.allclose(new - old, share * delta, atol=1e-4 * float(delta.norm()))


def test_start_plan_direction_equals_the_dense_solution(setup: Setup) -> None:
    context = setup.edit_context
    plan, early = plan_start(context, FIRST_TOKEN_REQUEST), context.at_layer(0)
    lm, site = early.lm, early.site
    vocabulary = compute_row_keys(lm, site, [((token,), 0) for token in range(len(lm.tokenizer))]).double()
    own = plan.keys.keys.double()
    matrix = early.statistics.second_moment.double() + 3 * vocabulary.T @ vocabulary / len(vocabulary)
    matrix += early.statistics.ridge * matrix.diagonal().mean() * torch.eye(len(matrix), dtype=torch.float64)
    matrix += 0.1 * own.T @ own / len(own)
    solved = torch.linalg.solve(matrix, own.mean(0))
    assert plan.direction is not None
    assert torch.allclose(plan.direction, solved / solved.norm(), atol=1e-6)


def test_start_plan_holds_no_word_that_the_check_asks(setup: Setup) -> None:
    plan = plan_start(setup.edit_context, FIRST_TOKEN_REQUEST)
    asked = set(list_check_words(setup.lm))
    (own, *rest) = locate(setup.lm, FIRST_TOKEN_REQUEST).input_ids
    held = [row.ids[0] for row in plan.problem.held if row.ids[1:] == tuple(rest)]
    assert held
    assert asked.isdisjoint(held)
    assert own not in held


def test_guard_editor_that_rewrites_is_taken_where_it_is_asked_for() -> None:
    guard = GuardedEditor(setup_at(0))
    decisions = {name: guard.assess(FIRST_TOKEN_REQUEST, name).decision for name in ("prefixed", "reworded", "local")}
    assert {name: (decision.action.value, decision.editor) for name, decision in decisions.items()} == {
        "prefixed": ("allow", "prefixed"),
        "reworded": ("allow", "reworded"),
        "local": ("rewrite", "prefixed"),
    }


def test_everywhere_main_site_among_the_early_layers_gives_way_to_prefixed() -> None:
    guard = GuardedEditor(setup_at(0))
    assessment = guard.assess(FIRST_TOKEN_REQUEST)
    assert assessment.decision.editor == Prefixed.name
    assert any("gives way to 'prefixed'" in reason for reason in assessment.decision.reasons)
    (outcome,) = compute_updates(guard.setup.edit_context, [("everywhere", FIRST_TOKEN_REQUEST)])
    assert isinstance(outcome, RequestError)
    assert "use --editor prefixed" in str(outcome)


@pytest.mark.parametrize(("early", "why"), [(None, "the same key from layer 0 on"), (0, "key statistics")])
def test_everywhere_without_an_early_site_or_its_statistics_says_why(
    setup: Setup, monkeypatch: pytest.MonkeyPatch, early: int | None, why: str
) -> None:
    def refuse(layer: int) -> None:
        raise StatisticsError("one layer only")

    monkeypatch.setattr(everywhere, "find_early_layer", lambda *_: early)
    context = replace(setup.edit_context, memo={}, state_at=refuse)
    alternative = EDITORS.get("everywhere")().find_alternative(context)
    assert alternative is not None
    assert alternative.editor == "prefixed"
    assert why in alternative.reason


def test_everywhere_jobs_of_several_editors_keep_their_order(setup: Setup) -> None:
    jobs = [("local", MID_PROMPT_REQUEST), ("everywhere", FIRST_TOKEN_REQUEST), ("rome", MID_PROMPT_REQUEST)]
    updates = compute_updates(setup.edit_context, jobs)
    assert [isinstance(update, WeightUpdate) and update.editor for update in updates] == [name for name, _ in jobs]


@pytest.mark.real
@pytest.mark.end_to_end
def test_everywhere_edit_of_a_first_token_acts_with_no_prefix() -> None:
    request = next(request for request in load_builtin_edits() if request.id == "single-egypt")
    guard = GuardedEditor.load(policy=Policy(rewrite_editor="everywhere"))
    result = guard.try_edit(request)
    assert result.update is not None
    assert [site.layer for site in result.update.sites] == [0, 9]
    rates = {row.condition: row for row in result.measurements if row.check == "efficacy" and row.protocol == "exact"}
    for condition in ("unprefixed", "served"):
        assert rates[condition].passed == rates[condition].total
    assert rates["prefixed"].passed >= 16
    assert result.prefix is None
    assert result.sound, [failure.message for failure in result.failures]
    assert result.hashes is not None
    assert all(hashes.restored == hashes.before != hashes.edited for hashes in result.hashes.values())
