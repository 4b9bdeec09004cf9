"""Clouds of keys: taken from the cases, compared, tabled and laid into pictures; shared by the experiments about keys."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from ....probes.keys.subject_keys import SubjectKeys
from ....probes.research.geometry import Separation, directions, separation
from ....reports.reproduction.schema import Group, Table
from .cases import Case, Kind

__all__ = [
    "KINDS",
    "SURE",
    "Pair",
    "apart",
    "bare_and_mean",
    "compared",
    "cosines",
    "group",
    "mutual",
    "one_each",
    "separation_table",
    "subject_keys_of",
]

SURE = 0.01
"""p-value up to which two clouds count as apart."""
SUBSTANTIAL = 0.25
"""Silhouette above which clouds count as two."""
KINDS = (Kind.FIRST, Kind.ORDINARY)
"""The kinds that the paper compares."""


class Pair(NamedTuple):
    """Two clouds of one kind of case, point by point."""

    first: Tensor
    second: Tensor


def subject_keys_of(case: Case) -> SubjectKeys:
    """Return the keys that were measured when the case was found."""
    assert case.seen.evidence is not None, "a case without evidence is not chosen"
    return case.seen.evidence.keys


def one_each(cases: Sequence[Case]) -> list[Case]:
    """Return the first case of each subject: a first token's key is the same whatever is asked about it, and counts once."""
    return list({case.request.subject: case for case in reversed(cases)}.values())[::-1]


def bare_and_mean(keys: Sequence[SubjectKeys]) -> Pair:
    """Return k_u and k_bar [cases, d_ff] in float64."""
    bare = torch.stack([one.no_prefix_key for one in keys]).double().cpu()
    return Pair(bare, torch.stack([one.mean_key for one in keys]).double().cpu())


def mutual(rows: Tensor) -> float:
    """Return the mean cosine of all pairs of different rows."""
    unit = directions(rows)
    count = len(unit)
    return float((unit @ unit.T).sum() - count) / (count * (count - 1))


def cosines(pair: Pair) -> Tensor:
    """Return the cosine of each two points."""
    return torch.nn.functional.cosine_similarity(pair.first, pair.second)


def compared(pair: Pair, seed: int) -> Separation:
    """Return how far the two clouds of one kind of case lie apart; a point of one belongs to a point of the other."""
    return separation(*pair, seed=seed, paired=True)


def apart(first: Separation, ordinary: Separation) -> bool | None:
    """Whether the clouds of collapse cases lie apart and those of ordinary ones do not; None for too few pairs.

    A silhouette up to 0.25 shows no structure worth the name (Kaufman and Rousseeuw, "Finding Groups in Data", 1990, chapter 2);
    that bare and prefixed keys differ at all, as the p-value asks, is certain almost everywhere.

    n pairs can be swapped in 2^n ways, of which two are as far apart as can be.
    """
    if 2.0 ** (1 - first.first) > SURE:
        return None
    return first.p_value <= SURE and first.silhouette > SUBSTANTIAL >= ordinary.silhouette


def separation_table(name: str, found: Mapping[tuple[str, Kind], Separation]) -> Table:
    """Return how far apart clouds lie, by what they are and by kind of case."""
    return Table(
        name=name,
        title="How far apart the clouds lie, in all dimensions",
        columns=["clouds", "cases", "points of each", "energy distance", "p-value", "permutations", "silhouette"],
        rows=[
            [what, kind.value, one.first, one.energy_distance, one.p_value, one.permutations, one.silhouette]
            for (what, kind), one in found.items()
        ],
        note="Keys at length 1; energy distance of Székely and Rizzo, its p-value by swapping the two keys of a subject at "
        "random; silhouette from -1 to 1, of each point against all but its own partner.",
    )


def group(name: str, points: Tensor, labels: Sequence[str] = ()) -> Group:
    """Return the points [n, 2] of one cloud in a picture."""
    return Group(name=name, x=points[:, 0].tolist(), y=points[:, 1].tolist(), labels=list(labels))
