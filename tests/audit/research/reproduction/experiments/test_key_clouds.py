"""Keys of collapse and ordinary cases as clouds."""

from __future__ import annotations

from dataclasses import replace

import pytest
from editguard.audit.research.reproduction.cases import CaseKind, Cases
from editguard.audit.research.reproduction.experiments.key_clouds import compare_distributions, place_first_tokens
from editguard.audit.setup import Setup
from editguard.reports.reproduction.schema import Agreement

from .....helpers.reproduction_logs import (
    FIRST,
    ORDINARY,
    build_cases,
    read_table,
)

pytestmark = pytest.mark.tiny


def test_distributions_are_compared_with_their_counts(setup: Setup, cases: Cases) -> None:
    experiment = compare_distributions(setup, cases)
    table = read_table(experiment, "key-separation")
    # Under the identity C^-1 k_bar is k_bar, and is not told twice.
    assert table["points of each"].tolist() == [5, 6]
    assert table["p-value"].between(0, 1).all()
    assert len(experiment.pictures) == 2
    assert experiment.claims[0].agreement is Agreement.OPEN, "of five pairs nothing is sure"
    assert compare_distributions(setup, cases) == experiment


def test_first_tokens_are_counted_between_the_clouds(setup: Setup, cases: Cases) -> None:
    experiment = place_first_tokens(setup, cases)
    table = read_table(experiment, "first-token-clusters").set_index("keys")
    contexts = len([prefix for prefix in setup.prefixes.prefixes if prefix.role.value == "key"]) - 1
    assert table["of"].to_dict() == {
        "collapse subjects, bare": 5,
        "ordinary subjects, bare": 6,
        "first tokens of ordinary prompts": 1,
        "collapse subjects after a prefix": 5 * contexts,
    }
    assert (table["nearer"] <= table["of"]).all()
    # All ordinary prompts begin with "The", whose key is one key, and one is too few to judge by.
    assert experiment.claims[0].agreement is Agreement.OPEN
    assert experiment.claims[1].agreement is not Agreement.OPEN


def test_key_clouds_subject_of_two_requests_is_one_point(setup: Setup, cases: Cases) -> None:
    again = replace(FIRST[0], id="first-again", prompt=f"{FIRST[0].subject} is a city in")
    kinds = dict.fromkeys((*FIRST, again), CaseKind.FIRST) | dict.fromkeys(ORDINARY, CaseKind.ORDINARY)
    twice = build_cases(setup, kinds)
    assert len(twice.select(CaseKind.FIRST)) == len(FIRST) + 1
    assert read_table(compare_distributions(setup, twice), "key-separation")["points of each"].tolist() == [5, 6]
    of = read_table(place_first_tokens(setup, twice), "first-token-clusters").set_index("keys")["of"]
    assert of["collapse subjects, bare"] == 5
