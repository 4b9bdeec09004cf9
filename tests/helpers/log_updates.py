"""Updates and hashes of one weight, as a log holds them."""

from __future__ import annotations

from typing import Any

from editguard.reports.log.schema import SiteHashes, SiteUpdate, Update, Weights

__all__ = ["SITE", "make_one_site_update", "make_weights"]

SITE = "model.layers.9.mlp.down_proj"


def make_weights(*, kept: bool = False, path: str = SITE, **hashes: Any) -> Weights:
    """Return the hashes of one weight."""
    return Weights(sites={path: SiteHashes(**hashes)}, kept=kept)


def make_one_site_update(
    *, editor: str, needs_prefix: bool, update_norm: float | None, relative_norm: float | None, **figures: Any
) -> Update:
    """Return an update of one site of rank one."""
    site = SiteUpdate(layer=9, path=SITE, rank=1, update_norm=update_norm, relative_norm=relative_norm, **figures)
    return Update(
        editor=editor, needs_prefix=needs_prefix, update_norm=update_norm, relative_norm=relative_norm, changes=[site]
    )
