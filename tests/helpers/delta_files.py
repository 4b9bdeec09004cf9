"""Deltas of tiny models, made as an editor would make an update."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import torch
from editguard.audit.delta.file import Delta, Factors
from editguard.audit.saved_model.manifest import DeltaManifest
from editguard.audit.transaction import Transaction
from editguard.probes.model.fingerprint import compute_fingerprint
from editguard.probes.model.site import EditSite, find_site
from editguard.probes.model.site_change import SiteChange
from transformers import PreTrainedModel

from .weight_updates import make_update

__all__ = ["change_left", "make_delta"]


def make_delta(
    model: PreTrainedModel,
    *layers: int,
    ranks: Sequence[int] = (),
    scale: float = 1.0,
    seed: int = 0,
    **changes: Any,
) -> Delta:
    """Return a random delta of `model` at `layers`, of rank one unless `ranks` says otherwise, as an audit would record it."""
    sites = [find_site(model, layer) for layer in layers or (0,)]
    draw = torch.Generator().manual_seed(seed)
    update = make_update(
        *(_make_change(site, rank, scale, draw) for site, rank in zip(sites, ranks or [1] * len(sites), strict=True))
    )
    with Transaction(update) as transaction:
        pass
    manifest = DeltaManifest(
        **{
            "editguard_version": "0.1.0",
            "created": "2026-01-01T00:00:00+00:00",
            "model": "tiny",
            "model_fingerprint": compute_fingerprint(model),
            "architecture": type(model).__name__,
            "dtype": str(sites[0].weight.dtype).removeprefix("torch."),
            "sites": [_describe_site(change, transaction) for change in update.changes],
            "id": f"edit-{seed}",
            "subject": "Chicago",
            "prompt": "Chicago is a twin city of",
            "target_new": "Istanbul",
            "editor": "rome",
            "reasons": [],
            "update_norm": 1.0,
            "relative_norm": 0.1,
            "needs_prefix": False,
            "families": {},
            "seed": 0,
            "statistics_sha256": "0" * 64,
            "policy_sha256": "0" * 64,
            "audit": {"log_sha256": "0" * 64, "verdict": "pass", "controls_ok": True},
        }
        | changes
    )
    return Delta(manifest, tuple(Factors(change.left, change.right) for change in update.changes))


def _make_change(site: EditSite, rank: int, scale: float, draw: torch.Generator) -> SiteChange:
    left, right = (torch.randn(size, rank, generator=draw, dtype=torch.float64) for size in (site.d_model, site.d_ff))
    return SiteChange(site=site, left=left * scale, right=right)


def _describe_site(change: SiteChange, transaction: Transaction) -> dict[str, Any]:
    site = change.site
    return {
        "layer": site.layer,
        "path": site.path.replace(f"{site.blocks_path}.{site.layer}.", f"{site.blocks_path}.{{layer}}.", 1),
        "orientation": site.orientation.value,
        "rank": change.rank,
        "weight_before": transaction.before[site.path],
        "weight_edited": transaction.edited[site.path],
        "update_norm": 1.0,
        "relative_norm": 0.1,
    }


def change_left(delta: Delta, change: Callable[[torch.Tensor], torch.Tensor]) -> Delta:
    """Return `delta` with `change` of the left factor of its first site."""
    first, *others = delta.factors
    return replace(delta, factors=(first._replace(left=change(first.left)), *others))
