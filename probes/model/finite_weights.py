"""Is every weight of a model a number? The texts of an audit may never meet a NaN in a row of the embedding."""

from __future__ import annotations

import torch

from ..errors import NotFinite

__all__ = ["require_finite_weights"]


def require_finite_weights(model: torch.nn.Module, ref: str) -> None:
    """Raise `NotFinite` at the first parameter of the model `ref` that holds NaN or Inf, and say where.

    Buffers are left out: masks hold infinities by design.
    """
    for name, weight in model.named_parameters():
        if not weight.is_floating_point() or bool(torch.isfinite(weight).all()):
            continue
        wrong = (~torch.isfinite(weight)).nonzero()
        raise NotFinite(
            f"The weight {name!r} of the model {ref!r} holds {len(wrong)} of {weight.numel()} values that are NaN or Inf, the "
            f"first at {wrong[0].tolist()}, so no edit of it can be judged; take sound weights, or another dtype."
        )
