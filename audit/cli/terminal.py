"""What a person sees in the terminal: the verdict of an audit, and the table of a probe; rich text, no logic."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from rich.markup import escape
from rich.text import Text

from ...probes.probe import Level
from ...reports.log.types import Rate
from ...reports.reproduction.schema import Agreement, Experiment, Reproduction
from ...reports.text import count_noun, visible
from ...reports.verdict.edit_sequence import describe_sequence
from ...reports.verdict.summary import ExplainedEdit, Summary
from ..edit_result import Assessment
from ..policy import Action
from .console import align_columns, output, print_indented

__all__ = ["ProbeTable", "print_reproduction", "print_summary", "probe_line"]

_MOST_EXPLAINED = 10
"""Edits that a terminal explains; the report has all."""

_COLUMNS = "id", "decision", "|u.k_u|", "ratio", "cosine", "subject"
_COLOURS = {"pass": "bold green", "fail": "bold red", "void": "bold magenta"}
_ACTIONS = {Action.ALLOW: "green", Action.REWRITE: "yellow", Action.REFUSE: "red"}


def probe_line(assessment: Assessment, source: str) -> dict[str, Any]:
    """Return one JSON object of ``probe --json`` for an edit of `source`; a number that is not finite is null."""
    evidence = assessment.evidence
    return {
        "id": assessment.request.id,
        "source": source,
        "decision": assessment.decision.action.value,
        "first_token": None if evidence is None else evidence.keys.position.is_first_token,
        "denominator": _number(None if evidence is None else evidence.denominator),
        "denominator_prefixed": _number(None if evidence is None else evidence.denominator_prefixed),
        "denominator_ratio": _number(None if evidence is None else evidence.ratio),
        "cosine": _number(None if evidence is None else evidence.cosine),
        "contexts": 0 if evidence is None else len(evidence.keys.keys),
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
        """`title` names the file if there are several."""
        self._title = title
        self._cells: list[tuple[str, ...]] = [_COLUMNS]
        self._notes: list[tuple[str, list[str]]] = [("bold", [])]
        """For each row its style and its reasons."""
        self._counts = dict.fromkeys(Action, 0)

    def add(self, assessment: Assessment) -> None:
        """Add one request."""
        action, evidence = assessment.decision.action, assessment.evidence
        self._counts[action] += 1
        reasons = list(assessment.decision.reasons)
        messages = [f"{f.probe}: {f.message}" for f in assessment.findings if f.level is not Level.OK]
        numbers = ("-", "-", "-")
        if evidence is not None:
            numbers = (f"{evidence.denominator:.4g}", f"{evidence.ratio:.3g}", f"{evidence.cosine:.3f}")
        cells = (assessment.request.id, action.value, *numbers, assessment.request.subject)
        reasons += [message for message in messages if message not in reasons]
        self._cells.append(tuple(map(_line, cells)))
        self._notes.append((_ACTIONS[action], [_line(reason) for reason in reasons]))

    def show(self, skipped: int) -> None:
        """Print table and counts."""
        console = output()
        if self._title is not None:
            console.print(Text(_line(self._title)), style="bold")
        for line, (style, reasons) in zip(align_columns(self._cells), self._notes, strict=True):
            console.print(Text(line), style=style)
            for reason in reasons:
                print_indented(console, f"- {reason}")
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
    for line in (*_counts(summary), *_rates(summary), *_neighbours(summary)):
        print_indented(console, _line(line))
    console.print(f"  report: {escape(str(report))}", soft_wrap=True)


def _print_explained(summary: Summary) -> None:
    """Print why edits failed or were refused, and after that why others were rewritten: the first of each."""
    stopped = [edit for edit in summary.edits_explained if edit.result != "passed"]
    passed = [edit for edit in summary.edits_explained if edit.result == "passed"]
    left_out = summary.edits_explained_left_out
    # The summary's own list is bounded, failed and refused edits first: what it leaves out is of the last kind in it.
    for explained, more in ((stopped, 0 if passed else left_out), (passed, left_out if passed else 0)):
        for edit in explained[:_MOST_EXPLAINED]:
            _print_explained_edit(edit)
        if (rest := len(explained) - _MOST_EXPLAINED) > 0 or more:
            print_indented(output(), f"and {max(rest, 0) + more} more; see the report")


def _print_explained_edit(edit: ExplainedEdit) -> None:
    console = output()
    print_indented(console, f"- {_line(edit.id)}: {_line(edit.why)}")
    if edit.leak and edit.leak not in edit.why:
        print_indented(console, f"  It leaks too: {_line(edit.leak)}.")
    if edit.advice:
        print_indented(console, f"  What to do: {_line(edit.advice)}")


def _count_edits(summary: Summary) -> str:
    edits, skipped = count_noun(summary.edits, "edit"), count_noun(summary.skipped_invalid, "invalid record")
    if summary.edited is not None:
        held = summary.edits - summary.failed - summary.refused
        return f"{edits} in {summary.edited}: {held} hold, {summary.failed} failed; {skipped} skipped"
    return (
        f"{edits}: {summary.allowed} allowed, {summary.rewritten} rewritten, "
        f"{summary.refused} refused; {summary.failed} failed, {summary.collapsed} collapsed; {skipped} skipped"
    )


def _counts(summary: Summary) -> Iterator[str]:
    yield _count_edits(summary)
    shown = f"{summary.controls.ok} of {summary.controls.total} showed what they must"
    yield f"controls: {shown if summary.controls.total else 'none was made, so nothing proves that the checks see a collapse'}"
    if summary.not_controlled:
        yield f"not controlled: {'; '.join(summary.not_controlled)}"
    if summary.sequence is not None:
        yield f"in sequence: {describe_sequence(summary.sequence, summary.edits)}"
    if summary.needs_prefix:
        yield f"act only after a prefix: {summary.needs_prefix} of the edits; the report names each"
    if summary.judged_by_made_neighbours:
        edits = count_noun(summary.judged_by_made_neighbours, "edit was", "edits were")
        yield f"{edits} judged by neighbours that the audit made"


def _rates(summary: Summary) -> Iterator[str]:
    for name, rate in summary.counts.items():
        if rate.total and name.endswith(("_unprefixed", "_prefixed", "_served")):
            judged = summary.judged.get(name, 0)
            mark = f"judged in {count_noun(judged, 'edit')}" if judged else "shown, not judged"
            yield f"{name.replace('_', ' ')}: {_rate(rate)} [{mark}]"
    worst = summary.worst_perplexity_ratio
    if summary.edited is not None and worst is None:
        return  # without edits the reasons name it
    ratio = "not measured" if worst is None else f"{worst:.4f}"
    if summary.perplexity_not_finite:
        ratio = f"not finite after {count_noun(summary.perplexity_not_finite, 'edit')}; after the others {ratio}"
    yield f"worst perplexity ratio: {ratio} [judged in each edit that is made]"


def _neighbours(summary: Summary) -> Iterator[str]:
    prompts = [
        ("other subjects", summary.leaks, summary.flips),
        ("other facts of the subjects", summary.other_fact_leaks, summary.other_fact_flips),
    ]
    for topic, leaks, flips in prompts:
        if leaks.total:
            changed = f"{flips.failed} of {flips.total} are answered otherwise"
            yield f"prompts about {topic}: {leaks.failed} of {leaks.total} leak, {changed} (near ties left out)"
    unprefixed, prefixed = (summary.counts[f"neighbour_answers_{how}"] for how in ("unprefixed", "prefixed"))
    if unprefixed.failed or prefixed.failed:
        yield (
            f"NOTE: answers about other subjects changed: {unprefixed.failed} of {unprefixed.total} without a prefix, "
            f"{prefixed.failed} of {prefixed.total} after one; {summary.answers_judged_by}"
        )


def print_reproduction(reproduction: Reproduction, page: Path) -> None:
    """Print each experiment with how many of the paper's statements agree, and those that do not."""
    console = output()
    for experiment in reproduction.experiments:
        skipped = experiment.skipped
        outcome = _agreements(experiment) if skipped is None else f"{experiment.standing}: {skipped}"
        console.print(f"{experiment.number:>3}  {escape(experiment.title)}: {escape(_line(outcome))}")
        for claim in experiment.claims:
            if claim.agreement is Agreement.NO:
                console.print(f"     [yellow]differs[/] {escape(_line(claim.paper))} Here: {escape(_line(claim.here))}")
    console.print(f"  page: {escape(str(page))}", soft_wrap=True)


def _agreements(experiment: Experiment) -> str:
    counts = Counter(claim.agreement.value for claim in experiment.claims)
    return ", ".join(f"{count} {name}" for name, count in counts.items()) or "no statement of the paper to compare"


def _rate(rate: Rate) -> str:
    return f"{rate.passed} passed, {rate.failed} failed, {rate.not_judged} not judged, of {rate.total}"
