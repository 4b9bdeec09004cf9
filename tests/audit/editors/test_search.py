"""Searches for v* in one batch: each ends as it does by itself, whatever happens to the others."""

from __future__ import annotations

from dataclasses import replace
from functools import cache

import pytest
import torch
from editguard.audit.editors import search as module
from editguard.audit.editors.search import optimise_values
from editguard.audit.editors.value import (
    Descent,
    Engine,
    OptimisedValue,
    ValueProblem,
    ValueSettings,
    build_value_problem,
)
from editguard.probes.errors import NotFinite
from editguard.probes.forward.live_rows import LiveRows
from editguard.probes.forward.partial import Row
from editguard.probes.model.language_model import LanguageModel
from editguard.probes.model.site import EditSite, find_site
from editguard.probes.requests.request import EditRequest

from ...helpers.tiny_models import tiny_lm
from ...helpers.tiny_setups import FIRST_TOKEN_REQUEST, MID_PROMPT_REQUEST

pytestmark = pytest.mark.tiny

LONG = EditRequest("twin", "Chicago", "Chicago is a twin city of", "the city of Istanbul", target_true="Paris")
TEXTS = ("", "It is 2024. ", "\n", "Paris is not Lyon. ", '"')


@cache
def model() -> LanguageModel:
    return tiny_lm()


def problem(request: EditRequest, settings: ValueSettings, start_norm: float = 3.0) -> ValueProblem:
    return build_value_problem(model(), request, TEXTS, start_norm=start_norm, settings=settings)


def site() -> EditSite:
    return find_site(model().model, 0)


def solve(problems: list[ValueProblem]) -> list[OptimisedValue]:
    outcomes = optimise_values(model(), site(), problems)
    assert all(isinstance(outcome, OptimisedValue) for outcome in outcomes)
    return [outcome for outcome in outcomes if isinstance(outcome, OptimisedValue)]


def is_same(value: OptimisedValue, expected: OptimisedValue) -> bool:
    near = float((value.delta - expected.delta).norm()) < 1e-3 * float(expected.delta.norm())
    return near and value.steps == expected.steps and value.loss == pytest.approx(expected.loss, rel=1e-4)


@pytest.mark.parametrize("engine", Engine)
@pytest.mark.parametrize("descent", Descent)
@pytest.mark.parametrize("parts", [1, 2, 3])
def test_optimise_values_batch_equals_each_by_itself(engine: Engine, descent: Descent, parts: int) -> None:
    settings = ValueSettings(steps=6, engine=engine, descent=descent, parts=parts)
    problems = [
        problem(FIRST_TOKEN_REQUEST, settings),
        problem(MID_PROMPT_REQUEST, settings, 1.0),
        problem(LONG, settings, 5.0),
    ]
    for value, single in zip(solve(problems), problems, strict=True):
        assert is_same(value, *solve([single]))
        assert value.engine is engine


@pytest.mark.parametrize("share", [0.1, 0.3])
def test_steepest_descent_step_has_the_given_length_down_the_gradient(share: float) -> None:
    settings = ValueSettings(steps=2, descent=Descent.STEEPEST, learning_rate=share, stop_loss=-1.0, clamp=100.0)
    (once,) = solve([problem(FIRST_TOKEN_REQUEST, settings, start_norm=2.0)])
    # No step follows the last evaluation, so that two evaluations take one step.
    assert float(once.delta.norm()) == pytest.approx(2.0 * share, rel=1e-5)
    (adam,) = solve(
        [problem(FIRST_TOKEN_REQUEST, replace(settings, descent=Descent.ADAM, learning_rate=1e-3), start_norm=2.0)]
    )
    # Adam's first step is the sign of the gradient.
    assert float(torch.dot(once.delta.sign(), adam.delta.sign())) > 0.99 * len(adam.delta)


def test_optimise_values_early_end_leaves_the_others_running() -> None:
    patient = ValueSettings(steps=9, stop_loss=-1.0)
    problems = [
        problem(FIRST_TOKEN_REQUEST, patient),
        problem(MID_PROMPT_REQUEST, replace(patient, steps=2)),
        problem(LONG, patient),
    ]
    values = solve(problems)
    assert [value.steps for value in values] == [9, 2, 9]
    for value, single in zip(values, problems, strict=True):
        assert is_same(value, *solve([single]))


def test_optimise_values_broken_problem_leaves_the_others_as_they_are() -> None:
    settings = ValueSettings(steps=4)
    broken = problem(MID_PROMPT_REQUEST, replace(settings, kl_factor=float("nan")))
    first, bad, last = optimise_values(
        model(), site(), [problem(FIRST_TOKEN_REQUEST, settings), broken, problem(LONG, settings)]
    )
    assert isinstance(bad, NotFinite)
    assert "at step 1" in str(bad)
    for value, request in ((first, FIRST_TOKEN_REQUEST), (last, LONG)):
        assert isinstance(value, OptimisedValue)
        assert is_same(value, *solve([problem(request, settings)]))


def test_iter_batches_are_bounded_and_hold_each_problem_once(monkeypatch: pytest.MonkeyPatch) -> None:
    settings = ValueSettings(steps=3)
    problems = [problem(request, settings) for request in (FIRST_TOKEN_REQUEST, MID_PROMPT_REQUEST, LONG) * 2]
    expected = solve(problems)
    for name, most in (("_LIVE_TOKENS", 1), ("_KEPT_TOKENS", 1), ("_LIVE_TOKENS", 80)):
        with monkeypatch.context() as patch:
            patch.setattr(module, name, most)
            batches = list(module._iter_batches(problems))
            assert sorted(index for batch in batches for index in batch) == list(range(6))
            assert len(batches) > 1
            for value, expected_value in zip(solve(problems), expected, strict=True):
                assert is_same(value, expected_value)


def test_optimise_values_disagreeing_live_pass_uses_the_reference(monkeypatch: pytest.MonkeyPatch) -> None:
    settings = ValueSettings(steps=3)
    expected = solve([problem(FIRST_TOKEN_REQUEST, settings), problem(MID_PROMPT_REQUEST, settings)])
    real = LiveRows.logits
    monkeypatch.setattr(LiveRows, "logits", lambda self: real(self) * 1.5)
    values = solve([problem(FIRST_TOKEN_REQUEST, settings), problem(MID_PROMPT_REQUEST, settings)])
    assert {value.engine for value in values} == {Engine.REFERENCE}
    for value, live in zip(values, expected, strict=True):
        assert value.loss == pytest.approx(live.loss, rel=1e-4)


def test_optimise_values_no_problems_give_no_values() -> None:
    assert optimise_values(model(), site(), []) == []


def test_live_rows_part_equals_its_rows_among_the_others() -> None:
    lm = model()
    rows = [Row((11, 42, 7, 99, 23), 3, (3, 4)), Row((5, 6, 7), 0, (0, 2)), Row((8, 9, 10, 60, 61, 62), 4, (5,))]
    live = LiveRows(lm, site(), rows)
    with torch.no_grad():
        for indices in ([0], [2, 0], [1, 2]):
            part = live.part(indices)
            pieces = live.logits().split([len(row.predict) for row in rows])
            expected = torch.cat([pieces[index] for index in indices])
            torch.testing.assert_close(part.logits(), expected, rtol=1e-4, atol=1e-4)
            torch.testing.assert_close(part.first, expected, rtol=1e-4, atol=1e-4)
            assert part.rows == [rows[index] for index in indices]


RECORDED = {
    (Descent.ADAM, 0.1, 100.0): [(5.557166, 1.383998), (5.682773, 1.210536)],
    (Descent.ADAM, 0.5, 0.4): [(5.551405, 1.2), (5.672252, 0.8)],
    (Descent.STEEPEST, 0.1, 100.0): [(5.549597, 1.337980), (5.667690, 0.904253)],
    (Descent.STEEPEST, 0.5, 0.4): [(5.563281, 1.2), (5.691271, 0.8)],
}
"""Loss and ||delta|| of two searches by descent, learning rate and clamp, recorded from an earlier form of the optimisers."""


@pytest.mark.parametrize("engine", Engine)
@pytest.mark.parametrize(("descent", "rate", "clamp"), RECORDED)
def test_optimise_values_gives_the_recorded_losses(descent: Descent, rate: float, clamp: float, engine: Engine) -> None:
    settings = ValueSettings(
        steps=6, learning_rate=rate, clamp=clamp, stop_loss=-1.0, parts=2, descent=descent, engine=engine
    )
    values = solve([problem(FIRST_TOKEN_REQUEST, settings), problem(MID_PROMPT_REQUEST, settings, 2.0)])
    for value, (loss, norm) in zip(values, RECORDED[descent, rate, clamp], strict=True):
        assert value.loss == pytest.approx(loss, rel=1e-5)
        assert float(value.delta.norm()) == pytest.approx(norm, rel=1e-5)


def draw_gradients() -> torch.Tensor:
    return torch.randn(7, 16, generator=torch.Generator().manual_seed(3))


def test_steepest_descent_steps_equal_the_formula_to_the_bit() -> None:
    optimiser, delta = module._SteepestDescent(0.3), torch.zeros(16)
    direction, expected = torch.zeros(16), torch.zeros(16)
    for gradient in draw_gradients():
        optimiser.step(delta, gradient)
        direction = 0.5 * direction + (1 - 0.5) * torch.nn.functional.normalize(gradient, dim=0)
        expected = expected - 0.3 * torch.nn.functional.normalize(direction, dim=0)
        assert torch.equal(delta, expected)


def test_adam_steps_equal_those_of_torch_to_the_bit() -> None:
    delta, expected = torch.zeros(16).requires_grad_(), torch.zeros(16).requires_grad_()
    optimiser, reference = module._Adam(delta, 0.5), torch.optim.Adam([expected], lr=0.5)
    for gradient in draw_gradients():
        optimiser.step(delta, gradient)
        expected.grad = gradient
        reference.step()
        assert torch.equal(delta, expected)


@pytest.mark.parametrize("parts", [1, 2])
def test_optimise_values_ends_when_the_target_leads_by_the_margin(parts: int) -> None:
    settings = ValueSettings(steps=9, stop_loss=-1.0, parts=parts)
    # Any lead is over the first margin, which holds once each part was looked at, and none is over the second.
    below, above = solve([problem(FIRST_TOKEN_REQUEST, replace(settings, margin=lead)) for lead in (-1e9, 1e9)])
    assert (below.steps, above.steps) == (parts, 9)


def test_optimise_values_rows_without_a_share_do_not_change() -> None:
    settings = ValueSettings(steps=4, stop_loss=-1.0, weight_decay=0.0, kl_factor=0.0)
    plain = problem(FIRST_TOKEN_REQUEST, settings)
    none, half, whole = solve([replace(plain, shares=(share,) * len(plain.rows)) for share in (0.0, 0.5, 1.0)])
    (unedited,) = solve([replace(plain, settings=replace(settings, steps=1))])
    assert none.loss == pytest.approx(unedited.loss, rel=1e-4)
    assert is_same(whole, *solve([plain]))
    assert not is_same(half, whole)


def test_optimise_values_tells_every_step_and_ends_at_the_most() -> None:
    told: list[tuple[str, int, int]] = []
    settings = ValueSettings(steps=5, stop_loss=-1.0)
    problems = [problem(FIRST_TOKEN_REQUEST, settings), problem(MID_PROMPT_REQUEST, replace(settings, steps=2))]
    optimise_values(model(), site(), problems, progress=lambda *step: told.append(step))
    assert {(stage, most) for stage, _, most in told} == {("searching values", 7)}
    counts = [done for _, done, _ in told]
    assert counts == sorted(counts)
    assert (counts[0], counts[-1]) == (1, 7)
