"""Random updates of one or more sites, the dtypes that weights have, and an error that is no `Exception`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TypeVar

import torch
from editguard.audit.edit_result import EditResult
from editguard.audit.editors.update import InsertionFigures, WeightUpdate
from editguard.audit.transaction import WeightHashes
from editguard.probes.model.site import EditSite
from editguard.probes.model.site_change import SiteChange

__all__ = [
    "DTYPES",
    "FIGURES",
    "Stopped",
    "get_only",
    "get_only_figures",
    "get_only_hashes",
    "make_change",
    "make_update",
    "rank_one",
    "scaled_update",
]

DTYPES = (torch.float32, torch.bfloat16, torch.float16)
FIGURES = InsertionFigures(
    numerator=1.0, denominator=1.0, start_norm=1.0, target_norm=1.0, steps=1, loss=0.0, engine="live"
)

Value = TypeVar("Value")


class Stopped(BaseException):
    """Like KeyboardInterrupt, not an Exception."""


def make_change(site: EditSite, rank: int = 1, *, scale: float = 1.0, seed: int = 0) -> SiteChange:
    """Return a random change of the weight at `site`; each column of its right factor is a unit vector."""
    generator = torch.Generator().manual_seed(seed)
    left = torch.randn(site.d_model, rank, generator=generator, dtype=torch.float64) * scale
    right = torch.randn(site.d_ff, rank, generator=generator, dtype=torch.float64)
    return SiteChange(site=site, left=left, right=right / right.norm(dim=0))


def make_update(*changes: SiteChange, needs_prefix: bool = False) -> WeightUpdate:
    """Return the update of these changes, by an editor that some say was rome."""
    return WeightUpdate(changes=changes, editor="rome", needs_prefix=needs_prefix, figures=(FIGURES,) * len(changes))


def rank_one(site: EditSite, scale: float = 1.0, seed: int = 0) -> WeightUpdate:
    """Return a random update of rank one of the weight at `site`."""
    return make_update(make_change(site, scale=scale, seed=seed))


def scaled_update(sites: Sequence[EditSite], ranks: Sequence[int], share: float, seed: int = 0) -> WeightUpdate:
    """Return a random update of `sites`, each change `share` times as large as the weight that it changes."""
    changes = []
    for index, (site, rank) in enumerate(zip(sites, ranks, strict=True)):
        change = make_change(site, rank, seed=seed + index)
        factor = share * float(site.matrix(torch.float64).norm()) / change.norm
        changes.append(make_change(site, rank, scale=factor, seed=seed + index))
    return make_update(*changes)


def get_only(values: Mapping[str, Value]) -> Value:
    """Return the value of the only site."""
    (value,) = values.values()
    return value


def get_only_hashes(result: EditResult) -> WeightHashes:
    """Return the hashes of the only site that an edit changed."""
    assert result.hashes is not None
    return get_only(result.hashes)


def get_only_figures(update: WeightUpdate) -> InsertionFigures:
    """Return the figures of the only site of an update."""
    (figures,) = update.figures
    assert figures is not None
    return figures
