"""Edits that stay where they belong: the direction avoids other subjects, and the search sees what the written edit does."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from editguard.audit.editors.base import EDITORS, EditContext, Editor, EditorTexts, Plan, compute_updates
from editguard.audit.editors.surroundings import Surroundings, find_surroundings
from editguard.audit.editors.update import WeightUpdate
from editguard.audit.editors.value import Descent, ValueSettings
from editguard.probes.errors import NotFinite
from editguard.probes.forward.hooks import stop_after
from editguard.probes.keys.statistics import KeyStatistics, StatisticsProvenance
from editguard.probes.keys.subject_keys import compute_subject_keys
from editguard.probes.model.site import find_site
from editguard.probes.requests.request import EditRequest
from editguard.probes.subjects.subject_kinds import (
    GENERATED_NEIGHBOURS,
    classify_kinds,
    list_relations,
    make_neighbours,
)

from ...helpers.tiny_models import tiny_lm
from ...helpers.tiny_setups import FIRST_TOKEN_REQUEST, MID_PROMPT_REQUEST, MISSING_SUBJECT_REQUEST, few_prefixes

pytestmark = pytest.mark.tiny

EDITORS_UNDER_TEST = ("local", "prefixed")


def make_context(dtype: torch.dtype = torch.float64) -> EditContext:
    lm = tiny_lm()
    lm = replace(lm, model=lm.model.to(dtype))
    site = find_site(lm.model, 0)
    draw = torch.randn(400, site.d_ff, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    statistics = KeyStatistics(
        draw.T @ draw / len(draw) * 1e-4,
        StatisticsProvenance(
            method="corpus", source="drawn", model_fingerprint="ab" * 32, layer=0, corpus_sha256="cd" * 32, tokens=400
        ),
    )
    return EditContext(
        lm=lm, site=site, statistics=statistics, prefixes=few_prefixes(), settings=ValueSettings(steps=4)
    )


def make_plan(context: EditContext, name: str, request: EditRequest, *, surrounded: bool = True) -> Plan:
    editor: Editor = EDITORS.get(name)()
    keys = compute_subject_keys(context.lm, context.site, request, editor.contexts(context.prefixes))
    (surroundings,) = find_surroundings(context.lm, [request], seed=0)
    return editor.plan(context, request, keys, EditorTexts((), surroundings if surrounded else Surroundings()))


def output_at(context: EditContext, ids: tuple[int, ...], at: int) -> torch.Tensor:
    """The site's output at one token of a text, by the model as it is now."""
    with torch.no_grad(), stop_after(context.site.module) as captured:
        context.lm.run(input_ids=torch.tensor([ids]))
    return captured[0][1].reshape(-1, context.site.d_model)[at].double()


@pytest.mark.parametrize("name", EDITORS_UNDER_TEST)
@pytest.mark.parametrize("request_", [FIRST_TOKEN_REQUEST, MID_PROMPT_REQUEST], ids=["first-token", "mid-prompt"])
def test_plan_shares_are_what_the_written_edit_gives_each_row(request_: EditRequest, name: str) -> None:
    context = make_context()
    plan = make_plan(context, name, request_)
    problem, direction = plan.problem, plan.direction
    assert direction is not None
    assert len(problem.shares) == len(problem.rows)
    before = [output_at(context, row.ids, row.at) for row in problem.rows]
    delta = torch.randn(context.site.d_model, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    along = float(direction @ plan.insertion.key.double())
    original = context.site.matrix(torch.float64)
    context.site.write(original + torch.outer(delta / along, direction))
    try:
        after = [output_at(context, row.ids, row.at) for row in problem.rows]
    finally:
        context.site.write(original)
    for share, old, new in zip(problem.shares, before, after, strict=True):
        assert torch.allclose(new - old, share * delta, atol=1e-6 * float(delta.norm()))


@pytest.mark.parametrize("name", EDITORS_UNDER_TEST)
def test_plan_gives_other_subjects_a_smaller_share_than_c_alone(name: str) -> None:
    context = make_context()
    plan = make_plan(context, name, MID_PROMPT_REQUEST)
    (surroundings,) = find_surroundings(context.lm, [MID_PROMPT_REQUEST], seed=0)
    others = [
        compute_subject_keys(context.lm, context.site, other, ["", "\n"]).keys.double()
        for other in surroundings.others[:60]
    ]
    keys = torch.cat(others)
    key = plan.insertion.key.double()

    def mean_share(direction: torch.Tensor | None) -> float:
        assert direction is not None
        return float((keys @ direction / (key @ direction)).square().mean())

    assert mean_share(plan.direction) < 0.8 * mean_share(context.statistics.direction(key))


@pytest.mark.parametrize("name", EDITORS_UNDER_TEST)
def test_plan_direction_equals_the_dense_solution(name: str) -> None:
    context = make_context()
    plan = make_plan(context, name, MID_PROMPT_REQUEST)
    texts = EDITORS.get(name)().contexts(context.prefixes)
    prefixes = [text for text in texts if text]
    chosen = ["", *prefixes[:: max(1, len(prefixes) // 4)][:4]]
    (surroundings,) = find_surroundings(context.lm, [MID_PROMPT_REQUEST], seed=0)
    others = torch.cat(
        [
            compute_subject_keys(context.lm, context.site, other, chosen).keys.double()
            for other in surroundings.others[:60]
        ]
    )
    own = compute_subject_keys(context.lm, context.site, MID_PROMPT_REQUEST, texts).keys.double()
    second_moment = context.statistics.second_moment
    ridge = context.statistics.ridge * second_moment.diagonal().mean() * torch.eye(len(second_moment)).double()
    matrix = second_moment + ridge + 10 * others.T @ others / len(others) + 0.1 * own.T @ own / len(own)
    solved = torch.linalg.inv(matrix) @ own.mean(0)
    assert plan.direction is not None
    assert torch.allclose(plan.direction, solved / solved.norm(), atol=1e-6)


def test_plan_without_surroundings_reaches_all_contexts_more_alike_than_c_alone() -> None:
    context = make_context()
    plan = make_plan(context, "local", MID_PROMPT_REQUEST, surrounded=False)
    assert plan.problem.held == ()
    own = plan.keys.keys.double()

    def spread(direction: torch.Tensor | None) -> float:
        assert direction is not None
        return float((own @ direction / (plan.insertion.key.double() @ direction) - 1).abs().max())

    assert spread(plan.direction) < 0.5 * spread(context.statistics.direction(plan.insertion.key))


def test_surroundings_hold_nothing_that_a_check_asks() -> None:
    lm = tiny_lm()
    for request in (FIRST_TOKEN_REQUEST, MID_PROMPT_REQUEST):
        (surroundings,) = find_surroundings(lm, [request], seed=0)
        (kind,) = classify_kinds(lm, [request])
        made = make_neighbours(lm, request, kind, GENERATED_NEIGHBOURS, seed=0)
        asked = {relation.replace("{}", request.subject) for relation in list_relations(kind)}
        tested = {*made, *asked, *request.neighbourhood, *request.paraphrases, *request.other_facts, request.prompt}
        prompts = [text.prompt for text in (*surroundings.others, *surroundings.facts)]
        assert len(surroundings.others) > 60
        assert len(surroundings.facts) > 8
        assert len(set(prompts)) == len(prompts)
        assert tested.isdisjoint(prompts)
        assert all(other.subject in other.prompt for other in surroundings.others)


def test_surroundings_of_a_missing_subject_are_empty() -> None:
    assert find_surroundings(tiny_lm(), [MISSING_SUBJECT_REQUEST], seed=0) == [Surroundings()]


def test_local_settings_scale_with_the_general_steps() -> None:
    settings = EDITORS.get("local")().settings(ValueSettings(steps=7))
    assert (settings.steps, settings.descent, settings.stop_loss) == (21, Descent.STEEPEST, 0.0)
    assert settings.margin is not None


def test_local_key_of_zeros_has_no_denominator() -> None:
    context = make_context()
    editor = EDITORS.get("local")()
    keys = compute_subject_keys(context.lm, context.site, MID_PROMPT_REQUEST, editor.contexts(context.prefixes))
    zeros = replace(keys, keys=torch.zeros_like(keys.keys), no_prefix_key=torch.zeros_like(keys.no_prefix_key))
    with pytest.raises(NotFinite):
        editor.plan(context, MID_PROMPT_REQUEST, zeros, EditorTexts())


def test_local_update_needs_no_prefix_and_prefixed_does() -> None:
    context = make_context()
    updates = compute_updates(context, [(name, MID_PROMPT_REQUEST) for name in EDITORS_UNDER_TEST])
    assert [isinstance(update, WeightUpdate) and update.needs_prefix for update in updates] == [False, True]
