"""Collapse cases of a file, found by their denominators, and ordinary requests to compare them with.

Requests whose subject is the first token are the paper's cases. Others at which the denominator probe fires are candidates, of
which a collapse must be seen before it is believed: the published update could be of a size that no ordinary one has.
*Ordinary* ones are drawn by the seed from those at which it does not fire. Where the tokenizer puts a BOS before every text no
subject is a first token; subjects of one token after the BOS have a kind of their own.
"""

from __future__ import annotations

import random
from collections import Counter
from enum import StrEnum
from typing import TYPE_CHECKING, NamedTuple

from pydantic import BaseModel, ConfigDict

from ....probes.errors import InputError
from ....probes.probe import Level
from ....reports.log.types import DENOMINATOR
from ....reports.reproduction.schema import CaseCount
from ...run.execute import assess_each

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from ....probes.requests.request import EditRequest
    from ...edit_result import Assessment
    from ...guard import GuardedEditor
    from ...progress import Progress
    from .stamp import Stamp

__all__ = [
    "FEW",
    "CaseKind",
    "CaseSelection",
    "Cases",
    "ReproductionCase",
    "find_cases",
    "has_small_denominator",
    "select_cases",
]

FEW = 4
"""Cases of a kind that make a cloud, a median that means something, or a statement of the paper to be judged."""
_CASES_PER_BATCH = 64


class CaseKind(StrEnum):
    """The kind of a request, decided before any edit."""

    FIRST = "first token"
    AFTER_BOS = "first token behind the BOS"
    OTHER = "other small denominator"
    ORDINARY = "ordinary"


class CaseSelection(BaseModel):
    """The choice as it is kept between runs; `stamp` names everything that it depends on."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    stamp: dict[str, str]
    probed: int
    unusable: int
    """Requests whose subject could not be located, or that hold a number that is not finite."""
    found: dict[CaseKind, int]
    """How many requests of each kind the file holds; under few contexts where these settle it."""
    kinds: dict[str, CaseKind]
    """By request id, in the order of the file: those that were drawn."""
    left_out: list[str] | None = None
    """Of these, those that look otherwise under all contexts; null until that is measured. Stored, since a figure that lies at
    a threshold may fall on its other side on another processor."""


class ReproductionCase(NamedTuple):
    """A request, its kind, and its assessment before any edit, under all contexts."""

    request: EditRequest
    kind: CaseKind
    assessment: Assessment


class Cases(NamedTuple):
    """All cases of a run with the counts that they come from."""

    cases: tuple[ReproductionCase, ...]
    selection: CaseSelection

    def select(self, *kinds: CaseKind) -> tuple[ReproductionCase, ...]:
        """Return the cases of some kinds, in the order of the file."""
        return tuple(case for case in self.cases if case.kind in kinds)

    def counts(self) -> list[CaseCount]:
        """Return how many of each kind are edited, of how many that the file holds."""
        available = {kind: self.selection.found.get(kind, 0) for kind in CaseKind}
        return [
            CaseCount(kind=kind.value, edited=len(self.select(kind)), found=count)
            for kind, count in available.items()
            if count or kind is not CaseKind.AFTER_BOS
        ]


def select_cases(
    guard: GuardedEditor,
    requests: Sequence[EditRequest],
    most: Mapping[CaseKind, int],
    stamp: Stamp,
    progress: Progress = lambda *_: None,
) -> CaseSelection:
    """Probe all `requests` and draw at most so many of each kind by the run's seed."""
    kinds: dict[str, CaseKind] = {}
    for start in range(0, len(requests), _CASES_PER_BATCH):
        progress("looking for collapse cases", start, len(requests))
        for assessment in assess_each(
            guard, requests[start : start + _CASES_PER_BATCH], screen=True, criterion=has_small_denominator
        ):
            if (kind := _classify(assessment)) is not None:
                kinds[assessment.request.id] = kind
    progress("looking for collapse cases", len(requests), len(requests))
    drawn: set[str] = set()
    for kind in CaseKind:
        ids = [id for id, case_kind in kinds.items() if case_kind is kind]
        drawn |= {*random.Random(guard.setup.seed).sample(ids, min(most[kind], len(ids)))}
    return CaseSelection(
        stamp=dict(stamp),
        probed=len(requests),
        unusable=len(requests) - len(kinds),
        found=Counter(kinds.values()),
        kinds={id: kind for id, kind in kinds.items() if id in drawn},
    )


def _classify(assessment: Assessment) -> CaseKind | None:
    """Return the kind of a request, None where it cannot be probed."""
    if assessment.evidence is None or any(finding.level is Level.ERROR for finding in assessment.findings):
        return None
    place = assessment.evidence.keys.position
    if place.is_first_token:
        return CaseKind.FIRST
    if place.starts_text and place.single_token:
        return CaseKind.AFTER_BOS
    return CaseKind.OTHER if has_small_denominator(assessment) else CaseKind.ORDINARY


def find_cases(guard: GuardedEditor, requests: Sequence[EditRequest], chosen: CaseSelection) -> Cases:
    """Return the chosen cases with their assessment under all contexts; raises `InputError` where there are none.

    They were chosen under few contexts. A case that was chosen by its denominator and has another kind under all contexts is
    left out, and named in `Cases.selection`.
    """
    if not chosen.kinds:
        raise InputError(
            f"None of the {chosen.probed} requests can be probed, so that there is nothing to reproduce; check the file."
        )
    drawn_requests = [request for request in requests if request.id in chosen.kinds]
    drawn_cases = []
    for start in range(0, len(drawn_requests), _CASES_PER_BATCH):
        assessments = assess_each(guard, drawn_requests[start : start + _CASES_PER_BATCH])
        drawn_cases += [
            ReproductionCase(assessment.request, chosen.kinds[assessment.request.id], assessment)
            for assessment in assessments
        ]
    if chosen.left_out is None:
        chosen = chosen.model_copy(
            update={"left_out": [case.request.id for case in drawn_cases if _has_another_kind(case)]}
        )
    left_out = {*(chosen.left_out or ())}
    return Cases(tuple(case for case in drawn_cases if case.request.id not in left_out), chosen)


def _has_another_kind(case: ReproductionCase) -> bool:
    """Whether a case that was chosen by its denominator has another kind under all contexts."""
    return case.kind in (CaseKind.OTHER, CaseKind.ORDINARY) and has_small_denominator(case.assessment) != (
        case.kind is CaseKind.OTHER
    )


def has_small_denominator(assessment: Assessment) -> bool:
    """Whether the denominator probe reports a risk."""
    return any(finding.probe == DENOMINATOR and finding.level is Level.RISK for finding in assessment.findings)
