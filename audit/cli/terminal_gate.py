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
from .console import output

__all__ = ["print_comparison", "print_gate", "print_overrides", "print_standing"]

_MOST_EDITS = 10
_MOODS = {"worse": "red", "noise": "yellow", "unmeasured": "yellow"}
_STANDINGS: Final = {
    "open": "[bold green]OPEN[/]", "override": "[bold yellow]OPEN BY OVERRIDE[/]", "closed": "[bold red]CLOSED[/]",
}  # fmt: skip
_KINDS = {"worse": "red", "better": "green", "other": "default"}


def print_gate(gate: Gate) -> None:
    """Print the verdict first, each ground for closing on a line that begins with its name, then the table."""
    print_standing(gate)
    if gate.comparison is not None:
        _print(output(), gate.comparison, gate.allowed)


def print_standing(gate: Gate, verdict: str | None = None) -> None:
    """Print the gate's verdict, and beside it the audit's own `verdict` where it is given; then each ground on a line."""
    console = output()
    itself = "" if verdict is None else f" The audit itself: {verdict}."
    said = _safe(describe_gate(gate))
    stop = "" if not itself or said.endswith((".", "!", "?")) else "."
    console.print(f"{_STANDINGS[gate.standing]}  {said}{stop}{itself}", soft_wrap=True)
    for closing in gate.closings:
        console.print(f"  {closing.key}: {_safe(closing.message)}", soft_wrap=True)
    for message in gate.accepted:
        console.print(f"  accepted: {_safe(message)}", soft_wrap=True)
    for one in gate.lapsed:
        console.print(f"  {_safe(describe_lapsed_override(one))}", soft_wrap=True)


def print_overrides(overrides: Sequence[Override]) -> None:
    """Print who opened a gate for the log at hand."""
    console = output()
    for one in overrides:
        console.print(f"  {_safe(describe_override(one))}", soft_wrap=True)


def print_comparison(found: Comparison) -> None:
    """Print what changed, without a verdict."""
    console = output()
    for what, side in (("before", found.before), ("now", found.after)):
        commit = f", commit {side.git.commit[:8]}{' and changes' if side.git.dirty else ''}" if side.git else ""
        console.print(
            f"{what:>6}  {_safe(side.name)}: {side.verdict}, {count_noun(side.edits, 'edit')}, {_safe(side.created)}{commit}",
            soft_wrap=True,
        )
    _print(console, found, None)


def _print(console: Console, found: Comparison, allowed: Mapping[str, float] | None) -> None:
    shown = COLUMNS if allowed is not None else COLUMNS[:-2]
    judged = comparison_rows(found, allowed)
    lines = [shown, *(row.cells[: len(shown)] for row in judged)]
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    for index, cells in enumerate(lines):
        line = "  ".join(_aligned(cell, width, name) for cell, width, name in zip(cells, widths, shown, strict=True))
        style = "dim" if index == 0 else _MOODS.get(judged[index - 1].mood)
        # A table of rich's would cut its cells where a CI log is narrow.
        console.print(Text(f"  {line}".rstrip()), style=style, soft_wrap=True)
    for said in describe_pairing(found):
        console.print(f"  {_safe(said)}", soft_wrap=True)
    for one in found.edits[:_MOST_EDITS]:
        console.print(
            f"  [{_KINDS[one.kind]}]{_safe(one.id)}[/]: {_safe(one.before)} -> {_safe(one.after)}", soft_wrap=True
        )
    if len(found.edits) > _MOST_EDITS:
        console.print(f"  and {count_noun(len(found.edits) - _MOST_EDITS, 'more edit')} that met another end")
    for note in found.notes:
        console.print(f"  note: {_safe(note)}", soft_wrap=True)


def _aligned(cell: str, width: int, column: str) -> str:
    return cell.ljust(width) if column in ("metric", "") else cell.rjust(width)


def _safe(text: str) -> str:
    return escape(visible(text).replace("\n", " "))
