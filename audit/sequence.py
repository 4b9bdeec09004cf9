"""Edits kept one after the other in one model, until what they add up to leaves the policy's bounds.

Each edit is probed, computed, bounded and checked on the model with all edits kept before it. An edit that is sound by
itself and leads the accumulated perplexity or the accumulated norm of the weights over its bound is rolled back. It closes
the sequence: every later edit is refused. Public Python API::

    with EditSequence(GuardedEditor.load("smollm2-135m")) as sequence:
        results = [sequence.edit(request) for request in requests]
        print(sequence.closed, sequence.retained())
        sequence.save("edited")

At the end of the block the weights are those of before. `iter_sequence_records` gives the same as records of an audit. Out of
scope: undoing one edit of several.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple, Self

from ..probes.errors import InputError
from ..probes.model.stored_weight import StoredWeight, store_weight
from ..reports.text import printable
from ..reports.verdict.edit_sequence import closes_sequence
from ..suites.checks.accumulated_drift import AccumulatedDrift
from ..suites.served_answer import ask_as_served
from .edit_result import Assessment, EditResult, Proposal
from .policy import Action, Decision
from .saved_model.save import save_edited_model
from .transaction import Transaction, restore_weights

if TYPE_CHECKING:
    from collections.abc import Sequence

    from ..probes.requests.request import EditRequest
    from ..reports.log.schema import EditRecord
    from .editors.update import WeightUpdate
    from .guard import GuardedEditor
    from .saved_model.manifest import EditProvenance

__all__ = ["EditSequence", "KeptEdit"]


class KeptEdit(NamedTuple):
    """An edit that is in the model, and the text to put before its prompt where it is served."""

    request: EditRequest
    prefix: str | None
    needs_prefix: bool
    result: EditResult | None = None
    """None where a resumed audit made the edit again without checking it."""

    @property
    def is_served(self) -> bool:
        """Whether it was served when it was made: an edit that needs a prefix may be sound, and no prefix serves it."""
        return self.prefix is not None or not self.needs_prefix


class EditSequence:
    """A guard that keeps sound edits; as a context manager it takes all of them out again at the end."""

    def __init__(self, guard: GuardedEditor) -> None:
        """Measure the model as it is: the origin. Raises `NotFinite` and `InputError` as an audit does."""
        if guard.setup.origin is not None:
            raise InputError(
                "This guard belongs to a sequence already, whose origin would be forgotten; give the guard that it began with."
            )
        setup = guard.setup.with_origin()
        assert setup.origin is not None
        self._origin = setup.origin
        self._guard = self._first = replace(guard, setup=setup, checks=(*guard.checks, AccumulatedDrift.name))
        self._kept_edits: list[KeptEdit] = []
        self.closed: str | None = None
        """Why every further edit is refused; None while the sequence is open."""

    def __enter__(self) -> Self:
        """Return the sequence."""
        return self

    def __exit__(self, *_: object) -> None:
        """Take all edits out."""
        self.undo()

    @property
    def guard(self) -> GuardedEditor:
        """The guard of the model as it is now."""
        return self._guard

    @property
    def kept(self) -> Sequence[KeptEdit]:
        """The edits in the model, in the order in which they were made."""
        return tuple(self._kept_edits)

    def edit(self, request: EditRequest, editor: str | None = None) -> EditResult:
        """Make the edit on the model as it is and keep it if it is sound together with all edits kept before.

        Once the sequence is closed every request is refused, and the model is not touched.
        """
        if self.closed is not None:
            return _refuse(request, self.closed)
        return self.commit(*self._guard.propose([self._guard.assess(request, editor)]))

    def commit(self, proposal: Proposal) -> EditResult:
        """Make an edit that the guard of the model as it is now proposed."""
        before = _store_weights(proposal.writable)
        result = self._guard.commit_proposal(proposal)
        request = proposal.assessment.request
        if result.kept:
            assert result.update is not None  # it was written
            self._advance(KeptEdit(request, result.prefix, result.update.needs_prefix, result), before)
        self.close_after(request.id, [(failure.check, failure.message) for failure in result.failures])
        return result

    def close_after(self, name: str, failures: Sequence[tuple[str, str]]) -> None:
        """Close the sequence where the edit `name` was sound by itself; one that is not is undone, and the next may be better."""
        if closes_sequence(check for check, _ in failures):
            self.closed = (
                f"the sequence of edits is closed since {name!r}: {'; '.join(message for _, message in failures)}; ship the kept "
                "edits, or raise the bound in the policy if you can justify it"
            )

    def repeat_edit(self, request: EditRequest, editor: str | None, record: EditRecord) -> None:
        """Make an edit again that `record` holds as sound and kept, and check nothing but the hashes of its weights.

        Raises `InputError` where a weight is another one now.
        """
        unchecked = replace(self._guard, checks=())
        (proposal,) = unchecked.propose([unchecked.assess(request, editor)])
        assert record.weights is not None  # it was kept
        kept_by = record.decision.editor
        if kept_by is not None and kept_by != proposal.assessment.decision.editor:
            proposal = unchecked.propose_with(proposal, kept_by, "the edit was kept in a later try")
        update = proposal.writable
        if update is None:
            raise InputError(_differs(request, f"is refused ({proposal.refusal})"))
        before, recorded = _store_weights(update), record.weights.edited
        with Transaction(update) as transaction:
            if transaction.edited != recorded:
                now, then = (
                    ", ".join(printable(str(value)[:12]) for value in hashes.values())
                    for hashes in (transaction.edited, recorded)
                )
                raise InputError(_differs(request, f"gives the weight {now} instead of {then}"))
            transaction.commit()
        prefix = None if record.update is None else record.update.prefix
        self._advance(KeptEdit(request, prefix, update.needs_prefix), before)

    def _advance(self, edit: KeptEdit, before: Sequence[StoredWeight]) -> None:
        """Prepare the guard for the next edit; where that fails, the weights are those of `before` again, proved by hash."""
        try:
            setup = self._guard.setup.after_kept_edit([weight.site for weight in before])
        except BaseException:
            # Another guard, since this one remembers the edit as kept.
            self._guard = replace(self._guard)
            restore_weights(before, "the roll-back")
            raise
        self._guard = replace(self._guard, setup=setup)
        self._kept_edits.append(edit)

    def save(self, folder: Path | str, *, overwrite: bool = False) -> EditProvenance:
        """Save the model with all kept edits, its tokenizer and ``editguard.json`` as `folder`, whole or not at all.

        Call it inside the ``with`` block, whose end takes the edits out. ``editguard.json`` holds the prefix of each rewritten
        edit; `editguard.load_provenance` reads it. The sum of the edits is marked as unaudited. With `overwrite` a folder that
        editguard wrote is replaced, and no other.

        Raises the errors of `GuardedEditor.save`.
        """
        results = [edit.result for edit in self._kept_edits if edit.result is not None]
        if not results or len(results) < len(self._kept_edits):
            raise InputError(
                "No edit of this sequence is kept in the model with its result, so there is nothing to save; make the edits "
                "with edit(), and save before the end of the with block."
            )
        self._guard.setup.check_edited(
            site for result in results if result.update is not None for site in result.update.sites
        )
        return save_edited_model(self._guard.setup, results, Path(folder), overwrite=overwrite)

    def undo(self) -> None:
        """Take all kept edits out again; the weights are proved to be those of the origin. Raises `EditguardError`."""
        # Another guard, since the first one may remember edits as kept.
        self._guard = self._first = replace(self._first)
        self._kept_edits, self.closed = [], None
        restore_weights(tuple(self._origin.weights.values()), "the sequence was undone")

    def retained(self) -> list[bool | None]:
        """Return for each kept edit whether the model as it is now says its target as it was served then.

        None stands for an edit that no prefix served when it was made.
        """
        lm = self._guard.setup.lm
        return [
            ask_as_served(lm, edit.request, edit.prefix).says if edit.is_served else None for edit in self._kept_edits
        ]


def _store_weights(update: WeightUpdate | None) -> tuple[StoredWeight, ...]:
    """Return the weights that `update` changes, as they are now; none without an update."""
    return () if update is None else tuple(map(store_weight, update.sites))


def _differs(request: EditRequest, what: str) -> str:
    return (
        f"The edit {request.id!r} was kept when the log was begun and now {what}; resume with the versions and on the machine "
        "that the log was begun with, or add --overwrite instead of --resume."
    )


def _refuse(request: EditRequest, why: str) -> EditResult:
    decision = Decision(Action.REFUSE, None, (why,))
    assessment = Assessment(request=request, evidence=None, findings=(), decision=decision)
    return EditResult(assessment=assessment, refusal=why)
