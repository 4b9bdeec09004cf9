"""Which requests of a file are collapse cases, found by their denominators, and which ordinary ones stand beside them.

Requests whose subject is the first token are the paper's cases. Others at which the denominator probe fires are candidates, of
which a collapse must be seen before it is believed: the published update could be of a size that no ordinary one has.
*Ordinary* ones are drawn by the seed from those at which it does not fire.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from enum import StrEnum
from typing import NamedTuple

from pydantic import BaseModel, ConfigDict

from ...probes.errors import InputError
from ...probes.probe import Level
from ...probes.requests import EditRequest
from ...reports.schema import DENOMINATOR
from ..guard import Assessment, GuardedEditor
from ..setup import Progress

__all__ = ["Case", "Cases", "Chosen", "Kind", "choose", "find_cases", "fires"]

_TOGETHER = 64


class Kind(StrEnum):
    """What a request is taken for, before any edit."""

    FIRST = "first token"
    OTHER = "other small denominator"
    ORDINARY = "ordinary"


class Chosen(BaseModel):
    """The choice as it is kept between runs; `stamp` names everything that it depends on."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    stamp: str
    probed: int
    unusable: int
    """Requests whose subject could not be located, or that hold a number that is not finite."""
    first_tokens: int
    """First-token subjects in the file."""
    kinds: dict[str, Kind]
    """By request id, in the order of the file."""


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


def choose(
    guard: GuardedEditor,
    requests: Sequence[EditRequest],
    ordinary: int,
    stamp: str,
    progress: Progress = lambda *_: None,
) -> Chosen:
    """Probe all `requests` and choose: every one with a small denominator, and `ordinary` others by the run's seed."""
    small: dict[str, Kind] = {}
    others: list[str] = []
    unusable = first_tokens = 0
    for start in range(0, len(requests), _TOGETHER):
        progress("looking for collapse cases", start, len(requests))
        for seen in guard.assess_all(requests[start : start + _TOGETHER], screen=True):
            if seen.evidence is None or any(one.level is Level.ERROR for one in seen.findings):
                unusable += 1
                continue
            first = seen.evidence.keys.position.is_first_token
            first_tokens += first
            if first:
                small[seen.request.id] = Kind.FIRST
            elif fires(seen):
                small[seen.request.id] = Kind.OTHER
            else:
                others.append(seen.request.id)
    progress("looking for collapse cases", len(requests), len(requests))
    drawn = random.Random(guard.setup.seed).sample(others, min(ordinary, len(others)))
    kinds = small | dict.fromkeys(drawn, Kind.ORDINARY)
    return Chosen(
        stamp=stamp, probed=len(requests), unusable=unusable, first_tokens=first_tokens,
        kinds={request.id: kinds[request.id] for request in requests if request.id in kinds},
    )  # fmt: skip


def find_cases(guard: GuardedEditor, requests: Sequence[EditRequest], chosen: Chosen) -> Cases:
    """Return the chosen cases with what is seen of them under all contexts; raises `InputError` where there are none.

    They were chosen under few contexts; of those that were not first tokens, one that looks otherwise under all is left out.
    """
    if not chosen.kinds:
        raise InputError(
            f"None of the {chosen.probed} requests can be probed, so that there is nothing to reproduce; check the file."
        )
    wanted = [request for request in requests if request.id in chosen.kinds]
    found = []
    for start in range(0, len(wanted), _TOGETHER):
        seen = guard.assess_all(wanted[start : start + _TOGETHER])
        found += [Case(one.request, chosen.kinds[one.request.id], one) for one in seen]
    found = [case for case in found if case.kind is Kind.FIRST or fires(case.seen) == (case.kind is Kind.OTHER)]
    return Cases(tuple(found), chosen)


def fires(seen: Assessment) -> bool:
    """Whether the denominator probe does."""
    return any(one.probe == DENOMINATOR and one.level is Level.RISK for one in seen.findings)
