"""The pictures of an audit in sequence: perplexity and weight, edit by edit, against the model before the first."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

from ..log.schema import EditRecord, MeasurementRecord
from ..numbers import format_number, format_ratio
from ..text import count_noun
from ..verdict.digest import Digest
from ..verdict.edit_sequence import SequenceDrift, sequence_drift
from ..verdict.edit_summary import EditSummary
from .plotting import Figure, figure_json, line, line_label, mark, spread, thin_note, trace, whole

__all__ = ["drift_figures"]

_IN_SIGHT = 4
"""A bound is drawn where it is at most so many times what was measured; further off it would flatten the rest."""
_TITLE = "How far did all kept edits together move the model? Its "


class _Seen(NamedTuple):
    """How far the model was moved with the edit of `story` in it, and whether that edit was kept."""

    story: EditSummary
    value: float
    bound: float | None
    kept: bool


def drift_figures(digest: Digest) -> list[Figure]:
    """Return two figures, or none for an audit that made each edit alone."""
    if digest.summary.sequence is None:
        return []
    ratios, norms = _seen(digest, lambda one: one.ratio), _seen(digest, lambda one: one.norm)
    found = []
    if ratios:
        axis = "perplexity, over that before the first edit"
        found.append(_figure(ratios, "drift-perplexity", f"{_TITLE}perplexity", axis, format_ratio))
    if norms:
        found.append(_figure(norms, "drift-weight", f"{_TITLE}weight", "‖W − W₀‖ / ‖W₀‖", format_number))
    return found


def _seen(digest: Digest, pick: Callable[[SequenceDrift], MeasurementRecord | None]) -> list[_Seen]:
    found = []
    for story in digest.edits:
        record = story.record
        one = pick(sequence_drift(record)) if isinstance(record, EditRecord) else None
        if one is not None and one.value is not None:
            kept = record.weights is not None and record.weights.kept
            found.append(_Seen(story, one.value, one.threshold, kept))
    return found


def _figure(seen: Sequence[_Seen], name: str, title: str, axis: str, shown: Callable[[float], str]) -> Figure:
    kept, undone = [one for one in seen if one.kept], [one for one in seen if not one.kept]
    traces = [_trace("kept", "allowed", "circle", kept, shown), _trace("undone", "failed", "x", undone, shown)]
    bound = seen[0].bound
    near = [bound] if bound is not None and bound <= _IN_SIGHT * max(one.value for one in seen) else []
    order = {"title": {"text": "Edit, in the order in which they were made"}, "zeroline": False}
    layout = {
        "xaxis": order | whole(max(one.story.record.index for one in seen) + 1),
        # A ratio begins at 1 and a distance at 0: what is small must not look steep.
        "yaxis": {"title": {"text": axis}, "zeroline": False} | ({} if shown is format_ratio else {"rangemode": "tozero"}),
        "shapes": [line("y", one) for one in near],
        "annotations": [_label(one) for one in near],
    }
    return Figure(
        name=name,
        title=title,
        caption=_caption(kept, bound, shown) + thin_note(traces),
        data=figure_json(traces, layout),
        columns=("Edits", "Measured", "Smallest", "Median", "Largest"),
        rows=spread([("kept", [one.value for one in kept]), ("undone", [one.value for one in undone])], shown),
    )


def _trace(label: str, role: str, symbol: str, seen: Sequence[_Seen], shown: Callable[[float], str]) -> dict[str, Any]:
    marks = [mark(one.story, one.story.record.index + 1, one.value, f"{label}, {shown(one.value)}") for one in seen]
    return trace(label, role, marks, symbol)


def _label(bound: float) -> dict[str, Any]:
    # The axis is linear, and `line_label` is made for logarithmic ones; the last edits are those near the bound.
    return line_label("y", 1.0, f"bound {format_number(bound)}") | {"y": bound, "x": 0, "xanchor": "left"}


def _caption(kept: Sequence[_Seen], bound: float | None, shown: Callable[[float], str]) -> str:
    said = "Each edit is made on the model with all that were kept before it, and measured against the model before the first."
    if kept:
        said += f" After {count_noun(len(kept), 'kept edit')} it stands at {shown(kept[-1].value)}."
    if bound is not None:
        said += f" Over {format_number(bound)} the sequence is closed, and nothing more is made."
    return said
