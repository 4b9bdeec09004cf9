"""The result of an audit in sequence: how many edits were kept, how far they moved the model, how many still hold.

The log's own hashes must agree: each edit starts from the weight that the edit before it left. Pure functions of the log.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from ..log.types import DRIFT, DRIFT_NORM, DRIFT_RATIO, Count, Model, Rate
from ..numbers import format_number, format_ratio
from ..text import count_noun, quote_names

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from ..log.file import Log
    from ..log.schema import EditRecord, Footer, MeasurementRecord

__all__ = [
    "SequenceDrift",
    "SequenceTally",
    "closes_sequence",
    "describe_sequence",
    "sequence_drift",
    "sequence_reasons",
    "tally_sequence",
]


class SequenceTally(Model):
    """Counts of a sequence. Ratio and norm compare the model after its last kept edit with the model before the first."""

    kept: Count
    closed: str | None = None
    """Id of the edit that would have passed a bound of the accumulated drift; all edits after it were refused."""
    perplexity_ratio: float | None
    relative_norm: float | None
    retained: Rate | None
    """Kept edits whose target the model still says at the end, as they are served; null for an unfinished audit."""


class SequenceDrift(NamedTuple):
    """The accumulated drift after one edit of a sequence; None where it was not measured."""

    ratio: MeasurementRecord | None
    norm: MeasurementRecord | None


def sequence_drift(record: EditRecord) -> SequenceDrift:
    """Return the drift of the model with the edit of `record` in it."""
    drift = {measurement.metric: measurement for measurement in record.measurements if measurement.check == DRIFT}
    return SequenceDrift(drift.get(DRIFT_RATIO), drift.get(DRIFT_NORM))


def tally_sequence(log: Log) -> SequenceTally | None:
    """Return the counts of the sequence; None if each edit was undone before the next."""
    if not log.header.in_sequence:
        return None
    kept_edits = [record for record in log.edits if _kept(record)]
    last = sequence_drift(kept_edits[-1]) if kept_edits else SequenceDrift(None, None)
    return SequenceTally(
        kept=len(kept_edits),
        closed=next(_closing(log), None),
        perplexity_ratio=None if last.ratio is None else last.ratio.value,
        relative_norm=None if last.norm is None else last.norm.value,
        retained=None if log.footer is None else log.footer.retained,
    )


def describe_sequence(tally: SequenceTally, edits: int) -> str:
    """Return the tally of `edits` as one clause in words."""
    sentence = f"{tally.kept} of {count_noun(edits, 'edit')} kept in the model"
    if tally.closed is not None:
        sentence += f" until {tally.closed!r} closed it"
    if tally.perplexity_ratio is not None and tally.relative_norm is not None:
        perplexity, norm = format_ratio(tally.perplexity_ratio), format_number(tally.relative_norm)
        sentence += (
            f", with perplexity at {perplexity} times its first value and the weight moved by {norm} of its norm"
        )
    if tally.retained is None:
        return f"{sentence}; how many still hold at the end was not measured"
    sentence += f"; at the end it gave the targets of {tally.retained.passed} of {tally.retained.total} of them"
    return f"{sentence}{_unserved(tally.retained)}"


def _unserved(retained: Rate) -> str:
    """Return in brackets how many were not asked; nothing if all were."""
    return (
        f" ({retained.not_judged} of them have no prefix that serves them, and were not asked)"
        if retained.not_judged
        else ""
    )


def sequence_reasons(log: Log) -> Iterator[str]:
    """Yield why a sequence may not ship: its hashes form no chain, or too many of its edits do not hold at the end."""
    yield from _broken_chain(log)
    for name in _closing(log):
        yield f"The sequence is closed since {name!r}: with it the accumulated drift would pass its bound."
    if log.header.in_sequence and log.footer is not None:
        yield from _lost(log, log.footer)


def _broken_chain(log: Log) -> Iterator[str]:
    """Yield the first edit that does not start from the weight before it, or that was kept outside a sequence."""
    left: dict[str, str | None] = {}
    for control in log.controls:
        if control.weights is not None:
            left = {**control.weights.before, **left}
    for record in log.edits:
        if record.weights is None:
            continue
        if _kept(record) and not log.header.in_sequence:
            yield f"Edit {record.id!r} was left in the model, though each edit is undone before the next."
            return
        before = record.weights.before
        if log.header.in_sequence and any(left.get(path, value) != value for path, value in before.items()):
            yield f"Edit {record.id!r} does not start from the weight that the edit before it left."
            return
        left |= record.weights.edited if _kept(record) else before


def _lost(log: Log, footer: Footer) -> Iterator[str]:
    retained = footer.retained
    kept_count = sum(_kept(record) for record in log.edits)
    if retained is None or retained.total != kept_count:
        yield f"It was not measured how many of {count_noun(kept_count, 'kept edit')} still hold at the end."
        return
    bound = log.header.policy.get("min_retained")
    least = float(bound) if isinstance(bound, int | float) else 1.0
    # The quotient is compared, since the bound was written as one: 0.28 * 25 is more than 7.
    if kept_count and retained.passed / kept_count < least:
        lost_ids = f"; lost: {quote_names(footer.lost)}" if footer.lost else ""
        yield (
            f"Only {retained.passed} of {count_noun(kept_count, 'kept edit')} held at the end{_unserved(retained)}, "
            f"and the policy asks for {least:.0%}{lost_ids}."
        )


def closes_sequence(failed_checks: Iterable[str]) -> bool:
    """Return whether an edit that failed these checks closes its sequence. One that fails by itself is only undone."""
    return set(failed_checks) == {DRIFT}


def _closing(log: Log) -> Iterator[str]:
    """Yield the id of the edit that closed the sequence: it is sound by itself, and its drift adds up to too much."""
    for record in log.edits if log.header.in_sequence else ():
        if closes_sequence(
            measurement.check for measurement in record.measurements if measurement.verdict in ("fail", "unmeasured")
        ):
            yield record.id
            return


def _kept(record: EditRecord) -> bool:
    return record.weights is not None and record.weights.kept
