"""What a person sees: verdict first, counts and not bare rates, and no markup out of other people's texts."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
from editguard.audit.cli.terminal import ProbeTable, print_summary, probe_line
from editguard.audit.folders.file_names import LOG
from editguard.audit.guard import GuardedEditor
from editguard.audit.run.audit import run_audit
from editguard.audit.setup import Setup
from editguard.probes.requests.loader import LoadedRequests
from editguard.reports.verdict.digest import summarise
from editguard.reports.verdict.rates import make_rate
from rich.cells import cell_len

from ...helpers.leak_logs import make_checked_edit, make_leaky_log, make_prompt_outcome
from ...helpers.synthetic_logs import make_perplexity
from ...helpers.tiny_setups import FIRST_TOKEN_REQUEST, MID_PROMPT_REQUEST, MISSING_SUBJECT_REQUEST

pytestmark = pytest.mark.tiny


def test_probe_line_is_json_with_null_for_unmeasured(setup: Setup) -> None:
    guard = GuardedEditor(setup)
    line, missing = (
        probe_line(guard.assess(request), "edits.json") for request in (FIRST_TOKEN_REQUEST, MISSING_SUBJECT_REQUEST)
    )
    assert json.loads(json.dumps(line, allow_nan=False)) == line
    assert line["first_token"] is True
    for name in ("first_token", "denominator", "denominator_prefixed", "denominator_ratio", "cosine"):
        assert line[name] is not None
        assert missing[name] is None
    assert (missing["decision"], missing["findings"][0]["level"]) == ("refuse", "error")
    seen = guard.assess(MID_PROMPT_REQUEST)
    assert seen.evidence is not None
    broken = replace(seen, evidence=replace(seen.evidence, denominator=float("nan"), cosine=float("inf")))
    line = probe_line(broken, "edits.json")
    assert line["denominator"] is line["denominator_ratio"] is line["cosine"] is None


def test_probe_table_counts_and_reads_no_markup(setup: Setup, capsys: pytest.CaptureFixture[str]) -> None:
    guard, table = GuardedEditor(setup), ProbeTable()
    table.add(guard.assess(replace(MISSING_SUBJECT_REQUEST, id="[bold]x[/nope]", subject="[red]")))
    table.add(guard.assess(MID_PROMPT_REQUEST))
    table.show(skipped=3)
    shown = capsys.readouterr().out
    assert "2 edits: 1 allow, 0 rewrite, 1 refuse; 3 invalid records skipped" in shown
    assert "may still rewrite or refuse what is allowed here" in shown
    assert "[red]" in shown


def test_summary_prints_verdict_reasons_and_counts(
    setup: Setup, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    summary = run_audit(
        setup,
        LoadedRequests(requests=(MISSING_SUBJECT_REQUEST, MID_PROMPT_REQUEST), invalid=(), source="x", sha256="0"),
        tmp_path,
    )
    print_summary(summary.model_copy(update={"model": "[/tiny]"}), tmp_path / LOG)
    shown = " ".join(capsys.readouterr().out.split())  # lines are broken to the terminal's width
    assert shown.startswith("FAIL [/tiny], layer 0")
    assert "1 edit was refused ('missing')" in shown
    assert "2 edits: 1 allowed, 0 rewritten, 1 refused; 0 failed, 0 collapsed; 0 invalid records skipped" in shown
    assert "controls: none was made, so nothing proves that the checks see a collapse" in shown
    prefixed = summary.counts["efficacy_prefixed"]
    assert f"efficacy prefixed: {prefixed.passed} passed, {prefixed.failed} failed, 0 not judged, of" in shown
    print_summary(summary.model_copy(update={"worst_perplexity_ratio": None}), tmp_path / LOG)
    assert "worst perplexity ratio: not measured" in capsys.readouterr().out


def test_summary_says_which_counts_are_judged(setup: Setup, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    asked = replace(
        MID_PROMPT_REQUEST, paraphrases=("Again France is twinned with",), neighbourhood=("The twin of Spain is",)
    )
    summary = run_audit(setup, LoadedRequests(requests=(asked,), invalid=(), source="x", sha256="0"), tmp_path)
    print_summary(summary, tmp_path / LOG)
    shown = {line.partition(":")[0].strip(): line for line in capsys.readouterr().out.splitlines()}
    assert shown["efficacy unprefixed"].endswith("[judged in 1 edit]")
    assert shown["locality unprefixed"].endswith("[judged in 1 edit]")
    for name in ("efficacy prefixed", "generalization unprefixed", "locality prefixed", "neighbour answers unprefixed"):
        assert shown[name].endswith("[shown, not judged]"), name
    changed = summary.counts | {"neighbour_answers_unprefixed": make_rate(3, 2, 0)}
    print_summary(summary.model_copy(update={"counts": changed}), tmp_path / LOG)
    said = capsys.readouterr().out
    assert "NOTE: answers about other subjects changed: 2 of 5 without a prefix" in said
    assert "the policy judges the leaks and the flips among them" in said
    judged = summary.judged | {"neighbour_answers_unprefixed": 1}
    print_summary(summary.model_copy(update={"counts": changed, "judged": judged}), tmp_path / LOG)
    assert "the policy judges their share (min_neighbour_answers)" in capsys.readouterr().out


LONG = "a reason that no terminal of eighty columns could ever hold in one line, nor could two of them side by side"


def test_summary_breaks_lines_for_a_terminal_only(
    setup: Setup, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    summary = run_audit(
        setup, LoadedRequests(requests=(MID_PROMPT_REQUEST,), invalid=(), source="x", sha256="0"), tmp_path
    )
    long = summary.model_copy(update={"reasons": [LONG]})
    monkeypatch.delenv("COLUMNS", raising=False)
    print_summary(long, tmp_path / LOG)
    assert f"\n  {LONG}\n" in capsys.readouterr().out
    monkeypatch.setenv("COLUMNS", "60")
    print_summary(long, tmp_path / LOG)
    shown = capsys.readouterr().out
    lines = shown.partition("\n")[2].partition("\n  1 edit")[0].splitlines()
    assert len(lines) == 2
    assert all(line.startswith("  ") and len(line) <= 60 for line in lines)


@pytest.mark.parametrize("columns", [None, "80", "40"])
def test_probe_table_cuts_no_reason(
    setup: Setup, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, columns: str | None
) -> None:
    monkeypatch.delenv("COLUMNS", raising=False)
    if columns is not None:
        monkeypatch.setenv("COLUMNS", columns)
    table, found = ProbeTable(), GuardedEditor(setup).assess(FIRST_TOKEN_REQUEST)
    reasons = (LONG, "denominator: the denominator ratio is 0.001, outside the bound (at least 0.2)")
    table.add(replace(found, decision=replace(found.decision, reasons=reasons)))
    table.show(skipped=0)
    shown = capsys.readouterr().out
    assert "…" not in shown
    told = " ".join(shown.split())
    for reason in reasons:
        assert f"- {reason}" in told
    assert sum(line.startswith("  - ") for line in shown.splitlines()) >= len(reasons)


def test_summary_of_a_failed_audit_says_why_and_what_to_do(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    print_summary(summarise(make_leaky_log(12)), tmp_path / LOG)
    shown = capsys.readouterr().out
    assert "8 of 12 edits passed and may ship by themselves: 'case-0000'" in shown
    first = shown.index("- case-0001: It leaks: 'Facebook is owned by' now says 'Italy, and' (before: 'the company')")
    assert shown.index("  What to do: Do not ship this edit. Try", first) < shown.index(
        "- case-0002: Danielle Darrieux says"
    )
    assert "- case-0009: It was refused: " in shown
    rewritten = shown[shown.index("- case-0000: It was rewritten: ") :].splitlines()
    assert "What to do" not in rewritten[1]
    assert "prompts about other subjects: 2 of 66 leak, 5 of 66 are answered otherwise" in shown
    assert "prompts about other facts of the subjects: 2 of 33 leak, " in shown
    assert "1 edit was judged by neighbours that the audit made" in shown


def test_summary_explains_ten_edits_and_counts_the_rest(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    edits = tuple(make_checked_edit(n % 9, leaks=1, id=f"e{n}") for n in range(13))
    summary = summarise(replace(make_leaky_log(12), edits=edits))
    print_summary(summary, tmp_path / LOG)
    shown = capsys.readouterr().out
    assert shown.count("now says") == 10
    assert "and 3 more; see the report" in shown
    print_summary(summary.model_copy(update={"edits_explained_left_out": 5}), tmp_path / LOG)
    assert "and 8 more; see the report" in capsys.readouterr().out


def test_summary_shows_a_leak_beside_a_collapse(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    record = make_checked_edit(1, leaks=1)
    collapsed = [*(one for one in record.measurements if one.check != "perplexity"), make_perplexity(40.0)]
    both = record.model_copy(update={"measurements": collapsed})
    print_summary(summarise(replace(make_leaky_log(12), edits=(both,))), tmp_path / LOG)
    shown = capsys.readouterr().out
    assert "It collapsed the model: perplexity ratio 40, over the bound of 1.5; 1 other check failed." in shown
    assert "It leaks too: 'Facebook is owned by' now says 'Italy, and' (before: 'the company')" in shown


def test_summary_reads_no_markup_of_a_neighbour(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = make_prompt_outcome("[bold]x[/nope]", "leak", after="\x1b[31m\u202egnp\nnext")
    record = make_checked_edit(1, leaks=1).model_copy(update={"prompts": [words]})
    print_summary(summarise(replace(make_leaky_log(12), edits=(record,))), tmp_path / LOG)
    shown = capsys.readouterr().out
    assert "'[bold]x[/nope]' now says" in shown
    assert not {"\x1b", "\u202e"} & set(shown)


def test_probe_table_aligns_columns_after_wide_characters(setup: Setup, capsys: pytest.CaptureFixture[str]) -> None:
    guard, table = GuardedEditor(setup), ProbeTable()
    assessment = guard.assess(MID_PROMPT_REQUEST)
    for name in ("東京都", "plain"):
        table.add(replace(assessment, request=replace(MID_PROMPT_REQUEST, id=name)))
    table.show(skipped=0)
    lines = capsys.readouterr().out.splitlines()
    places = {cell_len(line.partition("allow")[0]) for line in lines if " allow " in line}
    assert places == {len("東京都") * 2 + 2}
