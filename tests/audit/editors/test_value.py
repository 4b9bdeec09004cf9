"""A search for v*: its texts, the rows of a step, and its objective."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from editguard.audit.editors.value import ValueProblem, ValueSettings, build_value_problem
from editguard.probes.requests.request import EditRequest

from ...helpers.tiny_models import tiny_lm
from ...helpers.tiny_setups import FIRST_TOKEN_REQUEST

pytestmark = pytest.mark.tiny

REQUEST = EditRequest("1", "Chicago", "Chicago is a twin city of", "Istanbul")
SPACED_AND_QUOTED = ("The twin of Chicago is", 'Chicago has a twin called "')
REWORDINGS = ("A twin of Chicago is", "Chicago has a twin city called", "Nothing about it")
TEXTS = ("", "It is 2024. ", "\n", "Paris is not Lyon. ", '"')


def build_problem(settings: ValueSettings, rewordings: tuple[str, ...] = ()) -> ValueProblem:
    return build_value_problem(
        tiny_lm(), FIRST_TOKEN_REQUEST, TEXTS, start_norm=3.0, settings=settings, reworded=rewordings
    )


@pytest.mark.parametrize(
    ("change", "count"),
    [({}, 1), ({"prompt": 'The twin city of Chicago is called "'}, 1), ({"space": True}, 2), ({"space": False}, 2)],
)
def test_value_problem_rewording_that_needs_other_space_is_left_out(change: dict[str, object], count: int) -> None:
    request = replace(REQUEST, **change)  # type: ignore[arg-type]
    problem = build_value_problem(
        tiny_lm(), request, ("", "It is 2024. "), start_norm=1.0, settings=ValueSettings(), reworded=SPACED_AND_QUOTED
    )
    assert len(problem.rewordings) == 2 * count


@pytest.mark.parametrize("parts", [1, 2, 3, 5, 9])
def test_rows_at_parts_cover_each_context_once_and_essence_always(parts: int) -> None:
    problem = build_problem(ValueSettings(parts=parts))
    last = len(problem.rows) - 1
    assert problem.parts == min(parts, last)
    steps = [problem.rows_at(step) for step in range(problem.parts)]
    assert all(rows[-1] == last and len(rows) > 1 for rows in steps)
    assert sorted(row for rows in steps for row in rows[:-1]) == list(range(last))
    assert problem.rows_at(problem.parts) == steps[0]


def test_value_problem_rewordings_get_two_prefixes_and_essences_some() -> None:
    lm = tiny_lm()
    problem = build_problem(ValueSettings(parts=2, essences=2), REWORDINGS)
    # The third rewording names no subject, so that it is left out.
    assert len(problem.rewordings) == 4
    assert all(lm.tokenizer.decode(row.ids[: row.at + 1]).endswith("Chicago") for row in problem.rewordings)
    assert [lm.tokenizer.decode(row.ids) for row in problem.essences] == [
        "Chicago is a",
        *(f"{text}Chicago is a" for text in TEXTS[:: len(TEXTS) // 2][:2]),
    ]
    computed = sorted(row for step in range(2) for row in problem.rows_at(step))
    assert sorted(set(computed)) == list(range(len(problem.rows)))


def test_loss_equals_the_sum_over_kinds_of_rows() -> None:
    problem = build_problem(ValueSettings(parts=1, essences=2), REWORDINGS)
    draw = torch.Generator().manual_seed(0)
    places = (len(problem.contexts) + len(problem.rewordings)) * len(problem.target) + len(problem.essences)
    logits = torch.randn(places, len(tiny_lm().tokenizer), generator=draw, dtype=torch.float64)
    before = torch.randn(len(problem.essences), logits.shape[1], generator=draw, dtype=torch.float64).log_softmax(-1)
    now, delta = logits.log_softmax(-1), torch.ones(4, dtype=torch.float64)
    length = len(problem.target)
    target_places = range(places - len(problem.essences))
    target_log_probs = torch.stack([now[place, problem.target[place % length]] for place in target_places])
    contexts, rewordings = target_log_probs.split([len(problem.contexts) * length, len(problem.rewordings) * length])
    divergence = torch.zeros((), dtype=torch.float64)
    for old, new in zip(before, now[-len(problem.essences) :], strict=True):
        divergence = divergence + (new.exp() * (new - old)).sum() / len(problem.essences)
    expected = -contexts.mean() - rewordings.mean() + 0.0625 * divergence + 1e-3 * 2 / 9
    assert float(problem.loss(0, now, before, delta)) == pytest.approx(float(expected))


@pytest.mark.parametrize(("step", "weight"), [(0, 3.0), (10, 3.0), (15, 1.5), (19, 0.3)])
def test_loss_of_held_rows_is_their_divergence_with_a_weight_that_falls(step: int, weight: float) -> None:
    settings = ValueSettings(parts=1, steps=20, held_factor=3.0)
    plain = build_problem(settings)
    problem = replace(plain, held=(plain.essences[0], plain.essences[0]))
    draw = torch.Generator().manual_seed(1)
    places = len(problem.contexts) * len(problem.target) + len(problem.essences)
    size = len(tiny_lm().tokenizer)
    now = torch.randn(places + 2, size, generator=draw, dtype=torch.float64).log_softmax(-1)
    before = torch.randn(len(problem.essences) + 2, size, generator=draw, dtype=torch.float64).log_softmax(-1)
    delta = torch.ones(4, dtype=torch.float64)
    moved = sum(float((old.exp() * (old - new)).sum()) for old, new in zip(before[-2:], now[-2:], strict=True))
    without = float(plain.loss(step, now[:places], before[:-2], delta))
    assert float(problem.loss(step, now, before, delta)) == pytest.approx(without + weight * moved / 2)


def test_margin_is_the_least_lead_of_the_target_over_the_contexts() -> None:
    problem = build_problem(ValueSettings(parts=1))
    draw = torch.Generator().manual_seed(2)
    places = len(problem.contexts) * len(problem.target)
    log_probs = torch.randn(places + 1, len(tiny_lm().tokenizer), generator=draw).log_softmax(-1)
    leads = []
    for place in range(places):
        wanted = problem.target[place % len(problem.target)]
        others = [float(value) for token, value in enumerate(log_probs[place]) if token != wanted]
        leads.append(float(log_probs[place, wanted]) - max(others))
    assert problem.margin(0, log_probs) == pytest.approx(min(leads))
