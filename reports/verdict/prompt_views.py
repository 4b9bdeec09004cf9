"""Prompts that an edit must not change, as a reader meets them: grouped by prompt, worst first, conditions in words.

Pure functions over `PromptOutcome` and measurements. Conditions of one prompt with the same words before and after share a
row. Out of scope: markup (the templates) and what the outcomes mean for the verdict (`story`, `explain`).
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Final

from ..log.prompt_outcomes import PromptOutcome, PromptResult, PromptRole
from ..log.schema import EditBody
from ..log.types import Condition, HeadlineCheck, Rate
from ..text import count_noun
from ..text_differences import Part
from .rates import make_rate

__all__ = [
    "EVERYWHERE",
    "FLIPS",
    "LEAKS",
    "OTHER_FACTS",
    "PromptGroup",
    "PromptRow",
    "PromptView",
    "condition_label",
    "highlighted",
    "judged_by_made_neighbours",
    "leak_rate",
    "prompt_groups",
    "prompt_rate",
    "worst_outcome",
]

OTHER_FACTS: Final = "other-facts"
"""Check of prompts about other facts of the edited subject."""
LEAKS, FLIPS = "leaks", "flips"
"""Metrics of locality and of other facts: prompts that say the target, and prompts with another answer."""
_RESULTS = {LEAKS: PromptResult.LEAK, FLIPS: PromptResult.FLIP}
EVERYWHERE: Final = "everywhere"
"""Condition of a measurement over all conditions together; it counts each prompt once for each condition."""
SPECIAL: Final = "special:"

OTHER_SUBJECTS: Final = frozenset({PromptRole.NEIGHBOUR, PromptRole.MADE_NEIGHBOUR})
SAME_SUBJECT: Final = frozenset({PromptRole.OTHER_FACT, PromptRole.MADE_OTHER_FACT})
_MADE = frozenset({PromptRole.MADE_NEIGHBOUR, PromptRole.MADE_OTHER_FACT})
_WORST_FIRST = (
    PromptResult.LEAK,
    PromptResult.UNMEASURED,
    PromptResult.FLIP,
    PromptResult.NEAR_TIE,
    PromptResult.KEPT,
)
_LABELS = {
    Condition.UNPREFIXED.value: "no prefix",
    Condition.PREFIXED.value: "after a prefix",
    Condition.SERVED.value: "as served",
    EVERYWHERE: "all conditions",
}


@dataclass(frozen=True)
class PromptRow:
    """The words before and after under the `conditions` that share them; probabilities are of the worst of these."""

    result: PromptResult
    before: str
    after: str
    conditions: tuple[str, ...]
    target_before: float | None
    target_after: float | None


@dataclass(frozen=True)
class PromptView:
    """One prompt: its `worst` result, the rows that changed, worst first, and the rows that kept the answer."""

    prompt: str
    made: bool
    worst: PromptResult
    changed: tuple[PromptRow, ...]
    kept: tuple[PromptRow, ...]

    @property
    def kept_conditions(self) -> int:
        """Under how many conditions the answer is what it was."""
        return sum(len(row.conditions) for row in self.kept)


@dataclass(frozen=True)
class PromptGroup:
    """Prompts about other subjects, or about the same one: those with a change, worst first, and those without."""

    name: str
    title: str
    said: str
    changed: tuple[PromptView, ...]
    kept: tuple[PromptView, ...]


def condition_label(condition: str) -> str:
    """Return a condition in words: ``family:newline`` is "after a prefix: newline"."""
    if condition.startswith(SPECIAL):
        return f"after the token {condition.removeprefix(SPECIAL)}"
    if condition.startswith(Condition.FAMILY.value):
        family = condition.removeprefix(Condition.FAMILY.value)
        return "no prefix" if family == "none" else f"after a prefix: {family}"
    return _LABELS.get(condition, condition)


def prompt_groups(prompts: Sequence[PromptOutcome]) -> list[PromptGroup]:
    """Return the prompts about other subjects and those about the same one, where there are any."""
    asked = [
        ("other-subjects", "What it does to other subjects", "about other subjects", OTHER_SUBJECTS),
        ("other-facts", "What else it says of the subject", "about other facts of the subject", SAME_SUBJECT),
    ]
    groups = []
    for name, title, about, roles in asked:
        if views := sorted(_views([one for one in prompts if one.role in roles]), key=lambda view: _rank(view.worst)):
            changed = tuple(view for view in views if view.changed)
            kept = tuple(view for view in views if not view.changed)
            groups.append(PromptGroup(name, title, _said(views, about), changed, kept))
    return groups


def _said(views: Sequence[PromptView], about: str) -> str:
    """Return the group in one sentence: of how many prompts which result is the worst."""
    words = {
        PromptResult.LEAK: ("leaks", "leak"),
        PromptResult.FLIP: ("flips", "flip"),
        PromptResult.NEAR_TIE: ("is a near tie", "are near ties"),
        PromptResult.UNMEASURED: ("was not measured", "were not measured"),
    }
    found = [(result, sum(view.worst is result for view in views)) for result in _WORST_FIRST[:-1]]
    parts = [f"{count} {words[result][count != 1]}" for result, count in found if count]
    asked = f"{count_noun(len(views), 'prompt')} {about}"
    return f"{asked}: {', '.join(parts)}." if parts else f"{asked}: all keep their answer."


def _views(prompts: Iterable[PromptOutcome]) -> Iterator[PromptView]:
    found: dict[tuple[bool, str], list[PromptOutcome]] = {}
    for one in prompts:
        found.setdefault((one.role in _MADE, one.prompt), []).append(one)
    for (made, prompt), outcomes in found.items():
        rows = sorted(_rows(outcomes), key=lambda row: _rank(row.result))
        kept = tuple(row for row in rows if row.result is PromptResult.KEPT)
        yield PromptView(prompt, made, rows[0].result, tuple(rows[: len(rows) - len(kept)]), kept)


def _rows(outcomes: Iterable[PromptOutcome]) -> Iterator[PromptRow]:
    found: dict[tuple[PromptResult, str, str], list[PromptOutcome]] = {}
    for one in outcomes:
        found.setdefault((one.result, one.before, one.after), []).append(one)
    for (result, before, after), members in found.items():
        worst = max(members, key=_rise)
        labels = tuple(dict.fromkeys(condition_label(one.condition) for one in members))
        yield PromptRow(result, before, after, labels, worst.target_before, worst.target_after)


def _rank(result: PromptResult) -> int:
    return _WORST_FIRST.index(result)


def _rise(one: PromptOutcome) -> float:
    return (one.target_after or 0.0) - (one.target_before or 0.0)


def worst_outcome(
    prompts: Iterable[PromptOutcome], roles: frozenset[PromptRole], result: PromptResult
) -> PromptOutcome | None:
    """Return the outcome that shows `result` best: other words than before, no prefix, the target's largest rise."""
    plain = (Condition.UNPREFIXED.value, Condition.SERVED.value)
    found = [one for one in prompts if one.role in roles and one.result is result]
    return max(
        found,
        key=lambda one: (one.after.strip() != one.before.strip(), one.condition in plain, _rise(one)),
        default=None,
    )


def highlighted(text: str, target: str) -> list[Part]:
    """Return `text` in parts, in order and complete; those that say `target`, or its first word, are marked."""
    words = target.split()
    for wanted in (target.strip(), words[0] if words else ""):
        places = re.split(rf"(?<!\w)({re.escape(wanted)})(?!\w)", text, flags=re.IGNORECASE) if wanted else [text]
        if len(places) > 1:
            return [Part(part, bool(place % 2)) for place, part in enumerate(places) if part]
    return [Part(text, differs=False)]


def prompt_rate(records: Iterable[EditBody], check: str, metric: str) -> Rate:
    """Return of how many prompts `check` found `metric` under some condition; passed are those without it.

    A prompt counts once in each edit, whatever the number of its conditions. Where a record holds counts and no prompts,
    the counts are taken as they stand.
    """
    passed = failed = not_judged = 0
    for record in records:
        found = _prompt_counts(record, check, metric) or _logged_counts(record, check, metric)
        passed, failed, not_judged = passed + found[0], failed + found[1], not_judged + found[2]
    return make_rate(passed, failed, not_judged)


def _prompt_counts(record: EditBody, check: str, metric: str) -> tuple[int, int, int] | None:
    """Return passed, failed and not judged prompts of the roles that `check` asks; None without such prompts."""
    roles, result = SAME_SUBJECT if check == OTHER_FACTS else OTHER_SUBJECTS, _RESULTS[metric]
    results: dict[tuple[PromptRole, str], set[PromptResult]] = {}
    for one in record.prompts:
        if one.role in roles:
            results.setdefault((one.role, one.prompt), set()).add(one.result)
    failed = sum(result in found for found in results.values())
    not_judged = sum(result not in found and PromptResult.UNMEASURED in found for found in results.values())
    return (len(results) - failed - not_judged, failed, not_judged) if results else None


def _logged_counts(record: EditBody, check: str, metric: str) -> tuple[int, int, int]:
    logged = [
        one for one in record.measurements if (one.check, one.metric, one.condition) == (check, metric, EVERYWHERE)
    ]
    return sum(m.passed for m in logged), sum(m.failed for m in logged), sum(m.not_judged for m in logged)


def leak_rate(record: EditBody) -> Rate:
    """Return the prompts about other subjects that leak, as failed, of all that were asked."""
    return prompt_rate([record], HeadlineCheck.LOCALITY.value, LEAKS)


def judged_by_made_neighbours(record: EditBody) -> bool:
    """Return whether leaks were judged by neighbours that the audit made, and by none from the file."""
    judged = any(
        (one.check, one.metric) == (HeadlineCheck.LOCALITY, LEAKS) and one.verdict in ("pass", "fail")
        for one in record.measurements
    )
    roles = {one.role for one in record.prompts}
    return judged and PromptRole.MADE_NEIGHBOUR in roles and PromptRole.NEIGHBOUR not in roles
