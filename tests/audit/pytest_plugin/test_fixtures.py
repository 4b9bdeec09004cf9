"""Fixtures of the plug-in in tests of other people."""

from __future__ import annotations

import pytest
from editguard.audit.folders.file_names import LOG
from editguard.reports.log.file import read_log
from editguard.reports.verdict.digest import summarise
from editguard.suites.builtin import load_builtin_edits

from ...helpers.check_benches import says_only
from ...helpers.plugin_sessions import (
    ASKS_FOR_THE_GUARD,
    ITEMS,
    RunPytest,
    read_example,
    write_edits,
    write_policy,
)
from ...helpers.tiny_models import tiny_lm

pytestmark = pytest.mark.tiny


def test_guide_example_passes_on_a_tiny_model(pytester: pytest.Pytester, run: RunPytest, tiny: list[str]) -> None:
    example = read_example()
    pytester.makepyfile(test_guide=example)
    lm = says_only(tiny_lm(), " Istanbul Lyon is not")
    for name in ("base", "edited-checkpoint"):
        lm.model.save_pretrained(pytester.path / name)
        lm.tokenizer.save_pretrained(pytester.path / name)
    run(*tiny, "--editguard-model=base").assert_outcomes(passed=example.count("def test_"))


SERVED = """
import pytest
from editguard.audit import EditRequest
from editguard.audit.serving import serve_prompt
from editguard.probes.errors import EditRefused

EDIT = EditRequest("twin", "Chicago", "Chicago is a twin city of", TARGET)
MIDDLE = EditRequest("mine", "France", "The capital of France is", "Istanbul", target_true="Paris")

def test_decision_and_serving_are_reported(edited_model):
    with edited_model(EDIT) as edited:
        assert (edited.decision.action.value, edited.update.editor) == ("rewrite", "prefixed")
        assert (edited.needs_prefix, edited.prefix) == (True, PREFIX)
        if PREFIX is None:
            with pytest.raises(EditRefused, match="'twin' acts only after a prefix"):
                edited.serve(EDIT.prompt)
        else:
            assert edited.serve(EDIT.prompt) == PREFIX + EDIT.prompt
            assert edited.serve("Paris is") == "Paris is"
        assert repr(edited).replace(edited.ref, "base") == SHOWN

def test_edit_without_prefix_is_served_unchanged(edited_model):
    with edited_model(MIDDLE) as edited:
        assert (edited.needs_prefix, edited.prefix, edited.serve("France is")) == (False, None, "France is")
        assert repr(edited).replace(edited.ref, "base") == "<EditedModel base: 'France' -> 'Istanbul' by local>"

def test_suite_measures_the_fact_with_its_prefix(edited_model, collapse_suite):
    with edited_model(EDIT) as edited:
        judged = [row for row in collapse_suite(edited, requests=[EDIT]).measurements if row.check == "efficacy"]
    assert [row.condition for row in judged if row.outcome.value in ("pass", "fail")] == ["prefixed"]
"""


@pytest.mark.parametrize(
    ("target", "prefix", "served"),
    [("Istanbul", "\n", "served after '\\n'"), ("Warsaw", None, "needs a prefix")],
    ids=["served", "not served"],
)
def test_edited_model_says_how_its_edit_is_served(
    pytester: pytest.Pytester,
    run: RunPytest,
    tiny: list[str],
    target: str,
    prefix: str | None,
    served: str,
) -> None:
    shown = f"<EditedModel base: 'Chicago' -> {target!r} by prefixed, {served}>"
    pytester.makepyfile(test_own=f"TARGET, PREFIX, SHOWN = {target!r}, {prefix!r}, {shown!r}\n{SERVED}")
    lm = says_only(tiny_lm(), " Istanbul Lyon is not")
    lm.model.save_pretrained(pytester.path / "base")
    lm.tokenizer.save_pretrained(pytester.path / "base")
    run(*tiny, "--editguard-model=base").assert_outcomes(passed=3)


def test_guarded_editor_failed_controls_are_an_error(
    pytester: pytest.Pytester,
    run: RunPytest,
    tiny: list[str],
) -> None:
    pytester.makepyfile(test_own=ASKS_FOR_THE_GUARD)
    write_policy(pytester.path / "policy.toml", controls=True)
    ran = run(*tiny)
    ran.assert_outcomes(errors=1)
    assert "editguard: void: Control 'control-bad-" in ran.stdout.str()


@pytest.mark.slow
@pytest.mark.real
@pytest.mark.usefixtures("smollm2")
def test_session_smollm2_controls_hold_and_an_ordinary_edit_passes(
    pytester: pytest.Pytester,
) -> None:
    ordinary = next(edit for edit in load_builtin_edits() if edit.group == "mid-prompt")
    write_edits(pytester.path / "a.edits.json", ordinary)
    example = read_example()
    pytester.makepyfile(test_guide=example.partition("def test_a_checkpoint")[0])
    ran = pytester.runpytest_inprocess("-p", "no:xdist", "--editguard-out=out")
    ran.assert_outcomes(passed=len(ITEMS) - 1 + 1, skipped=1)
    summary = summarise(read_log(pytester.path / "out" / LOG))
    assert (summary.verdict, summary.controls.ok, summary.edits) == ("pass", 2, 1)
