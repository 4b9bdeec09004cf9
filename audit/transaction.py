"""One edit as a transaction: all its weights are written or none, undone bit-exactly unless committed, and proved by hash.

A context manager whose exit undoes the edit, so that an exception inside the block leaves the model as it was.
"""

from __future__ import annotations

from contextlib import ExitStack
from typing import TYPE_CHECKING, NamedTuple, Protocol

import torch

from ..probes.errors import EditguardError, EditRefused, NotFinite
from ..probes.model.fingerprint import hash_tensor
from ..probes.model.site_change import combine_norms
from ..probes.model.stored_weight import StoredWeight, store_weight

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence
    from types import TracebackType

    from ..probes.model.site import EditSite
    from .editors.update import WeightUpdate

__all__ = [
    "Change",
    "Changes",
    "Transaction",
    "WeightHashes",
    "check_update",
    "relative_norms",
    "restore_weights",
]


class Change(Protocol):
    """A change that may be added to the weight at a site."""

    @property
    def site(self) -> EditSite:
        """The site whose weight changes."""

    def delta(self) -> torch.Tensor:
        """Return Delta [d_model, d_ff] in float64."""


class Changes(Protocol):
    """Changes of different sites that are made together."""

    @property
    def changes(self) -> Sequence[Change]:
        """The change of each site."""


class WeightHashes(NamedTuple):
    """The hashes of one site's weight."""

    before: str
    edited: str
    restored: str | None
    """After the roll-back; None where the edit was kept."""


def relative_norms(update: WeightUpdate, weight_norms: Mapping[str, float]) -> dict[str, float]:
    """Return ||Delta||_F / ||W||_F of each site by its path; infinite for a weight of zeros.

    `weight_norms` are the norms of the unedited weights by path.
    """
    return {
        change.site.path: change.norm / norm if (norm := weight_norms[change.site.path]) else float("inf")
        for change in update.changes
    }


def check_update(update: WeightUpdate, weight_norms: Mapping[str, float], bound: float) -> float:
    """Return the size of the whole update: the root of the sum of the squares of its sites' ||Delta||_F / ||W||_F.

    Raises `NotFinite` or `EditRefused` before anything is written.
    """
    by_site = relative_norms(update, weight_norms)
    relative = combine_norms(by_site.values())
    # NaN or Inf anywhere in a factor makes the norm NaN or Inf.
    if not relative < float("inf"):
        raise NotFinite(f"The update of editor {update.editor!r} holds NaN or Inf; it was not written.")
    if relative > bound:
        worst = max(by_site, key=by_site.__getitem__)
        at_most = f" (most of it, {by_site[worst]:.3g}, at {worst})" if len(by_site) > 1 else ""
        raise EditRefused(
            f"The update of editor {update.editor!r} is {relative:.3g} times ||W||{at_most}, over the bound of {bound:g}, and "
            "was not written; use another editor, or raise max_relative_update in the policy if you can justify it."
        )
    return relative


def restore_weights(originals: Sequence[StoredWeight], when: str) -> dict[str, str]:
    """Write all `originals` back, and return the hash of each weight by its path.

    Every weight is written back and hashed even where another one cannot be. Raises `EditguardError` where a weight does not
    have its old hash. `when` names what has taken place, e.g. "the roll-back".
    """
    hashes: dict[str, str] = {}
    with ExitStack() as steps:
        # An exit stack runs every step, whatever the others raise, and the last one first: all are written, then hashed.
        for original in originals:
            steps.callback(_prove_restored, original, when, hashes)
        for original in originals:
            steps.callback(_write_back, original)
    return hashes


def _write_back(original: StoredWeight) -> None:
    with torch.no_grad():
        original.site.weight.copy_(original.tensor)


def _prove_restored(original: StoredWeight, when: str, hashes: dict[str, str]) -> None:
    restored = hash_tensor(original.site.weight)
    if restored != original.sha256:
        # An interrupt may have come before the copy was made.
        _write_back(original)
        restored = hash_tensor(original.site.weight)
    if restored != original.sha256:
        raise EditguardError(
            f"The weight {original.site.path} hashes to {restored[:12]} after {when} instead of {original.sha256[:12]}; the "
            "model in memory must not be used: load it again."
        )
    hashes[original.site.path] = restored


class Transaction:
    """Make the `changes` of an update for the length of a ``with`` block; `commit` keeps them."""

    def __init__(self, update: Changes) -> None:
        """Nothing is written before the block is entered."""
        self._changes = tuple(update.changes)
        self._originals: tuple[StoredWeight, ...] = ()
        self._committed = False
        self._overwritten: frozenset[str] = frozenset()
        self.before: dict[str, str] = {}
        """Hash of each weight before, by the path of its site."""
        self.edited: dict[str, str] = {}
        """Hash of each weight with the edit."""
        self.restored: dict[str, str] = {}
        """Hash of each weight after the roll-back; empty where the edit was committed."""

    @property
    def hashes(self) -> dict[str, WeightHashes]:
        """The hashes of each weight, by the path of its site."""
        return {
            path: WeightHashes(before, self.edited[path], self.restored.get(path))
            for path, before in self.before.items()
        }

    def __enter__(self) -> Transaction:
        """Write the edit in each weight's dtype; the sum is made in float64."""
        # Copies of all weights are there before the first one is written.
        self._originals = tuple(store_weight(change.site) for change in self._changes)
        self.before = {original.site.path: original.sha256 for original in self._originals}
        try:
            for change in self._changes:
                site = change.site
                site.write(site.matrix(torch.float64) + change.delta().to(site.weight.device))
            self.edited = self._hash_weights()
        except BaseException:
            self._undo()
            raise
        return self

    def prove(self) -> None:
        """Raise `EditguardError` where a weight is no longer the one that was written, so the checks measured another one."""
        for path, now in self._hash_weights().items():
            if now != self.edited[path] and path not in self._overwritten:
                raise _changed(path)

    def commit(self, overwritten: Iterable[str] = ()) -> None:
        """Keep the edit. A later edit was written over the weights of the sites `overwritten`, by path, and proves them."""
        self._committed = True
        self._overwritten = frozenset(overwritten)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Undo the edit unless it was committed and nothing was raised."""
        try:
            if self._committed and kind is None:
                self.prove()
        except BaseException:
            # An edit whose weights could not be proved is not kept.
            self._undo()
            raise
        if not self._committed or kind is not None:
            self._undo()
        self._originals = ()

    def _hash_weights(self) -> dict[str, str]:
        return {change.site.path: hash_tensor(change.site.weight) for change in self._changes}

    def _undo(self) -> None:
        self.restored = restore_weights(self._originals, "the roll-back")


def _changed(path: str) -> EditguardError:
    return EditguardError(
        f"The weight {path} was changed while it was checked, so the checks measured another weight than the edit's; the edit "
        "was undone: find the check that writes to the model."
    )
