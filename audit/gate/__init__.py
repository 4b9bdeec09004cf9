"""The gate over files: stored baselines, and the decision over two audits."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ..._lazy import lazy_names

if TYPE_CHECKING:
    from .evaluate import Judged as Judged
    from .evaluate import ReadLog as ReadLog
    from .evaluate import audited as audited
    from .evaluate import overriding as overriding
    from .evaluate import read_audit as read_audit
    from .evaluate import run_gate as run_gate
    from .evaluate import save_baseline as save_baseline

__all__, __getattr__, __dir__ = lazy_names(
    __name__,
    {
        "Judged": ".evaluate",
        "ReadLog": ".evaluate",
        "audited": ".evaluate",
        "overriding": ".evaluate",
        "read_audit": ".evaluate",
        "run_gate": ".evaluate",
        "save_baseline": ".evaluate",
    },
)
