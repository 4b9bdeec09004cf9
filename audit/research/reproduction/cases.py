"""Which requests of a file are collapse cases, found by their denominators, and which ordinary ones stand beside them.

Requests whose subject is the first token are the paper's cases. Others at which the denominator probe fires are candidates, of
which a collapse must be seen before it is believed: the published update could be of a size that no ordinary one has.
*Ordinary* ones are drawn by the seed from those at which it does not fire. Where the tokenizer puts a BOS before every text no
subject is a first token; those of one token behind it are the ones that would be, and have a kind of their own.
"""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Mapping, Sequence
from enum import StrEnum
from typing import NamedTuple

from pydantic import BaseModel, ConfigDict

from ....probes.errors import InputError
from ....probes.probe import Level
from ....probes.requests.request import EditRequest
from ....reports.log.types import DENOMINATOR
from ....reports.reproduction.schema import CaseCount
from ...edit_result import Assessment
from ...guard import GuardedEditor
from ...run.execute import assess_each
from ...setup import Progress
from .stamp import Stamp

__all__ = ["FEW", "Case", "Cases", "Chosen", "Kind", "choose", "find_cases", "fires"]

FEW = 4
"""Cases of a kind that make a cloud, a median that means something, or a statement of the paper to be judged."""
_TOGETHER = 64


class Kind(StrEnum):
    """What a request is taken for, before any edit."""

    FIRST = "first token"
    BEHIND_BOS = "first token behind the BOS"
    OTHER = "other small denominator"
    ORDINARY = "ordinary"


class Chosen(BaseModel):
    """The choice as it is kept between runs; `stamp` names everything that it depends on."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    stamp: dict[str, str]
    probed: int
    unusable: int
    """Requests whose subject could not be located, or that hold a number that is not finite."""
    found: dict[Kind, int]
    """How many requests of each kind the file holds; under few contexts where these settle it."""
    kinds: dict[str, Kind]
    """By request id, in the order of the file: those that were drawn."""
    left_out: list[str] | None = None
    """Of these, those that look otherwise under all contexts; null while that was not asked. Kept, since a figure that lies at
    a threshold may fall on its other side on another processor."""


class Case(NamedTuple):
    """A request, what it is taken for, and what was seen before any edit, under all contexts."""

    request: EditRequest
    kind: Kind
    seen: Assessment


class Cases(NamedTuple):
    """All cases of a run with the counts that they come from."""

    cases: tuple[Case, ...]
    chosen: Chosen

    def of(self, *kinds: Kind) -> tuple[Case, ...]:
        """Return the cases of some kinds, in the order of the file."""
        return tuple(case for case in self.cases if case.kind in kinds)

    def counts(self) -> list[CaseCount]:
        """Return how many of each kind are edited, of how many that the file holds."""
        found = {kind: self.chosen.found.get(kind, 0) for kind in Kind}
        return [
            CaseCount(kind=kind.value, edited=len(self.of(kind)), found=count)
            for kind, count in found.items()
            if count or kind is not Kind.BEHIND_BOS
        ]


def choose(
    guard: GuardedEditor,
    requests: Sequence[EditRequest],
    most: Mapping[Kind, int],
    stamp: Stamp,
    progress: Progress = lambda *_: None,
) -> Chosen:
    """Probe all `requests` and draw at most so many of each kind by the run's seed."""
    kinds: dict[str, Kind] = {}
    for start in range(0, len(requests), _TOGETHER):
        progress("looking for collapse cases", start, len(requests))
        for seen in assess_each(guard, requests[start : start + _TOGETHER], screen=True, criterion=fires):
            if (kind := _kind(seen)) is not None:
                kinds[seen.request.id] = kind
    progress("looking for collapse cases", len(requests), len(requests))
    drawn: set[str] = set()
    for kind in Kind:
        ids = [id for id, one in kinds.items() if one is kind]
        drawn |= {*random.Random(guard.setup.seed).sample(ids, min(most[kind], len(ids)))}
    return Chosen(
        stamp=dict(stamp), probed=len(requests), unusable=len(requests) - len(kinds), found=Counter(kinds.values()),
        kinds={id: kind for id, kind in kinds.items() if id in drawn},
    )  # fmt: skip


def _kind(seen: Assessment) -> Kind | None:
    """Return what a request is taken for, None where it cannot be probed."""
    if seen.evidence is None or any(one.level is Level.ERROR for one in seen.findings):
        return None
    place = seen.evidence.keys.position
    if place.is_first_token:
        return Kind.FIRST
    if place.starts_text and place.single_token:
        return Kind.BEHIND_BOS
    return Kind.OTHER if fires(seen) else Kind.ORDINARY


def find_cases(guard: GuardedEditor, requests: Sequence[EditRequest], chosen: Chosen) -> Cases:
    """Return the chosen cases with what is seen of them under all contexts; raises `InputError` where there are none.

    They were chosen under few contexts; one that was chosen by its denominator and looks otherwise under all is left out, which
    `Cases.chosen` then says.
    """
    if not chosen.kinds:
        raise InputError(
            f"None of the {chosen.probed} requests can be probed, so that there is nothing to reproduce; check the file."
        )
    wanted = [request for request in requests if request.id in chosen.kinds]
    found = []
    for start in range(0, len(wanted), _TOGETHER):
        seen = assess_each(guard, wanted[start : start + _TOGETHER])
        found += [Case(one.request, chosen.kinds[one.request.id], one) for one in seen]
    if chosen.left_out is None:
        chosen = chosen.model_copy(update={"left_out": [case.request.id for case in found if _otherwise(case)]})
    left_out = {*(chosen.left_out or ())}
    return Cases(tuple(case for case in found if case.request.id not in left_out), chosen)


def _otherwise(case: Case) -> bool:
    """Whether a case that was chosen by its denominator looks otherwise under all contexts."""
    return case.kind in (Kind.OTHER, Kind.ORDINARY) and fires(case.seen) != (case.kind is Kind.OTHER)


def fires(seen: Assessment) -> bool:
    """Whether the denominator probe does."""
    return any(one.probe == DENOMINATOR and one.level is Level.RISK for one in seen.findings)
