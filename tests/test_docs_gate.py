"""The guide to the gate names what there is: every reason, every metric with its allowance, and no other."""

from __future__ import annotations

import re
from pathlib import Path

from editguard.reports.gate.decision import FEWEST
from editguard.reports.gate.metrics import METRICS
from editguard.reports.gate.result import OVERRIDABLE, ReasonCode

GUIDE = (Path(__file__).resolve().parents[1] / "docs" / "guide-gate.md").read_text(encoding="utf-8")


def names(part: str) -> set[str]:
    rows = [line.split("|")[1] for line in part.splitlines() if line.startswith("| `")]
    return {name for row in rows for name in re.findall(r"`([^`]+)`", row)}


def section(title: str) -> str:
    return GUIDE.partition(f"## {title}\n")[2].partition("\n## ")[0]


def test_every_reason_has_its_row() -> None:
    assert names(section("What closes the gate")) == {reason.value for reason in ReasonCode}


def test_every_judged_metric_has_its_allowance() -> None:
    part = section("What is compared")
    judged = {metric.value: spec.allowed for metric, spec in METRICS.items() if spec.allowed is not None}
    assert names(part) == set(judged)
    for line in part.splitlines():
        if line.startswith("| `"):
            for name in re.findall(r"`([^`]+)`", line.split("|")[1]):
                assert line.split("|")[-2].strip() == f"{100 * judged[name]:g}%"
    others = {metric.value for metric in METRICS} - set(judged)
    assert all(name.endswith(("-token-match", "-probability")) for name in others - {"efficacy-served"})
    assert "`efficacy-served`" in part


def test_what_nobody_can_override_is_named() -> None:
    said = section("Override").partition("Nobody can override")[2].partition(":")[0]
    assert set(re.findall(r"`([^`]+)`", said)) == {reason.value for reason in set(ReasonCode) - OVERRIDABLE}


def test_the_fewest_edits_are_told() -> None:
    assert f"Under {FEWEST} edits" in section("Noise and damage")
