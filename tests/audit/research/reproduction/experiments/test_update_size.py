"""Sizes of the updates, from logs."""

from __future__ import annotations

import pytest
from editguard.audit.research.reproduction.cases import Cases
from editguard.audit.research.reproduction.edits import Edits
from editguard.audit.research.reproduction.experiments.update_size import compare_update_sizes

from .....helpers.reproduction_logs import (
    read_table,
)

pytestmark = pytest.mark.tiny


def test_update_size_table_holds_means_and_counts(cases: Cases, published: Edits) -> None:
    sizes = (
        read_table(compare_update_sizes(cases, published), "update-sizes")
        .query("editor == 'rome' and cases == 'first token'")
        .iloc[0]
    )
    assert (sizes["edits"], sizes["denominator, mean"], sizes["relative norm, largest"]) == (
        5,
        pytest.approx(0.01),
        20.0,
    )
