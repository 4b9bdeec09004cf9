"""From a log to one HTML file that opens offline and asks no network for anything.

Order: digest, figures, then the templates (`page`). Out of scope: what the figures mean (`digest`, `figures`) and writing
the file (`log.write_atomic`).
"""

from __future__ import annotations

import base64
import gzip
import json
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Final

from ..gate.result import Gate, Override
from ..log.file import Log
from ..log.schema import Header, MeasurementRecord
from ..log.types import Condition, Rate
from ..numbers import format_number, format_ratio
from ..text import count_noun, quote_names
from ..verdict.digest import Digest, digest
from ..verdict.edit_sequence import describe_sequence
from ..verdict.edit_summary import EditDecision, EditSummary, EditVerdict
from ..verdict.explanation import Ground, explain
from ..verdict.prompt_views import condition_label, leak_rate, prompt_groups
from ..verdict.rates import make_rate
from ..verdict.reasons import ship_reasons
from .baseline_section import since
from .drift_figures import drift_figures
from .figures import figures
from .number_ranges import shape, told_as_one
from .page import render_page
from .scales import gauges

if TYPE_CHECKING:
    from markupsafe import Markup

__all__ = ["PACK", "SHOWN", "TOLD", "render_html"]

TOLD = 300
"""A page of more edits than this opens with the first `SHOWN` rows of their table; the rest, and all stories, are packed."""
SHOWN, PACK = 200, 50
_ALIKE: Final = {
    Ground.LEAK: "They leak: prompts about other subjects now say the new target.",
    Ground.OTHER_FACT_LEAK: "Their subjects say the target to other questions.",
    Ground.DID_NOT_TAKE: "They did not take: too few prompts gave the target.",
    Ground.FLIP: "Answers about other subjects changed.",
    Ground.OTHER_FACT_FLIP: "Other facts of their subjects changed.",
    Ground.REPEATS: "The model repeats itself after the target.",
}
"""What edits have in common that failed for one ground, where each is explained in words of its own."""


@dataclass(frozen=True)
class Answer:
    """A question's answer at a glance: `mood` is ``good``, ``bad`` or ``unknown``."""

    mood: str
    word: str
    why: str


@dataclass(frozen=True)
class Group:
    """Edits that met the same end for the same reason."""

    kind: str
    reason: str
    edits: tuple[EditSummary, ...]
    advice: str = ""


@dataclass(frozen=True)
class Line:
    """Measurements that share a line: one, or those of several prefix families that differ in their counts alone."""

    first: MeasurementRecord
    members: tuple[MeasurementRecord, ...]
    counts: Rate


def render_html(log: Log, gate: Gate | None = None, overrides: Sequence[Override] = ()) -> str:
    """Return the report over `log` as one self-contained HTML page.

    With `gate` it shows what changed since the baseline and what the gate said; without, who opened a gate for this log.
    """
    found = digest(log)
    return render_page(
        "report.html.j2",
        [*drift_figures(found), *figures(found)],
        ("report.js",),
        {
            "lines": lines,
            "packed": packed,
            "anchors": anchors,
            "gauges": partial(gauges, thresholds=log.header.thresholds),
            "explained": partial(explain, header=log.header),
            "prompt_groups": prompt_groups,
            "condition_label": condition_label,
            "leak_rate": leak_rate,
        },
        d=found,
        told=TOLD,
        shown=SHOWN if len(found.edits) > TOLD else len(found.edits),
        pack=PACK,
        s=found.summary,
        h=found.header,
        sound=soundness(found),
        not_asked=not_asked(found.edits),
        named=quote_names,
        sequence=found.summary.sequence and describe_sequence(found.summary.sequence, found.summary.edits),
        groups=groups(found.edits, log.header),
        shippable=[story for story in found.edits if story.result is EditVerdict.PASSED] if found.summary.may_ship else [],
        # The ids that may ship stand in this sentence too; on the page they are links.
        linked=list(ship_reasons(found.edits, found.summary.may_ship)),
        since=since(found, gate, overrides),
    )


def anchors(stories: Sequence[EditSummary]) -> Markup:
    """Return the stories' anchors as JSON, in order; a slug is made of letters that are safe anywhere."""
    from markupsafe import Markup

    return Markup(json.dumps([f"edit-{story.slug}" for story in stories]))


def packed(parts: Sequence[str]) -> Markup:
    """Return rendered parts as a JSON text of base64 over gzip over JSON: a page of thousands opens without parsing them.

    They were escaped when they were rendered, and no base64 can close its element.
    """
    from markupsafe import Markup

    content = gzip.compress(json.dumps([str(part) for part in parts]).encode(), mtime=0)
    return Markup('"{}"').format(base64.b64encode(content).decode())


def soundness(found: Digest) -> Answer:
    """Answer whether an edit collapsed the model, as far as it was measured and a control proves that it would be seen."""
    summary = found.summary
    made = [story for story in found.edits if story.decision is not EditDecision.REFUSED]
    unknown = sum(story.ratio is None and not story.collapsed for story in made)
    bound = format_number(summary.collapse_ratio)
    lost = ", or not finite" if summary.perplexity_not_finite else ""
    if summary.collapsed:
        return Answer(
            "bad",
            "Yes",
            f"After {summary.collapsed} of {count_noun(len(made), 'edit')}, perplexity is over {bound} times the unedited "
            f"model's{lost}.",
        )
    if summary.verdict == "void":
        return Answer("unknown", "Not known", "The controls did not prove that the checks see a collapse.")
    if unknown:
        return Answer(
            "unknown", "Not known", f"After {unknown} of {count_noun(len(made), 'edit')} the perplexity was not measured."
        )
    if summary.worst_perplexity_ratio is None:
        return Answer("unknown", "Untouched", "No edit was made, so there was nothing to measure.")
    worst = f"At worst, perplexity was {format_ratio(summary.worst_perplexity_ratio)} times the unedited model's"
    if not found.controls:
        return Answer("unknown", "None seen", f"{worst}; no control was made to prove that a collapse would be seen.")
    return Answer("good", "No", f"{worst}; from {bound} on it would be called a collapse.")


def not_asked(stories: Sequence[EditSummary]) -> list[str]:
    """Return the ids of the edits that were measured and gave no prompt about another subject."""
    measured = [story.record for story in stories if story.record.measurements]
    return [one.id for one in measured if not any(m.check == "locality" for m in one.measurements)]


def groups(stories: Sequence[EditSummary], header: Header) -> list[Group]:
    """Gather what failed, was refused or was rewritten by its reason, whatever the numbers in it; the gravest first."""
    found: dict[tuple[str, Ground | tuple[str, ...], str], list[tuple[str, EditSummary]]] = {}
    for story in stories:
        kind = EditVerdict.FAILED.value if story.result is EditVerdict.FAILED else story.decision.value
        if kind == EditDecision.ALLOWED.value:
            continue
        explanation = explain(story, header)
        why = "; ".join(story.record.decision.reasons) or story.record.error or "No reason was recorded."
        alike: Ground | tuple[str, ...] = shape(why)
        if kind == EditVerdict.FAILED.value and explanation is not None:
            why = explanation.why
            alike = explanation.ground if explanation.ground in _ALIKE else shape(why)
        advice = explanation.advice if explanation is not None else ""
        found.setdefault((kind, alike, advice), []).append((why[:1].upper() + why[1:], story))
    order = [EditVerdict.FAILED.value, EditDecision.REFUSED.value, EditDecision.REWRITTEN.value]
    gathered = [
        Group(kind, _told(alike, [why for why, _ in members]), tuple(story for _, story in members), advice)
        for (kind, alike, advice), members in found.items()
    ]
    return sorted(gathered, key=lambda group: (order.index(group.kind), -len(group.edits)))


def _told(alike: Ground | tuple[str, ...], whys: Sequence[str]) -> str:
    """Return what several edits share in one sentence; of those that have the ground alone in common the first follows."""
    if isinstance(alike, Ground) and len(whys) > 1:
        return f"{_ALIKE[alike]} The first: {whys[0]}"
    return whys[0] if isinstance(alike, Ground) else told_as_one(whys)


def lines(measurements: Sequence[MeasurementRecord]) -> list[Line]:
    """Gather the families of one check, with one verdict and message, on one line; all else has a line of its own."""
    found: dict[object, list[MeasurementRecord]] = {}
    for place, one in enumerate(measurements):
        shared = one.condition.startswith(Condition.FAMILY.value) and one.total > 0
        alike = (one.check, one.metric, one.protocol, one.verdict, one.threshold, one.baseline, one.unit, one.message)
        found.setdefault(alike if shared else place, []).append(one)
    return [
        Line(
            members[0],
            tuple(members),
            make_rate(*(sum(getattr(m, field) for m in members) for field in ("passed", "failed", "not_judged"))),
        )
        for members in found.values()
    ]
