"""The page's section "Since the baseline": the gate's verdict, who opened it, and what changed."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from ..gate.comparison_rows import (
    COLUMNS,
    ComparisonRow,
    comparison_rows,
    describe_lapsed_override,
    describe_override,
    describe_pairing,
)
from ..text import count_noun

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from ..gate.comparison import EditChange
    from ..gate.result import Gate, Override
    from ..verdict.digest import Digest

__all__ = ["BaselineSection", "build_baseline_section"]

_MOST_EDITS = 50


@dataclass(frozen=True, kw_only=True)
class BaselineSection:
    """The content of the section, and the words of the page's verdict about it.

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


def build_baseline_section(digest: Digest, gate: Gate | None, overrides: Sequence[Override]) -> BaselineSection | None:
    """Return the section's content; None if no gate was run and nobody overrode one."""
    if gate is None and not overrides:
        return None
    messages = tuple(map(describe_override, overrides if gate is None else ()))
    compared = None if gate is None else gate.comparison
    edits = () if compared is None else tuple(compared.edits)
    mood, word = _choose_mood(gate)
    return BaselineSection(
        mood=mood,
        word=word,
        headline=messages[-1] if gate is None else _write_headline(gate),
        gate=gate,
        overrides=messages,
        sets=() if compared is None else tuple(describe_pairing(compared, _MOST_EDITS))[1:],
        lapsed=() if gate is None else tuple(map(describe_lapsed_override, gate.lapsed)),
        columns=COLUMNS,
        rows=() if gate is None or compared is None else tuple(comparison_rows(compared, gate.allowed)),
        edits=edits[:_MOST_EDITS],
        more_edits=max(0, len(edits) - _MOST_EDITS),
        slugs={story.record.id: story.slug for story in digest.edits},
    )


def _write_headline(gate: Gate) -> str:
    """Return the reason for the gate's word, in one sentence; the page lists the grounds below it."""
    if gate.override is not None:
        return describe_override(gate.override)
    if gate.open:
        return f"Nothing is worse than {gate.baseline} by more than is allowed."
    return f"{count_noun(len(gate.closings), 'reason')} against {gate.baseline}."


def _choose_mood(gate: Gate | None) -> tuple[str, str]:
    if gate is None or gate.override is not None:
        return "override", "A person opened the gate."
    return ("open", "The gate is open.") if gate.open else ("closed", "The gate is closed.")
