"""The report's three pictures, as plotly figures in JSON, each with a caption and a table that says the same.

The denominators say why an edit would collapse the model, the keys show it, and the perplexity ratios say whether one
did. Out of scope: how marks are drawn (`plotting`) and coloured (the page's script).
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, NamedTuple

from ..log.schema import ControlRecord
from ..log.types import DENOMINATOR, Point
from ..numbers import format_number, format_ratio
from ..text import count_noun
from ..verdict.edit_summary import EditDecision, EditSummary
from .plotting import (
    Figure,
    Mark,
    describe_omissions,
    describe_thinning,
    draw_line,
    label_line,
    make_count_axis,
    make_log_axis,
    make_mark,
    make_trace,
    render_figure,
    summarise_groups,
    thin,
)

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from ..verdict.digest import Digest

__all__ = ["MOST_PREFIXED_POINTS", "draw_figures"]

MOST_PREFIXED_POINTS = 1000
_SYMBOLS = {EditDecision.ALLOWED: "circle", EditDecision.REWRITTEN: "diamond", EditDecision.REFUSED: "x"}


def draw_figures(digest: Digest) -> list[Figure]:
    """Return the figures that `digest` has data for: denominators, keys, perplexity ratios."""
    pictures = [_draw_denominators(digest), _draw_keys(digest), _draw_perplexity(digest)]
    return [figure for figure in pictures if figure is not None]


# --------------------------------------------------------------------------------------------------- denominators


_SIZE = "predicted_relative_norm"
"""The denominator probe's second metric."""


class _DenominatorMark(NamedTuple):
    """The denominator of one edit with no prefix, and the value under which its probe fires."""

    story: EditSummary
    value: float
    threshold: float | None


def _draw_denominators(digest: Digest) -> Figure | None:
    measured = _read_denominators(digest)
    if not measured:
        return None
    groups = {decision: [entry for entry in measured if entry.story.decision is decision] for decision in EditDecision}
    bounds = {entry.threshold for entry in measured}
    common = next(iter(bounds)) if len(bounds) == 1 else None
    each = (
        []
        if common
        else [_mark_denominator(entry.story, entry.threshold, "its threshold") for entry in measured if entry.threshold]
    )
    traces = [make_trace("threshold of each edit", "failed", each, "line-ew-open", size=8)]
    for decision, members in groups.items():
        marks = [_mark_denominator(entry.story, entry.value, "|u·k_u|") for entry in members]
        name = f"{decision.value}, as asked" if decision is EditDecision.REWRITTEN else decision.value
        traces.append(make_trace(name, decision.value, marks, _SYMBOLS[decision]))
    rewritten = [(entry.story, _read_prefixed_denominator(entry.story)) for entry in groups[EditDecision.REWRITTEN]]
    lifted = [_mark_denominator(story, value, "after prefixes") for story, value in rewritten if value]
    traces.append(make_trace("rewritten, after prefixes", EditDecision.REWRITTEN.value, lifted, "diamond-open"))
    heights = [height for drawn in traces for height in drawn["y"]]
    last = max(entry.story.record.index for entry in measured) + 1
    layout = {
        "xaxis": {"title": {"text": "Edit, in the order of the file"}, "zeroline": False} | make_count_axis(last),
        "yaxis": {"title": {"text": "|u · k_u|, denominator of the update"}, "zeroline": False}
        | make_log_axis(heights),
        "shapes": [draw_line("y", common)] if common else [],
        "annotations": [label_line("y", common, f"threshold {format_number(common)}")] if common else [],
    }
    missing = describe_omissions(len(digest.edits) - len(measured), "no denominator")
    return Figure(
        name="denominators",
        title="How large would each update be? The denominators",
        caption=_caption_denominators(measured) + missing + describe_thinning(traces),
        data=render_figure(traces, layout),
        columns=("Decision", "Edits", "Smallest |u · k_u|", "Median", "Largest"),
        rows=summarise_groups(
            [(decision.value, [entry.value for entry in members]) for decision, members in groups.items()]
        ),
    )


def _mark_denominator(story: EditSummary, value: float, what: str) -> Mark:
    return make_mark(story, story.record.index + 1, value, f"{what} {format_number(value)}")


def _read_denominators(digest: Digest) -> list[_DenominatorMark]:
    """Return |u . k_u| of each edit with the value under which its probe fires, both as seen on the axis."""
    thresholds = {t.metric: t.value for t in digest.header.thresholds if t.probe == DENOMINATOR and t.value}
    marks = []
    for story in digest.edits:
        keys = story.record.keys
        if keys and keys.denominator:
            value, under, size = abs(keys.denominator), _read_prefixed_denominator(story), keys.predicted_relative_norm
            # The update's size is inversely proportional to the denominator.
            rules = (
                thresholds.get(DENOMINATOR),
                thresholds["ratio"] * under if "ratio" in thresholds and under else None,
                value * size / thresholds[_SIZE] if _SIZE in thresholds and size else None,
            )
            marks.append(_DenominatorMark(story, value, max((rule for rule in rules if rule), default=None)))
    return marks


def _read_prefixed_denominator(story: EditSummary) -> float | None:
    keys = story.record.keys
    return abs(keys.denominator_prefixed) if keys and keys.denominator_prefixed else None


def _caption_denominators(measured: Sequence[_DenominatorMark]) -> str:
    meaning = (
        "An edit adds an update to the weights, and |u · k_u| is what the update is divided by: a mark ten times lower is an "
        "edit ten times larger."
    )
    if not any(entry.threshold for entry in measured):
        return meaning
    low = [entry.story for entry in measured if entry.threshold and entry.value < entry.threshold]
    allowed_count = sum(story.decision is EditDecision.ALLOWED for story in low)
    were, lie = "was" if allowed_count == 1 else "were", "lies" if len(low) == 1 else "lie"
    ending = f"{allowed_count} of them {were} made as asked" if allowed_count else "none of them was made as asked"
    if not low:
        return f"{meaning} Under the red threshold it would be too large for the model; no edit lies there."
    return (
        f"{meaning} Under the red threshold it would be too large for the model: {len(low)} of "
        f"{count_noun(len(measured), 'edit')} {lie} there, and {ending}."
    )


# ----------------------------------------------------------------------------------------------------------- keys


def _draw_keys(digest: Digest) -> Figure | None:
    keyed = [(s, s.record.keys) for s in digest.edits if s.record.keys is not None]
    subjects = [(s, k.subject_point) for s, k in keyed if k.subject_point is not None]
    if not subjects:
        return None
    prefixed = [(s, point) for s, k in keyed for point in k.prefixed_points]
    means = [(s, k.mean_point) for s, k in keyed if k.mean_point is not None]
    drawn = thin(prefixed, MOST_PREFIXED_POINTS)
    traces = [
        make_trace(
            "after prefixes", "prefixed", [_mark_key(s, p, "after a prefix") for s, p in drawn], "circle", size=4
        ),
        make_trace(
            "their means", "mean", [_mark_key(s, p, "mean after prefixes") for s, p in means], "cross-thin-open", size=7
        ),
    ]
    for decision in EditDecision:
        marks = [_mark_key(s, p, "no prefix") for s, p in subjects if s.decision is decision]
        traces.append(make_trace(f"no prefix, {decision.value}", decision.value, marks, _SYMBOLS[decision]))
    plain = {"showticklabels": False, "zeroline": False, "showgrid": False}
    layout = {
        "xaxis": plain | {"title": {"text": "first principal direction"}},
        "yaxis": plain | {"title": {"text": "second principal direction"}},
    }
    note = f" Drawn are {len(drawn)} of {len(prefixed)} keys after prefixes." if len(drawn) < len(prefixed) else ""
    return Figure(
        name="keys",
        title="Where does the layer look each subject up? The keys",
        caption="A key is how the edited layer looks a subject up. The figure shows all keys on one plane. Coloured: keys with "
        "no prefix. Grey: keys of the same subjects after a prefix. The distance of a coloured mark "
        "from the grey ones is the shift of the key: how far it moves if the prompt has no prefix. "
        "A far mark does not mean that an edit collapses the model, and a near one does not mean that it is sound: the "
        "denominators say how large an edit is, and the perplexity what it did. A far mark means that an edit made "
        "with no prefix may not act after a prefix." + note + describe_thinning(traces),
        data=render_figure(traces, layout),
        columns=("Keys with no prefix", "Edits", "Smallest distance to the edit's own mean key", "Median", "Largest"),
        rows=summarise_groups(_measure_distances(digest)),
    )


def _measure_distances(digest: Digest) -> list[tuple[str, list[float]]]:
    groups: dict[str, list[float]] = {"subject is the first token": [], "subject is further on": []}
    for story in digest.edits:
        keys = story.record.keys
        if keys is not None and keys.subject_point is not None and keys.mean_point is not None:
            name = "subject is the first token" if keys.first_token else "subject is further on"
            groups[name].append(math.dist(keys.subject_point, keys.mean_point))
    return list(groups.items())


def _mark_key(story: EditSummary, point: Point, what: str) -> Mark:
    return make_mark(story, point.x, point.y, what)


# ----------------------------------------------------------------------------------------------------- perplexity


@dataclass(frozen=True, kw_only=True)
class _PerplexityRow:
    """Edits that share a row of the figure, with the role, the symbol and the size of their marks."""

    label: str
    role: str
    symbol: str
    size: int
    edits: list[EditSummary]


def _draw_perplexity(digest: Digest) -> Figure | None:
    rows = [row for row in _group_rows(digest) if row.edits]
    ratios = [_require_ratio(story.ratio) for row in rows for story in row.edits]
    if not ratios:
        return None
    bounds = {"collapse": digest.summary.collapse_ratio} | (
        {} if (most := read_allowed_ratio(digest)) is None else {"allowed": most}
    )
    log = max(*ratios, *bounds.values()) / min(*ratios, *bounds.values()) > 10 and min(ratios) > 0
    traces = [
        make_trace(row.label, row.role, list(_mark_row(row.edits, place)), row.symbol, row.size)
        for place, row in enumerate(rows)
    ]
    places = list(range(len(rows)))
    layout = {
        "xaxis": {
            "title": {"text": "perplexity, edited over unedited"},
            "zeroline": False,
        }
        | (make_log_axis(ratios) if log else {}),
        "yaxis": {
            "tickvals": places,
            "ticktext": [row.label for row in rows],
            "range": [len(rows) - 0.4, -0.6],
            "zeroline": False,
            "showgrid": False,
        },
        "shapes": [draw_line("x", bound) for bound in bounds.values()],
        "annotations": [
            # One label on either side, since the lines may lie close together.
            label_line("x", math.log10(bound) if log else bound, f"{what} {format_number(bound)}")
            | {"xanchor": "left" if what == "collapse" else "right"}
            for what, bound in bounds.items()
        ],
        "showlegend": False,
    }
    applied = [s for s in digest.edits if s.decision is not EditDecision.REFUSED]
    return Figure(
        name="perplexity",
        title="Perplexity after the edit",
        caption=_caption_perplexity(digest)
        + describe_omissions(len(applied) - sum(s.ratio is not None for s in applied), "no ratio")
        + describe_thinning(traces),
        data=render_figure(traces, layout),
        columns=("Group", "Measured", "Smallest ratio", "Median", "Largest"),
        rows=summarise_groups(
            [(row.label, [_require_ratio(s.ratio) for s in row.edits]) for row in rows], format_ratio
        ),
    )


def _group_rows(digest: Digest) -> list[_PerplexityRow]:
    edits = [s for s in digest.edits if s.ratio is not None]
    controls = [s for s in digest.controls if s.ratio is not None]
    return [
        _PerplexityRow(
            label="edits within bound",
            role="allowed",
            symbol="circle",
            size=7,
            edits=[s for s in edits if not (s.collapsed or _is_over_allowed(digest, s))],
        ),
        _PerplexityRow(
            label="edits over the allowed",
            role="refused",
            symbol="diamond",
            size=9,
            edits=[s for s in edits if _is_over_allowed(digest, s) and not s.collapsed],
        ),
        _PerplexityRow(
            label="edits collapsed", role="failed", symbol="x", size=10, edits=[s for s in edits if s.collapsed]
        ),
        _PerplexityRow(
            label="controls: sound",
            role="control",
            symbol="square",
            size=11,
            edits=[s for s in controls if _is_control(s, "sound")],
        ),
        _PerplexityRow(
            label="controls: collapse",
            role="control",
            symbol="triangle-up",
            size=13,
            edits=[s for s in controls if _is_control(s, "collapse")],
        ),
    ]


def read_allowed_ratio(digest: Digest) -> float | None:
    """Return the ratio that the policy allows a sound edit; None where the log does not say."""
    ratio = digest.header.policy.get("max_perplexity_ratio")
    return float(ratio) if isinstance(ratio, int | float) and not isinstance(ratio, bool) and ratio > 0 else None


def _is_over_allowed(digest: Digest, story: EditSummary) -> bool:
    most = read_allowed_ratio(digest)
    return most is not None and story.ratio is not None and story.ratio > most


def _is_control(story: EditSummary, expect: Literal["sound", "collapse"]) -> bool:
    return isinstance(story.record, ControlRecord) and story.record.expect == expect


def _mark_row(stories: Sequence[EditSummary], place: int) -> Iterable[Mark]:
    for order, story in enumerate(stories):
        # The golden ratio spreads neighbours evenly; the same log always gives the same picture.
        jitter = 0.5 * ((order * 0.618034) % 1 - 0.5) if len(stories) > 3 else 0.0
        ratio = _require_ratio(story.ratio)
        yield make_mark(story, ratio, place + jitter, f"ratio {format_ratio(ratio)}")


def _caption_perplexity(digest: Digest) -> str:
    edits = [s.ratio for s in digest.edits if s.ratio is not None]
    collapse = [s.ratio for s in digest.controls if s.ratio is not None and _is_control(s, "collapse")]
    bound = digest.summary.collapse_ratio
    caption = (
        "Perplexity says how badly the model predicts plain text: at 1 it writes as well as before the edit, and over "
        f"{format_number(bound)} the edit is called a collapse."
    )
    if edits:
        over = sum(ratio > bound for ratio in edits)
        where = f"of which {over} {'is' if over == 1 else 'are'} over" if over else "none over it"
        if (most := read_allowed_ratio(digest)) is not None and (
            failed := sum(most < ratio <= bound for ratio in edits)
        ):
            where += f", and {failed} over the {format_number(most)} that the policy allows a sound edit"
        caption += (
            f" After the edits it lies between {format_ratio(min(edits))} and {format_ratio(max(edits))}, {where}."
        )
    else:
        caption += " No edit was measured."
    if not collapse:
        return f"{caption} No control shows what a collapse looks like."
    return f"{caption} Controls, made on purpose to collapse the model, reach {format_ratio(max(collapse))}."


def _require_ratio(value: float | None) -> float:
    assert value is not None
    return value
