"""The plugin as people meet it: what is collected, what passes and fails, what is left behind, and what it costs the others."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
from editguard.audit.editors.builtin.exploded import Exploded
from editguard.audit.pytest_plugin import collapse, nodes
from editguard.audit.run.file_names import LOG, SUMMARY
from editguard.audit.run.output_folder import locked_folder
from editguard.probes.requests.request import SUFFIXES, EditRequest
from editguard.reports.log.file import read_log
from editguard.reports.verdict.digest import summarise
from editguard.suites.builtin import load_builtin_edits
from editguard.suites.check import list_single_edit_checks

from ...helpers.check_benches import says_only
from ...helpers.tiny_models import tiny_lm
from ...helpers.tiny_setups import FIRST_TOKEN_REQUEST, MID_PROMPT_REQUEST, lenient

pytestmark = pytest.mark.tiny

ITEMS = {"guard", *list_single_edit_checks()}
NOWHERE = "--editguard-model=./no/such/model"
HEAVY = ("torch", "transformers", "numpy", "pandas", "plotly", "pydantic", "yaml", "typer")
REFUSING = 'first-token = "refuse"'
GUIDE = Path(__file__).resolve().parents[2] / "docs" / "guide-pytest.md"
Run = pytest.RunResult


def write_edits(path: Path, *requests: EditRequest) -> Path:
    fields = ("id", "subject", "prompt", "target_new", "target_true", "paraphrases", "neighbourhood")
    records = [{name: getattr(request, name) for name in fields} for request in requests]
    path.write_text(json.dumps(records), encoding="utf-8")
    return path


def write_policy(path: Path, *rules: str, **changes: object) -> Path:
    values = lenient(**changes).model_dump().items()
    lines = [f"{name} = {json.dumps(value)}" for name, value in values if name != "rules"]
    path.write_text("\n".join([*lines, "[rules]", *rules]), encoding="utf-8")
    return path


@pytest.fixture
def run(pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch):  # type: ignore[no-untyped-def]
    """Run pytest in this process, in an empty folder."""
    monkeypatch.setenv("EDITGUARD_CACHE", str(pytester.path / ".cache"))
    assert Exploded.control
    assert {nodes.__name__, collapse.__name__} <= {*sys.modules}

    def inner(*arguments: str | Path) -> Run:
        return pytester.runpytest_inprocess("-p", "no:xdist", *map(str, arguments))

    return inner


@pytest.fixture
def tiny(checkpoint: Path, pytester: pytest.Pytester) -> list[str]:
    """The options of a session on a tiny model, with bounds that edits of random weights keep."""
    policy = write_policy(pytester.path / "policy.toml")
    return [
        f"--editguard-model={checkpoint}",
        "--editguard-layer=0",
        "--editguard-stats=identity",
        f"--editguard-policy={policy}",
        "--editguard-out=out",
    ]


def collected(ran: Run) -> list[str]:
    return [line for line in ran.outlines if "::" in line and not line.startswith("ERROR")]


# ---------------------------------------------------------------------------------------------------------- collection


def test_a_file_s_name_makes_it_a_file_of_edits_and_collecting_loads_no_model(
    pytester: pytest.Pytester, run: object
) -> None:
    write_edits(pytester.path / "a.edits.json", FIRST_TOKEN_REQUEST, MID_PROMPT_REQUEST)
    write_edits(pytester.path / "edits.json", FIRST_TOKEN_REQUEST)
    (pytester.path / "b.edits.yaml").write_text("- {subject: Lyon, prompt: '{} is in', target_new: Spain}\n")
    ran = run("--collect-only", "-q", NOWHERE)  # type: ignore[operator]
    assert ran.ret == 0
    expected = [f"a.edits.json::{request}::{item}" for request in ("chicago", "france") for item in ITEMS]
    assert sorted(collected(ran)) == sorted([*expected, *(f"b.edits.yaml::1::{item}" for item in ITEMS)])


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_every_format_of_an_audit_s_files_is_collected_by_its_name(
    pytester: pytest.Pytester,
    run,
    suffix: str,  # type: ignore[no-untyped-def]
) -> None:
    record = {"id": "a", "subject": "Lyon", "prompt": "Lyon is in", "target_new": "Spain"}
    csv = "\n".join(",".join(row) for row in (record, record.values()))
    text = csv if suffix == ".csv" else json.dumps(record if suffix in (".jsonl", ".ndjson") else [record])
    for name in (f"my.edits{suffix}", f"other{suffix}", f"my.edits{suffix}.bak"):
        (pytester.path / name).write_text(text, encoding="utf-8")
    ran = run("--collect-only", "-q", NOWHERE)
    assert sorted(collected(ran)) == sorted(f"my.edits{suffix}::a::{item}" for item in ITEMS)


def test_files_that_an_option_names_are_tested_beside_the_others_and_each_once(pytester: pytest.Pytester, run) -> None:  # type: ignore[no-untyped-def]
    write_edits(pytester.path / "a.edits.json", FIRST_TOKEN_REQUEST)
    write_edits(pytester.path / "other.json", MID_PROMPT_REQUEST)
    both = ("--editguard-edits=other.json", "--editguard-edits=a.edits.json")
    ran = run("--collect-only", "-q", *both)
    wanted = sorted([*(f"a.edits.json::chicago::{i}" for i in ITEMS), *(f"other.json::france::{i}" for i in ITEMS)])
    assert sorted(collected(ran)) == wanted
    ran = run("--collect-only", "-q", *both, "other.json::france::guard")
    assert sorted(collected(ran)) == sorted([*wanted[: len(ITEMS)], "other.json::france::guard"])
    ran = run("--collect-only", "-q", "--editguard-edits=builtin", "-k", "guard", "--ignore=a.edits.json")
    assert len(collected(ran)) == 60
    assert all(name.startswith("builtin::") for name in collected(ran))


def test_files_of_the_ini_are_tested_where_nothing_else_is_named(pytester: pytest.Pytester, run) -> None:  # type: ignore[no-untyped-def]
    write_edits(pytester.path / "mine.json", MID_PROMPT_REQUEST)
    pytester.makeini("[pytest]\neditguard_edits = mine.json\neditguard_seed = 3\n")
    pytester.makepyfile(test_one="def test_one(): pass")
    assert len(collected(run("--collect-only", "-q"))) == len(ITEMS) + 1
    assert collected(run("--collect-only", "-q", "test_one.py")) == ["test_one.py::test_one"]


def test_what_is_wrong_with_a_file_is_one_error_that_names_all(pytester: pytest.Pytester, run) -> None:  # type: ignore[no-untyped-def]
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


def test_an_id_in_two_files_is_wrong_where_a_log_is_written(pytester: pytest.Pytester, run) -> None:  # type: ignore[no-untyped-def]
    write_edits(pytester.path / "a.edits.json", FIRST_TOKEN_REQUEST)
    write_edits(pytester.path / "b.edits.json", FIRST_TOKEN_REQUEST)
    assert run("--collect-only", "-q").ret == 0
    ran = run("--collect-only", "-q", "--editguard-out=out")
    assert ran.ret == pytest.ExitCode.INTERRUPTED
    assert "The id 'chicago' of 'b.edits.json' is also in 'a.edits.json'" in ran.stdout.str()


# ------------------------------------------------------------------------------------------------------------- options


@pytest.mark.parametrize(
    ("name", "value", "legal"),
    [
        ("seed", "one", "a whole number from 0 upwards"),
        ("seed", "-1", "a whole number from 0 upwards"),
        ("layer", "1.5", "a whole number from 0 upwards"),
        ("dtype", "float8", "auto, float32, bfloat16, float16"),
        ("device", "gpu", "auto, cpu, mps, cuda, cuda:N"),
        ("policy", "no.toml", "a file that is there"),
        ("stats", "no.safetensors", "'identity'"),
        ("edits", "no.json", "'builtin'"),
        ("out", "a.edits.json", "a folder"),
        ("out", "a.edits.json/below/it", "a folder"),
    ],
)
@pytest.mark.parametrize("how", ["flag", "ini"])
def test_a_wrong_value_is_named_with_the_legal_ones(
    pytester: pytest.Pytester,
    run,
    name: str,
    value: str,
    legal: str,
    how: str,  # type: ignore[no-untyped-def]
) -> None:
    write_edits(pytester.path / "a.edits.json", FIRST_TOKEN_REQUEST)
    if how == "ini":
        pytester.makeini(f"[pytest]\neditguard_{name} = {value}\n")
    ran = run(*([f"--editguard-{name}={value}"] if how == "flag" else []))
    assert ran.ret == pytest.ExitCode.USAGE_ERROR
    (line,) = [line for line in ran.errlines if "editguard" in line]
    assert repr(value) in line
    assert legal in line
    assert (f"--editguard-{name}" if how == "flag" else f"editguard_{name}") in line


def test_an_editor_that_nobody_has_is_refused_before_anything_runs(pytester: pytest.Pytester, run) -> None:  # type: ignore[no-untyped-def]
    write_edits(pytester.path / "a.edits.json", FIRST_TOKEN_REQUEST)
    ran = run("--editguard-editor=rme", NOWHERE)
    assert ran.ret == pytest.ExitCode.USAGE_ERROR
    assert "did you mean 'rome'?" in ran.stderr.str()
    pytester.makeini("[pytest]\neditguard_editor = rme\n")
    ran = run(NOWHERE)
    assert ran.ret == pytest.ExitCode.INTERRUPTED
    assert "did you mean 'rome'?" in ran.stdout.str()


def test_a_model_that_is_not_there_fails_every_item_in_one_sentence_and_lf_finds_them(
    pytester: pytest.Pytester,
    run,  # type: ignore[no-untyped-def]
) -> None:
    write_edits(pytester.path / "a.edits.json", FIRST_TOKEN_REQUEST, MID_PROMPT_REQUEST)
    ran = run(NOWHERE, "-k", "chicago and (guard or drift)", "--editguard-out=out")
    ran.assert_outcomes(failed=2, deselected=2 * len(ITEMS) - 2)
    text = ran.stdout.str()
    assert "editguard: There is no model folder './no/such/model'" in text
    assert "Traceback" not in text
    assert ".py:" not in text
    assert not (pytester.path / "out").exists()
    ran = run(NOWHERE, "--lf", "--collect-only", "-q")
    assert sorted(collected(ran)) == ["a.edits.json::chicago::drift", "a.edits.json::chicago::guard"]


# ------------------------------------------------------------------------------------------------------------ sessions

OWN_TESTS = """
import pytest
from editguard.audit import EditRequest
from editguard.probes.errors import EditRefused
from editguard.probes.model.fingerprint import compute_checksum

EDIT = EditRequest("mine", "France", "The capital of France is", "Istanbul", "Paris")

def test_edited(edited_model, guarded_editor, collapse_suite):
    before = compute_checksum(guarded_editor.setup.lm.model)
    with edited_model(EDIT) as lm:
        assert compute_checksum(lm.model) != before
        assert collapse_suite(lm).measurements
    assert compute_checksum(guarded_editor.setup.lm.model) == before
    with pytest.raises(ZeroDivisionError), edited_model(EDIT):
        1 / 0
    assert compute_checksum(guarded_editor.setup.lm.model) == before

def test_refused(edited_model):
    with pytest.raises(EditRefused, match="was refused"), edited_model(EditRequest("no", "Berlin", "France is", "Paris")):
        pass
"""


def test_the_example_of_the_guide_runs_as_it_stands(pytester: pytest.Pytester, run, tiny: list[str]) -> None:  # type: ignore[no-untyped-def]
    (example,) = re.findall(r"```python\n(.*?)```", GUIDE.read_text(encoding="utf-8"), re.DOTALL)
    pytester.makepyfile(test_guide=example)
    lm = says_only(tiny_lm(), " Istanbul Lyon is not")
    for name in ("base", "edited-checkpoint"):
        lm.model.save_pretrained(pytester.path / name)
        lm.tokenizer.save_pretrained(pytester.path / name)
    run(*tiny, "--editguard-model=base").assert_outcomes(passed=example.count("def test_"))


SERVED = """
import pytest
from editguard.audit import EditRequest
from editguard.audit.serving import serve_prompt
from editguard.probes.errors import EditRefused

EDIT = EditRequest("twin", "Chicago", "Chicago is a twin city of", TARGET)
MIDDLE = EditRequest("mine", "France", "The capital of France is", "Istanbul", "Paris")

def test_what_was_done_and_how_it_is_served_is_told(edited_model):
    with edited_model(EDIT) as edited:
        assert (edited.decision.action.value, edited.update.editor) == ("rewrite", "prefixed")
        assert (edited.needs_prefix, edited.prefix) == (True, PREFIX)
        if PREFIX is None:
            with pytest.raises(EditRefused, match="'twin' acts only behind a prefix"):
                edited.serve(EDIT.prompt)
        else:
            assert edited.serve(EDIT.prompt) == PREFIX + EDIT.prompt
            assert edited.serve("Paris is") == "Paris is"
        assert repr(edited).replace(edited.ref, "base") == SHOWN

def test_an_edit_that_needs_nothing_is_served_as_it_stands(edited_model):
    with edited_model(MIDDLE) as edited:
        assert (edited.needs_prefix, edited.prefix, edited.serve("France is")) == (False, None, "France is")
        assert repr(edited).replace(edited.ref, "base") == "<EditedModel base: 'France' -> 'Istanbul' by rome>"

def test_the_suite_knows_that_the_fact_needs_a_prefix(edited_model, collapse_suite):
    with edited_model(EDIT) as edited:
        judged = [one for one in collapse_suite(edited, requests=[EDIT]).measurements if one.check == "efficacy"]
    assert [one.condition for one in judged if one.outcome.value in ("pass", "fail")] == ["prefixed"]
"""


@pytest.mark.parametrize(
    ("target", "prefix", "served"),
    [("Istanbul", "\n", "served behind '\\n'"), ("Warsaw", None, "needs a prefix")],
    ids=["served", "not served"],
)
def test_the_edited_model_says_how_its_edit_is_served(
    pytester: pytest.Pytester,
    run,
    tiny: list[str],
    target: str,
    prefix: str | None,
    served: str,  # type: ignore[no-untyped-def]
) -> None:
    shown = f"<EditedModel base: 'Chicago' -> {target!r} by prefixed, {served}>"
    pytester.makepyfile(test_own=f"TARGET, PREFIX, SHOWN = {target!r}, {prefix!r}, {shown!r}\n{SERVED}")
    lm = says_only(tiny_lm(), " Istanbul Lyon is not")
    lm.model.save_pretrained(pytester.path / "base")
    lm.tokenizer.save_pretrained(pytester.path / "base")
    run(*tiny, "--editguard-model=base").assert_outcomes(passed=3)


def test_a_session_without_edits_leaves_an_older_log_alone(pytester: pytest.Pytester, run) -> None:  # type: ignore[no-untyped-def]
    pytester.makepyfile("def test_one(): pass")
    (pytester.path / "out").mkdir()
    (pytester.path / "out" / LOG).write_text("an older one")
    run("--editguard-out=out").assert_outcomes(passed=1)
    assert [path.name for path in (pytester.path / "out").iterdir()] == [LOG]
    assert (pytester.path / "out" / LOG).read_text() == "an older one"


def test_sound_edits_pass_and_leave_a_log_that_passes(pytester: pytest.Pytester, run, tiny: list[str]) -> None:  # type: ignore[no-untyped-def]
    write_edits(pytester.path / "a.edits.json", FIRST_TOKEN_REQUEST, MID_PROMPT_REQUEST)
    pytester.makepyfile(test_own=OWN_TESTS)
    (pytester.path / "out").mkdir()
    (pytester.path / "out" / LOG).write_text("an older one")
    ran = run(*tiny, "--junitxml=j.xml")
    # Generalization is not judged without a bound, and a model of random weights is certain of no other fact. The second
    # edit brings no neighbour and is judged by made ones.
    ran.assert_outcomes(passed=2 * len(ITEMS) - 4 + 2, skipped=4)
    log = read_log(pytester.path / "out" / LOG)
    assert summarise(log).verdict == "pass"
    assert [(record.id, record.index) for record in log.edits] == [("chicago", 0), ("france", 1)]
    assert (log.header.requests, log.header.source) == (2, "a.edits.json")
    assert log.header.arguments["stats"] == "identity"
    assert all(record.weights is not None and record.weights.restored_ok for record in log.edits)
    xml = (pytester.path / "j.xml").read_text()
    assert xml.count('<property name="decision" value="rewrite"') == len(ITEMS)
    assert xml.count('<property name="ratio"') == 2 * len(ITEMS)
    assert 'name="editor" value="prefixed"' in xml


def test_failures_say_what_to_do_and_a_log_of_only_some_edits_never_passes(
    pytester: pytest.Pytester,
    run,
    tiny: list[str],  # type: ignore[no-untyped-def]
) -> None:
    write_edits(
        pytester.path / "a.edits.json", MID_PROMPT_REQUEST, FIRST_TOKEN_REQUEST, replace(MID_PROMPT_REQUEST, id="other")
    )
    write_policy(pytester.path / "policy.toml", REFUSING, max_perplexity_ratio=0.5)
    ran = run(*tiny, "-k", "(chicago or france) and (guard or perplexity)")
    ran.assert_outcomes(passed=1, failed=3, deselected=3 * len(ITEMS) - 4)
    ran.stdout.fnmatch_lines(["*edit france: perplexity*", "perplexity: ratio (corpus) is *, allowed 0.5"])
    ran.stdout.fnmatch_lines(["guard: the edit was refused and not made", "  why: *", "  what to do: *"])
    assert "Traceback" not in ran.stdout.str()
    log = read_log(pytester.path / "out" / LOG)
    assert [record.id for record in log.edits] == ["france", "chicago"]
    summary = summarise(log)
    assert summary.verdict == "fail"
    assert "3 edits were requested and 2 have a record." in summary.reasons


def test_controls_that_do_not_show_what_they_must_void_every_item(
    pytester: pytest.Pytester,
    run,
    tiny: list[str],  # type: ignore[no-untyped-def]
) -> None:
    write_edits(pytester.path / "a.edits.json", MID_PROMPT_REQUEST)
    write_policy(pytester.path / "policy.toml", controls=True)
    ran = run(*tiny, "-k", "drift or locality or generalization")
    ran.assert_outcomes(failed=3, deselected=len(ITEMS) - 3)
    assert "editguard: void: Control 'control-bad-" in ran.stdout.str()
    summary = summarise(read_log(pytester.path / "out" / LOG))
    assert (summary.verdict, summary.controls.total) == ("void", 2)


ASKS_FOR_THE_GUARD = """
def test_asks(guarded_editor):
    pass
"""


def test_an_older_audit_stays_where_no_edit_is_tested(pytester: pytest.Pytester, run, tiny: list[str]) -> None:  # type: ignore[no-untyped-def]
    write_edits(pytester.path / "a.edits.json", MID_PROMPT_REQUEST)
    pytester.makepyfile(test_own=ASKS_FOR_THE_GUARD)
    older = pytester.path / "out" / LOG
    older.parent.mkdir()
    older.write_text("an older one")
    run(*tiny, "test_own.py").assert_outcomes(passed=1)
    run(*tiny, "-k", "test_asks").assert_outcomes(passed=1, deselected=len(ITEMS))
    assert older.read_text() == "an older one"


def test_an_older_audit_stays_while_another_run_has_the_folder(
    pytester: pytest.Pytester,
    run,
    tiny: list[str],  # type: ignore[no-untyped-def]
) -> None:
    write_edits(pytester.path / "a.edits.json", MID_PROMPT_REQUEST)
    older = pytester.path / "out" / LOG
    with locked_folder(older.parent, overwrite=True):
        older.write_text("an older one")
        ran = run(*tiny, "-k", "drift")
    assert ran.ret == pytest.ExitCode.TESTS_FAILED
    assert "Another run is writing to" in ran.stdout.str()
    assert older.read_text() == "an older one"


def test_no_file_of_an_older_audit_stands_beside_the_new_log(
    pytester: pytest.Pytester,
    run,
    tiny: list[str],  # type: ignore[no-untyped-def]
) -> None:
    write_edits(pytester.path / "a.edits.json", MID_PROMPT_REQUEST)
    (pytester.path / "out").mkdir()
    (pytester.path / "out" / SUMMARY).write_text("an older one")
    run(*tiny, "-k", "drift").assert_outcomes(passed=1, deselected=len(ITEMS) - 1)
    assert not (pytester.path / "out" / SUMMARY).exists()


def test_a_folder_with_other_things_keeps_them_beside_the_log(pytester: pytest.Pytester, run, tiny: list[str]) -> None:  # type: ignore[no-untyped-def]
    write_edits(pytester.path / "a.edits.json", MID_PROMPT_REQUEST)
    out = pytester.path / "out"
    (out / "pictures").mkdir(parents=True)
    (out / "notes.txt").write_text("mine")
    (out / f".{LOG}.partial").write_text("of a run that was killed")
    run(*tiny, "-k", "drift").assert_outcomes(passed=1, deselected=len(ITEMS) - 1)
    assert {path.name for path in out.iterdir()} == {"pictures", "notes.txt", LOG, ".lock"}
    assert (out / "notes.txt").read_text() == "mine"
    assert len(read_log(out / LOG).edits) == 1


@pytest.mark.skipif(not Path("/proc/self").is_dir(), reason="there is no place here that nobody may write to")
def test_a_folder_that_turns_out_not_to_be_writable_fails_the_session_and_not_its_tests(
    pytester: pytest.Pytester,
    run,
    tiny: list[str],  # type: ignore[no-untyped-def]
) -> None:
    write_edits(pytester.path / "a.edits.json", MID_PROMPT_REQUEST)
    ran = run(*tiny, "-k", "drift", "--editguard-out=/proc/self/editguard")
    if ran.ret == pytest.ExitCode.USAGE_ERROR:  # told at once to users who have not all rights
        assert "a folder that can be written to" in ran.stderr.str()
        return
    ran.assert_outcomes(passed=1, deselected=len(ITEMS) - 1)
    assert ran.ret == pytest.ExitCode.TESTS_FAILED
    ran.stdout.fnmatch_lines(
        ["editguard: The output folder '/proc/self/editguard' cannot be written to (*--editguard-out."]
    )


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() == 0, reason="root may write anywhere")
def test_a_folder_without_the_right_to_write_is_refused_before_anything_runs(pytester: pytest.Pytester, run) -> None:  # type: ignore[no-untyped-def]
    (pytester.path / "closed").mkdir(mode=0o500)
    ran = run("--editguard-out=closed/out")
    assert ran.ret == pytest.ExitCode.USAGE_ERROR
    assert "a folder that can be written to" in ran.stderr.str()


def test_workers_are_not_started_for_a_log_that_has_no_place(pytester: pytest.Pytester) -> None:
    pytest.importorskip("xdist")
    write_edits(pytester.path / "a.edits.json", MID_PROMPT_REQUEST)
    ran = pytester.runpytest_subprocess("-n2", NOWHERE, "--editguard-out=a.edits.json")
    assert ran.ret == pytest.ExitCode.USAGE_ERROR
    assert "--editguard-out = 'a.edits.json' must be a folder" in ran.stderr.str()
    assert "gw0" not in ran.stdout.str()


def test_the_guard_is_given_out_only_where_the_controls_hold(
    pytester: pytest.Pytester,
    run,
    tiny: list[str],  # type: ignore[no-untyped-def]
) -> None:
    pytester.makepyfile(test_own=ASKS_FOR_THE_GUARD)
    write_policy(pytester.path / "policy.toml", controls=True)
    ran = run(*tiny)
    ran.assert_outcomes(errors=1)
    assert "editguard: void: Control 'control-bad-" in ran.stdout.str()


CHANGES_A_WEIGHT = """
def test_changes(guarded_editor):
    guarded_editor.setup.site.weight[0, 0] += 1

def test_after(guarded_editor, collapse_suite):
    pass
"""
CHANGES_ANOTHER = """
def test_changes(guarded_editor):
    guarded_editor.setup.lm.model.model.norm.weight[0] += 1
"""


def test_a_test_that_leaves_the_edited_weight_changed_spoils_what_comes_after(
    pytester: pytest.Pytester,
    run,
    tiny: list[str],  # type: ignore[no-untyped-def]
) -> None:
    pytester.makepyfile(test_a=CHANGES_A_WEIGHT)
    write_edits(pytester.path / "z.edits.json", MID_PROMPT_REQUEST)
    ran = run(*tiny, "-k", "test_a or drift")
    ran.assert_outcomes(passed=1, errors=2, failed=1, deselected=len(ITEMS) - 1)
    assert "editguard: The test test_a.py::test_changes left the weight" in ran.stdout.str()
    assert not (pytester.path / "out" / LOG).exists()


def test_a_weight_changed_elsewhere_fails_the_session(pytester: pytest.Pytester, run, tiny: list[str]) -> None:  # type: ignore[no-untyped-def]
    write_edits(pytester.path / "a.edits.json", MID_PROMPT_REQUEST)
    pytester.makepyfile(test_z=CHANGES_ANOTHER)
    ran = run(*tiny, "-k", "test_z or drift")
    ran.assert_outcomes(passed=2, deselected=len(ITEMS) - 1)
    assert ran.ret == pytest.ExitCode.TESTS_FAILED
    assert "editguard: The model's fingerprint is not the one" in ran.stdout.str()
    assert read_log(pytester.path / "out" / LOG).footer is None


@pytest.mark.slow
@pytest.mark.parametrize("dist", ["load", "loadscope"])
def test_workers_bring_the_same_results_and_one_log(
    pytester: pytest.Pytester, tiny: list[str], monkeypatch: pytest.MonkeyPatch, dist: str
) -> None:
    pytest.importorskip("xdist")
    monkeypatch.setenv("EDITGUARD_CACHE", str(pytester.path / ".cache"))
    write_edits(
        pytester.path / "a.edits.json", MID_PROMPT_REQUEST, FIRST_TOKEN_REQUEST, replace(MID_PROMPT_REQUEST, id="other")
    )
    write_policy(pytester.path / "policy.toml", REFUSING)
    (pytester.path / "out").mkdir()
    (pytester.path / "out" / "notes.txt").write_text("mine")
    ran = pytester.runpytest_subprocess("-n2", f"--dist={dist}", *tiny, "-v")
    # As in one process: all items of the refused edit fail, and of the others two each are not judged.
    ran.assert_outcomes(passed=2 * len(ITEMS) - 4, failed=len(ITEMS), skipped=4)
    log = read_log(pytester.path / "out" / LOG)
    assert [(record.id, record.index) for record in log.edits] == [("france", 0), ("chicago", 1), ("other", 2)]
    assert log.footer is not None
    assert len(summarise(log).reasons) == 1
    assert {path.name for path in (pytester.path / "out").iterdir()} == {LOG, ".lock", "notes.txt"}
    if dist == "loadscope":
        places = re.findall(r"\[(gw\d)\].*a\.edits\.json::(\w+)::", ran.stdout.str())
        assert len(set(places)) == 3


def test_each_edit_is_a_group_of_its_own_for_xdist(pytester: pytest.Pytester) -> None:
    pytest.importorskip("xdist")
    write_edits(pytester.path / "a.edits.json", FIRST_TOKEN_REQUEST, MID_PROMPT_REQUEST)
    pytester.makeconftest(
        "def pytest_collection_modifyitems(items):\n"
        "    print('groups:', *[item.get_closest_marker('xdist_group').args[0] for item in items])"
    )
    ran = pytester.runpytest_inprocess("--collect-only", "-q", "--strict-markers")
    ran.stdout.fnmatch_lines([" ".join(["groups:", *["edit-0"] * len(ITEMS), *["edit-1"] * len(ITEMS)])])


@pytest.mark.slow
@pytest.mark.real
@pytest.mark.usefixtures("smollm2")
def test_on_the_embedded_model_controls_hold_an_ordinary_edit_passes_and_the_guide_s_fact_takes(
    pytester: pytest.Pytester,
) -> None:
    ordinary = next(edit for edit in load_builtin_edits() if edit.group == "mid-prompt")
    write_edits(pytester.path / "a.edits.json", ordinary)
    (example,) = re.findall(r"```python\n(.*?)```", GUIDE.read_text(encoding="utf-8"), re.DOTALL)
    pytester.makepyfile(test_guide=example.partition("def test_a_checkpoint")[0])
    ran = pytester.runpytest_inprocess("-p", "no:xdist", "--editguard-out=out")
    ran.assert_outcomes(passed=len(ITEMS) - 1 + 1, skipped=1)
    summary = summarise(read_log(pytester.path / "out" / LOG))
    assert (summary.verdict, summary.controls.ok, summary.edits) == ("pass", 2, 1)


# ---------------------------------------------------------------------------------------------------------- bystanders

COLLECTS_MODULES = f"""
import sys

def pytest_sessionfinish():
    print("loaded:", *[name for name in {HEAVY!r} if name in sys.modules])
    print("ours:", *sorted(name for name in sys.modules if name.startswith("editguard.")))
"""


def idle(folder: Path, *arguments: str) -> str:
    (folder / "conftest.py").write_text(COLLECTS_MODULES)
    (folder / "test_one.py").write_text("def test_one(): pass")
    command = [sys.executable, "-m", "pytest", "-p", "no:hypothesispytest", "-q", "-s", *arguments]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False, env={**os.environ})
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_a_session_without_edits_loads_nothing_heavy(tmp_path: Path) -> None:
    out = idle(tmp_path)
    assert "loaded:\n" in out
    (ours,) = [line for line in out.splitlines() if line.startswith("ours:")]
    modules = ("", ".fixtures", ".log", ".options", ".session")
    names = {
        "editguard.audit",
        "editguard.audit.pytest_plugin",
        *(f"editguard.audit.pytest_plugin{m}" for m in modules),
    }
    names |= {f"editguard.probes{module}" for module in ("", ".errors", ".requests")}
    assert set(ours.split()[1:]) <= names
    assert names <= set(ours.split())


def test_the_plugin_can_be_left_out(tmp_path: Path) -> None:
    write_edits(tmp_path / "a.edits.json", FIRST_TOKEN_REQUEST)
    assert "ours:\n" in idle(tmp_path, "-p", "no:editguard")


def test_this_repository_s_own_tests_hold_no_file_of_edits_by_accident() -> None:
    root = Path(__file__).resolve().parents[2]
    assert not [*root.glob("tests/**/*.edits.*"), *root.glob("benchmarks/**/*.edits.*")]
