"""baseline, compare, gate and override on the command line: exit codes in processes of their own, and what is said where."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from editguard.audit.cli.main import main
from editguard.reports.log.file import Log
from junitparser import JUnitXml, Skipped

from ...helpers.audit_logs import (
    audit,
    counted,
    in_sequence,
    judged_by,
    lost,
    ratio,
    refused,
    remeasured,
    with_edits,
    written,
)
from ...helpers.tiny_setups import MID_PROMPT_REQUEST, lenient

BASE = with_edits(audit(), judged_by("toxicity"), range(14))
NAN = b'"value":NaN'


class Ran(NamedTuple):
    code: int
    out: str
    err: str


Command = Callable[..., Ran]


def in_a_process(*arguments: str | Path) -> Ran:
    done = subprocess.run(
        [sys.executable, "-m", "editguard.audit.cli.main", *map(str, arguments)],
        capture_output=True, text=True, encoding="utf-8", timeout=120, check=False, env=os.environ | {"COLUMNS": "80"},
    )  # fmt: skip
    return Ran(done.returncode, done.stdout, done.stderr)


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty folder to stand in."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def command(monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> Command:
    """Run the command line in this process, as its entry point would."""

    def run(*arguments: str | Path) -> Ran:
        monkeypatch.setattr(sys, "argv", ["editguard", *map(str, arguments)])
        with pytest.raises(SystemExit) as stopped:
            main()
        code = stopped.value.code
        return Ran(code if isinstance(code, int) else 0 if code is None else 1, *capfd.readouterr())

    return run


@pytest.fixture
def based(place: Path, command: Command) -> Path:
    """A folder to stand in with a baseline `main`, saved from an audit in `base`."""
    written(BASE, place / "base" / "audit.jsonl")
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


HALF = remeasured("efficacy", "prefixed", "exact", passed=16, not_judged=1)
OTHER = BASE.header.model.model_copy(update={"fingerprint": "another"})

CLOSING: dict[str, Log | tuple[Log, Callable[[Path], None]]] = {
    "unreadable": (BASE, cut),
    "duplicate-edits": (BASE, twice),
    "not-finite": (BASE, with_nan),
    "audit-unfinished": replace(BASE, footer=None),
    "audit-void": replace(BASE, controls=()),
    "audit-failed": with_edits(BASE, lambda edit: edit.model_copy(update={"verdict": "fail"}), [0]),
    "no-cases": counted(replace(BASE, edits=())),
    "missing-edits": counted(replace(BASE, edits=BASE.edits[:-1])),
    "new-edits": counted(
        replace(BASE, edits=(*BASE.edits, BASE.edits[0].model_copy(update={"id": "one more", "index": 14})))
    ),
    "changed-edits": with_edits(BASE, lambda edit: edit.model_copy(update={"prompt": "Another", "subject": "A"}), [0]),
    "other-model": with_header(model=OTHER),
    "other-policy": with_header(policy=BASE.header.policy | {"collapse_ratio": 9}),
    "other-corpus": with_header(perplexity_corpus_sha256="d0" * 32),
    "other-arithmetic": with_header(settings={"check_dtype": "bfloat16"}),
    "other-order": in_sequence(BASE),
    "new-refusals": with_edits(BASE, refused, [0]),
    "new-collapse": with_edits(BASE, ratio(40.0), [0]),
    "missing-checks": audit(),
    "unmeasured:efficacy-prefixed": with_edits(BASE, HALF, [0]),
    "regressed:efficacy-prefixed": with_edits(BASE, lost(), range(5)),
}


@pytest.mark.parametrize("name", CLOSING)
def test_each_reason_closes_the_gate_in_a_process(based: Path, name: str) -> None:
    case = CLOSING[name]
    log, spoil = case if isinstance(case, tuple) else (case, None)
    path = written(log, based / "now" / "audit.jsonl")
    if spoil is not None:
        spoil(path)
    before = path.read_bytes()
    ran = in_a_process("gate", "now", "--baseline", "main")
    assert ran.code == 1, ran
    assert ran.err == ""
    assert ran.out.startswith("CLOSED")
    assert f"\n  {name}: " in ran.out
    assert path.read_bytes() == before


def test_an_unknown_baseline_and_an_unreadable_one_close_it_too(based: Path) -> None:
    ran = in_a_process("gate", "base", "--baseline", "release")
    assert (ran.code, ran.err) == (1, "")
    assert "\n  no-baseline: There is no baseline 'release'" in ran.out
    ran = in_a_process("gate", "base", "--baseline", "gone/0001.json")
    assert (ran.code, "no-baseline: " in ran.out) == (1, True)
    cut(based / ".editguard" / "baselines" / "main" / "0001.json")
    ran = in_a_process("gate", "base", "--baseline", "main")
    assert (ran.code, ran.err) == (1, "")
    assert "\n  unreadable: The baseline main@1" in ran.out


def test_a_log_that_is_not_there_closes_it(based: Path, command: Command) -> None:
    ran = command("gate", "nowhere", "--baseline", "main")
    assert (ran.code, ran.err) == (1, "")
    assert "unreadable: The log nowhere cannot be read" in ran.out


def test_the_same_audit_opens_it_in_a_process(based: Path) -> None:
    ran = in_a_process("gate", "base", "--baseline", "main@1")
    assert (ran.code, ran.err) == (0, "")
    assert ran.out.startswith("OPEN  The gate is open: nothing is worse than main@1")
    assert "…" not in ran.out


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--max-regress", "eficacy-prefixed:5%"], "did you mean 'efficacy-prefixed'"),
        (["--max-regress", "efficacy-prefixed:0.05"], "no amount with its unit"),
        (["--accept", "regressed"], "only missing-edits and new-edits can"),
        (["--json", "--markdown"], "give one of them"),
        (["--baseline", "a b"], "cannot be a baseline's"),
        (["--baseline", "main@one"], "no number after the @"),
    ],
)
def test_a_mistyped_option_is_wrong_usage(based: Path, command: Command, options: list[str], said: str) -> None:
    ran = command("gate", "base", "--baseline", "main", *options)
    assert (ran.code, ran.out) == (2, "")
    assert ran.err.startswith("editguard: ")
    assert said in ran.err
    assert len(ran.err.splitlines()) == 1


def test_json_and_markdown_say_the_same(based: Path, command: Command) -> None:
    written(CLOSING["regressed:efficacy-prefixed"], based / "now" / "audit.jsonl")  # type: ignore[arg-type]
    plain = json.loads(command("gate", "now", "--baseline", "main", "--json").out)
    assert (plain["open"], plain["exit_code"]) == (False, 1)
    assert [(one["reason"], one["metric"]) for one in plain["closings"]] == [("regressed", "efficacy-prefixed")]
    ran = command("gate", "now", "--baseline", "main", "--markdown")
    assert ran.code == 1
    assert ran.out.startswith("## Gate closed\n")
    assert "regressed:efficacy-prefixed" in ran.out
    assert "| efficacy-prefixed | 100" in ran.out


def test_edits_added_on_purpose_are_accepted_and_named(based: Path, command: Command) -> None:
    written(CLOSING["new-edits"], based / "now" / "audit.jsonl")  # type: ignore[arg-type]
    ran = command("gate", "now", "--baseline", "main", "--accept", "new-edits")
    assert ran.code == 0
    assert "accepted: 1 edit of the audit is not in the baseline: 'one more'." in ran.out


def test_gate_writes_a_page_only_where_it_is_told_to(based: Path, command: Command) -> None:
    before = sorted(based.rglob("*"))
    assert command("gate", "base", "--baseline", "main").code == 0
    assert sorted(based.rglob("*")) == before
    assert command("gate", "base", "--baseline", "main", "--out", "page").code == 0
    assert "Since the baseline" in (based / "page" / "report.html").read_text(encoding="utf-8")
    assert json.loads((based / "page" / "gate.json").read_text())["open"] is True


def test_a_report_against_a_baseline_says_and_exits_what_the_gate_does(based: Path, command: Command) -> None:
    written(CLOSING["regressed:efficacy-prefixed"], based / "now" / "audit.jsonl")  # type: ignore[arg-type]
    ran = in_a_process("report", "now", "--baseline", "main")
    first, ground, *_ = ran.out.splitlines()
    assert (ran.code, ran.err) == (1, "")
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
    ran = command("report", "base", "--baseline", "main")
    assert (ran.code, ran.out.split("  ")[0]) == (0, "OPEN")
    ran = command("report", "now")
    assert (ran.code, ran.out.split("  ")[0]) == (0, "PASS")


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("mian", "did you mean 'main'?"),
        ("release", "there are main"),
        ("main@7", "numbers 1 to 1"),
        ("a/b.json", "no file"),
    ],
)
def test_a_report_against_a_mistyped_baseline_is_wrong_usage_and_writes_nothing(
    based: Path, name: str, said: str
) -> None:
    before = sorted(based.rglob("*"))
    ran = in_a_process("report", "base", "--baseline", name)
    assert (ran.code, ran.out, len(ran.err.splitlines())) == (2, "", 1)
    assert said in ran.err
    assert sorted(based.rglob("*")) == before


# -------------------------------------------------------------------------------------------------------- override


@pytest.fixture
def closed(based: Path) -> Path:
    written(CLOSING["regressed:efficacy-prefixed"], based / "now" / "audit.jsonl")  # type: ignore[arg-type]
    return based


WORD = ("--reason", "only test subjects are affected", "--author", "Ada <ada>")


def test_an_override_opens_exactly_this_log_baseline_and_reasons(closed: Path, command: Command) -> None:
    ran = command("override", "now", "--baseline", "main", *WORD)
    assert ran.code == 0
    assert "opened by override of Ada <ada> at 20" in ran.out
    for output in ((), ("--json",), ("--markdown",)):
        ran = command("gate", "now", "--baseline", "main", *output)
        assert ran.code == 0
        assert "only test subjects are affected" in ran.out
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
def test_an_override_that_does_not_hold_is_told_with_why(
    closed: Path, command: Command, change: Callable[[Path], str]
) -> None:
    log = with_edits(CLOSING["regressed:efficacy-prefixed"], lost("locality", "unprefixed", "exact", 2), range(8))  # type: ignore[arg-type]
    if change in (one_reason_more, one_reason_less):
        shutil.rmtree(closed / "now")
        written(log, closed / "now" / "audit.jsonl")
    every, one = (), ("--max-regress", "answers-unprefixed:off")
    given, asked = {
        one_reason_more: (one, every),
        one_reason_less: (every, ("--max-regress", "efficacy-prefixed:off")),
    }.get(change, (every, every))
    assert command("override", "now", "--baseline", "main", *WORD, *given).code == 0
    said = change(closed)
    for output in ((), ("--json",), ("--markdown",)):
        ran = command("gate", "now", "--baseline", "main", *asked, *output)
        shown = ran.out.replace("\u200b", "")  # Markdown breaks what could be a mention or a link
        assert (ran.code, said in shown) == (1, True), ran.out
    plain = json.loads(command("gate", "now", "--baseline", "main", *asked, "--json").out)
    (lapsed,) = plain["lapsed"]
    assert (lapsed["override"]["author"], plain["override"]) == ("Ada <ada>", None)
    ran = command("report", "now", "--baseline", "main", *asked)
    assert (ran.code, said in ran.out) == (1, True)
    for name in ("summary.md", "junit.xml", "report.html"):
        assert "does not hold here" in (closed / "now" / name).read_text(encoding="utf-8"), name


def test_an_override_of_something_else_is_nobodys_concern(closed: Path, command: Command) -> None:
    written(with_edits(BASE, lost(), range(6)), closed / "other" / "audit.jsonl")
    assert command("baseline", "save", "base", "apart").code == 0
    assert command("override", "other", "--baseline", "apart", *WORD).code == 0
    assert "override" not in command("gate", "now", "--baseline", "main").out.lower()


def test_an_override_is_in_every_file_and_passes_nothing(closed: Path, command: Command) -> None:
    assert command("override", "now", "--baseline", "main", *WORD).code == 0
    for options in ((), ("--baseline", "main")):
        ran = command("report", "now", *options)
        assert ran.code == 0
        suite = next(iter(JUnitXml.fromstring((closed / "now" / "junit.xml").read_bytes())))
        (case,) = (one for one in suite if one.name == "gate")
        assert [type(one) for one in case.result] == [Skipped]
        told = {one.name: one.value for one in suite.properties()}["override"]
        assert "opened by override of Ada <ada>" in told
        summary = (closed / "now" / "summary.md").read_text(encoding="utf-8")
        assert summary.startswith("## editguard: ⚠️ gate open by override; the audit itself: ✅ pass")
        assert "only test subjects are affected" in summary


def test_an_override_shows_in_every_report_of_the_log(closed: Path, command: Command) -> None:
    assert command("override", "now", "--baseline", "main", *WORD).code == 0
    for options in ((), ("--baseline", "main")):
        ran = command("report", "now", *options)
        assert "opened by override of Ada <ada>" in ran.out
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
        (("nowhere", *WORD), "closed by unreadable, which nobody can answer for"),
    ],
)
def test_what_is_no_override_is_an_error_and_leaves_no_record(
    closed: Path, command: Command, arguments: tuple[str, ...], said: str
) -> None:
    ran = command("override", arguments[0], "--baseline", "main", *arguments[1:])
    assert (ran.code, ran.out) == (2, "")
    assert said in ran.err
    assert not (closed / ".editguard" / "baselines" / "overrides.jsonl").exists()


def test_the_author_is_gits_or_the_users(closed: Path, command: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GIT_CONFIG_GLOBAL", os.devnull)
    monkeypatch.setenv("GIT_CONFIG_SYSTEM", os.devnull)
    monkeypatch.setenv("USER", "grace")
    assert "override of grace" in command("override", "now", "--baseline", "main", *WORD[:2]).out
    (closed / ".editguard" / "baselines" / "overrides.jsonl").unlink()
    subprocess.run(["git", "init", "-q"], cwd=closed, check=True)
    subprocess.run(["git", "config", "user.name", "Ada L"], cwd=closed, check=True)
    assert "override of Ada L" in command("override", "now", "--baseline", "main", *WORD[:2]).out


def test_overrides_that_were_tampered_with_leave_the_gate_closed(closed: Path, command: Command) -> None:
    (closed / ".editguard" / "baselines" / "overrides.jsonl").write_text("{}\n")
    ran = command("gate", "now", "--baseline", "main")
    assert ran.code == 2
    assert "line 1: this is no override" in ran.err


# --------------------------------------------------------------------------------------------- baseline and compare


def test_a_baseline_is_saved_listed_and_refused(place: Path, command: Command) -> None:
    written(BASE, place / "base" / "audit.jsonl")
    written(with_edits(BASE, ratio(40.0), [0]), place / "failed" / "audit.jsonl")
    ran = command("baseline", "save", "base/audit.jsonl", "main", "--baselines", "kept")
    assert (ran.code, ran.out) == (0, f"baseline: {Path('kept/main/0001.json')}\n")
    ran = command("baseline", "save", "failed", "main", "--baselines", "kept")
    assert (ran.code, ran.out) == (1, "")
    assert "add --allow-failed" in ran.err
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


def test_a_baseline_that_cannot_be_read_is_named_and_the_others_are_listed(based: Path, command: Command) -> None:
    for name in ("aged", "main"):
        assert command("baseline", "save", "base", name).code == 0
    aged(based / ".editguard" / "baselines" / "aged" / "0001.json")
    ran = in_a_process("baseline", "list")
    assert (ran.code, [line.split()[0] for line in ran.out.splitlines()]) == (0, ["main@1", "main@2"])
    assert len(ran.err.splitlines()) == 1
    assert ran.err.startswith("editguard: The baseline aged@1 was written by editguard")
    assert "lacks 'check_dtype', 'edits.checks' and has the unknown 'mood'" in ran.err
    assert "save it anew from its audit's log with 'editguard baseline save LOG NAME'" in ran.err
    assert "restore" not in ran.err
    assert in_a_process("baseline", "list", "aged").code == 2
    assert [line.split()[0] for line in command("baseline", "list", "main@1").out.splitlines()] == ["main@1"]
    ran = command("baseline", "list", "mian")
    assert (ran.code, ran.out, "did you mean 'main'?" in ran.err) == (2, "", True)
    # The others can be compared, and what is compared with the old one says the same as the list does.
    assert command("compare", "main@1", "main@2").code == 0
    ran = command("compare", "aged", "main")
    assert (ran.code, "save it anew" in ran.err) == (2, True)
    ran = command("gate", "base", "--baseline", "aged")
    assert (ran.code, "unreadable: The baseline aged@1 was written" in ran.out) == (1, True)


def test_compare_and_gate_name_what_is_missing_new_and_changed(place: Path, command: Command) -> None:
    base = audit(26)
    extra = base.edits[0].model_copy(update={"id": "one more", "index": 26})
    kept = with_edits(base, lambda edit: edit.model_copy(update={"prompt": "Another", "subject": "A"}), [13])
    now = counted(replace(kept, edits=(*kept.edits[12:], extra)))
    written(base, place / "base" / "audit.jsonl")
    written(with_edits(now, lost(), range(2, 5)), place / "now" / "audit.jsonl")
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
    ran = command("gate", "now", "--baseline", "main")
    assert f"missing-edits: 12 edits of the baseline are not in the audit: {named} and 2 more." in ran.out
    assert "over 13 edits; worst in 'case-0014', 'case-0015', 'case-0016'." in ran.out
    closings = json.loads(command("gate", "now", "--baseline", "main", "--json").out)["closings"]
    about = {one["reason"]: one["edits"] for one in closings}
    assert about["regressed"] == ["case-0014", "case-0015", "case-0016"]
    assert len(about["missing-edits"]) == 12
    assert "case-0011" in command("gate", "now", "--baseline", "main", "--markdown").out
    assert command("report", "now", "--baseline", "main").code == 1
    page = (place / "now" / "report.html").read_text(encoding="utf-8")
    assert "case-0011" in page.partition('id="since"')[2].partition("</section>")[0]


def test_one_edit_is_one_edit(place: Path, command: Command) -> None:
    written(audit(1), place / "one" / "audit.jsonl")
    assert command("baseline", "save", "one", "main").code == 0
    assert "  1 edit  " in command("baseline", "list").out
    shown = command("compare", "main", "one").out + command("gate", "one", "--baseline", "main").out
    assert "pass, 1 edit, " in shown
    assert "  1 edit paired" in shown
    assert "1 edits" not in shown


def test_compare_reads_logs_folders_and_baselines_and_never_fails_for_what_changed(
    based: Path, command: Command
) -> None:
    written(CLOSING["regressed:efficacy-prefixed"], based / "now" / "audit.jsonl")  # type: ignore[arg-type]
    file = based / ".editguard" / "baselines" / "main" / "0001.json"
    for before in ("base", "base/audit.jsonl", "main", "main@1", file):
        ran = command("compare", before, "now")
        assert (ran.code, ran.err) == (0, "")
        assert "efficacy-prefixed" in ran.out
        assert "−35.71 pp" in ran.out
    plain = json.loads(command("compare", "main", "now", "--json").out)
    assert plain["before"]["name"] == "main@1"
    assert "| efficacy-prefixed |" in command("compare", "main", "now", "--markdown").out


@pytest.mark.parametrize("wrong", ["nothing", "no/where", "main@2"])
def test_compare_of_what_is_not_there_is_wrong_input(based: Path, command: Command, wrong: str) -> None:
    ran = command("compare", "main", wrong)
    assert (ran.code, ran.out) == (2, "")
    assert len(ran.err.splitlines()) == 1


@pytest.fixture
def audited(place: Path, checkpoint: Path, command: Command) -> Command:
    """Audit one edit of a tiny model under a policy with some bounds changed."""

    def run(*arguments: str | Path, **bounds: object) -> Ran:
        edit = {"id": MID_PROMPT_REQUEST.id, "subject": MID_PROMPT_REQUEST.subject, "prompt": MID_PROMPT_REQUEST.prompt, "target_new": MID_PROMPT_REQUEST.target_new}
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
def test_an_audit_saves_its_baseline_and_the_next_one_stands_beside_it(audited: Command, command: Command) -> None:
    ran = audited("--save-baseline", "main", "--out", "first")
    assert (ran.code, json.loads(ran.out)["verdict"]) == (0, "pass")
    assert f"baseline: {Path('.editguard/baselines/main/0001.json')}" in ran.err
    assert audited("--out", "second").code == 0
    ran = command("gate", "second", "--baseline", "main")
    assert (ran.code, "1 edit paired" in ran.out) == (0, True)


@pytest.mark.tiny
def test_an_audit_that_fails_saves_no_baseline_and_says_so(place: Path, audited: Command) -> None:
    ran = audited("--save-baseline", "main", min_efficacy=1)
    assert (ran.code, json.loads(ran.out)["verdict"]) == (1, "fail")
    assert "no baseline was saved: The audit failed" in ran.err
    assert not (place / ".editguard").exists()


def test_a_name_that_cannot_be_is_found_before_anything_is_loaded(place: Path, command: Command) -> None:
    ran = command("audit", "--model", "nowhere", "--save-baseline", "a b")
    assert (ran.code, "cannot be a baseline's" in ran.err) == (2, True)
