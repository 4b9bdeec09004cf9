"""Running sums come back from their file as they went in, and only for the pass that wrote them."""

from __future__ import annotations

from pathlib import Path

import torch
from editguard.probes.keys.running_sums import RunningSums, read_sums, write_sums


def test_read_sums_equal_the_written_sums_to_the_bit(tmp_path: Path) -> None:
    total = torch.randn(3, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    path = tmp_path / "deep" / "sum"
    write_sums(path, "this pass", RunningSums((total,), 70, 4))
    sums = read_sums(path, "this pass")
    assert sums is not None
    assert (sums.tokens, sums.groups) == (70, 4)
    assert torch.equal(sums.totals[0], total)
    sums.totals[0].add_(1)
    again = read_sums(path, "this pass")
    assert again is not None
    assert torch.equal(again.totals[0], total), "what is added in memory does not reach the file"
    assert list(path.parent.iterdir()) == [path]


def test_read_sums_of_another_pass_are_ignored(tmp_path: Path) -> None:
    path = tmp_path / "sum"
    write_sums(path, "this pass", RunningSums.zeros([2]))
    assert read_sums(path, "another pass") is None
    assert read_sums(tmp_path / "none", "this pass") is None
    assert read_sums(None, "this pass") is None


def test_zeros_have_the_width_of_each_site() -> None:
    sums = RunningSums.zeros([2, 3])
    assert [tuple(total.shape) for total in sums.totals] == [(2, 2), (3, 3)]
    assert not any(bool(total.any()) for total in sums.totals)
    assert (sums.tokens, sums.groups) == (0, 0)
