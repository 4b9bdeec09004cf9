"""JUnit XML as its readers see it: junitparser reads every log's, and it is red if and only if the exit code is not 0."""

from __future__ import annotations

from dataclasses import replace
from xml.etree import ElementTree

import pytest
from editguard.reports.log.file import Log
from editguard.reports.log.schema import Footer
from editguard.reports.outputs.junit import render_junit
from editguard.reports.verdict.digest import summarise
from hypothesis import given
from junitparser import Error, Failure, JUnitXml, Skipped, TestCase, TestSuite

from ...helpers.generated_logs import ENDS, HOSTILE, controls, ended, hostile_log, logs, over_logs
from ...helpers.synthetic_logs import header


def suite(log: Log) -> TestSuite:
    (found,) = JUnitXml.fromstring(render_junit(log))
    assert isinstance(found, TestSuite)
    return found


def log_of(*ends: str, shown: str = "ok", finished: bool = True, **policy: bool) -> Log:
    edits, found = tuple(ended(how, n, id=how) for n, how in enumerate(ends)), controls(shown)
    head = header(len(edits), policy={"collapse_ratio": 1.5, **policy})
    return Log(head, edits, found, Footer(records=len(edits) + len(found), seconds=9.0) if finished else None)


def kinds(log: Log) -> dict[str, type | None]:
    return {str(case.name): type(case.result[0]) if case.result else None for case in suite(log)}


def test_a_log_that_passes_has_a_case_for_each_edit_and_control_and_one_for_the_verdict(log: Log) -> None:
    found = suite(log)
    assert (found.tests, found.failures, found.errors, found.skipped) == (64, 0, 0, 6)
    assert (found.time, found.timestamp) == (241.7, "2025-11-22T21:14:05Z")
    cases = {str(case.name): case for case in found if isinstance(case, TestCase)}
    assert cases["case-0001"].classname == "edits_jsonl.ordinary"
    assert cases["case-0001"].time == pytest.approx(log.edits[1].seconds, abs=0.001)
    assert {cases[one.id].classname for one in log.controls} == {"controls"}
    assert list(cases)[-1] == "verdict"
    said = {one.name: one.value for one in found.properties()}
    assert said["verdict"] == "pass"
    assert said["model_fingerprint"] == log.header.model.fingerprint
    assert (said["layer"], said["policy_sha256"]) == ("5", log.header.policy_sha256)


def test_each_end_of_an_edit_has_its_kind() -> None:
    found = kinds(log_of(*ENDS))
    wanted = {"sound": None, "errored": Error}
    assert {name: found[name] for name in ENDS} == {name: wanted.get(name, Failure) for name in ENDS}


def test_a_refused_edit_is_skipped_where_the_policy_allows_it() -> None:
    found = kinds(log_of("sound", "refused", allow_refused=True))
    assert (found["refused"], found["verdict"]) == (Skipped, None)
    assert kinds(log_of("sound", "refused"))["refused"] is Failure


def test_a_failure_says_what_was_measured_what_is_allowed_and_of_which_edit() -> None:
    (case,) = [case for case in suite(log_of("collapsed")) if case.name == "collapsed"]
    (failure,) = case.result
    assert failure.message == "It collapsed the model: perplexity ratio 4000, over the bound of 1.5."
    assert failure.type == "collapsed"
    assert failure.text.splitlines()[:3] == [
        "prompt: Chicago is a twin city of",
        "subject: Chicago",
        "new target: Istanbul",
    ]


@pytest.mark.parametrize("shown", ["wrong", "errored", "missing"])
def test_a_void_audit_is_red_though_every_edit_is_sound(shown: str) -> None:
    found = kinds(log_of("sound", shown=shown))
    assert (found["sound"], found["verdict"]) == (None, Failure)
    if shown != "missing":
        assert found["rome-1"] is {"wrong": Failure, "errored": Error}[shown]


def test_an_unfinished_audit_is_red_and_says_why() -> None:
    found = suite(log_of("sound", finished=False))
    (verdict,) = [case for case in found if case.name == "verdict"]
    assert "did not finish" in verdict.result[0].message
    assert found.failures == 1


@over_logs
@given(log=logs())
def test_there_is_a_failure_or_an_error_if_and_only_if_the_gate_is_closed(log: Log) -> None:
    found = suite(log)
    assert (found.failures + found.errors == 0) == (summarise(log).exit_code == 0)
    ends = [type(one) for case in found for one in case.result]
    assert (found.tests, found.failures, found.errors, found.skipped) == (
        len(log.edits) + len(log.controls) + 1,
        ends.count(Failure),
        ends.count(Error),
        ends.count(Skipped),
    )
    assert len(ElementTree.fromstring(render_junit(log))) == 1


@pytest.mark.parametrize("text", HOSTILE)
def test_text_stays_text_and_what_xml_cannot_hold_is_seen(text: str) -> None:
    found = suite(hostile_log(text, edits=12))
    assert found.tests == 16
    body = next(str(one.text) for case in found for one in case.result if "prompt: " in str(one.text))
    if "\x00" in text:
        assert "[U+0000]" in body
        assert "[U+FFFE][U+FFFF]" in body
    elif "\u202e" in text:
        assert "user[U+202E]gnp.exe" in body
    else:
        assert f"prompt: {text[:1900]}" in body


def test_a_log_without_edits_is_red() -> None:
    empty = replace(log_of(), header=header(0))
    assert kinds(empty)["verdict"] is Failure
