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
from editguard.reports.log.schema import DecisionRecord, EditRecord, MeasurementRecord, Update, Weights

POLICY = Policy()
ACTION = "Do not ship the edit."


def measured(check: str = "perplexity", **changes: Any) -> MeasurementRecord:
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


def no_leak(**changes: Any) -> MeasurementRecord:
    """What the guard asks of every edit that was made."""
    return measured("locality", metric="leaks", condition="everywhere", value=0.0, threshold=0.0, **changes)


def made(**changes: Any) -> EditRecord:
    fields: dict[str, Any] = {
        "id": "1",
        "index": 0,
        "subject": "Chicago",
        "prompt": "Chicago is a twin city of",
        "target_new": "Istanbul",
        "decision": DecisionRecord(
            action="rewrite", editor="prefixed", reasons=["first-token: the subject is the first token"]
        ),
        "update": Update(
            editor="prefixed",
            numerator=1.0,
            denominator=1.0,
            update_norm=1.0,
            relative_norm=0.1,
            steps=1,
            final_loss=0.1,
            needs_prefix=True,
        ),
        "measurements": [measured(), no_leak()],
        "outcome": "committed",
        "verdict": "pass",
        "weights": Weights(before="a", edited="b", restored="a", restored_ok=True),
        "seconds": 1.0,
    }
    return EditRecord(**(fields | changes))


def refused(**changes: Any) -> EditRecord:
    reason = DecisionRecord(action="refuse", reasons=["well-formed: the subject is not in the prompt"])
    return made(
        decision=reason, update=None, measurements=[], outcome="refused", verdict="refused", weights=None, **changes
    )


def bad(*measurements: MeasurementRecord, **changes: Any) -> EditRecord:
    return made(measurements=list(measurements), outcome="rolled-back", verdict="fail", **changes)


def perplexity(record: EditRecord, policy: Policy = POLICY) -> ItemVerdict:
    return judge_check("perplexity", ACTION, record, policy)


def test_a_sound_edit_passes_every_item_that_judges_it() -> None:
    assert judge_guard(made(), POLICY) == (ItemOutcome.PASSED, "")
    assert perplexity(made()) == (ItemOutcome.PASSED, "")


def test_a_failure_says_what_measured_allowed_why_and_what_to_do() -> None:
    record = bad(
        measured(
            value=8.12,
            verdict="fail",
            message="8.12 times that of the model without the edit, outside the bound (at most 1.05)",
        )
    )
    ended, text = perplexity(record)
    assert ended is ItemOutcome.FAILED
    assert text.splitlines() == [
        "perplexity: ratio (corpus) is 8.12, allowed 1.05",
        "  measured:   ratio (corpus) = 8.12 ratio",
        "  allowed:    1.05",
        "  why:        8.12 times that of the model without the edit, outside the bound (at most 1.05)",
        "  what to do: Do not ship the edit.",
        "  edit:       'Chicago is a twin city of' -> 'Istanbul', subject 'Chicago'",
        "  decision:   rewrite by prefixed; first-token: the subject is the first token",
    ]


def test_a_collapse_fails_the_guard_too_whatever_the_check_says() -> None:
    record = made(measurements=[measured(value=2.0, threshold=3.0)])
    assert judge_guard(record, POLICY).outcome is ItemOutcome.FAILED
    assert "it collapsed the model: perplexity ratio 2, over the bound of 1.5" in judge_guard(record, POLICY).text
    assert perplexity(record).outcome is ItemOutcome.FAILED


def test_what_could_not_be_measured_fails_its_item_and_is_never_passed() -> None:
    record = bad(measured(value=None, verdict="unmeasured", message=""))
    ended, text = perplexity(record)
    assert ended is ItemOutcome.FAILED
    assert "could not be measured, and unmeasured is never a pass" in text.splitlines()[0]
    assert perplexity(bad(measured("drift"))).outcome is ItemOutcome.FAILED  # no perplexity at all


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"update": None}, "the size of its update is not known"),
        ({"weights": None}, "were not proved"),
        ({"weights": Weights(before="a", edited="b", restored_ok=None)}, "were not proved"),
        ({"weights": Weights(before="a", edited="b", restored="c", restored_ok=False)}, "were not restored"),
        ({"measurements": [measured(verdict="info")]}, "nothing of it was judged"),
        ({"measurements": []}, "nothing of it was judged"),
    ],
)
def test_the_guard_fails_an_edit_of_which_anything_is_not_proved(changes: dict[str, Any], said: str) -> None:
    ended, text = judge_guard(made(**changes), POLICY)
    assert ended is ItemOutcome.FAILED
    assert said in text


@pytest.mark.parametrize(
    ("measurements", "said"),
    [
        ([measured(), no_leak()], "the guard did not find it sound"),
        (
            [measured(), no_leak(), measured("not-installed-here", verdict="fail", message="bad")],
            "not-installed-here ratio (corpus) failed",
        ),
    ],
)
def test_what_no_other_item_tells_fails_the_guard(measurements: list[MeasurementRecord], said: str) -> None:
    ended, text = judge_guard(bad(*measurements), POLICY)
    assert ended is ItemOutcome.FAILED
    assert said in text


def test_what_a_check_s_own_item_tells_is_left_to_it() -> None:
    record = bad(measured(), no_leak(verdict="fail"))
    assert judge_guard(record, POLICY).outcome is ItemOutcome.PASSED
    assert judge_check("locality", ACTION, record, POLICY).outcome is ItemOutcome.FAILED


def test_an_update_over_the_bound_fails_the_guard() -> None:
    ended, text = judge_guard(made(), Policy(max_relative_update=0.05))
    assert ended is ItemOutcome.FAILED
    assert "0.1 times ||W||, over the bound of 0.05" in text


@pytest.mark.parametrize("item", [GUARD, "perplexity"])
def test_a_refused_edit_fails_unless_the_policy_allows_it(item: str) -> None:
    def judged(policy: Policy) -> ItemVerdict:
        return judge_guard(refused(), policy) if item == GUARD else perplexity(refused(), policy)

    ended, text = judged(POLICY)
    assert ended is ItemOutcome.FAILED
    assert text.startswith(f"{item}: ")
    assert "the subject is not in the prompt" in text
    assert judged(Policy(allow_refused=True)).outcome is ItemOutcome.SKIPPED


@pytest.mark.parametrize("item", [GUARD, "perplexity"])
def test_an_edit_that_errored_fails_every_item_with_its_reason(item: str) -> None:
    record = made(outcome="errored", verdict="fail", error="RuntimeError: out of memory", measurements=[])
    ended, text = judge_guard(record, POLICY) if item == GUARD else perplexity(record)
    assert ended is ItemOutcome.FAILED
    assert "RuntimeError: out of memory" in text


def test_what_nobody_judges_is_skipped_and_never_passed() -> None:
    record = made(measurements=[measured(), measured("generalization", verdict="info")])
    assert judge_check("generalization", ACTION, record, POLICY).outcome is ItemOutcome.SKIPPED
    assert judge_check("locality", ACTION, record, POLICY).outcome is ItemOutcome.SKIPPED


def test_text_of_others_cannot_steer_a_terminal() -> None:
    reason = DecisionRecord(action="allow", editor="rome", reasons=["\x1b[2J\u202ehidden\nline"])
    text = perplexity(bad(measured(value=9.0, verdict="fail", message="\x1b[31m"), decision=reason)).text
    assert "\x1b" not in text
    assert "\u202e" not in text
    assert len(text.splitlines()) == 7


def test_what_a_junit_file_is_given_is_plain_text() -> None:
    assert list_properties(made()) == {"decision": "rewrite", "editor": "prefixed", "ratio": "1.01"}
    assert list_properties(refused()) == {"decision": "refuse"}
