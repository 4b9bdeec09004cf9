"""The pictures of a reproduction: marks, axes, colours and gaps, each with its table."""

from __future__ import annotations

import json
from itertools import pairwise
from typing import Any

import pytest
from editguard.reports.reproduction.figures import draw
from editguard.reports.reproduction.schema import Curves, Heat, Scatter

from ...helpers.reproduction_data import make_curves, make_group, make_heat, make_scatter


def plot(picture: Scatter | Curves | Heat) -> dict[str, Any]:
    figure: dict[str, Any] = json.loads(draw(picture).data)
    return figure


def test_draw_groups_differ_in_colour_symbol_and_dash() -> None:
    groups = [make_group(name=str(n)) for n in range(12)]
    data = plot(make_curves(groups=groups))["data"]
    looks = [(trace["meta"]["role"], trace["marker"]["symbol"], trace["line"]["dash"]) for trace in data]
    assert len(set(looks)) == 12
    assert all(role != following for role, following in pairwise(role for role, _, _ in looks))
    assert {trace["type"] for trace in data} == {"scatter"}


def test_draw_point_hover_names_group_label_and_values() -> None:
    named = plot(make_scatter(x_title="Layer", y_title="Norm"))["data"][0]
    assert named["text"][0] == "collapse<br>a<br>Layer: 1<br>Norm: 10"
    projected = plot(make_scatter(groups=[make_group(labels=[])]))
    assert projected["data"][0]["text"][0] == "collapse"
    assert projected["layout"]["xaxis"]["showticklabels"] is False


def test_draw_quotes_stay_quotes() -> None:
    # Plotly knows &lt; and &amp;, and would show &quot; as it stands.
    assert plot(make_scatter(groups=[make_group(name='"a" & <b>')]))["data"][0]["name"] == '"a" &amp; &lt;b&gt;'


def test_draw_logarithmic_axis_counts_omitted_points() -> None:
    picture = make_scatter(groups=[make_group(x=[0, 1, 2], y=[1, -1, 3])], log_x=True, log_y=True, y_title="Norm")
    assert plot(picture)["data"][0]["x"] == [2]
    assert "2 points are zero or below and not drawn" in draw(picture).caption
    assert draw(picture).rows == (("collapse", "3", "1", "1"),)
    lost = make_curves(groups=[make_group(x=[1], y=[0], labels=[])], log_y=True)
    assert "1 point is zero or below" in draw(lost).caption
    assert plot(lost)["data"][0]["visible"] is False


def test_draw_picture_without_points_is_empty() -> None:
    empty = make_group(x=[], y=[], labels=[])
    assert draw(make_scatter(groups=[empty])).rows == (("collapse", "0", "–", "–"),)
    assert draw(make_curves(groups=[empty])).rows == (("collapse", "0", "–", "–", "–"),)
    assert plot(make_scatter(groups=[]))["data"] == []
    assert draw(make_heat(x=[], y=[], z=[])).rows == ()


def test_draw_mean_of_largest_floats_does_not_overflow() -> None:
    assert draw(make_scatter(groups=[make_group(y=[1.7e308] * 3)])).rows[0][3] == "1.70×10³⁰⁸"


def test_draw_grid_shows_values_and_gaps() -> None:
    grid, gaps = plot(make_heat(x_title="Layer"))["data"]
    assert grid["z"] == [[1.0, 100.0], [None, 0.0]]
    assert grid["text"][0][1] == "one<br>Layer: 1<br>norm: 100"
    assert (gaps["x"], gaps["y"]) == ([0], [1])
    assert gaps["text"] == ["two<br>Layer: 0<br>norm: not measured"]
    assert draw(make_heat()).rows == (("one", "2", "1", "0", "100", "1"), ("two", "1", "0", "1", "0", "1"))
    assert draw(make_heat(z=[[None, None]] * 2)).rows[0] == ("one", "0", "–", "–", "–", "–")


def test_draw_logarithmic_grid_leaves_out_zeros_and_gaps() -> None:
    picture = make_heat(log=True)
    grid, gaps, zeros = plot(picture)["data"]
    assert grid["z"] == [[0.0, 2.0], [None, None]]
    assert "norm: 100" in grid["text"][0][1]
    assert grid["colorbar"]["ticktext"] == ["10<sup>0</sup>", "10<sup>1</sup>", "10<sup>2</sup>"]
    assert (gaps["x"], zeros["x"]) == ([0], [1])
    assert "A cross stands" in draw(picture).caption
    assert "A ring stands" in draw(picture).caption


@pytest.mark.parametrize(
    ("values", "ticks"),
    [
        ([5.0, 5.0], ["5"]),
        ([4.0, 6.0], ["4", "6"]),
        ([0.0, None], None),
        ([1e-300, 1e300], 7),
        ([2.0, 12.0], ["2", "12"]),
    ],
)
def test_draw_logarithmic_scale_is_labelled_with_values(values: list[float | None], ticks: Any) -> None:
    bar = plot(make_heat(y=["one"], z=[values], log=True))["data"][0]["colorbar"]
    shown = bar.get("ticktext")
    assert len(shown) == ticks if isinstance(ticks, int) else shown == ticks


def test_draw_grid_around_zero_has_two_colours() -> None:
    grid = plot(make_heat(z=[[-1.0, 4.0], [0.0, 2.0]]))["data"][0]
    assert (grid["zmin"], grid["zmax"]) == (-4.0, 4.0)
    assert grid["meta"]["role"] != grid["meta"]["below"]


def test_draw_grid_equal_labels_and_dates_stay_labels() -> None:
    drawn = plot(make_heat(x=["2024-01-01", "2024-01-01"], y=["7", "7"]))
    assert (drawn["data"][0]["x"], drawn["data"][0]["y"]) == ([0, 1], [0, 1])
    assert drawn["layout"]["xaxis"]["ticktext"] == ["2024-01-01", "2024-01-01"]


def test_draw_many_points_are_thinned_and_counted() -> None:
    many = list(map(float, range(6000)))
    figure = draw(make_scatter(groups=[make_group(x=many, y=many, labels=[])]))
    assert "Drawn are 1000 of 6000 marks." in figure.caption
    assert figure.rows[0][1] == "6000"
