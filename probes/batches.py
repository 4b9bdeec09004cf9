"""Right-padded batches under a token budget, longest rows together, results in the order asked for."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    import torch

__all__ = ["TOKEN_BUDGET", "Padded", "batches", "pad", "similar"]

TOKEN_BUDGET = 4096
"""Tokens, padding included, of one forward pass; bounds the memory of every batched step."""


class Padded(NamedTuple):
    """A right-padded batch: ids and mask [rows, tokens]."""

    input_ids: torch.Tensor
    attention_mask: torch.Tensor


def pad(rows: Sequence[Sequence[int]], pad_id: int, device: torch.device) -> Padded:
    """Pad `rows` of token ids on the right, whatever the tokenizer's own padding side is."""
    import torch

    width = max(len(row) for row in rows)
    ids = torch.full((len(rows), width), pad_id, dtype=torch.long)
    mask = torch.zeros((len(rows), width), dtype=torch.long)
    for index, row in enumerate(rows):
        ids[index, : len(row)] = torch.tensor(row, dtype=torch.long)
        mask[index, : len(row)] = 1
    return Padded(ids.to(device), mask.to(device))


def batches(lengths: Sequence[int], budget: int = TOKEN_BUDGET) -> Iterator[list[int]]:
    """Yield lists of row indices, sorted by length, each of at most `budget` padded tokens (one row at least)."""
    order = sorted(range(len(lengths)), key=lambda index: (-lengths[index], index))
    chunk: list[int] = []
    for index in order:
        # The first row of a chunk is its longest, so it sets the padded width.
        if chunk and lengths[chunk[0]] * (len(chunk) + 1) > budget:
            yield chunk
            chunk = []
        chunk.append(index)
    if chunk:
        yield chunk


def similar(lengths: Sequence[int], budget: int = TOKEN_BUDGET, waste: float = 0.3) -> Iterator[list[int]]:
    """Yield batches as `batches` does, cut also where a row would be padded by more than `waste` of its width.

    For texts of very different lengths most of a common width would be padding; for rows that are few, a batch of its
    own costs less than that.
    """
    for chunk in batches(lengths, budget):
        part: list[int] = []
        for index in chunk:
            if part and lengths[index] < (1 - waste) * lengths[part[0]]:
                yield part
                part = []
            part.append(index)
        yield part
