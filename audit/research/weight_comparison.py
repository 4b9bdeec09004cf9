"""The tensors of two checkpoints side by side: a record of each that differs, and what all differences are together.

One tensor of each side is in memory at a time. A cast to another dtype is no change, see `research.tensor_change`.
Out of scope: what the models do (`checkpoint_diff`).
"""

from __future__ import annotations

import math
from collections import Counter
from typing import TYPE_CHECKING, Any, NamedTuple

from ...probes.research.change_kind import ChangedTensor, Classification, classify_changes
from ...probes.research.tensor_change import Spectrum, TensorChange, compare_tensors, has_same_bits, round_to
from ...reports.html.diff_page import TensorRecord, TensorState

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    import torch

    from ...probes.model.checkpoint import Checkpoint
    from ..progress import Progress

__all__ = [
    "TensorDifference",
    "classify_differences",
    "find_state",
    "iter_tensor_changes",
    "list_broken_tensors",
    "list_spectra",
    "summarise_tensors",
]


class TensorDifference(NamedTuple):
    """One tensor that is not the same in both; `difference` is missing where the two cannot be subtracted."""

    record: TensorRecord
    difference: TensorChange | None


def iter_tensor_changes(
    base: Checkpoint, edited: Checkpoint, progress: Progress = lambda *_: None
) -> Iterator[TensorDifference]:
    """Yield what differs, in order of names; one tensor of each side is in memory at a time."""
    names = sorted(set(base.files) | set(edited.files))
    for index, name in enumerate(names):
        progress("tensors", index, len(names))
        change = _compare_tensor(base, edited, name)
        if change is not None:
            yield change
    progress("tensors", len(names), len(names))


def _compare_tensor(base: Checkpoint, edited: Checkpoint, name: str) -> TensorDifference | None:
    if name not in edited.files:
        return _describe_one_sided(base, edited, name, "missing")
    if name not in base.files:
        return _describe_one_sided(edited, base, name, "new")
    old, new = base.tensor(name), edited.tensor(name)
    if has_same_bits(old, new):
        return None
    plain: dict[str, Any] = {
        "name": name,
        "shape": list(new.shape),
        "dtype": _name_dtype(new),
        "base_dtype": _name_dtype(old),
    }
    if old.shape != new.shape:
        return TensorDifference(TensorRecord(status="shape", **plain), None)
    if old.dtype != new.dtype and has_same_bits(round_to(old, new.dtype), new):
        finite = not new.is_floating_point() or bool(new.double().isfinite().all())
        return TensorDifference(TensorRecord(status="cast", **plain, finite=finite), None)
    difference = compare_tensors(old, new)
    spectrum = difference.spectrum
    record = TensorRecord(
        status="changed",
        **plain,
        norm=_finite_or_none(difference.norm),
        relative=_finite_or_none(difference.relative),
        largest=_finite_or_none(difference.largest),
        share=difference.share,
        effective_rank=None if spectrum is None else spectrum.effective,
        first_share=None if spectrum is None else spectrum.first_share,
        rank=None if spectrum is None else spectrum.rank.value,
        determined_rank=None if spectrum is None else spectrum.determined,
        within_rounding=difference.within_rounding,
        exact=spectrum is None or spectrum.exact,
        finite=math.isfinite(difference.norm),
    )
    return TensorDifference(record, difference)


def _name_dtype(tensor: torch.Tensor) -> str:
    return str(tensor.dtype).removeprefix("torch.")


def _describe_one_sided(here: Checkpoint, there: Checkpoint, name: str, status: str) -> TensorDifference:
    """A tensor of one side: lost or new, unless it is a copy of one that both have, as tied weights are saved."""
    own = here.tensor(name)
    same_shape = (other for other in sorted(set(here.files) & set(there.files)))
    tied = any(has_same_bits(own, here.tensor(other)) for other in same_shape if own.ndim > 1)
    return TensorDifference(
        TensorRecord.model_validate(
            {
                "name": name,
                "status": "tied" if tied else status,
                "shape": list(own.shape),
                "dtype": _name_dtype(own),
            }
        ),
        None,
    )


def list_spectra(changes: Sequence[TensorDifference]) -> dict[str, Spectrum]:
    """Return the spectrum of each changed matrix, by the name of its tensor."""
    return {
        change.record.name: change.difference.spectrum
        for change in changes
        if change.difference and change.difference.spectrum
    }


def _finite_or_none(value: float) -> float | None:
    return value if math.isfinite(value) else None


def find_state(records: Sequence[TensorRecord]) -> TensorState:
    """Return what all differences of tensors are together."""
    apart = [record for record in records if record.status != "tied"]
    if not apart:
        return TensorState.IDENTICAL
    if all(record.status == "cast" for record in apart):
        return TensorState.CAST
    # A norm of 0 is a zero of the other sign.
    if all(record.status == "cast" or record.within_rounding for record in apart):
        return TensorState.WITHIN_ROUNDING
    return TensorState.CHANGED


def classify_differences(records: Sequence[TensorRecord], base: Checkpoint) -> Classification:
    """Return the kind of all changes, with tensors of one side or of another shape left out."""
    changed = [
        ChangedTensor(
            name=record.name,
            shape=tuple(record.shape),
            rank=record.determined_rank,
            within_rounding=record.within_rounding,
        )
        for record in records
        if record.status == "changed"
    ]
    return classify_changes(changed, base.count_matrices())


def summarise_tensors(records: Sequence[TensorRecord], folders_differ: bool) -> str:
    """Return the sentence about the weights that is said first; `folders_differ` is of tokenizers and configurations."""
    state = find_state(records)
    casts = Counter(record.dtype for record in records if record.status == "cast")
    dtype = next(iter(casts), "")
    if state is TensorState.IDENTICAL:
        return "No tensor differs." if folders_differ else "This is the base: no tensor differs."
    if state is TensorState.CAST:
        if folders_differ:
            return f"No tensor differs but for a cast to {dtype}."
        return f"This is the base, cast to {dtype}: no tensor differs otherwise."
    if state is TensorState.WITHIN_ROUNDING:
        rounded = next(record.dtype for record in records if record.within_rounding)
        return f"No tensor differs by more than rounding to {rounded} could make: an edit was rounded away, or none was made."
    changed = sum(record.status == "changed" for record in records)
    return f"{changed} changed, {sum(casts.values())} cast."


def list_broken_tensors(records: Sequence[TensorRecord]) -> list[str]:
    """Return in sentences what no edit does to a tensor: lose or add it, give it another shape, or spoil it."""
    reasons = [
        f"The tensor {record.name} is {record.status}." for record in records if record.status in ("missing", "new")
    ]
    reasons += [f"The tensor {record.name} has another shape." for record in records if record.status == "shape"]
    return reasons + [f"The tensor {record.name} holds NaN or Inf." for record in records if not record.finite]
