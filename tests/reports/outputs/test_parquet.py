"""Tables for notebooks: figures come back as they were, and null stays null."""

from __future__ import annotations

import io
import json

import pandas
import pytest
from editguard.reports.log.file import Log
from editguard.reports.outputs.parquet import EDITS, MEASUREMENTS, edits_table, measurements_table
from editguard.reports.verdict.digest import digest
from hypothesis import given

from ...helpers.generated_logs import HOSTILE, draw_logs, make_ended_edit, make_hostile_log, over_logs
from ...helpers.synthetic_logs import make_header


def frame(content: bytes) -> pandas.DataFrame:
    return pandas.read_parquet(io.BytesIO(content))


def kinds(table: pandas.DataFrame) -> dict[str, str]:
    return {str(name): "string" if str(kind) in ("str", "object") else str(kind) for name, kind in table.dtypes.items()}


def test_edits_table_has_one_row_per_edit(log: Log) -> None:
    table = frame(edits_table(log)).set_index("id")
    assert len(table) == 60
    row, edit = table.loc["case-0000"], log.edits[0]
    assert edit.keys is not None
    assert edit.update is not None
    assert (row["decision"], row["editor"], row["result"]) == ("rewritten", "prefixed", "passed")
    assert (row["denominator"], row["denominator_ratio"]) == (edit.keys.denominator, edit.keys.denominator_ratio)
    assert (row["relative_norm"], row["update_denominator"]) == (
        edit.update.relative_norm,
        edit.update.changes[0].denominator,
    )
    assert row["perplexity_ratio"] == digest(log).edits[0].ratio
    assert row["needs_prefix"]
    assert row["seconds"] == edit.seconds


def test_edits_table_unmeasured_is_null(log: Log) -> None:
    refused = frame(edits_table(log)).set_index("id").loc["case-0009"]
    assert refused["decision"] == "refused"
    assert refused[["perplexity_ratio", "collapsed", "relative_norm", "faults", "editor"]].isna().all()
    bare = Log(make_header(1), (make_ended_edit("not measured"),), (), None)
    (row,) = frame(measurements_table(bare)).to_dict("records")
    assert (row["check"], row["verdict"]) == ("perplexity", "unmeasured")
    assert row["value"] is None or row["value"] is pandas.NA


def test_measurements_table_is_in_log_order(log: Log) -> None:
    table = frame(measurements_table(log))
    expected = [(edit.id, measurement) for edit in log.edits for measurement in edit.measurements]
    assert len(table) == len(expected)
    for name in ("check", "metric", "condition", "verdict", "total"):
        assert table[name].tolist() == [getattr(measurement, name) for _, measurement in expected]
    assert table["id"].tolist() == [name for name, _ in expected]
    key = ["id", "check", "metric", "condition", "protocol"]
    assert not table.duplicated(key).any()
    ratio = table[(table["check"] == "perplexity") & (table["metric"] == "ratio")]
    assert ratio["value"].max() == digest(log).summary.worst_perplexity_ratio


@over_logs
@given(log=draw_logs())
def test_tables_any_log_has_same_columns_and_types(log: Log) -> None:
    edits, measurements = frame(edits_table(log)), frame(measurements_table(log))
    assert (kinds(edits), kinds(measurements)) == (EDITS, MEASUREMENTS)
    assert edits["id"].tolist() == [edit.id for edit in log.edits]
    assert len(measurements) == sum(len(edit.measurements) for edit in log.edits)


@pytest.mark.parametrize("text", HOSTILE)
def test_edits_table_hostile_text_reads_back(text: str) -> None:
    assert set(frame(edits_table(make_hostile_log(text, edits=12)))["subject"]) == {text}


def test_edits_table_of_several_weights_has_the_whole_and_each(log: Log) -> None:
    edit = log.edits[0]
    assert edit.update is not None
    (change,) = edit.update.changes
    other = change.model_copy(update={"path": "another", "layer": 12})
    update = edit.update.model_copy(update={"changes": [change, other]})
    several = Log(make_header(1), (edit.model_copy(update={"update": update}),), (), None)
    (row,) = frame(edits_table(several)).to_dict("records")
    assert row["relative_norm"] == update.relative_norm
    assert all(pandas.isna(row[name]) for name in ("numerator", "update_denominator", "steps", "final_loss"))
    assert [each["path"] for each in json.loads(row["changes"])] == [change.path, "another"]
