"""Comparison and gate for people at a terminal and in a CI log."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Final

from rich.console import Console
from rich.markup import escape
from rich.text import Text

from ...reports.gate.comparison import Comparison
from ...reports.gate.comparison_rows import (
    COLUMNS,
    comparison_rows,
    describe_gate,
    describe_lapsed_override,
    describe_override,
    describe_pairing,
)
from ...reports.gate.result import Gate, Override
from ...reports.text import count_noun, visible
from .console import align_columns, output

__all__ = ["print_comparison", "print_gate", "print_overrides", "print_standing"]

_MOST_EDITS = 10
_MOODS = {"worse": "red", "noise": "yellow", "unmeasured": "yellow"}
_STANDINGS: Final = {
    "open": "[bold green]OPEN[/]",
    "override": "[bold yellow]OPEN BY OVERRIDE[/]",
    "closed": "[bold red]CLOSED[/]",
}
_KINDS = {"worse": "red", "better": "green", "other": "default"}


def print_gate(gate: Gate) -> None:
    """Print the verdict first, each reason for closing on a line that begins with its name, then the table."""
    print_standing(gate)
    if gate.comparison is not None:
        _print(output(), gate.comparison, gate.allowed)


def print_standing(gate: Gate, verdict: str | None = None) -> None:
    """Print the gate's verdict, and beside it the audit's own `verdict` if it is given; then each reason on a line."""
    console = output()
    itself = "" if verdict is None else f" The audit itself: {verdict}."
    sentence = _safe(describe_gate(gate))
    stop = "" if not itself or sentence.endswith((".", "!", "?")) else "."
    console.print(f"{_STANDINGS[gate.standing]}  {sentence}{stop}{itself}", soft_wrap=True)
    for closing in gate.closings:
        console.print(f"  {closing.key}: {_safe(closing.message)}", soft_wrap=True)
    for message in gate.accepted:
        console.print(f"  accepted: {_safe(message)}", soft_wrap=True)
    for lapsed in gate.lapsed:
        console.print(f"  {_safe(describe_lapsed_override(lapsed))}", soft_wrap=True)


def print_overrides(overrides: Sequence[Override]) -> None:
    """Print who opened a gate for the log at hand."""
    console = output()
    for record in overrides:
        console.print(f"  {_safe(describe_override(record))}", soft_wrap=True)


def print_comparison(comparison: Comparison) -> None:
    """Print what changed, without a verdict."""
    console = output()
    for when, side in (("before", comparison.before), ("now", comparison.after)):
        commit = f", commit {side.git.commit[:8]}{' and changes' if side.git.dirty else ''}" if side.git else ""
        console.print(
            f"{when:>6}  {_safe(side.name)}: {side.verdict}, {count_noun(side.edits, 'edit')}, {_safe(side.created)}{commit}",
            soft_wrap=True,
        )
    _print(console, comparison, None)


def _print(console: Console, comparison: Comparison, allowed: Mapping[str, float] | None) -> None:
    columns = COLUMNS if allowed is not None else COLUMNS[:-2]
    rows = comparison_rows(comparison, allowed)
    numbers = [index for index, name in enumerate(columns) if name not in ("metric", "")]
    lines = align_columns([columns, *(row.cells[: len(columns)] for row in rows)], numbers)
    styles = ["dim", *(_MOODS.get(row.mood, "") for row in rows)]
    for line, style in zip(lines, styles, strict=True):
        console.print(Text(f"  {line}"), style=style, soft_wrap=True)
    for sentence in describe_pairing(comparison):
        console.print(f"  {_safe(sentence)}", soft_wrap=True)
    for edit in comparison.edits[:_MOST_EDITS]:
        console.print(
            f"  [{_KINDS[edit.kind]}]{_safe(edit.id)}[/]: {_safe(edit.before)} -> {_safe(edit.after)}", soft_wrap=True
        )
    if len(comparison.edits) > _MOST_EDITS:
        console.print(f"  and {count_noun(len(comparison.edits) - _MOST_EDITS, 'more edit')} that ended differently")
    for note in comparison.notes:
        console.print(f"  note: {_safe(note)}", soft_wrap=True)


def _safe(text: str) -> str:
    return escape(visible(text).replace("\n", " "))
