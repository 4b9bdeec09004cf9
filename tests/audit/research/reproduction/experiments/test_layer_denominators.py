"""Medians of denominators and key shifts at every layer."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from editguard.audit.research.reproduction.cases import Cases
from editguard.audit.research.reproduction.experiments.layer_denominators import compare_layers
from editguard.audit.research.reproduction.layer_shifts import load_or_measure_shifts
from editguard.audit.setup import Setup
from editguard.probes.keys.corpus_statistics import compute_statistics, read_corpus

from .....helpers.reproduction_logs import (
    read_table,
)
from .....helpers.tiny_setups import SENTENCES

pytestmark = pytest.mark.tiny


def test_compare_layers_every_layer_has_its_medians(setup: Setup, cases: Cases, tmp_path: Path) -> None:
    (tmp_path / "text.txt").write_text("\n".join(SENTENCES * 40), encoding="utf-8")
    corpus = read_corpus(str(tmp_path / "text.txt"))
    own = replace(setup, statistics=compute_statistics(setup.lm, setup.site, corpus))
    shifts = load_or_measure_shifts(
        own, cases, str(tmp_path / "text.txt"), path=tmp_path / "layers.json", stamp={}, progress=lambda *_: None
    )
    experiment = compare_layers(own, cases, shifts)
    table = read_table(experiment, "layer-medians")
    assert table["layer"].tolist() == list(range(len(setup.site.blocks)))
    assert "text.txt" in experiment.notes[0]
    heat = experiment.pictures[0]
    assert heat.kind == "heat"
    assert heat.z[0] == table["|u·k_u|, first token"].tolist()
