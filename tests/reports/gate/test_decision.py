"""The gate: each ground closes it alone and by its name, noise does not, and the rule is told."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import pytest
from editguard.reports.gate.allowances import read_allowances
from editguard.reports.gate.comparison import EditPair, MetricChange, compare_metric
from editguard.reports.gate.decision import FEWEST, judge_gate, regressed
from editguard.reports.gate.metrics import Metric, Tally
from editguard.reports.gate.result import Gate, ReasonCode
from editguard.reports.log.file import Log
from editguard.reports.log.schema import MeasurementRecord
from hypothesis import given, settings
from hypothesis import strategies as st

from ...helpers.audit_logs import (
    add_check,
    add_served_efficacy,
    change_edits,
    change_measurement,
    drop_measurement,
    fail_measurement,
    make_audit,
    make_baseline,
    make_sequence,
    recount,
    refuse,
    scale_ratio,
    set_ratio,
)


def judged(before: Log, after: Log, *given: str, accepted: frozenset[ReasonCode] = frozenset()) -> Gate:
    return judge_gate(
        make_baseline(before), make_baseline(after), ("main@1", "build"), read_allowances(given), accepted=accepted
    )


def keys(gate: Gate) -> list[str]:
    return [closing.key for closing in gate.closings]


def with_header(log: Log, **changes: Any) -> Log:
    return replace(log, header=log.header.model_copy(update=changes))


HALF = change_measurement("efficacy", "prefixed", "exact", passed=16, not_judged=1)
BASE = make_audit()
MODEL = BASE.header.model.model_copy(update={"fingerprint": "another"})

CLOSED: list[tuple[str, Log, Log, list[str]]] = [
    ("missing", BASE, recount(replace(BASE, edits=BASE.edits[1:])), ["missing-edits"]),
    ("new", recount(replace(BASE, edits=BASE.edits[1:])), BASE, ["new-edits"]),
    (
        "changed",
        BASE,
        change_edits(BASE, lambda e: e.model_copy(update={"target_new": "Rome"}), [0]),
        ["changed-edits"],
    ),
    ("model", BASE, with_header(BASE, model=MODEL), ["other-model"]),
    ("policy", BASE, with_header(BASE, policy=BASE.header.policy | {"collapse_ratio": 2}), ["other-policy"]),
    ("corpus", BASE, with_header(BASE, perplexity_corpus_sha256="d0" * 32), ["other-corpus"]),
    ("arithmetic", BASE, with_header(BASE, settings={"check_dtype": "bfloat16"}), ["other-arithmetic"]),
    ("order", BASE, make_sequence(BASE), ["other-order"]),
    ("shuffled", make_sequence(BASE), make_sequence(replace(BASE, edits=BASE.edits[::-1])), ["other-order"]),
    ("unfinished", BASE, replace(BASE, footer=None), ["audit-unfinished"]),
    ("void", BASE, replace(BASE, controls=()), ["audit-void"]),
    ("failed", BASE, change_edits(BASE, lambda e: e.model_copy(update={"verdict": "fail"}), [0]), ["audit-failed"]),
    ("refused", BASE, change_edits(BASE, refuse, [0]), ["new-refusals"]),
    (
        "collapse",
        BASE,
        change_edits(BASE, set_ratio(30.0), [0]),
        ["audit-failed", "new-collapse", "regressed:worst-perplexity-ratio"],
    ),
    ("half judged", BASE, change_edits(BASE, HALF, [0]), ["unmeasured:efficacy-prefixed"]),
    (
        "not taken",
        BASE,
        change_edits(BASE, drop_measurement("locality", "unprefixed", "exact"), [0]),
        ["unmeasured:answers-unprefixed"],
    ),
    (
        "ratio not finite",
        BASE,
        change_edits(BASE, set_ratio(None), [0]),
        [
            "audit-failed",
            "new-collapse",
            "missing-checks",
            "unmeasured:perplexity-ratio",
            "unmeasured:worst-perplexity-ratio",
        ],
    ),
    ("another's check", change_edits(BASE, add_check("toxicity"), range(14)), BASE, ["missing-checks"]),
    ("regressed", BASE, change_edits(BASE, fail_measurement(), range(5)), ["regressed:efficacy-prefixed"]),
    ("worst", BASE, change_edits(BASE, scale_ratio(1.2), [0]), ["regressed:worst-perplexity-ratio"]),
    ("no cases", BASE, recount(replace(BASE, edits=())), ["audit-failed", "no-cases", "missing-edits"]),
]


@pytest.mark.parametrize(("before", "after", "names"), [case[1:] for case in CLOSED], ids=[case[0] for case in CLOSED])
def test_judge_gate_each_ground_closes_by_name(before: Log, after: Log, names: list[str]) -> None:
    gate = judged(before, after)
    assert not gate.open
    assert gate.exit_code == 1
    assert keys(gate) == names


def test_judge_gate_no_common_edit_is_no_case() -> None:
    log = make_audit(4)
    renamed = change_edits(log, lambda edit: edit.model_copy(update={"id": f"new {edit.id}"}), range(4))
    assert keys(judged(log, renamed)) == ["no-cases", "missing-edits", "new-edits"]


def test_judge_gate_same_audit_is_open() -> None:
    gate = judged(BASE, BASE)
    assert (gate.open, gate.closings, gate.exit_code) == (True, [], 0)


@given(st.lists(st.integers(0, 13), unique=True, max_size=5), st.floats(1, 3), st.sampled_from(range(14)))
@settings(max_examples=10, deadline=None)
def test_judge_gate_any_audit_against_itself_never_regresses(collapsed: list[int], factor: float, refusal: int) -> None:
    log = change_edits(change_edits(BASE, scale_ratio(factor), collapsed), refuse, [refusal])
    assert {closing.reason for closing in judged(log, log).closings} <= {ReasonCode.AUDIT_FAILED}


def test_judge_gate_missing_check_names_its_edits() -> None:
    before = change_edits(change_edits(BASE, add_check("toxicity"), [0, 3, 5]), add_check("tone"), [0])
    gate = judged(before, change_edits(BASE, add_check("toxicity"), [3]))
    assert keys(gate) == ["missing-checks", "missing-checks"]
    tone, toxicity = (closing.message for closing in gate.closings)
    assert tone == "The check 'tone' judged 1 edit in the baseline, but not now: 'case-0000'."
    assert "'toxicity' judged 2 edits in the baseline, but not now: 'case-0000', 'case-0005'" in toxicity


def test_judge_gate_missing_check_needs_edit_made_in_both() -> None:
    before = change_edits(BASE, add_check("toxicity"), [0])
    assert keys(judged(before, change_edits(BASE, refuse, [0]))) == ["new-refusals"]
    assert judged(BASE, before).open
    info = MeasurementRecord(check="tone", metric="share", value=0.0, verdict="info")
    informed = change_edits(
        BASE, lambda edit: edit.model_copy(update={"measurements": [*edit.measurements, info]}), [0]
    )
    assert judged(informed, BASE).open


def test_judge_gate_improvement_is_open() -> None:
    better = change_edits(BASE, scale_ratio(0.97), range(14))
    assert judged(change_edits(BASE, fail_measurement(), range(5)), better).open


def test_judge_gate_accepted_set_change_is_open_and_listed() -> None:
    gate = judged(BASE, recount(replace(BASE, edits=BASE.edits[1:])), accepted=frozenset({ReasonCode.MISSING_EDITS}))
    assert gate.open
    assert "case-0000" in gate.accepted[0]


def test_judge_gate_collapse_closes_also_in_new_edit() -> None:
    off = [f"{metric}:off" for metric in read_allowances().limits]
    before = recount(replace(BASE, edits=BASE.edits[1:]))
    gate = judge_gate(
        make_baseline(before),
        make_baseline(change_edits(BASE, set_ratio(30.0), [0])),
        ("a", "b"),
        read_allowances(off),
        accepted=frozenset({ReasonCode.NEW_EDITS}),
    )
    assert keys(gate) == ["audit-failed", "new-collapse"]
    # One that collapsed before is nothing new, and the audit's own verdict says enough.
    both = change_edits(BASE, set_ratio(30.0), [0])
    assert keys(judged(both, both)) == ["audit-failed"]


# ------------------------------------------------------------------------------------------------- noise and damage


def lose(edits: int, total: int) -> Gate:
    return judged(make_audit(total), change_edits(make_audit(total), fail_measurement(), range(edits)))


def test_judge_gate_three_of_sixty_lost_closes() -> None:
    assert keys(lose(3, 60)) == ["regressed:efficacy-prefixed"]


def losing(edits: int, total: int) -> MetricChange:
    tally = Tally(passed=1, failed=0, not_judged=0, total=1)
    gone = Tally(passed=0, failed=1, not_judged=0, total=1)
    edit = make_baseline(make_audit(1)).edits[0]
    before, after = (edit.model_copy(update={"metrics": {Metric.EFFICACY_PREFIXED: t}}) for t in (tally, gone))
    metric_change = compare_metric(
        Metric.EFFICACY_PREFIXED, [EditPair(before, after if i < edits else before) for i in range(total)], 20
    )
    assert metric_change is not None
    return metric_change


def test_regressed_three_lost_edits_of_any_number_only() -> None:
    for total in range(FEWEST, 301):
        assert regressed(losing(3, total), 0.0), total
        assert not regressed(losing(2, total), 0.0), total


def test_judge_gate_two_of_sixty_may_be_noise() -> None:
    gate = lose(2, 60)
    assert gate.open
    (change,) = (
        metric_change for metric_change in gate.comparison.metrics if metric_change.metric == "efficacy-prefixed"
    )  # type: ignore[union-attr]
    assert change.worse == pytest.approx(2 / 60)
    assert change.low == 0


def test_judge_gate_equal_damage_in_every_edit_closes() -> None:
    one_less = change_measurement("efficacy", "prefixed", "exact", passed=16, failed=1, value=16 / 17)
    assert keys(judged(BASE, change_edits(BASE, one_less, range(14)))) == ["regressed:efficacy-prefixed"]
    assert judged(BASE, change_edits(BASE, one_less, range(14)), "efficacy-prefixed:6%").open


def test_judge_gate_few_edits_have_no_excuse() -> None:
    assert keys(lose(1, FEWEST - 1)) == ["regressed:efficacy-prefixed"]
    assert lose(1, FEWEST).open


def test_judge_gate_ratio_within_allowance_is_open() -> None:
    after = change_edits(BASE, scale_ratio(1.02), range(14))
    assert keys(judged(BASE, after)) == ["regressed:perplexity-ratio"]
    assert judged(BASE, after, "perplexity-ratio:2.1%").open
    assert keys(judged(BASE, after, "perplexity-ratio:off", "worst-perplexity-ratio:1%")) == [
        "regressed:worst-perplexity-ratio"
    ]


@pytest.mark.parametrize("given", [["generalization-prefixed:5%"], ["efficacy-prefixed-probability:1%"]])
def test_judge_gate_requested_metric_nowhere_closes(given: Sequence[str]) -> None:
    assert judged(BASE, BASE).open
    assert keys(judged(BASE, BASE, *given)) == [f"unmeasured:{given[0].partition(':')[0]}"]


def test_judge_gate_message_has_damage_interval_and_allowance() -> None:
    (closing,) = lose(3, 60).closings
    assert "worse by 5.00 percentage points (90 % interval" in closing.message
    assert "2 are allowed" in closing.message
    assert "over 60 edits" in closing.message


def test_judge_gate_other_dtypes_are_named() -> None:
    before, after = (with_header(BASE, settings={"check_dtype": dtype}) for dtype in ("float32", "bfloat16"))
    (closing,) = judged(before, after).closings
    assert closing.message == "The checks computed in float32, now in bfloat16."


def test_judge_gate_other_engine_and_statistics_close_nothing() -> None:
    other = BASE.header.statistics.model_copy(update={"sha256": "cd" * 32})
    before, after = with_header(BASE, settings={"engine": "live"}), with_header(BASE, settings={"engine": "reference"})
    gate = judged(before, with_header(after, statistics=other))
    assert gate.open
    assert gate.comparison is not None
    assert gate.comparison.notes == [
        "The engine is another: live, now reference.",
        "The hash of the key statistics is another: ab12ab12ab12, now cdcdcdcdcdcd.",
    ]


def test_judge_gate_other_policy_names_keys() -> None:
    after = with_header(BASE, policy=BASE.header.policy | {"min_locality": 0.1})
    (closing,) = judged(BASE, after).closings
    assert "'min_locality'" in closing.message


def test_judge_gate_lost_serving_closes_if_requested() -> None:
    every = range(len(BASE.edits))
    before, after = (change_edits(BASE, add_served_efficacy(says), every) for says in (True, False))
    assert judged(before, after).open
    assert keys(judged(before, after, "efficacy-served:5%")) == ["regressed:efficacy-served"]
    # An audit from before it was measured: what was asked for and is not there never passes.
    assert judged(BASE, before).open
    assert keys(judged(BASE, before, "efficacy-served:5%")) == ["unmeasured:efficacy-served"]


def test_judge_gate_requested_metric_missing_names_others() -> None:
    requested = read_allowances(["efficacy-prefixed:5%"])
    bare = change_edits(make_audit(), drop_measurement("efficacy", "prefixed", "exact"), range(14))
    gate = judge_gate(make_baseline(bare), make_baseline(bare), ("main@1", "now"), requested)
    (closing,) = gate.closings
    assert closing.key == "unmeasured:efficacy-prefixed"
    assert closing.message.endswith("no edit of both sides has it; measured in both: efficacy-unprefixed.")
