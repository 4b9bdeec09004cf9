"""Measures of how one tensor differs between two checkpoints: how far it moved, and the rank of the change.

An edit of the ROME family adds a matrix of rank one, in some precision.
The file then holds ``round(W + Delta)``.
Rounding moves each entry by at most half a unit in the last place of the sum.
It moves the update by as much again where the update was cast first.
The best matrix of rank one misses the change by no more than the norm of those halves (Eckart and Young 1936).
The determined rank of a change is the smallest one that misses it by no more than this bound.
It is 0 for a change that is itself within the bound, which could be rounding alone.

A base in another dtype than the edited file is rounded to the edited dtype first.
What is equal then was cast, and is no change.
What differs was changed by ``W' - round(W)``, and the bound counts the rounding of W as well.

Source of the effective rank: Roy and Vetterli, "The effective rank" (2007): exp of the entropy of the singular values.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from enum import StrEnum

import torch

__all__ = [
    "MOST_VECTORS",
    "Rank",
    "Spectrum",
    "TensorChange",
    "compare_tensors",
    "compute_rounding_bound",
    "compute_spectrum",
    "has_same_bits",
    "round_to",
]

_FULL = 2048
"""Smaller side up to which all singular values are computed."""
MOST_VECTORS = 32
"""Singular values that are computed of larger matrices, and vectors that are kept of any."""
_SLACK = 1.01


class Rank(StrEnum):
    """The rank of a change as far as rounding lets it be determined."""

    ONE = "one"
    MORE = "more"
    WITHIN_ROUNDING = "within rounding"


@dataclass(frozen=True, kw_only=True)
class Spectrum:
    """Singular values of a change, in short."""

    effective: float
    """1 to the smaller side; of a large matrix a lower bound, over its leading values alone."""
    first_share: float
    """Share of the squared norm that the first singular value has."""
    rank: Rank
    determined: int | None
    """The smallest rank that explains the change but for rounding, 0 within rounding; None where it is over the values that were
    computed."""
    exact: bool
    """False where only the leading singular values were computed, by a randomised method."""
    left: torch.Tensor
    """First left singular vector [rows]."""
    right: torch.Tensor
    """First right singular vector [columns]."""
    row_space: torch.Tensor
    """Leading right singular vectors [n, columns], as many as the determined rank; the first alone where that is over 32."""
    column_space: torch.Tensor
    """As many leading left singular vectors [n, rows]."""


@dataclass(frozen=True, kw_only=True)
class TensorChange:
    """How one tensor moved."""

    norm: float
    """||W' - W||_F; NaN where an entry of either is."""
    relative: float
    """Over ||W||_F."""
    largest: float
    """Largest absolute change of an entry."""
    share: float
    """Share of entries that changed."""
    within_rounding: bool
    """Whether rounding alone could have made the change; False for whole numbers and for NaN."""
    spectrum: Spectrum | None
    """Of a matrix with finite entries; None of anything else."""


def has_same_bits(first: torch.Tensor, second: torch.Tensor) -> bool:
    """Return whether two tensors agree in dtype, shape and every bit; NaN equals itself."""
    if first.dtype != second.dtype or first.shape != second.shape:
        return False
    return torch.equal(*(tensor.contiguous().reshape(-1).view(torch.uint8) for tensor in (first, second)))


def round_to(tensor: torch.Tensor, dtype: torch.dtype) -> torch.Tensor:
    """Return `tensor` rounded to `dtype`, as a save in that dtype has it; as it stands where either holds no fractions."""
    return tensor.to(dtype) if tensor.is_floating_point() and dtype.is_floating_point else tensor


def compare_tensors(base: torch.Tensor, edited: torch.Tensor) -> TensorChange:
    """Return how `edited` differs from `base` rounded to its dtype; computed in float64, the rank of matrices too.

    Both have one shape.
    """
    rounded = round_to(base, edited.dtype)
    before = rounded.double()
    whole = float(before.norm())
    change = edited.double() - before
    del before
    norm = float(change.norm())
    rounds = math.isfinite(norm) and edited.is_floating_point()
    measured = rounds and norm > 0
    cast = [] if base.dtype == edited.dtype else [rounded]
    bound = compute_rounding_bound(edited, change, *cast) if measured else 0.0
    return TensorChange(
        norm=norm,
        relative=norm / whole if whole else math.inf if norm else 0.0,
        largest=float(change.abs().max()) if change.numel() else 0.0,
        share=float((change != 0).double().mean()) if change.numel() else 0.0,
        within_rounding=rounds and norm <= _SLACK * bound,
        spectrum=compute_spectrum(change, bound) if measured and change.ndim == 2 else None,
    )


def compute_rounding_bound(edited: torch.Tensor, *others: torch.Tensor) -> float:
    """Return the largest norm that rounding to `edited`'s dtype can have, of the sum and of all that was cast before it."""
    kind = torch.finfo(edited.dtype)
    bound = 0.0
    for tensor in (edited, *others):
        # frexp writes x = m 2^e with m in [0.5, 1), so that 2^(e-1) is the power of two below x; 0 has none.
        exponent = torch.frexp(tensor.double()).exponent - 1
        unit = (torch.exp2(exponent.double()) * kind.eps).clamp(min=kind.tiny * kind.eps)
        bound += float(torch.where(tensor == 0, kind.tiny * kind.eps, unit).norm()) / 2
    return bound


def compute_spectrum(change: torch.Tensor, bound: float) -> Spectrum:
    """Return the spectrum of a matrix whose entries were moved by rounding of norm `bound` at most."""
    exact = min(change.shape) <= _FULL
    if exact:
        u, values, rows = torch.linalg.svd(change, full_matrices=False)
        missed = 0.0
    else:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            u, values, v = torch.svd_lowrank(change, q=MOST_VECTORS, niter=4)
        rows = v.T
        missed = float((change - (u * values) @ rows).norm())
    norm = float(change.norm())
    determined = _determine_rank(values, missed, norm, _SLACK * bound)
    shares = values[values > 0] / values.sum()
    effective = float(torch.exp(-(shares * shares.log()).sum()))
    few = determined if determined is not None and determined <= MOST_VECTORS else 1
    return Spectrum(
        effective=effective,
        first_share=float(values[0] / norm) ** 2,
        rank=Rank.WITHIN_ROUNDING if determined == 0 else Rank.ONE if determined == 1 else Rank.MORE,
        determined=determined,
        exact=exact,
        left=u[:, 0].clone(),
        right=rows[0].clone(),
        row_space=rows[: max(few, 1)].clone(),
        column_space=u[:, : max(few, 1)].T.clone(),
    )


def _determine_rank(values: torch.Tensor, missed: float, norm: float, bound: float) -> int | None:
    """Return the smallest n whose best matrix of rank n misses the change by `bound` at most (Eckart and Young).

    `values` are the leading singular values, and `missed` is the norm of what they leave out.
    """
    if norm <= bound:
        return 0
    squares = torch.cat([values.square().flip(0).cumsum(0).flip(0)[1:], values.new_zeros(1)])
    rests = (squares + missed**2).sqrt()
    enough = (rests <= bound).nonzero()
    return int(enough[0]) + 1 if len(enough) else None
