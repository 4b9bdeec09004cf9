"""The screen: its margins are what the null sample shows, its ends enclose the exact figures, and doubt is never clear."""

from __future__ import annotations

import math
import operator

import pytest
import torch
from editguard.probes.errors import InputError
from editguard.probes.evidence import Evidence
from editguard.probes.keys.prefixes import ContextPrefixes, Family, Prefix, Role
from editguard.probes.keys.subject_keys import SubjectKeys
from editguard.probes.probe import PROBES, Probe
from editguard.probes.requests.request import EditRequest
from editguard.probes.screen import (
    SCREENED_FIGURES,
    Margins,
    bracket_evidence,
    measure_margins,
    require_screened_figures,
)
from hypothesis import given
from hypothesis import strategies as st

from ..helpers.foreign_probes import KeyNorm, NormRatio, Undeclared
from ..helpers.tiny_models import PROMPT_START_REQUEST, TWIN_REQUEST, tiny_language_model, tiny_meter

positive = st.floats(1e-6, 1e6)
pytestmark = pytest.mark.tiny


def evidence(ratio: float = 1.0, size: float = 1.0, cosine: float = 1.0) -> Evidence:
    return Evidence(
        keys=None,  # type: ignore[arg-type]  # no keys are read here
        denominator=ratio,
        denominator_prefixed=1.0,
        cosine=cosine,
        norm_ratio=1.0,
        distance_ratio=1.0,
        sink_similarity=0.0,
        predicted_relative_norm=size,
    )


def test_few_contexts_are_the_empty_one_and_every_seventh() -> None:
    key = [Prefix(Family.SENTENCE, str(n), Role.KEY) for n in range(20)]
    prefixes = ContextPrefixes((Prefix(Family.NONE, "", Role.KEY), *key), 0)
    assert list(prefixes.screen_weights()) == [0, 1, 8, 15]
    assert prefixes.screen_weights()[0] == 1 / 21
    assert sum(prefixes.screen_weights().values()) == pytest.approx(1.0)


def test_few_contexts_of_the_empty_one_are_that_one() -> None:
    assert ContextPrefixes((Prefix(Family.NONE, "", Role.KEY),), 0).screen_weights() == {0: 1.0}


def test_mean_under_few_contexts_has_their_weights() -> None:
    keys = torch.arange(12.0).view(4, 3)
    every_context = SubjectKeys(
        position=None,  # type: ignore[arg-type]  # no position is read here
        no_prefix_key=keys[0],
        no_prefix_value=keys[0],
        keys=keys,
        values=keys,
    )
    part = every_context.select_prefixes({0: 0.1, 2: 0.9})
    torch.testing.assert_close(part.mean_key, 0.1 * keys[0] + 0.9 * keys[2])
    torch.testing.assert_close(part.mean_value, part.mean_key)
    torch.testing.assert_close(every_context.with_weights([0.25] * 4).mean_key, every_context.mean_key)


def test_margins_are_twice_the_largest_difference_or_a_factor_of_four() -> None:
    few, full = [evidence(1.0, 9.0, 0.5), evidence(0.5, 1.0, 0.9)], [evidence(2.0, 1.0, 0.4), evidence(0.5, 1.0, 0.7)]
    assert measure_margins(few, full) == Margins(
        pytest.approx(math.log(4)), pytest.approx(2 * math.log(9)), pytest.approx(0.4)
    )


@pytest.mark.parametrize("bad", [evidence(math.nan), evidence(-1.0), evidence(0.0), evidence(1.0, math.inf)])
def test_margins_of_a_sample_that_cannot_be_compared_are_infinite(bad: Evidence) -> None:
    margins = measure_margins([bad], [evidence()])
    assert math.inf in (margins.ratio, margins.size)
    assert not margins.settle


@given(positive, positive, st.floats(-1, 1), positive, positive, st.floats(-1, 1))
def test_bracket_encloses_the_evidence_that_gave_the_margins(
    ratio: float, size: float, cosine: float, other: float, larger: float, turned: float
) -> None:
    few, full = evidence(ratio, size, cosine), evidence(other, larger, turned)
    worst, best = bracket_evidence(few, measure_margins([few], [full]))
    slack = 1 + 1e-9
    assert worst.ratio <= full.ratio * slack
    assert full.ratio <= best.ratio * slack
    assert best.predicted_relative_norm <= full.predicted_relative_norm * slack
    assert full.predicted_relative_norm <= worst.predicted_relative_norm * slack
    assert worst.cosine - 1e-9 <= full.cosine <= best.cosine + 1e-9


def test_bracket_of_crowding_that_the_screen_does_not_ask_is_anything() -> None:
    worst, best = bracket_evidence(evidence(), Margins(ratio=1.0, size=1.0, cosine=0.1))
    assert best.crowding == 0.0
    assert worst.crowding is not None
    # A quantile of shares is far below, and the probe calls what is infinite an error.
    assert 1e9 < worst.crowding < math.inf


@pytest.mark.parametrize("request_", [TWIN_REQUEST, PROMPT_START_REQUEST])
def test_screen_measures_what_few_of_all_contexts_give(request_: EditRequest) -> None:
    meter = tiny_meter(tiny_language_model("llama"))
    (few,) = meter.measure_all([request_], screen=True)
    (full,) = meter.measure_all([request_])
    assert isinstance(few, Evidence)
    assert isinstance(full, Evidence)
    assert len(few.keys.keys) < len(full.keys.keys)
    assert few.says_target is None
    assert few.crowding is None
    for figure in SCREENED_FIGURES - {"crowding"}:
        assert operator.attrgetter(figure)(few) is not None
    (again,) = meter.screened([full])
    assert isinstance(again, Evidence)
    torch.testing.assert_close(few.keys.keys, again.keys.keys, rtol=1e-4, atol=1e-5)
    for name in ("denominator", "denominator_prefixed", "cosine", "sink_similarity", "predicted_relative_norm"):
        assert getattr(few, name) == pytest.approx(getattr(again, name), rel=1e-3, abs=1e-6)


def test_screen_accepts_builtin_probes_and_one_that_declares_figures() -> None:
    require_screened_figures([*PROBES, (KeyNorm.name, KeyNorm)])


@pytest.mark.parametrize(
    ("probe", "reason"),
    [
        (Undeclared, "does not declare the figures that it decides by"),
        (NormRatio, "decides by distance_ratio, norm_ratio, which few contexts do not bound"),
    ],
)
def test_screen_refuses_a_probe_whose_figures_it_does_not_bound(probe: type[Probe], reason: str) -> None:
    with pytest.raises(InputError, match=f"The probe 'key-norm' {reason}.* leave --screen out"):
        require_screened_figures([*PROBES, (probe.name, probe)])
