"""The command ``list``: all probes, checks, editors, metrics and layouts, those of other packages included."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from enum import StrEnum
from typing import Annotated, NamedTuple

import typer

from .console import output, print_indented
from .options import Json, takes_records

__all__ = ["KINDS", "ListKind", "ListedName", "list_names"]


class ListKind(StrEnum):
    """What can be listed."""

    PROBES = "probes"
    CHECKS = "checks"
    EDITORS = "editors"
    METRICS = "metrics"
    LAYOUTS = "layouts"


class ListedName(NamedTuple):
    """A name as it is given on the command line or written in a file, with one line about it."""

    name: str
    description: str


def _probes() -> Iterator[ListedName]:
    from ...probes.probe import PROBES

    yield from (ListedName(name, cls.card.question) for name, cls in PROBES)


def _checks() -> Iterator[ListedName]:
    from ...suites.check import CHECKS

    yield from (ListedName(name, cls.card.question) for name, cls in CHECKS)


def _editors() -> Iterator[ListedName]:
    from ..editors.base import EDITORS

    # A control is run by the audit and chosen by nobody.
    yield from (ListedName(name, cls.question) for name, cls in EDITORS if not cls.control)


def _metrics() -> Iterator[ListedName]:
    from ...reports.gate.metrics import METRICS
    from ...suites.check import CHECKS

    for metric, spec in METRICS.items():
        source = ""
        if spec.condition is not None and spec.protocol is not None:
            source = f" of {spec.check.value}, {_CONDITIONS[spec.condition.value]}, protocol {spec.protocol.value}"
        yield _describe_metric(metric.value, spec.kind.value, spec.allowed, source)
    for check, cls in CHECKS:
        for figure in cls.metrics:
            yield _describe_metric(f"{check}/{figure.name}", figure.kind, figure.allowance)


def _describe_metric(name: str, kind: str, allowance: float | None, source: str = "") -> ListedName:
    allowed = "not judged by default" if allowance is None else f"may be {allowance:.0%} worse by default"
    figure, comparison = _MEASURES[kind]
    return ListedName(name, f"{figure}{source}, {comparison}; {allowed}.")


_MEASURES = {
    "rate": ("Rate", "compared in percentage points"),
    "ratio": ("Ratio", "compared relatively"),
    "worst": ("Worst perplexity ratio of all edits", "compared relatively"),
}
_CONDITIONS = {"unprefixed": "no prefix", "prefixed": "after a prefix", "served": "as served"}


def _layouts() -> Iterator[ListedName]:
    from ...probes.requests.layout import LAYOUTS

    yield from (ListedName(name, layout.summary) for name, layout in LAYOUTS)


KINDS: Mapping[ListKind, Callable[[], Iterator[ListedName]]] = {
    ListKind.PROBES: _probes,
    ListKind.CHECKS: _checks,
    ListKind.EDITORS: _editors,
    ListKind.METRICS: _metrics,
    ListKind.LAYOUTS: _layouts,
}
"""For each kind the function that yields its names, sorted."""


@takes_records()
def list_names(
    kind: Annotated[ListKind | None, typer.Argument(help="Which names to list. Default: all.")] = None,
    as_json: Json = False,
) -> None:
    """List the probes, checks, editors, metrics and layouts that are installed, with one line about each.

    Probes and checks are named in a policy, editors with --editor, metrics with --max-regress.

    Example: editguard list probes
    """
    listed = {name: list(KINDS[name]()) for name in ([kind] if kind else ListKind)}
    if as_json:
        typer.echo(json.dumps({name.value: [entry._asdict() for entry in entries] for name, entries in listed.items()}))
        return
    console = output()
    for name, entries in listed.items():
        console.print(name.value.capitalize(), style="bold")
        for entry in entries:
            print_indented(console, f"{entry.name}: {entry.description}")
