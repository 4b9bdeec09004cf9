"""How much worse a metric may be: ``METRIC:5%``, read and checked.

Of a rate 5 % and 5pp both mean five percentage points; of a perplexity ratio 5 % means that it may be larger by a
twentieth. ``off`` leaves a metric out. A metric that is not named keeps its default.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from types import MappingProxyType

from ..errors import AllowanceError
from .metrics import METRICS, MetricKind, Metric, related_metrics

__all__ = ["Allowances", "read_allowances"]

_AMOUNT = re.compile(r"(\d+(?:\.\d+)?|\.\d+)\s*(%|pp)")
_HINT = "write METRIC:5% or METRIC:off, for example efficacy-prefixed:2%"


@dataclass(frozen=True)
class Allowances:
    """`limits` by metric, as shares of 1; `asked` are those that the user named, which must then be measured."""

    limits: MappingProxyType[Metric, float]
    asked: frozenset[Metric]


def read_allowances(given: Iterable[str] = ()) -> Allowances:
    """Return the allowances in force; raises `AllowanceError` for a wrong one, with what was meant."""
    limits = {metric: spec.allowed for metric, spec in METRICS.items() if spec.allowed is not None}
    asked: set[Metric] = set()
    for text in given:
        name, _, amount = text.partition(":")
        metric = _metric(name.strip(), text)
        if metric in asked:
            raise AllowanceError(f"The allowance {text!r} names a metric for the second time; give one for each.")
        asked.add(metric)
        limit = _limit(metric, amount.strip(), text)
        if limit is None:
            limits.pop(metric, None)
        else:
            limits[metric] = limit
    order = [metric for metric in METRICS if metric in limits]
    return Allowances(MappingProxyType({metric: limits[metric] for metric in order}), frozenset(asked & set(limits)))


def _metric(name: str, text: str) -> Metric:
    if name in {metric.value for metric in Metric}:
        return Metric(name)
    near = _meant(name)
    hint = f"did you mean {_either(near)}?" if near else f"known are {', '.join(Metric)}"
    raise AllowanceError(f"The allowance {text!r} names no metric that is known: {hint}")


def _meant(name: str) -> list[str]:
    """Return what `name` may have meant, also under the other condition: which of the two was wanted nobody can tell."""
    # Half a name means the usual protocol, which stands before the others.
    names = {re.sub("-(un)?prefixed.*", "", metric): metric for metric in reversed(Metric)} | {
        m.value: m for m in Metric
    }
    near = difflib.get_close_matches(name, names, n=1)
    return [one.value for one in related_metrics(names[near[0]])] if near else []


def _either(names: Sequence[str]) -> str:
    *others, last = map(repr, names)
    return f"{', '.join(others)} or {last}" if others else last


def _limit(metric: Metric, amount: str, text: str) -> float | None:
    if amount == "off":
        return None
    found = _AMOUNT.fullmatch(amount)
    if found is None:
        raise AllowanceError(f"The allowance {text!r} has no amount with its unit; {_HINT}.")
    if found[2] == "pp" and METRICS[metric].kind is not MetricKind.RATE:
        raise AllowanceError(f"The allowance {text!r} is in points, but {metric.value} is compared relatively; use %.")
    share = float(found[1]) / 100
    if METRICS[metric].kind is MetricKind.RATE and share > 1:
        raise AllowanceError(f"The allowance {text!r} is more than a rate can fall; give at most 100%.")
    return share
