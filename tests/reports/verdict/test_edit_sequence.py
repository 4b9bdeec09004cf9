"""An audit in sequence as it is told: how far the model was moved, what still holds, and whether the hashes bear it out."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest
from editguard.reports.html.drift_figures import draw_drift
from editguard.reports.html.report_page import render_html
from editguard.reports.log.file import Log
from editguard.reports.log.schema import ControlRecord, EditRecord, Footer, MeasurementRecord, Weights
from editguard.reports.log.types import DRIFT, DRIFT_NORM, DRIFT_RATIO, Rate
from editguard.reports.outputs.markdown import render_markdown
from editguard.reports.verdict.digest import digest, summarise
from editguard.reports.verdict.edit_sequence import _lost, describe_sequence, sequence_reasons
from editguard.suites.checks.accumulated_drift import AccumulatedDrift
from pydantic import ValidationError

from ...helpers.audit_logs import make_audit, refuse
from ...helpers.log_updates import make_weights
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


def keep_edit(edit: EditRecord, place: int, bound: float = BOUND) -> EditRecord:
    return edit.model_copy(
        update={
            "weights": make_weights(before=f"state {place}" if place else HASH, edited=f"state {place + 1}", kept=True),
            "measurements": [
                *edit.measurements,
                drift(DRIFT_RATIO, 1 + place / 100, bound),
                drift(DRIFT_NORM, place / 10, 20 * bound),
            ],
        }
    )


@pytest.fixture
def log() -> Log:
    audit_log = make_audit(6, in_sequence=True)
    edits = tuple(keep_edit(edit, place) for place, edit in enumerate(audit_log.edits))
    retained = Rate(passed=6, failed=0, not_judged=0, total=6, rate=1.0)
    assert audit_log.footer is not None
    return replace(audit_log, edits=edits, footer=audit_log.footer.model_copy(update={"retained": retained}))


def with_weights(log: Log, place: int, weights: Weights) -> Log:
    edits = [*log.edits]
    edits[place] = edits[place].model_copy(update={"weights": weights})
    return replace(log, edits=tuple(edits))


def test_sequence_drift_names_match_the_check() -> None:
    assert AccumulatedDrift.name == DRIFT


def test_sequence_chained_weights_pass(log: Log) -> None:
    summary = summarise(log)
    assert summary.verdict == "pass", summary.reasons
    assert summary.sequence is not None
    assert summary.sequence.kept == 6
    assert (summary.sequence.perplexity_ratio, summary.sequence.relative_norm) == (1.05, 0.5)


def test_sequence_broken_chain_fails(log: Log) -> None:
    summary = summarise(with_weights(log, 3, make_weights(before="state 0", edited="state 4", kept=True)))
    assert summary.verdict == "fail"
    assert any(
        "does not start from the weight that the edit before it left" in sentence for sentence in summary.reasons
    )


def test_sequence_first_edit_starts_from_control_weights(log: Log) -> None:
    summary = summarise(with_weights(log, 0, make_weights(before="another", edited="state 1", kept=True)))
    assert any(
        "does not start from the weight that the edit before it left" in sentence for sentence in summary.reasons
    )


def with_retained(log: Log, retained: Rate | None, **policy: float) -> Log:
    assert log.footer is not None
    header = log.header.model_copy(update={"policy": log.header.policy | policy})
    return replace(log, header=header, footer=log.footer.model_copy(update={"retained": retained}))


def all_held(log: Log) -> Log:
    kept_count = sum(edit.weights is not None and edit.weights.kept for edit in log.edits)
    return with_retained(log, Rate(passed=kept_count, failed=0, not_judged=0, total=kept_count))


@pytest.mark.parametrize(
    ("counts", "least", "message"),
    [
        ((5, 1, 0), 0.9, "Only 5 of 6 kept edits held at the end, and the policy asks for 90%"),
        ((4, 2, 0), 0.9, "Only 4 of 6 kept edits held at the end, and"),
        (
            (3, 1, 2),
            0.9,
            "Only 3 of 6 kept edits held at the end (2 of them have no prefix that serves them, and were not asked)",
        ),
        ((5, 1, 0), 0.8, None),
        ((5, 0, 1), 0.8, None),
        ((0, 0, 6), 0.0, None),
        # What was not asked is never a pass.
        ((5, 0, 1), 1.0, "Only 5 of 6 kept edits held at the end (1 of them"),
        (
            (0, 0, 6),
            0.9,
            "Only 0 of 6 kept edits held at the end (6 of them have no prefix that serves them, and were not asked)",
        ),
    ],
)
def test_sequence_too_many_lost_edits_fail(
    log: Log, counts: tuple[int, int, int], least: float, message: str | None
) -> None:
    passed, failed, not_judged = counts
    ended_log = with_retained(
        log, Rate(passed=passed, failed=failed, not_judged=not_judged, total=6), min_retained=least
    )
    summary = summarise(ended_log)
    assert (summary.verdict == "pass") == (message is None), summary.reasons
    assert message is None or any(message in sentence for sentence in summary.reasons)


@pytest.mark.parametrize(
    ("passed", "kept_count", "least"), [(7, 25, 0.28), (14, 25, 0.56), (9, 10, 0.9), (29, 100, 0.29)]
)
def test_sequence_exact_share_of_policy_is_enough(log: Log, passed: int, kept_count: int, least: float) -> None:
    kept_edit = next(record for record in log.edits if record.weights is not None and record.weights.kept)
    ended_log = with_retained(
        log, Rate(passed=passed, failed=kept_count - passed, not_judged=0, total=kept_count), min_retained=least
    )
    many = replace(ended_log, edits=[kept_edit] * kept_count)
    assert ended_log.footer is not None
    assert not list(_lost(many, many.footer))  # type: ignore[arg-type]
    fewer = Rate(passed=passed - 1, failed=kept_count - passed + 1, not_judged=0, total=kept_count)
    assert list(_lost(many, ended_log.footer.model_copy(update={"retained": fewer})))


@pytest.mark.parametrize("retained", [None, Rate(passed=5, failed=0, not_judged=0, total=5)])
def test_sequence_unmeasured_retention_is_no_pass(log: Log, retained: Rate | None) -> None:
    summary = summarise(with_retained(log, retained))
    assert summary.verdict == "fail"
    assert any("It was not measured how many of 6 kept edits still hold" in sentence for sentence in summary.reasons)


def test_sequence_without_kept_edits_loses_none(log: Log) -> None:
    none = replace(log, edits=[edit.model_copy(update={"weights": None}) for edit in log.edits])
    ended_log = with_retained(none, Rate(passed=0, failed=0, not_judged=0, total=0))
    assert ended_log.footer is not None
    assert list(_lost(ended_log, ended_log.footer)) == []


def test_sequence_reason_names_lost_edits_if_any(log: Log) -> None:
    ended_log = with_retained(log, Rate(passed=2, failed=4, not_judged=0, total=6), min_retained=0.9)
    assert ended_log.footer is not None
    (reason,) = _lost(ended_log, ended_log.footer)
    assert reason.endswith("and the policy asks for 90%.")
    (reason,) = _lost(ended_log, ended_log.footer.model_copy(update={"lost": ["case-0001", "case-0002"]}))
    assert reason.endswith("; lost: 'case-0001', 'case-0002'.")


def test_sequence_closing_needs_a_sequence(log: Log) -> None:
    """An audit of edits made alone has no such check; a log that says otherwise is not told of as a sequence."""
    single = replace(log, header=log.header.model_copy(update={"in_sequence": False}))
    over = [drift(DRIFT_RATIO, 9.0, BOUND)]
    edits = [edit.model_copy(update={"weights": None, "measurements": over}) for edit in single.edits]
    assert not [edit for edit in sequence_reasons(replace(single, edits=edits)) if "closed" in edit]


def test_sequence_policy_without_share_needs_all(log: Log) -> None:
    policy = {name: value for name, value in log.header.policy.items() if name != "min_retained"}
    ended_log = with_retained(log, Rate(passed=5, failed=1, not_judged=0, total=6))
    silent = replace(ended_log, header=ended_log.header.model_copy(update={"policy": policy}))
    assert summarise(silent).verdict == "fail"


def test_sequence_drift_over_bound_is_collapse(log: Log) -> None:
    """The perplexity that is told is that against the unedited model, which in a sequence is the one before the first edit."""
    measured = [measurement for measurement in log.edits[5].measurements if measurement.metric != DRIFT_RATIO]
    far = log.edits[5].model_copy(update={"measurements": [*measured, drift(DRIFT_RATIO, 3.0, 1e9)]})
    summary = summarise(replace(log, edits=(*log.edits[:5], far)))
    assert (summary.verdict, summary.collapsed, summary.worst_perplexity_ratio) == ("fail", 1, 3.0)


def test_sequence_lost_edits_are_named(log: Log) -> None:
    ended_log = with_retained(log, Rate(passed=5, failed=1, not_judged=0, total=6))
    assert ended_log.footer is not None
    named = replace(ended_log, footer=ended_log.footer.model_copy(update={"lost": ["case-0003"]}))
    assert any(sentence.endswith("; lost: 'case-0003'.") for sentence in summarise(named).reasons)


def test_sequence_closing_edit_is_named(log: Log) -> None:
    edits = [*log.edits]
    over = drift(DRIFT_NORM, 3.0, 1.5)
    undone = make_weights(before="state 3", edited="x", restored="state 3", restored_ok=True)
    edits[3] = edits[3].model_copy(
        update={
            "measurements": [*edits[3].measurements[:-1], over],
            "weights": undone,
            "outcome": "rolled-back",
            "verdict": "fail",
        }
    )
    edits[4:] = [refuse(edit) for edit in edits[4:]]
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


def test_kept_edit_page_says_so(log: Log) -> None:
    assert render_html(log).count("kept in the model for the edits after it") == 6


def test_control_record_kept_weights_are_refused(log: Log) -> None:
    sound = next(control for control in log.controls if control.verdict == "pass")
    kept_control = sound.model_dump() | {"weights": make_weights(before="a", edited="b", kept=True).model_dump()}
    with pytest.raises(ValidationError, match="a control is always undone"):
        ControlRecord(**kept_control)


def test_sequence_undone_edit_leaves_weight(log: Log) -> None:
    undone = make_weights(before="state 2", edited="x", restored="state 2", restored_ok=True)
    behind = make_weights(before="state 2", edited="state 4", kept=True)
    assert summarise(all_held(with_weights(with_weights(log, 2, undone), 3, behind))).verdict == "pass"
    # The next one stands on what the undone edit had written.
    wrong = make_weights(before="x", edited="state 4", kept=True)
    assert summarise(all_held(with_weights(with_weights(log, 2, undone), 3, wrong))).verdict == "fail"


def test_sequence_of_edits_of_different_weights_is_a_chain_for_each(log: Log) -> None:
    """The last edit leaves the first weight alone; the next edit of the first one still begins where it was left."""
    other = make_weights(path="another", before="start", edited="end", kept=True)
    apart = with_weights(with_weights(log, 2, other), 3, make_weights(before="state 2", edited="state 4", kept=True))
    assert not [*sequence_reasons(all_held(apart))]
    both = Weights(sites=other.sites | make_weights(before="state 2", edited="state 4").sites, kept=True)
    assert [*sequence_reasons(all_held(with_weights(apart, 3, both)))], (
        "the other weight does not begin where it was left"
    )


def test_sequence_refused_edit_leaves_weight(log: Log) -> None:
    edits = [*log.edits]
    edits[2] = refuse(edits[2])
    assert edits[2].weights is None
    edits[3] = edits[3].model_copy(update={"weights": make_weights(before="state 2", edited="state 4", kept=True)})
    assert not [*sequence_reasons(all_held(replace(log, edits=tuple(edits))))]


@pytest.mark.parametrize("controls", [0, 1])
def test_sequence_with_few_controls_is_a_chain(log: Log, controls: int) -> None:
    few = replace(log, controls=log.controls[:controls])
    assert not [*sequence_reasons(few)]
    assert [*sequence_reasons(with_weights(few, 3, make_weights(before="state 0", edited="state 4", kept=True)))]


def test_sequence_reasons_single_edits_need_no_chain(log: Log) -> None:
    single = make_audit(6)
    assert summarise(single).verdict == "pass"
    other = make_weights(before="other", edited="x", restored="other", restored_ok=True)
    assert not [*sequence_reasons(with_weights(single, 3, other))]


def test_kept_edit_outside_sequence_fails(log: Log) -> None:
    single = replace(log, header=log.header.model_copy(update={"in_sequence": False}))
    summary = summarise(single)
    assert summary.verdict == "fail"
    assert any(
        "was left in the model, though each edit is undone before the next" in sentence for sentence in summary.reasons
    )
    assert summary.sequence is None


def test_weights_kept_and_restored_is_refused() -> None:
    with pytest.raises(ValidationError, match="kept is true"):
        make_weights(before="a", edited="b", restored="a", restored_ok=True, kept=True)


@pytest.mark.parametrize("ended", [("rolled-back", "fail"), ("refused", "refused")])
def test_edit_record_kept_without_pass_is_refused(log: Log, ended: tuple[str, str]) -> None:
    outcome, verdict = ended
    with pytest.raises(ValidationError, match="only an edit that passed stays in the model"):
        EditRecord(**(log.edits[0].model_dump() | {"outcome": outcome, "verdict": verdict}))


def test_describe_sequence_stands_in_every_output(log: Log) -> None:
    summary = summarise(log)
    assert summary.sequence is not None
    sentence = describe_sequence(summary.sequence, summary.edits)
    assert sentence == (
        "6 of 6 edits kept in the model, with perplexity at 1.050 times its first value and the weight moved by 0.5 of "
        "its norm; at the end it gave the targets of 6 of 6 of them"
    )
    assert sentence in render_html(log)
    assert f"In sequence: {sentence}." in render_markdown(log)


def test_describe_sequence_unfinished_says_so(log: Log) -> None:
    summary = summarise(replace(log, footer=None))
    assert summary.sequence is not None
    assert "was not measured" in describe_sequence(summary.sequence, summary.edits)


def test_drift_figure_has_edits_and_bound(log: Log) -> None:
    perplexity, weight = draw_drift(digest(log))
    drawn = json.loads(perplexity.data)
    assert drawn["data"][0]["y"] == pytest.approx([1.0, 1.01, 1.02, 1.03, 1.04, 1.05])
    assert drawn["layout"]["shapes"][0]["y0"] == BOUND
    assert perplexity.rows[0][:2] == ("kept", "6")
    assert "After 6 kept edits it stands at 1.050. Over 1.1 the sequence is closed" in perplexity.caption
    # A bound far above all that was measured would press them flat.
    assert "shapes" not in json.loads(weight.data)["layout"]
    assert "it stands at 0.5" in weight.caption


def test_drift_figure_ends_at_closing_edit(log: Log) -> None:
    late_edits = [
        edit.model_copy(update={"id": f"late-{n}", "index": 6 + n, "measurements": []})
        for n in range(294)
        for edit in log.edits[:1]
    ]
    figures = draw_drift(digest(replace(log, edits=(*log.edits, *late_edits))))
    assert [json.loads(edit.data)["layout"]["xaxis"]["dtick"] for edit in figures] == [1, 1]


def test_drift_figure_single_edits_have_none() -> None:
    assert draw_drift(digest(make_audit(6))) == []


def test_drift_figure_unmeasured_sequence_has_none(log: Log) -> None:
    none = replace(log, edits=(), footer=Footer(records=len(log.controls), seconds=1.0))
    assert draw_drift(digest(none)) == []
