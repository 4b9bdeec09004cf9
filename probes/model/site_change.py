"""A low-rank change of the weight at one edit site, and how the sizes of changes at several sites add up.

An edit changes the weights of one or more sites. Each change is kept as two factors, so that it is small on disk and its
size is known before it is written. Out of scope: writing it (transactions), and the figures that explain it (editors).
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch

from ..errors import InputError

if TYPE_CHECKING:
    from collections.abc import Iterable

    from .site import EditSite

__all__ = ["SiteChange", "combine_norms", "sum_products"]


@dataclass(frozen=True, kw_only=True, eq=False)
class SiteChange:
    """The change ``Delta = left right^T`` of the weight at `site`. Raises `InputError` for factors that do not fit it."""

    site: EditSite
    left: torch.Tensor
    """[d_model, rank], float64 on the CPU."""
    right: torch.Tensor
    """[d_ff, rank], float64 on the CPU."""

    def __post_init__(self) -> None:
        """Refuse factors of other shapes or another dtype."""
        shapes = tuple(self.left.shape), tuple(self.right.shape)
        rank = shapes[0][-1] if len(shapes[0]) == 2 else 0
        if rank < 1 or shapes != ((self.site.d_model, rank), (self.site.d_ff, rank)):
            raise InputError(
                f"The factors of a change of {self.site.path} have the shapes {list(shapes[0])} and {list(shapes[1])}, and must "
                f"have [{self.site.d_model}, rank] and [{self.site.d_ff}, rank]; give one column for each rank."
            )
        if {self.left.dtype, self.right.dtype} != {torch.float64}:
            raise InputError(
                f"The factors of a change of {self.site.path} are {self.left.dtype} and {self.right.dtype}, and the algebra of "
                "edits is float64; convert them."
            )

    @property
    def rank(self) -> int:
        """The number of columns of each factor."""
        return self.left.shape[1]

    @property
    def norm(self) -> float:
        """||Delta||_F, from the factors alone; NaN where a factor holds NaN or Inf."""
        # A decomposition may lose a NaN.
        if not all(bool(torch.isfinite(factor).all()) for factor in (self.left, self.right)):
            return math.nan
        # ||L R^T|| = ||T_L T_R^T|| with the triangles of their QR decompositions. Gram matrices would give the same, and
        # lose half of the digits where columns nearly cancel.
        left, right = (torch.linalg.qr(factor, mode="r").R for factor in (self.left, self.right))
        return float((left @ right.T).norm())

    def delta(self) -> torch.Tensor:
        """Return Delta [d_model, d_ff] in float64."""
        return sum_products(self.left, self.right)


def sum_products(left: torch.Tensor, right: torch.Tensor) -> torch.Tensor:
    """Return ``left right^T`` [d_model, d_ff] of factors [d_model, rank] and [d_ff, rank], to the same bits everywhere.

    A matrix product may order its sums as it likes, and the hash of an edited weight has to hold on another machine.
    """
    total = torch.outer(left[:, 0], right[:, 0])
    for column in range(1, left.shape[1]):
        total += torch.outer(left[:, column], right[:, column])
    return total


def combine_norms(norms: Iterable[float]) -> float:
    """Return the norm of changes at several sites taken together: the root of the sum of the squares of `norms`."""
    values = list(norms)
    # math.hypot finds infinity in (infinity, NaN), and what is not known is not known.
    return math.nan if any(map(math.isnan, values)) else math.hypot(*values)
