"""What a person sees in the terminal: the verdict of an audit, and the table of a probe; rich text, no logic."""

from __future__ import annotations

import math
import sys
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from ..probes.probe import Level
from ..reports.reproduction import Agreement, Experiment, Reproduction
from ..reports.schema import Rate
from ..reports.summary import Summary
from ..reports.text import counted
from .guard import Assessment
from .policy import Action
from .setup import Progress

__all__ = ["ProbeTable", "bars", "lines", "print_reproduction", "print_summary", "probe_line"]

_EVERY = 20.0
"""Seconds between two lines of progress in a file."""

_COLOURS = {"pass": "bold green", "fail": "bold red", "void": "bold magenta"}
_ACTIONS = {Action.ALLOW: "green", Action.REWRITE: "yellow", Action.REFUSE: "red"}


def probe_line(assessment: Assessment, source: str) -> dict[str, Any]:
    """Return one JSON object of ``probe --json`` for an edit of `source`; a number that is not finite is null."""
    seen = assessment.evidence
    return {
        "id": assessment.request.id,
        "source": source,
        "decision": assessment.decision.action.value,
        "first_token": None if seen is None else seen.keys.position.is_first_token,
        "denominator": _number(None if seen is None else seen.denominator),
        "denominator_prefixed": _number(None if seen is None else seen.denominator_prefixed),
        "denominator_ratio": _number(None if seen is None else seen.ratio),
        "cosine": _number(None if seen is None else seen.cosine),
        "contexts": 0 if seen is None else len(seen.keys.keys),
        "findings": [
            {
                "probe": f.probe,
                "level": f.level.value,
                "value": f.value,
                "threshold": f.threshold,
                "unit": f.unit,
                "message": f.message,
            }
            for f in assessment.findings
        ],
        "reasons": list(assessment.decision.reasons),
    }


def _number(value: float | None) -> float | None:
    return value if value is not None and math.isfinite(value) else None


class ProbeTable:
    """The decisions about the edits of one file, printed at the end of a probe run."""

    def __init__(self, title: str | None = None) -> None:
        """`title` names the file where there are several."""
        columns = "id", "subject", "decision", "|u.k_u|", "ratio", "cosine", "why"
        self._table = Table(*columns, expand=True, title=None if title is None else escape(title))
        self._counts = dict.fromkeys(Action, 0)

    def add(self, assessment: Assessment) -> None:
        """Add one request."""
        action, seen = assessment.decision.action, assessment.evidence
        self._counts[action] += 1
        fired = [f.probe for f in assessment.findings if f.level in (Level.RISK, Level.ERROR)]
        fired += [f"{f.probe}: {f.message}" for f in assessment.findings if f.level is Level.NOTICE]
        why = assessment.decision.reasons[0] if action is Action.REFUSE else ", ".join(fired)
        numbers = ["-"] * 3 if seen is None else [f"{seen.denominator:.4g}", f"{seen.ratio:.3g}", f"{seen.cosine:.3f}"]
        self._table.add_row(
            escape(assessment.request.id), escape(assessment.request.subject),
            f"[{_ACTIONS[action]}]{action.value}[/]", *numbers, escape(why),
        )  # fmt: skip

    def show(self, skipped: int) -> None:
        """Print table and counts."""
        console = Console()
        console.print(self._table)
        counts = ", ".join(f"{count} {action.value}" for action, count in self._counts.items())
        console.print(
            f"{counted(sum(self._counts.values()), 'edit')}: {counts}; {counted(skipped, 'invalid record')} skipped"
        )


def print_summary(summary: Summary, report: Path) -> None:
    """Print the verdict, its reasons and the counts behind it."""
    console = Console()
    console.print(
        f"[{_COLOURS[summary.verdict]}]{summary.verdict.upper()}[/]  {escape(summary.model)}, layer {summary.layer}"
    )
    for reason in summary.reasons:
        console.print(f"  {escape(reason)}")
    console.print(
        f"  {counted(summary.edits, 'edit')}: {summary.allowed} allowed, {summary.rewritten} rewritten, "
        f"{summary.refused} refused; {summary.failed} failed, {summary.collapsed} collapsed; "
        f"{counted(summary.skipped_invalid, 'invalid record')} skipped"
    )
    console.print(f"  controls: {summary.controls.ok} of {summary.controls.total} showed what they must")
    if summary.needs_prefix:
        console.print(f"  made to act behind a prefix only: {summary.needs_prefix} of the edits; the report names each")
    for name, rate in summary.counts.items():
        if rate.total and name.endswith(("_unprefixed", "_prefixed")):
            console.print(f"  {name.replace('_', ' ')}: {_rate(rate)}")
    worst = summary.worst_perplexity_ratio
    known = "not measured" if worst is None else f"{worst:.4f}"
    if summary.perplexity_not_finite:
        known = f"not finite after {counted(summary.perplexity_not_finite, 'edit')}; after the others {known}"
    console.print(f"  worst perplexity ratio: {known}")
    console.print(f"  report: {escape(str(report))}", soft_wrap=True)


def print_reproduction(found: Reproduction, page: Path) -> None:
    """Print each experiment with how many of the paper's statements agree, and those that do not."""
    console = Console()
    for one in found.experiments:
        said = "not run: " + one.skipped if one.skipped else _agreements(one)
        console.print(f"{one.number:>3}  {escape(one.title)}: {escape(said)}")
        for claim in one.claims:
            if claim.agreement is Agreement.NO:
                console.print(f"     [yellow]differs[/] {escape(claim.paper)} Here: {escape(claim.here)}")
    console.print(f"  page: {escape(str(page))}", soft_wrap=True)


def _agreements(experiment: Experiment) -> str:
    counts = Counter(claim.agreement.value for claim in experiment.claims)
    return ", ".join(f"{count} {name}" for name, count in counts.items()) or "no statement of the paper to compare"


def _rate(rate: Rate) -> str:
    return f"{rate.passed} passed, {rate.failed} failed, {rate.not_judged} not judged, of {rate.total}"


@contextmanager
def bars() -> Iterator[Progress]:
    """Yield a callback that draws a bar for each stage on standard error."""
    from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeElapsedColumn
    from rich.progress import Progress as Bars

    columns = (TextColumn("{task.description:>34}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    with Bars(*columns, console=Console(stderr=True)) as drawn:
        tasks: dict[str, Any] = {}

        def show(what: str, done: int, total: int) -> None:
            if what not in tasks:
                tasks[what] = drawn.add_task(what, total=total)
            drawn.update(tasks[what], completed=done)

        yield show


def lines() -> Progress:
    """Return a callback that writes a line to standard error now and then: what a CI log can show, and no noise in it."""
    started = last = time.monotonic()

    def show(what: str, done: int, total: int) -> None:
        nonlocal last
        now = time.monotonic()
        if now - last >= _EVERY:
            last = now
            sys.stderr.write(f"{now - started:6.0f} s  {what}: {done} of {total}\n")
            sys.stderr.flush()

    return show
