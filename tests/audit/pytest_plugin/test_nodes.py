"""Collection: which files are files of edits, and which items each edit has."""

from __future__ import annotations

import json

import pytest
from editguard.probes.requests.request import SUFFIXES

from ...helpers.plugin_sessions import (
    ITEMS,
    NOWHERE,
    RunPytest,
    list_items,
    write_edits,
)
from ...helpers.tiny_setups import FIRST_TOKEN_REQUEST, MID_PROMPT_REQUEST

pytestmark = pytest.mark.tiny


def test_collect_edits_file_by_name_loads_no_model(pytester: pytest.Pytester, run: RunPytest) -> None:
    write_edits(pytester.path / "a.edits.json", FIRST_TOKEN_REQUEST, MID_PROMPT_REQUEST)
    write_edits(pytester.path / "edits.json", FIRST_TOKEN_REQUEST)
    (pytester.path / "b.edits.yaml").write_text("- {subject: Lyon, prompt: '{} is in', target_new: Spain}\n")
    ran = run("--collect-only", "-q", NOWHERE)
    assert ran.ret == 0
    expected = [f"a.edits.json::{request}::{item}" for request in ("chicago", "france") for item in ITEMS]
    assert sorted(list_items(ran)) == sorted([*expected, *(f"b.edits.yaml::1::{item}" for item in ITEMS)])


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_collect_every_format_of_edits_by_name(
    pytester: pytest.Pytester,
    run: RunPytest,
    suffix: str,
) -> None:
    record = {"id": "a", "subject": "Lyon", "prompt": "Lyon is in", "target_new": "Spain"}
    csv = "\n".join(",".join(row) for row in (record, record.values()))
    text = csv if suffix == ".csv" else json.dumps(record if suffix in (".jsonl", ".ndjson") else [record])
    for name in (f"my.edits{suffix}", f"other{suffix}", f"my.edits{suffix}.bak"):
        (pytester.path / name).write_text(text, encoding="utf-8")
    ran = run("--collect-only", "-q", NOWHERE)
    assert sorted(list_items(ran)) == sorted(f"my.edits{suffix}::a::{item}" for item in ITEMS)


def test_collect_files_of_the_option_once_beside_the_others(pytester: pytest.Pytester, run: RunPytest) -> None:
    write_edits(pytester.path / "a.edits.json", FIRST_TOKEN_REQUEST)
    write_edits(pytester.path / "other.json", MID_PROMPT_REQUEST)
    both = ("--editguard-edits=other.json", "--editguard-edits=a.edits.json")
    ran = run("--collect-only", "-q", *both)
    expected = sorted([*(f"a.edits.json::chicago::{i}" for i in ITEMS), *(f"other.json::france::{i}" for i in ITEMS)])
    assert sorted(list_items(ran)) == expected
    ran = run("--collect-only", "-q", *both, "other.json::france::guard")
    assert sorted(list_items(ran)) == sorted([*expected[: len(ITEMS)], "other.json::france::guard"])
    ran = run("--collect-only", "-q", "--editguard-edits=builtin", "-k", "guard", "--ignore=a.edits.json")
    assert len(list_items(ran)) == 60
    assert all(name.startswith("builtin::") for name in list_items(ran))


def test_collect_files_of_the_ini_only_without_arguments(pytester: pytest.Pytester, run: RunPytest) -> None:
    write_edits(pytester.path / "mine.json", MID_PROMPT_REQUEST)
    pytester.makeini("[pytest]\neditguard_edits = mine.json\neditguard_seed = 3\n")
    pytester.makepyfile(test_one="def test_one(): pass")
    assert len(list_items(run("--collect-only", "-q"))) == len(ITEMS) + 1
    assert list_items(run("--collect-only", "-q", "test_one.py")) == ["test_one.py::test_one"]


def test_collect_wrong_file_is_one_error_with_every_fault(pytester: pytest.Pytester, run: RunPytest) -> None:
    wrong = [{"subject": "", "prompt": "{} is", "target_new": "x"}, {"subject": "Lyon", "prompt": "{} is", "target": 1}]
    (pytester.path / "a.edits.json").write_text(json.dumps(wrong))
    (pytester.path / "b.edits.jsonl").write_text("{no json\n")
    ran = run()
    assert ran.ret == pytest.ExitCode.INTERRUPTED
    text = ran.stdout.str()
    assert "editguard: 2 of 2 records in 'a.edits.json' are wrong" in text
    assert "record 1" in text
    assert "record 2" in text
    assert "b.edits.jsonl" in text
    assert "Traceback" not in text
    ran.assert_outcomes(errors=2)


def test_collect_id_in_two_files_is_an_error_with_a_log(pytester: pytest.Pytester, run: RunPytest) -> None:
    write_edits(pytester.path / "a.edits.json", FIRST_TOKEN_REQUEST)
    write_edits(pytester.path / "b.edits.json", FIRST_TOKEN_REQUEST)
    assert run("--collect-only", "-q").ret == 0
    ran = run("--collect-only", "-q", "--editguard-out=out")
    assert ran.ret == pytest.ExitCode.INTERRUPTED
    assert "The id 'chicago' of 'b.edits.json' is also in 'a.edits.json'" in ran.stdout.str()


def test_xdist_each_edit_is_a_group(pytester: pytest.Pytester) -> None:
    pytest.importorskip("xdist")
    write_edits(pytester.path / "a.edits.json", FIRST_TOKEN_REQUEST, MID_PROMPT_REQUEST)
    pytester.makeconftest(
        "def pytest_collection_modifyitems(items):\n"
        "    print('groups:', *[item.get_closest_marker('xdist_group').args[0] for item in items])"
    )
    ran = pytester.runpytest_inprocess("--collect-only", "-q", "--strict-markers")
    ran.stdout.fnmatch_lines([" ".join(["groups:", *["edit-0"] * len(ITEMS), *["edit-1"] * len(ITEMS)])])
