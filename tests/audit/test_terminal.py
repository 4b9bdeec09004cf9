"""What a person sees: verdict first, counts and not bare rates, and no markup out of other people's texts."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
from editguard.audit.files import LOG
from editguard.audit.guard import GuardedEditor
from editguard.audit.runner import run_audit
from editguard.audit.setup import Setup
from editguard.audit.terminal import ProbeTable, lines, print_summary, probe_line
from editguard.probes.request_files import LoadedRequests

from .tiny_lm import MIDDLE, MISSING, REQUEST

pytestmark = pytest.mark.tiny


def test_a_probe_line_is_plain_json_with_null_for_what_was_not_measured(setup: Setup) -> None:
    guard = GuardedEditor(setup)
    line, missing = (probe_line(guard.assess(request), "edits.json") for request in (REQUEST, MISSING))
    assert json.loads(json.dumps(line, allow_nan=False)) == line
    assert line["first_token"] is True
    for name in ("first_token", "denominator", "denominator_prefixed", "denominator_ratio", "cosine"):
        assert line[name] is not None
        assert missing[name] is None
    assert (missing["decision"], missing["findings"][0]["level"]) == ("refuse", "error")
    seen = guard.assess(MIDDLE)
    assert seen.evidence is not None
    broken = replace(seen, evidence=replace(seen.evidence, denominator=float("nan"), cosine=float("inf")))
    line = probe_line(broken, "edits.json")
    assert line["denominator"] is line["denominator_ratio"] is line["cosine"] is None


def test_the_table_counts_and_does_not_read_markup(setup: Setup, capsys: pytest.CaptureFixture[str]) -> None:
    guard, table = GuardedEditor(setup), ProbeTable()
    table.add(guard.assess(replace(MISSING, id="[bold]x[/nope]", subject="[red]")))
    table.add(guard.assess(MIDDLE))
    table.show(skipped=3)
    shown = capsys.readouterr().out
    assert "2 edits: 1 allow, 0 rewrite, 1 refuse; 3 invalid records skipped" in shown
    assert "[red]" in shown


def test_the_summary_prints_verdict_reasons_and_counts(
    setup: Setup, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    summary = run_audit(setup, LoadedRequests((MISSING, MIDDLE), (), "x", "0"), tmp_path)
    print_summary(summary.model_copy(update={"model": "[/tiny]"}), tmp_path / LOG)
    shown = " ".join(capsys.readouterr().out.split())  # lines are broken to the terminal's width
    assert shown.startswith("FAIL [/tiny], layer 0")
    assert "1 edit was refused ('missing')" in shown
    assert "2 edits: 1 allowed, 0 rewritten, 1 refused; 0 failed, 0 collapsed; 0 invalid records skipped" in shown
    assert "controls: 0 of 0 showed what they must" in shown
    prefixed = summary.counts["efficacy_prefixed"]
    assert f"efficacy prefixed: {prefixed.passed} passed, {prefixed.failed} failed, 0 not judged, of" in shown
    print_summary(summary.model_copy(update={"worst_perplexity_ratio": None}), tmp_path / LOG)
    assert "worst perplexity ratio: not measured" in capsys.readouterr().out


def test_progress_in_a_file_is_a_line_now_and_then(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    clock = iter([0.0, 5.0, 21.0, 30.0, 42.0])
    monkeypatch.setattr("editguard.audit.terminal.time.monotonic", lambda: next(clock))
    show = lines()
    for done in range(4):
        show("edits", done, 60)
    seen = capsys.readouterr()
    assert (seen.out, seen.err) == ("", "    21 s  edits: 1 of 60\n    42 s  edits: 3 of 60\n")
