"""The page's section "Since the baseline": the gate's verdict, who opened it, and what changed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from ..gate.comparison import EditChange
from ..gate.comparison_rows import (
    COLUMNS,
    ComparisonRow,
    comparison_rows,
    describe_lapsed_override,
    describe_override,
    describe_pairing,
)
from ..gate.result import Gate, Override
from ..text import count_noun
from ..verdict.digest import Digest

__all__ = ["Since", "since"]

_MOST_EDITS = 50


@dataclass(frozen=True)
class Since:
    """What the section shows, and what the page's verdict says of it.

    `mood` is ``open``, ``closed`` or ``override``; `slugs` lead from an edit's id to its story.
    """

    mood: str
    word: str
    headline: str
    gate: Gate | None
    overrides: tuple[str, ...]
    lapsed: tuple[str, ...]
    sets: tuple[str, ...]
    columns: tuple[str, ...]
    rows: tuple[ComparisonRow, ...]
    edits: tuple[EditChange, ...]
    more_edits: int
    slugs: Mapping[str, str]


def since(found: Digest, gate: Gate | None, overrides: Sequence[Override]) -> Since | None:
    """Return what the section shows; None where no gate was run and nobody overrode one."""
    if gate is None and not overrides:
        return None
    said = tuple(map(describe_override, overrides if gate is None else ()))
    compared = None if gate is None else gate.comparison
    edits = () if compared is None else tuple(compared.edits)
    mood, word = _mood(gate)
    return Since(
        mood=mood,
        word=word,
        headline=said[-1] if gate is None else _headline(gate),
        gate=gate,
        overrides=said,
        sets=() if compared is None else tuple(describe_pairing(compared, _MOST_EDITS))[1:],
        lapsed=() if gate is None else tuple(map(describe_lapsed_override, gate.lapsed)),
        columns=COLUMNS,
        rows=() if gate is None or compared is None else tuple(comparison_rows(compared, gate.allowed)),
        edits=edits[:_MOST_EDITS],
        more_edits=max(0, len(edits) - _MOST_EDITS),
        slugs={story.record.id: story.slug for story in found.edits},
    )


def _headline(gate: Gate) -> str:
    """Return what the word rests on, in a sentence; the grounds stand below it."""
    if gate.override is not None:
        return describe_override(gate.override)
    if gate.open:
        return f"Nothing is worse than {gate.baseline} by more than is allowed."
    return f"{count_noun(len(gate.closings), 'reason')} against {gate.baseline}."


def _mood(gate: Gate | None) -> tuple[str, str]:
    if gate is None or gate.override is not None:
        return "override", "A person opened the gate."
    return ("open", "The gate is open.") if gate.open else ("closed", "The gate is closed.")
