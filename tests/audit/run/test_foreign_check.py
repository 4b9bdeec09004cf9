"""A check of another package: audited, logged with the metrics that it declares, and compared by the gate."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import ClassVar

import pytest
from editguard.audit.folders.file_names import LOG
from editguard.audit.run.audit import run_audit
from editguard.audit.setup import Setup
from editguard.probes.card import Card
from editguard.probes.forward.low_rank import LowRankUpdate
from editguard.probes.requests.loader import LoadedRequests
from editguard.probes.requests.request import EditRequest
from editguard.reports.gate.allowances import read_allowances
from editguard.reports.gate.baseline import Baseline, build_baseline
from editguard.reports.gate.decision import judge_gate
from editguard.reports.gate.metrics import Tally
from editguard.reports.log.file import Log, read_log
from editguard.suites.check import CHECKS, Bench, Check, CheckResult, ComparedMetric, EditUnderTest, judge

from ...helpers.tiny_setups import FIRST_TOKEN_REQUEST, MID_PROMPT_REQUEST

pytestmark = pytest.mark.tiny


class Tone(Check[int]):
    """The check of the docstring of `Check`: it counts words, as many as its class says."""

    name: ClassVar[str] = "tone"
    card = Card(
        question="Is the model still polite?",
        source="this test",
        needs="nothing",
        unit="share",
        range="0 to 1",
        threshold="0.5",
        action="Be polite.",
    )
    metrics = (ComparedMetric(name="polite", metric="polite", allowance=0.05),)
    polite: ClassVar[int] = 9

    def prepare(
        self, bench: Bench, requests: Sequence[EditRequest], updates: Sequence[LowRankUpdate] = ()
    ) -> list[int]:
        return [len(request.prompt) for request in requests]

    def measure(self, bench: Bench, edit: EditUnderTest[int]) -> CheckResult:
        assert edit.state == len(edit.request.prompt)
        share = self.polite / 10
        row = self.measurement("polite", share, judge(share, share >= 0.5), passed=self.polite, failed=10 - self.polite)
        return CheckResult([row])


@pytest.fixture
def tone() -> Iterator[None]:
    CHECKS.names()
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(CHECKS._classes, "tone", Tone)
        yield


def audited(setup: Setup, folder: Path) -> Log:
    folder.mkdir()
    requests = LoadedRequests(
        requests=(FIRST_TOKEN_REQUEST, MID_PROMPT_REQUEST), invalid=(), source="edits.json", sha256="0" * 64
    )
    run_audit(setup, requests, folder)
    return read_log(folder / LOG)


@pytest.mark.usefixtures("tone")
def test_foreign_check_is_measured_logged_and_gated(
    setup: Setup, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    log = audited(setup, tmp_path / "before")
    (card,) = [card for card in log.header.cards if card.name == "tone"]
    assert [(metric.name, metric.kind, metric.better, metric.allowance) for metric in card.metrics] == [
        ("tone/polite", "rate", "higher", 0.05)
    ]
    assert not any(card.metrics for card in log.header.cards if card.name != "tone")
    before = build_baseline(log, None)
    assert before.edits[0].metrics["tone/polite"] == Tally(passed=9, failed=1, not_judged=0, total=10)
    monkeypatch.setattr(Tone, "polite", 6)
    after = build_baseline(audited(setup, tmp_path / "after"), None)
    assert closed_by(before, before) == []
    assert closed_by(before, after) == ["regressed:tone/polite"]


def closed_by(before: Baseline, after: Baseline) -> list[str]:
    """Return why the gate is closed, apart from the verdict of a tiny model's own audit."""
    gate = judge_gate(before, after, ("before", "after"), read_allowances())
    return [closing.key for closing in gate.closings if not closing.key.startswith("audit-")]
