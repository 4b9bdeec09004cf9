"""Running sums come back from their file as they went in, and only for the pass that wrote them."""

from __future__ import annotations

from pathlib import Path

import torch
from editguard.probes.keys.running_sums import RunningSums, read_sums, write_sums


def test_sums_come_back_to_the_bit_and_can_be_added_to(tmp_path: Path) -> None:
    total = torch.randn(3, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    path = tmp_path / "deep" / "sum"
    write_sums(path, "this pass", RunningSums((total,), 70, 4))
    found = read_sums(path, "this pass")
    assert found is not None
    assert (found.tokens, found.groups) == (70, 4)
    assert torch.equal(found.totals[0], total)
    found.totals[0].add_(1)
    again = read_sums(path, "this pass")
    assert again is not None
    assert torch.equal(again.totals[0], total), "what is added in memory does not reach the file"
    assert list(path.parent.iterdir()) == [path]


def test_sums_of_another_pass_or_of_none_are_not_taken_up(tmp_path: Path) -> None:
    path = tmp_path / "sum"
    write_sums(path, "this pass", RunningSums.zeros([2]))
    assert read_sums(path, "another pass") is None
    assert read_sums(tmp_path / "none", "this pass") is None
    assert read_sums(None, "this pass") is None


def test_zeros_are_of_each_sites_own_width() -> None:
    found = RunningSums.zeros([2, 3])
    assert [tuple(total.shape) for total in found.totals] == [(2, 2), (3, 3)]
    assert not any(bool(total.any()) for total in found.totals)
    assert (found.tokens, found.groups) == (0, 0)
