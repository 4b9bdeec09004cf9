"""A forward pass with a rank-one update for each row of a batch, without writing any weight.

``(W + left right^T) k = W k + left (right . k)``, so a hook on the site's module is enough.
The result differs from the written edit by rounding.
So it may guide a search or a guess, and never judge: checks measure the weights themselves.
"""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    import torch

    from ..model.site import EditSite

__all__ = ["RankOne", "apply_updates"]


class RankOne(Protocol):
    """An update ``left right^T``."""

    @property
    def left(self) -> torch.Tensor:
        """[d_model]."""

    @property
    def right(self) -> torch.Tensor:
        """[d_ff]."""


@contextmanager
def apply_updates(site: EditSite, updates: Sequence[RankOne]) -> Iterator[None]:
    """Compute row ``n`` of every batch as if ``updates[n]`` were written; a batch must have as many rows as there are updates."""
    import torch

    weight = site.weight
    left = torch.stack([update.left for update in updates]).to(weight.device, torch.float32)
    right = torch.stack([update.right for update in updates]).to(weight.device, torch.float32)

    def add(_: torch.nn.Module, args: tuple[torch.Tensor, ...], output: torch.Tensor) -> torch.Tensor:
        # Some families flatten their batch before the MLP.
        keys = args[0].reshape(len(updates), -1, right.shape[-1]).float()
        change = (keys * right[:, None]).sum(-1, keepdim=True) * left[:, None]
        return output + change.reshape(output.shape).to(output.dtype)

    handle = site.module.register_forward_hook(add)
    try:
        yield
    finally:
        handle.remove()
