"""Put delta files onto the model that they belong to, and prove that what comes out is what was audited.

The base is known by its fingerprint, the weight by its hash before and after; anything else is refused before or undone
after. One edit gives the audited model to the bit. Several edits on one weight are summed in float64 and cast once.
Nobody has audited the sum: each edit was audited by itself, and whoever applies them together must say that they know.
"""

from __future__ import annotations

from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch

from ...probes.errors import InputError
from ...probes.model.fingerprint import compute_fingerprint
from ...probes.model.language_model import load_model
from ...probes.model.site import EditSite, find_site
from ..folders.whole_folder import whole_folder
from ..saved_model.manifest import MODEL_MARKER, DeltaManifest, EditProvenance, audit_status
from ..saved_model.save import check_savable, write_provenance, write_weights
from ..transaction import Transaction

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

    from .file import Delta

__all__ = ["AppliedDeltas", "apply_delta", "save_applied"]


@dataclass(frozen=True)
class AppliedDeltas:
    """Deltas in a model's weights; they are taken out at the end of the block unless they are committed."""

    transactions: tuple[Transaction, ...]

    def commit(self) -> None:
        """Keep the edits in the model."""
        for transaction in self.transactions:
            transaction.commit()


@dataclass(frozen=True)
class _DeltaSum:
    deltas: tuple[Delta, ...]

    def delta(self) -> torch.Tensor:
        """Return the sum of all deltas [d_model, d_ff], in the order given."""
        total, *others = (delta.delta() for delta in self.deltas)
        for other in others:
            total += other
        return total


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
    deltas_by_site: dict[tuple[str, int], list[Delta]] = {}
    for delta in deltas:
        deltas_by_site.setdefault((delta.manifest.site, delta.manifest.layer), []).append(delta)
    with ExitStack() as stack:
        transactions = [stack.enter_context(_apply_at_site(model, group)) for group in deltas_by_site.values()]
        yield AppliedDeltas(tuple(transactions))


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
    if len(manifests) > 1 and not unaudited_together:
        raise InputError(
            f"The {len(manifests)} edits were audited alone, each on the unedited model, and nobody knows what they do "
            "together; apply one, or add --unaudited-together and compare the result with its base by 'editguard diff'."
        )


def _check_distinct(manifests: Sequence[DeltaManifest]) -> None:
    given: set[object] = set()
    for manifest in manifests:
        keys = {manifest.id, (manifest.layer, manifest.site, manifest.weight_edited)}
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


@contextmanager
def _apply_at_site(model: torch.nn.Module, deltas: Sequence[Delta]) -> Iterator[Transaction]:
    site, manifest = _find_site(model, deltas), deltas[0].manifest
    with Transaction(site, _DeltaSum(tuple(deltas))) as transaction:
        # The hash of a sum is in no manifest.
        differs = transaction.edited != manifest.weight_edited and len(deltas) == 1
        if transaction.before != manifest.weight_before or differs:
            raise InputError(
                f"The weight {site.path} hashes to {transaction.before[:12]} before the edit {manifest.id!r} and to "
                f"{transaction.edited[:12]} with it, instead of {manifest.weight_before[:12]} and "
                f"{manifest.weight_edited[:12]} as audited, and was put back; export the edit again."
            )
        if not bool(torch.isfinite(site.weight).all()):
            raise InputError(
                f"The {len(deltas)} edits together take {site.path} out of the range of {manifest.dtype}, and a weight must be "
                "finite; it was put back: apply fewer."
            )
        yield transaction


def _find_site(model: torch.nn.Module, deltas: Sequence[Delta]) -> EditSite:
    manifest = deltas[0].manifest
    site = find_site(model, manifest.layer, manifest.site)
    shape = (site.d_model, site.d_ff, site.orientation.value)
    for delta in deltas:
        delta_shape = (len(delta.left), len(delta.right), delta.manifest.orientation)
        if delta_shape != shape:
            raise InputError(
                f"The factors of the edit {delta.manifest.id!r} make a change {list(delta_shape[:2])} ({delta_shape[2]}), and "
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
