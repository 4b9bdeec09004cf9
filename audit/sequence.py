"""Edits kept one after the other in one model, until what they add up to leaves the policy's bounds.

Each edit is probed, computed, bounded and checked on the model with all that was kept before it. One that alone leads the
accumulated perplexity or the accumulated norm of the weight over its bound is rolled back, and with it the sequence is closed:
everything after it is refused. Public Python API::

    with EditSequence(GuardedEditor.load("smollm2-135m")) as sequence:
        results = [sequence.edit(request) for request in requests]
        print(sequence.closed, sequence.retained())
        sequence.guard.setup.lm.model.save_pretrained("edited")

At the end of the block the weights are those of before. `iter_sequence_records` is the same as records of an audit. Out of
scope: undoing one edit of several.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from functools import partial
from typing import NamedTuple, Self

import torch

from ..probes.errors import EditguardError, InputError
from ..probes.model.fingerprint import tensor_hash
from ..probes.requests.request import EditRequest
from ..reports.log.schema import EditRecord
from ..reports.log.types import Rate
from ..reports.text import printable
from ..reports.verdict.edit_sequence import closes_sequence
from ..suites.checks.accumulated_drift import AccumulatedDrift
from ..suites.served_answer import served
from .guard import Assessment, EditResult, GuardedEditor, Proposal
from .policy import Action, Decision
from .run.execute import proposal_or_none, propose_each, record_or_error
from .setup import Progress
from .transaction import Transaction

__all__ = ["EditSequence", "KeptEdit", "iter_sequence_records", "retention_rate"]


class KeptEdit(NamedTuple):
    """An edit that is in the model, and what is put before its prompt where it is served."""

    request: EditRequest
    prefix: str | None
    needs_prefix: bool

    @property
    def is_served(self) -> bool:
        """Whether it was served when it was made: an edit that needs a prefix may be sound and served behind none."""
        return self.prefix is not None or not self.needs_prefix


class EditSequence:
    """A guard that keeps what is sound; as a context manager it takes everything out again at the end."""

    def __init__(self, guard: GuardedEditor) -> None:
        """Measures the model as it is: the origin. Raises `NotFinite` and `InputError` as an audit does."""
        if guard.setup.origin is not None:
            raise InputError(
                "This guard belongs to a sequence already, whose origin would be forgotten; give the guard that it began with."
            )
        setup = guard.setup.with_origin()
        self._weight = setup.site.weight.detach().clone()
        self._hash = tensor_hash(setup.site.weight)
        self._guard = self._first = replace(guard, setup=setup, checks=(*guard.checks, AccumulatedDrift.name))
        self._kept: list[KeptEdit] = []
        self.closed: str | None = None
        """Why nothing more is edited; None while the sequence is open."""

    def __enter__(self) -> Self:
        """Return the sequence."""
        return self

    def __exit__(self, *_: object) -> None:
        """Take everything out."""
        self.undo()

    @property
    def guard(self) -> GuardedEditor:
        """The guard of the model as it is now."""
        return self._guard

    @property
    def kept(self) -> Sequence[KeptEdit]:
        """The edits in the model, in the order in which they were made."""
        return tuple(self._kept)

    def edit(self, request: EditRequest, editor: str | None = None) -> EditResult:
        """Make the edit on the model as it is and keep it if it and all that was kept with it are sound.

        Once the sequence is closed every request is refused, and the model is not touched.
        """
        if self.closed is not None:
            return _refused(request, self.closed)
        return self._keep(*self._guard.propose([self._guard.assess(request, editor)]))

    def _keep(self, proposal: Proposal) -> EditResult:
        """Make an edit that the guard of the model as it is now proposed."""
        before = self._guard.setup.site.weight.detach().clone()
        result = self._guard.keep(proposal)
        request = proposal.assessment.request
        if result.kept:
            assert result.update is not None  # it was written
            self._move_on(KeptEdit(request, result.prefix, result.update.needs_prefix), before)
        self._close(request.id, [(one.check, one.message) for one in result.failures])
        return result

    def _close(self, name: str, failed: Sequence[tuple[str, str]]) -> None:
        """Close where the edit `name` was sound by itself: what fails by itself too is undone, and the next may be better."""
        if closes_sequence(check for check, _ in failed):
            self.closed = (
                f"the sequence of edits is closed since {name!r}: {'; '.join(message for _, message in failed)}; ship what was "
                "kept, or raise the bound in the policy if you can justify it"
            )

    def _again(self, request: EditRequest, editor: str | None, record: EditRecord) -> None:
        """Make an edit that `record` found sound and kept, and check nothing but the hash of its weight.

        Raises `InputError` where the weight is another one now.
        """
        unchecked = replace(self._guard, checks=())
        (proposal,) = unchecked.propose([unchecked.assess(request, editor)])
        assert record.weights is not None  # it was kept
        update = proposal.writable
        if update is None:
            raise InputError(_not_again(request, f"is refused ({proposal.refusal})"))
        before = self._guard.setup.site.weight.detach().clone()
        with Transaction(self._guard.setup.site, update) as transaction:
            if transaction.edited != record.weights.edited:
                told = f"gives the weight {transaction.edited[:12]} instead of {printable(str(record.weights.edited)[:12])}"
                raise InputError(_not_again(request, told))
            transaction.commit()
        prefix = None if record.update is None else record.update.prefix
        self._move_on(KeptEdit(request, prefix, update.needs_prefix), before)

    def _move_on(self, kept: KeptEdit, before: torch.Tensor) -> None:
        """Make ready for the next edit; where that fails, `before` is the weight again."""
        try:
            setup = self._guard.setup.with_edit_kept()
        except BaseException:
            with torch.no_grad():
                self._guard.setup.site.weight.copy_(before)
            raise
        self._guard = replace(self._guard, setup=setup)
        self._kept.append(kept)

    def undo(self) -> None:
        """Take all kept edits out again; the weight is proved to be that of the origin. Raises `EditguardError`."""
        site = self._first.setup.site
        with torch.no_grad():
            site.weight.copy_(self._weight)
        self._guard, self._kept, self.closed = self._first, [], None
        if (now := tensor_hash(site.weight)) != self._hash:
            raise EditguardError(
                f"The weight {site.path} hashes to {now[:12]} after the sequence was undone instead of {self._hash[:12]}; the "
                "model in memory must not be used: load it again."
            )

    def retained(self) -> list[bool | None]:
        """Return for each kept edit whether the model as it is now says its target as it was served then.

        None for an edit that was served behind no prefix when it was made.
        """
        lm = self._guard.setup.lm
        return [served(lm, one.request, one.prefix).says if one.is_served else None for one in self._kept]


def retention_rate(said: Sequence[bool | None]) -> Rate:
    """Return what `EditSequence.retained` gave as counts."""
    passed, failed = said.count(True), said.count(False)
    rate = passed / len(said) if said else None
    return Rate(passed=passed, failed=failed, not_judged=said.count(None), total=len(said), rate=rate)


def iter_sequence_records(
    sequence: EditSequence,
    requests: Sequence[EditRequest],
    editor: str | None,
    begun: Sequence[EditRecord],
    progress: Progress = lambda *_: None,
) -> Iterator[EditRecord]:
    """Yield one record a request, in order; what `begun` holds is made again where it was kept, and not recorded twice."""
    for index, (request, record) in enumerate(zip(requests, begun, strict=False)):
        if record.weights is not None and record.weights.kept:
            sequence._again(request, editor, record)
        failed = [(one.check, one.message) for one in record.measurements if one.verdict in ("fail", "unmeasured")]
        sequence._close(record.id, failed)
        progress("edits made again", index + 1, len(begun))
    for index in range(len(begun), len(requests)):
        request = requests[index]
        if sequence.closed is not None:
            yield record_or_error(sequence.guard.setup, request, index, partial(sequence.edit, request))
            continue
        (made,) = propose_each(sequence.guard, [request], editor)
        yield record_or_error(
            sequence.guard.setup, request, index, partial(_kept, sequence, made), proposal_or_none(made)
        )


def _kept(sequence: EditSequence, made: Proposal | Exception) -> EditResult:
    if isinstance(made, Exception):
        raise made
    return sequence._keep(made)


def _not_again(request: EditRequest, what: str) -> str:
    return (
        f"The edit {request.id!r} was kept when the log was begun and now {what}; go on with the versions and the machine that "
        "it was begun with, or add --overwrite instead of --resume."
    )


def _refused(request: EditRequest, why: str) -> EditResult:
    return EditResult(Assessment(request, None, (), Decision(Action.REFUSE, None, (why,))), refusal=why)
