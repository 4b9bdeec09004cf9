"""Put delta files onto the model that they belong to, and prove that what comes out is what was audited.

The base is known by its fingerprint, the weight by its hash before and after; anything else is refused before or undone
after. One edit gives the audited model to the bit. Of several on one weight the sum is made in float64 and cast once,
and nobody has audited it: each was audited alone, and whoever applies them together must say that they know.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path

import torch

from ...probes.errors import EditRefused, InputError, ModelError
from ...probes.model.fingerprint import fingerprint
from ...probes.model.language_model import LanguageModel, load_model
from ...probes.model.site import EditSite, find_site
from ...reports.log.file import write_atomic
from ..transaction import Transaction
from .file import Delta
from .folder import whole_folder
from .manifest import MODEL_MARKER, DeltaManifest, EditProvenance, audit_status

__all__ = ["AppliedDeltas", "apply_delta", "save_applied"]


@dataclass(frozen=True)
class AppliedDeltas:
    """Deltas in a model's weights; they are taken out at the end of the block unless they are committed."""

    transactions: tuple[Transaction, ...]

    def commit(self) -> None:
        """Keep the edits in the model."""
        for one in self.transactions:
            one.commit()


@dataclass(frozen=True)
class _Sum:
    deltas: tuple[Delta, ...]

    def delta(self) -> torch.Tensor:
        """Return the sum of all, in the order given."""
        first, *others = (one.delta() for one in self.deltas)
        for other in others:
            first += other
        return first


@contextmanager
def apply_delta(
    model: torch.nn.Module, *deltas: Delta, unaudited: bool = False, unaudited_together: bool = False
) -> Iterator[AppliedDeltas]:
    """Apply `deltas` to their base for the length of a ``with`` block; `AppliedDeltas.commit` keeps them.

    Undoes bit-exactly. Raises `InputError` for a model that is not the one they were made on (an edited one included), for
    edits behind which no audit stands without `unaudited`, for several without `unaudited_together`, and for a
    weight that does not come out as it was audited.
    """
    _belong_together([one.manifest for one in deltas], unaudited=unaudited, unaudited_together=unaudited_together)
    _belong_to(fingerprint(model), deltas[0].manifest)
    places: dict[tuple[str, int], list[Delta]] = {}
    for one in deltas:
        places.setdefault((one.manifest.site, one.manifest.layer), []).append(one)
    with ExitStack() as stack:
        made = [stack.enter_context(_applied(model, some)) for some in places.values()]
        yield AppliedDeltas(tuple(made))


def _belong_together(manifests: Sequence[DeltaManifest], *, unaudited: bool, unaudited_together: bool) -> None:
    if not manifests:
        raise InputError("There is no delta file to apply; name one or more.")
    if len({(one.model_fingerprint, one.dtype) for one in manifests}) > 1:
        raise InputError(
            "The delta files belong to different models "
            f"({', '.join(sorted({one.model_fingerprint[:12] for one in manifests}))}), and only one can be the base; apply "
            "those of one base."
        )
    _each_once(manifests)
    if not unaudited:
        _held_to_an_audit(manifests)
    if len(manifests) > 1 and not unaudited_together:
        raise InputError(
            f"The {len(manifests)} edits were audited alone, each on the unedited model, and nobody knows what they do "
            "together; apply one, or add --unaudited-together and compare the result with its base by 'editguard diff'."
        )


def _each_once(manifests: Sequence[DeltaManifest]) -> None:
    seen: set[object] = set()
    for one in manifests:
        keys = {one.id, (one.layer, one.site, one.weight_edited)}
        if seen & keys:
            raise InputError(
                f"The edit {one.id!r} is given twice, and an edit is applied once; leave one of its files out."
            )
        seen |= keys


def _held_to_an_audit(manifests: Sequence[DeltaManifest]) -> None:
    for one in manifests:
        if audit_status([one]) == "no":
            why = "no audit stands behind it" if one.audit is None else "the controls of its audit did not hold"
            raise InputError(
                f"The edit {one.id!r} is not audited ({why}), and only audited edits are applied unasked; export it with "
                "--log and the log of a sound audit, or add --unaudited."
            )


def _belong_to(found: str, manifest: DeltaManifest) -> None:
    if found != manifest.model_fingerprint:
        raise InputError(
            f"The model has the fingerprint {found[:12]}, and the edit {manifest.id!r} was made on "
            f"{manifest.model_fingerprint[:12]} ({manifest.model!r} in {manifest.dtype}); give that model, unedited."
        )


@contextmanager
def _applied(model: torch.nn.Module, deltas: Sequence[Delta]) -> Iterator[Transaction]:
    site, wanted = _site(model, deltas), deltas[0].manifest
    with Transaction(site, _Sum(tuple(deltas))) as made:
        # Of a sum no hash is known.
        if made.before != wanted.weight_before or (len(deltas) == 1 and made.edited != wanted.weight_edited):
            raise InputError(
                f"The weight {site.path} hashes to {made.before[:12]} before the edit {wanted.id!r} and to {made.edited[:12]} "
                f"with it, instead of {wanted.weight_before[:12]} and {wanted.weight_edited[:12]} as audited, and was put back; "
                "export the edit again."
            )
        if not bool(torch.isfinite(site.weight).all()):
            raise InputError(
                f"The {len(deltas)} edits together take {site.path} out of the range of {wanted.dtype}, and a weight must be "
                "finite; it was put back: apply fewer."
            )
        yield made


def _site(model: torch.nn.Module, deltas: Sequence[Delta]) -> EditSite:
    manifest = deltas[0].manifest
    site = find_site(model, manifest.layer, manifest.site)
    held = (site.d_model, site.d_ff, site.orientation.value)
    for one in deltas:
        fits = (len(one.left), len(one.right), one.manifest.orientation)
        if fits != held:
            raise InputError(
                f"The factors of the edit {one.manifest.id!r} make a change {list(fits[:2])} ({fits[2]}), and {site.path} is "
                f"{list(held[:2])} ({held[2]}); export the edit again."
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

    What was saved is loaded again, and must have the fingerprint of what was in memory. Raises what `apply_delta` and
    `load_model` raise.
    """
    manifests = [one.manifest for one in deltas]
    _belong_together(manifests, unaudited=unaudited, unaudited_together=unaudited_together)
    dtype = manifests[0].dtype
    if dtype == "float64":
        raise ModelError("A model in float64 cannot be saved and loaded again as it is; apply the delta in Python.")
    with whole_folder(out, MODEL_MARKER, overwrite=overwrite) as folder:
        lm = load_model(base, device="cpu", dtype=dtype, allow_pickle=allow_pickle)
        edited = _saved(lm, deltas, folder)
        del lm
        provenance = EditProvenance(
            editguard_version=version("editguard"),
            created=datetime.now(UTC).isoformat(timespec="seconds"),
            base=base,
            base_fingerprint=manifests[0].model_fingerprint,
            fingerprint=edited,
            audited=audit_status(manifests),
            edits=manifests,
            files=sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()),
        )
        again = load_model(folder, device="cpu", dtype=dtype).fingerprint
        if again != edited:
            raise EditRefused(
                f"The saved model has the fingerprint {again[:12]} and the model in memory {edited[:12]}, so what would ship "
                "is not what was audited; nothing was written."
            )
        write_atomic(folder / MODEL_MARKER.name, provenance.model_dump_json(indent=2) + "\n")
    return provenance


def _saved(lm: LanguageModel, deltas: Sequence[Delta], folder: Path) -> str:
    from transformers.utils import logging

    shown = logging.is_progress_bar_enabled()
    logging.disable_progress_bar()
    try:
        with apply_delta(lm.model, *deltas, unaudited=True, unaudited_together=True):
            lm.model.save_pretrained(folder)
            lm.tokenizer.save_pretrained(folder)
            return fingerprint(lm.model)
    finally:
        if shown:
            logging.enable_progress_bar()
