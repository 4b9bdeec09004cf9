"""Clouds of keys: when two of them lie apart."""

from __future__ import annotations

import pytest
from editguard.audit.research.reproduction.clouds import lie_apart
from editguard.probes.research.geometry import Separation

pytestmark = pytest.mark.tiny


def test_lie_apart_needs_enough_pairs_a_p_value_and_a_silhouette() -> None:
    def cloud(p_value: float, silhouette: float, points: int = 13) -> Separation:
        return Separation(
            energy_distance=1.0,
            p_value=p_value,
            permutations=999,
            silhouette=silhouette,
            first=points,
            second=points,
        )

    ordinary = cloud(0.5, 0.02, 100)
    assert lie_apart(cloud(0.001, 0.5), ordinary) is True
    assert lie_apart(cloud(0.2, 0.5), ordinary) is False
    assert lie_apart(cloud(0.001, 0.25), ordinary) is False
    assert lie_apart(cloud(0.001, 0.26), ordinary) is True
    assert lie_apart(cloud(0.001, 0.5), cloud(0.001, 0.3, 100)) is False, "nor do ordinary keys lie together there"
    # 7 pairs can be swapped in 128 ways, and two of those are always as far apart.
    assert lie_apart(cloud(0.02, 0.5, 7), ordinary) is None
    assert lie_apart(cloud(0.008, 0.5, 8), ordinary) is True
