"""The key picture of one edit: its figures on scales, beside where ordinary subjects lie and where a probe fires.

Three scales where the log holds them: the size of the update, the two denominators that it follows from, and the cosine of
the bare key with those after prefixes. Each comes with the same in words; places are per cent of the scale's length. Out
of scope: how they are drawn (the templates).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

from ..log.header import ThresholdRecord
from ..log.schema import ControlRecord, EditRecord, Keys
from ..log.types import DENOMINATOR
from ..numbers import format_number

__all__ = ["Gauge", "Spot", "gauges"]

_SIZE, _RATIO, _COSINE = "predicted_relative_norm", "ratio", "cosine"
_SHIFT = "key-shift"
_ORDINARY = ("0.01", "0.99")
_MARGIN, _FAR = math.log(1.5), 700.0
"""Of a scale's ends: beyond what is shown, and where numbers end; both as natural logarithms."""


class Spot(NamedTuple):
    """A value on the scale: `made` is false for the edit as asked, and true for what was done about it."""

    made: bool
    place: float
    said: str


class Gauge(NamedTuple):
    """One scale: ends, spots, the band of ordinary subjects and the threshold, where they are known.

    `beyond` says whether the edit as asked lies on the threshold's wrong side; null without one.
    """

    name: str
    ends: tuple[str, str]
    spots: tuple[Spot, ...]
    band: tuple[float, float] | None
    bound: float | None
    said: str
    beyond: bool | None


class _Seen(NamedTuple):
    """What a gauge is made of, in the scale's own terms."""

    name: str
    asked: float
    asked_said: str
    made: float | None
    made_said: str
    bound: float | None
    ordinary: tuple[float, float] | None
    too_high: bool


def gauges(record: EditRecord | ControlRecord, thresholds: Sequence[ThresholdRecord]) -> list[Gauge]:
    """Return the scales that `record` has figures for; what was not measured, or has no place on a scale, has none."""
    if record.keys is None:
        return []
    known = {(one.probe, one.metric): one for one in thresholds}
    made = record.update.relative_norm if record.update else None
    found = [_size(record.keys, made, known), _denominators(record.keys, known)]
    return [*(_logarithmic(seen) for seen in found if seen), *_cosines(record.keys, known)]


_Known = dict[tuple[str, str], ThresholdRecord]


def _size(keys: Keys, made: float | None, known: _Known) -> _Seen | None:
    if not keys.predicted_relative_norm or keys.predicted_relative_norm < 0:
        return None
    rule = known.get((DENOMINATOR, _SIZE))
    return _Seen(
        "Size of the update, ‖Δ‖ / ‖W‖", keys.predicted_relative_norm, "as published, at most", made or None,
        "the update itself", rule.value if rule else None, _ordinary(rule), too_high=True,
    )  # fmt: skip


def _denominators(keys: Keys, known: _Known) -> _Seen | None:
    if not keys.denominator:
        return None
    plain, rule = known.get((DENOMINATOR, DENOMINATOR)), known.get((DENOMINATOR, _RATIO))
    under = abs(keys.denominator_prefixed) if keys.denominator_prefixed else None
    bounds = [plain.value if plain else None, rule.value * under if rule and rule.value and under else None]
    ordinary = _ordinary(rule)
    return _Seen(
        "Denominator, |u · k_u|", abs(keys.denominator), "bare prompt", under, "after prefixes",
        max((bound for bound in bounds if bound), default=None),
        (ordinary[0] * under, ordinary[1] * under) if ordinary and under else _ordinary(plain), too_high=False,
    )  # fmt: skip


def _cosines(keys: Keys, known: _Known) -> Iterator[Gauge]:
    if keys.cosine is not None and -1.001 < keys.cosine < 1.001:
        rule = known.get((_SHIFT, _COSINE))
        seen = _Seen(
            "Cosine of the bare key with those after prefixes", keys.cosine, "bare prompt", None, "",
            rule.value if rule else None, _ordinary(rule), too_high=False,
        )  # fmt: skip
        yield _gauge(seen, lambda value: min(100.0, max(0.0, 50 * (value + 1))), ("−1", "1"))


def _ordinary(rule: ThresholdRecord | None) -> tuple[float, float] | None:
    if rule is None or not set(_ORDINARY) <= set(rule.quantiles):
        return None
    low, high = (rule.quantiles[name] for name in _ORDINARY)
    return low, high


def _logarithmic(seen: _Seen) -> Gauge:
    """Return the gauge on a logarithmic scale that reaches a little beyond all that is shown on it."""
    seen = seen._replace(
        made=seen.made if _fits(seen.made) else None,
        bound=seen.bound if _fits(seen.bound) else None,
        ordinary=seen.ordinary if seen.ordinary and all(map(_fits, seen.ordinary)) else None,
    )
    shown = [math.log(one) for one in (seen.asked, seen.made, seen.bound, *(seen.ordinary or ())) if one is not None]
    low, high = max(min(shown) - _MARGIN, -_FAR), min(max(shown) + _MARGIN, _FAR)

    def place(value: float) -> float:
        return min(100.0, max(0.0, 100 * (math.log(value) - low) / (high - low)))

    return _gauge(seen, place, (format_number(math.exp(low), 2), format_number(math.exp(high), 2)))


def _fits(value: float | None) -> bool:
    return value is not None and 0 < value < math.inf


def _gauge(seen: _Seen, place: Callable[[float], float], ends: tuple[str, str]) -> Gauge:
    spots = [Spot(False, place(seen.asked), f"{seen.asked_said} {format_number(seen.asked, 3)}")]
    if seen.made is not None:
        spots.append(Spot(True, place(seen.made), f"{seen.made_said} {format_number(seen.made, 3)}"))
    beyond = None if seen.bound is None else seen.asked > seen.bound if seen.too_high else seen.asked < seen.bound
    band = None
    if seen.ordinary:
        start, end = map(place, seen.ordinary)
        band = (start, end - start)
    return Gauge(
        seen.name, ends, tuple(spots), band, None if seen.bound is None else place(seen.bound), _said(seen, spots, beyond), beyond
    )  # fmt: skip


def _said(seen: _Seen, spots: Sequence[Spot], beyond: bool | None) -> str:
    said = ", ".join(spot.said for spot in spots)
    if seen.bound is not None:
        side = "at most" if seen.too_high else "at least"
        verdict = ("too large" if seen.too_high else "too small") if beyond else "within"
        said += f"; as asked {verdict}, threshold {side} {format_number(seen.bound, 3)}"
    if seen.ordinary:
        said += f"; ordinary subjects {format_number(seen.ordinary[0], 3)} to {format_number(seen.ordinary[1], 3)}"
    return said
