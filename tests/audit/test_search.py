"""Searches for v* in one batch: each ends as it would alone, whatever happens to the others."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import cache

import pytest
import torch
from editguard.audit.editors import base
from editguard.audit.editors import search as module
from editguard.audit.editors.base import EditContext, RankOneUpdate, compute_updates
from editguard.audit.editors.search import optimise_values
from editguard.audit.editors.value import (
    Descent,
    Engine,
    OptimisedValue,
    ValueProblem,
    ValueSettings,
    build_value_problem,
)
from editguard.probes.errors import NotFinite, RequestError
from editguard.probes.forward.partial import LiveRows, Row
from editguard.probes.forward.prefix_cache import build_prefix_cache
from editguard.probes.keys.prefixes import Role
from editguard.probes.keys.statistics import make_identity_statistics
from editguard.probes.model.language_model import LanguageModel
from editguard.probes.model.site import EditSite, find_site
from editguard.probes.requests.request import EditRequest

from ..helpers.tiny_models import tiny_lm
from ..helpers.tiny_setups import FIRST_TOKEN_REQUEST, MID_PROMPT_REQUEST, MISSING_SUBJECT_REQUEST, few_prefixes

pytestmark = pytest.mark.tiny

LONG = EditRequest("twin", "Chicago", "Chicago is a twin city of", "the city of Istanbul", target_true="Paris")
TEXTS = ("", "It is 2024. ", "\n", "Paris is not Lyon. ", '"')


@cache
def model() -> LanguageModel:
    return tiny_lm()


def problem(request: EditRequest, settings: ValueSettings, start_norm: float = 3.0) -> ValueProblem:
    return build_value_problem(model(), request, TEXTS, start_norm, settings)


def site() -> EditSite:
    return find_site(model().model, 0)


def solved(problems: list[ValueProblem]) -> list[OptimisedValue]:
    found = optimise_values(model(), site(), problems)
    assert all(isinstance(one, OptimisedValue) for one in found)
    return [one for one in found if isinstance(one, OptimisedValue)]


def same(found: OptimisedValue, expected: OptimisedValue) -> bool:
    near = float((found.delta - expected.delta).norm()) < 1e-3 * float(expected.delta.norm())
    return near and found.steps == expected.steps and found.loss == pytest.approx(expected.loss, rel=1e-4)


@pytest.mark.parametrize("engine", Engine)
@pytest.mark.parametrize("descent", Descent)
@pytest.mark.parametrize("parts", [1, 2, 3])
def test_problems_in_one_batch_end_as_each_does_alone(engine: Engine, descent: Descent, parts: int) -> None:
    settings = ValueSettings(steps=6, engine=engine, descent=descent, parts=parts)
    problems = [
        problem(FIRST_TOKEN_REQUEST, settings),
        problem(MID_PROMPT_REQUEST, settings, 1.0),
        problem(LONG, settings, 5.0),
    ]
    for found, one in zip(solved(problems), problems, strict=True):
        assert same(found, *solved([one]))
        assert found.engine is engine


@pytest.mark.parametrize("share", [0.1, 0.3])
def test_steepest_descent_takes_steps_of_one_length_down_the_gradient(share: float) -> None:
    settings = ValueSettings(steps=2, descent=Descent.STEEPEST, learning_rate=share, stop_loss=-1.0, clamp=100.0)
    (once,) = solved([problem(FIRST_TOKEN_REQUEST, settings, start_norm=2.0)])
    # The last evaluation is never followed by a step, so that two evaluations make one.
    assert float(once.delta.norm()) == pytest.approx(2.0 * share, rel=1e-5)
    (adam,) = solved(
        [problem(FIRST_TOKEN_REQUEST, replace(settings, descent=Descent.ADAM, learning_rate=1e-3), start_norm=2.0)]
    )
    # Adam's first step is the gradient's sign alone.
    assert float(torch.dot(once.delta.sign(), adam.delta.sign())) > 0.99 * len(adam.delta)


def test_one_that_ends_early_leaves_and_the_others_go_on() -> None:
    patient = ValueSettings(steps=9, stop_loss=-1.0)
    problems = [
        problem(FIRST_TOKEN_REQUEST, patient),
        problem(MID_PROMPT_REQUEST, replace(patient, steps=2)),
        problem(LONG, patient),
    ]
    found = solved(problems)
    assert [one.steps for one in found] == [9, 2, 9]
    for one, alone in zip(found, problems, strict=True):
        assert same(one, *solved([alone]))


def test_a_problem_that_breaks_says_nothing_about_the_others() -> None:
    settings = ValueSettings(steps=4)
    broken = problem(MID_PROMPT_REQUEST, replace(settings, kl_factor=float("nan")))
    first, bad, last = optimise_values(
        model(), site(), [problem(FIRST_TOKEN_REQUEST, settings), broken, problem(LONG, settings)]
    )
    assert isinstance(bad, NotFinite)
    assert "at step 1" in str(bad)
    for found, request in ((first, FIRST_TOKEN_REQUEST), (last, LONG)):
        assert isinstance(found, OptimisedValue)
        assert same(found, *solved([problem(request, settings)]))


def test_batches_are_bounded_and_hold_every_problem_once(monkeypatch: pytest.MonkeyPatch) -> None:
    settings = ValueSettings(steps=3)
    problems = [problem(one, settings) for one in (FIRST_TOKEN_REQUEST, MID_PROMPT_REQUEST, LONG) * 2]
    expected = solved(problems)
    for name, most in (("_LIVE_TOKENS", 1), ("_KEPT_TOKENS", 1), ("_LIVE_TOKENS", 80)):
        with monkeypatch.context() as patch:
            patch.setattr(module, name, most)
            together = list(module._iter_batches(problems))
            assert sorted(index for part in together for index in part) == list(range(6))
            assert len(together) > 1
            for found, wanted in zip(solved(problems), expected, strict=True):
                assert same(found, wanted)


def test_where_the_live_pass_does_not_agree_the_reference_takes_over(monkeypatch: pytest.MonkeyPatch) -> None:
    settings = ValueSettings(steps=3)
    expected = solved([problem(FIRST_TOKEN_REQUEST, settings), problem(MID_PROMPT_REQUEST, settings)])
    real = LiveRows.logits
    monkeypatch.setattr(LiveRows, "logits", lambda self: real(self) * 1.5)
    found = solved([problem(FIRST_TOKEN_REQUEST, settings), problem(MID_PROMPT_REQUEST, settings)])
    assert {one.engine for one in found} == {Engine.REFERENCE}
    for one, wanted in zip(found, expected, strict=True):
        assert one.loss == pytest.approx(wanted.loss, rel=1e-4)


def test_without_problems_nothing_is_run() -> None:
    assert optimise_values(model(), site(), []) == []


@pytest.mark.parametrize("parts", [1, 2, 3, 5, 9])
def test_the_parts_hold_every_context_once_and_the_last_row_always(parts: int) -> None:
    one = problem(FIRST_TOKEN_REQUEST, ValueSettings(parts=parts))
    last = len(one.rows) - 1
    assert one.parts == min(parts, last)
    seen = [one.rows_at(step) for step in range(one.parts)]
    assert all(rows[-1] == last and len(rows) > 1 for rows in seen)
    assert sorted(row for rows in seen for row in rows[:-1]) == list(range(last))
    assert one.rows_at(one.parts) == seen[0]


REWORDED = ("A twin of Chicago is", "Chicago has a twin city called", "Nothing about it")


def test_rewordings_are_sought_under_two_prefixes_and_the_subject_is_held_under_some() -> None:
    lm = model()
    settings = ValueSettings(parts=2, essences=2)
    one = build_value_problem(lm, FIRST_TOKEN_REQUEST, TEXTS, 3.0, settings, REWORDED)
    # The third names no subject, so that it cannot be one.
    assert len(one.rewordings) == 4
    assert all(lm.tokenizer.decode(row.ids[: row.at + 1]).endswith("Chicago") for row in one.rewordings)
    assert [lm.tokenizer.decode(row.ids) for row in one.essences] == [
        "Chicago is a", *(f"{text}Chicago is a" for text in TEXTS[:: len(TEXTS) // 2][:2])
    ]  # fmt: skip
    seen = sorted(row for step in range(2) for row in one.rows_at(step))
    assert sorted(set(seen)) == list(range(len(one.rows)))


def test_the_loss_is_the_sum_over_kinds_of_what_each_row_alone_gives() -> None:
    lm = model()
    one = build_value_problem(lm, FIRST_TOKEN_REQUEST, TEXTS, 3.0, ValueSettings(parts=1, essences=2), REWORDED)
    draw = torch.Generator().manual_seed(0)
    places = (len(one.contexts) + len(one.rewordings)) * len(one.target) + len(one.essences)
    found = torch.randn(places, len(lm.tokenizer), generator=draw, dtype=torch.float64)
    before = torch.randn(len(one.essences), found.shape[1], generator=draw, dtype=torch.float64).log_softmax(-1)
    now, delta = found.log_softmax(-1), torch.ones(4, dtype=torch.float64)
    said = torch.stack([now[place, one.target[place % len(one.target)]] for place in range(places - len(one.essences))])
    contexts, rewordings = said.split([len(one.contexts) * len(one.target), len(one.rewordings) * len(one.target)])
    held = torch.zeros((), dtype=torch.float64)
    for old, new in zip(before, now[-len(one.essences) :], strict=True):
        held = held + (new.exp() * (new - old)).sum() / len(one.essences)
    expected = -contexts.mean() - rewordings.mean() + 0.0625 * held + 1e-3 * 2 / 9
    assert float(one.loss(0, now, before, delta)) == pytest.approx(float(expected))


def test_some_rows_alone_give_what_they_give_among_the_others() -> None:
    lm = model()
    rows = [Row((11, 42, 7, 99, 23), 3, (3, 4)), Row((5, 6, 7), 0, (0, 2)), Row((8, 9, 10, 60, 61, 62), 4, (5,))]
    live = LiveRows(lm, site(), rows)
    with torch.no_grad():
        for kept in ([0], [2, 0], [1, 2]):
            part = live.part(kept)
            pieces = live.logits().split([len(row.predict) for row in rows])
            expected = torch.cat([pieces[index] for index in kept])
            torch.testing.assert_close(part.logits(), expected, rtol=1e-4, atol=1e-4)
            torch.testing.assert_close(part.first, expected, rtol=1e-4, atol=1e-4)
            assert part.rows == [rows[index] for index in kept]


def test_reworded_is_sought_under_other_words_and_holds_the_subject_under_prefixes(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    lm, place = model(), site()
    context = EditContext(
        lm=lm,
        site=place,
        statistics=make_identity_statistics(place.d_ff, lm.fingerprint, place.layer),
        prefixes=few_prefixes(),
        settings=ValueSettings(steps=4),
    )
    asked: list[tuple[int, int]] = []

    def one(_: object, requests: Sequence[EditRequest], most: int, seed: int) -> list[tuple[str, ...]]:
        asked.append((len(requests), most))
        return [REWORDED[:1]] * len(requests)

    problems: list[ValueProblem] = []
    sought = base.optimise_values

    def seen(lm: LanguageModel, site: EditSite, some: Sequence[ValueProblem], known: object) -> object:
        problems.extend(some)
        return sought(lm, site, some, known)  # type: ignore[arg-type]

    monkeypatch.setattr(base, "write_rewordings", one)
    monkeypatch.setattr(base, "optimise_values", seen)
    found = compute_updates(context, [("prefixed", FIRST_TOKEN_REQUEST), ("reworded", FIRST_TOKEN_REQUEST)])
    usual, other = problems
    assert asked == [(1, 8)], "one request asks for rewordings, eight at most"
    assert (len(usual.rewordings), len(usual.essences)) == (0, 1)
    # One rewording, under two prefixes.
    assert (len(other.rewordings), len(other.essences)) == (2, 1 + min(6, len(few_prefixes().texts(Role.EDIT))))
    assert len(other.contexts) == len(usual.contexts)
    first, second = found
    assert isinstance(first, RankOneUpdate)
    assert isinstance(second, RankOneUpdate)
    assert float((second.delta() - first.delta()).norm() / first.delta().norm()) > 1e-2


@pytest.mark.parametrize("cached", [False, True], ids=["whole", "on from the prefixes"])
def test_updates_of_many_edits_are_those_of_each_and_a_bad_one_is_returned(cached: bool) -> None:
    lm, place = model(), site()
    statistics = make_identity_statistics(place.d_ff, lm.fingerprint, place.layer)
    texts = [prefix.text for prefix in few_prefixes().prefixes]
    prefix_cache = build_prefix_cache(lm, place, texts) if cached else None
    assert (prefix_cache is not None) is cached
    context = EditContext(
        lm=lm,
        site=place,
        statistics=statistics,
        prefixes=few_prefixes(),
        settings=ValueSettings(steps=4),
        prefix_cache=prefix_cache,
    )
    jobs = [
        ("rome", FIRST_TOKEN_REQUEST),
        ("prefixed", MID_PROMPT_REQUEST),
        ("rome", MISSING_SUBJECT_REQUEST),
        ("prefixed", FIRST_TOKEN_REQUEST),
        ("c-rome", LONG),
        ("reworded", MID_PROMPT_REQUEST),
    ]
    together = compute_updates(context, jobs)
    assert isinstance(together[2], RequestError)
    for job, found in zip(jobs, together, strict=True):
        if job[1] is not MISSING_SUBJECT_REQUEST:
            (alone,) = compute_updates(replace(context, prefix_cache=None), [job])
            assert isinstance(found, RankOneUpdate)
            assert isinstance(alone, RankOneUpdate)
            assert float((found.delta() - alone.delta()).norm() / alone.delta().norm()) < 1e-3
            assert (found.editor, found.steps) == (job[0], alone.steps)
