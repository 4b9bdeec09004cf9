"""Why an edit failed and what to do: one sentence each, the gravest fault first, with the words of what leaked."""

from __future__ import annotations

import random
from collections.abc import Sequence
from typing import Any

import pytest
from editguard.reports.log.schema import ControlRecord, DecisionRecord, EditRecord, Header, MeasurementRecord, Weights
from editguard.reports.verdict.edit_summary import (
    LOCALITY_MISSING,
    EditSummary,
    EditVerdict,
    judges_leaks,
    summarise_edits,
)
from editguard.reports.verdict.explanation import Explanation, Ground, explain, list_explanations

from ...helpers import synthetic_logs as synthetic
from ...helpers.generated_logs import ENDS, ended
from ...helpers.leak_logs import checked, counted, lost, outcome
from ...helpers.synthetic_logs import HASH, perplexity

NEW = {"collapse_ratio": 1.5, "max_leaks": 0.0}


def head(**changes: Any) -> Header:
    return synthetic.header(1, **({"policy": NEW, "settings": {"steps": 20}} | changes))


def story(record: EditRecord | ControlRecord, header: Header) -> EditSummary:
    (found,) = summarise_edits([record], 1.5, leaks_judged=judges_leaks(header))
    return found


def explained(record: EditRecord, **changes: Any) -> Explanation:
    found = explain(story(record, head(**changes)), head(**changes))
    assert found is not None
    return found


def failing(*measurements: MeasurementRecord, **changes: Any) -> EditRecord:
    """Return an edit that has `measurements` beside those that pass, and failed."""
    return checked(more=measurements, **changes)


def failed(
    check: str, metric: str, condition: str = "unprefixed", value: float | None = 0.1, **changes: Any
) -> MeasurementRecord:
    verdict = "unmeasured" if value is None else "fail"
    return MeasurementRecord(check=check, metric=metric, condition=condition, value=value, verdict=verdict, **changes)


def test_explain_a_leak_quotes_the_words_and_counts_the_prompts() -> None:
    found = explained(checked(leaks=2, target_new="Elon Musk"))
    assert found.ground is Ground.LEAK
    assert found.why == (
        "It leaks: 'Facebook is owned by' now says 'Elon Musk, and' (before: 'the company'); "
        "2 of 6 prompts about other subjects do."
    )
    assert found.advice == (
        "Do not ship this edit. Try --editor prefixed, another layer (--layer) or a shorter target."
    )
    assert found.leak in found.why


def test_explain_a_leak_of_a_made_neighbour_says_that_the_audit_made_it() -> None:
    assert (
        "'Facebook is owned by' (made by the audit) now says" in explained(checked(leaks=1, role="made-neighbour")).why
    )


def test_explain_a_leak_with_the_same_words_gives_the_probability() -> None:
    record = checked(leaks=1).model_copy(update={"prompts": [outcome("Bay is in", "leak", target_after=0.34)]})
    assert "'Bay is in' now gives 'Italy' the probability 0.34 (before: 0.004); 1 of 1 prompts" in explained(record).why


def test_explain_a_leak_without_prompts_in_the_log_gives_the_counts() -> None:
    record = checked(leaks=2).model_copy(update={"prompts": []})
    found = explained(record)
    assert (found.why, found.leak) == ("It leaks: 2 of 6 prompts about other subjects do.", "")


def test_explain_other_facts_names_the_subject() -> None:
    found = explained(checked(fact_leaks=2, subject="Turkey", target_new="Türkiye"))
    assert found.ground is Ground.OTHER_FACT_LEAK
    assert found.why == (
        'Turkey says the target to other questions: "Turkey\'s currency is the" (made by the audit) now says '
        "'Türkiye, and' (before: 'lira'); 2 of 3 prompts about it do."
    )


GRAVITY: Sequence[tuple[Ground, MeasurementRecord | None, dict[str, Any]]] = [
    (Ground.COLLAPSE, None, {"measurements": [perplexity(40.0)]}),
    (Ground.NOT_RESTORED, None, {"weights": Weights(before=HASH, edited="1", restored="2", restored_ok=False)}),
    (Ground.LEAK, counted("locality", "leaks", 1, 6), {}),
    (Ground.OTHER_FACT_LEAK, counted("other-facts", "leaks", 1, 3), {}),
    (Ground.NOT_MEASURED, failed("drift", "relative-drift", value=None), {}),
    (Ground.DID_NOT_TAKE, failed("efficacy", "efficacy", "prefixed", passed=3, failed=33, total=36), {}),
    (Ground.PERPLEXITY, perplexity(1.2, bound=1.05), {}),
    (Ground.FLIP, counted("locality", "flips", 5, 6, 0.5), {}),
    (Ground.OTHER_FACT_FLIP, counted("other-facts", "flips", 3, 3, 0.5), {}),
    (Ground.REPEATS, failed("aftermath", "repeats", "chat", passed=1, failed=3, total=4), {}),
    (Ground.GENERALIZATION, failed("generalization", "rate", passed=0, failed=5, total=5), {}),
    (Ground.OTHER, failed("degeneracy", "word-entropy-ratio", message="entropy is 0.2, at least 0.5"), {}),
]


@pytest.mark.parametrize("place", range(len(GRAVITY)), ids=[ground.name for ground, _, _ in GRAVITY])
def test_explain_of_several_faults_takes_the_gravest(place: int) -> None:
    changes: dict[str, Any] = {}
    milder = GRAVITY[place:]
    for _, _, change in milder:
        changes |= change
    record = failing(*(one for _, one, _ in milder if one is not None))
    update = {name: value for name, value in changes.items() if name != "measurements"}
    if "measurements" in changes:
        update["measurements"] = [
            *(m for m in record.measurements if m.check != "perplexity"),
            *changes["measurements"],
        ]
    record = record.model_copy(update=update | {"verdict": "fail", "outcome": "rolled-back"})
    assert explained(record).ground is GRAVITY[place][0]


def test_explain_counts_each_other_check_that_failed_once() -> None:
    record = failing(
        failed("efficacy", "efficacy", "prefixed"),
        failed("efficacy", "efficacy", "served"),
        failed("degeneracy", "x"),
        leaks=1,
        flips=4,
    )
    assert explained(record).why.endswith("prompts about other subjects do; 2 other checks failed.")


def test_explain_an_efficacy_that_failed_says_counts_condition_and_bound() -> None:
    missed = failed("efficacy", "efficacy", "prefixed", 3 / 36, passed=3, failed=33, total=36, threshold=0.5)
    found = explained(failing(missed))
    assert found.why == (
        "It did not take: 3 of 36 prompts gave the target (after a prefix), and the policy asks for 50\u202f%."
    )
    assert "Try --editor prefixed" in found.advice


@pytest.mark.parametrize(
    ("target", "said", "advice"),
    [
        ("one two three four five", "the target of 5 words", "a shorter target"),
        ("New York", "the target 'New York'", "a shorter target"),
        ("Rome", "the target 'Rome'", "another target"),
    ],
)
def test_explain_a_search_that_used_all_steps_in_vain_says_so(target: str, said: str, advice: str) -> None:
    record = failing(failed("efficacy", "efficacy", "prefixed"), target_new=target)
    found = explained(record.model_copy(update={"update": lost(record)}))
    assert found.why == f"It did not take: the search did not reach {said} in 20 steps (loss 2.4)."
    assert found.advice == f"Do not ship this edit. Choose {advice}."


@pytest.mark.parametrize(
    ("loss", "steps", "settings"), [(0.4, 20, {"steps": 20}), (2.4, 7, {"steps": 20}), (2.4, 20, {})]
)
def test_explain_a_search_that_ended_well_or_early_is_not_called_hopeless(
    loss: float, steps: int, settings: dict[str, Any]
) -> None:
    record = failing(failed("efficacy", "efficacy", "prefixed"))
    record = record.model_copy(update={"update": lost(record, loss, steps)})
    assert "the search" not in explained(record, settings=settings).why


def test_explain_does_not_offer_the_editor_that_made_the_edit() -> None:
    record = checked(leaks=1)
    assert record.update is not None
    same = record.model_copy(update={"update": record.update.model_copy(update={"editor": "prefixed"})})
    assert "--editor" not in explained(same).advice
    assert "--editor careful" in explained(same, policy=NEW | {"rewrite_editor": "careful"}).advice


def test_explain_an_edit_without_judged_locality_is_a_fault_under_a_policy_with_max_leaks() -> None:
    record = synthetic.edit(1, random.Random(1))
    assert story(record, head()).own_faults == (LOCALITY_MISSING,)
    found = explained(record)
    assert found.why == "What it does to other subjects was not measured, and unmeasured is never a pass."
    assert "Give it neighbourhood prompts" in found.advice
    old = head(policy={"collapse_ratio": 1.5})
    assert story(record, old).result is EditVerdict.PASSED
    assert explain(story(record, old), old) is None
    assert story(checked(), head()).result is EditVerdict.PASSED


def test_explain_a_refusal_gives_the_reason_that_decided() -> None:
    first = explained(ended("refused"))
    assert first.why == "It was refused: its subject is not in the prompt."
    assert first.advice.startswith("Correct the request")
    seen = ended("refused when its update was seen")
    two = seen.model_copy(
        update={"decision": DecisionRecord(action="refuse", reasons=["first-token: it is", "update: too large"])}
    )
    assert explained(two).why == "It was refused: update: too large."
    closed = ended("refused", decision=DecisionRecord(action="refuse", reasons=["the sequence is closed since 'a'"]))
    assert explained(closed).advice == "Ship the edits before it, or audit this one by itself."


def test_explain_a_rewritten_edit_says_the_prefix_and_gives_no_advice() -> None:
    record = synthetic.edit(0, random.Random(1))
    assert record.update is not None
    served = record.model_copy(update={"update": record.update.model_copy(update={"prefix": "\n"})})
    old = {"policy": {"collapse_ratio": 1.5}}
    found = explained(served, **old)
    assert (found.ground, found.advice) == (Ground.REWRITTEN, "")
    assert found.why.startswith("It was rewritten: The subject is the first token;")
    assert found.why.endswith(r"Serve it after the prefix '\n'.")
    assert explained(record, **old).why.endswith("It works only after a prefix, and the log names none that serves it.")
    plain = record.update.model_copy(update={"needs_prefix": False})
    assert explained(record.model_copy(update={"update": plain}), **old).why.endswith("It needs no prefix.")


def test_explain_an_edit_that_passed_as_asked_is_none_unless_it_leaks() -> None:
    assert explain(story(checked(), head()), head()) is None
    allowed = checked().model_copy(update={"prompts": [outcome("Warsaw is in", "leak", after="Italy")]})
    found = explained(allowed)
    assert (found.ground, found.advice) == (Ground.ALLOWED_LEAK, "")
    assert found.why.startswith("It leaks as far as the policy allows: 'Warsaw is in' now says 'Italy'")
    rewritten = checked(0).model_copy(update={"prompts": allowed.prompts})
    why = explained(rewritten).why
    assert why.startswith("It was rewritten: ")
    assert "It leaks as far as the policy allows: 'Warsaw is in' now says 'Italy'" in why


def test_explain_an_edit_over_the_drift_of_its_sequence_advises_to_end_it_before() -> None:
    found = explained(failing(failed("accumulated-drift", "perplexity-ratio", "sequence", message="1.2, at most 1.1")))
    assert (found.ground, found.why) == (Ground.OTHER, "The check 'accumulated-drift' failed: 1.2, at most 1.1.")
    assert "End the sequence before it" in found.advice


@pytest.mark.parametrize("how", sorted(set(ENDS) - {"sound"}))
def test_explain_every_end_but_a_pass_says_why_and_what_to_do(how: str) -> None:
    found = explained(ended(how), policy={"collapse_ratio": 1.5})
    assert found.why.endswith(".")
    assert found.why[0].isupper()
    assert found.advice.endswith(".")


def test_explain_an_error_quotes_it_and_asks_to_remove_its_cause() -> None:
    found = explained(ended("errored"))
    assert (found.ground, found.why) == (Ground.ERROR, "It ended in an error: RuntimeError: out of memory.")
    assert "Remove the cause" in found.advice


def test_explain_long_and_hidden_text_is_cut_and_spelled_out() -> None:
    record = checked(leaks=1).model_copy(
        update={"prompts": [outcome("a" * 999, "leak", after="\u202eb\x1b[31m" + "c" * 999)]}
    )
    why = explained(record).why
    assert len(why) < 500
    assert "(999 characters)" in why
    assert not {"\u202e", "\x1b"} & set(why)


def test_listed_stories_come_failed_first_and_passed_last() -> None:
    records = [synthetic.edit(0, random.Random(1)), ended("refused"), checked(leaks=1), checked()]
    found = list_explanations([story(one, head(policy={"collapse_ratio": 1.5})) for one in records], head())
    assert [one.result for one, _ in found] == [EditVerdict.FAILED, EditVerdict.REFUSED, EditVerdict.PASSED]
