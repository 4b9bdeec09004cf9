"""The first token at the second position."""

from __future__ import annotations

import pytest
from editguard.audit.research.reproduction.cases import CaseKind, Cases
from editguard.audit.research.reproduction.experiments.first_token_position import _judge_collapse, shift_first_token
from editguard.audit.setup import Setup
from editguard.reports.reproduction.schema import Agreement

from .....helpers.reproduction_logs import (
    FIRST,
    build_cases,
    list_agreements,
    read_table,
)

pytestmark = pytest.mark.tiny


@pytest.mark.parametrize(
    ("ratios", "agrees"),
    [
        ([100.0] * 3, None),
        ([100.0] * 4, True),
        ([1.0] * 4, False),
        ([None] * 9 + [100.0], None),
        ([100.0] * 6 + [None] * 4, True),
        ([100.0] * 5 + [None] * 4, True),
        ([100.0] * 4 + [1.0] * 1 + [None] * 4, None),
        ([1.0] * 6 + [None] * 4, False),
    ],
)
def test_judge_collapse_majority_that_missing_edits_could_turn_is_open(
    ratios: list[float | None], agrees: bool | None
) -> None:
    expected = {None: Agreement.OPEN, True: Agreement.YES, False: Agreement.NO}[agrees]
    assert _judge_collapse(ratios, 1.5).agreement is expected


def test_shift_rotary_positions_move_no_key(setup: Setup, cases: Cases) -> None:
    experiment = shift_first_token(setup, cases, 1.5)
    table = read_table(experiment, "position-denominators").set_index("first token")
    assert table.loc["at the second position", "mean"] == pytest.approx(table.loc["as it is", "mean"], rel=1e-3)
    assert "Rotary" in experiment.notes[0]
    # What cannot move tells nothing.
    assert list_agreements(experiment) == [Agreement.OPEN]


def test_shift_learned_positions_edits_use_the_moved_keys(gpt2: Setup) -> None:
    experiment = shift_first_token(gpt2, build_cases(gpt2, dict.fromkeys(FIRST, CaseKind.FIRST)), 1.5)
    table = read_table(experiment, "position-perplexity").iloc[0]
    assert (table["cases"], table["measured and finite"]) == (5, 5)
    assert table["least"] > 0
