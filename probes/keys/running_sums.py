"""Running sums of key outer products, in memory and in the file from which a killed pass over a corpus resumes."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import torch

from .statistics import write_tensors_atomically

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

__all__ = ["RunningSums", "read_sums", "write_sums"]


class RunningSums(NamedTuple):
    """Sums of k k^T over some tokens, one a site, after some groups of windows."""

    totals: tuple[torch.Tensor, ...]
    """[d_ff, d_ff] in float64; later groups are added in place."""
    tokens: int
    groups: int

    @classmethod
    def zeros(cls, widths: Sequence[int]) -> RunningSums:
        """Return empty sums for sites of these d_ff."""
        return cls(tuple(torch.zeros(width, width, dtype=torch.float64) for width in widths), 0, 0)


def read_sums(path: Path | None, stamp: str) -> RunningSums | None:
    """Return the sums in the file; None where it cannot be read, or another pass than that of `stamp` wrote it."""
    from safetensors import SafetensorError, safe_open

    if path is None or not path.is_file():
        return None
    try:
        with safe_open(path, framework="pt") as file:
            metadata = file.metadata() or {}
            if metadata.get("stamp") != stamp:
                return None
            return RunningSums((file.get_tensor("total"),), int(metadata["tokens"]), int(metadata["groups"]))
    except (OSError, SafetensorError, KeyError, ValueError):
        # A running sum that cannot be read is only lost work: it is computed again from the first document.
        return None


def write_sums(path: Path, stamp: str, sums: RunningSums) -> None:
    """Write the sums of one site; the file appears whole or not at all. Raises `StatisticsError` where it cannot be written."""
    metadata = {"stamp": stamp, "tokens": str(sums.tokens), "groups": str(sums.groups)}
    write_tensors_atomically(path, {"total": sums.totals[0]}, metadata)
