"""One edit as a transaction: applied on entry, undone bit-exactly on exit unless it was committed, and proved by hash.

A context manager whose exit undoes the edit, so that an exception inside the block leaves the model as it was.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

import torch

from ..probes.errors import EditguardError, EditRefused, NotFinite
from ..probes.model.fingerprint import hash_tensor

if TYPE_CHECKING:
    from types import TracebackType

    from ..probes.model.site import EditSite
    from .editors.base import RankOneUpdate

__all__ = ["Transaction", "WeightChange", "check_update", "relative_norm", "restore_weight"]


class WeightChange(Protocol):
    """A change that may be added to a weight."""

    def delta(self) -> torch.Tensor:
        """Return Delta [d_model, d_ff] in float64."""


def relative_norm(update: RankOneUpdate, weight_norm: float) -> float:
    """Return ||Delta||_F / ||W||_F; infinite for a weight of zeros."""
    return update.norm / weight_norm if weight_norm else float("inf")


def check_update(update: RankOneUpdate, weight_norm: float, bound: float) -> float:
    """Return ||Delta||_F / ||W||_F; raises `NotFinite` or `EditRefused` before anything is written."""
    relative = relative_norm(update, weight_norm)
    # NaN or Inf anywhere in a factor makes the norm NaN or Inf.
    if not relative < float("inf"):
        raise NotFinite(f"The update of editor {update.editor!r} holds NaN or Inf; it was not written.")
    if relative > bound:
        raise EditRefused(
            f"The update of editor {update.editor!r} is {relative:.3g} times ||W||, over the bound of {bound:g}, and was not "
            "written; use another editor, or raise max_relative_update in the policy if you can justify it."
        )
    return relative


def restore_weight(site: EditSite, original: torch.Tensor, original_hash: str, when: str) -> str:
    """Write `original` back, and return the weight's hash; raises `EditguardError` where it is not `original_hash`.

    `when` names what has taken place, e.g. "the roll-back".
    """
    with torch.no_grad():
        site.weight.copy_(original)
    restored_hash = hash_tensor(site.weight)
    if restored_hash != original_hash:
        raise EditguardError(
            f"The weight {site.path} hashes to {restored_hash[:12]} after {when} instead of {original_hash[:12]}; the model in "
            "memory must not be used: load it again."
        )
    return restored_hash


class Transaction:
    """Apply `update` to `site` for the length of a ``with`` block; `commit` keeps it."""

    def __init__(self, site: EditSite, update: WeightChange) -> None:
        """Nothing is written before the block is entered."""
        self._site, self._update = site, update
        self._original: torch.Tensor | None = None
        self._committed = False
        self.before = ""
        """Hash of the weight before."""
        self.edited = ""
        """Hash of the weight with the edit."""
        self.restored: str | None = None
        """Hash after the roll-back; None where the edit was committed."""

    def __enter__(self) -> Transaction:
        """Write the edit in the weight's dtype; the sum is made in float64."""
        self.before = hash_tensor(self._site.weight)
        self._original = self._site.weight.detach().clone()
        try:
            self._site.write(self._site.matrix(torch.float64) + self._update.delta().to(self._original.device))
            self.edited = hash_tensor(self._site.weight)
        except BaseException:
            self._undo()
            raise
        return self

    def prove(self) -> None:
        """Raise `EditguardError` where the weight is no longer the one that was written, so the checks measured another one."""
        if hash_tensor(self._site.weight) != self.edited:
            raise self._changed()

    def commit(self) -> None:
        """Keep the edit."""
        self._committed = True

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Undo the edit unless it was committed and nothing was raised."""
        try:
            changed = self._committed and hash_tensor(self._site.weight) != self.edited
        except BaseException:
            # An edit whose weight could not be proved is not kept.
            self._undo()
            raise
        if not self._committed or changed or kind is not None:
            self._undo()
        self._original = None
        if changed and kind is None:
            raise self._changed()

    def _changed(self) -> EditguardError:
        return EditguardError(
            f"The weight {self._site.path} was changed while it was checked, so the checks measured another weight than the "
            "edit's; the edit was undone: find the check that writes to the model."
        )

    def _undo(self) -> None:
        assert self._original is not None
        self.restored = restore_weight(self._site, self._original, self.before, "the roll-back")
