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
from ...helpers.synthetic_logs import edit

RULES = [
    ThresholdRecord(probe="denominator", metric="ratio", value=0.02, how="", sample_size=64, quantiles={"0.01": 0.09, "0.99": 1.1}),
    ThresholdRecord(
        probe="denominator", metric="predicted_relative_norm", value=3.0, how="", sample_size=64,
        quantiles={"0.01": 0.15, "0.99": 1.6},
    ),
    ThresholdRecord(probe="key-shift", metric="cosine", value=-0.1, how="", sample_size=64, quantiles={"0.01": 0.2, "0.99": 0.98}),
]  # fmt: skip


def keyed(**changes: object) -> EditRecord:
    """Return a first-token edit with given keys."""
    known = {
        "first_token": True, "denominator": -0.04, "denominator_prefixed": 4.0, "denominator_ratio": 0.01, "cosine": 0.6,
        "norm_ratio": 13.0, "predicted_relative_norm": 90.0,
    }  # fmt: skip
    return edit(0, random.Random(1)).model_copy(update={"keys": Keys.model_validate(known | changes)})


def test_an_edit_that_must_not_be_made_as_asked_is_beyond_its_thresholds() -> None:
    size, denominators, cosine = build_scales(keyed(), RULES)
    assert (size.beyond, denominators.beyond, cosine.beyond) == (True, True, False)
    assert size.said.startswith("as published, at most 90, the update itself ")
    assert "as asked too large, threshold at most 3; ordinary subjects 0.15 to 1.6" in size.said
    # The ratio's rule and its quantiles, in the denominators' own terms: times the denominator after prefixes.
    assert denominators.said == (
        "bare prompt 0.04, after prefixes 4; as asked too small, threshold at least 0.08; ordinary subjects 0.36 to 4.4"
    )
    assert cosine.said == "bare prompt 0.6; as asked within, threshold at least -0.1; ordinary subjects 0.2 to 0.98"


def test_places_keep_the_order_of_the_values() -> None:
    size, denominators, cosine = build_scales(keyed(), RULES)
    assert size.bound is not None
    assert size.band is not None
    assert size.band[0] < sum(size.band) < size.bound < size.spots[0].place
    assert denominators.bound is not None
    assert denominators.spots[0].place < denominators.bound < denominators.spots[1].place
    assert cosine.spots[0].place == pytest.approx(80)


def test_what_was_not_measured_has_no_scale_and_without_thresholds_nothing_is_judged() -> None:
    assert build_scales(edit(0, random.Random(1), keys=None), RULES) == []
    bare = keyed(denominator=None, predicted_relative_norm=None, cosine=None)
    assert build_scales(bare, RULES) == []
    alone = build_scales(keyed(denominator_prefixed=None), [])
    assert [(one.beyond, one.bound, one.band) for one in alone] == [(None, None, None)] * 3


numbers = st.one_of(st.none(), st.floats(allow_nan=False, allow_infinity=False))


@given(numbers, numbers, numbers, numbers, st.lists(numbers, min_size=3, max_size=3))
def test_every_place_is_on_the_scale(
    denominator: float | None, under: float | None, cosine: float | None, size: float | None, rules: list[float | None]
) -> None:
    known = [rule.model_copy(update={"value": value}) for rule, value in zip(RULES, rules, strict=True)]
    record = keyed(
        denominator=denominator, denominator_prefixed=under, cosine=cosine, predicted_relative_norm=size
    )  # fmt: skip
    for one in build_scales(record, known):
        assert all(-0.001 <= place <= 100.001 for place in places(one))


def places(one: Scale) -> list[float]:
    band = [one.band[0], sum(one.band)] if one.band else []
    return [*(spot.place for spot in one.spots), *band, *([] if one.bound is None else [one.bound])]


def test_a_story_shows_its_scales_with_the_same_in_words(log: Log) -> None:
    header = log.header.model_copy(update={"thresholds": RULES})
    source = render_html(replace(log, header=header, edits=(keyed(),), controls=()))
    assert "as asked too large, threshold at most 3" in Page(source).text
    assert source.count('<div class="gauge beyond">') == 2
