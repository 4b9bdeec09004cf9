"""An audit on a device that holds little: batches are halved, and what comes out is what a large one gives."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from editguard.audit.folders.file_names import LOG
from editguard.audit.guard import GuardedEditor
from editguard.audit.run.audit import run_audit
from editguard.audit.setup import Setup
from editguard.probes.errors import OutOfMemory
from editguard.probes.model.language_model import LanguageModel
from editguard.reports.log.file import read_log
from editguard.reports.log.schema import EditRecord
from editguard.suites.checks.degeneracy import Degeneracy

from ..helpers.tiny_audits import load_edits
from ..helpers.tiny_models import tiny_lm
from ..helpers.tiny_setups import FIRST_TOKEN_REQUEST, MID_PROMPT_REQUEST, tiny_setup

pytestmark = pytest.mark.tiny


@contextmanager
def limit_memory(lm: LanguageModel, tokens: int) -> Iterator[list[int]]:
    """Let every pass of more tokens fail as a full GPU would; the list counts how often it did."""
    failed: list[int] = []

    def embed(_: torch.nn.Module, args: tuple[Any, ...]) -> None:
        if args[0].numel() > tokens:
            failed.append(args[0].numel())
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.")

    handle = lm.model.get_input_embeddings().register_forward_pre_hook(embed)
    try:
        yield failed
    finally:
        handle.remove()


def read_records(setup: Setup, out: Path) -> list[EditRecord]:
    run_audit(setup, load_edits(FIRST_TOKEN_REQUEST, MID_PROMPT_REQUEST), out)
    return list(read_log(out / LOG).edits)


def test_audit_little_memory_gives_the_same_records(tmp_path: Path) -> None:
    lm = tiny_lm()
    (tmp_path / "little").mkdir()
    (tmp_path / "much").mkdir()
    with limit_memory(lm, 1000) as failed:
        little = read_records(tiny_setup(lm), tmp_path / "little")
    assert len(failed) > 5
    for edit, other in zip(little, read_records(tiny_setup(lm), tmp_path / "much"), strict=True):
        assert (edit.decision, edit.outcome, edit.verdict) == (other.decision, other.outcome, other.verdict)
        assert edit.outcome == "committed"
        assert edit.update is not None
        assert other.update is not None
        assert edit.update.relative_norm == pytest.approx(other.update.relative_norm, rel=1e-3)
        for here, there in zip(edit.measurements, other.measurements, strict=True):
            assert (here.check, here.metric, here.condition, here.total) == (
                there.check,
                there.metric,
                there.condition,
                there.total,
            )
            assert here.value == pytest.approx(there.value, rel=1e-3, abs=1e-6)


def test_degeneracy_little_memory_keeps_guesses_with_their_edit(tmp_path: Path) -> None:
    setup = tiny_setup(tiny_lm())
    guard = GuardedEditor(setup)
    requests = [
        replace(request, id=str(n))
        for n, request in enumerate((FIRST_TOKEN_REQUEST, MID_PROMPT_REQUEST, FIRST_TOKEN_REQUEST))
    ]
    proposals = guard.propose(guard.assess_all(requests), bound=float("inf"))
    updates = [proposal.update for proposal in proposals if proposal.update is not None]
    assert len(updates) == len(requests)

    def guesses() -> list[list[list[int]]]:
        return [state.guesses for state in Degeneracy().prepare(setup.bench, requests, updates)]

    at_once = guesses()
    with limit_memory(setup.lm, 120) as failed:
        halved = guesses()
    assert len(failed) > 1
    assert halved == at_once


def test_prepare_device_without_room_for_one_text_is_named(tmp_path: Path) -> None:
    lm = tiny_lm()
    with limit_memory(lm, 1), pytest.raises(OutOfMemory, match="One text alone does not fit"):
        tiny_setup(lm)
