"""A forward pass with a low-rank update for each row of a batch, without writing any weight.

``(W + left right^T) k = W k + left (right^T k)``, so a hook on each site's module is enough.
The rows may have updates at different sites and of different ranks.
The result differs from the written edit by rounding.
So it may guide a search or a guess, and never judge: checks measure the weights themselves.
"""

from __future__ import annotations

from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    import torch

    from ..model.site import EditSite
    from ..model.site_change import SiteChange

__all__ = ["LowRankUpdate", "apply_updates"]


class LowRankUpdate(Protocol):
    """An update of one or more sites."""

    @property
    def changes(self) -> Sequence[SiteChange]:
        """The change of each site."""


@contextmanager
def apply_updates(updates: Sequence[LowRankUpdate]) -> Iterator[None]:
    """Compute row ``n`` of every batch as if ``updates[n]`` were written; a batch must have as many rows as there are updates."""
    changes_by_path: dict[str, list[SiteChange | None]] = {}
    for row, update in enumerate(updates):
        for change in update.changes:
            changes_by_path.setdefault(change.site.path, [None] * len(updates))[row] = change
    with ExitStack() as hooks:
        for changes in changes_by_path.values():
            site = next(change.site for change in changes if change is not None)
            hooks.callback(site.module.register_forward_hook(_make_hook(site, changes)).remove)
        yield


def _make_hook(site: EditSite, changes: Sequence[SiteChange | None]) -> Callable[..., torch.Tensor]:
    """Return the hook that adds the change of each row; a row without one gets zeros, as do the columns that it lacks."""
    import torch

    device, rank = site.weight.device, max(change.rank for change in changes if change is not None)
    left = torch.zeros(len(changes), site.d_model, rank)
    right = torch.zeros(len(changes), site.d_ff, rank)
    for row, change in enumerate(changes):
        if change is not None:
            left[row, :, : change.rank] = change.left.float()
            right[row, :, : change.rank] = change.right.float()
    left, right = left.to(device), right.to(device)

    def add(_: torch.nn.Module, args: tuple[torch.Tensor, ...], output: torch.Tensor) -> torch.Tensor:
        # Some families flatten their batch before the MLP.
        keys = args[0].reshape(len(changes), -1, site.d_ff).float()
        # The products keep fp32 where the checks' own are taken in another dtype.
        with torch.autocast(device.type, enabled=False):
            change = keys @ right @ left.transpose(1, 2)
        return output + change.reshape(output.shape).to(output.dtype)

    return add
