"""What an audit in sequence says as a whole: how many edits were kept, how far they moved the model, how many still hold.

Also whether the log's own hashes bear it out: each edit must have been made on the weight that the one before it left.
Pure functions of the log.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import NamedTuple

from ..log.file import Log
from ..log.schema import EditRecord, Footer, MeasurementRecord
from ..log.types import DRIFT, DRIFT_NORM, DRIFT_RATIO, Count, Model, Rate
from ..numbers import format_number, format_ratio
from ..text import count_noun, quote_names

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
    """Of a sequence of kept edits; ratio and norm against the model before the first, after the last one that was kept."""

    kept: Count
    closed: str | None = None
    """Id of the edit that would have led over a bound of the accumulated drift; everything after it was refused."""
    perplexity_ratio: float | None
    relative_norm: float | None
    retained: Rate | None
    """How many of the kept edits the model said at the end, as they are served; null while the audit is unfinished."""


class SequenceDrift(NamedTuple):
    """What one edit of a sequence measured of the accumulated drift; None where it measured none."""

    ratio: MeasurementRecord | None
    norm: MeasurementRecord | None


def sequence_drift(record: EditRecord) -> SequenceDrift:
    """Return how far the model was moved with the edit of `record` in it."""
    found = {one.metric: one for one in record.measurements if one.check == DRIFT}
    return SequenceDrift(found.get(DRIFT_RATIO), found.get(DRIFT_NORM))


def tally_sequence(log: Log) -> SequenceTally | None:
    """Return what is to be said of the sequence; None where each edit was undone before the next."""
    if not log.header.in_sequence:
        return None
    kept = [record for record in log.edits if _kept(record)]
    last = sequence_drift(kept[-1]) if kept else SequenceDrift(None, None)
    return SequenceTally(
        kept=len(kept),
        closed=next(_closing(log), None),
        perplexity_ratio=None if last.ratio is None else last.ratio.value,
        relative_norm=None if last.norm is None else last.norm.value,
        retained=None if log.footer is None else log.footer.retained,
    )


def describe_sequence(tally: SequenceTally, edits: int) -> str:
    """Return the tally of `edits` as one clause in words."""
    said = f"{tally.kept} of {count_noun(edits, 'edit')} kept in the model"
    if tally.closed is not None:
        said += f" until {tally.closed!r} closed it"
    if tally.perplexity_ratio is not None and tally.relative_norm is not None:
        perplexity, norm = format_ratio(tally.perplexity_ratio), format_number(tally.relative_norm)
        said += (
            f", which leave its perplexity at {perplexity} times what it was and its weight moved by {norm} of its norm"
        )
    if tally.retained is None:
        return f"{said}; how many still hold at the end was not measured"
    asked = f"{said}; asked again at the end it gave the targets of {tally.retained.passed} of {tally.retained.total} of them"
    return f"{asked}{_unserved(tally.retained)}"


def _unserved(retained: Rate) -> str:
    """Return in brackets how many were not asked; nothing where all were."""
    return f" ({retained.not_judged} of them served after no prefix, and not asked)" if retained.not_judged else ""


def sequence_reasons(log: Log) -> Iterator[str]:
    """Yield why a sequence may not ship: its hashes form no chain, or too many of its edits do not hold at the end."""
    yield from _broken_chain(log)
    for name in _closing(log):
        yield f"The sequence is closed since {name!r}, which would have led the accumulated drift over its bound."
    if log.header.in_sequence and log.footer is not None:
        yield from _lost(log, log.footer)


def _broken_chain(log: Log) -> Iterator[str]:
    """Yield the first edit that was not made on the weight which the one before it left, or that was kept alone."""
    starts = [control.weights.before for control in log.controls if control.weights is not None]
    left = starts[0] if starts else None
    for record in log.edits:
        if record.weights is None:
            continue
        if _kept(record) and not log.header.in_sequence:
            yield f"Edit {record.id!r} was left in the model, though each was to be made alone."
            return
        if log.header.in_sequence and left is not None and record.weights.before != left:
            yield f"Edit {record.id!r} was made on another weight than what came before it left."
            return
        left = record.weights.edited if _kept(record) else record.weights.before


def _lost(log: Log, footer: Footer) -> Iterator[str]:
    retained = footer.retained
    kept = sum(_kept(record) for record in log.edits)
    if retained is None or retained.total != kept:
        yield f"Of {count_noun(kept, 'kept edit')} it was not measured how many still hold at the end."
        return
    bound = log.header.policy.get("min_retained")
    least = float(bound) if isinstance(bound, int | float) else 1.0
    # A quotient is what the bound was written as: 0.28 * 25 is more than 7.
    if kept and retained.passed / kept < least:
        told = f"; lost: {quote_names(footer.lost)}" if footer.lost else ""
        yield (
            f"Only {retained.passed} of {count_noun(kept, 'kept edit')} held at the end{_unserved(retained)}, and the policy asks "
            f"for {least:.0%}{told}."
        )


def closes_sequence(failed: Iterable[str]) -> bool:
    """Whether an edit of which these checks failed closes its sequence: one that fails by itself is only undone."""
    return set(failed) == {DRIFT}


def _closing(log: Log) -> Iterator[str]:
    """Yield the id of the edit that closed the sequence: sound by itself, and undone for what it adds up to."""
    for record in log.edits if log.header.in_sequence else ():
        if closes_sequence(one.check for one in record.measurements if one.verdict in ("fail", "unmeasured")):
            yield record.id
            return


def _kept(record: EditRecord) -> bool:
    return record.weights is not None and record.weights.kept
