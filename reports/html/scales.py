"""The figures of one edit on scales, beside the band of ordinary subjects and the threshold of a probe.

Three scales where the log holds them: the size of the update, the two denominators that it follows from, and the cosine
of the key with no prefix and those after prefixes. Each comes with the same in words. Places are per cent of the scale's
length. Out of scope: how they are drawn (the templates).
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, NamedTuple

from ..log.header import ThresholdRecord
from ..log.types import DENOMINATOR
from ..numbers import format_number

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from ..log.schema import ControlRecord, EditRecord, Keys

__all__ = ["Scale", "Spot", "build_scales"]

_SIZE, _RATIO, _COSINE = "predicted_relative_norm", "ratio", "cosine"
_SHIFT = "key-shift"
_ORDINARY = ("0.01", "0.99")
_MARGIN, _FAR = math.log(1.5), 700.0
"""Of a scale's ends: beyond what is shown, and where numbers end; both as natural logarithms."""


class Spot(NamedTuple):
    """A value on the scale.

    `applied` is false for the edit as asked, and true for the update that was applied or for keys after a prefix.
    """

    applied: bool
    place: float
    text: str


@dataclass(frozen=True, kw_only=True)
class Scale:
    """One scale: ends, spots, the band of ordinary subjects and the threshold, where the log holds them.

    `beyond` says whether the edit as asked lies on the threshold's wrong side; null without a threshold.
    """

    name: str
    ends: tuple[str, str]
    spots: tuple[Spot, ...]
    band: tuple[float, float] | None
    bound: float | None
    text: str
    beyond: bool | None


@dataclass(frozen=True, kw_only=True)
class _Reading:
    """The values of one scale, in its own unit, with the words for each."""

    name: str
    requested: float
    requested_label: str
    applied: float | None = None
    applied_label: str = ""
    bound: float | None
    ordinary: tuple[float, float] | None
    too_high: bool


def build_scales(record: EditRecord | ControlRecord, thresholds: Sequence[ThresholdRecord]) -> list[Scale]:
    """Return the scales that `record` has figures for.

    A figure that was not measured, or has no place on a scale, gets none.
    """
    if record.keys is None:
        return []
    rules = {(rule.probe, rule.metric): rule for rule in thresholds}
    update_norm = record.update.relative_norm if record.update else None
    readings = [_read_size(record.keys, update_norm, rules), _read_denominators(record.keys, rules)]
    return [
        *(_make_logarithmic_scale(reading) for reading in readings if reading),
        *_make_cosine_scale(record.keys, rules),
    ]


_Rules = dict[tuple[str, str], ThresholdRecord]


def _read_size(keys: Keys, update_norm: float | None, rules: _Rules) -> _Reading | None:
    if not keys.predicted_relative_norm or keys.predicted_relative_norm < 0:
        return None
    rule = rules.get((DENOMINATOR, _SIZE))
    return _Reading(
        name="Size of the update, ‖Δ‖ / ‖W‖",
        requested=keys.predicted_relative_norm,
        requested_label="as published, at most",
        applied=update_norm or None,
        applied_label="the update itself",
        bound=rule.value if rule else None,
        ordinary=_read_ordinary_band(rule),
        too_high=True,
    )


def _read_denominators(keys: Keys, rules: _Rules) -> _Reading | None:
    if not keys.denominator:
        return None
    plain, rule = rules.get((DENOMINATOR, DENOMINATOR)), rules.get((DENOMINATOR, _RATIO))
    under = abs(keys.denominator_prefixed) if keys.denominator_prefixed else None
    bounds = [plain.value if plain else None, rule.value * under if rule and rule.value and under else None]
    ordinary = _read_ordinary_band(rule)
    return _Reading(
        name="Denominator, |u · k_u|",
        requested=abs(keys.denominator),
        requested_label="no prefix",
        applied=under,
        applied_label="after prefixes",
        bound=max((bound for bound in bounds if bound), default=None),
        ordinary=(ordinary[0] * under, ordinary[1] * under) if ordinary and under else _read_ordinary_band(plain),
        too_high=False,
    )


def _make_cosine_scale(keys: Keys, rules: _Rules) -> Iterator[Scale]:
    if keys.cosine is not None and -1.001 < keys.cosine < 1.001:
        rule = rules.get((_SHIFT, _COSINE))
        reading = _Reading(
            name="Cosine of the key with no prefix and those after prefixes",
            requested=keys.cosine,
            requested_label="no prefix",
            bound=rule.value if rule else None,
            ordinary=_read_ordinary_band(rule),
            too_high=False,
        )
        yield _make_scale(reading, lambda value: min(100.0, max(0.0, 50 * (value + 1))), ("−1", "1"))


def _read_ordinary_band(rule: ThresholdRecord | None) -> tuple[float, float] | None:
    if rule is None or not set(_ORDINARY) <= set(rule.quantiles):
        return None
    low, high = (rule.quantiles[name] for name in _ORDINARY)
    return low, high


def _make_logarithmic_scale(reading: _Reading) -> Scale:
    """Return a logarithmic scale that reaches a little beyond every value on it."""
    reading = replace(
        reading,
        applied=reading.applied if _has_place(reading.applied) else None,
        bound=reading.bound if _has_place(reading.bound) else None,
        ordinary=reading.ordinary if reading.ordinary and all(map(_has_place, reading.ordinary)) else None,
    )
    shown = [
        math.log(value)
        for value in (reading.requested, reading.applied, reading.bound, *(reading.ordinary or ()))
        if value is not None
    ]
    low, high = max(min(shown) - _MARGIN, -_FAR), min(max(shown) + _MARGIN, _FAR)

    def place(value: float) -> float:
        return min(100.0, max(0.0, 100 * (math.log(value) - low) / (high - low)))

    return _make_scale(reading, place, (format_number(math.exp(low), 2), format_number(math.exp(high), 2)))


def _has_place(value: float | None) -> bool:
    return value is not None and 0 < value < math.inf


def _make_scale(reading: _Reading, place: Callable[[float], float], ends: tuple[str, str]) -> Scale:
    spots = [Spot(False, place(reading.requested), f"{reading.requested_label} {format_number(reading.requested, 3)}")]
    if reading.applied is not None:
        spots.append(Spot(True, place(reading.applied), f"{reading.applied_label} {format_number(reading.applied, 3)}"))
    beyond = (
        None
        if reading.bound is None
        else reading.requested > reading.bound
        if reading.too_high
        else reading.requested < reading.bound
    )
    band = None
    if reading.ordinary:
        start, end = map(place, reading.ordinary)
        band = (start, end - start)
    return Scale(
        name=reading.name,
        ends=ends,
        spots=tuple(spots),
        band=band,
        bound=None if reading.bound is None else place(reading.bound),
        text=_describe(reading, spots, beyond),
        beyond=beyond,
    )


def _describe(reading: _Reading, spots: Sequence[Spot], beyond: bool | None) -> str:
    words = ", ".join(spot.text for spot in spots)
    if reading.bound is not None:
        side = "at most" if reading.too_high else "at least"
        verdict = ("too large" if reading.too_high else "too small") if beyond else "within"
        words += f"; as asked {verdict}, threshold {side} {format_number(reading.bound, 3)}"
    if reading.ordinary:
        words += (
            f"; ordinary subjects {format_number(reading.ordinary[0], 3)} to {format_number(reading.ordinary[1], 3)}"
        )
    return words
