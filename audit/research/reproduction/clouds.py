"""Clouds of keys: taken from the cases, compared, tabled and laid into pictures; shared by the experiments about keys."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import torch
from torch import Tensor

from ....probes.research.geometry import Separation, measure_separation, normalize_rows
from ....reports.reproduction.schema import Group, Table
from .cases import CaseKind, ReproductionCase

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from ....probes.keys.subject_keys import SubjectKeys

__all__ = [
    "KINDS",
    "SIGNIFICANCE",
    "CloudPair",
    "build_group",
    "build_separation_table",
    "compare_clouds",
    "compute_cosines",
    "compute_mutual_cosine",
    "drop_repeated_subjects",
    "get_subject_keys",
    "lie_apart",
    "stack_key_pairs",
]

SIGNIFICANCE = 0.01
"""p-value up to which two clouds count as apart."""
SUBSTANTIAL_SILHOUETTE = 0.25
"""Silhouette above which clouds count as two."""
KINDS = (CaseKind.FIRST, CaseKind.ORDINARY)
"""The kinds that the paper compares."""


class CloudPair(NamedTuple):
    """Two clouds of one kind of case, point by point."""

    first: Tensor
    second: Tensor


def get_subject_keys(case: ReproductionCase) -> SubjectKeys:
    """Return the keys that were measured when the case was selected."""
    assert case.assessment.evidence is not None, "a case without evidence is not chosen"
    return case.assessment.evidence.keys


def drop_repeated_subjects(cases: Sequence[ReproductionCase]) -> list[ReproductionCase]:
    """Return the first case of each subject: the key of a first token does not depend on the prompt, and counts once."""
    return list({case.request.subject: case for case in reversed(cases)}.values())[::-1]


def stack_key_pairs(keys: Sequence[SubjectKeys]) -> CloudPair:
    """Return k_u and k_bar [cases, d_ff] in float64."""
    no_prefix = torch.stack([subject_keys.no_prefix_key for subject_keys in keys]).double().cpu()
    return CloudPair(no_prefix, torch.stack([subject_keys.mean_key for subject_keys in keys]).double().cpu())


def compute_mutual_cosine(rows: Tensor) -> float:
    """Return the mean cosine of all pairs of different rows."""
    unit = normalize_rows(rows)
    count = len(unit)
    return float((unit @ unit.T).sum() - count) / (count * (count - 1))


def compute_cosines(pair: CloudPair) -> Tensor:
    """Return the cosine of each two points."""
    return torch.nn.functional.cosine_similarity(pair.first, pair.second)


def compare_clouds(pair: CloudPair, seed: int) -> Separation:
    """Return how far the two clouds of one kind of case lie apart; a point of one belongs to a point of the other."""
    return measure_separation(*pair, seed=seed, paired=True)


def lie_apart(first: Separation, ordinary: Separation) -> bool | None:
    """Whether the clouds of collapse cases lie apart and those of ordinary ones do not; None for too few pairs.

    A silhouette up to 0.25 shows no structure worth the name (Kaufman and Rousseeuw, "Finding Groups in Data", 1990, chapter 2);
    that bare and prefixed keys differ at all, as the p-value asks, is certain almost everywhere.

    n pairs can be swapped in 2^n ways, of which two are as far apart as can be.
    """
    if 2.0 ** (1 - first.first) > SIGNIFICANCE:
        return None
    return first.p_value <= SIGNIFICANCE and first.silhouette > SUBSTANTIAL_SILHOUETTE >= ordinary.silhouette


def build_separation_table(name: str, separations: Mapping[tuple[str, CaseKind], Separation]) -> Table:
    """Return how far apart clouds lie, by what they are and by kind of case."""
    return Table(
        name=name,
        title="How far apart the clouds lie, in all dimensions",
        columns=["clouds", "cases", "points of each", "energy distance", "p-value", "permutations", "silhouette"],
        rows=[
            [
                what,
                kind.value,
                result.first,
                result.energy_distance,
                result.p_value,
                result.permutations,
                result.silhouette,
            ]
            for (what, kind), result in separations.items()
        ],
        note="Keys at length 1; energy distance of Székely and Rizzo, its p-value by swapping the two keys of a subject at "
        "random; silhouette from -1 to 1, of each point against all but its own partner.",
    )


def build_group(name: str, points: Tensor, labels: Sequence[str] = ()) -> Group:
    """Return the points [n, 2] of one cloud in a picture."""
    return Group(name=name, x=points[:, 0].tolist(), y=points[:, 1].tolist(), labels=list(labels))
