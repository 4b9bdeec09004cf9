"""Measures of how far two clouds of keys lie apart, with a test of chance, and the plane for their picture.

1. The caller normalizes the points where only their direction counts (`normalize_rows`).
   C^-1 k_bar and k_u have different scales.
2. `measure_separation` measures two clouds in all their dimensions.
3. `project_to_plane` projects them for the picture.

No measure uses the plane: it keeps neighbours and loses distances.

Source: the pictures are those of "The Fall of ROME" (arXiv 2406.11263).
The measure is the energy statistic of Székely and Rizzo, "Energy statistics: A class of statistics based on distances"
(2013), section 2.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum

import torch
from torch import Tensor

from ..errors import InputError, NotFinite

__all__ = [
    "Projection",
    "Separation",
    "compute_energy_distance",
    "count_nearer",
    "measure_separation",
    "normalize_rows",
    "project_to_plane",
]

_TIE = 1e-12
"""Share of the largest distance within which two energies count as equal: the rounding of their sums is far below it."""
_PERPLEXITY = 30.0


class Projection(Enum):
    """How points are laid into a plane."""

    PCA = "pca"
    """The two directions of largest variance: distances are kept as well as a plane can."""
    TSNE = "t-sne"
    """Neighbours stay neighbours; distances between groups mean nothing."""


@dataclass(frozen=True, kw_only=True)
class Separation:
    """How far two clouds lie apart."""

    energy_distance: float
    """In the unit of the points; 0 where both are the same."""
    p_value: float
    """Of the permutation test: (b + 1) / (n + 1), b of n permutations being as far apart."""
    permutations: int
    silhouette: float
    """Mean silhouette over the points of both, -1..1: near 1 where each point is nearer to its own cloud."""
    first: int
    """Points in the first cloud."""
    second: int


def normalize_rows(rows: Tensor) -> Tensor:
    """Return `rows` [n, d] at unit length in float64 on the CPU.

    Raises `NotFinite` for rows that are not finite and `InputError` for rows of length zero, which have no direction.
    """
    points = _to_points(rows)
    lengths = points.norm(dim=1, keepdim=True)
    if not bool((lengths > 0).all()):
        raise InputError(
            f"Row {int(lengths.flatten().argmin())} of {len(points)} is zero, and a point without length has no direction; "
            "leave it out."
        )
    unit: Tensor = points / lengths
    return unit


def compute_energy_distance(first: Tensor, second: Tensor) -> float:
    """Return 2 E|X - Y| - E|X - X'| - E|Y - Y'| of two clouds [n, d] and [m, d], with Euclidean distances in float64.

    It is the V-statistic: means over all n * m, n * n and m * m pairs, each point with itself included.
    So it is never negative, and zero only for equal clouds.
    For few points in many dimensions it is well above zero even where both clouds come from one distribution.
    Judge it by the p-value of `measure_separation`.
    Raises `InputError` for clouds that are empty or of different dimensions, `NotFinite` for points that are not finite.
    """
    distances = _compute_distances(first, second, least=1)
    return float(_compute_energies(distances, _compute_contrast(len(first), len(second))[None])[0])


def measure_separation(
    first: Tensor, second: Tensor, *, seed: int, permutations: int = 999, paired: bool = False
) -> Separation:
    """Return how far two clouds [n, d] and [m, d] lie apart, with a permutation test of "both are drawn from one".

    With `paired`, point i of one cloud belongs to point i of the other, and only these two change places.
    The test then ignores what the two have in common.
    The silhouette ignores it as well: it leaves a point's partner out of the other cloud.
    With the partner, small clouds would look nearer than large ones.

    Distances are Euclidean and computed once.
    Raises `InputError` for fewer than two points in a cloud, fewer than one
    permutation, or pairs of clouds of two sizes, `NotFinite` for points that are not finite.
    """
    if permutations < 1:
        raise InputError(f"{permutations} permutations give no p-value; give one at least, better 999.")
    distances = _compute_distances(first, second, least=2)
    contrast = _compute_contrast(len(first), len(second))
    observed = float(_compute_energies(distances, contrast[None])[0])
    generator = torch.Generator().manual_seed(seed)
    if paired:
        if len(first) != len(second):
            raise InputError(
                f"Clouds of {len(first)} and {len(second)} points are no pairs; give one for each of the other."
            )
        # Two points that change places change the signs of their weights.
        swapped = torch.rand(permutations, len(first), generator=generator, dtype=torch.float64) < 0.5
        permuted = _compute_energies(distances, contrast * torch.where(torch.cat([swapped, swapped], 1), -1.0, 1.0))
    else:
        # argsort of random numbers: one permutation a row.
        noise = torch.rand(permutations, len(contrast), generator=generator, dtype=torch.float64)
        permuted = _compute_energies(distances, contrast[noise.argsort(1)])
    as_far = int((permuted >= observed - _TIE * float(distances.max())).sum())
    return Separation(
        energy_distance=observed,
        p_value=(as_far + 1) / (permutations + 1),
        permutations=permutations,
        silhouette=_compute_paired_silhouette(distances) if paired else _compute_silhouette(distances, contrast < 0),
        first=len(first),
        second=len(second),
    )


def _compute_silhouette(distances: Tensor, second: Tensor) -> float:
    from sklearn.metrics import silhouette_score

    return float(silhouette_score(distances.numpy(), second.long().numpy(), metric="precomputed"))


def _compute_paired_silhouette(distances: Tensor) -> float:
    """Return the mean of (b - a) / max(a, b) for 2n points, the partner of point i being point i + n, or i - n.

    a is the mean distance to the n - 1 others of the point's cloud, b to the n - 1 others of the other cloud.
    """
    count = len(distances) // 2
    own, other = (
        torch.cat([distances[:count, first], distances[count:, second]])
        for first, second in ((slice(count), slice(count, None)), (slice(count, None), slice(count)))
    )
    partners = torch.cat([other.diagonal(), other[count:].diagonal()])
    a, b = own.sum(1) / (count - 1), (other.sum(1) - partners) / (count - 1)
    most = torch.maximum(a, b)
    return float(torch.where(most > 0, (b - a) / most, torch.zeros_like(most)).mean())


def project_to_plane(rows: Tensor, *, method: Projection, seed: int) -> Tensor:
    """Return a picture of points [n, d] in the plane, [n, 2] in float64, the same for the same seed.

    Raises `InputError` for fewer than four points or two dimensions, `NotFinite` for points that are not finite.
    """
    points = _to_points(rows)
    if len(points) < 4 or points.shape[1] < 2:
        raise InputError(
            f"Points of shape {list(points.shape)} make no picture; at least 4 points of 2 dimensions are needed: give more."
        )
    return _project_by_pca(points, seed) if method is Projection.PCA else _project_by_tsne(points, seed)


def count_nearer(points: Tensor, centre: Tensor, other: Tensor) -> int:
    """Return how many of `points` [n, d] lie nearer, by cosine, to the mean of `centre` than to the mean of `other`."""
    unit = normalize_rows(points)
    towards, away = (normalize_rows(_to_points(cloud).mean(0, keepdim=True))[0] for cloud in (centre, other))
    return int((unit @ towards > unit @ away).sum())


def _to_points(rows: Tensor) -> Tensor:
    if rows.ndim != 2 or 0 in rows.shape:
        raise InputError(f"Points of shape {list(rows.shape)} are no cloud; give [points, dimensions].")
    points = rows.detach().double().cpu()
    broken = int((~torch.isfinite(points).all(1)).sum())
    if broken:
        raise NotFinite(f"{broken} of {len(points)} points hold NaN or Inf, so no distance is known; find out why.")
    return points


def _compute_distances(first: Tensor, second: Tensor, least: int) -> Tensor:
    """Distances [n + m, n + m] between all points of both clouds."""
    if min(len(first), len(second)) < least:
        raise InputError(
            f"Clouds of {len(first)} and {len(second)} points cannot be compared; at least {least} in each are needed."
        )
    clouds = _to_points(first), _to_points(second)
    if clouds[0].shape[1] != clouds[1].shape[1]:
        raise InputError(
            f"Points of {clouds[0].shape[1]} and of {clouds[1].shape[1]} dimensions have no distance; take both clouds from "
            "one layer."
        )
    pooled = torch.cat(clouds)
    # The faster way over a matrix product loses half of the digits where points lie close together.
    return torch.cdist(pooled, pooled, compute_mode="donot_use_mm_for_euclid_dist")


def _compute_contrast(first: int, second: int) -> Tensor:
    """Weights w [n + m], 1/n and -1/m, for which the energy distance is -w^T D w."""
    weights = (
        torch.full((first,), 1 / first, dtype=torch.float64),
        torch.full((second,), -1 / second, dtype=torch.float64),
    )
    return torch.cat(weights)


def _compute_energies(distances: Tensor, contrasts: Tensor) -> Tensor:
    return -((contrasts @ distances) * contrasts).sum(1)


def _project_by_pca(points: Tensor, seed: int) -> Tensor:
    from sklearn.decomposition import PCA

    fitted = PCA(n_components=2, svd_solver="full", random_state=seed)
    coordinates = torch.from_numpy(fitted.fit_transform(points.numpy()))
    axes = torch.from_numpy(fitted.components_)
    # The sign of a singular vector is arbitrary; fix it so that two runs draw the same picture.
    return coordinates * torch.sign(axes.gather(1, axes.abs().argmax(1, keepdim=True)))[:, 0]


def _project_by_tsne(points: Tensor, seed: int) -> Tensor:
    from sklearn.manifold import TSNE

    perplexity = min(_PERPLEXITY, (len(points) - 1) / 3)
    # Exact: the approximate one adds up in threads, in no order that two runs share.
    fitted = TSNE(n_components=2, perplexity=perplexity, init="pca", method="exact", random_state=seed)
    return torch.from_numpy(fitted.fit_transform(points.numpy())).double()
