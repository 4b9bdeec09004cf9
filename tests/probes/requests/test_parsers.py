"""CSV and YAML, and the bounds that all formats have."""

from __future__ import annotations

import json
import time

import pytest
import yaml
from editguard.probes.requests import raw_record as raw_records
from editguard.probes.requests.parsers import PARSERS
from editguard.probes.requests.raw_record import MAX_FAULTS
from editguard.probes.requests.record_reader import read_record
from editguard.probes.requests.request import SUFFIXES

from ...helpers.edit_files import RECORD, parse, refusal


def test_parsers_every_suffix_has_a_parser() -> None:
    assert tuple(PARSERS) == SUFFIXES


# ---------------------------------------------------------------------------------------------------------------------
# CSV


def test_parse_csv_lists_are_arrays_or_bars() -> None:
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


def test_parse_csv_typed_columns_have_their_types() -> None:
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
    ("row", "field", "message"),
    [
        ("a", "row", "has 1 cells where the header has 2"),
        ("a,b,c", "row", "has 3 cells"),
        ('a,"[""b"""', "paraphrases", "is no JSON array"),
    ],
)
def test_parse_csv_wrong_row_leaves_the_others_valid(row: str, field: str, message: str) -> None:
    wrong, good = parse(".csv", f"subject,paraphrases\n{row}\nLyon,x\n")
    assert (wrong.where, wrong.faults[0].field) == ("edits.csv:2", field)
    assert message in wrong.faults[0].message
    assert good.faults == ()


@pytest.mark.parametrize(("sign", "name"), [(";", "semicolons"), ("\t", "tabs")])
def test_parse_csv_other_separators_are_named(sign: str, name: str) -> None:
    text = f"subject{sign}prompt{sign}target_new\nLyon{sign}Lyon is in{sign}Spain\n"
    assert f"with {name} in it; cells are separated by commas" in refusal(".csv", text)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a,a\n1,2", "has the column 'a' 2 times"),
        ("a,,\n1,2,3", "has a column without a name"),
        ('a,b\n1,"2\n', "is not valid CSV: unexpected end of data"),
        ("a,b\n1," + "x" * 200_000, "is not valid CSV: field larger than field limit"),
    ],
)
def test_parse_csv_unreadable_file_is_refused(text: str, message: str) -> None:
    assert message in refusal(".csv", text)


# ---------------------------------------------------------------------------------------------------------------------
# YAML


@pytest.mark.parametrize("suffix", [".yaml", ".yml"])
@pytest.mark.parametrize("top", ["", "edits:\n"])
def test_parse_yaml_records_have_number_id_and_line(suffix: str, top: str) -> None:
    text = top + '- subject: Lyon\n  prompt: "{} is in"\n  target_new: Spain\n# and\n- {id: 7, paraphrases: [a, "b"]}\n'
    first, second = parse(suffix, text)
    offset = bool(top)
    assert (first.fields, first.where) == (RECORD, f"edits{suffix}: record 1 (line {1 + offset})")
    assert (second.fields, second.where) == (
        {"id": 7, "paraphrases": ["a", "b"]},
        f"edits{suffix}: record 2 (id 7, line {5 + offset})",
    )


def test_parse_yaml_file_of_comments_has_no_records() -> None:
    assert parse(".yaml", "# nothing yet\n") == []


BOMB = "a: &a [x, x, x, x, x, x, x, x, x]\n" + "".join(
    f"{name}: &{name} [{', '.join([f'*{before}'] * 9)}]\n" for before, name in zip("abcdefgh", "bcdefghi", strict=True)
)


@pytest.mark.parametrize(
    ("text", "message"),
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
def test_parse_yaml_other_than_a_plain_list_is_refused(text: str, message: str) -> None:
    assert message in refusal(".yaml", text)


@pytest.mark.parametrize("loader", ["CSafeLoader", "SafeLoader"])
def test_parse_yaml_both_loaders_agree(loader: str, monkeypatch: pytest.MonkeyPatch) -> None:
    if loader == "SafeLoader":
        monkeypatch.delattr(yaml, "CSafeLoader", raising=False)
    records = parse(".yaml", "- {a: 1, a: 2}\n- b: 2001-99-99\n- c: .nan\n- 1: x\n- [d]\n- {? [1] : 2}\n- ok: fine\n")
    message = [record.faults[0].message if record.faults else "" for record in records]
    assert "has the key 'a' twice" in message[0]
    assert "cannot be read (month must be in 1..12)" in message[1]
    assert "is or holds nan" in message[2]
    assert "has the key 1 (a number), and keys must be text" in message[3]
    assert "it must be an object" in message[4]
    assert "cannot be read (found unhashable key)" in message[5]
    assert message[6] == ""
    assert "has the alias" in refusal(".yaml", BOMB)
    assert "nested more than 64 deep" in refusal(".yaml", "[" * 3000)


def test_parse_yaml_value_keeps_its_type() -> None:
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
def test_parsers_too_many_records_are_refused(suffix: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(raw_records, "MAX_RECORDS", 3)
    assert len(parse(suffix, holding(suffix, 3))) == 3
    assert "holds more than the 3 records that are read; split it." in refusal(suffix, holding(suffix, 4))


def test_read_record_many_faults_lists_some_and_counts_the_rest() -> None:
    keys = {f"key{number}": number for number in range(100_000)}
    started = time.process_time()
    read = read_record({**RECORD, **keys}, 1)
    assert time.process_time() - started < 5
    assert len(read.faults) == MAX_FAULTS + 1
    assert read.faults[-1].message == f"has {100_000 - MAX_FAULTS} more faults; mend these first."
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
def test_parsers_long_name_is_shortened(suffix: str, text: str) -> None:
    assert len(refusal(suffix, text.replace("{0}", "x" * 1000))) < 400


def test_parse_yaml_overflow_in_base_sixty_is_a_fault() -> None:
    (record,) = parse(".yaml", "- {n: " + "1:" * 300 + "1.0}")
    assert "cannot be read" in record.faults[0].message
