"""A comparison, or the gate's verdict over it, as rows that every output shows alike, and as Markdown."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from ..markdown_escaping import escaped, grid
from ..numbers import format_percent, format_ratio
from ..text import NAMED, count_noun, quote_names
from .decision import regressed
from .metrics import MetricKind

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from .comparison import Comparison, MetricChange
    from .result import Gate, LapsedOverride, Override

__all__ = [
    "COLUMNS",
    "ComparisonRow",
    "compare_markdown",
    "comparison_rows",
    "describe_gate",
    "describe_lapsed_override",
    "describe_override",
    "describe_pairing",
    "gate_markdown",
]

COLUMNS = ("metric", "before", "now", "difference", "90 % interval", "edits", "allowed", "")


class ComparisonRow(NamedTuple):
    """One metric in words.

    `mood` is ``worse``, ``noise`` (over the allowance, but within the noise), ``within``, ``open`` (not judged) or
    ``unmeasured`` (not in both).
    """

    metric: str
    before: str
    now: str
    difference: str
    interval: str
    edits: str
    allowed: str
    word: str
    mood: str

    @property
    def cells(self) -> tuple[str, ...]:
        """The texts under `COLUMNS`."""
        return self[: len(COLUMNS)]


def comparison_rows(comparison: Comparison, allowed: Mapping[str, float] | None = None) -> list[ComparisonRow]:
    """Return a row for each judged metric; without `allowed`, a row for each metric, not judged."""
    if allowed is None:
        return [_row(change, None) for change in comparison.metrics]
    return [_row(change, allowed[change.metric]) for change in comparison.metrics if change.metric in allowed]


def _row(change: MetricChange, limit: float | None) -> ComparisonRow:
    rate = change.kind is MetricKind.RATE
    show = format_percent if rate else format_ratio
    unit = "pp" if rate else "%"
    # The change of the metric itself, not the damage.
    sign = 1 if change.lower_is_better else -1
    difference = interval = "–"
    if change.worse is not None:
        difference = f"{_signed(sign * change.worse)} {unit}"
    if change.low is not None and change.high is not None:
        low, high = sorted((sign * change.low, sign * change.high))
        interval = f"{_signed(low)} to {_signed(high)}"
    word, mood = _judged(change, limit)
    return ComparisonRow(
        metric=change.metric,
        before=show(change.before),
        now=show(change.after),
        difference=difference,
        interval=interval,
        edits=str(change.pairs),
        allowed="–" if limit is None else f"{'+' if change.lower_is_better else '−'}{100 * limit:g} {unit}",
        word=word,
        mood=mood,
    )


def _signed(value: float) -> str:
    shown = f"{100 * value:+.2f}"
    return "0.00" if float(shown) == 0 else shown.replace("-", "−")


def _judged(change: MetricChange, limit: float | None) -> tuple[str, str]:
    if change.worse is None:
        return "not in both", "unmeasured"
    if limit is None:
        return "", "open"
    if regressed(change, limit):
        return "worse", "worse"
    return ("may be noise", "noise") if change.worse > limit else ("within", "within")


def describe_gate(gate: Gate) -> str:
    """Return the verdict in one sentence, with the person who overrode the gate, if any."""
    if gate.override is not None:
        return describe_override(gate.override)
    if gate.open:
        return f"The gate is open: nothing is worse than {gate.baseline} by more than is allowed."
    names = ", ".join(dict.fromkeys(closing.key for closing in gate.closings))
    return f"The gate is closed against {gate.baseline}: {names}."


def describe_override(override: Override) -> str:
    """Return who overrode the gate, when, why, and which grounds that lifted."""
    return (
        f"The gate against {override.baseline} was closed by {', '.join(override.closings)}, "
        f"and opened by override of {override.author} at {override.time}: {override.reason}"
    )


def describe_lapsed_override(lapsed: LapsedOverride) -> str:
    """Return whose override does not hold, and why it does not."""
    override = lapsed.override
    return f"An override of {override.author} at {override.time} ({override.reason}) does not hold here: {lapsed.why}."


def describe_pairing(comparison: Comparison, most: int | None = NAMED) -> Iterator[str]:
    """Yield the count of paired edits, then the first `most` names of the others; None is all."""
    yield (
        f"{count_noun(comparison.paired, 'edit')} paired, {len(comparison.missing)} missing, {len(comparison.new)} new, "
        f"{len(comparison.changed_requests)} asking for something else"
    )
    for what, ids in (
        ("missing", comparison.missing),
        ("new", comparison.new),
        ("asking for something else", comparison.changed_requests),
    ):
        if ids:
            yield f"{what}: {quote_names(ids, most)}"


def gate_markdown(gate: Gate) -> str:
    """Return the gate's verdict with its grounds and the comparison."""
    return "\n".join(_gate_lines(gate)) + "\n"


def compare_markdown(comparison: Comparison) -> str:
    """Return a comparison without a verdict."""
    title = f"## {escaped(comparison.before.name)} against {escaped(comparison.after.name)}"
    return "\n".join([title, *_comparison_lines(comparison, None)]) + "\n"


def _gate_lines(gate: Gate) -> Iterator[str]:
    yield f"## Gate {'open by override' if gate.standing == 'override' else gate.standing}"
    yield ""
    yield f"**{escaped(describe_gate(gate))}**"
    yield ""
    for closing in gate.closings:
        yield f"- `{closing.key}`: {escaped(closing.message)}"
        if len(closing.edits) > NAMED:
            yield f"  - all: {escaped(quote_names(closing.edits, None))}"
    for message in gate.accepted:
        yield f"- accepted: {escaped(message)}"
    for lapsed in gate.lapsed:
        yield f"- {escaped(describe_lapsed_override(lapsed))}"
    if gate.comparison is not None:
        yield from _comparison_lines(gate.comparison, gate.allowed)


def _comparison_lines(comparison: Comparison, allowed: Mapping[str, float] | None) -> Iterator[str]:
    yield ""
    yield from grid(COLUMNS, [[*map(escaped, row.cells)] for row in comparison_rows(comparison, allowed)])
    yield ""
    yield from (f"- {escaped(sentence)}" for sentence in describe_pairing(comparison, None))
    if comparison.edits:
        yield ""
        yield from grid(
            ("edit", "before", "now"),
            [[*map(escaped, (edit.id, edit.before, edit.after))] for edit in comparison.edits],
        )
    for note in comparison.notes:
        yield ""
        yield escaped(note)
