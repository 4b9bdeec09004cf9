"""Put delta files onto the model that they belong to, and prove that what comes out is what was audited.

The base is known by its fingerprint, each weight by its hash before and after; anything else is refused before or undone
after. All weights are written or none. One edit gives the audited model to the bit. Several edits on one weight are summed in
float64 and cast once.
Nobody has audited the sum: each edit was audited by itself, and whoever applies them together must say that they know. The
edits of a sequence were audited together. They are written one after the other, and each must leave the weights that it left
in the audit.
"""

from __future__ import annotations

from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

import torch

from ...probes.errors import InputError
from ...probes.model.fingerprint import compute_fingerprint
from ...probes.model.language_model import load_model
from ...probes.model.site import EditSite, find_site
from ..folders.whole_folder import whole_folder
from ..saved_model.manifest import (
    MODEL_MARKER,
    DeltaManifest,
    DeltaSite,
    EditProvenance,
    audit_status,
    is_whole_sequence,
)
from ..saved_model.save import check_savable, write_provenance, write_weights
from ..transaction import Transaction

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

    from .file import Delta, Factors

__all__ = ["AppliedDeltas", "apply_delta", "save_applied"]


@dataclass(frozen=True)
class AppliedDeltas:
    """Deltas in a model's weights; they are taken out at the end of the block unless they are committed."""

    transactions: tuple[Transaction, ...]
    """One for all edits that were made alone, and one for each edit of a sequence."""

    def commit(self) -> None:
        """Keep the edits in the model."""
        later: set[str] = set()
        for transaction in reversed(self.transactions):
            transaction.commit(overwritten=later)
            later |= transaction.edited.keys()


class _Part(NamedTuple):
    """What one delta changes at one site."""

    manifest: DeltaManifest
    place: DeltaSite
    factors: Factors


@dataclass(frozen=True)
class _SummedChange:
    """The sum of all changes of one site."""

    site: EditSite
    parts: tuple[_Part, ...]

    def delta(self) -> torch.Tensor:
        """Return the sum of all deltas [d_model, d_ff], in the order given."""
        total, *others = (part.factors.delta() for part in self.parts)
        for other in others:
            total += other
        return total


@dataclass(frozen=True)
class _SummedDeltas:
    changes: tuple[_SummedChange, ...]


@contextmanager
def apply_delta(
    model: torch.nn.Module, *deltas: Delta, unaudited: bool = False, unaudited_together: bool = False
) -> Iterator[AppliedDeltas]:
    """Apply `deltas` to their base for the length of a ``with`` block; `AppliedDeltas.commit` keeps them.

    The end of the block undoes them bit-exactly.

    Raises `InputError` for a model that is not the one they were made on (an edited one included), for edits without an
    audit unless `unaudited` is set, for several edits unless `unaudited_together` is set, and for a weight that does not
    come out as it was audited.
    """
    _check_applicable([delta.manifest for delta in deltas], unaudited=unaudited, unaudited_together=unaudited_together)
    _check_base(compute_fingerprint(model), deltas[0].manifest)
    together = [[delta] for delta in deltas] if deltas[0].manifest.sequence is not None else [deltas]
    with ExitStack() as stack:
        transactions = []
        for part in together:
            update = _SummedDeltas(tuple(_iter_changes(model, part)))
            transactions.append(stack.enter_context(Transaction(update)))
            for change in update.changes:
                _check_written(change, transactions[-1])
        yield AppliedDeltas(tuple(transactions))


def _iter_changes(model: torch.nn.Module, deltas: Sequence[Delta]) -> Iterator[_SummedChange]:
    """Yield the change of each site, with all that the deltas add there."""
    parts_by_place: dict[tuple[str, int], list[_Part]] = {}
    for delta in deltas:
        for place, factors in zip(delta.manifest.sites, delta.factors, strict=True):
            parts_by_place.setdefault((place.path, place.layer), []).append(_Part(delta.manifest, place, factors))
    for parts in parts_by_place.values():
        yield _SummedChange(_find_site(model, parts), tuple(parts))


def _check_applicable(manifests: Sequence[DeltaManifest], *, unaudited: bool, unaudited_together: bool) -> None:
    if not manifests:
        raise InputError("There is no delta file to apply; name one or more.")
    if len({(manifest.model_fingerprint, manifest.dtype) for manifest in manifests}) > 1:
        fingerprints = sorted({manifest.model_fingerprint[:12] for manifest in manifests})
        raise InputError(
            f"The delta files belong to different models ({', '.join(fingerprints)}), and only one can be the base; apply "
            "those of one base."
        )
    _check_distinct(manifests)
    if not unaudited:
        _check_audited(manifests)
    if any(manifest.sequence is not None for manifest in manifests):
        _check_sequence(manifests)
    elif len(manifests) > 1 and not unaudited_together:
        raise InputError(
            f"The {len(manifests)} edits were audited alone, each on the unedited model, and nobody knows what they do "
            "together; apply one, or add --unaudited-together and compare the result with its base by 'editguard diff'."
        )


def _check_sequence(manifests: Sequence[DeltaManifest]) -> None:
    if not is_whole_sequence(manifests):
        places = ", ".join("alone" if each.sequence is None else str(each.sequence) for each in manifests)
        raise InputError(
            f"The edits were made in a sequence, each on the weights that the one before left, and the files hold the places "
            f"{places}; give the whole folder that 'editguard export --in-sequence' wrote, without --only."
        )


def _check_distinct(manifests: Sequence[DeltaManifest]) -> None:
    given: set[object] = set()
    for manifest in manifests:
        keys = {manifest.id, tuple((site.layer, site.path, site.weight_edited) for site in manifest.sites)}
        if given & keys:
            raise InputError(
                f"The edit {manifest.id!r} is given twice, and an edit is applied once; leave one of its files out."
            )
        given |= keys


def _check_audited(manifests: Sequence[DeltaManifest]) -> None:
    for manifest in manifests:
        if audit_status([manifest]) == "no":
            why = "it has no audit" if manifest.audit is None else "the controls of its audit did not hold"
            raise InputError(
                f"The edit {manifest.id!r} is not audited ({why}), and only audited edits are applied unasked; export it with "
                "--log and the log of a sound audit, or add --unaudited."
            )


def _check_base(model_fingerprint: str, manifest: DeltaManifest) -> None:
    if model_fingerprint != manifest.model_fingerprint:
        raise InputError(
            f"The model has the fingerprint {model_fingerprint[:12]}, and the edit {manifest.id!r} was made on "
            f"{manifest.model_fingerprint[:12]} ({manifest.model!r} in {manifest.dtype}); give that model, unedited."
        )


def _check_written(change: _SummedChange, transaction: Transaction) -> None:
    """Raise `InputError` where the weight of `change` is not the one that was audited, before the edit or with it."""
    site, (manifest, place, _) = change.site, change.parts[0]
    before, edited = transaction.before[site.path], transaction.edited[site.path]
    # The hash of a sum is in no manifest.
    differs = edited != place.weight_edited and len(change.parts) == 1
    if before != place.weight_before or differs:
        raise InputError(
            f"The weight {site.path} hashes to {before[:12]} before the edit {manifest.id!r} and to {edited[:12]} with it, "
            f"instead of {place.weight_before[:12]} and {place.weight_edited[:12]} as audited, and was put back; export the edit "
            "again."
        )
    if not bool(torch.isfinite(site.weight).all()):
        raise InputError(
            f"The {len(change.parts)} edits together take {site.path} out of the range of {manifest.dtype}, and a weight must be "
            "finite; it was put back: apply fewer."
        )


def _find_site(model: torch.nn.Module, parts: Sequence[_Part]) -> EditSite:
    place = parts[0].place
    site = find_site(model, place.layer, place.path)
    shape = (site.d_model, site.d_ff, site.orientation.value)
    for part in parts:
        part_shape = (len(part.factors.left), len(part.factors.right), part.place.orientation)
        if part_shape != shape:
            raise InputError(
                f"The factors of the edit {part.manifest.id!r} make a change {list(part_shape[:2])} ({part_shape[2]}), and "
                f"{site.path} is {list(shape[:2])} ({shape[2]}); export the edit again."
            )
    return site


def save_applied(
    deltas: Sequence[Delta],
    base: str,
    out: Path,
    *,
    unaudited: bool = False,
    unaudited_together: bool = False,
    overwrite: bool = False,
    allow_pickle: bool = False,
) -> EditProvenance:
    """Load `base`, apply `deltas`, and save model, tokenizer and ``editguard.json`` as the folder `out`, whole or not at all.

    The saved model is loaded again, and must have the fingerprint of the model in memory. Raises the errors of
    `apply_delta` and `load_model`.
    """
    manifests = [delta.manifest for delta in deltas]
    _check_applicable(manifests, unaudited=unaudited, unaudited_together=unaudited_together)
    dtype = manifests[0].dtype
    check_savable(dtype)
    with whole_folder(out, MODEL_MARKER, overwrite=overwrite) as folder:
        lm = load_model(base, device="cpu", dtype=dtype, allow_pickle=allow_pickle)
        with apply_delta(lm.model, *deltas, unaudited=True, unaudited_together=True):
            saved_fingerprint = write_weights(lm.model, lm.tokenizer, folder)
        del lm
        return write_provenance(folder, base=base, manifests=manifests, saved_fingerprint=saved_fingerprint)
