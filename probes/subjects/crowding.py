"""Crowding: how much of an update at a subject's key would reach other subjects in the same prompt.

The published update adds to the output at a key k the share ``(u . k) / (u . k_bar)`` of what it adds at k_bar.
The keys of other subjects are computed before anything is changed, and so are their shares.
Two subjects of each kind are put into the prompt, each by itself, and the most crowded kind counts.
So the model need not be asked of which kind the subject is, which would take longer than these keys.
They stand after a prefix, since the published direction comes from prefixed keys: with no prefix the shares tell less.
None of the others is a subject that the locality check makes a neighbour of.

Out of scope: what a share does to an answer (docs/research/locality.md compares crowding with leaks).

Source: the share follows from ROME's update (arXiv 2202.05262, equation 2). Its mean over a kind is this project's.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, NamedTuple

from ..errors import RequestError
from ..keys.subject_keys import compute_row_keys, locate
from .subject_kinds import GENERATED_NEIGHBOURS, SubjectKind, pick_other_subjects, replace_subject

if TYPE_CHECKING:
    from collections.abc import Sequence

    import torch

    from ..forward.prefix_cache import PrefixCache
    from ..model.language_model import LanguageModel
    from ..model.site import EditSite
    from ..requests.request import EditRequest

__all__ = ["OTHERS_OF_EACH_KIND", "Crowding", "OtherSubjects", "compute_other_subjects"]

OTHERS_OF_EACH_KIND = 2
"""Few, since their keys add a third to the time of probing a single request (docs/research/performance.md)."""
_KINDS = tuple(kind for kind in SubjectKind if kind is not SubjectKind.THING)
"""Things are what no kind fits, so that they have no keys in common."""


class Crowding(NamedTuple):
    """The most crowded kind, and the mean share of the update that its subjects take."""

    kind: SubjectKind
    share: float


class OtherSubjects(NamedTuple):
    """Keys of other subjects in a request's prompt, after one prefix."""

    kinds: tuple[SubjectKind, ...]
    """The kind of each row."""
    keys: torch.Tensor
    """[rows, d_ff], fp32."""

    def crowding(self, direction: torch.Tensor, denominator: float) -> Crowding:
        """Return the crowding of an update along `direction` [d_ff], float64 on the CPU, over `denominator`.

        The share is NaN where that of any subject is NaN.
        """
        shares = (self.keys.double().cpu() @ direction).abs() / denominator
        kinds = list(dict.fromkeys(self.kinds))
        means = [shares[[row for row, kind in enumerate(self.kinds) if kind is own]].mean() for own in kinds]
        # In torch, unlike in Python, NaN is the largest.
        largest = shares.new_tensor(means).max(0)
        return Crowding(kinds[int(largest.indices)], float(largest.values))


def compute_other_subjects(
    lm: LanguageModel,
    site: EditSite,
    requests: Sequence[EditRequest],
    *,
    prefix: str,
    seed: int,
    prefix_cache: PrefixCache | None = None,
) -> list[OtherSubjects | None]:
    """Return the keys of other subjects in each request's prompt after `prefix`, computed together.

    None for a request whose subject cannot be replaced: it is not exactly once in the prompt, or no name is free.
    """
    others = [_replace_by_others(lm, request, prefix, seed) for request in requests]
    rows = [row for some in others for _, row in some]
    keys = iter(compute_row_keys(lm, site, rows, prefix_cache=prefix_cache).split([len(some) for some in others]))
    return [
        OtherSubjects(tuple(kind for kind, _ in some), own_keys) if some else None
        for some, own_keys in zip(others, keys, strict=True)
    ]


def _replace_by_others(
    lm: LanguageModel, request: EditRequest, prefix: str, seed: int
) -> list[tuple[SubjectKind, tuple[tuple[int, ...], int]]]:
    """Return the kind, the ids and the subject's last token of the prompt about each other subject."""
    rows: list[tuple[SubjectKind, tuple[tuple[int, ...], int]]] = []
    for kind in _KINDS:
        try:
            names = pick_other_subjects(lm, request, kind, GENERATED_NEIGHBOURS + OTHERS_OF_EACH_KIND, seed=seed)
        except RequestError:
            return []
        for name in names[GENERATED_NEIGHBOURS:]:
            position = locate(lm, replace(request, subject=name, prompt=replace_subject(request, name)), prefix)
            rows.append((kind, (position.input_ids, position.last)))
    return rows
