"""Prompts that an edit must not change, as a reader meets them: grouped by prompt, worst first, conditions in words.

Pure functions over `PromptOutcome` and measurements. Conditions of one prompt with the same words before and after share a
row. Out of scope: markup (the templates) and the verdict (`edit_summary`, `explanation`).
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from ..log.prompt_outcomes import PromptOutcome, PromptResult, PromptRole
from ..log.types import Condition, HeadlineCheck, Rate
from ..text import count_noun
from ..text_differences import TextPart
from .rates import make_rate

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from ..log.schema import EditBody

__all__ = [
    "EVERYWHERE",
    "FLIPS",
    "LEAKS",
    "OTHER_FACTS",
    "PromptGroup",
    "PromptRow",
    "PromptView",
    "count_leaks",
    "count_prompts",
    "group_prompts",
    "highlight",
    "judged_by_made_neighbours",
    "label_condition",
    "select_worst_outcome",
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
UNEDITED_SUBJECTS: Final = frozenset({PromptRole.SIDE_EFFECT})
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


@dataclass(frozen=True, kw_only=True)
class PromptRow:
    """The words before and after under the `conditions` that share them; probabilities are of the worst of these."""

    result: PromptResult
    before: str
    after: str
    conditions: tuple[str, ...]
    target_before: float | None
    target_after: float | None


@dataclass(frozen=True, kw_only=True)
class PromptView:
    """One prompt: its `worst` result, the rows that changed, worst first, and the rows that kept the answer."""

    prompt: str
    is_made_by_audit: bool
    worst: PromptResult
    changed: tuple[PromptRow, ...]
    unchanged: tuple[PromptRow, ...]

    @property
    def unchanged_conditions(self) -> int:
        """Count of the conditions under which the answer did not change."""
        return sum(len(row.conditions) for row in self.unchanged)


@dataclass(frozen=True, kw_only=True)
class PromptGroup:
    """Prompts about other subjects, or about the same one: those with a change, worst first, and those without."""

    name: str
    title: str
    description: str
    changed: tuple[PromptView, ...]
    unchanged: tuple[PromptView, ...]


def label_condition(condition: str) -> str:
    """Return a condition in words: ``family:newline`` is "after a prefix: newline"."""
    if condition.startswith(SPECIAL):
        return f"after the token {condition.removeprefix(SPECIAL)}"
    if condition.startswith(Condition.FAMILY.value):
        family = condition.removeprefix(Condition.FAMILY.value)
        return "no prefix" if family == "none" else f"after a prefix: {family}"
    return _LABELS.get(condition, condition)


def group_prompts(prompts: Sequence[PromptOutcome]) -> list[PromptGroup]:
    """Return the group of prompts about other subjects and the one about the same subject; an empty group is left out."""
    sections = [
        ("other-subjects", "What it does to other subjects", "about other subjects", OTHER_SUBJECTS),
        ("other-facts", "What else it says of the subject", "about other facts of the subject", SAME_SUBJECT),
        ("side-effects", "What moved that nobody edited", "about subjects that nobody edited", UNEDITED_SUBJECTS),
    ]
    groups = []
    for name, title, about, roles in sections:
        if views := sorted(
            _make_views([prompt for prompt in prompts if prompt.role in roles]), key=lambda view: _rank(view.worst)
        ):
            changed = tuple(view for view in views if view.changed)
            unchanged = tuple(view for view in views if not view.changed)
            groups.append(
                PromptGroup(
                    name=name,
                    title=title,
                    description=_describe_group(views, about),
                    changed=changed,
                    unchanged=unchanged,
                )
            )
    return groups


def _describe_group(views: Sequence[PromptView], about: str) -> str:
    """Return the group in one sentence: the count of prompts by their worst result."""
    words = {
        PromptResult.LEAK: ("leaks", "leak"),
        PromptResult.FLIP: ("flips", "flip"),
        PromptResult.NEAR_TIE: ("is a near tie", "are near ties"),
        PromptResult.UNMEASURED: ("was not measured", "were not measured"),
    }
    counts = [(result, sum(view.worst is result for view in views)) for result in _WORST_FIRST[:-1]]
    parts = [f"{count} {words[result][count != 1]}" for result, count in counts if count]
    opening = f"{count_noun(len(views), 'prompt')} {about}"
    return f"{opening}: {', '.join(parts)}." if parts else f"{opening}: all keep their answer."


def _make_views(prompts: Iterable[PromptOutcome]) -> Iterator[PromptView]:
    outcomes_by_prompt: dict[tuple[bool, str], list[PromptOutcome]] = {}
    for outcome in prompts:
        outcomes_by_prompt.setdefault((outcome.role in _MADE, outcome.prompt), []).append(outcome)
    for (is_made, prompt), outcomes in outcomes_by_prompt.items():
        rows = sorted(_make_rows(outcomes), key=lambda row: _rank(row.result))
        unchanged = tuple(row for row in rows if row.result is PromptResult.KEPT)
        yield PromptView(
            prompt=prompt,
            is_made_by_audit=is_made,
            worst=rows[0].result,
            changed=tuple(rows[: len(rows) - len(unchanged)]),
            unchanged=unchanged,
        )


def _make_rows(outcomes: Iterable[PromptOutcome]) -> Iterator[PromptRow]:
    outcomes_by_text: dict[tuple[PromptResult, str, str], list[PromptOutcome]] = {}
    for outcome in outcomes:
        outcomes_by_text.setdefault((outcome.result, outcome.before, outcome.after), []).append(outcome)
    for (result, before, after), members in outcomes_by_text.items():
        worst = max(members, key=_rise)
        labels = tuple(dict.fromkeys(label_condition(outcome.condition) for outcome in members))
        yield PromptRow(
            result=result,
            before=before,
            after=after,
            conditions=labels,
            target_before=worst.target_before,
            target_after=worst.target_after,
        )


def _rank(result: PromptResult) -> int:
    return _WORST_FIRST.index(result)


def _rise(outcome: PromptOutcome) -> float:
    return (outcome.target_after or 0.0) - (outcome.target_before or 0.0)


def select_worst_outcome(
    prompts: Iterable[PromptOutcome], roles: frozenset[PromptRole], result: PromptResult
) -> PromptOutcome | None:
    """Return the outcome that shows `result` best: other words than before, no prefix, the target's largest rise."""
    plain = (Condition.UNPREFIXED.value, Condition.SERVED.value)
    candidates = [outcome for outcome in prompts if outcome.role in roles and outcome.result is result]
    return max(
        candidates,
        key=lambda outcome: (
            outcome.after.strip() != outcome.before.strip(),
            outcome.condition in plain,
            _rise(outcome),
        ),
        default=None,
    )


def highlight(text: str, target: str) -> list[TextPart]:
    """Return `text` in parts, in order and complete; parts equal to `target`, or to its first word, are marked."""
    words = target.split()
    for phrase in (target.strip(), words[0] if words else ""):
        places = re.split(rf"(?<!\w)({re.escape(phrase)})(?!\w)", text, flags=re.IGNORECASE) if phrase else [text]
        if len(places) > 1:
            return [TextPart(part, bool(place % 2)) for place, part in enumerate(places) if part]
    return [TextPart(text, differs=False)]


def count_prompts(records: Iterable[EditBody], check: str, metric: str) -> Rate:
    """Return the prompts with `metric` under some condition as failed, and those without it as passed.

    A prompt counts once in each edit, whatever the number of its conditions. If a record holds counts and no prompts, its
    counts are taken as they stand.
    """
    passed = failed = not_judged = 0
    for record in records:
        counts = _prompt_counts(record, check, metric) or _logged_counts(record, check, metric)
        passed, failed, not_judged = passed + counts[0], failed + counts[1], not_judged + counts[2]
    return make_rate(passed, failed, not_judged)


def _prompt_counts(record: EditBody, check: str, metric: str) -> tuple[int, int, int] | None:
    """Return passed, failed and not judged prompts of the roles of `check`; None without such prompts."""
    roles, result = SAME_SUBJECT if check == OTHER_FACTS else OTHER_SUBJECTS, _RESULTS[metric]
    results: dict[tuple[PromptRole, str], set[PromptResult]] = {}
    for outcome in record.prompts:
        if outcome.role in roles:
            results.setdefault((outcome.role, outcome.prompt), set()).add(outcome.result)
    failed = sum(result in observed_results for observed_results in results.values())
    not_judged = sum(
        result not in observed_results and PromptResult.UNMEASURED in observed_results
        for observed_results in results.values()
    )
    return (len(results) - failed - not_judged, failed, not_judged) if results else None


def _logged_counts(record: EditBody, check: str, metric: str) -> tuple[int, int, int]:
    logged = [
        measurement
        for measurement in record.measurements
        if (measurement.check, measurement.metric, measurement.condition) == (check, metric, EVERYWHERE)
    ]
    return sum(m.passed for m in logged), sum(m.failed for m in logged), sum(m.not_judged for m in logged)


def count_leaks(record: EditBody) -> Rate:
    """Return the prompts about other subjects: those that leak as failed, the others as passed."""
    return count_prompts([record], HeadlineCheck.LOCALITY.value, LEAKS)


def judged_by_made_neighbours(record: EditBody) -> bool:
    """Return whether leaks were judged only by neighbours that the audit made."""
    judged = any(
        (measurement.check, measurement.metric) == (HeadlineCheck.LOCALITY, LEAKS)
        and measurement.verdict in ("pass", "fail")
        for measurement in record.measurements
    )
    roles = {measurement.role for measurement in record.prompts}
    return judged and PromptRole.MADE_NEIGHBOUR in roles and PromptRole.NEIGHBOUR not in roles
