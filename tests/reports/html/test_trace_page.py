"""The page of a trace averages over parts of prompts, and refuses a file that does not fit together."""

from __future__ import annotations

from typing import Any

import pytest
from editguard.reports.html.trace_page import Part, TraceFile, TraceRecord, average_effects, render_trace
from pydantic import ValidationError

from ...helpers.html_pages import Page

TOKENS = ["The", " home", " of", " A", "da", " Love", "lace", " is", " in", " the"]


def record(**changes: Any) -> TraceRecord:
    fields: dict[str, Any] = {
        "id": "1", "prompt": "".join(TOKENS), "tokens": TOKENS, "first": 3, "last": 6, "answer": " city", "clean": 0.9,
        "corrupted": 0.1, "states": [[0.1] * 6 + [0.7] + [0.1] * 3, [0.1] * 9 + [0.9]], "windows": [0.2, 0.6],
    }  # fmt: skip
    return TraceRecord(**fields | changes)


def file(*traces: TraceRecord, **changes: Any) -> TraceFile:
    fields: dict[str, Any] = {
        "editguard_version": "0", "created": "2026-01-01", "model": "tiny", "model_fingerprint": "f", "layers": 2,
        "window": 1, "noise": 3.0, "draws": 10, "seed": 0, "source": "edits.json", "considered": [0, 1],
        "suggested_layer": 1 if traces else None,
        "traces": list(traces), "skipped": [],
    }  # fmt: skip
    return TraceFile(**fields | changes)


def test_every_token_has_its_part() -> None:
    parts = [record().part(token) for token in range(len(TOKENS))]
    assert parts == [
        *[Part.BEFORE] * 3, Part.FIRST, Part.MIDDLE, Part.MIDDLE, Part.LAST, Part.NEXT, Part.FURTHER, Part.END
    ]  # fmt: skip


def test_a_subject_that_ends_the_prompt_is_the_subject_first() -> None:
    assert record(first=9, last=9).part(9) is Part.LAST


def test_effects_are_means_of_gains_over_the_corrupted_run() -> None:
    other = record(corrupted=0.0, states=[[0.0] * 10, [0.0] * 10])
    effects = average_effects([record(), other])
    assert effects[Part.LAST] == pytest.approx([0.3, 0.0])
    assert effects[Part.END] == pytest.approx([0.0, 0.4])
    assert Part.MIDDLE in effects


def test_the_page_names_the_layer_and_draws_both_pictures() -> None:
    page = Page(render_trace(file(record())))
    assert "around layer 1" in " ".join(page.text.split())
    assert set(page.figures()) == {"figure-windows", "figure-states"}
    heat = page.figures()["figure-states"]["data"][0]
    assert heat["type"] == "heatmap"
    assert len(heat["z"]) == len(heat["y"]) == 7


@pytest.mark.parametrize(
    "changes", [{"last": 10}, {"first": 7}, {"states": [[0.1] * 9] * 2}, {"windows": [0.1]}, {"clean": 1.5}]
)
def test_a_record_that_does_not_fit_together_is_refused(changes: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        record(**changes)


def test_a_layer_is_suggested_exactly_where_something_was_traced() -> None:
    with pytest.raises(ValidationError, match="a layer is suggested"):
        file(record(), suggested_layer=None)
    with pytest.raises(ValidationError, match="a layer is suggested"):
        file(suggested_layer=3)
