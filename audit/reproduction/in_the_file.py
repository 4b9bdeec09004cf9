"""What each probe catches and misses in the whole file, estimated from the cases that were drawn of it.

A kind of which all cases were edited counts as it is. Of a kind that was drawn from, each case stands for as many as the file
holds for one that was edited, and the bounds are those of Clopper and Pearson's interval ("The use of confidence or fiducial
limits illustrated in the case of the binomial", Biometrika 26, 1934) for its share, 95 % for each kind.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

from ...reports.reproduction import Table
from ...reports.schema import EditRecord
from .cases import Cases, Kind

__all__ = ["Estimate", "estimated", "in_the_file"]

_SURE = 0.95


class Estimate(NamedTuple):
    """How many edits of the file something is true of: estimated, and between which bounds."""

    value: float
    least: float
    most: float


def estimated(count: int, drawn: int, held: int) -> Estimate:
    """Return of how many of `held` something is true that is true of `count` of `drawn` ones."""
    from scipy.stats import binomtest

    if drawn == 0:
        return Estimate(0.0, 0.0, float(held))
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
    rows: list[list[str | bool | int | float | None]] = []
    for probe in probes:
        caught, missed = (
            _of_kinds(
                cases.chosen.found, drawn,
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
        "kind that was drawn from (Clopper and Pearson).",
    )  # fmt: skip


def _of_kinds(held: Mapping[Kind, int], drawn: Mapping[Kind, int], seen: Sequence[Kind]) -> Estimate:
    """Return the sum over kinds, bounds too, which makes them wider than they need be."""
    parts = [estimated(seen.count(kind), drawn[kind], count) for kind, count in held.items()]
    return Estimate(*map(sum, zip(*parts, strict=True)))


def _recall(caught: Estimate, missed: Estimate) -> tuple[float | None, float | None, float | None]:
    return (
        _share(caught.value, missed.value), _share(caught.least, missed.most), _share(caught.most, missed.least),
    )  # fmt: skip


def _share(caught: float, missed: float) -> float | None:
    return caught / (caught + missed) if caught + missed else None
