"""The verdict table: each rule alone turns a pass into a fail or a void."""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
from editguard.reports.log.file import Log
from editguard.reports.log.schema import ControlRecord, EditBody, Footer, MeasurementRecord
from editguard.reports.log.types import Protocol
from editguard.reports.verdict.digest import digest, summarise
from editguard.reports.verdict.edit_summary import EditDecision, EditVerdict
from editguard.reports.verdict.summary import Summary

from ...helpers import synthetic_logs as synthetic
from ...helpers.log_updates import make_weights


def with_first(log: Log, **changes: Any) -> Log:
    """Return the log with edit 1, an allowed one, changed."""
    return replace(log, edits=(log.edits[0], log.edits[1].model_copy(update=changes), *log.edits[2:]))


def with_control(log: Log, **changes: Any) -> Log:
    return replace(log, controls=(log.controls[0].model_copy(update=changes), *log.controls[1:]))


def with_failed_good_control(log: Log) -> Log:
    good = next(control for control in log.controls if control.expect == "sound")
    share = MeasurementRecord(check="locality", metric="locality", value=0.2, verdict="fail", message="2 of 10 tokens")
    failed = good.model_copy(
        update={"ok": False, "verdict": "fail", "outcome": "rolled-back", "measurements": [*good.measurements, share]}
    )
    return replace(log, controls=tuple(failed if control is good else control for control in log.controls))


def with_policy(log: Log, **changes: Any) -> Log:
    return replace(log, header=log.header.model_copy(update={"policy": log.header.policy | changes}))


def with_ratio(record: EditBody, ratio: float | None) -> list[MeasurementRecord]:
    return [*(m for m in record.measurements if m.check != "perplexity"), synthetic.make_perplexity(ratio)]


def without_controls(log: Log) -> Log:
    assert log.footer is not None
    return replace(log, controls=(), footer=log.footer.model_copy(update={"records": len(log.edits)}))


def test_summarise_sound_log_passes(log: Log) -> None:
    summary = summarise(log)
    assert (summary.verdict, summary.exit_code, summary.status) == ("pass", 0, "finished")
    assert (summary.edits, summary.allowed, summary.rewritten, summary.refused) == (60, 36, 18, 6)
    assert (summary.failed, summary.collapsed, summary.needs_prefix) == (0, 0, 18)
    assert summary.controls_ok
    assert len(summary.reasons) == 1
    assert "60 edits audited, none failed" in summary.reasons[0]


def with_endless_update(log: Log) -> Log:
    update = log.edits[1].update
    assert update is not None
    return with_first(log, update=update.model_copy(update={"relative_norm": None}))


Change = Callable[[Log], Log]
RULES: dict[str, tuple[str, Change, str]] = {
    "good control not ok": (
        "void",
        lambda log: with_failed_good_control(log),
        "was to show a sound model, but locality",
    ),
    "control not ok": ("void", lambda log: with_control(log, ok=False), "was to show a collapse"),
    "control errored": ("void", lambda log: with_control(log, ok=False, outcome="errored", error="boom"), "boom"),
    "one control missing": (
        "void",
        lambda log: replace(log, controls=log.controls[1:], footer=Footer(records=62, seconds=1.0)),
        "1 control is missing: 'rome-1'",
    ),
    "no control though demanded": ("void", without_controls, "the policy demands them"),
    "no control though announced": (
        "void",
        lambda log: with_policy(without_controls(log), controls=False),
        "the header announces 'rome-1'",
    ),
    "collapsed": ("fail", lambda log: with_first(log, measurements=with_ratio(log.edits[1], 1.6)), "collapsed"),
    "ratio not finite": (
        "fail",
        lambda log: with_first(log, measurements=with_ratio(log.edits[1], None)),
        "1 edit collapsed the model",
    ),
    "no ratio at all": ("fail", lambda log: with_first(log, measurements=[]), "was not measured"),
    "check failed": (
        "fail",
        lambda log: with_first(log, outcome="rolled-back", verdict="fail"),
        "did not find it sound",
    ),
    "errored": (
        "fail",
        lambda log: with_first(log, outcome="errored", verdict="fail", error="CUDA ran out"),
        "CUDA ran out",
    ),
    "not restored": (
        "fail",
        lambda log: with_first(log, weights=make_weights(before="a", edited="b", restored="c", restored_ok=False)),
        "not restored",
    ),
    "weights not proved": (
        "fail",
        lambda log: with_first(log, weights=make_weights(before="a", edited="b")),
        "not proved",
    ),
    "weights not known": ("fail", lambda log: with_first(log, weights=None), "not proved"),
    "update not known": ("fail", lambda log: with_first(log, update=None), "the size of its update is not known"),
    "update not finite": ("fail", lambda log: with_endless_update(log), "the size of its update is not known"),
    "nothing judged": (
        "fail",
        lambda log: with_first(
            log, measurements=[m.model_copy(update={"verdict": "info"}) for m in log.edits[1].measurements]
        ),
        "nothing of it was judged",
    ),
    "refused and not allowed": ("fail", lambda log: with_policy(log, allow_refused=False), "6 edits were refused"),
    "unfinished": ("fail", lambda log: replace(log, footer=None), "did not finish"),
    "unfinished and torn": ("fail", lambda log: replace(log, footer=None, torn=True), "cut short"),
    "zero edits": (
        "fail",
        lambda log: replace(log, edits=(), footer=Footer(records=3, seconds=1.0)),
        "No edit was audited",
    ),
    "a record is missing": (
        "fail",
        lambda log: replace(log, edits=log.edits[1:], footer=Footer(records=62, seconds=1.0)),
        "60 edits were requested and 59 have a record",
    ),
    "footer disagrees": ("fail", lambda log: replace(log, footer=Footer(records=5, seconds=1.0)), "footer counts 5"),
    "bound from the policy": ("fail", lambda log: with_policy(log, collapse_ratio=1.01), "collapsed"),
}


@pytest.mark.parametrize("name", RULES)
def test_summarise_each_rule_alone_fails_the_audit(log: Log, name: str) -> None:
    verdict, change, reason = RULES[name]
    summary = summarise(change(log))
    assert summary.verdict == verdict
    assert summary.exit_code == 1
    assert any(reason.lower() in sentence.lower() for sentence in summary.reasons), summary.reasons
    assert len([sentence for sentence in summary.reasons if "may ship" not in sentence]) == 1


def test_summarise_allow_refused_must_be_set(log: Log) -> None:
    policy = {name: value for name, value in log.header.policy.items() if name != "allow_refused"}
    silent = replace(log, header=log.header.model_copy(update={"policy": policy}))
    assert summarise(silent).verdict == "fail"


def test_summarise_void_wins_over_fail_and_lists_both(log: Log) -> None:
    both = with_first(with_control(log, ok=False), measurements=with_ratio(log.edits[1], 900.0))
    summary = summarise(both)
    assert summary.verdict == "void"
    assert not summary.controls_ok
    assert any("collapsed" in reason for reason in summary.reasons)


def test_summarise_pass_without_controls_says_so(log: Log) -> None:
    quiet = with_policy(without_controls(log), controls=False)
    summary = summarise(replace(quiet, header=quiet.header.model_copy(update={"controls": []})))
    assert summary.verdict == "pass"
    assert not summary.controls_ok
    assert "no control was run" in summary.reasons[0]


def test_summarise_collapsed_edit_is_counted_and_named(log: Log) -> None:
    log_digest = digest(with_first(log, measurements=with_ratio(log.edits[1], 4000.0)))
    assert log_digest.summary.collapsed == log_digest.summary.failed == 1
    assert log_digest.summary.worst_perplexity_ratio == 4000.0
    story = log_digest.edits[1]
    assert (story.decision, story.result, story.collapsed) == (EditDecision.ALLOWED, EditVerdict.FAILED, True)
    assert "perplexity ratio 4000, over the bound of 1.5" in story.faults[0]


def test_summarise_edit_stopped_by_guard_is_refused(log: Log) -> None:
    stopped = with_first(log, outcome="refused", verdict="refused", measurements=[])
    summary = summarise(stopped)
    assert (summary.allowed, summary.rewritten, summary.refused) == (35, 18, 7)


def test_summarise_rates_keep_counts_and_protocols(log: Log) -> None:
    log_digest = digest(log)
    counts = log_digest.summary.counts["efficacy_unprefixed"]
    assert (counts.passed, counts.failed, counts.not_judged, counts.total) == (36, 18, 0, 54)
    assert log_digest.summary.efficacy_unprefixed == pytest.approx(36 / 54)
    assert log_digest.summary.efficacy_prefixed == 1.0
    assert set(log_digest.summary.efficacy_by_family) == set(synthetic.FAMILIES)
    assert log_digest.efficacy[0].condition == "unprefixed"
    assert {p.value for p in log_digest.efficacy[0].rates} == {"exact", "token-match"}
    assert log_digest.efficacy[0].rates[next(iter(log_digest.efficacy[0].rates))].total == 54


def test_digest_served_efficacy_has_own_row(log: Log) -> None:
    older = digest(log).summary
    assert older.efficacy_served is None
    assert older.counts["efficacy_served"].total == 0
    served = synthetic.make_measurement("efficacy", "served", 0, 1)
    log_digest = digest(with_first(log, measurements=[*log.edits[0].measurements, served]))
    assert [row.condition for row in log_digest.efficacy][:3] == ["unprefixed", "prefixed", "served"]
    assert (log_digest.summary.efficacy_served, log_digest.summary.counts["efficacy_served"].failed) == (0.0, 1)
    assert log_digest.summary.counts["efficacy_prefixed"] == older.counts["efficacy_prefixed"]
    assert log_digest.summary.verdict == older.verdict
    assert log_digest.summary.judged["efficacy_served"] == 0
    held = served.model_copy(update={"verdict": "fail", "threshold": 1.0})
    judged = summarise(with_first(log, measurements=[*log.edits[0].measurements, held])).judged
    assert judged == older.judged | {"efficacy_served": 1}


def test_digest_token_match_is_share_of_tokens(log: Log) -> None:
    half = MeasurementRecord(
        check="efficacy",
        metric="efficacy",
        protocol="token-match",
        value=0.5,
        failed=2,
        not_judged=2,
        total=4,
        verdict="info",
    )
    only = replace(log, edits=(log.edits[1].model_copy(update={"measurements": [half]}),))
    row = digest(only).efficacy[0]
    assert row.rates[Protocol.TOKEN_MATCH].passed == 0
    assert row.shares[Protocol.TOKEN_MATCH] == 0.25


def test_digest_failed_or_unmeasured_check_is_named(log: Log) -> None:
    over = [
        *(m for m in log.edits[1].measurements if m.check != "perplexity"),
        synthetic.make_perplexity(1.2, bound=1.05),
    ]
    unmeasured = MeasurementRecord(check="entropy", metric="ratio", value=None, verdict="unmeasured")
    stopped = with_first(log, outcome="rolled-back", verdict="fail", measurements=[*over, unmeasured])
    faults = digest(stopped).edits[1].faults
    assert len(faults) == 2
    assert faults[0].startswith("perplexity ratio (unprefixed) failed: ")
    assert faults[1] == "entropy ratio (unprefixed) was not measured"


def test_summarise_not_judged_never_raises_rate(log: Log) -> None:
    unjudged = MeasurementRecord(
        check="efficacy", metric="rate", protocol="exact", value=1.0, passed=1, not_judged=3, total=4, verdict="info"
    )
    counts = summarise(with_first(log, measurements=[*log.edits[1].measurements, unjudged])).counts
    assert counts["efficacy_unprefixed"].not_judged == 3
    assert counts["efficacy_unprefixed"].rate == pytest.approx(37 / 58)


def test_digest_non_finite_perplexity_is_collapse_missing_is_not(log: Log) -> None:
    lost = digest(with_first(log, outcome="rolled-back", verdict="fail", measurements=with_ratio(log.edits[1], None)))
    story = lost.edits[1]
    assert (story.ratio, story.collapsed) == (None, True)
    assert story.faults == ("it collapsed the model: the perplexity after it is not finite",)
    summary = lost.summary
    assert (summary.failed, summary.collapsed, summary.perplexity_not_finite) == (1, 1, 1)
    assert summary.worst_perplexity_ratio is not None
    unmeasured = digest(with_first(log, measurements=[]))
    assert not unmeasured.edits[1].collapsed
    assert (unmeasured.summary.collapsed, unmeasured.summary.perplexity_not_finite) == (0, 0)


def test_digest_one_non_finite_text_is_collapse(log: Log) -> None:
    two = [*with_ratio(log.edits[1], 1.0), synthetic.make_perplexity(None)]
    story = digest(with_first(log, measurements=two)).edits[1]
    assert (story.ratio, story.collapsed) == (None, True)


def test_summarise_counts_of_one_are_singular(log: Log) -> None:
    single_log = replace(
        with_policy(log, controls=False),
        header=log.header.model_copy(update={"requests": 1, "controls": []}),
        edits=log.edits[1:2],
        controls=log.controls[:1],
        footer=Footer(records=2, seconds=1.0),
    )
    (reason,) = summarise(single_log).reasons
    assert reason.startswith("1 edit audited, none failed; ")
    assert reason.endswith("; the control showed what was expected.")
    short = summarise(replace(single_log, footer=Footer(records=1, seconds=1.0))).reasons
    assert short == ["The footer counts 1 record, and the log has 2."]


def test_summarise_locality_without_counts_is_mean_or_null(log: Log) -> None:
    share = MeasurementRecord(check="locality", metric="share", value=0.5, verdict="info")
    only = [m for m in log.edits[1].measurements if m.check == "perplexity"]
    bare = replace(log, edits=tuple(e.model_copy(update={"measurements": only}) for e in log.edits))
    assert summarise(bare).locality is None
    assert summarise(bare).efficacy_unprefixed is None
    assert summarise(with_first(bare, measurements=[*only, share])).locality == 0.5


def test_summary_json_round_trip_is_equal(log: Log) -> None:
    summary = summarise(log)
    assert Summary.model_validate_json(summary.model_dump_json(), strict=True) == summary


def test_digest_equal_looking_ids_have_own_anchors(log: Log) -> None:
    rng = random.Random(0)
    ids = ["a b", "a/b", "a-b", "日本", "日 本", "x" * 200, "x" * 201]
    edits = tuple(synthetic.make_edit(1, rng, id=name) for name in ids)
    anchors = [story.slug for story in digest(replace(log, edits=edits)).edits]
    assert len(set(anchors)) == len(ids)
    assert all(anchor and anchor.replace("-", "").replace("_", "").isalnum() and anchor.isascii() for anchor in anchors)


def test_digest_has_controls_of_both_kinds(log: Log) -> None:
    assert all(isinstance(story.record, ControlRecord) for story in digest(log).controls)
    assert digest(log).summary.controls.total == digest(log).summary.controls.ok == 3
