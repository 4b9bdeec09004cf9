"""Batches hold every row once, keep to their budget, and are padded on the right."""

from __future__ import annotations

import itertools
from collections.abc import Sequence

import pytest
import torch
from editguard.probes.errors import OutOfMemory
from editguard.probes.forward.batches import TOKEN_BUDGET, pad, run_fitting, split_batches, split_similar
from hypothesis import given
from hypothesis import strategies as st

lengths_of = st.lists(st.integers(1, 50), max_size=40)


@given(lengths_of, st.integers(1, 200))
def test_split_batches_any_lengths_place_each_row_once_within_budget(lengths: list[int], budget: int) -> None:
    chunks = list(split_batches(lengths, budget))
    assert sorted(index for chunk in chunks for index in chunk) == list(range(len(lengths)))
    for chunk in chunks:
        assert len(chunk) == 1 or max(lengths[index] for index in chunk) * len(chunk) <= budget


@given(lengths_of, st.integers(1, 200))
def test_split_batches_longest_rows_first_and_batches_full(lengths: list[int], budget: int) -> None:
    chunks = list(split_batches(lengths, budget))
    flat = [index for chunk in chunks for index in chunk]
    assert flat == sorted(range(len(lengths)), key=lambda index: (-lengths[index], index))
    for chunk, _ in itertools.pairwise(chunks):
        assert lengths[chunk[0]] * (len(chunk) + 1) > budget


@given(lengths_of, st.integers(1, 200), st.floats(0.0, 0.9))
def test_split_similar_rows_stay_within_budget_and_waste(lengths: list[int], budget: int, waste: float) -> None:
    chunks = list(split_similar(lengths, budget, waste))
    assert sorted(index for chunk in chunks for index in chunk) == list(range(len(lengths)))
    for chunk in chunks:
        longest = max(lengths[index] for index in chunk)
        assert len(chunk) == 1 or longest * len(chunk) <= budget
        assert all(lengths[index] >= (1 - waste) * longest for index in chunk)


def test_split_batches_without_budget_use_the_default() -> None:
    assert [len(chunk) for chunk in split_batches([TOKEN_BUDGET // 2] * 3)] == [2, 1]
    assert list(split_batches([])) == []


def test_pad_rows_are_padded_on_the_right() -> None:
    ids, mask = pad([[5, 6, 7], [8], [9, 10]], 3, torch.device("cpu"))
    assert ids.tolist() == [[5, 6, 7], [8, 3, 3], [9, 10, 3]]
    assert mask.tolist() == [[1, 1, 1], [1, 0, 0], [1, 1, 0]]
    assert ids.dtype == mask.dtype == torch.long


# ------------------------------------------------------------------------------------- what does not fit into memory


@given(st.lists(st.lists(st.integers(), min_size=1, max_size=20), max_size=5), st.integers(1, 20))
def test_run_fitting_large_group_runs_in_halves_and_each_row_once(groups: list[list[int]], most: int) -> None:
    def run(members: Sequence[int]) -> list[int]:
        if len(members) > most:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.")
        return [-index for index in members]

    results = list(run_fitting(groups, run))
    assert [index for members, _ in results for index in members] == [index for group in groups for index in group]
    assert all(answer == [-index for index in members] for members, answer in results)
    # Nothing is cut that fits: what a piece was half of, at most twice its length and one, did not.
    assert all(members in groups or 2 * len(members) + 1 > most for members, _ in results)
    assert all(len(members) <= most for members, _ in results)


def test_run_fitting_failed_allocation_is_recognised() -> None:
    results = list(run_fitting([range(4)], lambda members: torch.empty(2**50 if len(members) > 2 else 1).shape))
    assert [members for members, _ in results] == [[0, 1], [2, 3]]


@pytest.mark.parametrize("error", [MemoryError(), torch.OutOfMemoryError("CUDA out of memory.")])
def test_run_fitting_single_row_that_does_not_fit_raises(error: Exception) -> None:
    def run(_: Sequence[int]) -> None:
        raise error

    with pytest.raises(
        OutOfMemory, match=r"One text alone does not fit into memory \(.+\); take a machine with more of it"
    ):
        list(run_fitting([range(4)], run))


def test_run_fitting_other_errors_are_not_retried() -> None:
    tried = []

    def run(members: Sequence[int]) -> None:
        tried.append(list(members))
        raise RuntimeError("mat1 and mat2 shapes cannot be multiplied")

    with pytest.raises(RuntimeError, match="shapes"):
        list(run_fitting([range(4)], run))
    assert tried == [[0, 1, 2, 3]]
