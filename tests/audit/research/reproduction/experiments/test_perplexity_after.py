"""Perplexity after an edit: a broken measurement is never evidence that the model was kept."""

from __future__ import annotations

import pytest
from editguard.audit.research.reproduction.cases import Cases
from editguard.audit.research.reproduction.edits import Edits
from editguard.audit.research.reproduction.experiments.edit_success import (
    measure_own_editor,
)
from editguard.audit.research.reproduction.experiments.perplexity_after import compare_perplexities
from editguard.reports.reproduction.schema import Agreement

from .....helpers.reproduction_logs import (
    FIRST,
    ORDINARY,
    build_record,
    list_agreements,
    read_table,
)

pytestmark = pytest.mark.tiny


def test_perplexity_edit_without_a_value_counts_as_a_collapse(cases: Cases, published: Edits) -> None:
    broken = {**published, "c-rome": {**published["c-rome"], FIRST[0].id: build_record(FIRST[0], None)}}
    experiment = compare_perplexities(cases, broken, 1.5)
    assert list_agreements(experiment)[1] is Agreement.NO
    line = read_table(experiment, "perplexity-after").query("editor == 'c-rome' and cases == 'first token'").iloc[0]
    assert (line["edits"], line["not made"], line["collapsed"]) == (len(FIRST), 0, 1)


def test_perplexity_not_finite_is_named_beside_the_largest(cases: Cases, published: Edits) -> None:
    broken = {**published, "c-rome": {**published["c-rome"], FIRST[0].id: build_record(FIRST[0], None)}}
    statement = compare_perplexities(cases, broken, 1.5).claims[1].here
    assert statement == (
        "At most 1.0200 times the unedited one's, and not finite in 1 edit; over 1.15: 1 of 5 edits, not made: 0."
    )


def test_perplexity_table_holds_ratios_and_counts(cases: Cases, published: Edits) -> None:
    after = (
        read_table(compare_perplexities(cases, published, 1.5), "perplexity-after")
        .query("editor == 'rome'")
        .set_index("cases")
    )
    assert after.loc["first token", ["collapsed", "ratio, least", "ratio, largest", "largest perplexity"]].tolist() == [
        5,
        10.0,
        14.0,
        1400.0,
    ]
    assert after.loc["ordinary", "collapsed"] == 0
    assert after.loc["other small denominator", "edits"] == 1


def test_perplexity_forms_stand_beside_the_unedited_model(cases: Cases, published: Edits) -> None:
    broken = {**published, "rome": {**published["rome"], FIRST[0].id: build_record(FIRST[0], None)}}
    table = read_table(compare_perplexities(cases, broken, 1.5), "perplexity-forms")
    first = table.query("editor == 'rome' and cases == 'first token'").set_index("form")
    assert first["unedited"].tolist() == [100.0, 50.0, 900.0, 70.0]
    worst = first.loc["worst sentence", ["edits", "not finite", "edited, least", "edited, largest"]]
    assert worst.tolist() == [5, 1, 900.0 * 11, 900.0 * 14]
    assert first.loc["median sentence", "edited, median"] == 50.0 * 12.5
    own = measure_own_editor(cases, published, 1.5)
    assert set(read_table(own, "prefixed-perplexity-forms")["editor"]) == {"prefixed"}


def test_perplexity_claims_with_missing_edits_stay_open(cases: Cases, published: Edits) -> None:
    unmade = build_record(FIRST[0], None).model_copy(update={"weights": None, "update": None, "measurements": []})
    rome = {**published, "rome": {**published["rome"], FIRST[0].id: unmade}}
    assert list_agreements(compare_perplexities(cases, rome, 1.5))[0] is Agreement.OPEN
    held = {**rome, "rome": {**rome["rome"], FIRST[1].id: build_record(FIRST[1], 1.2)}}
    assert list_agreements(compare_perplexities(cases, held, 1.5))[0] is Agreement.NO
    unmade_edit = {**published, "c-rome": {**published["c-rome"], FIRST[0].id: unmade}}
    assert list_agreements(compare_perplexities(cases, unmade_edit, 1.5))[1] is Agreement.OPEN
    few = {**published, "rome": {request.id: published["rome"][request.id] for request in (*FIRST[:3], *ORDINARY)}}
    assert list_agreements(compare_perplexities(cases, few, 1.5))[0] is Agreement.OPEN
    assert "measured: 3; at least 4 are needed" in compare_perplexities(cases, few, 1.5).claims[0].here
