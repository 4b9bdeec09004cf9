"""JSON and JSON Lines: records with their lines, and faults of a line or of the whole file."""

from __future__ import annotations

import json
from collections.abc import Callable

import pytest
from editguard.probes.requests.json_parser import parse_json, parse_lines
from editguard.probes.requests.parsers import PARSERS
from hypothesis import given, settings
from hypothesis import strategies as st

from ...helpers.edit_files import RECORD, parse, refusal


def test_parsers_of_json_suffixes_are_those_of_this_module() -> None:
    assert PARSERS[".json"] is parse_json
    assert PARSERS[".jsonl"] is PARSERS[".ndjson"] is parse_lines


# ---------------------------------------------------------------------------------------------------------------------
# JSON


@pytest.mark.parametrize("wrap", [lambda records: records, lambda records: {"edits": records}])
@pytest.mark.parametrize("indent", [None, 0, 3])
def test_parse_json_records_have_number_id_and_line(wrap: Callable[[object], object], indent: int | None) -> None:
    text = json.dumps(wrap([RECORD, {**RECORD, "case_id": 7}]), indent=indent)
    first, second = parse(".json", text)
    assert (first.fields, first.faults) == (RECORD, ())
    opening = [text.index("{", text.index("[")), text.rindex("{", 0, text.rindex("{}"))]
    lines = [text.count("\n", 0, position) + 1 for position in opening]
    assert first.where == f"edits.json: record 1 (line {lines[0]})"
    assert second.where == f"edits.json: record 2 (case_id 7, line {lines[1]})"


values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(st.characters(exclude_categories=("Cs",))),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner, max_size=3),
    max_leaves=8,
)


@settings(deadline=None)
@given(
    records=st.lists(st.dictionaries(st.text(st.characters(exclude_categories=("Cs",)), max_size=4), values)),
    indent=st.sampled_from([None, 0, 2]),
    escaped=st.booleans(),
)
def test_parse_json_equals_the_standard_library(
    records: list[dict[str, object]], indent: int | None, escaped: bool
) -> None:
    text = json.dumps(records, indent=indent, ensure_ascii=escaped)
    expected = [{key: value for key, value in record.items() if value is not None} for record in records]
    assert [record.fields for record in parse(".json", text)] == expected
    lines = "\n".join(json.dumps(record, ensure_ascii=escaped) for record in records)
    assert [record.fields for record in parse(".jsonl", lines)] == expected


@settings(deadline=None)
@given(st.data())
def test_parse_json_truncated_file_is_refused(data: st.DataObject) -> None:
    text = json.dumps({"edits": [RECORD, {**RECORD, "id": 7, "paraphrases": ["a", 'b"']}]}, indent=1)
    cut = data.draw(st.integers(1, len(text) - 1))
    assert "is not valid JSON" in refusal(".json", text[:cut])


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[{}, ]", "Expecting a record after ',' at line 1, column 6"),
        ("[{} {}]", "Expecting ',' or ']' at line 1, column 5"),
        ("[{}]\n[]", "Extra text after the records at line 2, column 1"),
        ('{"edits": [], "n": 1}', 'no other key beside "edits"'),
        ('[{"a": "b', "Unterminated string starting at line 1, column 8 (the file may have been cut off)"),
        ("[\n{", "at line 2, column 2 (the file may have been cut off)"),
        ("[" * 100_000, "nested too deep"),
        ('[{"id": ' + "9" * 5000 + "}]", "too many digits"),
        ('{"edit": []}', "holds an object with the keys 'edit' where a list of edits is needed"),
        ('{"subject": "Lyon", "prompt": "x"}', "an object with the keys 'subject', 'prompt' where"),
        ("{}", "holds an empty object"),
        ('"text"', "holds 'text' where a list"),
        ("3", "holds 3 (a number) where a list"),
    ],
)
def test_parse_json_other_than_a_list_of_records_is_refused(text: str, message: str) -> None:
    assert message in refusal(".json", text)


# ---------------------------------------------------------------------------------------------------------------------
# JSON Lines


@pytest.mark.parametrize("suffix", [".jsonl", ".ndjson"])
def test_parse_lines_only_a_line_feed_ends_a_line(suffix: str) -> None:
    separators = json.dumps({**RECORD, "group": "a\u2028b\x85c"}, ensure_ascii=False)
    records = parse(suffix, f"\n{json.dumps(RECORD)}\r\n  \n{separators}\n")
    assert [record.where for record in records] == [f"edits{suffix}:2", f"edits{suffix}:4"]
    assert records[1].fields["group"] == "a\u2028b\x85c"


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ('{"subject": "Ly', "is not valid JSON: Unterminated string starting at column 13"),
        ("{} {}", "is not valid JSON: Extra data at column 4"),
        ("[" * 100_000, "nested too deep"),
        ("[1, 2]", "is [1, 2] (a list); it must be an object"),
        ("null", "is null; it must be an object"),
    ],
)
def test_parse_lines_wrong_line_leaves_the_others_valid(line: str, message: str) -> None:
    wrong, good = parse(".jsonl", f"{line}\n{json.dumps(RECORD)}")
    assert wrong.where == "edits.jsonl:1"
    assert message in wrong.faults[0].message
    assert (good.fields, good.faults) == (RECORD, ())


# ---------------------------------------------------------------------------------------------------------------------
# What no format may hold


@pytest.mark.parametrize(
    ("text", "field", "message"),
    [
        ('[{"a": NaN}]', "a", "is or holds nan"),
        ('[{"a": {"b": [1, -Infinity]}}]', "a", "is or holds -inf"),
        ('[{"a": 1e999}]', "a", "is or holds inf"),
        ('[{"a": 1, "b": 2, "b": 3}]', "b", "has the key 'b' twice"),
        ('[{"a": {"b": 2, "b": 3}}]', "a", "has the key 'b' twice"),
        ('[{"a": ["\\ud83d"]}]', "a", "half a surrogate pair at character 0"),
        ('[{"\\ud83d": 1}]', "record", "half a surrogate pair"),
    ],
)
def test_raw_record_forbidden_value_is_a_fault(text: str, field: str, message: str) -> None:
    (record,) = parse(".json", text)
    assert [fault.field for fault in record.faults] == [field]
    assert message in record.faults[0].message


def test_raw_record_null_is_left_out() -> None:
    (record,) = parse(".json", '[{"subject": "Lyon", "target_true": null}]')
    assert record.fields == {"subject": "Lyon"}


def test_raw_record_place_with_an_id_is_one_line() -> None:
    (record,) = parse(".json", json.dumps([{**RECORD, "id": "a\nb"}]))
    assert record.where == "edits.json: record 1 (id 'a\\nb', line 1)"
