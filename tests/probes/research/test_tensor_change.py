"""A change of rank one is distinguished from others in every precision, and from rounding."""

from __future__ import annotations

import math

import pytest
import torch
from editguard.probes.research import tensor_change
from editguard.probes.research.tensor_change import Rank, compare_tensors, compute_rounding_bound, has_same_bits
from hypothesis import given, settings
from hypothesis import strategies as st

from ...helpers.examples import count_examples

DTYPES = (torch.float32, torch.bfloat16, torch.float16)


def weight(seed: int, rows: int = 24, columns: int = 40) -> torch.Tensor:
    return torch.randn(rows, columns, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def outer(seed: int, scale: float, rank: int = 1) -> torch.Tensor:
    matrix = weight(seed + 1, 24, rank) @ weight(seed + 2, rank, 40)
    return matrix * scale / matrix.norm()


@settings(max_examples=count_examples(80), deadline=None)
@given(dtype=st.sampled_from(DTYPES), seed=st.integers(0, 10**6), scale=st.floats(1.0, 1e3), cast=st.booleans())
def test_compare_rank_one_edit_has_rank_one_in_every_dtype(
    dtype: torch.dtype, seed: int, scale: float, cast: bool
) -> None:
    base, update = weight(seed).to(dtype), outer(seed, scale)
    # Some editors cast the update before they add it.
    edited = (base.double() + (update.to(dtype).double() if cast else update)).to(dtype)
    spectrum = compare_tensors(base, edited).spectrum
    assert spectrum is not None
    assert spectrum.rank is Rank.ONE
    assert spectrum.first_share > 0.99
    pointed = update[0] / update[0].norm()
    assert abs(float(spectrum.right @ pointed)) > 0.99


@settings(max_examples=count_examples(40), deadline=None)
@given(dtype=st.sampled_from(DTYPES), seed=st.integers(0, 10**6), rank=st.integers(2, 5))
def test_compare_change_of_higher_rank_is_not_rank_one(dtype: torch.dtype, seed: int, rank: int) -> None:
    base = weight(seed).to(dtype)
    edited = (base.double() + outer(seed, 30.0, rank)).to(dtype)
    spectrum = compare_tensors(base, edited).spectrum
    assert spectrum is not None
    assert spectrum.rank is Rank.MORE
    assert 1.0 < spectrum.effective <= 24


@settings(max_examples=count_examples(40), deadline=None)
@given(dtype=st.sampled_from(DTYPES), seed=st.integers(0, 10**6), rank=st.integers(1, 10))
def test_compare_determined_rank_is_that_of_the_update(dtype: torch.dtype, seed: int, rank: int) -> None:
    base = weight(seed).to(dtype)
    rows, _ = torch.linalg.qr(weight(seed + 1, 24, rank))
    columns, _ = torch.linalg.qr(weight(seed + 2, 40, rank))
    spectrum = compare_tensors(base, (base.double() + 10.0 * rows @ columns.T).to(dtype)).spectrum
    assert spectrum is not None
    assert spectrum.determined == rank
    assert spectrum.row_space.shape == (rank, 40)
    assert float((spectrum.row_space @ columns).norm()) == pytest.approx(rank**0.5, rel=0.01)


@settings(max_examples=count_examples(40), deadline=None)
@given(dtype=st.sampled_from(DTYPES[1:]), seed=st.integers(0, 10**6), scale=st.floats(1.0, 1e3))
def test_compare_edit_saved_in_another_dtype_has_rank_one(dtype: torch.dtype, seed: int, scale: float) -> None:
    base, update = weight(seed).float(), outer(seed, scale)
    change = compare_tensors(base, (base + update.float()).to(dtype))
    assert change.spectrum is not None
    assert change.spectrum.determined == 1
    assert not change.within_rounding


@pytest.mark.parametrize("dtype", DTYPES[1:])
def test_compare_cast_differs_in_nothing_and_a_lost_edit_within_rounding(dtype: torch.dtype) -> None:
    base = weight(5).float()
    assert compare_tensors(base, base.to(dtype)).norm == 0
    assert compare_tensors(base.to(dtype), base.to(dtype).float()).norm == 0
    lost = compare_tensors(base, (base + outer(5, 1e-2).float()).to(dtype))
    assert lost.norm > 0
    assert lost.within_rounding
    assert lost.spectrum is not None
    assert lost.spectrum.determined == 0


def test_compare_vectors_and_whole_numbers_within_rounding_or_not() -> None:
    vector, unit = torch.ones(10, dtype=torch.bfloat16), torch.eye(10, dtype=torch.bfloat16)[0]
    assert compare_tensors(vector, vector + unit * 2**-7).within_rounding
    assert not compare_tensors(vector, vector + unit).within_rounding
    assert not compare_tensors(vector, vector * float("nan")).within_rounding
    assert not compare_tensors(torch.tensor([1]), torch.tensor([2])).within_rounding


@pytest.mark.parametrize("dtype", DTYPES)
def test_compare_rounding_only_has_no_determined_rank(dtype: torch.dtype) -> None:
    exact = weight(3)
    base = exact.to(dtype)
    unit = torch.where(base > 0, 1.0, -1.0).to(dtype)
    moved = torch.nextafter(base, unit * float("inf"))
    some = torch.rand(base.shape, generator=torch.Generator().manual_seed(0)) < 0.2
    spectrum = compare_tensors(base, torch.where(some, moved, base)).spectrum
    assert spectrum is not None
    assert spectrum.rank is Rank.WITHIN_ROUNDING


@settings(max_examples=count_examples(40), deadline=None)
@given(dtype=st.sampled_from(DTYPES), seed=st.integers(0, 10**6), scale=st.floats(1e-6, 1e4))
def test_rounding_bound_covers_rounding(dtype: torch.dtype, seed: int, scale: float) -> None:
    base, update = weight(seed).to(dtype), outer(seed, scale)
    edited = (base.double() + update).to(dtype)
    assert float((edited.double() - base.double() - update).norm()) <= 1.01 * compute_rounding_bound(edited, update)


def test_spectrum_effective_rank_equals_roy_and_vetterli() -> None:
    base = torch.zeros(6, 6, dtype=torch.float64)
    equal = compare_tensors(base, torch.eye(6, dtype=torch.float64) * 3).spectrum
    assert equal is not None
    assert equal.effective == pytest.approx(6)
    two = compare_tensors(base, torch.diag(torch.tensor([3.0, 1.0, 0, 0, 0, 0], dtype=torch.float64))).spectrum
    assert two is not None
    entropy = -(0.75 * math.log(0.75) + 0.25 * math.log(0.25))
    assert two.effective == pytest.approx(math.exp(entropy))
    assert two.first_share == pytest.approx(0.9)


def test_spectrum_large_matrix_uses_leading_values(monkeypatch: pytest.MonkeyPatch) -> None:
    base = weight(0, 64, 80).float()
    update = torch.outer(weight(1, 1, 64)[0], weight(2, 1, 80)[0])
    edited = (base.double() + update).float()
    full = compare_tensors(base, edited).spectrum
    monkeypatch.setattr(tensor_change, "_FULL", 32)
    state = torch.random.get_rng_state()
    few = compare_tensors(base, edited).spectrum
    assert torch.equal(torch.random.get_rng_state(), state)
    assert full is not None
    assert few is not None
    assert (full.exact, few.exact) == (True, False)
    assert (full.rank, few.rank) == (Rank.ONE, Rank.ONE)
    assert few.first_share == pytest.approx(full.first_share)
    assert (few.determined, full.determined) == (1, 1)
    many = compare_tensors(base, base + weight(3, 64, 80).float()).spectrum
    assert many is not None
    assert (many.determined, many.rank, many.row_space.shape) == (None, Rank.MORE, (1, 80))
    assert abs(float(few.right @ full.right)) == pytest.approx(1)


def test_compare_figures_of_a_change_are_exact() -> None:
    base = torch.tensor([3.0, 4.0])
    change = compare_tensors(base, torch.tensor([3.0, 4.5]))
    assert (change.norm, change.relative, change.largest, change.share, change.spectrum) == (0.5, 0.1, 0.5, 0.5, None)
    assert math.isnan(compare_tensors(base, torch.tensor([3.0, float("nan")])).norm)
    assert compare_tensors(base * 0, base).relative == math.inf


def test_has_same_bits_compares_bits_and_not_numbers() -> None:
    broken = torch.tensor([float("nan"), 0.0])
    assert has_same_bits(broken, broken.clone())
    assert not has_same_bits(torch.tensor([0.0]), torch.tensor([-0.0]))
    assert not has_same_bits(torch.zeros(2), torch.zeros(2, dtype=torch.float16))
    assert not has_same_bits(torch.zeros(2), torch.zeros(1, 2))
