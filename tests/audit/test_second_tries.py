"""An edit that fails its checks is made again by the firm editor of its kind, as often as the policy says."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from editguard.audit import guard as guard_module
from editguard.audit.delta.export import export_edits
from editguard.audit.edit_result import EditResult
from editguard.audit.editors.base import EDITORS
from editguard.audit.editors.update import WeightUpdate
from editguard.audit.guard import GuardedEditor
from editguard.audit.sequence import EditSequence
from editguard.audit.setup import Setup
from editguard.probes.errors import EditRefused
from editguard.suites.check import Bench, CheckResult, EditUnderTest
from editguard.suites.checks.efficacy import Efficacy

from ..helpers.tiny_setups import MID_PROMPT_REQUEST, lenient

pytestmark = pytest.mark.tiny


@pytest.fixture
def guard(setup: Setup) -> Iterator[GuardedEditor]:
    """A guard that edits with `local` over the shared tiny model, whose weight is put back at the end."""
    original = setup.site.weight.detach().clone()
    try:
        yield GuardedEditor(replace(setup, policy=lenient(editor="local")))
    finally:
        with torch.no_grad():
            setup.site.weight.copy_(original)


def with_tries(guard: GuardedEditor, tries: int) -> GuardedEditor:
    policy = guard.setup.policy.model_copy(update={"tries": tries})
    return replace(guard, setup=replace(guard.setup, policy=policy))


@pytest.fixture
def first_try_fails(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Efficacy fails in the first edit that is measured, whatever it is; the list counts the edits."""
    measured: list[int] = []
    measure = Efficacy.measure

    def fail_at_first(self: Efficacy, bench: Bench, edit: EditUnderTest[Any]) -> CheckResult:
        measured.append(len(measured))
        bound = 2.0 if len(measured) == 1 else 0.0
        return measure(self, replace(bench, limits=replace(bench.limits, efficacy=bound)), edit)

    monkeypatch.setattr(Efficacy, "measure", fail_at_first)
    return measured


def run(guard: GuardedEditor) -> EditResult:
    return guard.try_edit(MID_PROMPT_REQUEST)


def test_editor_next_try_is_installed_and_ends() -> None:
    for name, editor in EDITORS:
        following = editor.next_try
        if following is not None:
            assert following == f"{name}-firm"
            assert EDITORS.get(following).next_try is None


def test_firm_editor_of_the_same_request_gives_another_update_at_the_same_sites(guard: GuardedEditor) -> None:
    usual, firm = (
        guard.propose([guard.assess(MID_PROMPT_REQUEST, name)])[0].update for name in ("local", "local-firm")
    )
    assert usual is not None
    assert firm is not None
    assert [site.path for site in usual.sites] == [site.path for site in firm.sites]
    assert not torch.equal(usual.changes[0].left, firm.changes[0].left)


def test_try_edit_that_passes_is_made_once(guard: GuardedEditor) -> None:
    result = run(guard)
    assert result.sound
    assert result.decision.editor == "local"


def test_try_edit_that_fails_is_made_again_by_the_firm_editor(guard: GuardedEditor, first_try_fails: list[int]) -> None:
    result = run(guard)
    assert len(first_try_fails) == 2
    assert result.sound
    assert result.decision.editor == "local-firm"
    assert result.update is not None
    assert result.update.editor == "local-firm"
    assert result.decision.reasons[-1] == "the edit of editor 'local' failed efficacy (efficacy), and was made again"


def test_try_edit_with_one_try_stays_failed(guard: GuardedEditor, first_try_fails: list[int]) -> None:
    result = run(with_tries(guard, 1))
    assert len(first_try_fails) == 1
    assert not result.sound
    assert result.decision.editor == "local"


def test_try_edit_whose_tries_all_fail_is_the_try_with_the_fewest_failures(
    guard: GuardedEditor, monkeypatch: pytest.MonkeyPatch
) -> None:
    measure = Efficacy.measure
    calls: list[int] = []

    def fail(self: Efficacy, bench: Bench, edit: EditUnderTest[Any]) -> CheckResult:
        calls.append(1)
        answer = measure(self, replace(bench, limits=replace(bench.limits, efficacy=2.0)), edit)
        failed = [row for row in answer.measurements if row.outcome.value == "fail"]
        return CheckResult([*answer.measurements, *(failed if len(calls) == 1 else ())])

    monkeypatch.setattr(Efficacy, "measure", fail)
    result = run(guard)
    assert len(calls) == 2
    assert not result.sound
    assert result.decision.editor == "local-firm"
    assert len(result.failures) == 1


def test_try_edit_whose_second_try_is_over_the_bound_is_the_first(
    guard: GuardedEditor, first_try_fails: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A try that was not written has nothing that failed, and is no better for it."""
    check = guard_module.check_update

    def refuse_firm(update: WeightUpdate, *arguments: Any) -> None:
        if update.editor == "local-firm":
            raise EditRefused("too large")
        check(update, *arguments)

    monkeypatch.setattr(guard_module, "check_update", refuse_firm)
    result = run(guard)
    assert len(first_try_fails) == 1
    assert not result.sound
    assert result.decision.editor == "local"
    assert result.refusal is None
    assert result.failures


def test_unguarded_edit_that_fails_is_not_made_again(guard: GuardedEditor, first_try_fails: list[int]) -> None:
    result = guard.try_unguarded(MID_PROMPT_REQUEST, "local")
    assert not result.sound
    assert len(first_try_fails) == 1


def test_weights_after_a_second_try_are_the_unedited_ones(guard: GuardedEditor, first_try_fails: list[int]) -> None:
    before = guard.setup.site.weight.detach().clone()
    run(guard)
    assert torch.equal(guard.setup.site.weight, before)
    assert len(first_try_fails) == 2


def test_sequence_keeps_the_second_try_and_undoes_it(guard: GuardedEditor, first_try_fails: list[int]) -> None:
    before = guard.setup.site.weight.detach().clone()
    with EditSequence(guard) as sequence:
        result = sequence.edit(MID_PROMPT_REQUEST)
        assert result.kept
        assert result.decision.editor == "local-firm"
        assert not torch.equal(guard.setup.site.weight, before)
    assert torch.equal(guard.setup.site.weight, before)
    assert len(first_try_fails) >= 2


def test_export_edits_of_a_second_try_writes_its_update(
    guard: GuardedEditor, first_try_fails: list[int], tmp_path: Path
) -> None:
    (exported,) = export_edits(guard.setup, [MID_PROMPT_REQUEST], tmp_path / "deltas")
    assert exported.edit.editor == "local-firm"
    assert len(first_try_fails) == 2
