"""Numbers of two clouds against brute force, scipy and known cases; pictures that two runs draw alike."""

from __future__ import annotations

import itertools
import math

import pytest
import torch
from editguard.probes.errors import InputError, NotFinite
from editguard.probes.research.geometry import (
    Projection,
    Separation,
    compute_energy_distance,
    count_nearer,
    measure_separation,
    normalize_rows,
    project_to_plane,
)
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats
from torch import Tensor

from ...helpers.examples import count_examples


def cloud(points: int, dimensions: int = 5, *, seed: int = 0, at: float = 0.0) -> Tensor:
    """Normal points around `at` in every dimension, fp32 as keys are."""
    return at + torch.randn(points, dimensions, generator=torch.Generator().manual_seed(seed))


def by_hand(first: Tensor, second: Tensor) -> float:
    """2 E|X - Y| - E|X - X'| - E|Y - Y'| over all pairs, one by one."""

    def mean(some: Tensor, others: Tensor) -> float:
        return sum(math.dist(a, b) for a in some.tolist() for b in others.tolist()) / len(some) / len(others)

    return 2 * mean(first, second) - mean(first, first) - mean(second, second)


# Energy distance


def test_energy_distance_equals_a_double_loop() -> None:
    first, second = cloud(7), cloud(11, seed=1, at=0.5)
    assert compute_energy_distance(first, second) == pytest.approx(by_hand(first, second), rel=1e-12)
    assert compute_energy_distance(second, first) == pytest.approx(compute_energy_distance(first, second), rel=1e-12)


numbers = st.lists(st.floats(-1e3, 1e3, allow_subnormal=False), min_size=1, max_size=8)


@settings(max_examples=count_examples(60), deadline=None)
@given(numbers, numbers)
def test_energy_distance_on_a_line_is_the_square_of_scipys(first: list[float], second: list[float]) -> None:
    # In one dimension 2 E|X - Y| - E|X - X'| - E|Y - Y'| = 2 times the integral of (F - G)^2 over the two distribution
    # functions; scipy returns the square root of that.
    ours = compute_energy_distance(*(torch.tensor(values, dtype=torch.float64)[:, None] for values in (first, second)))
    assert ours == pytest.approx(stats.energy_distance(first, second) ** 2, rel=1e-9, abs=1e-9)


def test_energy_distance_close_points_keep_their_digits() -> None:
    points = cloud(40)
    assert compute_energy_distance(points, points.flip(0)) == pytest.approx(0, abs=1e-12)
    # 40 points far from the origin, a millionth apart: a distance through a matrix product would be all rounding.
    near = 1e4 + 1e-6 * points.double()
    assert compute_energy_distance(near, near + 1e-6) == pytest.approx(1e-6 * by_hand(points, points + 1), rel=1e-3)


# Separation


def test_separation_shifted_clouds_are_apart_and_not_by_chance() -> None:
    first, second = cloud(30), cloud(20, seed=1, at=3.0)
    result = measure_separation(first, second, seed=0)
    assert result == Separation(
        energy_distance=compute_energy_distance(first, second),
        p_value=1 / 1000,
        permutations=999,
        silhouette=result.silhouette,
        first=30,
        second=20,
    )
    assert result.silhouette > 0.5
    assert measure_separation(first, second, seed=0) == result


def test_separation_p_value_of_equal_distributions_is_uniform() -> None:
    p_values = [
        measure_separation(cloud(12, seed=2 * n), cloud(9, seed=2 * n + 1), seed=n, permutations=99).p_value
        for n in range(200)
    ]
    # 99 permutations: the hundredths 0.01 ... 1, each as likely.
    assert stats.kstest(p_values, "uniform").pvalue > 0.01
    assert min(p_values) >= 0.01
    assert max(p_values) <= 1.0


def test_separation_p_value_counts_permutations() -> None:
    # Of two points each on a line there are 6 ways to choose the first two, 2 of which give the observed distance: a
    # third of all permutations is as far apart.
    result = measure_separation(torch.tensor([[0.0], [1.0]]), torch.tensor([[10.0], [11.0]]), seed=0, permutations=6000)
    assert result.p_value == pytest.approx(1 / 3, abs=0.03)
    # Where all points are one point, every permutation is as far apart.
    assert measure_separation(torch.ones(4, 3), torch.ones(5, 3), seed=0, permutations=99).p_value == 1.0


def test_separation_paired_only_partners_change_places() -> None:
    # Subjects lie far from each other, partners close together, and each partner a step to the same side.
    subjects = 100 * cloud(12)
    moved = subjects + torch.tensor([1.0, *[0.0] * (subjects.shape[1] - 1)])
    assert measure_separation(subjects, moved, seed=0).p_value > 0.5
    assert measure_separation(subjects, moved, seed=0, paired=True).p_value < 0.01
    # On a line, 4 pairs can be swapped in 16 ways; only none and all of them are as far apart.
    first = torch.tensor([[0.0], [10.0], [20.0], [30.0]])
    result = measure_separation(first, first + 1, seed=0, permutations=8000, paired=True)
    assert result.p_value == pytest.approx(_share_as_far(first, first + 1), abs=0.02)
    with pytest.raises(InputError, match="Clouds of 4 and 5 points are no pairs"):
        measure_separation(cloud(4), cloud(5), seed=0, paired=True)


def _share_as_far(first: Tensor, second: Tensor) -> float:
    """Of all ways to swap partners, the share that is as far apart, one by one."""
    observed = compute_energy_distance(first, second)
    ways = [torch.tensor(swap)[:, None] for swap in itertools.product([True, False], repeat=len(first))]
    energies = [
        compute_energy_distance(torch.where(way, second, first), torch.where(way, first, second)) for way in ways
    ]
    return sum(energy >= observed - 1e-12 for energy in energies) / len(ways)


def test_separation_silhouette_of_nearer_other_cloud_is_negative() -> None:
    left, right = torch.tensor([[0.0, 0.0]]), torch.tensor([[9.0, 0.0]])
    mixed = torch.cat([left, right])
    assert measure_separation(mixed, mixed, seed=0, permutations=9).silhouette < 0
    pure = measure_separation(left.repeat(3, 1), right.repeat(3, 1), seed=0, permutations=9)
    assert pure.silhouette == 1.0


def test_separation_paired_silhouette_leaves_partners_out() -> None:
    def by_hand(left: Tensor, right: Tensor) -> float:
        silhouettes = []
        for own, other in ((left.tolist(), right.tolist()), (right.tolist(), left.tolist())):
            for n, point in enumerate(own):
                a, b = (
                    sum(math.dist(point, far) for m, far in enumerate(some) if m != n) / (len(own) - 1)
                    for some in (own, other)
                )
                silhouettes.append((b - a) / max(a, b))
        return sum(silhouettes) / len(silhouettes)

    first, second = cloud(9), cloud(9, seed=1, at=0.4)
    assert measure_separation(first, second, seed=0, paired=True, permutations=9).silhouette == pytest.approx(
        by_hand(first, second)
    )
    # Pairs that differ by noise alone are one cloud, however few they are.
    for points in (6, 13, 60):
        many = [cloud(points, 50, seed=seed) for seed in range(20)]
        silhouettes = [
            measure_separation(
                some, some + 0.3 * cloud(points, 50, seed=99 - n), seed=0, paired=True, permutations=1
            ).silhouette
            for n, some in enumerate(many)
        ]
        assert abs(sum(silhouettes) / len(silhouettes)) < 0.005
    same = torch.zeros(3, 2)
    assert measure_separation(same, same, seed=0, paired=True, permutations=9).silhouette == 0.0


def test_separation_scale_is_the_callers() -> None:
    first = cloud(20, at=1.0)
    assert measure_separation(first, 50 * first, seed=0).p_value < 0.01
    assert measure_separation(normalize_rows(first), normalize_rows(50 * first), seed=0).p_value == 1.0


@pytest.mark.parametrize(
    ("first", "second", "message"),
    [
        (torch.ones(1, 3), torch.ones(5, 3), "Clouds of 1 and 5 points"),
        (torch.ones(5, 3), torch.ones(0, 3), "Clouds of 5 and 0 points"),
        (torch.ones(5, 3), torch.ones(5, 4), "of 3 and of 4 dimensions"),
        (torch.ones(5), torch.ones(5), "no cloud"),
    ],
    ids=["one", "none", "dimensions", "flat"],
)
def test_separation_invalid_clouds_are_refused(first: Tensor, second: Tensor, message: str) -> None:
    with pytest.raises(InputError, match=message):
        measure_separation(first, second, seed=0)


def test_separation_without_permutations_is_refused() -> None:
    with pytest.raises(InputError, match="0 permutations"):
        measure_separation(cloud(3), cloud(3), seed=0, permutations=0)


@pytest.mark.parametrize("value", [torch.nan, torch.inf])
def test_geometry_points_not_finite_are_refused(value: float) -> None:
    broken = cloud(6)
    broken[2, 1] = value
    for measure in (
        lambda: measure_separation(broken, cloud(6), seed=0),
        lambda: measure_separation(cloud(6), broken, seed=0),
        lambda: compute_energy_distance(broken, cloud(6)),
        lambda: normalize_rows(broken),
        lambda: project_to_plane(broken, method=Projection.PCA, seed=0),
        lambda: count_nearer(broken, cloud(6), cloud(6)),
    ):
        with pytest.raises(NotFinite, match="1 of 6 points"):
            measure()


# Directions


def test_normalize_rows_have_length_one_and_same_direction() -> None:
    rows = cloud(6) * torch.logspace(-6, 6, 6)[:, None]
    unit = normalize_rows(rows)
    assert unit.dtype == torch.float64
    torch.testing.assert_close(unit.norm(dim=1), torch.ones(6, dtype=torch.float64))
    torch.testing.assert_close(unit * rows.double().norm(dim=1, keepdim=True), rows.double())


def test_normalize_rows_zero_row_is_refused_by_number() -> None:
    rows = cloud(4)
    rows[2] = 0
    with pytest.raises(InputError, match="Row 2 of 4 is zero"):
        normalize_rows(rows)


def test_count_nearer_counts_by_cosine_to_the_means() -> None:
    east, north = torch.tensor([[1.0, 0.1], [1.0, -0.1]]), torch.tensor([[0.1, 5.0], [-0.1, 5.0]])
    points = torch.tensor([[100.0, 1.0], [0.01, 0.0], [0.0, 3.0]])
    assert count_nearer(points, east, north) == 2
    assert count_nearer(points, north, east) == 1
    assert count_nearer(points, east, east) == 0, "as near is not nearer"


# Pictures


def test_project_to_plane_pca_equals_singular_value_decomposition() -> None:
    rows = cloud(30, 8) * torch.tensor([9.0, 5, 2, 1, 1, 1, 1, 1])
    centred = rows.double() - rows.double().mean(0)
    axes = torch.linalg.svd(centred, full_matrices=False).Vh[:2]
    expected = centred @ axes.T
    plane = project_to_plane(rows, method=Projection.PCA, seed=0)
    assert plane.shape == (30, 2)
    torch.testing.assert_close(plane.abs(), expected.abs())
    # The largest entry of an axis points upwards, so that the same axes never come out mirrored.
    towards = axes * torch.sign(axes.gather(1, axes.abs().argmax(1, keepdim=True)))
    torch.testing.assert_close(plane, centred @ towards.T)


def test_project_to_plane_tsne_same_seed_agrees_and_groups_separate() -> None:
    rows = torch.cat([cloud(12), cloud(12, seed=1, at=20.0)])
    plane = project_to_plane(rows, method=Projection.TSNE, seed=3)
    assert torch.equal(project_to_plane(rows, method=Projection.TSNE, seed=3), plane)
    assert (plane.shape, plane.dtype) == ((24, 2), torch.float64)
    assert measure_separation(plane[:12], plane[12:], seed=0, permutations=99).silhouette > 0.5


@pytest.mark.parametrize("method", Projection)
def test_project_to_plane_three_points_are_refused(method: Projection) -> None:
    assert project_to_plane(cloud(4), method=method, seed=0).shape == (4, 2)
    for few in (cloud(3), cloud(9, 1)):
        with pytest.raises(InputError, match="make no picture"):
            project_to_plane(few, method=method, seed=0)
