"""How much worse a metric may be: ``METRIC:5%``, read and checked.

For a rate, 5% and 5pp both mean five percentage points. For a perplexity ratio, 5% means that it may be larger by a twentieth.
``off`` leaves a metric out. Every other metric keeps its default.

A check of another package declares a metric ``CHECK/NAME`` in the log. The declared metrics are known only when both sides are
read, so such an amount is checked then (`Allowances.with_declared`).
"""

from __future__ import annotations

import difflib
import re
from dataclasses import dataclass, field, replace
from types import MappingProxyType
from typing import TYPE_CHECKING

from ..errors import AllowanceError
from .metrics import METRICS, AnyMetricSpec, Metric, MetricKind, is_declared_name, related_metrics

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

__all__ = ["Allowances", "read_allowances"]

_AMOUNT = re.compile(r"(\d+(?:\.\d+)?|\.\d+)\s*(%|pp)")
_HINT = "write METRIC:5% or METRIC:off, for example efficacy-prefixed:2%"


@dataclass(frozen=True)
class Allowances:
    """`limits` by metric, as shares of 1; `asked` are those that the user named, which must then be measured."""

    limits: MappingProxyType[str, float]
    requested: frozenset[str]
    declared: Mapping[str, str] = field(default_factory=dict)
    """The texts of allowances for declared metrics, by metric."""

    def with_declared(self, specs: Mapping[str, AnyMetricSpec]) -> Allowances:
        """Return these allowances with those of the declared metrics; `specs` are of both sides.

        Raises `AllowanceError` for an amount that does not fit its metric. A named metric that neither side declares stays
        requested, so that the gate reports it as not measured.
        """
        limits = {name: spec.allowed for name, spec in specs.items() if spec.allowed is not None}
        for name, text in self.declared.items():
            limit = _limit(name, specs.get(name), text)
            if limit is None:
                limits.pop(name, None)
            else:
                limits[name] = limit
        requested = self.requested | (self.declared.keys() & limits.keys())
        return replace(self, limits=MappingProxyType({**self.limits, **limits}), requested=frozenset(requested))


def read_allowances(given: Iterable[str] = ()) -> Allowances:
    """Return the allowances in force; raises `AllowanceError` for a wrong one, with a suggestion."""
    limits: dict[str, float] = {m.value: spec.allowed for m, spec in METRICS.items() if spec.allowed is not None}
    texts: dict[str, str] = {}
    for text in given:
        name = text.partition(":")[0].strip()
        metric = name if is_declared_name(name) else _metric(name, text)
        if metric in texts:
            raise AllowanceError(f"The allowance {text!r} names a metric for the second time; give one for each.")
        texts[metric] = text
        limit = _limit(metric, None if is_declared_name(name) else METRICS[Metric(name)], text)
        if limit is None:
            limits.pop(metric, None)
        elif not is_declared_name(name):
            limits[metric] = limit
    order = [metric.value for metric in METRICS if metric.value in limits]
    return Allowances(
        MappingProxyType({name: limits[name] for name in order}),
        frozenset(texts.keys() & limits.keys()),
        {name: text for name, text in texts.items() if is_declared_name(name)},
    )


def _metric(name: str, text: str) -> str:
    if name in {metric.value for metric in Metric}:
        return name
    near = _suggest(name)
    hint = f"did you mean {_join_alternatives(near)}?" if near else f"write one of {', '.join(Metric)}."
    raise AllowanceError(f"Unknown metric {name!r} in the allowance {text!r}: {hint}")


def _suggest(name: str) -> list[str]:
    """Return the nearest metrics to `name`, under every condition: the user may have meant any of them."""
    # Half a name means the usual protocol, which is first in order.
    names = {re.sub("-(un)?prefixed.*", "", metric): metric for metric in reversed(Metric)} | {
        m.value: m for m in Metric
    }
    near = difflib.get_close_matches(name, names, n=1)
    return related_metrics(names[near[0]]) if near else []


def _join_alternatives(names: Sequence[str]) -> str:
    *others, last = map(repr, names)
    return f"{', '.join(others)} or {last}" if others else last


def _limit(metric: str, spec: AnyMetricSpec | None, text: str) -> float | None:
    """Return the amount of `text` as a share of 1; None for ``off``. Without `spec`, the kind is not known yet."""
    amount, kind = text.partition(":")[2].strip(), None if spec is None else spec.kind
    if amount == "off":
        return None
    match = _AMOUNT.fullmatch(amount)
    if match is None:
        raise AllowanceError(f"The allowance {text!r} has no amount with its unit; {_HINT}.")
    if match[2] == "pp" and kind not in (None, MetricKind.RATE):
        raise AllowanceError(f"The allowance {text!r} is in points, but {metric} is compared relatively; use %.")
    share = float(match[1]) / 100
    if kind is MetricKind.RATE and share > 1:
        raise AllowanceError(f"The allowance {text!r} is more than a rate can fall; give at most 100%.")
    return share
