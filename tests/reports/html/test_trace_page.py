"""The page of a trace averages over parts of prompts, and refuses a file that does not fit together."""

from __future__ import annotations

from typing import Any

import pytest
from editguard.reports.html.trace_page import Part, average_effects, render_trace
from pydantic import ValidationError

from ...helpers.html_pages import Page
from ...helpers.page_records import TOKENS, sample_trace, sample_trace_file


def test_part_every_token_has_one() -> None:
    parts = [sample_trace().part(token) for token in range(len(TOKENS))]
    assert parts == [
        *[Part.BEFORE] * 3,
        Part.FIRST,
        Part.MIDDLE,
        Part.MIDDLE,
        Part.LAST,
        Part.NEXT,
        Part.FURTHER,
        Part.END,
    ]


def test_part_subject_at_end_counts_as_subject() -> None:
    assert sample_trace(first=9, last=9).part(9) is Part.LAST


def test_average_effects_are_mean_gains_over_corrupted_run() -> None:
    other = sample_trace(corrupted=0.0, states=[[0.0] * 10, [0.0] * 10])
    effects = average_effects([sample_trace(), other])
    assert effects[Part.LAST] == pytest.approx([0.3, 0.0])
    assert effects[Part.END] == pytest.approx([0.0, 0.4])
    assert Part.MIDDLE in effects


def test_render_trace_names_layer_and_draws_two_figures() -> None:
    page = Page(render_trace(sample_trace_file(sample_trace())))
    assert "around layer 1" in " ".join(page.text.split())
    assert set(page.figures()) == {"figure-windows", "figure-states"}
    heat = page.figures()["figure-states"]["data"][0]
    assert heat["type"] == "heatmap"
    assert len(heat["z"]) == len(heat["y"]) == 7


@pytest.mark.parametrize(
    "changes", [{"last": 10}, {"first": 7}, {"states": [[0.1] * 9] * 2}, {"windows": [0.1]}, {"clean": 1.5}]
)
def test_trace_record_inconsistent_fields_raise(changes: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        sample_trace(**changes)


def test_trace_file_layer_needs_traces_and_back() -> None:
    with pytest.raises(ValidationError, match="a layer is suggested"):
        sample_trace_file(sample_trace(), suggested_layer=None)
    with pytest.raises(ValidationError, match="a layer is suggested"):
        sample_trace_file(suggested_layer=3)
