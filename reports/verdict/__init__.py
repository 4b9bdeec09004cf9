"""From a log to its verdict: digest, reasons, summary, and the story of each edit."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ..._lazy import lazy_names

if TYPE_CHECKING:
    from .reasons import control_fault as control_fault
    from .reasons import fail_reasons as fail_reasons
    from .reasons import incomplete_reasons as incomplete_reasons
    from .reasons import may_ship as may_ship
    from .reasons import not_controlled as not_controlled
    from .reasons import pass_reason as pass_reason
    from .reasons import ship_reasons as ship_reasons
    from .reasons import void_reasons as void_reasons

__all__, __getattr__, __dir__ = lazy_names(
    __name__,
    {
        "control_fault": ".reasons",
        "fail_reasons": ".reasons",
        "incomplete_reasons": ".reasons",
        "may_ship": ".reasons",
        "not_controlled": ".reasons",
        "pass_reason": ".reasons",
        "ship_reasons": ".reasons",
        "void_reasons": ".reasons",
    },
)
