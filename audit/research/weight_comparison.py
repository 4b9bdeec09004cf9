"""The tensors of two checkpoints side by side: a record of each that differs, and what all differences are together.

One tensor of each side is in memory at a time. A cast to another dtype is no change, see `research.tensor_change`.
Out of scope: what the models do (`checkpoint_diff`).
"""

from __future__ import annotations

import math
from collections import Counter
from typing import TYPE_CHECKING, Any, NamedTuple

from ...probes.research.change_kind import ChangedTensor, classify_changes
from ...probes.research.tensor_change import Spectrum, TensorChange, compare_tensors, has_same_bits, round_to
from ...reports.html.diff_page import TensorRecord, TensorState
from ...reports.text import count_noun
from .subject_search import iter_sites

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    import torch

    from ...probes.model.checkpoint import Checkpoint
    from ...probes.model.language_model import LanguageModel
    from ..progress import Progress

__all__ = [
    "TensorDifference",
    "WeightSummary",
    "find_state",
    "iter_tensor_changes",
    "list_broken_tensors",
    "spectra_by_site",
    "summarise_weights",
]


class WeightSummary(NamedTuple):
    """What the tensors of two checkpoints come to, as `DiffFile` holds it."""

    state: TensorState
    summary: str
    kind: str
    kind_sentence: str
    tensors: int
    unchanged: int
    cast: int
    changed: int
    changes: list[TensorRecord]


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


def spectra_by_site(lm: LanguageModel, changes: Sequence[TensorDifference]) -> dict[str, Spectrum]:
    """Return the spectrum of each changed down-projection of `lm`, by the name of its tensor in the model."""
    spectra = {
        change.record.name: change.difference.spectrum
        for change in changes
        if change.difference and change.difference.spectrum
    }
    # Some files leave out the prefix that the model with a head has, such as those of GPT-2.
    prefix = f"{lm.model.base_model_prefix}."
    names = [f"{site.path}.weight" for site in iter_sites(lm)]
    pairs = ((name, spectra.get(name) or spectra.get(name.removeprefix(prefix))) for name in names)
    return {name: spectrum for name, spectrum in pairs if spectrum is not None}


def _finite_or_none(value: float) -> float | None:
    return value if math.isfinite(value) else None


def find_state(records: Sequence[TensorRecord]) -> TensorState:
    """Return what all differences of tensors are together."""
    apart = [record for record in records if record.status != "tied"]
    if not apart:
        return TensorState.IDENTICAL
    if all(record.status == "cast" for record in apart):
        return TensorState.CAST
    if all(record.status == "cast" or record.within_rounding for record in apart):
        return TensorState.WITHIN_ROUNDING
    return TensorState.CHANGED


def summarise_weights(
    pair: tuple[Checkpoint, Checkpoint], changes: Sequence[TensorDifference], *, folders_differ: bool
) -> WeightSummary:
    """Return counts, kind and sentence of all `changes`; `folders_differ` is of tokenizers and configurations."""
    records = [change.record for change in changes]
    common = set(pair[0].files) & set(pair[1].files)
    state, statuses = find_state(records), Counter(record.status for record in records)
    changed = [record for record in records if record.status == "changed"]
    kind = classify_changes([_as_changed_tensor(record) for record in changed], pair[0].count_matrices())
    counts = f"{statuses['changed']} changed, {statuses['cast']} cast, of {count_noun(len(common), 'tensor')}"
    return WeightSummary(
        state=state,
        summary=f"{counts}." if state is TensorState.CHANGED else _describe_no_change(state, records, folders_differ),
        kind=kind.kind.value,
        kind_sentence=kind.sentence,
        tensors=len(common),
        unchanged=len(common - {record.name for record in records}),
        cast=statuses["cast"],
        changed=statuses["changed"],
        changes=records,
    )


def _as_changed_tensor(record: TensorRecord) -> ChangedTensor:
    return ChangedTensor(
        name=record.name,
        shape=tuple(record.shape),
        rank=record.determined_rank,
        within_rounding=record.within_rounding,
    )


def _describe_no_change(state: TensorState, records: Sequence[TensorRecord], folders_differ: bool) -> str:
    """Return the sentence that is said first where no tensor differs by more than rounding."""
    if state is TensorState.IDENTICAL:
        return "No tensor differs." if folders_differ else "This is the base: no tensor differs."
    if state is TensorState.CAST:
        dtype = next(record.dtype for record in records if record.status == "cast")
        owner = "No tensor differs but for" if folders_differ else "This is the base, and no tensor differs but for"
        return f"{owner} a cast to {dtype}."
    dtype = next(record.dtype for record in records if record.within_rounding)
    return f"No tensor differs by more than rounding to {dtype} could make: an edit was rounded away, or none was made."


def list_broken_tensors(records: Sequence[TensorRecord]) -> list[str]:
    """Return in sentences what no edit does to a tensor: lose or add it, give it another shape, or spoil it."""
    reasons = [
        f"The tensor {record.name} is {record.status}." for record in records if record.status in ("missing", "new")
    ]
    reasons += [f"The tensor {record.name} has another shape." for record in records if record.status == "shape"]
    return reasons + [f"The tensor {record.name} holds NaN or Inf." for record in records if not record.finite]
