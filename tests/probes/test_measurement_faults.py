"""A fault of the measurement has a source of its own; a fault of the request stays with the probe that checks requests."""

from __future__ import annotations

import pytest
from editguard.probes.errors import InputError, NotFinite, OutOfMemory, RequestError
from editguard.probes.measurement_faults import MEASUREMENT_CARD, fault_finding
from editguard.probes.probe import MEASUREMENT_SOURCE, PROBES, Level, Probe

from ..helpers.foreign_probes import KeyNorm, install_probe


class Measurement(KeyNorm):
    """A foreign probe that takes the reserved name."""

    name = MEASUREMENT_SOURCE


@pytest.mark.parametrize(
    ("error", "source"),
    [
        (RequestError("a request"), "well-formed"),
        (NotFinite("a key"), MEASUREMENT_SOURCE),
        (OutOfMemory("a text"), MEASUREMENT_SOURCE),
        (ValueError("a plug-in"), MEASUREMENT_SOURCE),
    ],
)
def test_fault_finding_is_an_error_under_its_source(error: Exception, source: str) -> None:
    finding = fault_finding(error)
    assert (finding.probe, finding.level, finding.message) == (source, Level.ERROR, str(error))
    assert (finding.value, finding.threshold) == (None, None)


def test_fault_finding_with_a_message_has_that_message() -> None:
    assert fault_finding(ValueError("text"), "ValueError: text").message == "ValueError: text"


def test_measurement_card_describes_a_source_that_is_no_probe() -> None:
    assert MEASUREMENT_CARD.question.endswith("?")
    assert MEASUREMENT_CARD.incomplete() == ()
    assert MEASUREMENT_SOURCE not in PROBES.names()


def test_foreign_probe_of_the_measurement_source_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    probe: type[Probe] = Measurement
    install_probe(monkeypatch, probe)
    with pytest.raises(InputError, match=r"The name 'measurement' of .*\.Measurement is reserved"):
        PROBES.names()
