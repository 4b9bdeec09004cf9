"""The records of an audit in sequence: each edit made on the model that the edits kept before it left."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

from ...reports.log.types import Rate
from ..progress import Progress, show_nothing
from .execute import proposal_or_none, propose_each, record_or_error

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from ...probes.requests.request import EditRequest
    from ...reports.log.schema import EditRecord
    from ..edit_result import EditResult, Proposal
    from ..sequence import EditSequence

__all__ = ["iter_sequence_records", "retention_rate"]


def retention_rate(retained: Sequence[bool | None]) -> Rate:
    """Return the values of `EditSequence.retained` as counts."""
    passed, failed = retained.count(True), retained.count(False)
    rate = passed / len(retained) if retained else None
    return Rate(passed=passed, failed=failed, not_judged=retained.count(None), total=len(retained), rate=rate)


def iter_sequence_records(
    sequence: EditSequence,
    requests: Sequence[EditRequest],
    editor: str | None,
    begun: Sequence[EditRecord],
    progress: Progress = show_nothing,
) -> Iterator[EditRecord]:
    """Yield one record a request, in order.

    The edits that `begun` records as kept are made again first, and not recorded twice.
    """
    for index, (request, record) in enumerate(zip(requests, begun, strict=False)):
        if record.weights is not None and record.weights.kept:
            sequence.repeat_edit(request, editor, record)
        failures = [(row.check, row.message) for row in record.measurements if row.verdict in ("fail", "unmeasured")]
        sequence.close_after(record.id, failures)
        progress("edits made again", index + 1, len(begun))
    for index in range(len(begun), len(requests)):
        request = requests[index]
        if sequence.closed is not None:
            yield record_or_error(sequence.guard.setup, request, index, partial(sequence.edit, request))
            continue
        (proposal,) = propose_each(sequence.guard, [request], editor)
        make_edit = partial(_commit_or_raise, sequence, proposal)
        yield record_or_error(sequence.guard.setup, request, index, make_edit, proposal_or_none(proposal))


def _commit_or_raise(sequence: EditSequence, proposal: Proposal | Exception) -> EditResult:
    if isinstance(proposal, Exception):
        raise proposal
    return sequence.commit(proposal)
