"""The schema of a reproduction refuses parts that do not fit together, with a message that names them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from editguard.reports.reproduction.schema import Experiment, Reproduction
from pydantic import ValidationError

from ...helpers.reproduction_data import (
    make_claim,
    make_curves,
    make_experiment,
    make_group,
    make_heat,
    make_reproduction,
    make_scatter,
    make_skipped_experiment,
    make_table,
)


def test_reproduction_json_round_trip_keeps_types() -> None:
    cells: list[list[Any]] = [["a", True], [1, 1.0], [None, 2**70], ["1", False]]
    reproduction = make_reproduction(
        make_experiment(tables=[make_table(columns=["x", "y"], rows=cells)]), make_skipped_experiment()
    )
    again = Reproduction.model_validate_json(reproduction.model_dump_json())
    assert again == reproduction
    assert [[type(cell) for cell in row] for row in again.experiments[0].tables[0].rows] == [
        [type(cell) for cell in row] for row in cells
    ]


@pytest.mark.parametrize(
    ("make", "changes", "message"),
    [
        (make_table, {"rows": [["tiny", 1]]}, "every row of table 'counts' must have 3 cells"),
        (make_table, {"columns": ["a", "a", "b"]}, "names a column twice"),
        (make_table, {"name": "Two Words"}, "pattern"),
        (make_table, {"name": "../up"}, "pattern"),
        (make_table, {"rows": [["a", float("nan"), 1]]}, "finite"),
        (make_group, {"y": [1.0]}, "3 x, 1 y and 3 labels"),
        (make_group, {"labels": ["a"]}, "3 x, 3 y and 1 labels"),
        (make_group, {"x": [1, 2, float("inf")]}, "finite"),
        (make_heat, {"z": [[1.0, 2.0]]}, "must have 2 rows of 2"),
        (make_heat, {"z": [[1.0, 2.0], [3.0]]}, "must have 2 rows of 2"),
        (make_claim, {"agreement": "perhaps"}, "agrees"),
        (make_scatter, {"kind": "curves"}, "scatter"),
        (make_experiment, {"claims": [], "tables": []}, "neither a claim nor a table"),
        (make_experiment, {"number": -1}, "greater than or equal"),
        (make_experiment, {"colour": "red"}, "Extra inputs"),
    ],
)
def test_reproduction_invalid_part_raises(make: Callable[..., Any], changes: dict[str, Any], message: str) -> None:
    make()
    with pytest.raises(ValidationError, match=message):
        make(**changes)


def test_reproduction_duplicate_name_raises() -> None:
    with pytest.raises(ValidationError, match="rename the duplicates of points"):
        make_reproduction(make_experiment(tables=[make_table(name="points")]))
    with pytest.raises(ValidationError, match="rename the duplicates of first"):
        make_reproduction(make_experiment(), make_skipped_experiment(name="first"))


@pytest.mark.parametrize("name", ["main", "experiments", "provenance", "figure-points", "table-counts"])
def test_reproduction_experiment_with_anchor_of_the_page_raises(name: str) -> None:
    with pytest.raises(ValidationError, match=f"the name '{name}' of an experiment is already an anchor"):
        make_reproduction(make_experiment(name=name))


def test_experiment_skipped_needs_only_the_reason() -> None:
    assert make_skipped_experiment().claims == []
    with pytest.raises(ValidationError, match="give the reason in `skipped`"):
        Experiment(number=1, name="a", title="", question="", source="")


def test_experiment_pictures_are_read_by_kind() -> None:
    reproduction = make_reproduction(make_experiment(pictures=[make_heat(), make_curves(), make_scatter()]))
    again = Reproduction.model_validate_json(reproduction.model_dump_json())
    assert [picture.kind for picture in again.experiments[0].pictures] == ["heat", "curves", "scatter"]
