"""A baseline holds what the log measured, and nothing that is no sound reference is saved."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest
from editguard.reports.errors import BaselineError, BaselineRefused, DuplicateRecord, NotFiniteRecord
from editguard.reports.gate.baseline import Baseline, Git, build_baseline, parse_baseline, require_saveable
from editguard.reports.gate.metrics import Metric, Tally, is_measured
from editguard.reports.log.file import Log
from editguard.reports.log.schema import EditRecord
from hypothesis import given, settings
from hypothesis import strategies as st

from ...helpers.audit_logs import (
    change_edits,
    change_measurement,
    fail_measurement,
    make_audit,
    make_baseline,
    refuse,
    set_ratio,
)
from ...helpers.examples import count_examples


@pytest.fixture(scope="module")
def baseline() -> Baseline:
    return build_baseline(make_audit(), Git(commit="0" * 40, dirty=True))


def parsed(text: str) -> Baseline:
    return parse_baseline(text.encode(), "main@1")


def test_build_baseline_holds_figures_of_each_edit(baseline: Baseline) -> None:
    first = baseline.edits[0]
    assert first.metrics[Metric.EFFICACY_PREFIXED] == Tally(passed=17, failed=0, not_judged=0, total=17)
    assert first.metrics[Metric.ANSWERS_UNPREFIXED] == Tally(passed=2, failed=0, not_judged=0, total=2)
    assert isinstance(first.metrics[Metric.PERPLEXITY_RATIO], float)
    assert Metric.GENERALIZATION_PREFIXED not in first.metrics  # nobody asked for it
    assert (first.decision, first.editor, first.verdict, first.collapsed) == ("allowed", "rome", "passed", False)
    assert (baseline.verdict, baseline.status, len(baseline.controls)) == ("pass", "finished", 3)


def test_to_json_is_reviewable_and_reads_back(baseline: Baseline) -> None:
    text = baseline.to_json()
    assert parsed(text) == baseline
    lines = text.splitlines()
    assert sum('"request_sha256"' in line for line in lines) == len(baseline.edits)
    assert text.isascii()
    names = [line.split('"')[1] for line in lines if line.startswith('"')]
    assert names == sorted(Baseline.model_fields.keys() - {"declared", "checkpoint"})  # absent where they say nothing


@given(st.permutations(range(14)))
@settings(max_examples=8, deadline=None)
def test_to_json_order_of_edits_does_not_matter(order: list[int]) -> None:
    log = make_audit()
    shuffled = replace(log, edits=tuple(log.edits[place] for place in order))
    assert make_baseline(shuffled).to_json() == make_baseline(log).to_json()


@given(st.text(min_size=1))
@settings(max_examples=count_examples(20), deadline=None)
def test_parse_baseline_any_id_reads_back(name: str) -> None:
    log = make_audit(1)
    named = replace(log, edits=(log.edits[0].model_copy(update={"id": name}),))
    try:
        name.encode()
    except UnicodeEncodeError:
        return
    assert parsed(make_baseline(named).to_json()).edits[0].id == name


@pytest.mark.parametrize(
    ("log", "message"),
    [
        (replace(make_audit(), footer=None), "unfinished"),
        (replace(make_audit(), controls=()), "void"),
        (change_edits(make_audit(), set_ratio(30.0), [2]), "failed"),
    ],
    ids=["unfinished", "void", "failed"],
)
def test_require_saveable_unsound_reference_is_refused(log: Log, message: str) -> None:
    with pytest.raises(BaselineRefused, match=message) as caught:
        require_saveable(make_baseline(log))
    assert caught.value.exit_code == 1


def test_require_saveable_allow_failed_covers_failed_only() -> None:
    require_saveable(make_baseline(change_edits(make_audit(), set_ratio(30.0), [2])), allow_failed=True)
    for log in (replace(make_audit(), footer=None), replace(make_audit(), controls=())):
        with pytest.raises(BaselineRefused):
            require_saveable(make_baseline(log), allow_failed=True)


def test_parse_baseline_malformed_is_refused(baseline: Baseline) -> None:
    plain = json.loads(baseline.to_json())
    for wrong, message in (
        (plain | {"mood": 1}, "mood"),
        (plain | {"schema_version": 2}, "newer"),
        (plain | {"policy_sha256": "0"}, "policy_sha256"),
        ([], "object|dictionary|valid"),
    ):
        with pytest.raises(BaselineError, match=message):
            parsed(json.dumps(wrong))
    with pytest.raises(BaselineError, match="not JSON"):
        parsed("{")


def test_parse_baseline_duplicate_and_nan_have_own_errors(baseline: Baseline) -> None:
    plain = json.loads(baseline.to_json())
    with pytest.raises(DuplicateRecord, match="case-0000"):
        parsed(json.dumps(plain | {"edits": [plain["edits"][0]] * 2}))
    plain["edits"][0]["metrics"]["perplexity-ratio"] = float("nan")
    with pytest.raises(NotFiniteRecord, match="finite"):
        parsed(json.dumps(plain))


def test_build_baseline_unmeasured_is_null() -> None:
    gone = {"passed": 0, "failed": 0, "total": 0, "value": None, "verdict": "unmeasured"}

    def broken(edit: EditRecord) -> EditRecord:
        failed = edit.model_copy(update={"outcome": "rolled-back", "verdict": "fail"})
        return change_measurement("efficacy", "prefixed", "exact", **gone)(failed)

    half = change_measurement("efficacy", "prefixed", "exact", passed=16, not_judged=1)
    for change in (broken, half):
        (edit,) = make_baseline(change_edits(make_audit(1), change, [0])).edits
        assert Metric.EFFICACY_PREFIXED in edit.metrics
        assert not is_measured(edit.metrics[Metric.EFFICACY_PREFIXED])
    (edit,) = make_baseline(change_edits(make_audit(1), set_ratio(None), [0])).edits
    assert edit.metrics[Metric.PERPLEXITY_RATIO] is None


def test_build_baseline_refused_edit_has_no_figures() -> None:
    (edit,) = make_baseline(change_edits(make_audit(1), refuse, [0])).edits
    assert (edit.metrics, edit.made, edit.decision, edit.editor) == ({}, False, "refused", None)


def test_build_baseline_other_request_has_other_hash() -> None:
    log = make_audit(2)
    other = change_edits(log, lambda edit: edit.model_copy(update={"target_new": "Rome"}), [0])
    hashes = [[edit.request_sha256 for edit in make_baseline(variant).edits] for variant in (log, other)]
    assert hashes[0][0] != hashes[1][0]
    assert hashes[0][1] == hashes[1][1]
    # What was measured is no part of what was asked.
    assert make_baseline(change_edits(log, fail_measurement(), [0])).edits[0].request_sha256 == hashes[0][0]


def test_parse_baseline_error_is_printable() -> None:
    plain = json.loads(build_baseline(make_audit(3), None).to_json())
    for spoilt in (plain | {"\x1b[2J": 1}, plain | {"policy": 3}, plain | {"editguard_version": "\x1b[2J", "more": 1}):
        with pytest.raises(BaselineError) as caught:
            parse_baseline(json.dumps(spoilt).encode(), "main@1")
        assert str(caught.value).isprintable()
