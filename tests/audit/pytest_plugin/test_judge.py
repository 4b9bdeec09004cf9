"""The verdict of one item, from a record: what fails, what is skipped, and what a person reads."""

from __future__ import annotations

from typing import Any

import pytest
from editguard.audit.policy import Policy
from editguard.audit.pytest_plugin.judge import (
    GUARD,
    ItemOutcome,
    ItemVerdict,
    judge_check,
    judge_guard,
    list_properties,
)
from editguard.reports.log.schema import DecisionRecord, EditRecord, MeasurementRecord

from ...helpers.log_updates import make_one_site_update, make_weights

POLICY = Policy()
ACTION = "Do not ship the edit."


def build_measurement(check: str = "perplexity", **changes: Any) -> MeasurementRecord:
    fields = {
        "check": check,
        "metric": "ratio",
        "condition": "corpus",
        "value": 1.01,
        "threshold": 1.05,
        "unit": "ratio",
        "verdict": "pass",
        "message": "1.01 times that of the model without the edit, inside the bound (at most 1.05)",
    }
    return MeasurementRecord(**(fields | changes))


def build_no_leak(**changes: Any) -> MeasurementRecord:
    """What the guard asks of every edit that was made."""
    return build_measurement("locality", metric="leaks", condition="everywhere", value=0.0, threshold=0.0, **changes)


def build_record(**changes: Any) -> EditRecord:
    fields: dict[str, Any] = {
        "id": "1",
        "index": 0,
        "subject": "Chicago",
        "prompt": "Chicago is a twin city of",
        "target_new": "Istanbul",
        "decision": DecisionRecord(
            action="rewrite", editor="prefixed", reasons=["first-token: the subject is the first token"]
        ),
        "update": make_one_site_update(
            editor="prefixed",
            numerator=1.0,
            denominator=1.0,
            update_norm=1.0,
            relative_norm=0.1,
            steps=1,
            final_loss=0.1,
            needs_prefix=True,
        ),
        "measurements": [build_measurement(), build_no_leak()],
        "outcome": "committed",
        "verdict": "pass",
        "weights": make_weights(before="a", edited="b", restored="a", restored_ok=True),
        "seconds": 1.0,
    }
    return EditRecord(**(fields | changes))


def build_refusal(**changes: Any) -> EditRecord:
    reason = DecisionRecord(action="refuse", reasons=["well-formed: the subject is not in the prompt"])
    return build_record(
        decision=reason, update=None, measurements=[], outcome="refused", verdict="refused", weights=None, **changes
    )


def build_failure(*measurements: MeasurementRecord, **changes: Any) -> EditRecord:
    return build_record(measurements=list(measurements), outcome="rolled-back", verdict="fail", **changes)


def judge_perplexity(record: EditRecord, policy: Policy = POLICY) -> ItemVerdict:
    return judge_check("perplexity", ACTION, record, policy)


def test_judge_sound_edit_passes() -> None:
    assert judge_guard(build_record(), POLICY) == (ItemOutcome.PASSED, "")
    assert judge_perplexity(build_record()) == (ItemOutcome.PASSED, "")


def test_judge_check_failure_text_holds_value_bound_and_action() -> None:
    record = build_failure(
        build_measurement(
            value=8.12,
            verdict="fail",
            message="8.12 times that of the model without the edit, outside the bound (at most 1.05)",
        )
    )
    outcome, text = judge_perplexity(record)
    assert outcome is ItemOutcome.FAILED
    assert text.splitlines() == [
        "perplexity: ratio (corpus) is 8.12, allowed 1.05",
        "  measured:   ratio (corpus) = 8.12 ratio",
        "  allowed:    1.05",
        "  why:        8.12 times that of the model without the edit, outside the bound (at most 1.05)",
        "  what to do: Do not ship the edit.",
        "  edit:       'Chicago is a twin city of' -> 'Istanbul', subject 'Chicago'",
        "  decision:   rewrite by prefixed; first-token: the subject is the first token",
    ]


def test_judge_guard_collapse_fails_whatever_the_check_says() -> None:
    record = build_record(measurements=[build_measurement(value=2.0, threshold=3.0)])
    assert judge_guard(record, POLICY).outcome is ItemOutcome.FAILED
    assert "it collapsed the model: perplexity ratio 2, over the bound of 1.5" in judge_guard(record, POLICY).text
    assert judge_perplexity(record).outcome is ItemOutcome.FAILED


def test_judge_check_unmeasured_fails() -> None:
    record = build_failure(build_measurement(value=None, verdict="unmeasured", message=""))
    outcome, text = judge_perplexity(record)
    assert outcome is ItemOutcome.FAILED
    assert "could not be measured, and unmeasured is never a pass" in text.splitlines()[0]
    assert (
        judge_perplexity(build_failure(build_measurement("drift"))).outcome is ItemOutcome.FAILED
    )  # no perplexity at all


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"update": None}, "the size of its update is not known"),
        ({"weights": None}, "were not proved"),
        ({"weights": make_weights(before="a", edited="b", restored_ok=None)}, "were not proved"),
        ({"weights": make_weights(before="a", edited="b", restored="c", restored_ok=False)}, "were not restored"),
        ({"measurements": [build_measurement(verdict="info")]}, "nothing of it was judged"),
        ({"measurements": []}, "nothing of it was judged"),
    ],
)
def test_judge_guard_missing_proof_fails(changes: dict[str, Any], reason: str) -> None:
    outcome, text = judge_guard(build_record(**changes), POLICY)
    assert outcome is ItemOutcome.FAILED
    assert reason in text


@pytest.mark.parametrize(
    ("measurements", "reason"),
    [
        ([build_measurement(), build_no_leak()], "the guard did not find it sound"),
        (
            [
                build_measurement(),
                build_no_leak(),
                build_measurement("not-installed-here", verdict="fail", message="bad"),
            ],
            "not-installed-here ratio (corpus) failed",
        ),
    ],
)
def test_judge_guard_failure_without_another_item_fails(measurements: list[MeasurementRecord], reason: str) -> None:
    outcome, text = judge_guard(build_failure(*measurements), POLICY)
    assert outcome is ItemOutcome.FAILED
    assert reason in text


def test_judge_guard_leaves_failures_to_the_item_of_the_check() -> None:
    record = build_failure(build_measurement(), build_no_leak(verdict="fail"))
    assert judge_guard(record, POLICY).outcome is ItemOutcome.PASSED
    assert judge_check("locality", ACTION, record, POLICY).outcome is ItemOutcome.FAILED


def test_judge_guard_update_over_the_bound_fails() -> None:
    outcome, text = judge_guard(build_record(), Policy(max_relative_update=0.05))
    assert outcome is ItemOutcome.FAILED
    assert "0.1 times ||W||, over the bound of 0.05" in text


@pytest.mark.parametrize("item", [GUARD, "perplexity"])
def test_judge_refused_edit_fails_unless_the_policy_allows_it(item: str) -> None:
    def judged(policy: Policy) -> ItemVerdict:
        return judge_guard(build_refusal(), policy) if item == GUARD else judge_perplexity(build_refusal(), policy)

    outcome, text = judged(POLICY)
    assert outcome is ItemOutcome.FAILED
    assert text.startswith(f"{item}: ")
    assert "the subject is not in the prompt" in text
    assert judged(Policy(allow_refused=True)).outcome is ItemOutcome.SKIPPED


@pytest.mark.parametrize("item", [GUARD, "perplexity"])
def test_judge_errored_edit_fails_with_its_reason(item: str) -> None:
    record = build_record(outcome="errored", verdict="fail", error="RuntimeError: out of memory", measurements=[])
    outcome, text = judge_guard(record, POLICY) if item == GUARD else judge_perplexity(record)
    assert outcome is ItemOutcome.FAILED
    assert "RuntimeError: out of memory" in text


def test_judge_check_without_a_judged_value_is_skipped() -> None:
    record = build_record(measurements=[build_measurement(), build_measurement("generalization", verdict="info")])
    assert judge_check("generalization", ACTION, record, POLICY).outcome is ItemOutcome.SKIPPED
    assert judge_check("locality", ACTION, record, POLICY).outcome is ItemOutcome.SKIPPED


def test_judge_text_holds_no_control_characters() -> None:
    reason = DecisionRecord(action="allow", editor="rome", reasons=["\x1b[2J\u202ehidden\nline"])
    text = judge_perplexity(
        build_failure(build_measurement(value=9.0, verdict="fail", message="\x1b[31m"), decision=reason)
    ).text
    assert "\x1b" not in text
    assert "\u202e" not in text
    assert len(text.splitlines()) == 7


def test_list_properties_are_plain_text() -> None:
    assert list_properties(build_record()) == {"decision": "rewrite", "editor": "prefixed", "ratio": "1.01"}
    assert list_properties(build_refusal()) == {"decision": "refuse"}
