from __future__ import annotations

import json

import pytest
from editguard.reports.html.plotting import (
    MOST_POINTS,
    Mark,
    describe_thinning,
    make_count_axis,
    make_log_axis,
    make_mark,
    make_trace,
    render_figure,
    thin,
)
from editguard.reports.log.file import Log
from editguard.reports.verdict.digest import digest
from hypothesis import given
from hypothesis import strategies as st


def test_render_figure_cannot_close_its_element() -> None:
    data = render_figure(
        [make_trace("</script>", "allowed", [Mark(1.0, 2.0, "</script><!--", "edit-a")], "circle")], {}
    )
    assert "<" not in data
    assert ">" not in data
    assert json.loads(data)["data"][0]["name"] == "</script>"


def test_render_figure_unknown_attribute_raises() -> None:
    with pytest.raises(ValueError, match="colour"):
        render_figure([make_trace("a", "allowed", [], "circle") | {"colour": "red"}], {})


def test_render_figure_crowded_trace_is_thinned_evenly() -> None:
    marks = [Mark(float(n), 1.0, str(n), "edit-a") for n in range(MOST_POINTS + 1000)]
    crowded = make_trace("a", "allowed", marks, "circle")
    drawn = json.loads(render_figure([crowded], {}))["data"][0]
    assert len(drawn["x"]) == MOST_POINTS
    assert [str(int(x)) for x in drawn["x"]] == drawn["text"]
    assert describe_thinning([crowded]) == f" Drawn are {MOST_POINTS} of {MOST_POINTS + 1000} marks."
    assert describe_thinning([make_trace("a", "allowed", marks[:10], "circle")]) == ""
    assert thin(list(range(10)), 4) == [0, 2, 5, 7]


def test_render_figure_outermost_marks_stay() -> None:
    heights = [1.0] * (20 * MOST_POINTS)
    heights[1234], heights[4321] = 9.0, -9.0
    marks = [Mark(float(n), height, "", "edit-a") for n, height in enumerate(heights)]
    drawn = json.loads(render_figure([make_trace("a", "allowed", marks, "circle")], {}))["data"][0]
    assert len(drawn["x"]) == MOST_POINTS
    assert {(1234, 9.0), (4321, -9.0)} <= set(zip(drawn["x"], drawn["y"], strict=True))


@given(st.integers(1, 10**9))
def test_make_count_axis_has_few_whole_ticks(most: int) -> None:
    step = make_count_axis(most)["dtick"]
    assert isinstance(step, int)
    assert step >= 1
    assert most / step <= 10
    assert step == 1 or most / step > 3


def test_make_log_axis_short_range_has_inner_ticks() -> None:
    assert make_log_axis([1.6, 4.8])["dtick"] == "D2"
    assert make_log_axis([0.01, 4.8])["dtick"] == 1


def test_make_mark_hover_text_is_short(log: Log) -> None:
    story = digest(log).edits[0]
    assert make_mark(story, 0.0, 0.0, "x" * 100).text.split("<br>")[:2] == ["case-0000", "Chicago → Istanbul"]
    assert len(make_mark(story, 0.0, 0.0, "x" * 100).text.split("<br>")[2]) == 70
