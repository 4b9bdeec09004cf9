"""The page of a causal trace: the mean effect of each state over facts, and each fact by itself.

A pure function of `TraceFile`, which is what ``trace.json`` holds. Tokens of different prompts are compared by their
part in the prompt, as in ROME (arXiv 2202.05262), figure 2.
"""

from __future__ import annotations

import statistics
from enum import StrEnum
from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import Field, model_validator

from ..log.types import Count, Model
from ..numbers import format_number
from ..text import count_noun
from .page import render_page
from .plotting import Figure, render_figure

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = ["Part", "SkippedTrace", "TraceFile", "TraceRecord", "average_effects", "render_trace"]

Probability = Annotated[float, Field(ge=0, le=1)]


class Part(StrEnum):
    """The part of its prompt that a token belongs to."""

    BEFORE = "before the subject"
    FIRST = "first subject token"
    MIDDLE = "middle subject tokens"
    LAST = "last subject token"
    NEXT = "first token after it"
    FURTHER = "further tokens"
    END = "last token"


class TraceRecord(Model):
    """One fact: `states` [layers][tokens] and `windows` [layers] are the answer's probability with that put back."""

    id: str
    prompt: str
    tokens: list[str]
    first: Count
    last: Count
    answer: str
    clean: Probability
    corrupted: Probability
    states: list[list[Probability]]
    windows: list[Probability]

    @model_validator(mode="after")
    def _fits(self) -> TraceRecord:
        if not self.first <= self.last < len(self.tokens):
            raise ValueError(f"the subject is at tokens {self.first} to {self.last} of {len(self.tokens)}")
        if any(len(row) != len(self.tokens) for row in self.states) or len(self.states) != len(self.windows):
            raise ValueError(
                "states must have a row for each layer and a column for each token, and windows as many rows"
            )
        return self

    def part(self, token: int) -> Part:
        """Return the part of the prompt that `token` belongs to; the subject goes before the prompt's last token."""
        if token < self.first:
            return Part.BEFORE
        if token <= self.last:
            return Part.LAST if token == self.last else Part.FIRST if token == self.first else Part.MIDDLE
        if token == len(self.tokens) - 1:
            return Part.END
        return Part.NEXT if token == self.last + 1 else Part.FURTHER


class SkippedTrace(Model):
    """A request that could not be traced, and why."""

    id: str
    why: str


class TraceFile(Model):
    """The results of a trace and its settings; `noise` is in standard deviations of the embeddings.

    `considered` are the layers whose windows hold no block 0, of which one is suggested.
    """

    schema_version: Literal[1] = 1
    editguard_version: str
    created: str
    model: str
    model_fingerprint: str
    layers: Count
    window: Count
    noise: float
    draws: Count
    seed: int
    source: str
    considered: list[int]
    suggested_layer: int | None
    traces: list[TraceRecord]
    skipped: list[SkippedTrace]

    @model_validator(mode="after")
    def _suggests(self) -> TraceFile:
        if (self.suggested_layer is None) != (not self.traces):
            raise ValueError("a layer is suggested exactly where something was traced")
        return self

    def peak(self, trace: TraceRecord) -> int:
        """Return the considered layer around which MLP outputs bring most of one answer back."""
        return max(self.considered, key=trace.windows.__getitem__)


def average_effects(traces: Sequence[TraceRecord]) -> dict[Part, list[float]]:
    """Return for each part of a prompt and each layer the mean gain in probability; parts that no prompt has are left out."""
    effects: dict[Part, list[float]] = {}
    for part in Part:
        columns = [
            [row[token] - trace.corrupted for row in trace.states]
            for trace in traces
            for token in range(len(trace.tokens))
            if trace.part(token) is part
        ]
        if columns:
            effects[part] = [statistics.fmean(values) for values in zip(*columns, strict=True)]
    return effects


def render_trace(file: TraceFile) -> str:
    """Return the trace as one self-contained HTML page."""
    figures = [_draw_windows(file), _draw_states(file)] if file.traces else []
    return render_page("trace.html.j2", figures, t=file)


def _draw_windows(file: TraceFile) -> Figure:
    means = [
        statistics.fmean(trace.windows[layer] - trace.corrupted for trace in file.traces)
        for layer in range(file.layers)
    ]
    layers = list(range(file.layers))
    drawn: dict[str, Any] = {
        "type": "scatter",
        "mode": "lines+markers",
        "name": "mean over facts",
        "meta": {"role": "allowed"},
        "x": layers,
        "y": means,
        "text": [f"layer {layer}: {format_number(mean)}" for layer, mean in zip(layers, means, strict=True)],
        "hoverinfo": "text",
        "marker": {"symbol": "circle", "size": 7, "opacity": 1},
    }
    layout = {
        "xaxis": {"title": {"text": "Layer in the middle of the window"}, "zeroline": False, "dtick": 5},
        "yaxis": {"title": {"text": "Gain in probability"}, "rangemode": "tozero"},
    }
    peaks = [file.peak(trace) for trace in file.traces]
    return Figure(
        name="windows",
        title="Where MLPs at the subject's last token bring the answer back",
        caption=f"MLP outputs of {file.window} layers at once, put back at the subject's last token of corrupted runs; the mean "
        f"over {count_noun(len(file.traces), 'fact')}. Around layers {file.considered[0]} to {file.considered[-1]} a window is "
        "whole and without block 0, which would undo the noise; of those the gain is largest around layer "
        f"{file.suggested_layer}.",
        data=render_figure([drawn], layout),
        columns=("Layer", "Mean gain", "Facts that gain most here"),
        rows=tuple((str(layer), format_number(means[layer]), str(peaks.count(layer))) for layer in layers),
    )


def _draw_states(file: TraceFile) -> Figure:
    effects = average_effects(file.traces)
    parts = [part.value for part in reversed(effects)]
    drawn: dict[str, Any] = {
        "type": "heatmap",
        "name": "gain",
        "meta": {"role": "allowed"},
        "x": list(range(file.layers)),
        "y": parts,
        "z": [effects[part] for part in reversed(effects)],
        "zmin": 0,
        "hovertemplate": "layer %{x}, %{y}: %{z:.3f}<extra></extra>",
    }
    layout = {"xaxis": {"title": {"text": "Layer whose output is put back"}, "dtick": 5}, "yaxis": {"ticks": ""}}
    rows = tuple(
        (part.value, format_number(max(values)), str(values.index(max(values))), str(_count_facts(file, part)))
        for part, values in effects.items()
    )
    return Figure(
        name="states",
        title="Where one hidden state brings the answer back",
        caption="One state of the clean run put back into the corrupted ones. What the subject carries moves from its own "
        "tokens to the prompt's last one as it goes up.",
        data=render_figure([drawn], layout),
        columns=("Token", "Largest mean gain", "at layer", "Facts that have it"),
        rows=rows,
    )


def _count_facts(file: TraceFile, part: Part) -> int:
    """Return the count of facts that have a token of `part`."""
    return sum(any(trace.part(n) is part for n in range(len(trace.tokens))) for trace in file.traces)
