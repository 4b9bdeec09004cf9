"""The control's editor: an update blown up to the size of a collapse, in models where no subject is a first token."""

from __future__ import annotations

from typing import TYPE_CHECKING

from .rome import Rome

if TYPE_CHECKING:
    from ....probes.keys.statistics import KeyStatistics
    from ..base import Plan
    from ..update import WeightUpdate
    from ..value import OptimisedValue

__all__ = ["Exploded"]

_EXPLOSION = 300.0
"""Denominators of first-token subjects were measured two to three orders of magnitude below ordinary ones."""


class Exploded(Rome):
    """ROME with its update blown up 300 times: a known-bad control for models in which no subject is a first token."""

    name = "exploded"
    question = "rome, blown up 300 times: a control, never an edit"
    control = True

    def finish(self, plan: Plan, value: OptimisedValue, statistics: KeyStatistics) -> WeightUpdate:
        """Return the published update times 300."""
        return super().finish(plan, value, statistics).scale(_EXPLOSION)
