"""What must not depend on how an audit is run: twice the same, in another order, in other batches, on other threads."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from editguard.audit.folders.file_names import LOG
from editguard.audit.run import execute
from editguard.audit.run.audit import run_audit
from editguard.audit.setup import Setup
from editguard.probes.forward import batches
from editguard.probes.requests.request import EditRequest
from editguard.reports.log.file import read_log
from editguard.reports.log.schema import EditRecord

from ..helpers.tiny_audits import drop_times, load_edits
from ..helpers.tiny_setups import FIRST_TOKEN_REQUEST, MID_PROMPT_REQUEST, MISSING_SUBJECT_REQUEST, lenient, tiny_setup

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


def prepare() -> Setup:
    return tiny_setup(policy=lenient(controls=True))


def run_to_log(out: Path, *requests: EditRequest) -> bytes:
    run_audit(prepare(), load_edits(*requests or REQUESTS), out)
    return (out / LOG).read_bytes()


@pytest.fixture(scope="module")
def usual(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("usual")
    run_to_log(out)
    return out


@pytest.fixture
def threads() -> Iterator[None]:
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


def read_decisions(folder: Path) -> dict[str, dict[str, Any]]:
    """All of each edit that is a decision, a verdict or a count."""
    return {record.id: _list_decisions(record) for record in read_log(folder / LOG).edits}


def _list_decisions(record: EditRecord) -> dict[str, Any]:
    return {
        "decision": (record.decision.action, record.decision.editor),
        "outcome": (record.outcome, record.verdict),
        "findings": [(finding.probe, finding.level) for finding in record.findings],
        "measurements": [
            (
                measurement.check,
                measurement.metric,
                measurement.condition,
                measurement.protocol,
                measurement.verdict,
                measurement.passed,
                measurement.failed,
                measurement.not_judged,
            )
            for measurement in record.measurements
        ],
        "generations": record.generations,
    }


def read_figures(folder: Path) -> dict[tuple[str, ...], float]:
    """All figures of all edits."""
    values: dict[tuple[str, ...], float] = {}
    for record in read_log(folder / LOG).edits:
        for measurement in record.measurements:
            if measurement.value is not None:
                values[
                    record.id, measurement.check, measurement.metric, measurement.condition, str(measurement.protocol)
                ] = measurement.value
        if record.update is not None and record.update.relative_norm is not None:
            values[record.id, "update"] = record.update.relative_norm
        if record.keys is not None and record.keys.denominator is not None:
            values[record.id, "denominator"] = record.keys.denominator
    return values


def assert_same(folder: Path, usual: Path) -> None:
    assert read_decisions(folder) == read_decisions(usual)
    assert read_figures(folder) == pytest.approx(read_figures(usual), rel=2e-3, abs=1e-6)


def test_audit_second_run_gives_the_same_bits(usual: Path, tmp_path: Path) -> None:
    assert drop_times(run_to_log(tmp_path)) == drop_times((usual / LOG).read_bytes())


def test_audit_order_of_requests_changes_no_decision(usual: Path, tmp_path: Path) -> None:
    run_to_log(tmp_path, *reversed(REQUESTS))
    assert_same(tmp_path, usual)


@pytest.mark.parametrize("together", [1, 2])
def test_audit_requests_per_batch_change_no_decision(
    usual: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, together: int
) -> None:
    monkeypatch.setattr(execute, "REQUESTS_PER_BATCH", together)
    run_to_log(tmp_path)
    assert_same(tmp_path, usual)


@pytest.mark.parametrize("tokens", [1, 200])
def test_audit_tokens_per_batch_change_no_decision(
    usual: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, tokens: int
) -> None:
    """At one token a batch every row is run alone."""
    cut = batches.split_batches
    calls: list[int] = []

    def small(lengths: Any, budget: int = 0) -> Any:
        calls.append(budget)
        return cut(lengths, tokens)

    for module in _users_of_batches():
        monkeypatch.setattr(module, "split_batches", small)
    run_to_log(tmp_path)
    assert calls
    assert_same(tmp_path, usual)


def _users_of_batches() -> list[Any]:
    import sys

    return [
        module
        for name, module in sys.modules.items()
        if name.startswith("editguard.") and getattr(module, "split_batches", None) is batches.split_batches
    ]


@pytest.mark.parametrize("count", [1, 2, 3])
def test_audit_number_of_threads_changes_no_decision(usual: Path, tmp_path: Path, threads: None, count: int) -> None:
    torch.set_num_threads(count)
    run_to_log(tmp_path)
    assert_same(tmp_path, usual)
