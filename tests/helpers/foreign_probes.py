"""Probes as another package brings them, entered by an entry point of the group ``editguard.probes``."""

from __future__ import annotations

from collections.abc import Mapping
from importlib.metadata import EntryPoint, EntryPoints, entry_points
from typing import ClassVar

import pytest
from editguard.probes import registry
from editguard.probes.card import Card
from editguard.probes.evidence import Evidence
from editguard.probes.probe import PROBES, CalibrationRule, Finding, Probe, ProbeInput

__all__ = ["KeyNorm", "NanThreshold", "NormRatio", "Undeclared", "install_probe", "key_norm"]


def key_norm(evidence: Evidence) -> float:
    """Return the norm of the key without a prefix."""
    return float(evidence.keys.no_prefix_key.norm())


class KeyNorm(Probe):
    """A calibrated probe that declares the figure that it decides by."""

    name = "key-norm"
    card = Card(
        question="Is the key unusually long?",
        source="a test",
        needs="the key with no prefix",
        unit="norm",
        range="0 upwards",
        threshold="calibrated: twice the 99 % quantile",
        action="Nothing.",
    )
    calibrated: ClassVar[Mapping[str, CalibrationRule]] = {
        "norm": CalibrationRule(
            read=key_norm, threshold=lambda quantiles: 2 * quantiles["0.99"], description="twice the 99 % quantile"
        )
    }
    figures = frozenset({"keys.no_prefix_key"})

    def examine(self, probe_input: ProbeInput) -> Finding:
        norm, threshold = key_norm(probe_input.evidence), probe_input.threshold(self.name, "norm")
        return self.finding(norm > threshold, f"the key's norm is {norm:.3g}", norm, threshold)


class Undeclared(KeyNorm):
    """A probe that does not declare the figures that it decides by."""

    figures = None


class NormRatio(KeyNorm):
    """A probe that decides by figures that few contexts do not bound."""

    figures = frozenset({"ratio", "norm_ratio", "distance_ratio"})


class NanThreshold(KeyNorm):
    """A probe whose rule gives no number."""

    calibrated: ClassVar[Mapping[str, CalibrationRule]] = {
        "norm": CalibrationRule(read=key_norm, threshold=lambda _: float("nan"), description="none")
    }


def install_probe(monkeypatch: pytest.MonkeyPatch, probe: type[Probe]) -> None:
    """Install `probe` for one test, as if a package with its entry point were installed."""
    entry = EntryPoint(probe.name, f"{probe.__module__}:{probe.__qualname__}", "editguard.probes")

    def with_probe(*, group: str) -> EntryPoints:
        installed = entry_points(group=group)
        return EntryPoints([*installed, entry]) if group == entry.group else installed

    monkeypatch.setattr(registry, "entry_points", with_probe)
    monkeypatch.setattr(PROBES, "_classes", {})
    monkeypatch.setattr(PROBES, "_loaded", False)
