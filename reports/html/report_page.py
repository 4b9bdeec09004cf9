"""From a log to one HTML file that opens offline and asks no network for anything.

Order: digest, figures, then the templates (`page`). Out of scope: what the figures mean (`digest`, `draw_figures`) and writing
the file (`log.write_atomic`).
"""

from __future__ import annotations

import base64
import gzip
import json
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Final

from ..log.types import Condition, Rate
from ..numbers import format_number, format_ratio
from ..text import capitalise, count_noun, quote_names
from ..verdict.digest import Digest, digest
from ..verdict.edit_sequence import describe_sequence
from ..verdict.edit_summary import EditDecision, EditSummary, EditVerdict
from ..verdict.explanation import Ground, explain
from ..verdict.prompt_views import count_leaks, group_prompts, label_condition
from ..verdict.rates import make_rate, perplexity_lost, perplexity_ratio
from ..verdict.reasons import ship_reasons
from .baseline_section import build_baseline_section
from .drift_figures import draw_drift
from .figures import draw_figures
from .number_ranges import merge_sentences, read_shape
from .page import render_page
from .scales import build_scales

if TYPE_CHECKING:
    from collections.abc import Sequence

    from markupsafe import Markup

    from ..gate.result import Gate, Override
    from ..log.file import Log
    from ..log.schema import Header, MeasurementRecord

__all__ = ["FIRST_ROWS", "MOST_UNPACKED", "PACK_SIZE", "render_html"]

MOST_UNPACKED = 300
"""A page of more edits than this opens with the first `FIRST_ROWS` rows of their table; the rest, and all stories, are packed."""
FIRST_ROWS, PACK_SIZE = 200, 50
_ALIKE: Final = {
    Ground.LEAK: "They leak: prompts about other subjects now say the new target.",
    Ground.OTHER_FACT_LEAK: "Their subjects say the target to other questions.",
    Ground.DID_NOT_TAKE: "They did not take: too few prompts gave the target.",
    Ground.FLIP: "Answers about other subjects changed.",
    Ground.OTHER_FACT_FLIP: "Other facts of their subjects changed.",
    Ground.REPEATS: "The model repeats itself after the target.",
}
"""Sentence that edits share if they failed for one ground, where each has an explanation of its own."""


@dataclass(frozen=True)
class GlanceAnswer:
    """The answer to a question at a glance: `mood` is ``good``, ``bad`` or ``unknown``."""

    mood: str
    word: str
    why: str


@dataclass(frozen=True)
class EditGroup:
    """Edits with one decision or verdict and one reason."""

    kind: str
    reason: str
    edits: tuple[EditSummary, ...]
    advice: str = ""


@dataclass(frozen=True)
class MeasurementLine:
    """Measurements that share a line: one, or those of several prefix families that differ in their counts alone."""

    first: MeasurementRecord
    members: tuple[MeasurementRecord, ...]
    counts: Rate


def render_html(log: Log, gate: Gate | None = None, overrides: Sequence[Override] = ()) -> str:
    """Return the report over `log` as one self-contained HTML page.

    With `gate` it shows what changed since the baseline and what the gate said; without, who opened a gate for this log.
    """
    audit = digest(log)
    return render_page(
        "report.html.j2",
        [*draw_drift(audit), *draw_figures(audit)],
        ("report.js",),
        {
            "lines": group_lines,
            "packed": pack,
            "anchors": list_anchors,
            "scales": partial(build_scales, thresholds=log.header.thresholds),
            "explained": partial(explain, header=log.header),
            "prompt_groups": group_prompts,
            "condition_label": label_condition,
            "leak_rate": count_leaks,
        },
        d=audit,
        most_unpacked=MOST_UNPACKED,
        shown=FIRST_ROWS if len(audit.edits) > MOST_UNPACKED else len(audit.edits),
        pack_size=PACK_SIZE,
        s=audit.summary,
        h=audit.header,
        sound=judge_soundness(audit),
        without_neighbours=list_without_neighbours(audit.edits),
        named=quote_names,
        sequence=audit.summary.sequence and describe_sequence(audit.summary.sequence, audit.summary.edits),
        groups=group_edits(audit.edits, log.header),
        shippable=[story for story in audit.edits if story.result is EditVerdict.PASSED]
        if audit.summary.may_ship
        else [],
        # The ids that may ship stand in this sentence too; on the page they are links.
        linked=list(ship_reasons(audit.edits, audit.summary.may_ship)),
        since=build_baseline_section(audit, gate, overrides),
    )


def list_anchors(stories: Sequence[EditSummary]) -> Markup:
    """Return the stories' anchors as JSON, in order; a slug is made of letters that are safe anywhere."""
    from markupsafe import Markup

    return Markup(json.dumps([f"edit-{story.slug}" for story in stories]))


def pack(parts: Sequence[str]) -> Markup:
    """Return rendered parts as a JSON text of base64 over gzip over JSON: a page of thousands opens without parsing them.

    They were escaped when they were rendered, and no base64 can close its element.
    """
    from markupsafe import Markup

    content = gzip.compress(json.dumps([str(part) for part in parts]).encode(), mtime=0)
    return Markup('"{}"').format(base64.b64encode(content).decode())


def judge_soundness(audit: Digest) -> GlanceAnswer:
    """Answer whether an edit collapsed the model, as far as measurements and controls can tell."""
    summary = audit.summary
    applied = [story for story in audit.edits if story.decision is not EditDecision.REFUSED]
    unknown = sum(story.ratio is None and not story.collapsed for story in applied)
    bound = format_number(summary.collapse_ratio)
    lost = ", or not finite" if summary.perplexity_not_finite else ""
    if audit.header.edited is not None and summary.verdict != "void":
        return _judge_checkpoint(audit)
    if summary.collapsed:
        return GlanceAnswer(
            "bad",
            "Yes",
            f"After {summary.collapsed} of {count_noun(len(applied), 'edit')}, perplexity is over {bound} times the unedited "
            f"model's{lost}.",
        )
    if summary.verdict == "void":
        return GlanceAnswer("unknown", "Not known", "The controls did not prove that the checks see a collapse.")
    if unknown:
        return GlanceAnswer(
            "unknown",
            "Not known",
            f"After {unknown} of {count_noun(len(applied), 'edit')} the perplexity was not measured.",
        )
    if summary.worst_perplexity_ratio is None:
        return GlanceAnswer("unknown", "Untouched", "No edit was made, so there was nothing to measure.")
    worst = f"At worst, perplexity was {format_ratio(summary.worst_perplexity_ratio)} times the unedited model's"
    if not audit.controls:
        return GlanceAnswer(
            "unknown", "None seen", f"{worst}; no control was made to prove that a collapse would be seen."
        )
    return GlanceAnswer("good", "No", f"{worst}; from {bound} on it would be called a collapse.")


def _judge_checkpoint(audit: Digest) -> GlanceAnswer:
    """Answer for an edited checkpoint, whose perplexity was measured once, whatever edits it holds."""
    ratio, bound = None if audit.model is None else perplexity_ratio(audit.model), audit.summary.collapse_ratio
    lost = audit.model is not None and perplexity_lost(audit.model)
    if lost or (ratio is not None and ratio > bound):
        shown = "not finite" if ratio is None else f"{format_ratio(ratio)} times the base's"
        return GlanceAnswer("bad", "Yes", f"Its perplexity is {shown}.")
    if ratio is None:
        return GlanceAnswer("unknown", "Not known", "Its perplexity was not measured.")
    mood = "good" if audit.controls else "unknown"
    return GlanceAnswer(
        mood, "No", f"Its perplexity is {format_ratio(ratio)} times the base's; a collapse begins at {bound:g}."
    )


def list_without_neighbours(stories: Sequence[EditSummary]) -> list[str]:
    """Return the ids of the edits that were measured and gave no prompt about another subject."""
    measured = [story.record for story in stories if story.record.measurements]
    return [record.id for record in measured if not any(m.check == "locality" for m in record.measurements)]


def group_edits(stories: Sequence[EditSummary], header: Header) -> list[EditGroup]:
    """Group failed, refused and rewritten edits by their reason, whatever the numbers in it; the gravest first."""
    members_by_reason: dict[tuple[str, Ground | tuple[str, ...], str], list[tuple[str, EditSummary]]] = {}
    for story in stories:
        kind = EditVerdict.FAILED.value if story.result is EditVerdict.FAILED else story.decision.value
        if kind == EditDecision.ALLOWED.value:
            continue
        explanation = explain(story, header)
        why = "; ".join(story.record.decision.reasons) or story.record.error or "No reason was recorded."
        alike: Ground | tuple[str, ...] = read_shape(why)
        if kind == EditVerdict.FAILED.value and explanation is not None:
            why = explanation.why
            alike = explanation.ground if explanation.ground in _ALIKE else read_shape(why)
        advice = explanation.advice if explanation is not None else ""
        members_by_reason.setdefault((kind, alike, advice), []).append((capitalise(why), story))
    order = [EditVerdict.FAILED.value, EditDecision.REFUSED.value, EditDecision.REWRITTEN.value]
    gathered = [
        EditGroup(kind, _word_reason(alike, [why for why, _ in members]), tuple(story for _, story in members), advice)
        for (kind, alike, advice), members in members_by_reason.items()
    ]
    return sorted(gathered, key=lambda group: (order.index(group.kind), -len(group.edits)))


def _word_reason(alike: Ground | tuple[str, ...], whys: Sequence[str]) -> str:
    """Return the reason that several edits share, in one sentence.

    If they share the ground alone, the first edit's reason follows.
    """
    if isinstance(alike, Ground) and len(whys) > 1:
        return f"{_ALIKE[alike]} The first: {whys[0]}"
    return whys[0] if isinstance(alike, Ground) else merge_sentences(whys)


def group_lines(measurements: Sequence[MeasurementRecord]) -> list[MeasurementLine]:
    """Group the prefix families of one check, verdict and message on one line; other measurements have their own."""
    members_by_line: dict[object, list[MeasurementRecord]] = {}
    for place, measurement in enumerate(measurements):
        shared = measurement.condition.startswith(Condition.FAMILY.value) and measurement.total > 0
        alike = (
            measurement.check,
            measurement.metric,
            measurement.protocol,
            measurement.verdict,
            measurement.threshold,
            measurement.baseline,
            measurement.unit,
            measurement.message,
        )
        members_by_line.setdefault(alike if shared else place, []).append(measurement)
    return [
        MeasurementLine(
            members[0],
            tuple(members),
            make_rate(*(sum(getattr(m, field) for m in members) for field in ("passed", "failed", "not_judged"))),
        )
        for members in members_by_line.values()
    ]
