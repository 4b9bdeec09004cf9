"""The gate over files: stored baselines, and the decision over two audits."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ..._lazy import lazy_names

if TYPE_CHECKING:
    from .evaluate import GateEvaluation as GateEvaluation
    from .evaluate import LoadedLog as LoadedLog
    from .evaluate import make_override as make_override
    from .evaluate import read_audit as read_audit
    from .evaluate import read_comparison_side as read_comparison_side
    from .evaluate import run_gate as run_gate
    from .evaluate import save_baseline as save_baseline

__all__, __getattr__, __dir__ = lazy_names(
    __name__,
    {
        "GateEvaluation": ".evaluate",
        "LoadedLog": ".evaluate",
        "read_comparison_side": ".evaluate",
        "make_override": ".evaluate",
        "read_audit": ".evaluate",
        "run_gate": ".evaluate",
        "save_baseline": ".evaluate",
    },
)
