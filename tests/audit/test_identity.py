"""After an edit is written, the model itself puts out v* at the inserted key: W' k + b = v*, in every family."""

from __future__ import annotations

from dataclasses import replace
from functools import cache
from typing import NamedTuple

import pytest
import torch
from editguard.audit.editors.base import EDITORS, EditContext, Editor, RankOneUpdate, compute_updates
from editguard.audit.editors.search import optimise_values
from editguard.audit.editors.value import Engine, OptimisedValue, ValueSettings, build_value_problem
from editguard.audit.transaction import Transaction
from editguard.probes.keys.statistics import KeyStatistics, StatisticsProvenance, make_identity_statistics
from editguard.probes.keys.subject_keys import SubjectKeys, compute_subject_keys
from editguard.probes.model.site import find_site
from editguard.probes.requests.request import EditRequest

from ..helpers.families import FAMILIES
from ..helpers.tiny_models import tiny_lm
from ..helpers.tiny_setups import FIRST_TOKEN_REQUEST, MID_PROMPT_REQUEST, few_prefixes

pytestmark = pytest.mark.tiny

EDITOR_NAMES = ("rome", "c-rome", "r-rome", "prefixed")


class Made(NamedTuple):
    context: EditContext
    editor: Editor
    update: RankOneUpdate
    keys: SubjectKeys
    """Of the unedited model."""
    target: torch.Tensor
    """v*, found apart from the editor."""


@cache
def context(family: str, dtype: torch.dtype, engine: Engine = Engine.LIVE, *, layer: int = 1) -> EditContext:
    """What editors work with; made once, since every transaction here undoes what it did."""
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


def update_of(name: str, given: EditContext, request: EditRequest) -> RankOneUpdate:
    (found,) = compute_updates(given, [(name, request)])
    assert isinstance(found, RankOneUpdate)
    return found


@cache
def make(name: str, family: str, dtype: torch.dtype, request: EditRequest = FIRST_TOKEN_REQUEST) -> Made:
    given = context(family, dtype)
    editor = EDITORS.get(name)()
    texts = editor.contexts(given.prefixes)
    keys = compute_subject_keys(given.lm, given.site, request, texts)
    # v* starts from the bare value in the published editors, from the mean one in ours.
    start = keys.mean_value if name == "prefixed" else keys.no_prefix_value
    settings = editor.settings(given.settings)
    problem = build_value_problem(given.lm, request, texts, float(start.norm()), settings)
    (found,) = optimise_values(given.lm, given.site, [problem])
    assert isinstance(found, OptimisedValue)
    return Made(given, editor, update_of(name, given, request), keys, (start + found.delta).double())


def close(found: torch.Tensor, wanted: torch.Tensor, tolerance: float) -> None:
    assert float((found.double() - wanted).norm() / wanted.norm()) < tolerance


@pytest.mark.parametrize("name", EDITOR_NAMES)
@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32], ids=["float64", "float32"])
def test_the_edited_model_puts_out_v_star_at_the_inserted_key(dtype: torch.dtype, family: str, name: str) -> None:
    made = make(name, family, dtype)
    given = made.context
    with Transaction(given.site, made.update):
        after = compute_subject_keys(given.lm, given.site, FIRST_TOKEN_REQUEST, made.editor.contexts(given.prefixes))
    # Keys and values are handed out in fp32, which bounds what can be seen of a float64 model.
    tolerance = 2e-6 if dtype is torch.float64 else 1e-3
    close(after.no_prefix_value if name == "rome" else after.mean_value, made.target, tolerance)
    torch.testing.assert_close(after.keys, made.keys.keys)
    # The other key is not inserted: an edit that did so too would hide which one the editor means.
    other = after.mean_value if name == "rome" else after.no_prefix_value
    assert float((other.double() - made.target).norm() / made.target.norm()) > 1e-3


@pytest.mark.parametrize("name", EDITOR_NAMES)
@pytest.mark.parametrize("family", FAMILIES)
def test_delta_times_the_key_is_exactly_what_is_missing_from_v_star(family: str, name: str) -> None:
    made = make(name, family, torch.float64)
    key, value = (
        (made.keys.no_prefix_key, made.keys.no_prefix_value)
        if name == "rome"
        else (made.keys.mean_key, made.keys.mean_value)
    )
    missing = made.target - value.double()
    close(made.update.delta() @ key.double(), missing, 1e-9)
    assert made.update.numerator == pytest.approx(float(missing.norm()), rel=1e-12)
    assert made.update.target_norm == pytest.approx(float(made.target.norm()), rel=1e-12)
    # ||Delta|| = ||v* - W k|| / |u . k|, known before anything is written.
    assert made.update.norm == pytest.approx(made.update.numerator / made.update.denominator, rel=1e-12)
    assert made.update.norm == pytest.approx(float(made.update.delta().norm()), rel=1e-12)
    assert made.update.needs_prefix is (name == "prefixed")


@pytest.mark.parametrize("name", EDITOR_NAMES)
@pytest.mark.parametrize("request_", [FIRST_TOKEN_REQUEST, MID_PROMPT_REQUEST], ids=["first-token", "mid-prompt"])
def test_the_direction_is_the_mean_key_through_c(request_: EditRequest, name: str) -> None:
    made = make(name, "llama", torch.float64, request_)
    statistics = made.context.statistics
    regularised = statistics.second_moment + statistics.ridge * statistics.second_moment.diagonal().mean() * torch.eye(
        made.context.site.d_ff, dtype=torch.float64
    )
    solved = torch.linalg.inv(regularised) @ made.keys.mean_key.double()
    close(made.update.right, solved / solved.norm(), 1e-9)


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize(
    ("name", "request_"),
    [("rome", MID_PROMPT_REQUEST), ("rome", FIRST_TOKEN_REQUEST), ("prefixed", FIRST_TOKEN_REQUEST)],
)
def test_live_and_reference_engines_give_the_same_update(family: str, name: str, request_: EditRequest) -> None:
    # Not the last layer: what is added there does not reach the tokens behind, and the search would follow rounding.
    live, reference = (update_of(name, context(family, torch.float32, engine, layer=0), request_) for engine in Engine)
    assert (live.engine, reference.engine) == ("live", "reference")
    assert live.steps == reference.steps
    close(live.delta(), reference.delta(), 1e-4)
    assert live.loss == pytest.approx(reference.loss, rel=1e-4)


def test_c_rome_and_r_rome_are_one_update() -> None:
    first, second = make("c-rome", "llama", torch.float32).update, make("r-rome", "llama", torch.float32).update
    torch.testing.assert_close(first.delta(), second.delta(), rtol=0, atol=0)
    assert (first.editor, second.editor) == ("c-rome", "r-rome")


def test_for_a_subject_in_mid_prompt_under_no_prefix_rome_and_c_rome_are_one() -> None:
    given = context("llama", torch.float64)
    alone = replace(given, prefixes=type(given.prefixes)(given.prefixes.prefixes[:1], 0))
    rome, c_rome = (update_of(name, alone, MID_PROMPT_REQUEST) for name in ("rome", "c-rome"))
    torch.testing.assert_close(rome.delta(), c_rome.delta())


def test_with_c_the_identity_the_direction_is_the_mean_key_itself() -> None:
    given = context("gpt2", torch.float64)
    given = replace(given, statistics=make_identity_statistics(given.site.d_ff, given.lm.fingerprint, given.site.layer))
    texts = EDITORS.get("prefixed")().contexts(given.prefixes)
    mean = compute_subject_keys(given.lm, given.site, FIRST_TOKEN_REQUEST, texts).mean_key.double()
    close(update_of("prefixed", given, FIRST_TOKEN_REQUEST).right, mean / mean.norm(), 1e-12)
