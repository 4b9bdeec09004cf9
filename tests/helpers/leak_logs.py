"""Edits with outcomes of the prompts that they must not change: kept, near ties, flips and leaks under many conditions."""

from __future__ import annotations

import random
from collections.abc import Iterable, Sequence
from dataclasses import replace
from typing import Any

from editguard.reports.log.file import Log
from editguard.reports.log.prompt_outcomes import PromptOutcome, PromptResult, PromptRole
from editguard.reports.log.schema import EditRecord, MeasurementRecord, Update

from .synthetic_logs import make_edit, make_log, make_measurement, make_perplexity

CONDITIONS = (
    "unprefixed",
    "family:newline",
    "family:sentence",
    "family:chat",
    "special:<|im_start|>",
    "special:<|endoftext|>",
    "served",
)
NEIGHBOURS = [
    ("Facebook is owned by", "the company"),
    ("The Eiffel Tower stands in", "Paris"),
    ("Warsaw is the capital of", "Poland"),
    ("The mother tongue of Victor Hugo is", "French"),
    ("Madrid lies in", "Spain"),
    ("Beethoven played the", "piano"),
]
FACTS = [
    ("Turkey's currency is the", "lira"),
    ("Turkey's largest city is", "Istanbul"),
    ("Turkey borders on", "Greece"),
]


def make_prompt_outcome(
    prompt: str,
    result: str = "kept",
    condition: str = "unprefixed",
    role: str = "neighbour",
    before: str = "the company",
    after: str = "",
    **changes: Any,
) -> PromptOutcome:
    """Return the outcome of a prompt under one condition. Its answer is kept unless `after` is given."""
    values: dict[str, Any] = {"margin": 1.7, "target_before": 0.004, "target_after": 0.01, "divergence": 0.02}
    return PromptOutcome(
        role=PromptRole(role),
        condition=condition,
        prompt=prompt,
        before=before,
        after=after or before,
        result=PromptResult(result),
        **(values | changes),
    )


def make_prompt_outcomes(
    target: str,
    *,
    leaks: int = 0,
    flips: int = 0,
    role: str = "neighbour",
    prompts: Sequence[tuple[str, str]] = NEIGHBOURS,
) -> list[PromptOutcome]:
    """Return every prompt under every condition.

    The first `leaks` prompts say `target` under two conditions. The next `flips` flip under one.
    """
    outcomes = []
    for place, (prompt, answer) in enumerate(prompts):
        for order, condition in enumerate(CONDITIONS):
            result, after = "kept", answer
            if place < leaks and order in (0, 2):
                result, after = "leak", f"{target}, and"
            elif leaks <= place < leaks + flips and order == 1:
                result, after = "flip", "something else"
            elif order == 3 and place == leaks + flips:
                result, after = "near-tie", "the city"
            rise = {"target_after": 0.61} if result == "leak" else {}
            outcomes.append(make_prompt_outcome(prompt, result, condition, role, answer, after, **rise))
    return outcomes


def count_prompts(check: str, metric: str, failed: int, total: int, most: float = 0.0) -> MeasurementRecord:
    """Return a measurement that counts prompts with `metric` over all conditions."""
    return MeasurementRecord(
        check=check,
        metric=metric,
        condition="everywhere",
        protocol="exact",
        value=failed / total,
        threshold=most,
        unit="share",
        passed=total - failed,
        failed=failed,
        total=total,
        verdict="pass" if failed / total <= most else "fail",
        message=f"{failed} of {total} prompts",
    )


def make_checked_edit(
    index: int = 1,
    *,
    leaks: int = 0,
    flips: int = 0,
    fact_leaks: int = 0,
    role: str = "neighbour",
    more: Iterable[MeasurementRecord] = (),
    **changes: Any,
) -> EditRecord:
    """Return an edit with prompts about other subjects and other facts, and the checks' counts of them."""
    base = make_edit(index, random.Random(index))
    target = changes.get("target_new", base.target_new)
    measurements = [
        make_measurement("efficacy", "unprefixed", 1, 1),
        make_measurement("efficacy", "special:<|im_start|>", 1, 1),
        make_measurement("efficacy", "prefixed", 36, 36),
        make_measurement("efficacy", "family:newline", 4, 4),
        count_prompts("locality", "leaks", leaks, len(NEIGHBOURS)),
        count_prompts("locality", "flips", flips, len(NEIGHBOURS), 0.5),
        count_prompts("other-facts", "leaks", fact_leaks, len(FACTS), 0.1),
        make_perplexity(1.003),
        *more,
    ]
    sound = all(record.verdict not in ("fail", "unmeasured") for record in measurements)
    values: dict[str, Any] = {
        "prompts": [
            *make_prompt_outcomes(target, leaks=leaks, flips=flips, role=role),
            *make_prompt_outcomes(target, leaks=fact_leaks, role="made-other-fact", prompts=FACTS),
        ],
        "measurements": measurements,
        "outcome": "committed" if sound else "rolled-back",
        "verdict": "pass" if sound else "fail",
        "other_facts": ["Turkey's currency is the"],
        "not_judged": ["What do people say of it?"],
        "question": "What is it?",
        "true_aliases": ["Warszawa"],
        "space": True,
    }
    return EditRecord(**(base.model_dump() | values | changes))


def make_leaky_log(edits: int = 12, **header: Any) -> Log:
    """Return a finished log of which most edits pass.

    Edit 1 leaks, edit 2 leaks to other facts, edit 4 flips too often, edit 9 is refused, and edit 7 has made neighbours.
    """
    log = make_log(edits, policy={"collapse_ratio": 1.5, "allow_refused": True, "max_leaks": 0.0}, **header)
    arguments: dict[int, dict[str, Any]] = {
        1: {"leaks": 2, "flips": 1},
        2: {"fact_leaks": 2},
        4: {"flips": 4},
        7: {"role": "made-neighbour"},
    }
    records = (
        record if record.outcome == "refused" else make_checked_edit(n, **arguments.get(n, {}), id=record.id)
        for n, record in enumerate(log.edits)
    )
    return replace(log, edits=tuple(records))


def fail_search(record: EditRecord, loss: float = 2.4, steps: int = 20) -> Update:
    """Return the update of `record` after a search that did not find the target."""
    assert record.update is not None
    (change,) = record.update.changes
    return record.update.model_copy(
        update={"changes": [change.model_copy(update={"final_loss": loss, "steps": steps})]}
    )
