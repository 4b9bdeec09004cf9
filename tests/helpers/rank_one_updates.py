"""Random updates of rank one, the dtypes that weights have, and an error that is no `Exception`."""

from __future__ import annotations

import torch
from editguard.audit.editors.base import RankOneUpdate
from editguard.probes.model.site import EditSite

__all__ = ["DTYPES", "Stopped", "rank_one"]

DTYPES = (torch.float32, torch.bfloat16, torch.float16)


class Stopped(BaseException):
    """Like KeyboardInterrupt, not an Exception."""


def rank_one(site: EditSite, scale: float = 1.0, seed: int = 0) -> RankOneUpdate:
    """Return a random update of the weight at `site`."""
    generator = torch.Generator().manual_seed(seed)
    left = torch.randn(site.d_model, generator=generator, dtype=torch.float64) * scale
    right = torch.randn(site.d_ff, generator=generator, dtype=torch.float64)
    return RankOneUpdate(
        left=left,
        right=right / right.norm(),
        editor="rome",
        numerator=1.0,
        denominator=1.0,
        start_norm=1.0,
        target_norm=1.0,
        steps=1,
        loss=0.0,
        engine="live",
        needs_prefix=False,
    )
