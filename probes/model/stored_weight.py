"""A copy of the weight at an edit site, with its hash: what the weight is compared with, and what it is put back to."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

import torch

from .fingerprint import hash_tensor
from .site import Orientation

if TYPE_CHECKING:
    from .site import EditSite

__all__ = ["StoredWeight", "store_weight"]


@dataclass(frozen=True, kw_only=True, eq=False)
class StoredWeight:
    """The weight at `site` as it was when it was stored."""

    site: EditSite
    tensor: torch.Tensor
    """A copy in the module's own layout and dtype."""
    sha256: str
    """The hash of the weight itself, taken before it was copied."""

    @property
    def is_current(self) -> bool:
        """Whether the weight at the site has these values now."""
        return torch.equal(self.site.weight.detach(), self.tensor)

    def matrix(self, dtype: torch.dtype = torch.float32) -> torch.Tensor:
        """Return the map W as a copy [d_model, d_ff] in `dtype`, as `EditSite.matrix` does of the weight now."""
        tensor = self.tensor.T if self.site.orientation is Orientation.IN_OUT else self.tensor
        return tensor.to(dtype, copy=True, memory_format=torch.contiguous_format)

    @cached_property
    def norm(self) -> float:
        """||W||_F."""
        return float(self.matrix(torch.float64).norm())

    def distance(self) -> float:
        """Return ||W' - W||_F, W' being the weight now."""
        return float((self.site.matrix(torch.float64) - self.matrix(torch.float64)).norm())

    def relate(self, distance: float) -> float:
        """Return `distance` over ||W||_F; NaN or infinite for a weight of zeros."""
        if self.norm:
            return distance / self.norm
        return math.inf if distance else math.nan


def store_weight(site: EditSite) -> StoredWeight:
    """Return a copy of the weight at `site` as it is now."""
    return StoredWeight(site=site, sha256=hash_tensor(site.weight), tensor=site.weight.detach().clone())
