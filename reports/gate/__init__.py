"""What the gate compares: baselines, metrics, allowances, and the decision over them."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ..._lazy import lazy_names

if TYPE_CHECKING:
    from .decision import FEWEST as FEWEST
    from .decision import close_unread as close_unread
    from .decision import judge_gate as judge_gate
    from .decision import regressed as regressed

__all__, __getattr__, __dir__ = lazy_names(
    __name__,
    {
        "FEWEST": ".decision",
        "close_unread": ".decision",
        "judge_gate": ".decision",
        "regressed": ".decision",
    },
)
