"""SARIF as its readers see it: valid by the published schema, one rule a probe, an error if and only if the gate is closed."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import pytest
from editguard.reports.log.file import Log
from editguard.reports.log.header import SkippedRequest
from editguard.reports.log.schema import FindingRecord, Footer, MeasurementRecord
from editguard.reports.outputs.sarif import render_sarif
from editguard.reports.outputs.sarif_results import source_uri
from editguard.reports.verdict.digest import summarise
from hypothesis import given
from sarif_kit.validate import validation_errors

from ...helpers.generated_logs import (
    CARD,
    ENDS,
    HOSTILE,
    draw_logs,
    make_controls,
    make_ended_edit,
    make_hostile_log,
    over_logs,
)
from ...helpers.synthetic_logs import make_header, make_log


def run(log: Log) -> dict[str, Any]:
    """Return the run of a log's SARIF, which is valid by the schema that OASIS publishes."""
    sarif = json.loads(render_sarif(log))
    assert validation_errors(sarif) == []
    (sarif_run,) = sarif["runs"]
    assert isinstance(sarif_run, dict)
    return sarif_run


def log_of(*ends: str, shown: str = "ok", finished: bool = True, **policy: Any) -> Log:
    edits, control_records = tuple(make_ended_edit(how, n, id=how) for n, how in enumerate(ends)), make_controls(shown)
    head = make_header(len(edits), policy={"collapse_ratio": 1.5, **policy}, cards=[CARD])
    return Log(
        head,
        edits,
        control_records,
        Footer(records=len(edits) + len(control_records), seconds=9.0) if finished else None,
    )


def edit_rule_levels(log: Log) -> list[tuple[str, str, str]]:
    """Return edit, rule and level of each result."""
    return [(result["properties"]["edit"], result["ruleId"], result["level"]) for result in run(log)["results"]]


def with_level(log: Log, level: str) -> Log:
    finding = FindingRecord(probe="denominator", level=level, value=0.5, threshold=0.1, message="a message")
    return replace(log, edits=tuple(edit.model_copy(update={"findings": [finding]}) for edit in log.edits))


def test_sarif_validator_refuses_other_json(log: Log) -> None:
    sarif = json.loads(render_sarif(log))
    sarif["runs"][0]["results"][0]["level"] = "risk"
    assert any("level" in message for message in validation_errors(sarif))


def test_sarif_rules_have_help_and_cover_results(log: Log) -> None:
    sarif_run = run(replace(log, header=make_header(60, cards=[CARD])))
    rules = sarif_run["tool"]["driver"]["rules"]
    assert len({rule["id"] for rule in rules}) == len(rules)
    probe = next(rule for rule in rules if rule["id"] == "probe/denominator")
    assert probe["shortDescription"]["text"] == CARD.question
    assert all(text in probe["help"]["text"] for text in (CARD.action, CARD.threshold, CARD.source))
    assert f"**What to do**: {CARD.action}" in probe["help"]["markdown"]
    assert sarif_run["results"]
    assert all(rules[result["ruleIndex"]]["id"] == result["ruleId"] for result in sarif_run["results"])


def test_sarif_log_without_cards_has_rules(log: Log) -> None:
    names = {rule["id"] for rule in run(log)["tool"]["driver"]["rules"]}
    assert {"probe/denominator", "check/efficacy", "check/locality", "edit/errored"} <= names


@pytest.mark.parametrize(("action", "level"), [("refuse", "error"), ("rewrite", "warning"), ("allow", "note")])
def test_sarif_rule_level_follows_policy(action: str, level: str) -> None:
    sarif_run = run(log_of("sound", rules={"denominator": action}))
    rule = next(rule for rule in sarif_run["tool"]["driver"]["rules"] if rule["id"] == "probe/denominator")
    assert rule["defaultConfiguration"]["level"] == level


@pytest.mark.parametrize(
    ("how", "finding", "levels"),
    [
        ("sound", "ok", []),
        ("sound", "notice", ["note"]),
        ("sound", "risk", ["warning"]),
        ("refused", "risk", ["error"]),
        ("refused", "error", ["error"]),
        ("refused", "notice", ["note", "error"]),
    ],
)
def test_sarif_finding_level_follows_decision(how: str, finding: str, levels: list[str]) -> None:
    assert [level for _, _, level in edit_rule_levels(with_level(log_of(how), finding))] == levels


def test_sarif_failure_names_its_rule() -> None:
    rules_by_edit: dict[str, list[str]] = {name: [] for name in ENDS}
    for edit, rule, level in edit_rule_levels(log_of(*ENDS)):
        if level == "error":
            rules_by_edit[edit].append(rule)
    assert rules_by_edit == {
        "sound": [],
        "collapsed": ["check/perplexity"],
        "over a stricter bound": ["check/perplexity"],
        "collapsed, and called sound": ["edit/failed"],
        "collapsed, and failed elsewhere": ["check/drift", "edit/failed"],
        "not measured": ["check/perplexity"],
        "nothing measured": ["edit/failed"],
        "failed without a reason": ["edit/failed"],
        "leaked": ["check/locality", "check/locality"],
        "leaked, and only counts are known": ["check/other-facts"],
        "errored": ["edit/errored"],
        "not restored": ["edit/not-restored"],
        "refused": ["edit/refused"],
        "refused when its update was seen": ["edit/refused"],
    }


def test_sarif_result_has_edit_figures_file_and_no_line() -> None:
    (result,) = [
        result for result in run(log_of("over a stricter bound"))["results"] if result["ruleId"] == "check/perplexity"
    ]
    assert result["message"]["text"] == (
        "Edit 'over a stricter bound', 'Chicago' to 'Istanbul': ratio (unprefixed) is 1.2, allowed is 1.05: "
        "mean over 50 sentences, edited over unedited"
    )
    assert (result["properties"]["value"], result["properties"]["threshold"]) == (1.2, 1.05)
    (place,) = result["locations"]
    assert place["physicalLocation"]["artifactLocation"]["uri"] == "edits.jsonl"
    assert "region" not in place["physicalLocation"]


def test_sarif_fingerprints_are_stable_and_distinct() -> None:
    def prints(log: Log) -> list[dict[str, str]]:
        return [result["partialFingerprints"] for result in run(log)["results"]]

    first = log_of("collapsed", "errored", "refused")
    slower = tuple(edit.model_copy(update={"index": edit.index + 9, "seconds": 99.0}) for edit in first.edits)
    again = replace(first, header=make_header(3, seed=9, created="2027-01-01T00:00:00Z"), edits=slower, footer=None)
    assert prints(first) == prints(again)
    assert len({json.dumps(fingerprints) for fingerprints in prints(first)}) == len(prints(first))


@pytest.mark.parametrize(
    ("log", "descriptor"),
    [
        (log_of("sound", shown="wrong"), "audit/void"),
        (log_of("sound", shown="missing"), "audit/void"),
        (log_of("sound", finished=False), "audit/incomplete"),
        (log_of(), "audit/incomplete"),
    ],
    ids=["wrong control", "missing control", "unfinished", "no edit"],
)
def test_sarif_void_or_unfinished_is_no_success(log: Log, descriptor: str) -> None:
    (invocation,) = run(log)["invocations"]
    assert (invocation["executionSuccessful"], invocation["exitCode"]) == (False, 1)
    errors = [
        notification for notification in invocation["toolExecutionNotifications"] if notification["level"] == "error"
    ]
    assert {notification["descriptor"]["id"] for notification in errors} == {descriptor}


def test_sarif_failed_edits_are_success_with_exit_code_1() -> None:
    (invocation,) = run(log_of("collapsed"))["invocations"]
    assert (invocation["executionSuccessful"], invocation["exitCode"]) == (True, 1)
    assert invocation["startTimeUtc"] == "2025-11-22T21:14:05Z"


def test_sarif_skipped_records_are_a_warning() -> None:
    skipped = [SkippedRequest(where=f"edits.jsonl:{n}", field="subject", message="it is empty") for n in range(7)]
    log = replace(log_of("sound"), header=make_header(1, skipped_invalid=skipped))
    (notification,) = run(log)["invocations"][0]["toolExecutionNotifications"]
    assert notification["level"] == "warning"
    assert "edits.jsonl:4: it is empty; and 2 more" in notification["message"]["text"]


@over_logs
@given(log=draw_logs())
def test_sarif_error_if_and_only_if_exit_code_is_not_0(log: Log) -> None:
    sarif_run = run(log)
    (invocation,) = sarif_run["invocations"]
    levels = [
        notification["level"] for notification in (*sarif_run["results"], *invocation["toolExecutionNotifications"])
    ]
    assert ("error" in levels) == (summarise(log).exit_code != 0) == (invocation["exitCode"] != 0)


@pytest.mark.parametrize("text", HOSTILE)
def test_sarif_hostile_text_makes_no_link(text: str) -> None:
    written = render_sarif(make_hostile_log(text, edits=12))
    run(make_hostile_log(text, edits=12))
    assert "](" not in written
    assert not {"\u202e", "\u2066", "\x1b", "\uffff"} & set(written)


@pytest.mark.parametrize(
    ("source", "uri"),
    [
        ("edits.jsonl", "edits.jsonl"),
        ("./data/my edits.json", "data/my%20edits.json"),
        ("../a:b#c?.yaml", "../a%3Ab%23c%3F.yaml"),
        ("/srv/é.csv", "file:///srv/%C3%A9.csv"),
        ("C:\\edits\\a b.json", "file:///C:/edits/a%20b.json"),
        ("hf://owner/set:train", "hf://owner/set:train"),
        ("builtin", "builtin"),
    ],
)
def test_source_uri_examples(source: str, uri: str) -> None:
    assert source_uri(source) == uri


def test_sarif_own_fault_has_result_beside_failed_check() -> None:
    log = make_log(2)
    failed = MeasurementRecord(check="locality", metric="rate", value=0.2, verdict="fail")
    values = {"weights": None, "outcome": "rolled-back", "verdict": "fail"}
    edit = log.edits[1].model_copy(update=values | {"measurements": [*log.edits[1].measurements, failed]})
    results = json.loads(render_sarif(replace(log, edits=(log.edits[0], edit))))["runs"][0]["results"]
    assert any("not proved to be restored" in result["message"]["text"] for result in results)
