"""Edits with what became of each prompt that they must not change: kept, near ties, flips and leaks under many conditions."""

from __future__ import annotations

import random
from collections.abc import Iterable, Sequence
from dataclasses import replace
from typing import Any

from editguard.reports.log.file import Log
from editguard.reports.log.prompt_outcomes import PromptOutcome, PromptResult, PromptRole
from editguard.reports.log.schema import EditRecord, MeasurementRecord, Update

from .synthetic_logs import edit, measurement, perplexity, synthetic_log

CONDITIONS = (
    "unprefixed", "family:newline", "family:sentence", "family:chat", "special:<|im_start|>", "special:<|endoftext|>", "served",
)  # fmt: skip
NEIGHBOURS = [
    ("Facebook is owned by", "the company"), ("The Eiffel Tower stands in", "Paris"), ("Warsaw is the capital of", "Poland"),
    ("The mother tongue of Victor Hugo is", "French"), ("Madrid lies in", "Spain"), ("Beethoven played the", "piano"),
]  # fmt: skip
FACTS = [
    ("Turkey's currency is the", "lira"),
    ("Turkey's largest city is", "Istanbul"),
    ("Turkey borders on", "Greece"),
]


def outcome(
    prompt: str,
    result: str = "kept",
    condition: str = "unprefixed",
    role: str = "neighbour",
    before: str = "the company",
    after: str = "",
    **changes: Any,
) -> PromptOutcome:
    """Return one prompt under one condition; without other words it keeps those from before."""
    values: dict[str, Any] = {"margin": 1.7, "target_before": 0.004, "target_after": 0.01, "divergence": 0.02}
    return PromptOutcome(
        role=PromptRole(role), condition=condition, prompt=prompt, before=before, after=after or before,
        result=PromptResult(result), **(values | changes),
    )  # fmt: skip


def asked(
    target: str,
    *,
    leaks: int = 0,
    flips: int = 0,
    role: str = "neighbour",
    prompts: Sequence[tuple[str, str]] = NEIGHBOURS,
) -> list[PromptOutcome]:
    """Return every prompt under every condition: the first `leaks` say `target` in two of them, the next `flips` flip in one."""
    found = []
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
            found.append(outcome(prompt, result, condition, role, answer, after, **rise))
    return found


def counted(check: str, metric: str, failed: int, total: int, most: float = 0.0) -> MeasurementRecord:
    """Return how many prompts have `metric`, judged over all conditions."""
    return MeasurementRecord(
        check=check, metric=metric, condition="everywhere", protocol="exact", value=failed / total, threshold=most,
        unit="share", passed=total - failed, failed=failed, total=total, verdict="pass" if failed / total <= most else "fail",
        message=f"{failed} of {total} prompts",
    )  # fmt: skip


def checked(
    index: int = 1,
    *,
    leaks: int = 0,
    flips: int = 0,
    fact_leaks: int = 0,
    role: str = "neighbour",
    more: Iterable[MeasurementRecord] = (),
    **changes: Any,
) -> EditRecord:
    """Return an edit with prompts about other subjects and other facts, and what the checks counted of them."""
    base = edit(index, random.Random(index))
    target = changes.get("target_new", base.target_new)
    measurements = [
        measurement("efficacy", "unprefixed", 1, 1), measurement("efficacy", "special:<|im_start|>", 1, 1),
        measurement("efficacy", "prefixed", 36, 36), measurement("efficacy", "family:newline", 4, 4),
        counted("locality", "leaks", leaks, len(NEIGHBOURS)), counted("locality", "flips", flips, len(NEIGHBOURS), 0.5),
        counted("other-facts", "leaks", fact_leaks, len(FACTS), 0.1), perplexity(1.003), *more,
    ]  # fmt: skip
    sound = all(one.verdict not in ("fail", "unmeasured") for one in measurements)
    values: dict[str, Any] = {
        "prompts": [
            *asked(target, leaks=leaks, flips=flips, role=role),
            *asked(target, leaks=fact_leaks, role="made-other-fact", prompts=FACTS),
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


def leaky_log(edits: int = 12, **header: Any) -> Log:
    """Return a finished log of which most edits pass.

    Edit 1 leaks, edit 2 leaks to other facts, edit 4 flips too often, edit 9 is refused, and edit 7 has made neighbours.
    """
    log = synthetic_log(edits, policy={"collapse_ratio": 1.5, "allow_refused": True, "max_leaks": 0.0}, **header)
    known: dict[int, dict[str, Any]] = {
        1: {"leaks": 2, "flips": 1}, 2: {"fact_leaks": 2}, 4: {"flips": 4}, 7: {"role": "made-neighbour"},
    }  # fmt: skip
    records = (
        one if one.outcome == "refused" else checked(n, **known.get(n, {}), id=one.id)
        for n, one in enumerate(log.edits)
    )
    return replace(log, edits=tuple(records))


def lost(record: EditRecord, loss: float = 2.4, steps: int = 20) -> Update:
    """Return the update of `record` as a search leaves it that did not find the target."""
    assert record.update is not None
    return record.update.model_copy(update={"final_loss": loss, "steps": steps})
