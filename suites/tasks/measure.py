"""What a task says of the edited model: accuracy beside the base's, and whether more was lost than the policy allows.

The bound is on what the items are compatible with, not on what was seen: a pass says that the loss is no larger, at a confidence
of 97.5 %. A task that could say nothing else is unmeasured: one whose items are so few that even unchanged answers would
not pass, and one of which the base gets so few right that a model that lost them all would.
"""

from __future__ import annotations

import re
from itertools import compress
from typing import TYPE_CHECKING

from ...probes.errors import InputError
from ..check import Measurement, Outcome, judge
from .comparison import PairedAnswers, bound_change, compute_p_value, pair_answers

if TYPE_CHECKING:
    from collections.abc import Sequence

    from .task import Task

__all__ = ["TASK", "measure_task", "names_subject"]

TASK = "task:"
"""Begins the name under which the measurements of a task are logged."""
_LONGEST = 60


def measure_task(
    task: Task,
    before: Sequence[bool | None],
    after: Sequence[bool | None],
    most: float,
    subjects: Sequence[str] = (),
) -> list[Measurement]:
    """Return accuracy, loss and p-value of `task`; the loss, the end of its interval, may be `most` of the items at most.

    `before` and `after` are the scores of the base and of the edited model. An item that names one of the `subjects`, which
    were edited, is left out: its answer was meant to change.
    """
    if not len(before) == len(after) == len(task.items):
        raise InputError(
            f"The task {task.name!r} has {len(task.items)} items, and {len(before)} and {len(after)} scores; "
            "score each item once."
        )
    unrelated = [not names_subject(item, subjects) for item in task.items]
    items = list(compress(task.items, unrelated))
    pairs = pair_answers(list(compress(before, unrelated)), list(compress(after, unrelated)))
    if pairs.unmeasured or not pairs.measured:
        message = f"{pairs.unmeasured} of {len(items)} items have logits that are not finite"
        if not items:
            message = f"all {len(task.items)} items name an edited subject, so that none can be judged"
        return [_measure_loss(task, pairs, None, most=most, message=message)]
    low, high = bound_change(pairs)
    why = _find_fault(pairs, most)
    chance = compute_p_value(len(pairs.lost), len(pairs.gained))
    message = (
        f"{pairs.before} of {pairs.measured} items right before, {pairs.after} after: {len(pairs.lost)} lost, "
        f"{len(pairs.gained)} gained, so the share changed by {low:+.1%} to {high:+.1%} (95 %); at most {most:.0%} may be lost"
    )
    if pairs.lost:
        message += f"; lost: {items[pairs.lost[0]][:_LONGEST]!r}"
    if len(items) < len(task.items):
        message += f"; items that name an edited subject, left out: {len(task.items) - len(items)}"
    return [
        Measurement(
            check=TASK + task.name,
            metric="accuracy",
            value=pairs.after / pairs.measured,
            outcome=Outcome.INFO,
            condition="items",
            baseline=pairs.before / pairs.measured,
            unit="share",
            passed=pairs.after,
            failed=pairs.measured - pairs.after,
        ),
        _measure_loss(task, pairs, None if why else -low, most=most, message=why or message),
        Measurement(
            check=TASK + task.name,
            metric="p-value",
            value=chance,
            outcome=Outcome.INFO,
            condition="items",
            unit="probability",
            message=f"McNemar's exact test of {len(pairs.lost)} lost and {len(pairs.gained)} gained items: p = {chance:.3g}",
        ),
    ]


def names_subject(item: str, subjects: Sequence[str]) -> bool:
    """Return whether one of `subjects` stands in the text as whole words, in any case."""
    return any(re.search(rf"(?<!\w){re.escape(subject)}(?!\w)", item, re.IGNORECASE) for subject in subjects)


def _measure_loss(task: Task, pairs: PairedAnswers, value: float | None, *, most: float, message: str) -> Measurement:
    """Return the judged measurement; without a `value` it is unmeasured."""
    return Measurement(
        check=TASK + task.name,
        metric="loss",
        value=value,
        outcome=Outcome.UNMEASURED if value is None else judge(value, value <= most),
        condition="items",
        baseline=0.0,
        threshold=most,
        unit="share",
        passed=pairs.measured - len(pairs.lost),
        failed=len(pairs.lost),
        not_judged=pairs.unmeasured,
        message=message,
    )


def _find_fault(pairs: PairedAnswers, most: float) -> str:
    """Return why the task cannot tell a model that lost nothing from one that lost all; empty where it can."""
    wrong = pairs.measured - pairs.before
    right = tuple(range(pairs.before))
    unchanged = PairedAnswers(both=pairs.before, lost=(), gained=(), neither=wrong, unmeasured=0)
    ruined = PairedAnswers(both=0, lost=right, gained=(), neither=wrong, unmeasured=0)
    if -bound_change(unchanged).low > most:
        return f"{pairs.measured} items are too few to exclude a loss of {most:.0%}, whatever the model answers"
    if -bound_change(ruined).low <= most:
        return f"the base gets {pairs.before} of {pairs.measured} items right, so a loss of {most:.0%} could not show"
    return ""
