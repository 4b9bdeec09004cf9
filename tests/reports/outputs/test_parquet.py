"""Tables for notebooks: the columns are those that are documented, figures come back as they were, and null stays null."""

from __future__ import annotations

import io
import re
from pathlib import Path

import pandas
import pytest
from editguard.reports.log.file import Log
from editguard.reports.outputs.parquet import EDITS, MEASUREMENTS, edits_table, measurements_table
from editguard.reports.verdict.digest import digest
from hypothesis import given

from ...helpers.generated_logs import HOSTILE, ended, hostile_log, logs, over_logs
from ...helpers.synthetic_logs import header

GUIDE = Path(__file__).resolve().parents[3] / "docs" / "reference" / "outputs.md"


def frame(content: bytes) -> pandas.DataFrame:
    return pandas.read_parquet(io.BytesIO(content))


def kinds(found: pandas.DataFrame) -> dict[str, str]:
    return {str(name): "string" if str(kind) in ("str", "object") else str(kind) for name, kind in found.dtypes.items()}


def test_one_row_an_edit_with_what_the_log_says_of_it(log: Log) -> None:
    found = frame(edits_table(log)).set_index("id")
    assert len(found) == 60
    one, edit = found.loc["case-0000"], log.edits[0]
    assert edit.keys is not None
    assert edit.update is not None
    assert (one["decision"], one["editor"], one["result"]) == ("rewritten", "prefixed", "passed")
    assert (one["denominator"], one["denominator_ratio"]) == (edit.keys.denominator, edit.keys.denominator_ratio)
    assert (one["relative_norm"], one["update_denominator"]) == (edit.update.relative_norm, edit.update.denominator)
    assert one["perplexity_ratio"] == digest(log).edits[0].ratio
    assert one["needs_prefix"]
    assert one["seconds"] == edit.seconds


def test_what_was_not_measured_is_null(log: Log) -> None:
    refused = frame(edits_table(log)).set_index("id").loc["case-0009"]
    assert refused["decision"] == "refused"
    assert refused[["perplexity_ratio", "collapsed", "relative_norm", "faults", "editor"]].isna().all()
    bare = Log(header(1), (ended("not measured"),), (), None)
    (row,) = frame(measurements_table(bare)).to_dict("records")
    assert (row["check"], row["verdict"]) == ("perplexity", "unmeasured")
    assert row["value"] is None or row["value"] is pandas.NA


def test_one_row_a_measurement_in_the_order_of_the_log(log: Log) -> None:
    found = frame(measurements_table(log))
    asked = [(edit.id, one) for edit in log.edits for one in edit.measurements]
    assert len(found) == len(asked)
    for name in ("check", "metric", "condition", "verdict", "total"):
        assert found[name].tolist() == [getattr(one, name) for _, one in asked]
    assert found["id"].tolist() == [name for name, _ in asked]
    key = ["id", "check", "metric", "condition", "protocol"]
    assert not found.duplicated(key).any()
    ratio = found[(found["check"] == "perplexity") & (found["metric"] == "ratio")]
    assert ratio["value"].max() == digest(log).summary.worst_perplexity_ratio


@over_logs
@given(log=logs())
def test_columns_and_types_are_the_same_whatever_is_in_the_log(log: Log) -> None:
    edits, measurements = frame(edits_table(log)), frame(measurements_table(log))
    assert (kinds(edits), kinds(measurements)) == (EDITS, MEASUREMENTS)
    assert edits["id"].tolist() == [edit.id for edit in log.edits]
    assert len(measurements) == sum(len(edit.measurements) for edit in log.edits)


@pytest.mark.parametrize("text", HOSTILE)
def test_text_comes_back_as_it_was(text: str) -> None:
    assert set(frame(edits_table(hostile_log(text, edits=12)))["subject"]) == {text}


@pytest.mark.parametrize(("title", "columns"), [("edits.parquet", EDITS), ("measurements.parquet", MEASUREMENTS)])
def test_the_guide_gives_every_column_with_its_type(title: str, columns: dict[str, str]) -> None:
    part = GUIDE.read_text(encoding="utf-8").partition(f"\n`{title}` has one row")[2].partition(".parquet` has one row")[0]
    told = {
        name: kind
        for names, kind in re.findall(r"^\| (`.*?) \| (\w+) \|", part, re.MULTILINE)
        for name in re.findall(r"`(\w+)`", names)
    }
    assert told == columns
