"""Is the subject still what it was, but for the edited fact?

The edit is written at the subject's last token, so that it is met by every prompt that names the subject. The same subject
is asked in other relations: in those that the request names (`other_facts`), else in a built-in list by the kind of
subject, of which prompts are kept where the unedited model answers with some certainty and does not give the fact that is
edited. What is asked, and what leaks and flips are, is the same as for neighbours: see `unchanged`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from ...probes.card import Card
from ...probes.forward.low_rank import RankOne
from ...probes.requests.request import EditRequest
from ...probes.tokens import target_ids
from ..check import Bench, Check, CheckResult
from ..kinds import classify_kinds, list_relations
from ..unchanged_prompts import (
    RolePrompt,
    UneditedAnswers,
    ask_edited,
    ask_unedited,
    cut_lead,
    normalise_word,
    predict_first_words,
)
from .locality import measure_constant_leaks, measure_divergence, measure_share

__all__ = ["OtherFacts"]

_CERTAIN = 0.1
"""Least probability of the unedited model's answer, bare or after a newline, for a built-in prompt to be kept."""
_MOST = 6
"""Built-in prompts that are kept, the surest."""


class _Facts(NamedTuple):
    asked: UneditedAnswers
    made: bool


class OtherFacts(Check):
    """Are the subject's other facts what they were?"""

    name = "other-facts"
    card = Card(
        question="Asked about its other facts, does the subject keep its answers, and not say the new target to them?",
        source="this project's; the same subject in other relations: relation specificity of arXiv 2307.12976",
        needs="other_facts of the request, or built-in prompts by the kind of subject that the model answers with certainty",
        unit="share of prompts",
        range="0 to 1",
        threshold="max_other_fact_leaks and max_other_fact_flips of the policy, over all conditions",
        action="Do not ship an edit whose subject says the target to everything: shorten the target, or edit another layer.",
    )

    def prepare(
        self, bench: Bench, requests: Sequence[EditRequest], updates: Sequence[RankOne] = ()
    ) -> list[_Facts | None]:
        """Choose the built-in prompts that the model answers, and ask all once; None where none is left."""
        lacking = [one for one in requests if not one.other_facts]
        kinds = iter(classify_kinds(bench.lm, lacking) if lacking else ())
        asked = [
            [RolePrompt("other-fact", text) for text in one.other_facts]
            if one.other_facts
            else [RolePrompt("made-other-fact", text) for text in self._made(bench, one, list_relations(next(kinds)))]
            for one in requests
        ]
        return [
            None if found is None else _Facts(found, made=not request.other_facts)
            for request, found in zip(requests, ask_unedited(bench, requests, asked), strict=True)
        ]

    @staticmethod
    def _made(bench: Bench, request: EditRequest, relations: Sequence[str]) -> list[str]:
        """Return the prompts that the model answers most certainly, without those that ask for the edited fact itself."""
        known = {text.strip() for text in (request.prompt, *request.paraphrases)}
        texts = [relation.replace("{}", request.subject) for relation in relations]
        found = predict_first_words(bench, [text for text in texts if text not in known])
        own = _own_answers(bench, request)
        sure = [text for text, first in found.items() if first.certainty >= _CERTAIN and own.isdisjoint(first.likely)]
        return sorted(sure, key=lambda text: -found[text].certainty)[:_MOST]

    def measure(self, bench: Bench, request: EditRequest, before: _Facts | None, needs_prefix: bool) -> CheckResult:
        """Judge leaks and flips over all conditions; without a prompt that the model answers there is nothing to judge."""
        if before is None:
            return CheckResult([])
        told = [one.told for one in ask_edited(bench, request, before.asked)]
        limits = bench.limits
        what = f"other facts of {request.subject!r}"
        return CheckResult(
            [
                measure_share(self.name, "leaks", told, "leak", limits.other_fact_leaks, f"{what} say the new target"),
                measure_share(
                    self.name, "flips", told, "flip", limits.other_fact_flips, f"{what} are answered otherwise"
                ),
                measure_divergence(self.name, told),
            ],
            prompts=told,
        )

    def known_bad(self, bench: Bench, request: EditRequest, before: _Facts | None) -> CheckResult | None:
        """A model whose every answer is the new target."""
        return None if before is None else measure_constant_leaks(self, bench, request, before, before.asked)


def _own_answers(bench: Bench, request: EditRequest) -> frozenset[str]:
    """Return the words that begin the old answer: as the request gives it and its aliases, else as the model says it."""
    lm, prompt = bench.lm, request.prompt
    olds = [one for one in (request.target_true, *request.true_aliases) if one]
    tokens = [cut_lead(lm, target_ids(lm.tokenizer, prompt, old, request.space)) for old in olds]
    words = {normalise_word(lm.tokenizer.decode([some[-1]])) for some in tokens}
    if not olds and (said := predict_first_words(bench, [prompt]).get(prompt)):
        words |= said.said
    return frozenset(words)
