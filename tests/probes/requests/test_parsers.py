from __future__ import annotations

import json
import time
from collections.abc import Callable

import pytest
import yaml
from editguard.probes.errors import RequestError
from editguard.probes.requests import raw_record as request_records
from editguard.probes.requests.parsers import PARSERS
from editguard.probes.requests.raw_record import MAX_FAULTS, RawRecord
from editguard.probes.requests.record_reader import read_record
from editguard.probes.requests.request import SUFFIXES
from hypothesis import given, settings
from hypothesis import strategies as st

RECORD = {"subject": "Lyon", "prompt": "{} is in", "target_new": "Spain"}


def test_every_suffix_of_a_file_of_edits_has_its_parser() -> None:
    assert tuple(PARSERS) == SUFFIXES


def parse(suffix: str, text: str) -> list[RawRecord]:
    return PARSERS[suffix](text, f"data/edits{suffix}", f"edits{suffix}")


def refusal(suffix: str, text: str) -> str:
    with pytest.raises(RequestError) as caught:
        parse(suffix, text)
    message = str(caught.value)
    assert f"'data/edits{suffix}'" in message
    assert "\n" not in message
    return message


# ---------------------------------------------------------------------------------------------------------------------
# JSON


@pytest.mark.parametrize("wrap", [lambda records: records, lambda records: {"edits": records}])
@pytest.mark.parametrize("indent", [None, 0, 3])
def test_json_records_know_their_number_id_and_line(wrap: Callable[[object], object], indent: int | None) -> None:
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
def test_json_is_read_as_the_standard_library_reads_it(
    records: list[dict[str, object]], indent: int | None, escaped: bool
) -> None:
    text = json.dumps(records, indent=indent, ensure_ascii=escaped)
    expected = [{key: value for key, value in record.items() if value is not None} for record in records]
    assert [record.fields for record in parse(".json", text)] == expected
    lines = "\n".join(json.dumps(record, ensure_ascii=escaped) for record in records)
    assert [record.fields for record in parse(".jsonl", lines)] == expected


@settings(deadline=None)
@given(st.data())
def test_a_truncated_json_file_is_one_refusal(data: st.DataObject) -> None:
    text = json.dumps({"edits": [RECORD, {**RECORD, "id": 7, "paraphrases": ["a", 'b"']}]}, indent=1)
    cut = data.draw(st.integers(1, len(text) - 1))
    assert "is not valid JSON" in refusal(".json", text[:cut])


@pytest.mark.parametrize(
    ("text", "said"),
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
def test_json_that_is_no_list_of_records_is_refused(text: str, said: str) -> None:
    assert said in refusal(".json", text)


# ---------------------------------------------------------------------------------------------------------------------
# JSON Lines


@pytest.mark.parametrize("suffix", [".jsonl", ".ndjson"])
def test_lines_are_the_files_real_lines(suffix: str) -> None:
    separators = json.dumps({**RECORD, "group": "a\u2028b\x85c"}, ensure_ascii=False)
    records = parse(suffix, f"\n{json.dumps(RECORD)}\r\n  \n{separators}\n")
    assert [record.where for record in records] == [f"edits{suffix}:2", f"edits{suffix}:4"]
    assert records[1].fields["group"] == "a\u2028b\x85c"


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ('{"subject": "Ly', "is not valid JSON: Unterminated string starting at column 13"),
        ("{} {}", "is not valid JSON: Extra data at column 4"),
        ("[" * 100_000, "nested too deep"),
        ("[1, 2]", "is [1, 2] (a list); it must be an object"),
        ("null", "is null; it must be an object"),
    ],
)
def test_a_wrong_line_is_a_fault_of_that_line_alone(line: str, said: str) -> None:
    wrong, good = parse(".jsonl", f"{line}\n{json.dumps(RECORD)}")
    assert wrong.where == "edits.jsonl:1"
    assert said in wrong.faults[0].message
    assert (good.fields, good.faults) == (RECORD, ())


# ---------------------------------------------------------------------------------------------------------------------
# What no format may hold


@pytest.mark.parametrize(
    ("text", "field", "said"),
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
def test_what_no_record_may_hold(text: str, field: str, said: str) -> None:
    (record,) = parse(".json", text)
    assert [fault.field for fault in record.faults] == [field]
    assert said in record.faults[0].message


def test_null_says_not_given() -> None:
    (record,) = parse(".json", '[{"subject": "Lyon", "target_true": null}]')
    assert record.fields == {"subject": "Lyon"}


def test_an_id_in_a_place_stays_on_its_line() -> None:
    (record,) = parse(".json", json.dumps([{**RECORD, "id": "a\nb"}]))
    assert record.where == "edits.json: record 1 (id 'a\\nb', line 1)"


# ---------------------------------------------------------------------------------------------------------------------
# CSV


def test_csv_lists_are_arrays_or_bars_and_empty_cells_are_absent() -> None:
    text = (
        "subject,prompt,target_true,paraphrases,neighbourhood\n"
        'Lyon,"Lyon, in\nFrance, is",,a | b,"[""p|q"", ""r""]"\n'
        "\n"
        "Paris,Paris is,France,one,\n"
    )
    first, second = parse(".csv", text)
    assert first.where == "edits.csv:2"
    assert first.fields == {
        "subject": "Lyon",
        "prompt": "Lyon, in\nFrance, is",
        "paraphrases": ["a", "b"],
        "neighbourhood": ["p|q", "r"],
    }
    assert second.where == "edits.csv:5"
    assert second.fields == {"subject": "Paris", "prompt": "Paris is", "target_true": "France", "paraphrases": ["one"]}


def test_csv_columns_of_truths_answers_and_other_facts_are_what_they_mean() -> None:
    (record,) = parse(
        ".csv",
        "subject,space,target_true,target_old,other_facts,true_aliases,not_judged\n"
        'Lyon,False,"[""France"", ""FR""]",[sic],{} lies on | {} is,a|b,x\n',
    )
    assert record.faults == ()
    assert record.fields == {
        "subject": "Lyon",
        "space": False,
        "target_true": ["France", "FR"],
        "target_old": "[sic]",
        "other_facts": ["{} lies on", "{} is"],
        "true_aliases": ["a", "b"],
        "not_judged": ["x"],
    }
    assert parse(".csv", "subject,space\nLyon,perhaps\n")[0].fields["space"] == "perhaps"


@pytest.mark.parametrize(
    ("row", "field", "said"),
    [
        ("a", "row", "has 1 cells where the header has 2"),
        ("a,b,c", "row", "has 3 cells"),
        ('a,"[""b"""', "paraphrases", "is no JSON array"),
    ],
)
def test_a_wrong_row_is_a_fault_of_that_row_alone(row: str, field: str, said: str) -> None:
    wrong, good = parse(".csv", f"subject,paraphrases\n{row}\nLyon,x\n")
    assert (wrong.where, wrong.faults[0].field) == ("edits.csv:2", field)
    assert said in wrong.faults[0].message
    assert good.faults == ()


@pytest.mark.parametrize(("sign", "name"), [(";", "semicolons"), ("\t", "tabs")])
def test_csv_with_other_separators_is_told_so(sign: str, name: str) -> None:
    text = f"subject{sign}prompt{sign}target_new\nLyon{sign}Lyon is in{sign}Spain\n"
    assert f"with {name} in it; cells are separated by commas" in refusal(".csv", text)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("a,a\n1,2", "has the column 'a' 2 times"),
        ("a,,\n1,2,3", "has a column without a name"),
        ('a,b\n1,"2\n', "is not valid CSV: unexpected end of data"),
        ("a,b\n1," + "x" * 200_000, "is not valid CSV: field larger than field limit"),
    ],
)
def test_csv_that_cannot_be_read_on_is_refused(text: str, said: str) -> None:
    assert said in refusal(".csv", text)


# ---------------------------------------------------------------------------------------------------------------------
# YAML


@pytest.mark.parametrize("suffix", [".yaml", ".yml"])
@pytest.mark.parametrize("top", ["", "edits:\n"])
def test_yaml_records(suffix: str, top: str) -> None:
    text = top + '- subject: Lyon\n  prompt: "{} is in"\n  target_new: Spain\n# and\n- {id: 7, paraphrases: [a, "b"]}\n'
    first, second = parse(suffix, text)
    offset = bool(top)
    assert (first.fields, first.where) == (RECORD, f"edits{suffix}: record 1 (line {1 + offset})")
    assert (second.fields, second.where) == (
        {"id": 7, "paraphrases": ["a", "b"]},
        f"edits{suffix}: record 2 (id 7, line {5 + offset})",
    )


def test_a_file_of_comments_has_no_records() -> None:
    assert parse(".yaml", "# nothing yet\n") == []


BOMB = "a: &a [x, x, x, x, x, x, x, x, x]\n" + "".join(
    f"{name}: &{name} [{', '.join([f'*{before}'] * 9)}]\n" for before, name in zip("abcdefgh", "bcdefghi", strict=True)
)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("- !!python/object/apply:os.system [true]", "has the tag 'tag:yaml.org,2002:python/object/apply:os.system'"),
        ("- id: !!str 7", "has the tag 'tag:yaml.org,2002:str' at line 1"),
        ("- !local x", "has the tag '!local'"),
        (BOMB, "has the alias *a at line 2"),
        ("- &a [*a]", "has the alias *a"),
        ("[" * 100_000, "nested more than 64 deep"),
        ("- [a", "is not valid YAML: did not find expected"),
        ("- a: b: c", "is not valid YAML: mapping values are not allowed in this context at line 1"),
        ("a: 1\n---\nb: 2", "is not valid YAML"),
        ('- "\x07"', "is not valid YAML: control characters are not allowed"),
        ("edit: []", "holds an object with the keys 'edit'"),
        ("edits: []\nother: 1", "holds an object with the keys 'edits', 'other'"),
        ("some text", "holds 'some text' where a list"),
    ],
)
def test_yaml_that_is_no_plain_list_is_refused(text: str, said: str) -> None:
    assert said in refusal(".yaml", text)


@pytest.mark.parametrize("loader", ["CSafeLoader", "SafeLoader"])
def test_both_yaml_loaders_agree(loader: str, monkeypatch: pytest.MonkeyPatch) -> None:
    if loader == "SafeLoader":
        monkeypatch.delattr(yaml, "CSafeLoader", raising=False)
    records = parse(".yaml", "- {a: 1, a: 2}\n- b: 2001-99-99\n- c: .nan\n- 1: x\n- [d]\n- {? [1] : 2}\n- ok: fine\n")
    said = [record.faults[0].message if record.faults else "" for record in records]
    assert "has the key 'a' twice" in said[0]
    assert "cannot be read (month must be in 1..12)" in said[1]
    assert "is or holds nan" in said[2]
    assert "has the key 1 (a number), and keys must be text" in said[3]
    assert "it must be an object" in said[4]
    assert "cannot be read (found unhashable key)" in said[5]
    assert said[6] == ""
    assert "has the alias" in refusal(".yaml", BOMB)
    assert "nested more than 64 deep" in refusal(".yaml", "[" * 3000)


def test_yaml_keeps_the_kind_of_a_value_so_that_the_form_can_refuse_it() -> None:
    (record,) = parse(".yaml", "- {target_new: 1984, target_true: no, group: 0x" + "f" * 5000 + "}")
    assert record.fields["target_new"] == 1984
    assert record.fields["target_true"] is False
    assert isinstance(record.fields["group"], int)


# ---------------------------------------------------------------------------------------------------------------------
# Bounds: a small file asks for no long time, no great memory and no long message


def holding(suffix: str, number: int) -> str:
    """Return a file of so many records, the shortest that there are."""
    listed = f"[{','.join(['{}'] * number)}]"
    return {".json": listed, ".jsonl": "{}\n" * number, ".csv": "a\n" + "1\n" * number, ".yaml": listed}[suffix]


@pytest.mark.parametrize("suffix", [".json", ".jsonl", ".csv", ".yaml"])
def test_more_records_than_any_audit_has_are_refused(suffix: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(request_records, "MAX_RECORDS", 3)
    assert len(parse(suffix, holding(suffix, 3))) == 3
    assert "holds more than the 3 records that are read; split it." in refusal(suffix, holding(suffix, 4))


def test_a_record_of_a_hundred_thousand_faults_tells_some_and_counts_the_rest() -> None:
    keys = {f"key{number}": number for number in range(100_000)}
    started = time.process_time()
    found = read_record({**RECORD, **keys}, 1)
    assert time.process_time() - started < 5
    assert len(found.faults) == MAX_FAULTS + 1
    assert found.faults[-1].message == f"has {100_000 - MAX_FAULTS} more faults; mend these first."
    (record,) = parse(".json", json.dumps([{key: float("nan") for key in keys}]))
    assert len(record.faults) == MAX_FAULTS


@pytest.mark.parametrize(
    ("suffix", "text"),
    [
        (".yaml", "- &{0} [*{0}]"),
        (".yaml", "- !{0} x"),
        (".csv", "{0},{0}\n1,2\n"),
    ],
)
def test_a_name_of_a_megabyte_is_shortened(suffix: str, text: str) -> None:
    assert len(refusal(suffix, text.replace("{0}", "x" * 1000))) < 400


def test_yaml_to_base_sixty_that_no_float_holds_is_a_fault_of_its_record() -> None:
    (record,) = parse(".yaml", "- {n: " + "1:" * 300 + "1.0}")
    assert "cannot be read" in record.faults[0].message
