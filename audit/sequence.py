"""Edits kept one after the other in one model, until what they add up to leaves the policy's bounds.

Each edit is probed, computed, bounded and checked on the model with all that was kept before it. One that leads the
accumulated perplexity or the accumulated norm of the weight over its bound is rolled back, and with it the sequence is closed:
everything after it is refused. Public Python API::

    sequence = EditSequence(GuardedEditor.load("smollm2-135m"))
    results = [sequence.edit(request) for request in requests]
    sequence.closed, sequence.retained()

`one_after_the_other` is the same as records of an audit. Out of scope: undoing one edit of several.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from functools import partial
from typing import NamedTuple

import torch

from ..probes.errors import InputError
from ..probes.requests import EditRequest
from ..reports.base import Rate
from ..reports.schema import EditRecord
from ..suites.accumulated import AccumulatedDrift
from ..suites.served import served
from .guard import Assessment, GuardedEditor, Result
from .making import surviving
from .policy import Action, Decision
from .transaction import Transaction

__all__ = ["EditSequence", "Kept", "one_after_the_other", "share"]


class Kept(NamedTuple):
    """An edit that is in the model, and what is put before its prompt where it is served."""

    request: EditRequest
    prefix: str | None
    needs_prefix: bool


class EditSequence:
    """A guard that keeps what is sound."""

    def __init__(self, guard: GuardedEditor) -> None:
        """Measures the model as it is: the origin. Raises `NotFinite` and `InputError` as an audit does."""
        setup = guard.setup.in_sequence()
        self._before = setup.site.weight.detach().clone()
        self._guard = self._first = replace(guard, setup=setup, checks=(*guard.checks, AccumulatedDrift.name))
        self._kept: list[Kept] = []
        self.closed: str | None = None
        """Why nothing more is edited; None while the sequence is open."""

    @property
    def guard(self) -> GuardedEditor:
        """The guard of the model as it is now."""
        return self._guard

    @property
    def kept(self) -> Sequence[Kept]:
        """The edits in the model, in the order in which they were made."""
        return tuple(self._kept)

    def edit(self, request: EditRequest, editor: str | None = None) -> Result:
        """Make the edit on the model as it is and keep it if it and all that was kept with it are sound.

        Once the sequence is closed every request is refused, and the model is not touched.
        """
        if self.closed is not None:
            return _refused(request, self.closed)
        result = self._guard.edit(request, editor)
        if result.kept and result.update is not None:
            self._move_on(Kept(request, result.prefix, result.update.needs_prefix))
        self.close_after(request.id, [one.message for one in result.failures if one.check == AccumulatedDrift.name])
        return result

    def close_after(self, name: str, left: Sequence[str]) -> None:
        """Close the sequence where the edit `name` was found to have `left` a bound."""
        if left:
            self.closed = f"the sequence of edits is closed since {name!r}: {'; '.join(left)}"

    def again(self, request: EditRequest, editor: str | None, prefix: str | None, edited: str) -> None:
        """Make an edit that was found sound and kept before, and check nothing but the hash of its weight, `edited`.

        Raises `InputError` where the weight is another one now.
        """
        (proposal,) = self._guard.propose([self._guard.assess(request, editor)])
        update = proposal.update
        if update is None or proposal.refusal is not None:
            raise InputError(_not_again(request, "is refused"))
        with Transaction(self._guard.setup.site, update) as transaction:
            if transaction.edited != edited:
                raise InputError(_not_again(request, "gives another weight"))
            transaction.commit()
        self._move_on(Kept(request, prefix, update.needs_prefix))

    def _move_on(self, kept: Kept) -> None:
        self._kept.append(kept)
        self._guard = replace(self._guard, setup=self._guard.setup.with_edit_kept())

    def undo(self) -> None:
        """Take all kept edits out again: the weight is that of the origin to the bit, or `EditguardError` says that it is not."""
        with torch.no_grad():
            self._first.setup.site.weight.copy_(self._before)
        self._first.setup.unedited()
        self._guard, self._kept, self.closed = self._first, [], None

    def retained(self) -> list[bool]:
        """Return for each kept edit whether the model as it is now says its target as it was served then.

        An edit that needs a prefix and was served behind none is not retained.
        """
        lm = self._guard.setup.lm
        return [
            (one.prefix is not None or not one.needs_prefix) and served(lm, one.request, one.prefix).says
            for one in self._kept
        ]


def _not_again(request: EditRequest, what: str) -> str:
    return (
        f"The edit {request.id!r} was kept when the log was begun and now {what}; go on with the versions and the machine that "
        "it was begun with, or add --overwrite instead of --resume."
    )


def _refused(request: EditRequest, why: str) -> Result:
    return Result(Assessment(request, None, (), Decision(Action.REFUSE, None, (why,))), refusal=why)


def one_after_the_other(
    sequence: EditSequence, requests: Sequence[EditRequest], editor: str | None, begun: Sequence[EditRecord]
) -> Iterator[EditRecord]:
    """Yield one record a request, in order; what `begun` holds is made again where it was kept, and not recorded twice."""
    for request, record in zip(requests, begun, strict=False):
        if record.weights is not None and record.weights.kept and record.update is not None:
            sequence.again(request, editor, record.update.prefix, record.weights.edited or "")
        told = [one for one in record.measurements if one.check == AccumulatedDrift.name and one.verdict != "pass"]
        sequence.close_after(record.id, [one.message for one in told])
    for index in range(len(begun), len(requests)):
        request = requests[index]
        yield surviving(sequence.guard.setup, request, index, partial(sequence.edit, request, editor))


def share(retained: Sequence[bool]) -> Rate:
    """Return how many of the kept edits are said still, as counts."""
    said = sum(retained)
    rate = said / len(retained) if retained else None
    return Rate(passed=said, failed=len(retained) - said, not_judged=0, total=len(retained), rate=rate)
