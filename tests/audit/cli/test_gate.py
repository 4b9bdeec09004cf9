"""baseline, compare, gate and override on the command line: exit codes in processes of their own, and what is said where."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from editguard.reports.log.edited_checkpoint import EditedCheckpoint
from editguard.reports.log.file import Log
from junitparser import JUnitXml, Skipped

from ...helpers.audit_logs import (
    add_check,
    change_edits,
    change_measurement,
    fail_measurement,
    make_audit,
    make_sequence,
    recount,
    refuse,
    set_ratio,
    write_log,
)
from ...helpers.command_line import CommandResult, RunCommand, run_in_process
from ...helpers.tiny_setups import MID_PROMPT_REQUEST, lenient

BASE = change_edits(make_audit(), add_check("toxicity"), range(14))
NAN = b'"value":NaN'
in_narrow_terminal = partial(run_in_process, columns=80)


@pytest.fixture
def based(place: Path, command: RunCommand) -> Path:
    """A folder to stand in with a baseline `main`, saved from an audit in `base`."""
    write_log(BASE, place / "base" / "audit.jsonl")
    assert command("baseline", "save", "base", "main").code == 0
    return place


def with_header(**changes: Any) -> Log:
    return replace(BASE, header=BASE.header.model_copy(update=changes))


def twice(path: Path) -> None:
    lines = path.read_bytes().splitlines(keepends=True)
    path.write_bytes(b"".join([*lines[:2], lines[1], *lines[2:]]))


def with_nan(path: Path) -> None:
    path.write_bytes(path.read_bytes().replace(b'"value":1.0', NAN, 1))


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes().replace(b"}", b"", 3))


HALF = change_measurement("efficacy", "prefixed", "exact", passed=16, not_judged=1)
OTHER = BASE.header.model.model_copy(update={"fingerprint": "another"})

CLOSING: dict[str, Log | tuple[Log, Callable[[Path], None]]] = {
    "unreadable": (BASE, cut),
    "duplicate-edits": (BASE, twice),
    "not-finite": (BASE, with_nan),
    "audit-unfinished": replace(BASE, footer=None),
    "audit-void": replace(BASE, controls=()),
    "audit-failed": change_edits(BASE, lambda edit: edit.model_copy(update={"verdict": "fail"}), [0]),
    "no-cases": recount(replace(BASE, edits=())),
    "missing-edits": recount(replace(BASE, edits=BASE.edits[:-1])),
    "new-edits": recount(
        replace(BASE, edits=(*BASE.edits, BASE.edits[0].model_copy(update={"id": "one more", "index": 14})))
    ),
    "changed-edits": change_edits(
        BASE, lambda edit: edit.model_copy(update={"prompt": "Another", "subject": "A"}), [0]
    ),
    "other-model": with_header(model=OTHER),
    "other-policy": with_header(policy=BASE.header.policy | {"collapse_ratio": 9}),
    "other-corpus": with_header(perplexity_corpus_sha256="d0" * 32),
    "other-arithmetic": with_header(settings={"check_dtype": "bfloat16"}),
    "other-order": make_sequence(BASE),
    "other-kind": with_header(
        edited=EditedCheckpoint(ref="e", fingerprint="f" * 64, tensors=2, changed=1, kind="One change.")
    ),
    "new-refusals": change_edits(BASE, refuse, [0]),
    "new-collapse": change_edits(BASE, set_ratio(40.0), [0]),
    "missing-checks": make_audit(),
    "unmeasured:efficacy-prefixed": change_edits(BASE, HALF, [0]),
    "regressed:efficacy-prefixed": change_edits(BASE, fail_measurement(), range(5)),
}


@pytest.mark.parametrize("name", CLOSING)
def test_gate_each_reason_closes_it(based: Path, name: str) -> None:
    case = CLOSING[name]
    log, spoil = case if isinstance(case, tuple) else (case, None)
    path = write_log(log, based / "now" / "audit.jsonl")
    if spoil is not None:
        spoil(path)
    before = path.read_bytes()
    result = in_narrow_terminal("gate", "now", "--baseline", "main")
    assert result.code == 1, result
    assert result.err == ""
    assert result.out.startswith("CLOSED")
    assert f"\n  {name}: " in result.out
    assert path.read_bytes() == before


def test_gate_missing_or_unreadable_baseline_closes_it(based: Path) -> None:
    result = in_narrow_terminal("gate", "base", "--baseline", "release")
    assert (result.code, result.err) == (1, "")
    assert "\n  no-baseline: There is no baseline 'release'" in result.out
    result = in_narrow_terminal("gate", "base", "--baseline", "gone/0001.json")
    assert (result.code, "no-baseline: " in result.out) == (1, True)
    cut(based / ".editguard" / "baselines" / "main" / "0001.json")
    result = in_narrow_terminal("gate", "base", "--baseline", "main")
    assert (result.code, result.err) == (1, "")
    assert "\n  unreadable: The baseline main@1" in result.out


def test_gate_missing_log_closes_it(based: Path, command: RunCommand) -> None:
    result = command("gate", "nowhere", "--baseline", "main")
    assert (result.code, result.err) == (1, "")
    assert "unreadable: The log nowhere cannot be read" in result.out
    result = command("gate", "nowhere", "--baseline", "release")
    assert result.code == 1
    assert "no-baseline: There is no baseline 'release'" in result.out
    assert "unreadable: The log nowhere cannot be read" in result.out


def test_gate_same_audit_opens_it(based: Path) -> None:
    result = in_narrow_terminal("gate", "base", "--baseline", "main@1")
    assert (result.code, result.err) == (0, "")
    assert result.out.startswith("OPEN  The gate is open: nothing is worse than main@1")
    assert "…" not in result.out


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--max-regress", "eficacy-prefixed:5%"], "did you mean 'efficacy-prefixed'"),
        (["--max-regress", "efficacy-prefixed:0.05"], "no amount with its unit"),
        (["--accept", "regressed"], "only missing-edits and new-edits can"),
        (["--json", "--markdown"], "give one of them"),
        (["--baseline", "a b"], "is not valid; use up to 64"),
        (["--baseline", "main@one"], "no number after the @"),
    ],
)
def test_gate_mistyped_option_is_wrong_usage(based: Path, command: RunCommand, options: list[str], said: str) -> None:
    result = command("gate", "base", "--baseline", "main", *options)
    assert (result.code, result.out) == (2, "")
    assert result.err.startswith("editguard: ")
    assert said in result.err
    assert len(result.err.splitlines()) == 1


def test_gate_json_and_markdown_agree(based: Path, command: RunCommand) -> None:
    write_log(CLOSING["regressed:efficacy-prefixed"], based / "now" / "audit.jsonl")  # type: ignore[arg-type]
    plain = json.loads(command("gate", "now", "--baseline", "main", "--json").out)
    assert (plain["open"], plain["exit_code"]) == (False, 1)
    assert [(one["reason"], one["metric"]) for one in plain["closings"]] == [("regressed", "efficacy-prefixed")]
    result = command("gate", "now", "--baseline", "main", "--markdown")
    assert result.code == 1
    assert result.out.startswith("## Gate closed\n")
    assert "regressed:efficacy-prefixed" in result.out
    assert "| efficacy-prefixed | 100" in result.out


def test_gate_accept_names_added_edits(based: Path, command: RunCommand) -> None:
    write_log(CLOSING["new-edits"], based / "now" / "audit.jsonl")  # type: ignore[arg-type]
    result = command("gate", "now", "--baseline", "main", "--accept", "new-edits")
    assert result.code == 0
    assert "accepted: 1 edit of the audit is not in the baseline: 'one more'." in result.out


def test_gate_writes_a_page_only_with_out(based: Path, command: RunCommand) -> None:
    before = sorted(based.rglob("*"))
    assert command("gate", "base", "--baseline", "main").code == 0
    assert sorted(based.rglob("*")) == before
    assert command("gate", "base", "--baseline", "main", "--out", "page").code == 0
    assert "Since the baseline" in (based / "page" / "report.html").read_text(encoding="utf-8")
    assert json.loads((based / "page" / "gate.json").read_text())["open"] is True


def test_gate_overwrite_with_unreadable_log_removes_the_old_page(based: Path, command: RunCommand) -> None:
    assert command("gate", "base", "--baseline", "main", "--out", "page").code == 0
    (based / "base" / "audit.jsonl").write_text("{\n{\n")
    assert command("gate", "base", "--baseline", "main", "--out", "page", "--overwrite").code == 1
    assert json.loads((based / "page" / "gate.json").read_text())["open"] is False
    assert not (based / "page" / "report.html").exists(), "the page of an open gate stands beside a closed one"


def test_report_with_baseline_exits_as_the_gate(based: Path, command: RunCommand) -> None:
    write_log(CLOSING["regressed:efficacy-prefixed"], based / "now" / "audit.jsonl")  # type: ignore[arg-type]
    result = in_narrow_terminal("report", "now", "--baseline", "main")
    first, ground, *_ = result.out.splitlines()
    assert (result.code, result.err) == (1, "")
    assert first == ("CLOSED  The gate is closed against main@1: regressed:efficacy-prefixed. The audit itself: pass.")
    assert ground.startswith("  regressed:efficacy-prefixed: ")
    assert (
        (based / "now" / "summary.md")
        .read_text(encoding="utf-8")
        .startswith("## editguard: ❌ gate closed; the audit itself: ✅ pass")
    )
    assert 'testcase classname="audit" name="gate"' in (based / "now" / "junit.xml").read_text()
    plain = json.loads(command("report", "now", "--baseline", "main", "--json").out)
    assert next(iter(plain)) == "gate"
    assert (plain["gate"]["exit_code"], plain["exit_code"], plain["verdict"]) == (1, 0, "pass")
    result = command("report", "base", "--baseline", "main")
    assert (result.code, result.out.split("  ")[0]) == (0, "OPEN")
    result = command("report", "now")
    assert (result.code, result.out.split("  ")[0]) == (0, "PASS")


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("mian", "did you mean 'main'?"),
        ("release", "there are main"),
        ("main@7", "numbers 1 to 1"),
        ("a/b.json", "no file"),
    ],
)
def test_report_mistyped_baseline_writes_nothing(based: Path, name: str, said: str) -> None:
    before = sorted(based.rglob("*"))
    result = in_narrow_terminal("report", "base", "--baseline", name)
    assert (result.code, result.out, len(result.err.splitlines())) == (2, "", 1)
    assert said in result.err
    assert sorted(based.rglob("*")) == before


# -------------------------------------------------------------------------------------------------------- override


@pytest.fixture
def closed(based: Path) -> Path:
    write_log(CLOSING["regressed:efficacy-prefixed"], based / "now" / "audit.jsonl")  # type: ignore[arg-type]
    return based


WORD = ("--reason", "only test subjects are affected", "--author", "Ada <ada>")


def test_override_opens_only_this_log_baseline_and_reasons(closed: Path, command: RunCommand) -> None:
    result = command("override", "now", "--baseline", "main", *WORD)
    assert result.code == 0
    assert "opened by override of Ada <ada> at 20" in result.out
    for output in ((), ("--json",), ("--markdown",)):
        result = command("gate", "now", "--baseline", "main", *output)
        assert result.code == 0
        assert "only test subjects are affected" in result.out
    assert command("gate", "now", "--baseline", "main").out.startswith("OPEN BY OVERRIDE")
    # Another reason beside it, another log, another baseline: closed.
    assert command("gate", "now", "--baseline", "main", "--max-regress", "generalization-prefixed:1%").code == 1
    log = closed / "now" / "audit.jsonl"
    content = log.read_bytes()
    log.write_bytes(
        content.replace(b'"seconds":1.0}', b'"seconds":2.0}').replace(b'"seconds":241.7', b'"seconds":241.8')
    )
    assert log.read_bytes() != content
    assert command("gate", "now", "--baseline", "main").code == 1
    log.write_bytes(content)
    assert command("gate", "now", "--baseline", "main").code == 0
    baseline = closed / ".editguard" / "baselines" / "main" / "0001.json"
    baseline.write_text(baseline.read_text().replace('"seed": 0', '"seed": 1'))
    assert command("gate", "now", "--baseline", "main").code == 1


def other_log(place: Path) -> str:
    path = place / "now" / "audit.jsonl"
    path.write_bytes(path.read_bytes().replace(b'"seconds":241.7', b'"seconds":241.8'))
    return "it is for the log "


def other_baseline(place: Path) -> str:
    path = place / ".editguard" / "baselines" / "main" / "0001.json"
    path.write_text(path.read_text().replace('"seed": 0', '"seed": 1'))
    return "it is against main@1 ("


def one_reason_more(place: Path) -> str:
    return "it does not name regressed:answers-unprefixed"


def one_reason_less(place: Path) -> str:
    return "it names regressed:efficacy-prefixed, which does not close the gate now"


@pytest.mark.parametrize("change", [other_log, other_baseline, one_reason_more, one_reason_less])
def test_override_that_lapsed_is_reported_with_its_reason(
    closed: Path, command: RunCommand, change: Callable[[Path], str]
) -> None:
    log = change_edits(
        CLOSING["regressed:efficacy-prefixed"], fail_measurement("locality", "unprefixed", "exact", 2), range(8)
    )  # type: ignore[arg-type]
    if change in (one_reason_more, one_reason_less):
        shutil.rmtree(closed / "now")
        write_log(log, closed / "now" / "audit.jsonl")
    every, one = (), ("--max-regress", "answers-unprefixed:off")
    given, asked = {
        one_reason_more: (one, every),
        one_reason_less: (every, ("--max-regress", "efficacy-prefixed:off")),
    }.get(change, (every, every))
    assert command("override", "now", "--baseline", "main", *WORD, *given).code == 0
    said = change(closed)
    for output in ((), ("--json",), ("--markdown",)):
        result = command("gate", "now", "--baseline", "main", *asked, *output)
        shown = result.out.replace("\u200b", "")  # Markdown breaks what could be a mention or a link
        assert (result.code, said in shown) == (1, True), result.out
    plain = json.loads(command("gate", "now", "--baseline", "main", *asked, "--json").out)
    (lapsed,) = plain["lapsed"]
    assert (lapsed["override"]["author"], plain["override"]) == ("Ada <ada>", None)
    result = command("report", "now", "--baseline", "main", *asked)
    assert (result.code, said in result.out) == (1, True)
    for name in ("summary.md", "junit.xml", "report.html"):
        assert "does not hold here" in (closed / "now" / name).read_text(encoding="utf-8"), name


def test_override_of_another_audit_is_not_shown(closed: Path, command: RunCommand) -> None:
    write_log(change_edits(BASE, fail_measurement(), range(6)), closed / "other" / "audit.jsonl")
    assert command("baseline", "save", "base", "apart").code == 0
    assert command("override", "other", "--baseline", "apart", *WORD).code == 0
    assert "override" not in command("gate", "now", "--baseline", "main").out.lower()


def test_override_is_in_every_file_and_passes_nothing(closed: Path, command: RunCommand) -> None:
    assert command("override", "now", "--baseline", "main", *WORD).code == 0
    for options in ((), ("--baseline", "main")):
        result = command("report", "now", *options)
        assert result.code == 0
        suite = next(iter(JUnitXml.fromstring((closed / "now" / "junit.xml").read_bytes())))
        (case,) = (one for one in suite if one.name == "gate")
        assert [type(one) for one in case.result] == [Skipped]
        told = {one.name: one.value for one in suite.properties()}["override"]
        assert "opened by override of Ada <ada>" in told
        summary = (closed / "now" / "summary.md").read_text(encoding="utf-8")
        assert summary.startswith("## editguard: ⚠️ gate open by override; the audit itself: ✅ pass")
        assert "only test subjects are affected" in summary


def test_override_shows_in_every_report_of_the_log(closed: Path, command: RunCommand) -> None:
    assert command("override", "now", "--baseline", "main", *WORD).code == 0
    for options in ((), ("--baseline", "main")):
        result = command("report", "now", *options)
        assert "opened by override of Ada <ada>" in result.out
        page = (closed / "now" / "report.html").read_text(encoding="utf-8")
        assert "opened by override of Ada &lt;ada&gt;" in page
        assert "only test subjects are affected" in page
    assert "override" not in command("report", "base").out


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("now", "--reason", "because", "--author", "Ada"), "too short"),
        (("now", "--reason", "   ", "--author", "Ada"), "too short"),
        (("now", "--reason", "one two three", "--author", " "), "no author"),
        (("base", *WORD), "The gate is open"),
        (("nowhere", *WORD), "closed by unreadable, which cannot be overridden"),
    ],
)
def test_override_wrong_input_leaves_no_record(
    closed: Path, command: RunCommand, arguments: tuple[str, ...], said: str
) -> None:
    result = command("override", arguments[0], "--baseline", "main", *arguments[1:])
    assert (result.code, result.out) == (2, "")
    assert said in result.err
    assert not (closed / ".editguard" / "baselines" / "overrides.jsonl").exists()


def test_override_author_defaults_to_git_then_user(
    closed: Path, command: RunCommand, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("GIT_CONFIG_GLOBAL", os.devnull)
    monkeypatch.setenv("GIT_CONFIG_SYSTEM", os.devnull)
    monkeypatch.setenv("USER", "grace")
    assert "override of grace" in command("override", "now", "--baseline", "main", *WORD[:2]).out
    (closed / ".editguard" / "baselines" / "overrides.jsonl").unlink()
    subprocess.run(["git", "init", "-q"], cwd=closed, check=True)
    subprocess.run(["git", "config", "user.name", "Ada L"], cwd=closed, check=True)
    assert "override of Ada L" in command("override", "now", "--baseline", "main", *WORD[:2]).out


def test_override_tampered_file_leaves_the_gate_closed(closed: Path, command: RunCommand) -> None:
    (closed / ".editguard" / "baselines" / "overrides.jsonl").write_text("{}\n")
    result = command("gate", "now", "--baseline", "main")
    assert (result.code, result.err) == (1, "")
    assert "regressed:efficacy-prefixed: " in result.out
    assert "unreadable: Line 1 of " in result.out
    assert "overrides.jsonl' is not an override" in result.out
    result = command("override", "now", "--baseline", "main", *WORD)
    assert (result.code, result.out) == (2, "")
    assert "closed by unreadable, which cannot be overridden" in result.err


def test_override_tampered_file_is_not_read_where_the_gate_is_open(based: Path, command: RunCommand) -> None:
    (based / ".editguard" / "baselines" / "overrides.jsonl").write_text("{}\n")
    assert command("gate", "base", "--baseline", "main").code == 0


# --------------------------------------------------------------------------------------------- baseline and compare


def test_baseline_save_numbers_lists_and_refuses(place: Path, command: RunCommand) -> None:
    write_log(BASE, place / "base" / "audit.jsonl")
    write_log(change_edits(BASE, set_ratio(40.0), [0]), place / "failed" / "audit.jsonl")
    result = command("baseline", "save", "base/audit.jsonl", "main", "--baselines", "kept")
    assert (result.code, result.out) == (0, f"baseline: {Path('kept/main/0001.json')}\n")
    result = command("baseline", "save", "failed", "main", "--baselines", "kept")
    assert (result.code, result.out) == (1, "")
    assert "add --allow-failed" in result.err
    assert command("baseline", "save", "failed", "main", "--baselines", "kept", "--allow-failed").code == 0
    listed = command("baseline", "list", "--baselines", "kept").out.splitlines()
    assert [line.split()[0] for line in listed] == ["main@1", "main@2"]
    assert "pass  14 edits" in listed[0]
    assert "fail  14 edits" in listed[1]


def aged(path: Path) -> None:
    """Make a baseline what an older form of the format was: fields of today are missing, one of then is there."""
    plain = json.loads(path.read_text())
    del plain["check_dtype"]
    for edit in plain["edits"]:
        del edit["checks"]
    path.write_text(json.dumps(plain | {"mood": 1}))


def test_baseline_list_names_the_unreadable_and_lists_the_others(based: Path, command: RunCommand) -> None:
    for name in ("aged", "main"):
        assert command("baseline", "save", "base", name).code == 0
    aged(based / ".editguard" / "baselines" / "aged" / "0001.json")
    result = in_narrow_terminal("baseline", "list")
    assert (result.code, [line.split()[0] for line in result.out.splitlines()]) == (0, ["main@1", "main@2"])
    assert len(result.err.splitlines()) == 1
    assert result.err.startswith("editguard: The baseline aged@1 was written by editguard")
    assert "lacks 'check_dtype', 'edits.checks' and has the unknown 'mood'" in result.err
    assert "save it anew from its audit's log with 'editguard baseline save LOG NAME'" in result.err
    assert "restore" not in result.err
    assert in_narrow_terminal("baseline", "list", "aged").code == 2
    assert [line.split()[0] for line in command("baseline", "list", "main@1").out.splitlines()] == ["main@1"]
    result = command("baseline", "list", "mian")
    assert (result.code, result.out, "did you mean 'main'?" in result.err) == (2, "", True)
    # The others can be compared, and what is compared with the old one says the same as the list does.
    assert command("compare", "main@1", "main@2").code == 0
    result = command("compare", "aged", "main")
    assert (result.code, "save it anew" in result.err) == (2, True)
    result = command("gate", "base", "--baseline", "aged")
    assert (result.code, "unreadable: The baseline aged@1 was written" in result.out) == (1, True)


def test_compare_names_missing_new_and_changed_edits(place: Path, command: RunCommand) -> None:
    base = make_audit(26)
    extra = base.edits[0].model_copy(update={"id": "one more", "index": 26})
    kept = change_edits(base, lambda edit: edit.model_copy(update={"prompt": "Another", "subject": "A"}), [13])
    now = recount(replace(kept, edits=(*kept.edits[12:], extra)))
    write_log(base, place / "base" / "audit.jsonl")
    write_log(change_edits(now, fail_measurement(), range(2, 5)), place / "now" / "audit.jsonl")
    assert command("baseline", "save", "base", "main").code == 0
    lines = command("compare", "main", "now").out.splitlines()
    assert "  13 edits paired, 12 missing, 1 new, 1 asking for something else" in lines
    named = ", ".join(f"'case-{number:04d}'" for number in range(10))
    assert f"  missing: {named} and 2 more" in lines
    assert "  new: 'one more'" in lines
    assert "  asking for something else: 'case-0013'" in lines
    plain = json.loads(command("compare", "main", "now", "--json").out)
    assert (len(plain["missing"]), plain["new"], plain["changed_requests"]) == (12, ["one more"], ["case-0013"])
    shown = command("compare", "main", "now", "--markdown").out
    assert "case-0011" in shown
    result = command("gate", "now", "--baseline", "main")
    assert f"missing-edits: 12 edits of the baseline are not in the audit: {named} and 2 more." in result.out
    assert "over 13 edits; worst in 'case-0014', 'case-0015', 'case-0016'." in result.out
    closings = json.loads(command("gate", "now", "--baseline", "main", "--json").out)["closings"]
    about = {one["reason"]: one["edits"] for one in closings}
    assert about["regressed"] == ["case-0014", "case-0015", "case-0016"]
    assert len(about["missing-edits"]) == 12
    assert "case-0011" in command("gate", "now", "--baseline", "main", "--markdown").out
    assert command("report", "now", "--baseline", "main").code == 1
    page = (place / "now" / "report.html").read_text(encoding="utf-8")
    assert "case-0011" in page.partition('id="since"')[2].partition("</section>")[0]


def test_compare_one_edit_is_singular(place: Path, command: RunCommand) -> None:
    write_log(make_audit(1), place / "one" / "audit.jsonl")
    assert command("baseline", "save", "one", "main").code == 0
    assert "  1 edit  " in command("baseline", "list").out
    shown = command("compare", "main", "one").out + command("gate", "one", "--baseline", "main").out
    assert "pass, 1 edit, " in shown
    assert "  1 edit paired" in shown
    assert "1 edits" not in shown


def test_compare_reads_logs_folders_and_baselines(based: Path, command: RunCommand) -> None:
    write_log(CLOSING["regressed:efficacy-prefixed"], based / "now" / "audit.jsonl")  # type: ignore[arg-type]
    file = based / ".editguard" / "baselines" / "main" / "0001.json"
    for before in ("base", "base/audit.jsonl", "main", "main@1", file):
        result = command("compare", before, "now")
        assert (result.code, result.err) == (0, "")
        assert "efficacy-prefixed" in result.out
        assert "−35.71 pp" in result.out
    plain = json.loads(command("compare", "main", "now", "--json").out)
    assert plain["before"]["name"] == "main@1"
    assert "| efficacy-prefixed |" in command("compare", "main", "now", "--markdown").out


@pytest.mark.parametrize("wrong", ["nothing", "no/where", "main@2"])
def test_compare_missing_side_is_wrong_input(based: Path, command: RunCommand, wrong: str) -> None:
    result = command("compare", "main", wrong)
    assert (result.code, result.out) == (2, "")
    assert len(result.err.splitlines()) == 1
    assert "A log, or a folder with an audit, can be given as well." in result.err


def test_baseline_list_empty_says_where_it_looked(place: Path, command: RunCommand) -> None:
    result = command("baseline", "list", "--baselines", "nowhere")
    assert (result.code, result.out) == (0, "")
    assert result.err.startswith(
        "There are no baselines in 'nowhere'; save one with 'editguard baseline save LOG NAME'"
    )
    assert len(result.err.splitlines()) == 1


@pytest.fixture
def audited(place: Path, checkpoint: Path, command: RunCommand) -> RunCommand:
    """Audit one edit of a tiny model under a policy with some bounds changed."""

    def run(*arguments: str | Path, **bounds: object) -> CommandResult:
        edit = {
            "id": MID_PROMPT_REQUEST.id,
            "subject": MID_PROMPT_REQUEST.subject,
            "prompt": MID_PROMPT_REQUEST.prompt,
            "target_new": MID_PROMPT_REQUEST.target_new,
        }
        (place / "edits.json").write_text(json.dumps([edit]), encoding="utf-8")
        policy = lenient(**bounds).model_dump(exclude={"rules"})
        lines = [f"{name} = {json.dumps(value)}" for name, value in policy.items()]
        (place / "policy.toml").write_text("\n".join(lines), encoding="utf-8")
        return command(
            "audit", "edits.json", "--model", checkpoint, "--layer", "0", "--stats", "identity", "--policy", "policy.toml",
            "--engine", "reference", "--json", *arguments,
        )  # fmt: skip

    return run


@pytest.mark.tiny
def test_audit_save_baseline_opens_the_next_gate(audited: RunCommand, command: RunCommand) -> None:
    result = audited("--save-baseline", "main", "--out", "first")
    assert (result.code, json.loads(result.out)["verdict"]) == (0, "pass")
    assert f"baseline: {Path('.editguard/baselines/main/0001.json')}" in result.err
    assert audited("--out", "second").code == 0
    result = command("gate", "second", "--baseline", "main")
    assert (result.code, "1 edit paired" in result.out) == (0, True)


@pytest.mark.tiny
def test_audit_that_fails_saves_no_baseline(place: Path, audited: RunCommand) -> None:
    result = audited("--save-baseline", "main", min_efficacy=1)
    assert (result.code, json.loads(result.out)["verdict"]) == (1, "fail")
    assert "no baseline was saved: The audit failed" in result.err
    assert not (place / ".editguard").exists()


def test_audit_wrong_baseline_name_stops_before_loading(place: Path, command: RunCommand) -> None:
    result = command("audit", "--model", "nowhere", "--save-baseline", "a b")
    assert (result.code, "is not valid; use up to 64" in result.err) == (2, True)
