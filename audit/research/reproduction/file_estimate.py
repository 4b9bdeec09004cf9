"""What each probe catches and misses in the whole file, estimated from the cases that were drawn of it.

A kind of which all cases were edited counts as it is. Of a kind that was drawn from, each case stands for as many as the file
holds for one that was edited, and the bounds are those of Clopper and Pearson's interval ("The use of confidence or fiducial
limits illustrated in the case of the binomial", Biometrika 26, 1934) for its share, 95 % for each kind.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

from ....reports.log.schema import EditRecord
from ....reports.reproduction.schema import Table
from .cases import Cases, Chosen, Kind

__all__ = ["Estimate", "estimated", "in_the_file", "stands_for"]

_SURE = 0.95


class Estimate(NamedTuple):
    """How many edits of the file something is true of: estimated (None where nothing is known), and between which bounds."""

    value: float | None
    least: float
    most: float


def estimated(count: int, drawn: int, held: float) -> Estimate:
    """Return of how many of `held` something is true that is true of `count` of `drawn` ones."""
    from scipy.stats import binomtest

    if drawn == 0:
        return Estimate(None if held else 0.0, 0.0, float(held))
    if drawn >= held:
        return Estimate(*[float(count)] * 3)
    share = binomtest(count, drawn).proportion_ci(_SURE, method="exact")
    # What was seen is true of that many at least, and untrue of the others.
    least, most = max(count, share.low * held), min(held - (drawn - count), share.high * held)
    return Estimate(count * held / drawn, float(least), float(most))


def in_the_file(
    cases: Cases,
    found: Sequence[EditRecord],
    truth: Sequence[bool],
    probes: Sequence[str],
    fires: Callable[[EditRecord, str], bool],
) -> Table:
    """Return for each probe how many collapses it catches and misses in the file; `truth` says which edits collapse."""
    kinds = {case.request.id: case.kind for case in cases.cases}
    drawn = {kind: sum(kinds[one.id] is kind for one in found) for kind in Kind}
    held, left_out = _as_they_look(cases.chosen), len(cases.chosen.left_out or ())
    rows: list[list[str | bool | int | float | None]] = []
    for probe in probes:
        caught, missed = (
            _of_kinds(
                held, drawn,
                [kinds[one.id] for one, bad in zip(found, truth, strict=True) if bad and fires(one, probe) is fired],
            )
            for fired in (True, False)
        )  # fmt: skip
        rows.append([probe, *caught, *missed, *_recall(caught, missed)])
    return Table(
        name="prediction-in-the-file", title="What fires at the thresholds in force, estimated for the whole file",
        columns=["probe", *(f"{what}{bound}" for what in ("collapses caught", "collapses missed", "recall")
                            for bound in ("", ", least", ", most"))],
        rows=rows,
        note="Each kind of case counts as often as the file holds it. Least and most are ends of an interval of 95 % for each "
        "kind that was drawn from (Clopper and Pearson). Requests that look otherwise under all contexts than under few are "
        f"left out: {left_out} of the {len(cases.chosen.kinds)} that were drawn, and as large a share of those that were not.",
    )  # fmt: skip


def stands_for(cases: Cases, found: Sequence[EditRecord]) -> list[float]:
    """Return for each edit how many of the file it stands for: those of its kind, over those of its kind in `found`."""
    kinds, held = {case.request.id: case.kind for case in cases.cases}, _as_they_look(cases.chosen)
    made = Counter(kinds[one.id] for one in found)
    return [held[kinds[one.id]] / made[kinds[one.id]] for one in found]


def _as_they_look(chosen: Chosen) -> dict[Kind, float]:
    """Return how many requests of each kind the file holds that look so under all contexts too, judged by those drawn."""
    left_out, drawn = {*(chosen.left_out or ())}, Counter(chosen.kinds.values())
    stayed = Counter(kind for id, kind in chosen.kinds.items() if id not in left_out)
    return {kind: count * stayed[kind] / drawn[kind] if drawn[kind] else count for kind, count in chosen.found.items()}


def _of_kinds(held: Mapping[Kind, float], drawn: Mapping[Kind, int], seen: Sequence[Kind]) -> Estimate:
    """Return the sum over kinds, bounds too, which makes them wider than they need be."""
    parts = [estimated(seen.count(kind), drawn[kind], count) for kind, count in held.items()]
    values = [part.value for part in parts]
    value = None if None in values else sum(value for value in values if value is not None)
    return Estimate(value, sum(part.least for part in parts), sum(part.most for part in parts))


def _recall(caught: Estimate, missed: Estimate) -> tuple[float | None, float | None, float | None]:
    return (
        _share(caught.value, missed.value), _share(caught.least, missed.most), _share(caught.most, missed.least),
    )  # fmt: skip


def _share(caught: float | None, missed: float | None) -> float | None:
    if caught is None or missed is None or not caught + missed:
        return None
    return caught / (caught + missed)
