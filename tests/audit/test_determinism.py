"""What must not depend on how an audit is run: twice the same, in another order, in other batches, on other threads."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from editguard.audit.run import execute as making
from editguard.audit.run.audit import run_audit
from editguard.audit.run.file_names import LOG
from editguard.audit.setup import Setup
from editguard.probes.forward import batches
from editguard.probes.requests.request import EditRequest
from editguard.reports.log.file import read_log
from editguard.reports.log.schema import EditRecord

from ..helpers.tiny_setups import FIRST_TOKEN_REQUEST, MID_PROMPT_REQUEST, MISSING_SUBJECT_REQUEST, lenient, tiny_setup
from .run.test_audit import loaded
from .run.test_resume import timeless

pytestmark = pytest.mark.tiny

REQUESTS = (
    FIRST_TOKEN_REQUEST,
    MID_PROMPT_REQUEST,
    MISSING_SUBJECT_REQUEST,
    replace(MID_PROMPT_REQUEST, id="lyon", target_new="Lyon"),
    replace(
        FIRST_TOKEN_REQUEST, id="long", paraphrases=(), prompt="In 2024, which is not 1984, Chicago is a twin city of"
    ),
)


def prepared() -> Setup:
    return tiny_setup(policy=lenient(controls=True))


def audited(out: Path, *requests: EditRequest) -> bytes:
    run_audit(prepared(), loaded(*requests or REQUESTS), out)
    return (out / LOG).read_bytes()


@pytest.fixture(scope="module")
def usual(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("usual")
    audited(out)
    return out


@pytest.fixture
def threads() -> Iterator[None]:
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


def decided(folder: Path) -> dict[str, dict[str, Any]]:
    """All of each edit that is a decision, a verdict or a count."""
    return {one.id: _decisions(one) for one in read_log(folder / LOG).edits}


def _decisions(record: EditRecord) -> dict[str, Any]:
    return {
        "decision": (record.decision.action, record.decision.editor),
        "outcome": (record.outcome, record.verdict),
        "findings": [(one.probe, one.level) for one in record.findings],
        "measurements": [
            (one.check, one.metric, one.condition, one.protocol, one.verdict, one.passed, one.failed, one.not_judged)
            for one in record.measurements
        ],
        "generations": record.generations,
    }


def figures(folder: Path) -> dict[tuple[str, ...], float]:
    """All figures of all edits."""
    found: dict[tuple[str, ...], float] = {}
    for record in read_log(folder / LOG).edits:
        for one in record.measurements:
            if one.value is not None:
                found[record.id, one.check, one.metric, one.condition, str(one.protocol)] = one.value
        if record.update is not None and record.update.relative_norm is not None:
            found[record.id, "update"] = record.update.relative_norm
        if record.keys is not None and record.keys.denominator is not None:
            found[record.id, "denominator"] = record.keys.denominator
    return found


def same(folder: Path, usual: Path) -> None:
    assert decided(folder) == decided(usual)
    assert figures(folder) == pytest.approx(figures(usual), rel=2e-3, abs=1e-6)


def test_two_runs_agree_to_the_bit(usual: Path, tmp_path: Path) -> None:
    assert timeless(audited(tmp_path)) == timeless((usual / LOG).read_bytes())


def test_the_order_of_the_requests_changes_no_decision(usual: Path, tmp_path: Path) -> None:
    audited(tmp_path, *reversed(REQUESTS))
    same(tmp_path, usual)


@pytest.mark.parametrize("together", [1, 2])
def test_who_is_computed_with_whom_changes_no_decision(
    usual: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, together: int
) -> None:
    monkeypatch.setattr(making, "TOGETHER", together)
    audited(tmp_path)
    same(tmp_path, usual)


@pytest.mark.parametrize("tokens", [1, 200])
def test_the_size_of_batches_changes_no_decision(
    usual: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, tokens: int
) -> None:
    """At one token a batch every row is run alone."""
    cut = batches.batches
    calls: list[int] = []

    def small(lengths: Any, budget: int = 0) -> Any:
        calls.append(budget)
        return cut(lengths, tokens)

    for module in _users_of_batches():
        monkeypatch.setattr(module, "batches", small)
    audited(tmp_path)
    assert calls
    same(tmp_path, usual)


def _users_of_batches() -> list[Any]:
    import sys

    return [
        module
        for name, module in sys.modules.items()
        if name.startswith("editguard.") and getattr(module, "batches", None) is batches.batches
    ]


@pytest.mark.parametrize("count", [1, 2, 3])
def test_the_number_of_threads_changes_no_decision(usual: Path, tmp_path: Path, threads: None, count: int) -> None:
    torch.set_num_threads(count)
    audited(tmp_path)
    same(tmp_path, usual)
