"""Why an edit failed and what to do: one sentence each, the gravest fault first, with the words of what leaked."""

from __future__ import annotations

import random
from collections.abc import Sequence
from typing import Any

import pytest
from editguard.reports.log.schema import ControlRecord, DecisionRecord, EditRecord, Header, MeasurementRecord
from editguard.reports.verdict.edit_summary import (
    LOCALITY_MISSING,
    EditSummary,
    EditVerdict,
    judges_leaks,
    summarise_edits,
)
from editguard.reports.verdict.explanation import Explanation, Ground, explain, list_explanations

from ...helpers import synthetic_logs as synthetic
from ...helpers.generated_logs import ENDS, make_ended_edit
from ...helpers.leak_logs import count_prompts, fail_search, make_checked_edit, make_prompt_outcome
from ...helpers.log_updates import make_weights
from ...helpers.synthetic_logs import HASH, make_perplexity

NEW = {"collapse_ratio": 1.5, "max_leaks": 0.0}


def head(**changes: Any) -> Header:
    return synthetic.make_header(1, **({"policy": NEW, "settings": {"steps": 20}} | changes))


def summarise_record(record: EditRecord | ControlRecord, header: Header) -> EditSummary:
    (summary,) = summarise_edits([record], 1.5, leaks_judged=judges_leaks(header))
    return summary


def explained(record: EditRecord, **changes: Any) -> Explanation:
    explanation = explain(summarise_record(record, head(**changes)), head(**changes))
    assert explanation is not None
    return explanation


def failing(*measurements: MeasurementRecord, **changes: Any) -> EditRecord:
    """Return an edit that has `measurements` beside those that pass, and failed."""
    return make_checked_edit(more=measurements, **changes)


def failed(
    check: str, metric: str, condition: str = "unprefixed", value: float | None = 0.1, **changes: Any
) -> MeasurementRecord:
    verdict = "unmeasured" if value is None else "fail"
    return MeasurementRecord(check=check, metric=metric, condition=condition, value=value, verdict=verdict, **changes)


def test_explain_leak_quotes_words_and_counts_prompts() -> None:
    explanation = explained(make_checked_edit(leaks=2, target_new="Elon Musk"))
    assert explanation.ground is Ground.LEAK
    assert explanation.why == (
        "It leaks: 'Facebook is owned by' now says 'Elon Musk, and' (before: 'the company'); "
        "2 of 6 prompts about other subjects do."
    )
    assert explanation.advice == (
        "Do not ship this edit. Try --editor everywhere, another layer (--layer) or a shorter target."
    )
    assert explanation.leak in explanation.why


def test_explain_leak_of_made_neighbour_names_its_origin() -> None:
    assert (
        "'Facebook is owned by' (made by the audit) now says"
        in explained(make_checked_edit(leaks=1, role="made-neighbour")).why
    )


@pytest.mark.parametrize("changed", [{"leaks": 1}, {"flips": 4}])
def test_explain_fault_in_made_neighbours_says_that_own_ones_can_be_asked(changed: dict[str, int]) -> None:
    made, own = (explained(make_checked_edit(role=role, **changed)).advice for role in ("made-neighbour", "neighbour"))
    assert made.removeprefix(own) == (
        " Prompts about neighbours of your own can be given as neighbourhood in the request; where they can show a leak, "
        "they are asked instead."
    )


def test_explain_leak_with_same_words_gives_probability() -> None:
    record = make_checked_edit(leaks=1).model_copy(
        update={"prompts": [make_prompt_outcome("Bay is in", "leak", target_after=0.34)]}
    )
    assert "'Bay is in' now gives 'Italy' the probability 0.34 (before: 0.004); 1 of 1 prompts" in explained(record).why


def test_explain_leak_without_prompts_gives_counts() -> None:
    record = make_checked_edit(leaks=2).model_copy(update={"prompts": []})
    explanation = explained(record)
    assert (explanation.why, explanation.leak) == ("It leaks: 2 of 6 prompts about other subjects do.", "")


def test_explain_other_facts_names_the_subject() -> None:
    explanation = explained(make_checked_edit(fact_leaks=2, subject="Turkey", target_new="Türkiye"))
    assert explanation.ground is Ground.OTHER_FACT_LEAK
    assert explanation.why == (
        'Turkey says the target to other questions: "Turkey\'s currency is the" (made by the audit) now says '
        "'Türkiye, and' (before: 'lira'); 2 of 3 prompts about it do."
    )


GRAVITY: Sequence[tuple[Ground, MeasurementRecord | None, dict[str, Any]]] = [
    (Ground.COLLAPSE, None, {"measurements": [make_perplexity(40.0)]}),
    (Ground.NOT_RESTORED, None, {"weights": make_weights(before=HASH, edited="1", restored="2", restored_ok=False)}),
    (Ground.LEAK, count_prompts("locality", "leaks", 1, 6), {}),
    (Ground.OTHER_FACT_LEAK, count_prompts("other-facts", "leaks", 1, 3), {}),
    (Ground.NOT_MEASURED, failed("drift", "relative-drift", value=None), {}),
    (Ground.DID_NOT_TAKE, failed("efficacy", "efficacy", "prefixed", passed=3, failed=33, total=36), {}),
    (Ground.PERPLEXITY, make_perplexity(1.2, bound=1.05), {}),
    (Ground.FLIP, count_prompts("locality", "flips", 5, 6, 0.5), {}),
    (Ground.OTHER_FACT_FLIP, count_prompts("other-facts", "flips", 3, 3, 0.5), {}),
    (Ground.REPEATS, failed("aftermath", "repeats", "chat", passed=1, failed=3, total=4), {}),
    (Ground.GENERALIZATION, failed("generalization", "rate", passed=0, failed=5, total=5), {}),
    (Ground.OTHER, failed("degeneracy", "word-entropy-ratio", message="entropy is 0.2, at least 0.5"), {}),
]


@pytest.mark.parametrize("place", range(len(GRAVITY)), ids=[ground.name for ground, _, _ in GRAVITY])
def test_explain_several_faults_takes_the_gravest(place: int) -> None:
    changes: dict[str, Any] = {}
    milder = GRAVITY[place:]
    for _, _, change in milder:
        changes |= change
    record = failing(*(measurement for _, measurement, _ in milder if measurement is not None))
    update = {name: value for name, value in changes.items() if name != "measurements"}
    if "measurements" in changes:
        update["measurements"] = [
            *(m for m in record.measurements if m.check != "perplexity"),
            *changes["measurements"],
        ]
    record = record.model_copy(update=update | {"verdict": "fail", "outcome": "rolled-back"})
    assert explained(record).ground is GRAVITY[place][0]


def test_explain_counts_each_other_failed_check_once() -> None:
    record = failing(
        failed("efficacy", "efficacy", "prefixed"),
        failed("efficacy", "efficacy", "served"),
        failed("degeneracy", "x"),
        leaks=1,
        flips=4,
    )
    assert explained(record).why.endswith("prompts about other subjects do; 2 other checks failed.")


def test_explain_failed_efficacy_has_counts_condition_and_bound() -> None:
    missed = failed("efficacy", "efficacy", "prefixed", 3 / 36, passed=3, failed=33, total=36, threshold=0.5)
    explanation = explained(failing(missed))
    assert explanation.why == (
        "It did not take: 3 of 36 prompts gave the target (after a prefix), and the policy asks for 50\u202f%."
    )
    assert "Try --editor everywhere" in explanation.advice


@pytest.mark.parametrize(
    ("target", "reason", "advice"),
    [
        ("one two three four five", "the target of 5 words", "a shorter target"),
        ("New York", "the target 'New York'", "a shorter target"),
        ("Rome", "the target 'Rome'", "another target"),
    ],
)
def test_explain_search_without_success_says_so(target: str, reason: str, advice: str) -> None:
    record = failing(failed("efficacy", "efficacy", "prefixed"), target_new=target)
    explanation = explained(record.model_copy(update={"update": fail_search(record)}))
    assert explanation.why == f"It did not take: the search did not reach {reason} in 20 steps (loss 2.4)."
    assert explanation.advice == f"Do not ship this edit. Choose {advice}."


@pytest.mark.parametrize(
    ("loss", "steps", "settings"), [(0.4, 20, {"steps": 20}), (2.4, 7, {"steps": 20}), (2.4, 20, {})]
)
def test_explain_search_ended_well_or_early_is_not_blamed(loss: float, steps: int, settings: dict[str, Any]) -> None:
    record = failing(failed("efficacy", "efficacy", "prefixed"))
    record = record.model_copy(update={"update": fail_search(record, loss, steps)})
    assert "the search" not in explained(record, settings=settings).why


def test_explain_does_not_offer_the_used_editor() -> None:
    record = make_checked_edit(leaks=1)
    assert record.update is not None
    same = record.model_copy(update={"update": record.update.model_copy(update={"editor": "everywhere"})})
    assert "--editor" not in explained(same).advice
    assert "--editor careful" in explained(same, policy=NEW | {"rewrite_editor": "careful"}).advice


def test_explain_missing_locality_is_fault_with_max_leaks() -> None:
    record = synthetic.make_edit(1, random.Random(1))
    assert summarise_record(record, head()).own_faults == (LOCALITY_MISSING,)
    explanation = explained(record)
    assert explanation.why == "What it does to other subjects was not measured, and unmeasured is never a pass."
    assert "Give it neighbourhood prompts" in explanation.advice
    old = head(policy={"collapse_ratio": 1.5})
    assert summarise_record(record, old).result is EditVerdict.PASSED
    assert explain(summarise_record(record, old), old) is None
    assert summarise_record(make_checked_edit(), head()).result is EditVerdict.PASSED


def test_explain_refusal_gives_deciding_reason() -> None:
    first = explained(make_ended_edit("refused"))
    assert first.why == "It was refused: its subject is not in the prompt."
    assert first.advice.startswith("Correct the request")
    stopped = make_ended_edit("refused when its update was seen")
    two = stopped.model_copy(
        update={"decision": DecisionRecord(action="refuse", reasons=["first-token: it is", "update: too large"])}
    )
    assert explained(two).why == "It was refused: update: too large."
    closed = make_ended_edit(
        "refused", decision=DecisionRecord(action="refuse", reasons=["the sequence is closed since 'a'"])
    )
    assert explained(closed).advice == "Ship the edits before it, or audit this one by itself."


def test_explain_rewritten_edit_has_prefix_and_no_advice() -> None:
    record = synthetic.make_edit(0, random.Random(1))
    assert record.update is not None
    served = record.model_copy(update={"update": record.update.model_copy(update={"prefix": "\n"})})
    old = {"policy": {"collapse_ratio": 1.5}}
    explanation = explained(served, **old)
    assert (explanation.ground, explanation.advice) == (Ground.REWRITTEN, "")
    assert explanation.why.startswith("It was rewritten: The subject is the first token;")
    assert explanation.why.endswith(r"Serve it after the prefix '\n'.")
    assert explained(record, **old).why.endswith("It works only after a prefix, and the log names none that serves it.")
    plain = record.update.model_copy(update={"needs_prefix": False})
    assert explained(record.model_copy(update={"update": plain}), **old).why.endswith("It needs no prefix.")


def test_explain_passed_edit_is_none_unless_it_leaks() -> None:
    assert explain(summarise_record(make_checked_edit(), head()), head()) is None
    allowed = make_checked_edit().model_copy(
        update={"prompts": [make_prompt_outcome("Warsaw is in", "leak", after="Italy")]}
    )
    explanation = explained(allowed)
    assert (explanation.ground, explanation.advice) == (Ground.ALLOWED_LEAK, "")
    assert explanation.why.startswith("It leaks as far as the policy allows: 'Warsaw is in' now says 'Italy'")
    rewritten = make_checked_edit(0).model_copy(update={"prompts": allowed.prompts})
    why = explained(rewritten).why
    assert why.startswith("It was rewritten: ")
    assert "It leaks as far as the policy allows: 'Warsaw is in' now says 'Italy'" in why


def test_explain_drift_over_bound_advises_earlier_end() -> None:
    explanation = explained(
        failing(failed("accumulated-drift", "perplexity-ratio", "sequence", message="1.2, at most 1.1"))
    )
    assert (explanation.ground, explanation.why) == (
        Ground.OTHER,
        "The check 'accumulated-drift' failed: 1.2, at most 1.1.",
    )
    assert "End the sequence before it" in explanation.advice


@pytest.mark.parametrize("how", sorted(set(ENDS) - {"sound"}))
def test_explain_every_failure_has_cause_and_advice(how: str) -> None:
    explanation = explained(make_ended_edit(how), policy={"collapse_ratio": 1.5})
    assert explanation.why.endswith(".")
    assert explanation.why[0].isupper()
    assert explanation.advice.endswith(".")


def test_explain_error_quotes_it_and_advises() -> None:
    explanation = explained(make_ended_edit("errored"))
    assert (explanation.ground, explanation.why) == (Ground.ERROR, "It ended in an error: RuntimeError: out of memory.")
    assert "Remove the cause" in explanation.advice


def test_explain_long_and_hidden_text_is_cut_and_named() -> None:
    record = make_checked_edit(leaks=1).model_copy(
        update={"prompts": [make_prompt_outcome("a" * 999, "leak", after="\u202eb\x1b[31m" + "c" * 999)]}
    )
    why = explained(record).why
    assert len(why) < 500
    assert "(999 characters)" in why
    assert not {"\u202e", "\x1b"} & set(why)


def test_list_explanations_failed_first_passed_last() -> None:
    records = [
        synthetic.make_edit(0, random.Random(1)),
        make_ended_edit("refused"),
        make_checked_edit(leaks=1),
        make_checked_edit(),
    ]
    listing = list_explanations(
        [summarise_record(item, head(policy={"collapse_ratio": 1.5})) for item in records], head()
    )
    assert [item.result for item, _ in listing] == [EditVerdict.FAILED, EditVerdict.REFUSED, EditVerdict.PASSED]
