"""Figures of the logs: the records of a kind of case, and one figure of each record.

A figure that was not measured is left out of a list, and the tables say how many edits were measured.
"""

from __future__ import annotations

import statistics
from dataclasses import dataclass
from typing import TYPE_CHECKING

from ....reports.log.types import PERPLEXITY, PERPLEXITY_RATIO
from .cases import FEW, CaseKind, Cases

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from ....reports.log.schema import EditRecord, MeasurementRecord, SiteUpdate
    from .edits import Edits

__all__ = [
    "NOTHING_MEASURED",
    "TokenShare",
    "collect_figures",
    "compute_mean_median",
    "compute_share",
    "compute_spread",
    "explain_few",
    "find_measurement",
    "get_denominator",
    "get_numerator",
    "get_perplexity",
    "get_perplexity_ratio",
    "get_relative_norm",
    "has_collapsed",
    "read_key_figure",
    "select_records",
]

NOTHING_MEASURED = "No edit of this kind was measured."


def explain_few(*counts: int) -> str:
    """Return a sentence that says that too few edits were measured to judge a statement by."""
    listed = " and ".join(map(str, counts))
    return (
        f"Edits of this kind that were measured: {listed}; at least {FEW} are needed."
        if any(counts)
        else NOTHING_MEASURED
    )


@dataclass(frozen=True, kw_only=True)
class TokenShare:
    """A share over edits, with its counts."""

    mean: float | None
    """Mean over edits of the share of tokens; None where no edit has one."""
    edits: int
    """Edits that have one."""
    requested: int
    """Edits in all."""
    passed: int
    """Prompts, by the exact protocol."""
    total: int


def select_records(edits: Edits, cases: Cases, editor: str, *kinds: CaseKind) -> list[EditRecord]:
    """Return the records of one editor on some kinds of case, in the order of the file."""
    return [edits[editor][case.request.id] for case in cases.select(*kinds) if case.request.id in edits[editor]]


def collect_figures(records: Iterable[EditRecord], read: Callable[[EditRecord], float | None]) -> list[float]:
    """Return what `read` finds in the records, without records that lack it."""
    return [value for record in records if (value := read(record)) is not None]


def find_measurement(
    record: EditRecord, check: str, metric: str, condition: str = "corpus", protocol: str | None = None
) -> MeasurementRecord | None:
    """Return one measurement of a record, None where it has none."""
    return next(
        (
            measurement
            for measurement in record.measurements
            if (measurement.check, measurement.metric, measurement.condition, measurement.protocol)
            == (check, metric, condition, protocol)
        ),
        None,
    )


def get_perplexity_ratio(record: EditRecord) -> float | None:
    """Return the perplexity after the edit over that before."""
    measurement = find_measurement(record, PERPLEXITY, PERPLEXITY_RATIO)
    return None if measurement is None else measurement.value


def has_collapsed(record: EditRecord, collapse_ratio: float) -> bool | None:
    """Whether the edit destroyed the model; None where it was not made and measured.

    A perplexity that was requested and is not finite is a collapse.
    """
    measurement = find_measurement(record, PERPLEXITY, PERPLEXITY_RATIO)
    if record.weights is None or measurement is None:
        return None
    return measurement.value is None or measurement.value > collapse_ratio


def _get_only_site(record: EditRecord) -> SiteUpdate | None:
    """Return the change of an edit of one site; None for others, which no single figure describes."""
    return record.update.changes[0] if record.update is not None and len(record.update.changes) == 1 else None


def get_numerator(record: EditRecord) -> float | None:
    """Return ||v* - W k|| of an edit."""
    site = _get_only_site(record)
    return None if site is None else site.numerator


def get_denominator(record: EditRecord) -> float | None:
    """Return |u . k| of an edit."""
    site = _get_only_site(record)
    return None if site is None else site.denominator


def get_relative_norm(record: EditRecord) -> float | None:
    """Return ||Delta|| / ||W|| of an edit."""
    return None if record.update is None else record.update.relative_norm


def get_perplexity(record: EditRecord) -> float | None:
    """Return the mean perplexity after the edit of an edit."""
    measurement = find_measurement(record, PERPLEXITY, "mean")
    return None if measurement is None else measurement.value


def read_key_figure(record: EditRecord, name: str) -> float | None:
    """Return one figure of the keys, by its name in the log."""
    value = None if record.keys is None else getattr(record.keys, name)
    return None if value is None else float(value)


def compute_mean_median(values: Sequence[float]) -> tuple[float | None, float | None]:
    """Return mean and median, None for no values."""
    return (statistics.fmean(values), statistics.median(values)) if values else (None, None)


def compute_spread(values: Sequence[float]) -> tuple[float | None, float | None, float | None, float | None]:
    """Return least, mean, median and largest, None for no values."""
    return (min(values), *compute_mean_median(values), max(values)) if values else (None, None, None, None)


def compute_share(edits: Edits, cases: Cases, editor: str, kind: CaseKind, *, check: str, condition: str) -> TokenShare:
    """Return the mean share of tokens over edits, how many edits have one, and the exact protocol's passed and total."""
    records = select_records(edits, cases, editor, kind)
    # Paraphrases and neighbours stand under sentences only.
    under = "prefixed" if check == "locality" and condition != "unprefixed" else condition
    exact = "answers" if check == "locality" else check
    shares = [
        measurement
        for record in records
        if (measurement := find_measurement(record, check, check, under, "token-match")) is not None
    ]
    counts = [
        measurement
        for record in records
        if (measurement := find_measurement(record, check, exact, under, "exact")) is not None
    ]
    values = [measurement.value for measurement in shares if measurement.value is not None]
    mean = statistics.fmean(values) if values else None
    return TokenShare(
        mean=mean,
        edits=len(values),
        requested=len(records),
        passed=sum(measurement.passed for measurement in counts),
        total=sum(measurement.total for measurement in counts),
    )
