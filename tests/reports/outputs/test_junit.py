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

from ...helpers.generated_logs import (
    ENDS,
    HOSTILE,
    draw_logs,
    make_controls,
    make_ended_edit,
    make_hostile_log,
    over_logs,
)
from ...helpers.synthetic_logs import make_header


def suite(log: Log) -> TestSuite:
    (audit_suite,) = JUnitXml.fromstring(render_junit(log))
    assert isinstance(audit_suite, TestSuite)
    return audit_suite


def log_of(*ends: str, shown: str = "ok", finished: bool = True, **policy: bool) -> Log:
    edits, control_records = tuple(make_ended_edit(how, n, id=how) for n, how in enumerate(ends)), make_controls(shown)
    head = make_header(len(edits), policy={"collapse_ratio": 1.5, **policy})
    return Log(
        head,
        edits,
        control_records,
        Footer(records=len(edits) + len(control_records), seconds=9.0) if finished else None,
    )


def kinds(log: Log) -> dict[str, type | None]:
    return {str(case.name): type(case.result[0]) if case.result else None for case in suite(log)}


def test_junit_pass_has_case_for_edits_controls_verdict(log: Log) -> None:
    cases_of_suite = suite(log)
    assert (cases_of_suite.tests, cases_of_suite.failures, cases_of_suite.errors, cases_of_suite.skipped) == (
        64,
        0,
        0,
        6,
    )
    assert (cases_of_suite.time, cases_of_suite.timestamp) == (241.7, "2025-11-22T21:14:05Z")
    cases = {str(case.name): case for case in cases_of_suite if isinstance(case, TestCase)}
    assert cases["case-0001"].classname == "edits_jsonl.ordinary"
    assert cases["case-0001"].time == pytest.approx(log.edits[1].seconds, abs=0.001)
    assert {cases[item.id].classname for item in log.controls} == {"controls"}
    assert list(cases)[-1] == "verdict"
    properties = {item.name: item.value for item in cases_of_suite.properties()}
    assert properties["verdict"] == "pass"
    assert properties["model_fingerprint"] == log.header.model.fingerprint
    assert (properties["layer"], properties["policy_sha256"]) == ("5", log.header.policy_sha256)


def test_junit_each_result_has_its_kind() -> None:
    observed = kinds(log_of(*ENDS))
    expected = {"sound": None, "errored": Error}
    assert {name: observed[name] for name in ENDS} == {name: expected.get(name, Failure) for name in ENDS}


def test_junit_allowed_refusal_is_skipped() -> None:
    observed = kinds(log_of("sound", "refused", allow_refused=True))
    assert (observed["refused"], observed["verdict"]) == (Skipped, None)
    assert kinds(log_of("sound", "refused"))["refused"] is Failure


def test_junit_failure_names_edit_figure_and_bound() -> None:
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
def test_junit_void_audit_is_red(shown: str) -> None:
    observed = kinds(log_of("sound", shown=shown))
    assert (observed["sound"], observed["verdict"]) == (None, Failure)
    if shown != "missing":
        assert observed["rome-1"] is {"wrong": Failure, "errored": Error}[shown]


def test_junit_unfinished_audit_is_red_with_reason() -> None:
    audit_suite = suite(log_of("sound", finished=False))
    (verdict,) = [case for case in audit_suite if case.name == "verdict"]
    assert "did not finish" in verdict.result[0].message
    assert audit_suite.failures == 1


@over_logs
@given(log=draw_logs())
def test_junit_red_if_and_only_if_exit_code_is_not_0(log: Log) -> None:
    audit_suite = suite(log)
    assert (audit_suite.failures + audit_suite.errors == 0) == (summarise(log).exit_code == 0)
    ends = [type(result) for case in audit_suite for result in case.result]
    assert (audit_suite.tests, audit_suite.failures, audit_suite.errors, audit_suite.skipped) == (
        len(log.edits) + len(log.controls) + 1,
        ends.count(Failure),
        ends.count(Error),
        ends.count(Skipped),
    )
    assert len(ElementTree.fromstring(render_junit(log))) == 1


@pytest.mark.parametrize("text", HOSTILE)
def test_junit_hostile_text_stays_text(text: str) -> None:
    audit_suite = suite(make_hostile_log(text, edits=12))
    assert audit_suite.tests == 16
    body = next(str(result.text) for case in audit_suite for result in case.result if "prompt: " in str(result.text))
    if "\x00" in text:
        assert "[U+0000]" in body
        assert "[U+FFFE][U+FFFF]" in body
    elif "\u202e" in text:
        assert "user[U+202E]gnp.exe" in body
    else:
        assert f"prompt: {text[:1900]}" in body


def test_junit_log_without_edits_is_red() -> None:
    empty = replace(log_of(), header=make_header(0))
    assert kinds(empty)["verdict"] is Failure
