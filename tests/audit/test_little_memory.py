"""An audit on a device that holds little: batches are halved, and what comes out is what a large one gives."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from editguard.audit.guard import GuardedEditor
from editguard.audit.run.audit import run_audit
from editguard.audit.run.file_names import LOG
from editguard.audit.setup import Setup
from editguard.probes.errors import OutOfMemory
from editguard.probes.model.language_model import LanguageModel
from editguard.reports.log.file import read_log
from editguard.reports.log.schema import EditRecord
from editguard.suites.checks.degeneracy import Degeneracy

from ..helpers.tiny_models import tiny_lm
from ..helpers.tiny_setups import FIRST_TOKEN_REQUEST, MID_PROMPT_REQUEST, tiny_setup
from .run.test_audit import loaded

pytestmark = pytest.mark.tiny


@contextmanager
def room_for(lm: LanguageModel, tokens: int) -> Iterator[list[int]]:
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


def made_ready(lm: LanguageModel) -> Setup:
    return tiny_setup(lm)


def records(setup: Setup, out: Path) -> list[EditRecord]:
    run_audit(setup, loaded(FIRST_TOKEN_REQUEST, MID_PROMPT_REQUEST), out)
    return list(read_log(out / LOG).edits)


def test_what_does_not_fit_at_once_gives_the_same_audit(tmp_path: Path) -> None:
    lm = tiny_lm()
    (tmp_path / "little").mkdir()
    (tmp_path / "much").mkdir()
    with room_for(lm, 1000) as failed:
        little = records(made_ready(lm), tmp_path / "little")
    assert len(failed) > 5
    for one, other in zip(little, records(made_ready(lm), tmp_path / "much"), strict=True):
        assert (one.decision, one.outcome, one.verdict) == (other.decision, other.outcome, other.verdict)
        assert one.outcome == "committed"
        assert one.update is not None
        assert other.update is not None
        assert one.update.relative_norm == pytest.approx(other.update.relative_norm, rel=1e-3)
        for here, there in zip(one.measurements, other.measurements, strict=True):
            assert (here.check, here.metric, here.condition, here.total) == (
                there.check,
                there.metric,
                there.condition,
                there.total,
            )
            assert here.value == pytest.approx(there.value, rel=1e-3, abs=1e-6)


def test_guesses_that_do_not_fit_at_once_are_each_of_their_own_edit(tmp_path: Path) -> None:
    setup = made_ready(tiny_lm())
    guard = GuardedEditor(setup)
    requests = [
        replace(one, id=str(n)) for n, one in enumerate((FIRST_TOKEN_REQUEST, MID_PROMPT_REQUEST, FIRST_TOKEN_REQUEST))
    ]
    updates = [one.update for one in guard.propose(guard.assess_all(requests), bound=float("inf"))]
    assert all(update is not None for update in updates)

    def guesses() -> list[list[list[int]]]:
        return [one.guesses for one in Degeneracy().prepare(setup.bench, requests, updates)]  # type: ignore[arg-type]

    at_once = guesses()
    with room_for(setup.lm, 120) as failed:
        halved = guesses()
    assert len(failed) > 1
    assert halved == at_once


def test_a_device_that_holds_no_text_at_all_is_named(tmp_path: Path) -> None:
    lm = tiny_lm()
    with room_for(lm, 1), pytest.raises(OutOfMemory, match="One text alone does not fit"):
        made_ready(lm)
