"""What an edit must leave alone, as texts that an editor looks at: other subjects in the same prompt, other facts of the same.

The harness makes them from its own lists. The other subjects are none that a check asks about, and the prompts for other
facts are none that a check asks: an editor that had seen its exam would pass it.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, NamedTuple

from ...probes.errors import RequestError
from ...probes.subjects.same_question import asks_the_same
from ...probes.subjects.subject_kinds import (
    GENERATED_NEIGHBOURS,
    classify_kinds,
    list_held_relations,
    pick_other_subjects,
    replace_subject,
)

if TYPE_CHECKING:
    from collections.abc import Sequence

    from ...probes.model.language_model import LanguageModel
    from ...probes.requests.request import EditRequest

__all__ = ["Surroundings", "find_surroundings"]

_ALL = 1000
"""More than there are listed subjects."""


class Surroundings(NamedTuple):
    """Texts about what an edit must leave alone."""

    others: tuple[EditRequest, ...] = ()
    """The request's prompt about other subjects: those of its kind first."""
    facts: tuple[EditRequest, ...] = ()
    """Prompts that ask for other facts of the request's own subject."""


def find_surroundings(lm: LanguageModel, requests: Sequence[EditRequest], *, seed: int) -> list[Surroundings]:
    """Return the surroundings of each request; empty for a request whose subject is not exactly once in its prompt."""
    each = []
    for request, kind in zip(requests, classify_kinds(lm, requests), strict=True):
        try:
            names = pick_other_subjects(lm, request, kind, _ALL, seed=seed, other_kinds=True)
        except RequestError:
            each.append(Surroundings())
            continue
        # The first ones are those that the check makes its neighbours of, where the request has none.
        others = tuple(
            replace(request, subject=name, prompt=replace_subject(request, name))
            for name in names[GENERATED_NEIGHBOURS:]
        )
        prompts = [relation.replace("{}", request.subject) for relation in list_held_relations(kind)]
        own_prompts = {request.prompt, *request.paraphrases, *request.other_facts}
        facts = tuple(
            replace(request, prompt=prompt)
            for prompt in prompts
            # An editor that held the fact that it changes would work against itself.
            if prompt not in own_prompts and not asks_the_same(prompt, [request.prompt], request.subject)
        )
        each.append(Surroundings(others, facts))
    return each
