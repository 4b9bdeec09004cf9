from __future__ import annotations

import random
from dataclasses import replace

import pytest
from editguard.reports import render_html
from editguard.reports.html.scales import Scale, build_scales
from editguard.reports.log.file import Log
from editguard.reports.log.header import ThresholdRecord
from editguard.reports.log.schema import EditRecord, Keys
from hypothesis import given
from hypothesis import strategies as st

from ...helpers.html_pages import Page
from ...helpers.synthetic_logs import make_edit

RULES = [
    ThresholdRecord(
        probe="denominator", metric="ratio", value=0.02, how="", sample_size=64, quantiles={"0.01": 0.09, "0.99": 1.1}
    ),
    ThresholdRecord(
        probe="denominator",
        metric="predicted_relative_norm",
        value=3.0,
        how="",
        sample_size=64,
        quantiles={"0.01": 0.15, "0.99": 1.6},
    ),
    ThresholdRecord(
        probe="key-shift", metric="cosine", value=-0.1, how="", sample_size=64, quantiles={"0.01": 0.2, "0.99": 0.98}
    ),
]


def edit_with_keys(**changes: object) -> EditRecord:
    """Return a first-token edit with given keys."""
    fields = {
        "first_token": True,
        "denominator": -0.04,
        "denominator_prefixed": 4.0,
        "denominator_ratio": 0.01,
        "cosine": 0.6,
        "norm_ratio": 13.0,
        "predicted_relative_norm": 90.0,
    }
    return make_edit(0, random.Random(1)).model_copy(update={"keys": Keys.model_validate(fields | changes)})


def test_build_scales_first_token_edit_is_beyond_thresholds() -> None:
    size, denominators, cosine = build_scales(edit_with_keys(), RULES)
    assert (size.beyond, denominators.beyond, cosine.beyond) == (True, True, False)
    assert size.text.startswith("as published, at most 90, the update itself ")
    assert "as asked too large, threshold at most 3; ordinary subjects 0.15 to 1.6" in size.text
    # The ratio's rule and its quantiles, in the denominators' own terms: times the denominator after prefixes.
    assert denominators.text == (
        "no prefix 0.04, after prefixes 4; as asked too small, threshold at least 0.08; ordinary subjects 0.36 to 4.4"
    )
    assert cosine.text == "no prefix 0.6; as asked within, threshold at least -0.1; ordinary subjects 0.2 to 0.98"


def test_build_scales_places_keep_order_of_values() -> None:
    size, denominators, cosine = build_scales(edit_with_keys(), RULES)
    assert size.bound is not None
    assert size.band is not None
    assert size.band[0] < sum(size.band) < size.bound < size.spots[0].place
    assert denominators.bound is not None
    assert denominators.spots[0].place < denominators.bound < denominators.spots[1].place
    assert cosine.spots[0].place == pytest.approx(80)


def test_build_scales_unmeasured_or_no_threshold_judges_nothing() -> None:
    assert build_scales(make_edit(0, random.Random(1), keys=None), RULES) == []
    bare = edit_with_keys(denominator=None, predicted_relative_norm=None, cosine=None)
    assert build_scales(bare, RULES) == []
    unjudged = build_scales(edit_with_keys(denominator_prefixed=None), [])
    assert [(scale.beyond, scale.bound, scale.band) for scale in unjudged] == [(None, None, None)] * 3


numbers = st.one_of(st.none(), st.floats(allow_nan=False, allow_infinity=False))


@given(numbers, numbers, numbers, numbers, st.lists(numbers, min_size=3, max_size=3))
def test_build_scales_places_are_within_0_and_100(
    denominator: float | None, under: float | None, cosine: float | None, size: float | None, rules: list[float | None]
) -> None:
    thresholds = [rule.model_copy(update={"value": value}) for rule, value in zip(RULES, rules, strict=True)]
    record = edit_with_keys(
        denominator=denominator, denominator_prefixed=under, cosine=cosine, predicted_relative_norm=size
    )
    for scale in build_scales(record, thresholds):
        assert all(-0.001 <= place <= 100.001 for place in list_places(scale))


def list_places(scale: Scale) -> list[float]:
    band = [scale.band[0], sum(scale.band)] if scale.band else []
    return [*(spot.place for spot in scale.spots), *band, *([] if scale.bound is None else [scale.bound])]


def test_story_shows_scales_in_words(log: Log) -> None:
    header = log.header.model_copy(update={"thresholds": RULES})
    source = render_html(replace(log, header=header, edits=(edit_with_keys(),), controls=()))
    assert "as asked too large, threshold at most 3" in Page(source).text
    assert source.count('<div class="gauge beyond">') == 2
