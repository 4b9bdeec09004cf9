"""Faults of the measurement itself: a finding that no probe made, under a source of its own.

Out of memory, keys that hold NaN or a plug-in that raises say nothing against the request.
Such a fault is logged under `MEASUREMENT_SOURCE`, which no probe may take as its name. It always refuses the edit.
A fault of the request (`RequestError`) stays with the probe ``well-formed``, whose card says how to correct a request.
"""

from __future__ import annotations

from .card import Card
from .errors import RequestError
from .probe import MEASUREMENT_SOURCE, Finding, Level

__all__ = ["MEASUREMENT_CARD", "fault_finding"]

MEASUREMENT_CARD = Card(
    question="Could the request be measured at all?",
    source="editguard itself: what was not measured is never a pass",
    needs="nothing",
    unit="none",
    range="none",
    threshold="none: every fault refuses the edit",
    action="Read the message. Free memory or use a smaller model where memory ran out; report a plug-in that raises to its "
    "author; load the model again where numbers are not finite. The request need not be wrong.",
)
"""Card of `MEASUREMENT_SOURCE`."""


def fault_finding(error: Exception, message: str | None = None) -> Finding:
    """Return the ERROR that `error` is logged as; `message` takes the place of its text."""
    source = "well-formed" if isinstance(error, RequestError) else MEASUREMENT_SOURCE
    return Finding(probe=source, level=Level.ERROR, message=str(error) if message is None else message)
