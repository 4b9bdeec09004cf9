"""The log of a session, and the files of an earlier audit beside it."""

from __future__ import annotations

from pathlib import Path

import pytest
from editguard.audit.folders.file_names import LOG, SUMMARY
from editguard.audit.folders.output_folder import locked_folder
from editguard.reports.log.file import read_log

from ...helpers.plugin_sessions import (
    ASKS_FOR_THE_GUARD,
    ITEMS,
    RunPytest,
    write_edits,
)
from ...helpers.tiny_setups import MID_PROMPT_REQUEST

pytestmark = pytest.mark.tiny


def test_log_of_an_earlier_session_stays_without_edits(pytester: pytest.Pytester, run: RunPytest) -> None:
    pytester.makepyfile("def test_one(): pass")
    (pytester.path / "out").mkdir()
    (pytester.path / "out" / LOG).write_text("an older one")
    run("--editguard-out=out").assert_outcomes(passed=1)
    assert [path.name for path in (pytester.path / "out").iterdir()] == [LOG]
    assert (pytester.path / "out" / LOG).read_text() == "an older one"


def test_log_of_an_earlier_audit_stays_when_no_edit_is_tested(
    pytester: pytest.Pytester, run: RunPytest, tiny: list[str]
) -> None:
    write_edits(pytester.path / "a.edits.json", MID_PROMPT_REQUEST)
    pytester.makepyfile(test_own=ASKS_FOR_THE_GUARD)
    older = pytester.path / "out" / LOG
    older.parent.mkdir()
    older.write_text("an older one")
    run(*tiny, "test_own.py").assert_outcomes(passed=1)
    run(*tiny, "-k", "test_asks").assert_outcomes(passed=1, deselected=len(ITEMS))
    assert older.read_text() == "an older one"


def test_log_of_an_earlier_audit_stays_while_the_folder_is_locked(
    pytester: pytest.Pytester,
    run: RunPytest,
    tiny: list[str],
) -> None:
    write_edits(pytester.path / "a.edits.json", MID_PROMPT_REQUEST)
    older = pytester.path / "out" / LOG
    with locked_folder(older.parent, overwrite=True):
        older.write_text("an older one")
        ran = run(*tiny, "-k", "drift")
    assert ran.ret == pytest.ExitCode.TESTS_FAILED
    assert "Another run is writing to" in ran.stdout.str()
    assert older.read_text() == "an older one"


def test_log_replaces_all_files_of_an_earlier_audit(
    pytester: pytest.Pytester,
    run: RunPytest,
    tiny: list[str],
) -> None:
    write_edits(pytester.path / "a.edits.json", MID_PROMPT_REQUEST)
    (pytester.path / "out").mkdir()
    (pytester.path / "out" / SUMMARY).write_text("an older one")
    run(*tiny, "-k", "drift").assert_outcomes(passed=1, deselected=len(ITEMS) - 1)
    assert not (pytester.path / "out" / SUMMARY).exists()


def test_log_keeps_other_files_of_its_folder(pytester: pytest.Pytester, run: RunPytest, tiny: list[str]) -> None:
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
def test_log_folder_not_writable_fails_the_session_only(
    pytester: pytest.Pytester,
    run: RunPytest,
    tiny: list[str],
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
