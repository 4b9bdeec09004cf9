"""Cards say which of their fields are empty, and every card of every registry is complete."""

from __future__ import annotations

from dataclasses import fields, replace

import pytest
from editguard.probes.card import Card
from editguard.probes.probe import PROBES
from editguard.suites.check import CHECKS

WHOLE = Card("asks?", "paper", "keys", "none", "0 to 1", "0.5, because", "do this")
NAMES = [field.name for field in fields(Card)]
CARDS = {f"{kind.kind}/{name}": cls for kind in (PROBES, CHECKS) for name, cls in kind}


def test_a_whole_card_lacks_nothing() -> None:
    assert WHOLE.incomplete() == ()


@pytest.mark.parametrize("empty", ["", " \n"])
@pytest.mark.parametrize("name", NAMES)
def test_an_empty_field_is_named(name: str, empty: str) -> None:
    assert replace(WHOLE, **{name: empty}).incomplete() == (name,)
    assert Card(*[empty] * len(NAMES)).incomplete() == tuple(NAMES)


def test_the_registries_hold_what_the_house_promises() -> None:
    assert set(PROBES.names()) >= {"first-token", "key-shift", "denominator", "sink-key", "well-formed"}
    assert set(CHECKS.names()) >= {"perplexity", "efficacy", "generalization", "locality", "degeneracy", "drift"}


@pytest.mark.parametrize("name", CARDS)
def test_every_card_is_complete_and_every_class_knows_its_name(name: str) -> None:
    cls = CARDS[name]
    assert cls.card.incomplete() == ()
    assert cls.card.question.endswith("?")
    assert f"/{cls.name}" in name
    assert (cls.__doc__ or "").strip()
