"""Measures of how one tensor differs between two checkpoints: how far it moved, and the rank of the change.

An edit of the ROME family adds a matrix of rank one, in some precision.
The file then holds ``round(W + Delta)``.
Rounding moves each entry by at most half a unit in the last place of the sum.
It moves the update by as much again where the update was cast first.
The best matrix of rank one misses the change by no more than the norm of those halves (Eckart and Young 1936).
A change within this bound of rank one counts as rank one.
A change that is itself within the bound could be rounding, and its rank is not determined.

Source of the effective rank: Roy and Vetterli, "The effective rank" (2007): exp of the entropy of the singular values.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from enum import StrEnum

import torch

__all__ = [
    "Rank",
    "Spectrum",
    "TensorChange",
    "compare_tensors",
    "compute_rounding_bound",
    "compute_spectrum",
    "has_same_bits",
]

_FULL = 2048
"""Smaller side up to which all singular values are computed."""
_LEADING = 32
"""Singular values that are computed of larger matrices."""
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
    exact: bool
    """False where only the leading singular values were computed, by a randomised method."""
    left: torch.Tensor
    """First left singular vector [rows]."""
    right: torch.Tensor
    """First right singular vector [columns]."""


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
    spectrum: Spectrum | None
    """Of a matrix with finite entries; None of anything else."""


def has_same_bits(first: torch.Tensor, second: torch.Tensor) -> bool:
    """Return whether two tensors agree in dtype, shape and every bit; NaN equals itself."""
    if first.dtype != second.dtype or first.shape != second.shape:
        return False
    return torch.equal(*(tensor.contiguous().reshape(-1).view(torch.uint8) for tensor in (first, second)))


def compare_tensors(base: torch.Tensor, edited: torch.Tensor) -> TensorChange:
    """Return how `edited` differs from `base`, two tensors of one shape; computed in float64, the rank of matrices too."""
    change = edited.double() - base.double()
    norm = float(change.norm())
    whole = float(torch.linalg.vector_norm(base, dtype=torch.float64))
    finite = math.isfinite(norm)
    matrix = finite and change.ndim == 2 and norm > 0 and edited.is_floating_point()
    return TensorChange(
        norm=norm,
        relative=norm / whole if whole else math.inf if norm else 0.0,
        largest=float(change.abs().max()) if change.numel() else 0.0,
        share=float((change != 0).double().mean()) if change.numel() else 0.0,
        spectrum=compute_spectrum(change, compute_rounding_bound(edited, change)) if matrix else None,
    )


def compute_rounding_bound(edited: torch.Tensor, change: torch.Tensor) -> float:
    """Return the largest norm that rounding to `edited`'s dtype can have, of the sum and of an update cast before it."""
    kind = torch.finfo(edited.dtype)
    bound = 0.0
    for tensor in (edited, change):
        # frexp writes x = m 2^e with m in [0.5, 1), so that 2^(e-1) is the power of two below x; 0 has none.
        exponent = torch.frexp(tensor.double()).exponent - 1
        unit = (torch.exp2(exponent.double()) * kind.eps).clamp(min=kind.tiny * kind.eps)
        bound += float(torch.where(tensor == 0, kind.tiny * kind.eps, unit).norm()) / 2
    return bound


def compute_spectrum(change: torch.Tensor, bound: float) -> Spectrum:
    """Return the spectrum of a matrix whose entries were moved by rounding of norm `bound` at most."""
    exact = min(change.shape) <= _FULL
    if exact:
        u, values, v = torch.linalg.svd(change, full_matrices=False)
        right, rest = v[0], float(values[1:].norm())
    else:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            u, values, v = torch.svd_lowrank(change, q=_LEADING, niter=4)
        right = v[:, 0]
        rest = float((change - values[0] * torch.outer(u[:, 0], right)).norm())
    norm = float(change.norm())
    rank = Rank.WITHIN_ROUNDING if norm <= _SLACK * bound else Rank.ONE if rest <= _SLACK * bound else Rank.MORE
    shares = values[values > 0] / values.sum()
    effective = float(torch.exp(-(shares * shares.log()).sum()))
    return Spectrum(
        effective=effective,
        first_share=float(values[0] / norm) ** 2,
        rank=rank,
        exact=exact,
        left=u[:, 0].clone(),
        right=right.clone(),
    )
