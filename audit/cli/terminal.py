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
from rich.text import Text

from ...probes.probe import Level
from ...reports.log.types import Rate
from ...reports.reproduction.schema import Agreement, Experiment, Reproduction
from ...reports.text import count_noun, visible
from ...reports.verdict.edit_sequence import describe_sequence
from ...reports.verdict.summary import ExplainedEdit, Summary
from ..guard import Assessment
from ..policy import Action
from ..setup import Progress
from .console import output, print_indented

__all__ = ["ProbeTable", "bars", "lines", "print_reproduction", "print_summary", "probe_line"]

_MOST_EXPLAINED = 10
"""Edits that a terminal explains; the report has all."""

_EVERY = 20.0
"""Seconds between two lines of progress in a file."""

_COLUMNS = "id", "decision", "|u.k_u|", "ratio", "cosine", "subject"
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


def _line(text: str) -> str:
    return visible(text).replace("\n", " ")


def _number(value: float | None) -> float | None:
    return value if value is not None and math.isfinite(value) else None


class ProbeTable:
    """The decisions about the edits of one file, printed at the end of a probe run: a line each, and a line for each reason.

    Reasons are sentences: in a column of their own a narrow terminal would cut them.
    """

    def __init__(self, title: str | None = None) -> None:
        """`title` names the file where there are several."""
        self._title = title
        self._rows: list[tuple[tuple[str, ...], list[str], str]] = [(_COLUMNS, [], "bold")]
        self._counts = dict.fromkeys(Action, 0)

    def add(self, assessment: Assessment) -> None:
        """Add one request."""
        action, seen = assessment.decision.action, assessment.evidence
        self._counts[action] += 1
        reasons = list(assessment.decision.reasons)
        said = [f"{f.probe}: {f.message}" for f in assessment.findings if f.level is not Level.OK]
        numbers = ["-"] * 3 if seen is None else [f"{seen.denominator:.4g}", f"{seen.ratio:.3g}", f"{seen.cosine:.3f}"]
        cells = (assessment.request.id, action.value, *numbers, assessment.request.subject)
        whys = [*reasons, *(one for one in said if one not in reasons)]
        self._rows.append((tuple(map(_line, cells)), [_line(why) for why in whys], _ACTIONS[action]))

    def show(self, skipped: int) -> None:
        """Print table and counts."""
        console = output()
        if self._title is not None:
            console.print(Text(_line(self._title)), style="bold")
        widths = [max(map(len, column)) for column in zip(*(cells for cells, _, _ in self._rows), strict=True)]
        for cells, whys, style in self._rows:
            padded = (cell.ljust(width) for cell, width in zip(cells, widths, strict=True))
            console.print(Text("  ".join(padded).rstrip()), style=style)
            for why in whys:
                print_indented(console, f"- {why}")
        counts = ", ".join(f"{count} {action.value}" for action, count in self._counts.items())
        console.print(
            f"{count_noun(sum(self._counts.values()), 'edit')}: {counts}; {count_noun(skipped, 'invalid record')} skipped"
        )
        if self._counts[Action.ALLOW]:
            console.print(
                "The size of an update is known in an audit alone, which may still rewrite or refuse what is allowed here."
            )


def print_summary(summary: Summary, report: Path) -> None:
    """Print the verdict, its reasons, why edits failed and what to do, and the counts: judged, or only shown."""
    console = output()
    console.print(
        f"[{_COLOURS[summary.verdict]}]{summary.verdict.upper()}[/]  {escape(_line(summary.model))}, layer {summary.layer}"
    )
    for line in summary.reasons:
        print_indented(console, _line(line))
    _print_explained(summary)
    for line in (*_counted(summary), *_rates(summary), *_neighbours(summary)):
        print_indented(console, _line(line))
    console.print(f"  report: {escape(str(report))}", soft_wrap=True)


def _print_explained(summary: Summary) -> None:
    """Print why edits failed or were refused, and after that why others were rewritten: the first of each."""
    stopped = [one for one in summary.edits_explained if one.result != "passed"]
    passed = [one for one in summary.edits_explained if one.result == "passed"]
    left_out = summary.edits_explained_left_out
    # The summary's own list is bounded, failed and refused edits first: what it leaves out is of the last kind in it.
    for explained, more in ((stopped, 0 if passed else left_out), (passed, left_out if passed else 0)):
        for one in explained[:_MOST_EXPLAINED]:
            _print_one_explained(one)
        if (rest := len(explained) - _MOST_EXPLAINED) > 0 or more:
            print_indented(output(), f"and {max(rest, 0) + more} more; see the report")


def _print_one_explained(one: ExplainedEdit) -> None:
    console = output()
    print_indented(console, f"- {_line(one.id)}: {_line(one.why)}")
    if one.leak and one.leak not in one.why:
        print_indented(console, f"  It leaks too: {_line(one.leak)}.")
    if one.advice:
        print_indented(console, f"  What to do: {_line(one.advice)}")


def _counted(summary: Summary) -> Iterator[str]:
    yield (
        f"{count_noun(summary.edits, 'edit')}: {summary.allowed} allowed, {summary.rewritten} rewritten, "
        f"{summary.refused} refused; {summary.failed} failed, {summary.collapsed} collapsed; "
        f"{count_noun(summary.skipped_invalid, 'invalid record')} skipped"
    )
    shown = f"{summary.controls.ok} of {summary.controls.total} showed what they must"
    yield f"controls: {shown if summary.controls.total else 'none was made, so nothing proves that the checks see a collapse'}"
    if summary.not_controlled:
        yield f"not controlled: {'; '.join(summary.not_controlled)}"
    if summary.sequence is not None:
        yield f"in sequence: {describe_sequence(summary.sequence, summary.edits)}"
    if summary.needs_prefix:
        yield f"act only after a prefix: {summary.needs_prefix} of the edits; the report names each"
    if summary.judged_by_made_neighbours:
        made = count_noun(summary.judged_by_made_neighbours, "edit was", "edits were")
        yield f"{made} judged by neighbours that the audit made"


def _rates(summary: Summary) -> Iterator[str]:
    for name, rate in summary.counts.items():
        if rate.total and name.endswith(("_unprefixed", "_prefixed", "_served")):
            judged = summary.judged.get(name, 0)
            mark = f"judged in {count_noun(judged, 'edit')}" if judged else "shown, not judged"
            yield f"{name.replace('_', ' ')}: {_rate(rate)} [{mark}]"
    worst = summary.worst_perplexity_ratio
    known = "not measured" if worst is None else f"{worst:.4f}"
    if summary.perplexity_not_finite:
        known = f"not finite after {count_noun(summary.perplexity_not_finite, 'edit')}; after the others {known}"
    yield f"worst perplexity ratio: {known} [judged in each edit that is made]"


def _neighbours(summary: Summary) -> Iterator[str]:
    asked = [
        ("other subjects", summary.leaks, summary.flips),
        ("other facts of the subjects", summary.other_fact_leaks, summary.other_fact_flips),
    ]
    for what, leaks, flips in asked:
        if leaks.total:
            changed = f"{flips.failed} of {flips.total} are answered otherwise"
            yield f"prompts about {what}: {leaks.failed} of {leaks.total} leak, {changed} (near ties left out)"
    bare, under = (summary.counts[f"neighbour_answers_{how}"] for how in ("unprefixed", "prefixed"))
    if bare.failed or under.failed:
        yield (
            f"NOTE: answers about other subjects changed: {bare.failed} of {bare.total} without a prefix, {under.failed} of "
            f"{under.total} after one; {summary.answers_judged_by}"
        )


def print_reproduction(found: Reproduction, page: Path) -> None:
    """Print each experiment with how many of the paper's statements agree, and those that do not."""
    console = output()
    for one in found.experiments:
        said = f"{one.standing}: {one.skipped}" if one.skipped is not None else _agreements(one)
        console.print(f"{one.number:>3}  {escape(one.title)}: {escape(_line(said))}")
        for claim in one.claims:
            if claim.agreement is Agreement.NO:
                console.print(f"     [yellow]differs[/] {escape(_line(claim.paper))} Here: {escape(_line(claim.here))}")
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
    """Return a callback that writes a line to standard error now and then: what a CI log can show, and no noise in it.

    Once a run has taken so long that there is a line, each stage has one for its last step too, so that its end is seen.
    """
    started = last = time.monotonic()
    told = ("", 0)

    def show(what: str, done: int, total: int) -> None:
        nonlocal last, told
        now = time.monotonic()
        ended = done == total > 0 and now - started >= _EVERY
        if (ended or now - last >= _EVERY) and told != (what, done):
            last, told = now, (what, done)
            sys.stderr.write(f"{now - started:6.0f} s  {what}: {done} of {total}\n")
            sys.stderr.flush()

    return show
