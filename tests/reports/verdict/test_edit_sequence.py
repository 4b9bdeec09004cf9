"""An audit in sequence as it is told: how far the model was moved, what still holds, and whether the hashes bear it out."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest
from editguard.reports.html.drift_figures import drift_figures
from editguard.reports.html.report_page import render_html
from editguard.reports.log.file import Log
from editguard.reports.log.schema import ControlRecord, EditRecord, Footer, MeasurementRecord, Weights
from editguard.reports.log.types import DRIFT, DRIFT_NORM, DRIFT_RATIO, Rate
from editguard.reports.outputs.markdown import render_markdown
from editguard.reports.verdict.digest import digest, summarise
from editguard.reports.verdict.edit_sequence import _lost, describe_sequence, sequence_reasons
from editguard.suites.checks.accumulated_drift import AccumulatedDrift
from pydantic import ValidationError

from ...helpers.audit_logs import audit, refused
from ...helpers.synthetic_logs import HASH

BOUND = 1.1


def drift(metric: str, value: float, bound: float) -> MeasurementRecord:
    return MeasurementRecord(
        check=DRIFT,
        metric=metric,
        condition="sequence",
        value=value,
        threshold=bound,
        verdict="pass" if value <= bound else "fail",
    )


def kept(edit: EditRecord, place: int, bound: float = BOUND) -> EditRecord:
    return edit.model_copy(
        update={
            "weights": Weights(before=f"state {place}" if place else HASH, edited=f"state {place + 1}", kept=True),
            "measurements": [
                *edit.measurements,
                drift(DRIFT_RATIO, 1 + place / 100, bound),
                drift(DRIFT_NORM, place / 10, 20 * bound),
            ],
        }
    )


@pytest.fixture
def log() -> Log:
    found = audit(6, in_sequence=True)
    edits = tuple(kept(edit, place) for place, edit in enumerate(found.edits))
    retained = Rate(passed=6, failed=0, not_judged=0, total=6, rate=1.0)
    assert found.footer is not None
    return replace(found, edits=edits, footer=found.footer.model_copy(update={"retained": retained}))


def with_weights(log: Log, place: int, weights: Weights) -> Log:
    edits = [*log.edits]
    edits[place] = edits[place].model_copy(update={"weights": weights})
    return replace(log, edits=tuple(edits))


def test_the_names_are_those_that_the_check_measures_under() -> None:
    assert AccumulatedDrift.name == DRIFT


def test_a_sequence_whose_weights_follow_from_each_other_passes(log: Log) -> None:
    summary = summarise(log)
    assert summary.verdict == "pass", summary.reasons
    assert summary.sequence is not None
    assert summary.sequence.kept == 6
    assert (summary.sequence.perplexity_ratio, summary.sequence.relative_norm) == (1.05, 0.5)


def test_an_edit_made_on_another_weight_than_the_last_one_left_fails_the_audit(log: Log) -> None:
    summary = summarise(with_weights(log, 3, Weights(before="state 0", edited="state 4", kept=True)))
    assert summary.verdict == "fail"
    assert any("does not start from the weight that the edit before it left" in one for one in summary.reasons)


def test_the_first_edit_was_made_on_the_model_of_the_controls(log: Log) -> None:
    summary = summarise(with_weights(log, 0, Weights(before="another", edited="state 1", kept=True)))
    assert any("does not start from the weight that the edit before it left" in one for one in summary.reasons)


def with_retained(log: Log, retained: Rate | None, **policy: float) -> Log:
    assert log.footer is not None
    header = log.header.model_copy(update={"policy": log.header.policy | policy})
    return replace(log, header=header, footer=log.footer.model_copy(update={"retained": retained}))


def all_held(log: Log) -> Log:
    kept = sum(one.weights is not None and one.weights.kept for one in log.edits)
    return with_retained(log, Rate(passed=kept, failed=0, not_judged=0, total=kept))


@pytest.mark.parametrize(
    ("counts", "least", "told"),
    [
        ((5, 1, 0), 0.9, "Only 5 of 6 kept edits held at the end, and the policy asks for 90%"),
        ((4, 2, 0), 0.9, "Only 4 of 6 kept edits held at the end, and"),
        ((3, 1, 2), 0.9, "Only 3 of 6 kept edits held at the end (2 of them have no prefix that serves them, and were not asked)"),
        ((5, 1, 0), 0.8, None),
        ((5, 0, 1), 0.8, None),
        ((0, 0, 6), 0.0, None),
        # What was not asked is never a pass.
        ((5, 0, 1), 1.0, "Only 5 of 6 kept edits held at the end (1 of them"),
        ((0, 0, 6), 0.9, "Only 0 of 6 kept edits held at the end (6 of them have no prefix that serves them, and were not asked)"),
    ],
)
def test_too_many_edits_that_do_not_hold_at_the_end_fail_the_audit(
    log: Log, counts: tuple[int, int, int], least: float, told: str | None
) -> None:
    passed, failed, not_judged = counts
    found = with_retained(log, Rate(passed=passed, failed=failed, not_judged=not_judged, total=6), min_retained=least)
    summary = summarise(found)
    assert (summary.verdict == "pass") == (told is None), summary.reasons
    assert told is None or any(told in one for one in summary.reasons)


@pytest.mark.parametrize(("passed", "kept", "least"), [(7, 25, 0.28), (14, 25, 0.56), (9, 10, 0.9), (29, 100, 0.29)])
def test_as_many_as_the_policy_asks_for_are_enough_however_it_rounds(
    log: Log, passed: int, kept: int, least: float
) -> None:
    one = next(record for record in log.edits if record.weights is not None and record.weights.kept)
    found = with_retained(log, Rate(passed=passed, failed=kept - passed, not_judged=0, total=kept), min_retained=least)
    many = replace(found, edits=[one] * kept)
    assert found.footer is not None
    assert not list(_lost(many, many.footer))  # type: ignore[arg-type]
    fewer = Rate(passed=passed - 1, failed=kept - passed + 1, not_judged=0, total=kept)
    assert list(_lost(many, found.footer.model_copy(update={"retained": fewer})))


@pytest.mark.parametrize("retained", [None, Rate(passed=5, failed=0, not_judged=0, total=5)])
def test_what_was_not_asked_again_at_the_end_is_no_pass(log: Log, retained: Rate | None) -> None:
    summary = summarise(with_retained(log, retained))
    assert summary.verdict == "fail"
    assert any("It was not measured how many of 6 kept edits still hold" in one for one in summary.reasons)


def test_of_a_sequence_in_which_nothing_was_kept_nothing_is_lost(log: Log) -> None:
    none = replace(log, edits=[one.model_copy(update={"weights": None}) for one in log.edits])
    found = with_retained(none, Rate(passed=0, failed=0, not_judged=0, total=0))
    assert found.footer is not None
    assert list(_lost(found, found.footer)) == []


def test_lost_edits_are_named_where_there_are_some(log: Log) -> None:
    found = with_retained(log, Rate(passed=2, failed=4, not_judged=0, total=6), min_retained=0.9)
    assert found.footer is not None
    (told,) = _lost(found, found.footer)
    assert told.endswith("and the policy asks for 90%.")
    (told,) = _lost(found, found.footer.model_copy(update={"lost": ["case-0001", "case-0002"]}))
    assert told.endswith("; lost: 'case-0001', 'case-0002'.")


def test_what_no_sequence_measured_closes_none(log: Log) -> None:
    """An audit of edits made alone has no such check; a log that says otherwise is not told of as a sequence."""
    alone = replace(log, header=log.header.model_copy(update={"in_sequence": False}))
    over = [drift(DRIFT_RATIO, 9.0, BOUND)]
    edits = [one.model_copy(update={"weights": None, "measurements": over}) for one in alone.edits]
    assert not [one for one in sequence_reasons(replace(alone, edits=edits)) if "closed" in one]


def test_a_policy_without_a_share_asks_for_all(log: Log) -> None:
    policy = {name: value for name, value in log.header.policy.items() if name != "min_retained"}
    found = with_retained(log, Rate(passed=5, failed=1, not_judged=0, total=6))
    silent = replace(found, header=found.header.model_copy(update={"policy": policy}))
    assert summarise(silent).verdict == "fail"


def test_a_model_far_from_where_it_was_is_a_collapse_however_small_the_last_step(log: Log) -> None:
    """The perplexity that is told is that against the unedited model, which in a sequence is the one before the first edit."""
    measured = [one for one in log.edits[5].measurements if one.metric != DRIFT_RATIO]
    far = log.edits[5].model_copy(update={"measurements": [*measured, drift(DRIFT_RATIO, 3.0, 1e9)]})
    summary = summarise(replace(log, edits=(*log.edits[:5], far)))
    assert (summary.verdict, summary.collapsed, summary.worst_perplexity_ratio) == ("fail", 1, 3.0)


def test_edits_that_were_lost_are_named(log: Log) -> None:
    found = with_retained(log, Rate(passed=5, failed=1, not_judged=0, total=6))
    assert found.footer is not None
    named = replace(found, footer=found.footer.model_copy(update={"lost": ["case-0003"]}))
    assert any(one.endswith("; lost: 'case-0003'.") for one in summarise(named).reasons)


def test_what_closed_the_sequence_is_said_first_hand(log: Log) -> None:
    edits = [*log.edits]
    over = drift(DRIFT_NORM, 3.0, 1.5)
    undone = Weights(before="state 3", edited="x", restored="state 3", restored_ok=True)
    edits[3] = edits[3].model_copy(
        update={
            "measurements": [*edits[3].measurements[:-1], over],
            "weights": undone,
            "outcome": "rolled-back",
            "verdict": "fail",
        }
    )
    edits[4:] = [refused(one) for one in edits[4:]]
    summary = summarise(all_held(replace(log, edits=tuple(edits))))
    assert (
        "The sequence is closed since 'case-0003': with it the accumulated drift would pass its bound."
        in summary.reasons
    )
    assert summary.sequence is not None
    assert summary.sequence.closed == "case-0003"
    assert "3 of 6 edits kept in the model until 'case-0003' closed it" in describe_sequence(
        summary.sequence, summary.edits
    )


def test_a_kept_edit_says_so_in_its_story(log: Log) -> None:
    assert render_html(log).count("kept in the model for the edits after it") == 6


def test_a_control_is_never_kept(log: Log) -> None:
    sound = next(control for control in log.controls if control.verdict == "pass")
    kept_control = sound.model_dump() | {"weights": {"before": "a", "edited": "b", "kept": True}}
    with pytest.raises(ValidationError, match="a control is always undone"):
        ControlRecord(**kept_control)


def test_an_undone_edit_leaves_the_weight_that_it_was_made_on(log: Log) -> None:
    undone = Weights(before="state 2", edited="x", restored="state 2", restored_ok=True)
    behind = Weights(before="state 2", edited="state 4", kept=True)
    assert summarise(all_held(with_weights(with_weights(log, 2, undone), 3, behind))).verdict == "pass"
    # The next one stands on what the undone edit had written.
    wrong = behind.model_copy(update={"before": "x"})
    assert summarise(all_held(with_weights(with_weights(log, 2, undone), 3, wrong))).verdict == "fail"


def test_a_refused_edit_leaves_the_weight_as_it_is(log: Log) -> None:
    edits = [*log.edits]
    edits[2] = refused(edits[2])
    assert edits[2].weights is None
    edits[3] = edits[3].model_copy(update={"weights": Weights(before="state 2", edited="state 4", kept=True)})
    assert not [*sequence_reasons(all_held(replace(log, edits=tuple(edits))))]


@pytest.mark.parametrize("controls", [0, 1])
def test_a_sequence_with_few_controls_or_none_is_a_chain_too(log: Log, controls: int) -> None:
    few = replace(log, controls=log.controls[:controls])
    assert not [*sequence_reasons(few)]
    assert [*sequence_reasons(with_weights(few, 3, Weights(before="state 0", edited="state 4", kept=True)))]


def test_edits_made_alone_need_no_chain(log: Log) -> None:
    alone = audit(6)
    assert summarise(alone).verdict == "pass"
    other = Weights(before="other", edited="x", restored="other", restored_ok=True)
    assert not [*sequence_reasons(with_weights(alone, 3, other))]


def test_an_edit_that_stayed_in_the_model_though_each_was_to_be_made_alone_fails_the_audit(log: Log) -> None:
    alone = replace(log, header=log.header.model_copy(update={"in_sequence": False}))
    summary = summarise(alone)
    assert summary.verdict == "fail"
    assert any("was left in the model, though each edit is undone before the next" in one for one in summary.reasons)
    assert summary.sequence is None


def test_kept_weights_were_not_rolled_back() -> None:
    with pytest.raises(ValidationError, match="kept is true"):
        Weights(before="a", edited="b", restored="a", restored_ok=True, kept=True)


@pytest.mark.parametrize("ended", [("rolled-back", "fail"), ("refused", "refused")])
def test_only_what_passed_stays_in_the_model(log: Log, ended: tuple[str, str]) -> None:
    outcome, verdict = ended
    with pytest.raises(ValidationError, match="only an edit that passed stays in the model"):
        EditRecord(**(log.edits[0].model_dump() | {"outcome": outcome, "verdict": verdict}))


def test_what_still_holds_is_said_everywhere(log: Log) -> None:
    summary = summarise(log)
    assert summary.sequence is not None
    said = describe_sequence(summary.sequence, summary.edits)
    assert said == (
        "6 of 6 edits kept in the model, with perplexity at 1.050 times its first value and the weight moved by 0.5 of "
        "its norm; at the end it gave the targets of 6 of 6 of them"
    )
    assert said in render_html(log)
    assert f"In sequence: {said}." in render_markdown(log)


def test_an_unfinished_sequence_says_what_was_not_measured(log: Log) -> None:
    summary = summarise(replace(log, footer=None))
    assert summary.sequence is not None
    assert "was not measured" in describe_sequence(summary.sequence, summary.edits)


def test_the_drift_is_drawn_edit_by_edit_with_its_bound(log: Log) -> None:
    perplexity, weight = drift_figures(digest(log))
    drawn = json.loads(perplexity.data)
    assert drawn["data"][0]["y"] == pytest.approx([1.0, 1.01, 1.02, 1.03, 1.04, 1.05])
    assert drawn["layout"]["shapes"][0]["y0"] == BOUND
    assert perplexity.rows[0][:2] == ("kept", "6")
    assert "After 6 kept edits it stands at 1.050. Over 1.1 the sequence is closed" in perplexity.caption
    # A bound far above all that was measured would press them flat.
    assert "shapes" not in json.loads(weight.data)["layout"]
    assert "it stands at 0.5" in weight.caption


def test_the_figure_ends_where_the_sequence_was_closed(log: Log) -> None:
    refused = [
        one.model_copy(update={"id": f"late-{n}", "index": 6 + n, "measurements": []})
        for n in range(294)
        for one in log.edits[:1]
    ]
    figures = drift_figures(digest(replace(log, edits=(*log.edits, *refused))))
    assert [json.loads(one.data)["layout"]["xaxis"]["dtick"] for one in figures] == [1, 1]


def test_an_audit_of_single_edits_has_no_such_figure() -> None:
    assert drift_figures(digest(audit(6))) == []


def test_a_sequence_of_which_nothing_was_measured_has_no_figure(log: Log) -> None:
    none = replace(log, edits=(), footer=Footer(records=len(log.controls), seconds=1.0))
    assert drift_figures(digest(none)) == []
