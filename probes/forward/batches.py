"""Right-padded batches under a token budget, longest rows together; a batch that does not fit into memory is halved."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple, TypeVar

from ..errors import OutOfMemory

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence

    import torch

__all__ = ["TOKEN_BUDGET", "Padded", "pad", "run_fitting", "split_batches", "split_similar"]

T = TypeVar("T")

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


def split_batches(lengths: Sequence[int], budget: int = TOKEN_BUDGET) -> Iterator[list[int]]:
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


def split_similar(lengths: Sequence[int], budget: int = TOKEN_BUDGET, waste: float = 0.3) -> Iterator[list[int]]:
    """Yield batches as `split_batches` does, split also where padding would exceed `waste` of a row's width.

    For texts of very different lengths most of a common width would be padding.
    For few rows, a separate batch costs less than that.
    """
    for chunk in split_batches(lengths, budget):
        part: list[int] = []
        for index in chunk:
            if part and lengths[index] < (1 - waste) * lengths[part[0]]:
                yield part
                part = []
            part.append(index)
        yield part


def run_fitting(groups: Iterable[Sequence[int]], run: Callable[[list[int]], T]) -> Iterator[tuple[list[int], T]]:
    """Yield each group of row indices with the result of `run`; a group that does not fit into memory runs in halves.

    `run` must have no effect unless it returns.
    Raises `OutOfMemory` where a group of one row does not fit.
    """
    for group in groups:
        waiting = [list(group)]
        while waiting:
            members = waiting.pop()
            failed = ""
            try:
                result = run(members)
            except (MemoryError, RuntimeError) as error:
                if not _is_out_of_memory(error):
                    raise
                failed = str(error).strip().partition("\n")[0] or type(error).__name__
            if not failed:
                yield members, result
            elif len(members) == 1:
                raise OutOfMemory(
                    f"One text alone does not fit into memory ({failed[:120]}); take a machine with more of it, a smaller dtype, "
                    "or a shorter text."
                )
            else:
                _release()
                half = len(members) // 2
                waiting += [members[half:], members[:half]]


def _is_out_of_memory(error: Exception) -> bool:
    import torch

    # The allocator of the CPU has no class of its own for it.
    messages = ("can't allocate memory", "not enough memory", "out of memory")
    return isinstance(error, MemoryError | torch.OutOfMemoryError) or any(text in str(error) for text in messages)


def _release() -> None:
    """Return the failed pass's memory, which the allocator still holds, to the device."""
    import torch

    if torch.cuda.is_available():
        torch.cuda.empty_cache()
