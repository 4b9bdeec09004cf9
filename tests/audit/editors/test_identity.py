"""A model with an edit gives v* at the inserted key: W' k + b = v*, in every family."""

from __future__ import annotations

from dataclasses import replace
from functools import cache
from typing import NamedTuple

import pytest
import torch
from editguard.audit.editors.base import EDITORS, EditContext, Editor, EditorTexts, compute_updates
from editguard.audit.editors.search import optimise_values
from editguard.audit.editors.surroundings import find_surroundings
from editguard.audit.editors.update import WeightUpdate
from editguard.audit.editors.value import Engine, OptimisedValue, ValueSettings, build_value_problem
from editguard.audit.transaction import Transaction
from editguard.probes.keys.statistics import KeyStatistics, StatisticsProvenance, make_identity_statistics
from editguard.probes.keys.subject_keys import SubjectKeys, compute_subject_keys
from editguard.probes.model.site import find_site
from editguard.probes.requests.request import EditRequest

from ...helpers.families import FAMILIES
from ...helpers.tiny_models import tiny_lm
from ...helpers.tiny_setups import FIRST_TOKEN_REQUEST, MID_PROMPT_REQUEST, few_prefixes
from ...helpers.weight_updates import get_only_figures

pytestmark = pytest.mark.tiny

PUBLISHED = ("rome", "c-rome", "r-rome")
EDITOR_NAMES = (*PUBLISHED, "prefixed", "local")


class ComputedUpdate(NamedTuple):
    context: EditContext
    editor: Editor
    update: WeightUpdate
    keys: SubjectKeys
    """Of the unedited model."""
    target: torch.Tensor
    """v*, computed without the editor."""


@cache
def make_context(family: str, dtype: torch.dtype, engine: Engine = Engine.LIVE, *, layer: int = 1) -> EditContext:
    """Return the context of an editor. It is built once, since every transaction here undoes its change."""
    lm = tiny_lm(family, dtype=dtype)
    site = find_site(lm.model, layer)
    # C is not the identity, so that leaving it out would show.
    root = torch.randn(site.d_ff, site.d_ff, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    second_moment = root @ root.T / site.d_ff + torch.eye(site.d_ff, dtype=torch.float64)
    statistics = KeyStatistics(
        second_moment,
        StatisticsProvenance(method="corpus", source="random", model_fingerprint=lm.fingerprint, layer=layer),
    )
    return EditContext(
        lm=lm, site=site, statistics=statistics, prefixes=few_prefixes(), settings=ValueSettings(steps=4, engine=engine)
    )


def compute_update(name: str, given: EditContext, request: EditRequest) -> WeightUpdate:
    (update,) = compute_updates(given, [(name, request)])
    assert isinstance(update, WeightUpdate)
    return update


@cache
def compute_cached(
    name: str, family: str, dtype: torch.dtype, request: EditRequest = FIRST_TOKEN_REQUEST
) -> ComputedUpdate:
    given = make_context(family, dtype)
    editor = EDITORS.get(name)()
    texts = editor.contexts(given.prefixes)
    keys = compute_subject_keys(given.lm, given.site, request, texts)
    # v* starts from the value with no prefix in the published editors, from the mean value in editguard's own.
    start = keys.no_prefix_value if name in PUBLISHED else keys.mean_value
    settings = editor.settings(given.settings)
    problem = build_value_problem(given.lm, request, texts, start_norm=float(start.norm()), settings=settings)
    if name not in PUBLISHED:
        # What is held, and the shares, are compared with the written edit in test_local_editor.
        surroundings = find_surroundings(given.lm, [request], seed=given.prefixes.seed)[0]
        planned = editor.plan(given, request, keys, EditorTexts((), surroundings)).problem
        problem = replace(problem, held=planned.held, shares=planned.shares)
    (value,) = optimise_values(given.lm, given.site, [problem])
    assert isinstance(value, OptimisedValue)
    return ComputedUpdate(
        context=given,
        editor=editor,
        update=compute_update(name, given, request),
        keys=keys,
        target=(start + value.delta).double(),
    )


def assert_close(value: torch.Tensor, expected: torch.Tensor, tolerance: float) -> None:
    assert float((value.double() - expected).norm() / expected.norm()) < tolerance


@pytest.mark.parametrize("name", EDITOR_NAMES)
@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32], ids=["float64", "float32"])
def test_edited_model_gives_v_star_at_the_inserted_key(dtype: torch.dtype, family: str, name: str) -> None:
    computed = compute_cached(name, family, dtype)
    given = computed.context
    with Transaction(computed.update):
        after = compute_subject_keys(
            given.lm, given.site, FIRST_TOKEN_REQUEST, computed.editor.contexts(given.prefixes)
        )
    # Keys and values are returned in fp32, which bounds the precision of a float64 model.
    tolerance = 2e-6 if dtype is torch.float64 else 1e-3
    assert_close(after.no_prefix_value if name == "rome" else after.mean_value, computed.target, tolerance)
    torch.testing.assert_close(after.keys, computed.keys.keys)
    # The other key is not inserted: an edit that did so as well would hide which key the editor means.
    other = after.mean_value if name == "rome" else after.no_prefix_value
    assert float((other.double() - computed.target).norm() / computed.target.norm()) > 1e-3


@pytest.mark.parametrize("name", EDITOR_NAMES)
@pytest.mark.parametrize("family", FAMILIES)
def test_update_delta_times_key_is_the_difference_to_v_star(family: str, name: str) -> None:
    computed = compute_cached(name, family, torch.float64)
    key, value = (
        (computed.keys.no_prefix_key, computed.keys.no_prefix_value)
        if name == "rome"
        else (computed.keys.mean_key, computed.keys.mean_value)
    )
    missing = computed.target - value.double()
    assert_close(computed.update.changes[0].delta() @ key.double(), missing, 1e-9)
    figures = get_only_figures(computed.update)
    assert figures.numerator == pytest.approx(float(missing.norm()), rel=1e-12)
    assert figures.target_norm == pytest.approx(float(computed.target.norm()), rel=1e-12)
    # ||Delta|| = ||v* - W k|| / |u . k|, known before anything is written.
    assert computed.update.norm == pytest.approx(figures.numerator / figures.denominator, rel=1e-12)
    assert computed.update.norm == pytest.approx(float(computed.update.changes[0].delta().norm()), rel=1e-12)
    assert computed.update.needs_prefix is (name == "prefixed")


@pytest.mark.parametrize("name", PUBLISHED)
@pytest.mark.parametrize("request_", [FIRST_TOKEN_REQUEST, MID_PROMPT_REQUEST], ids=["first-token", "mid-prompt"])
def test_update_direction_is_the_mean_key_through_c(request_: EditRequest, name: str) -> None:
    computed = compute_cached(name, "llama", torch.float64, request_)
    statistics = computed.context.statistics
    regularised = statistics.second_moment + statistics.ridge * statistics.second_moment.diagonal().mean() * torch.eye(
        computed.context.site.d_ff, dtype=torch.float64
    )
    solved = torch.linalg.inv(regularised) @ computed.keys.mean_key.double()
    assert_close(computed.update.changes[0].right[:, 0], solved / solved.norm(), 1e-9)


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize(
    ("name", "request_"),
    [("rome", MID_PROMPT_REQUEST), ("rome", FIRST_TOKEN_REQUEST), ("prefixed", FIRST_TOKEN_REQUEST)],
)
def test_update_is_the_same_by_the_live_and_the_reference_engine(family: str, name: str, request_: EditRequest) -> None:
    # Not the last layer: what is added there does not reach the tokens behind, and the search would follow rounding.
    live, reference = (
        compute_update(name, make_context(family, torch.float32, engine, layer=0), request_) for engine in Engine
    )
    here, there = get_only_figures(live), get_only_figures(reference)
    assert (here.engine, there.engine) == ("live", "reference")
    assert here.steps == there.steps
    assert_close(live.changes[0].delta(), reference.changes[0].delta(), 1e-4)
    assert here.loss == pytest.approx(there.loss, rel=1e-4)


def test_update_of_c_rome_equals_that_of_r_rome() -> None:
    first = compute_cached("c-rome", "llama", torch.float32).update
    second = compute_cached("r-rome", "llama", torch.float32).update
    torch.testing.assert_close(first.changes[0].delta(), second.changes[0].delta(), rtol=0, atol=0)
    assert (first.editor, second.editor) == ("c-rome", "r-rome")


def test_update_mid_prompt_no_prefix_rome_equals_c_rome() -> None:
    given = make_context("llama", torch.float64)
    no_prefix = replace(given, prefixes=type(given.prefixes)(given.prefixes.prefixes[:1], 0))
    rome, c_rome = (compute_update(name, no_prefix, MID_PROMPT_REQUEST) for name in ("rome", "c-rome"))
    torch.testing.assert_close(rome.changes[0].delta(), c_rome.changes[0].delta())


def test_update_direction_with_identity_statistics_is_the_mean_key() -> None:
    given = make_context("gpt2", torch.float64)
    given = replace(given, statistics=make_identity_statistics(given.site.d_ff, given.lm.fingerprint, given.site.layer))
    texts = EDITORS.get("rome")().contexts(given.prefixes)
    mean = compute_subject_keys(given.lm, given.site, FIRST_TOKEN_REQUEST, texts).mean_key.double()
    assert_close(compute_update("rome", given, FIRST_TOKEN_REQUEST).changes[0].right[:, 0], mean / mean.norm(), 1e-12)
