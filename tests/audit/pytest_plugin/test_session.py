"""Sessions of edits: what passes and fails, and what the log says."""

from __future__ import annotations

import re
from dataclasses import replace

import pytest
from editguard.audit.folders.file_names import LOG
from editguard.reports.log.file import read_log
from editguard.reports.verdict.digest import summarise

from ...helpers.plugin_sessions import (
    ITEMS,
    NOWHERE,
    REFUSING,
    RunPytest,
    list_items,
    write_edits,
    write_policy,
)
from ...helpers.tiny_setups import FIRST_TOKEN_REQUEST, MID_PROMPT_REQUEST

pytestmark = pytest.mark.tiny


def test_session_missing_model_fails_every_item_in_one_sentence(
    pytester: pytest.Pytester,
    run: RunPytest,
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
    assert sorted(list_items(ran)) == ["a.edits.json::chicago::drift", "a.edits.json::chicago::guard"]


OWN_TESTS = """
import pytest
from editguard.audit import EditRequest
from editguard.probes.errors import EditRefused
from editguard.probes.model.fingerprint import compute_checksum

EDIT = EditRequest("mine", "France", "The capital of France is", "Istanbul", target_true="Paris")

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


def test_session_sound_edits_pass_and_so_does_their_log(
    pytester: pytest.Pytester, run: RunPytest, tiny: list[str]
) -> None:
    write_edits(pytester.path / "a.edits.json", FIRST_TOKEN_REQUEST, MID_PROMPT_REQUEST)
    pytester.makepyfile(test_own=OWN_TESTS)
    (pytester.path / "out").mkdir()
    (pytester.path / "out" / LOG).write_text("an older one")
    ran = run(*tiny, "--junitxml=j.xml")
    # Generalization is not judged without a bound, and a model of random weights is certain of no other fact. The second
    # edit brings no neighbour and is judged by made ones. Its subject is not first, so that no other first word is asked.
    ran.assert_outcomes(passed=2 * len(ITEMS) - 5 + 2, skipped=5)
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


def test_session_failures_and_missing_edits_fail_the_log(
    pytester: pytest.Pytester,
    run: RunPytest,
    tiny: list[str],
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


def test_session_failed_controls_void_every_item(
    pytester: pytest.Pytester,
    run: RunPytest,
    tiny: list[str],
) -> None:
    write_edits(pytester.path / "a.edits.json", MID_PROMPT_REQUEST)
    write_policy(pytester.path / "policy.toml", controls=True)
    ran = run(*tiny, "-k", "drift or locality or generalization")
    ran.assert_outcomes(failed=3, deselected=len(ITEMS) - 3)
    assert "editguard: void: Control 'control-bad-" in ran.stdout.str()
    summary = summarise(read_log(pytester.path / "out" / LOG))
    assert (summary.verdict, summary.controls.total) == ("void", 2)


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


def test_session_test_that_changes_the_weight_spoils_later_ones(
    pytester: pytest.Pytester,
    run: RunPytest,
    tiny: list[str],
) -> None:
    pytester.makepyfile(test_a=CHANGES_A_WEIGHT)
    write_edits(pytester.path / "z.edits.json", MID_PROMPT_REQUEST)
    ran = run(*tiny, "-k", "test_a or drift")
    ran.assert_outcomes(passed=1, errors=2, failed=1, deselected=len(ITEMS) - 1)
    assert "editguard: The test test_a.py::test_changes left the weight" in ran.stdout.str()
    assert not (pytester.path / "out" / LOG).exists()


def test_session_change_of_another_weight_fails_the_session(
    pytester: pytest.Pytester, run: RunPytest, tiny: list[str]
) -> None:
    write_edits(pytester.path / "a.edits.json", MID_PROMPT_REQUEST)
    pytester.makepyfile(test_z=CHANGES_ANOTHER)
    ran = run(*tiny, "-k", "test_z or drift")
    ran.assert_outcomes(passed=2, deselected=len(ITEMS) - 1)
    assert ran.ret == pytest.ExitCode.TESTS_FAILED
    assert "editguard: The model's fingerprint is not the one" in ran.stdout.str()
    assert read_log(pytester.path / "out" / LOG).footer is None


@pytest.mark.slow
@pytest.mark.parametrize("dist", ["load", "loadscope"])
def test_xdist_workers_give_the_same_results_and_one_log(
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
    ran.assert_outcomes(passed=2 * len(ITEMS) - 5, failed=len(ITEMS), skipped=5)
    log = read_log(pytester.path / "out" / LOG)
    assert [(record.id, record.index) for record in log.edits] == [("france", 0), ("chicago", 1), ("other", 2)]
    assert log.footer is not None
    assert len(summarise(log).reasons) == 1
    assert {path.name for path in (pytester.path / "out").iterdir()} == {LOG, ".lock", "notes.txt"}
    if dist == "loadscope":
        places = re.findall(r"\[(gw\d)\].*a\.edits\.json::(\w+)::", ran.stdout.str())
        assert len(set(places)) == 3
