"""Deltas of tiny models, made as an editor would make an update."""

from __future__ import annotations

from typing import Any

import torch
from editguard.audit.delta.file import Delta
from editguard.audit.saved_model.manifest import DeltaManifest
from editguard.audit.transaction import Transaction
from editguard.probes.model.fingerprint import compute_fingerprint
from editguard.probes.model.site import find_site
from transformers import PreTrainedModel

__all__ = ["make_delta"]


def make_delta(model: PreTrainedModel, layer: int = 0, *, scale: float = 1.0, seed: int = 0, **changes: Any) -> Delta:
    """Return a random rank-one delta of `model`, with what an audit of it would have recorded."""
    site = find_site(model, layer)
    draw = torch.Generator().manual_seed(seed)
    left, right = (torch.randn(size, generator=draw, dtype=torch.float64) for size in (site.d_model, site.d_ff))
    bare = Delta(None, left * scale, right)  # type: ignore[arg-type]
    with Transaction(site, bare) as transaction:
        pass
    manifest = DeltaManifest(
        **{
            "editguard_version": "0.1.0",
            "created": "2026-01-01T00:00:00+00:00",
            "model": "tiny",
            "model_fingerprint": compute_fingerprint(model),
            "architecture": type(model).__name__,
            "dtype": str(site.weight.dtype).removeprefix("torch."),
            "site": site.path.replace(f"{site.blocks_path}.{layer}.", f"{site.blocks_path}.{{layer}}.", 1),
            "layer": layer,
            "orientation": site.orientation.value,
            "weight_before": transaction.before,
            "weight_edited": transaction.edited,
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
    return Delta(manifest, bare.left, bare.right)
