"""The other generated tables: keys of the policy, metrics and reasons of the gate, columns, options of pytest, exceptions."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from typing import Any

from editguard.audit.policy import Policy
from editguard.audit.pytest_plugin.options import EDITS, OPTIONS
from editguard.probes import errors as errors_of_models
from editguard.reports import errors as errors_of_reports
from editguard.reports.gate.metrics import METRICS, MetricKind
from editguard.reports.gate.result import ACCEPTABLE, OVERRIDABLE, ReasonCode
from editguard.reports.outputs import parquet

from .fields import type_text
from .files import explained
from .meanings import phrases
from .pages import table

__all__ = [
    "edits_columns",
    "exceptions",
    "gate_metrics",
    "gate_reasons",
    "measurements_columns",
    "policy_keys",
    "pytest_options",
]

_COMPARED = {
    MetricKind.RATE: "pooled rate, in points",
    MetricKind.RATIO: "geometric mean, relatively",
    MetricKind.WORST: "largest, relatively, without an interval",
}


def policy_keys() -> str:
    """Return each key with type, default and meaning."""
    rows = [
        (f"`{name}`", type_text(field), _toml(getattr(Policy(), name)), explained(Policy, name))
        for name, field in Policy.model_fields.items()
    ]
    return table(("key", "type", "default", "meaning"), rows)


def _toml(value: object) -> str:
    if isinstance(value, dict):
        return ", ".join(f'`{name} = "{one}"`' for name, one in value.items())
    if isinstance(value, bool):
        return f"`{str(value).lower()}`"
    return f'`"{value}"`' if isinstance(value, str) else f"`{value}`"


def gate_metrics() -> str:
    """Return each metric with what it is of an edit, how it is compared and how much worse it may be."""
    said = phrases("gate metrics", [metric.value for metric in METRICS])
    rows = [
        (
            f"`{metric.value}`",
            said[metric.value],
            _COMPARED[spec.kind],
            "" if spec.allowed is None else f"{100 * spec.allowed:g}%",
        )
        for metric, spec in METRICS.items()
    ]
    return table(("metric", "of each edit", "compared by", "allowance"), rows)


def gate_reasons() -> str:
    """Return each reason with when it holds, and whether somebody may lift it."""
    said = phrases("gate reasons", [reason.value for reason in ReasonCode])
    rows = [
        (
            f"`{reason.value}`",
            said[reason.value],
            "yes" if reason in ACCEPTABLE else "",
            "yes" if reason in OVERRIDABLE else "no",
        )
        for reason in ReasonCode
    ]
    return table(("reason", "when", "`--accept`", "can be overridden"), rows)


def edits_columns() -> str:
    """Return the columns of edits.parquet."""
    return _columns("edits.parquet", parquet.EDITS)


def measurements_columns() -> str:
    """Return the columns of measurements.parquet."""
    return _columns("measurements.parquet", parquet.MEASUREMENTS)


def _columns(name: str, columns: Mapping[str, str]) -> str:
    said = phrases(name, list(columns))
    return table(
        ("column", "type", "meaning"), [(f"`{column}`", kind, said[column]) for column, kind in columns.items()]
    )


def pytest_options() -> str:
    """Return each option of the plugin with its ini key."""
    rows = [
        (
            f"`{one.flag}`",
            f"`{one.ini}`",
            f"`{one.metavar}`",
            "" if one.default is None else f"`{one.default}`",
            one.help,
        )
        for one in (EDITS, *OPTIONS)
    ]
    return table(("option", "ini key", "value", "default", "meaning"), rows)


def exceptions() -> str:
    """Return each exception with its parent, its exit code and its first sentence."""
    found: list[Any] = [
        cls
        for module in (errors_of_models, errors_of_reports)
        for cls in vars(module).values()
        if inspect.isclass(cls) and issubclass(cls, Exception) and cls.__module__ == module.__name__
    ]
    rows = [
        (
            f"`{cls.__module__}.{cls.__name__}`",
            f"`{cls.__base__.__name__}`",
            str(cls.exit_code),
            (cls.__doc__ or "").partition("\n\n")[0],
        )
        for cls in found
    ]
    return table(("exception", "is a", "exit code", "meaning"), rows)
