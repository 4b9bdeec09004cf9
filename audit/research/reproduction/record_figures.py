"""Reading the logs: which records are of which kind of case, and what one figure is in them.

A figure that was not measured is left out of a list, and the tables say how many edits were measured.
"""

from __future__ import annotations

import statistics
from collections.abc import Callable, Iterable, Sequence
from typing import NamedTuple

from ....reports.log.schema import EditRecord, MeasurementRecord
from ....reports.log.types import PERPLEXITY, PERPLEXITY_RATIO
from .cases import FEW, Cases, Kind
from .edits import Edits

__all__ = [
    "NONE",
    "collapsed",
    "Share",
    "denominator",
    "few",
    "figure",
    "mean_median",
    "measured",
    "norm",
    "numerator",
    "of",
    "perplexity",
    "ratio",
    "share",
    "spread",
]

NONE = "No edit of this kind was measured."


def few(*measured: int) -> str:
    """Say that too little was measured to judge a statement by."""
    counts = " and ".join(map(str, measured))
    return f"Edits of this kind that were measured: {counts}; at least {FEW} are needed." if any(measured) else NONE


class Share(NamedTuple):
    """A share over edits, with its counts."""

    mean: float | None
    """Mean over edits of the share of tokens; None where no edit has one."""
    edits: int
    """Edits that have one."""
    asked: int
    """Edits in all."""
    passed: int
    """Prompts, by the exact protocol."""
    total: int


def of(edits: Edits, cases: Cases, editor: str, *kinds: Kind) -> list[EditRecord]:
    """Return the records of one editor on some kinds of case, in the order of the file."""
    return [edits[editor][case.request.id] for case in cases.of(*kinds) if case.request.id in edits[editor]]


def figure(records: Iterable[EditRecord], read: Callable[[EditRecord], float | None]) -> list[float]:
    """Return what `read` finds in the records, without those in which it was not measured."""
    return [value for record in records if (value := read(record)) is not None]


def measured(
    record: EditRecord, check: str, metric: str, condition: str = "corpus", protocol: str | None = None
) -> MeasurementRecord | None:
    """Return one measurement of a record, None where it has none."""
    return next(
        (one for one in record.measurements
         if (one.check, one.metric, one.condition, one.protocol) == (check, metric, condition, protocol)),
        None,
    )  # fmt: skip


def ratio(record: EditRecord) -> float | None:
    """Return the perplexity after the edit over that before."""
    found = measured(record, PERPLEXITY, PERPLEXITY_RATIO)
    return None if found is None else found.value


def collapsed(record: EditRecord, collapse_ratio: float) -> bool | None:
    """Whether the edit destroyed the model; None where it was not made and measured.

    A perplexity that was asked for and is not finite is a collapse.
    """
    found = measured(record, PERPLEXITY, PERPLEXITY_RATIO)
    if record.weights is None or found is None:
        return None
    return found.value is None or found.value > collapse_ratio


def numerator(record: EditRecord) -> float | None:
    """Return ||v* - W k|| of an edit."""
    return None if record.update is None else record.update.numerator


def denominator(record: EditRecord) -> float | None:
    """Return |u . k| of an edit."""
    return None if record.update is None else record.update.denominator


def norm(record: EditRecord) -> float | None:
    """Return ||Delta|| / ||W|| of an edit."""
    return None if record.update is None else record.update.relative_norm


def perplexity(record: EditRecord) -> float | None:
    """Return the mean perplexity after the edit of an edit."""
    found = measured(record, PERPLEXITY, "mean")
    return None if found is None else found.value


def mean_median(values: Sequence[float]) -> tuple[float | None, float | None]:
    """Return mean and median, None for no values."""
    return (statistics.fmean(values), statistics.median(values)) if values else (None, None)


def spread(values: Sequence[float]) -> tuple[float | None, float | None, float | None, float | None]:
    """Return least, mean, median and largest, None for no values."""
    return (min(values), *mean_median(values), max(values)) if values else (None, None, None, None)


def share(edits: Edits, cases: Cases, editor: str, kind: Kind, check: str, condition: str) -> Share:
    """Return the mean share of tokens over edits, how many edits have one, and the exact protocol's passed and total."""
    records = of(edits, cases, editor, kind)
    # Paraphrases and neighbours stand under sentences only.
    under = "prefixed" if check == "locality" and condition != "unprefixed" else condition
    exact = "answers" if check == "locality" else check
    shares = [one for record in records if (one := measured(record, check, check, under, "token-match")) is not None]
    counts = [one for record in records if (one := measured(record, check, exact, under, "exact")) is not None]
    values = [one.value for one in shares if one.value is not None]
    mean = statistics.fmean(values) if values else None
    return Share(mean, len(values), len(records), sum(one.passed for one in counts), sum(one.total for one in counts))
