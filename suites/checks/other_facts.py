"""Is the subject still what it was, but for the edited fact?

The edit acts at the subject's last token, so that every prompt that names the subject meets it. The same subject is asked in
other relations. The request names them (`other_facts`), or else they come from a built-in list by the kind of subject. A
built-in prompt is asked where the unedited model answers it with some certainty and does not give the edited fact. The
conditions, leaks and flips are those of neighbours: see `editguard.suites.unchanged_prompts`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from ...probes.card import Card
from ...probes.subjects.same_question import asks_the_same
from ...probes.subjects.subject_kinds import classify_kinds, list_relations
from ...probes.tokens import encode_target
from ..check import Bench, Check, CheckResult, EditUnderTest
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

if TYPE_CHECKING:
    from collections.abc import Sequence

    from ...probes.forward.low_rank import LowRankUpdate
    from ...probes.requests.request import EditRequest

__all__ = ["OtherFacts"]

_LEAST_CERTAINTY = 0.1
"""Least probability of the unedited model's answer, alone or after a newline, for a built-in prompt to be asked."""
_MOST_PROMPTS = 6
"""Built-in prompts that are asked: the ones with the surest answers."""


class _Facts(NamedTuple):
    answers: UneditedAnswers
    generated: bool


class OtherFacts(Check[_Facts | None]):
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
        self, bench: Bench, requests: Sequence[EditRequest], updates: Sequence[LowRankUpdate] = ()
    ) -> list[_Facts | None]:
        """Choose the built-in prompts that the model answers, and ask all once; None where none is left."""
        lacking = [request for request in requests if not request.other_facts]
        kinds = iter(classify_kinds(bench.lm, lacking) if lacking else ())
        prompts = [
            [RolePrompt("other-fact", text) for text in request.other_facts]
            if request.other_facts
            else [
                RolePrompt("made-other-fact", text)
                for text in self._choose_prompts(bench, request, list_relations(next(kinds)))
            ]
            for request in requests
        ]
        return [
            None if answers is None else _Facts(answers, generated=not request.other_facts)
            for request, answers in zip(requests, ask_unedited(bench, requests, prompts), strict=True)
        ]

    @staticmethod
    def _choose_prompts(bench: Bench, request: EditRequest, relations: Sequence[str]) -> list[str]:
        """Return the prompts that the model answers most certainly, without those that ask for the edited fact itself."""
        edited = {text.strip() for text in (request.prompt, *request.paraphrases)}
        texts = [relation.replace("{}", request.subject) for relation in relations]
        others = [text for text in texts if text not in edited and not asks_the_same(text, edited, request.subject)]
        words = predict_first_words(bench, others)
        own = _own_answers(bench, request)
        sure = [
            text
            for text, first in words.items()
            if first.certainty >= _LEAST_CERTAINTY and own.isdisjoint(first.likely)
        ]
        return sorted(sure, key=lambda text: -words[text].certainty)[:_MOST_PROMPTS]

    def measure(self, bench: Bench, edit: EditUnderTest[_Facts | None]) -> CheckResult:
        """Judge leaks and flips over all conditions; without a prompt that the model answers nothing is judged."""
        state, limits = edit.state, bench.limits
        if state is None:
            return CheckResult([])
        answers = [answer.prompt_answer for answer in ask_edited(bench, edit.request, state.answers)]
        facts = f"other facts of {edit.request.subject!r}"
        leaks = measure_share(
            self, "leaks", answers, result="leak", most=limits.other_fact_leaks, what=f"{facts} say the new target"
        )
        flips = measure_share(
            self, "flips", answers, result="flip", most=limits.other_fact_flips, what=f"{facts} are answered otherwise"
        )
        return CheckResult([leaks, flips, measure_divergence(self, answers)], prompts=answers)

    def known_bad(self, bench: Bench, edit: EditUnderTest[_Facts | None]) -> CheckResult | None:
        """A model whose every answer is the new target."""
        return None if edit.state is None else measure_constant_leaks(self, bench, edit, edit.state.answers)


def _own_answers(bench: Bench, request: EditRequest) -> frozenset[str]:
    """Return the words that begin the old answer: as the request gives it and its aliases, else as the model says it."""
    lm, prompt = bench.lm, request.prompt
    old = [text for text in (request.target_true, *request.true_aliases) if text]
    tokens = [cut_lead(lm, encode_target(lm.tokenizer, prompt, text, request.space)) for text in old]
    words = {normalise_word(lm.tokenizer.decode([ids[-1]])) for ids in tokens}
    if not old and (first := predict_first_words(bench, [prompt]).get(prompt)):
        words |= first.best
    return frozenset(words)
