"""The pictures of an audit in sequence: perplexity and weight, edit by edit, against the model before the first."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from ..log.schema import EditRecord, MeasurementRecord
from ..numbers import format_number, format_ratio
from ..text import count_noun
from ..verdict.edit_sequence import SequenceDrift, sequence_drift
from .plotting import (
    Figure,
    describe_thinning,
    draw_line,
    label_line,
    make_count_axis,
    make_mark,
    make_trace,
    render_figure,
    summarise_groups,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from ..verdict.digest import Digest
    from ..verdict.edit_summary import EditSummary

__all__ = ["draw_drift"]

_MOST_HEADROOM = 4
"""A bound is drawn if it is at most so many times the largest measurement. Further off it would flatten the rest."""
_TITLE = "How far did all kept edits together move the model? Its "


@dataclass(frozen=True, kw_only=True)
class _DriftPoint:
    """How far the model was moved with the edit of `story` in it; `in_model` says whether that edit was kept."""

    story: EditSummary
    value: float
    bound: float | None
    in_model: bool


def draw_drift(digest: Digest) -> list[Figure]:
    """Return two figures, or none for an audit that made each edit alone."""
    if digest.summary.sequence is None:
        return []
    ratios, norms = (
        _collect_points(digest, lambda drift: drift.ratio),
        _collect_points(digest, lambda drift: drift.norm),
    )
    pictures = []
    if ratios:
        axis = "perplexity, over that before the first edit"
        pictures.append(_draw_figure(ratios, "drift-perplexity", f"{_TITLE}perplexity", axis, format_ratio))
    if norms:
        pictures.append(_draw_figure(norms, "drift-weight", f"{_TITLE}weight", "‖W − W₀‖ / ‖W₀‖", format_number))
    return pictures


def _collect_points(digest: Digest, pick: Callable[[SequenceDrift], MeasurementRecord | None]) -> list[_DriftPoint]:
    points = []
    for story in digest.edits:
        record = story.record
        measurement = pick(sequence_drift(record)) if isinstance(record, EditRecord) else None
        if measurement is not None and measurement.value is not None:
            in_model = record.weights is not None and record.weights.kept
            points.append(
                _DriftPoint(story=story, value=measurement.value, bound=measurement.threshold, in_model=in_model)
            )
    return points


def _draw_figure(
    points: Sequence[_DriftPoint], name: str, title: str, axis: str, shown: Callable[[float], str]
) -> Figure:
    in_model, undone = [point for point in points if point.in_model], [point for point in points if not point.in_model]
    traces = [
        _make_trace("kept", "allowed", "circle", in_model, shown),
        _make_trace("undone", "failed", "x", undone, shown),
    ]
    bound = points[0].bound
    near = [bound] if bound is not None and bound <= _MOST_HEADROOM * max(point.value for point in points) else []
    order = {"title": {"text": "Edit, in the order in which they were made"}, "zeroline": False}
    layout = {
        "xaxis": order | make_count_axis(max(point.story.record.index for point in points) + 1),
        # A ratio begins at 1 and a distance at 0: what is small must not look steep.
        "yaxis": {"title": {"text": axis}, "zeroline": False}
        | ({} if shown is format_ratio else {"rangemode": "tozero"}),
        "shapes": [draw_line("y", height) for height in near],
        "annotations": [_label_bound(height) for height in near],
    }
    return Figure(
        name=name,
        title=title,
        caption=_write_caption(in_model, bound, shown) + describe_thinning(traces),
        data=render_figure(traces, layout),
        columns=("Edits", "Measured", "Smallest", "Median", "Largest"),
        rows=summarise_groups(
            [("kept", [point.value for point in in_model]), ("undone", [point.value for point in undone])], shown
        ),
    )


def _make_trace(
    label: str, role: str, symbol: str, points: Sequence[_DriftPoint], shown: Callable[[float], str]
) -> dict[str, Any]:
    marks = [
        make_mark(point.story, point.story.record.index + 1, point.value, f"{label}, {shown(point.value)}")
        for point in points
    ]
    return make_trace(label, role, marks, symbol)


def _label_bound(bound: float) -> dict[str, Any]:
    # The axis is linear, and `line_label` is made for logarithmic ones; the last edits are those near the bound.
    return label_line("y", 1.0, f"bound {format_number(bound)}") | {"y": bound, "x": 0, "xanchor": "left"}


def _write_caption(in_model: Sequence[_DriftPoint], bound: float | None, shown: Callable[[float], str]) -> str:
    caption = "Each edit is made on the model with all that were kept before it, and measured against the model before the first."
    if in_model:
        caption += f" After {count_noun(len(in_model), 'kept edit')} it stands at {shown(in_model[-1].value)}."
    if bound is not None:
        caption += f" Over {format_number(bound)} the sequence is closed, and nothing more is made."
    return caption
