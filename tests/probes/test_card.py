"""Cards say which of their fields are empty, and every card of every registry is complete."""

from __future__ import annotations

from dataclasses import fields, replace

import pytest
from editguard.probes.card import Card
from editguard.probes.probe import PROBES
from editguard.suites.check import CHECKS

WHOLE = Card(
    question="asks?",
    source="paper",
    needs="keys",
    unit="none",
    range="0 to 1",
    threshold="0.5, because",
    action="do this",
)
NAMES = [field.name for field in fields(Card)]
CARDS = {f"{kind.kind}/{name}": cls for kind in (PROBES, CHECKS) for name, cls in kind}


def test_card_that_is_complete_has_no_empty_field() -> None:
    assert WHOLE.incomplete() == ()


@pytest.mark.parametrize("empty", ["", " \n"])
@pytest.mark.parametrize("name", NAMES)
def test_card_with_an_empty_field_names_it(name: str, empty: str) -> None:
    assert replace(WHOLE, **{name: empty}).incomplete() == (name,)
    assert Card(**dict.fromkeys(NAMES, empty)).incomplete() == tuple(NAMES)


def test_registries_hold_the_documented_probes_and_checks() -> None:
    assert set(PROBES.names()) >= {"first-token", "key-shift", "denominator", "sink-key", "well-formed"}
    assert set(CHECKS.names()) >= {"perplexity", "efficacy", "generalization", "locality", "degeneracy", "drift"}


@pytest.mark.parametrize("name", CARDS)
def test_card_of_every_plugin_is_complete_and_its_class_has_its_name(name: str) -> None:
    cls = CARDS[name]
    assert cls.card.incomplete() == ()
    assert cls.card.question.endswith("?")
    assert f"/{cls.name}" in name
    assert (cls.__doc__ or "").strip()
