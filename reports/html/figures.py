"""The report's three pictures, as plotly figures in JSON, each with a caption and a table that says the same.

The denominators say why an edit would collapse the model, the keys show it, and the perplexity ratios say whether one
did. Out of scope: how marks are drawn (`plotting`) and coloured (the page's script).
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from typing import NamedTuple

from ..log.types import DENOMINATOR, Point
from ..numbers import format_number, format_ratio
from ..text import count_noun
from ..verdict.digest import Digest
from ..verdict.edit_summary import EditDecision, EditSummary
from .plotting import (
    Figure,
    Mark,
    decades,
    figure_json,
    left_out,
    line,
    line_label,
    mark,
    spread,
    thin_note,
    thinned,
    trace,
    whole,
)

__all__ = ["MOST_PREFIXED_POINTS", "figures"]

MOST_PREFIXED_POINTS = 1000
_SYMBOLS = {EditDecision.ALLOWED: "circle", EditDecision.REWRITTEN: "diamond", EditDecision.REFUSED: "x"}


def figures(digest: Digest) -> list[Figure]:
    """Return the figures that `digest` has data for: denominators, keys, perplexity ratios."""
    found = [_denominators(digest), _keys(digest), _perplexity(digest)]
    return [figure for figure in found if figure is not None]


# --------------------------------------------------------------------------------------------------- denominators


_SIZE = "predicted_relative_norm"
"""The denominator probe's second metric."""


class _Bare(NamedTuple):
    story: EditSummary
    value: float
    threshold: float | None


def _denominators(digest: Digest) -> Figure | None:
    bare = _bare_denominators(digest)
    if not bare:
        return None
    groups = {decided: [one for one in bare if one.story.decision is decided] for decided in EditDecision}
    bounds = {one.threshold for one in bare}
    common = next(iter(bounds)) if len(bounds) == 1 else None
    each = [] if common else [_placed(one.story, one.threshold, "its threshold") for one in bare if one.threshold]
    traces = [trace("threshold of each edit", "failed", each, "line-ew-open", size=8)]
    for decided, members in groups.items():
        marks = [_placed(one.story, one.value, "|u·k_u|") for one in members]
        name = f"{decided.value}, as asked" if decided is EditDecision.REWRITTEN else decided.value
        traces.append(trace(name, decided.value, marks, _SYMBOLS[decided]))
    rewritten = [(one.story, _prefixed_denominator(one.story)) for one in groups[EditDecision.REWRITTEN]]
    lifted = [_placed(story, value, "under prefixes") for story, value in rewritten if value]
    traces.append(trace("rewritten, under prefixes", EditDecision.REWRITTEN.value, lifted, "diamond-open"))
    heights = [height for drawn in traces for height in drawn["y"]]
    last = max(one.story.record.index for one in bare) + 1
    layout = {
        "xaxis": {"title": {"text": "Edit, in the order of the file"}, "zeroline": False} | whole(last),
        "yaxis": {"title": {"text": "|u · k_u|, denominator of the update"}, "zeroline": False} | decades(heights),
        "shapes": [line("y", common)] if common else [],
        "annotations": [line_label("y", common, f"threshold {format_number(common)}")] if common else [],
    }
    missing = left_out(len(digest.edits) - len(bare), "no denominator")
    return Figure(
        name="denominators",
        title="How large would each update be? The denominators",
        caption=_denominator_caption(bare) + missing + thin_note(traces),
        data=figure_json(traces, layout),
        columns=("Decision", "Edits", "Smallest |u · k_u|", "Median", "Largest"),
        rows=spread([(decided.value, [one.value for one in members]) for decided, members in groups.items()]),
    )


def _placed(story: EditSummary, value: float, what: str) -> Mark:
    return mark(story, story.record.index + 1, value, f"{what} {format_number(value)}")


def _bare_denominators(digest: Digest) -> list[_Bare]:
    """Return |u . k_u| of each edit with the value under which its probe fires, both as seen on the axis."""
    known = {t.metric: t.value for t in digest.header.thresholds if t.probe == DENOMINATOR and t.value}
    found = []
    for story in digest.edits:
        keys = story.record.keys
        if keys and keys.denominator:
            value, under, size = abs(keys.denominator), _prefixed_denominator(story), keys.predicted_relative_norm
            # The update's size is inversely proportional to the denominator.
            rules = (
                known.get(DENOMINATOR),
                known["ratio"] * under if "ratio" in known and under else None,
                value * size / known[_SIZE] if _SIZE in known and size else None,
            )
            found.append(_Bare(story, value, max((rule for rule in rules if rule), default=None)))
    return found


def _prefixed_denominator(story: EditSummary) -> float | None:
    keys = story.record.keys
    return abs(keys.denominator_prefixed) if keys and keys.denominator_prefixed else None


def _denominator_caption(bare: Sequence[_Bare]) -> str:
    meaning = (
        "An edit adds an update to the weights, and |u · k_u| is what the update is divided by: a mark ten times lower is an "
        "edit ten times larger."
    )
    if not any(one.threshold for one in bare):
        return meaning
    low = [one.story for one in bare if one.threshold and one.value < one.threshold]
    kept = sum(story.decision is EditDecision.ALLOWED for story in low)
    were, lie = "was" if kept == 1 else "were", "lies" if len(low) == 1 else "lie"
    ending = f"{kept} of them {were} made as asked" if kept else "none of them was made as asked"
    if not low:
        return f"{meaning} Under the red threshold it would be too large for the model; no edit lies there."
    return (
        f"{meaning} Under the red threshold it would be too large for the model: {len(low)} of "
        f"{count_noun(len(bare), 'edit')} {lie} there, and {ending}."
    )


# ----------------------------------------------------------------------------------------------------------- keys


def _keys(digest: Digest) -> Figure | None:
    known = [(s, s.record.keys) for s in digest.edits if s.record.keys is not None]
    subjects = [(s, k.subject_point) for s, k in known if k.subject_point is not None]
    if not subjects:
        return None
    prefixed = [(s, point) for s, k in known for point in k.prefixed_points]
    means = [(s, k.mean_point) for s, k in known if k.mean_point is not None]
    drawn = thinned(prefixed, MOST_PREFIXED_POINTS)
    traces = [
        trace("after prefixes", "prefixed", [_at(s, p, "under a prefix") for s, p in drawn], "circle", size=4),
        trace("their means", "mean", [_at(s, p, "mean under prefixes") for s, p in means], "cross-thin-open", size=7),
    ]
    for decided in EditDecision:
        marks = [_at(s, p, "bare prompt") for s, p in subjects if s.decision is decided]
        traces.append(trace(f"bare, {decided.value}", decided.value, marks, _SYMBOLS[decided]))
    plain = {"showticklabels": False, "zeroline": False, "showgrid": False}
    layout = {
        "xaxis": plain | {"title": {"text": "first principal direction"}},
        "yaxis": plain | {"title": {"text": "second principal direction"}},
    }
    note = f" Drawn are {len(drawn)} of {len(prefixed)} keys under prefixes." if len(drawn) < len(prefixed) else ""
    return Figure(
        name="keys",
        title="Where does the layer look each subject up? The keys",
        caption="A key is what the edited layer knows a subject by; all keys are seen here on one plane. Coloured: bare, "
        "with nothing before the prompt. Grey: the same subjects with a text before the prompt. The distance of a coloured "
        "mark from the grey ones is the shift of the key: how far it moves when nothing stands before the prompt. "
        "A far mark does not mean that an edit collapses the model, and a near one does not mean that it is sound: the "
        "denominators say how large an edit is, and the perplexity what it did. A far mark means that an edit made for "
        "the bare prompt may not act after a text." + note + thin_note(traces),
        data=figure_json(traces, layout),
        columns=("Bare-prompt keys", "Edits", "Smallest distance to the edit's own mean key", "Median", "Largest"),
        rows=spread(_distances(digest)),
    )


def _distances(digest: Digest) -> list[tuple[str, list[float]]]:
    groups: dict[str, list[float]] = {"subject is the first token": [], "subject is further on": []}
    for story in digest.edits:
        keys = story.record.keys
        if keys is not None and keys.subject_point is not None and keys.mean_point is not None:
            name = "subject is the first token" if keys.first_token else "subject is further on"
            groups[name].append(math.dist(keys.subject_point, keys.mean_point))
    return list(groups.items())


def _at(story: EditSummary, point: Point, what: str) -> Mark:
    return mark(story, point.x, point.y, what)


# ----------------------------------------------------------------------------------------------------- perplexity


class _Row(NamedTuple):
    label: str
    role: str
    symbol: str
    size: int
    edits: list[EditSummary]


def _perplexity(digest: Digest) -> Figure | None:
    rows = [row for row in _rows(digest) if row.edits]
    ratios = [_known(story.ratio) for row in rows for story in row.edits]
    if not ratios:
        return None
    bounds = {"collapse": digest.summary.collapse_ratio} | (
        {} if (most := allowed(digest)) is None else {"allowed": most}
    )
    log = max(*ratios, *bounds.values()) / min(*ratios, *bounds.values()) > 10 and min(ratios) > 0
    traces = [
        trace(row.label, row.role, list(_strip(row.edits, place)), row.symbol, row.size)
        for place, row in enumerate(rows)
    ]
    places = list(range(len(rows)))
    layout = {
        "xaxis": {
            "title": {"text": "perplexity, edited over unedited"},
            "zeroline": False,
        }
        | (decades(ratios) if log else {}),
        "yaxis": {
            "tickvals": places,
            "ticktext": [row.label for row in rows],
            "range": [len(rows) - 0.4, -0.6],
            "zeroline": False,
            "showgrid": False,
        },
        "shapes": [line("x", bound) for bound in bounds.values()],
        "annotations": [
            # One label on either side, since the lines may lie close together.
            line_label("x", math.log10(bound) if log else bound, f"{what} {format_number(bound)}")
            | {"xanchor": "left" if what == "collapse" else "right"}
            for what, bound in bounds.items()
        ],
        "showlegend": False,
    }
    made = [s for s in digest.edits if s.decision is not EditDecision.REFUSED]
    return Figure(
        name="perplexity",
        title="Perplexity after the edit",
        caption=_perplexity_caption(digest)
        + left_out(len(made) - sum(s.ratio is not None for s in made), "no ratio")
        + thin_note(traces),
        data=figure_json(traces, layout),
        columns=("Group", "Measured", "Smallest ratio", "Median", "Largest"),
        rows=spread([(row.label, [_known(s.ratio) for s in row.edits]) for row in rows], format_ratio),
    )


def _rows(digest: Digest) -> list[_Row]:
    edits = [s for s in digest.edits if s.ratio is not None]
    controls = [s for s in digest.controls if s.ratio is not None]
    return [
        _Row("edits within bound", "allowed", "circle", 7, [s for s in edits if not (s.collapsed or _over(digest, s))]),
        _Row(
            "edits over the allowed",
            "refused",
            "diamond",
            9,
            [s for s in edits if _over(digest, s) and not s.collapsed],
        ),
        _Row("edits collapsed", "failed", "x", 10, [s for s in edits if s.collapsed]),
        _Row("controls: sound", "control", "square", 11, [s for s in controls if _expect(s) == "sound"]),
        _Row("controls: collapse", "control", "triangle-up", 13, [s for s in controls if _expect(s) == "collapse"]),
    ]


def allowed(digest: Digest) -> float | None:
    """Return the ratio that the policy allows a sound edit; None where the log does not say."""
    found = digest.header.policy.get("max_perplexity_ratio")
    return float(found) if isinstance(found, int | float) and not isinstance(found, bool) and found > 0 else None


def _over(digest: Digest, story: EditSummary) -> bool:
    most = allowed(digest)
    return most is not None and story.ratio is not None and story.ratio > most


def _expect(story: EditSummary) -> str:
    return getattr(story.record, "expect", "")


def _strip(stories: Sequence[EditSummary], place: int) -> Iterable[Mark]:
    for order, story in enumerate(stories):
        # The golden ratio spreads neighbours evenly; the same log always gives the same picture.
        jitter = 0.5 * ((order * 0.618034) % 1 - 0.5) if len(stories) > 3 else 0.0
        seen = _known(story.ratio)
        yield mark(story, seen, place + jitter, f"ratio {format_ratio(seen)}")


def _perplexity_caption(digest: Digest) -> str:
    edits = [s.ratio for s in digest.edits if s.ratio is not None]
    collapse = [s.ratio for s in digest.controls if s.ratio is not None and _expect(s) == "collapse"]
    bound = digest.summary.collapse_ratio
    said = (
        "Perplexity says how badly the model predicts plain text: at 1 it writes as well as before the edit, and over "
        f"{format_number(bound)} the edit is called a collapse."
    )
    if edits:
        over = sum(one > bound for one in edits)
        where = f"of which {over} {'is' if over == 1 else 'are'} over" if over else "none over it"
        if (most := allowed(digest)) is not None and (failed := sum(most < one <= bound for one in edits)):
            where += f", and {failed} over the {format_number(most)} that the policy allows a sound edit"
        said += f" After the edits it lies between {format_ratio(min(edits))} and {format_ratio(max(edits))}, {where}."
    else:
        said += " No edit was measured."
    if not collapse:
        return f"{said} No control shows what a collapse looks like."
    return f"{said} Controls, made on purpose to collapse the model, reach {format_ratio(max(collapse))}."


def _known(value: float | None) -> float:
    assert value is not None
    return value
