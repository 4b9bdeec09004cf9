"""Did the edit leave other subjects alone?

Neighbours are judged by what happens to their answers (`editguard.suites.answer_outcomes`): leaks, which no edit may have, and
flips. The figures of the field stand beside these. *token-match* is the share of tokens whose greedy choice is unchanged (arXiv
2406.11263 section 5), and *exact* the share of prompts whose answer is. The neighbourhood score is P(true) > P(new) of arXiv
2202.05262. The divergence of the next token is shown too. A request that names no neighbour is judged by generated ones: other
subjects of the same kind in the same prompt.
"""

from __future__ import annotations

import math
from dataclasses import replace
from typing import TYPE_CHECKING, Any, NamedTuple

import torch

from ...probes.card import Card
from ...probes.requests.prompt_subjects import select_neighbours
from ...probes.subjects.subject_kinds import GENERATED_NEIGHBOURS, classify_kinds, make_neighbours
from ...probes.wording import compare_with_bound
from ..check import Bench, Check, CheckResult, EditUnderTest, Measurement, Outcome, PromptAnswer, State, judge
from ..constant_model import answer_constantly
from ..unchanged_prompts import EditedAnswer, RolePrompt, UneditedAnswers, ask_edited, ask_unedited

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from ...probes.forward.low_rank import LowRankUpdate
    from ...probes.requests.request import EditRequest

__all__ = [
    "EVERYWHERE",
    "Locality",
    "measure_constant_leaks",
    "measure_divergence",
    "measure_share",
]

EVERYWHERE = "everywhere"
"""Name of the condition under which all conditions are counted together."""


def measure_share(
    check: Check[Any], metric: str, answers: Sequence[PromptAnswer], *, result: str, most: float, what: str
) -> Measurement:
    """Return the share of `answers` with this `result`, judged by `most`; UNMEASURED where one could not be measured."""
    broken = sum(answer.result == "unmeasured" for answer in answers)
    failed = sum(answer.result == result for answer in answers)
    message = f"{failed} of {len(answers)} answers to prompts about {what}"
    value = failed / len(answers) if answers and not broken else None
    outcome = Outcome.UNMEASURED
    if value is not None:
        outcome = judge(value, value <= most)
        message = compare_with_bound(message, value <= most, f"at most {most:.0%}")
    elif broken:
        message = f"{broken} of {len(answers)} answers have logits that are not finite"
    return check.measurement(
        metric,
        value,
        outcome,
        condition=EVERYWHERE,
        protocol="exact",
        baseline=0.0,
        threshold=most,
        unit="share",
        passed=len(answers) - failed - broken,
        failed=failed,
        not_judged=broken,
        message=message,
    )


def measure_divergence(check: Check[Any], answers: Iterable[PromptAnswer]) -> Measurement:
    """Return the mean divergence of the next token over all prompts, which is shown."""
    values = [a.divergence for a in answers if a.divergence is not None and math.isfinite(a.divergence)]
    mean = sum(values) / len(values) if values else None
    return check.measurement(
        "divergence",
        mean,
        Outcome.UNMEASURED if mean is None else Outcome.INFO,
        condition=EVERYWHERE,
        unit="nats",
        message="mean divergence of the next token from that without the edit",
    )


class _Neighbours(NamedTuple):
    answers: UneditedAnswers
    generated: bool


class Locality(Check[_Neighbours | None]):
    """Did other subjects stay as they were?"""

    name = "locality"
    card = Card(
        question="Do prompts about other subjects still get their own answers, and none of them the new target?",
        source="leaks and margins are this project's; shares of unchanged tokens: arXiv 2406.11263 section 5",
        needs="neighbourhood prompts of the request, or ones made of other subjects in the same prompt",
        unit="share of prompts",
        range="0 to 1",
        threshold="max_leaks (with max_target_rise) and max_flips (with near_tie) of the policy, over all conditions; "
        "min_locality and min_neighbour_answers, without a prefix, and after one too for edits that need one",
        action="Do not ship an edit that leaks: shorten its target, word its prompt otherwise, or edit another layer.",
    )

    def prepare(
        self, bench: Bench, requests: Sequence[EditRequest], updates: Sequence[LowRankUpdate] = ()
    ) -> list[_Neighbours | None]:
        """Ask all neighbours once; None where a request has none and none can be generated."""
        own = ask_unedited(
            bench,
            requests,
            [[RolePrompt("neighbour", text) for text in select_neighbours(request)] for request in requests],
            tokens=True,
        )
        # Neighbours that all say the target already cannot show a leak.
        lacking = [
            index
            for index, (request, answers) in enumerate(zip(requests, own, strict=True))
            if answers is None or not answers.may_leak(bench.lm, request.target_new)
        ]
        generated = dict(zip(lacking, self._generate(bench, [requests[index] for index in lacking]), strict=True))
        return [
            self._choose(bench, request, answers, generated.get(index))
            for index, (request, answers) in enumerate(zip(requests, own, strict=True))
        ]

    @staticmethod
    def _choose(
        bench: Bench, request: EditRequest, own: UneditedAnswers | None, generated: UneditedAnswers | None
    ) -> _Neighbours | None:
        """Return the generated neighbours where there are any and they may leak, else those of the request.

        Where generated ones say the target too, the model says it to every prompt, and the request's own are asked.
        """
        if generated is not None and (own is None or generated.may_leak(bench.lm, request.target_new)):
            return _Neighbours(generated, generated=True)
        return None if own is None else _Neighbours(own, generated=False)

    @staticmethod
    def _generate(bench: Bench, requests: Sequence[EditRequest]) -> list[UneditedAnswers | None]:
        if not requests:
            return []
        texts = [
            make_neighbours(bench.lm, request, kind, GENERATED_NEIGHBOURS, seed=bench.prefixes.seed)
            for request, kind in zip(requests, classify_kinds(bench.lm, requests), strict=True)
        ]
        prompts = [[RolePrompt("made-neighbour", text) for text in some] for some in texts]
        return ask_unedited(bench, requests, prompts, tokens=True)

    def measure(self, bench: Bench, edit: EditUnderTest[_Neighbours | None]) -> CheckResult:
        """Judge leaks and flips in every condition; tokens and answers where the edit acts."""
        state, limits = edit.state, bench.limits
        if state is None:
            return CheckResult([self._without_neighbours()])
        answers = ask_edited(bench, edit.request, state.answers)
        prompts = [answer.prompt_answer for answer in answers]
        judged = {"unprefixed", "prefixed"} if edit.needs_prefix else {"unprefixed"}
        groups = {
            "unprefixed": [a for a in answers if a.prompt_answer.condition == "unprefixed"],
            "prefixed": [a for a in answers if a.prompt_answer.condition.startswith("family:")],
        }
        tokens = [self._measure_tokens(bench, name, some, judged=name in judged) for name, some in groups.items()]
        whole = [self._measure_answers(bench, name, some, judged=name in judged) for name, some in groups.items()]
        others = "other subjects that the audit made" if state.generated else "other subjects"
        leaks = measure_share(
            self, "leaks", prompts, result="leak", most=limits.leaks, what=f"{others} say the new target"
        )
        flips = measure_share(
            self, "flips", prompts, result="flip", most=limits.flips, what=f"{others} are answered otherwise"
        )
        neighbourhood = self._measure_preference(answers, state.answers.preferred)
        return CheckResult(
            [leaks, flips, *tokens, *whole, *neighbourhood, measure_divergence(self, prompts)], prompts=prompts
        )

    def known_bad(self, bench: Bench, edit: EditUnderTest[_Neighbours | None]) -> CheckResult | None:
        """A model whose every answer is the new target."""
        return None if edit.state is None else measure_constant_leaks(self, bench, edit, edit.state.answers)

    def _without_neighbours(self) -> Measurement:
        message = "no other subject could be asked about: the request names none, and none could be made"
        return self.measurement(
            "leaks", None, Outcome.UNMEASURED, condition=EVERYWHERE, protocol="exact", message=message
        )

    def _measure_preference(self, answers: Sequence[EditedAnswer], before: Sequence[bool | None]) -> list[Measurement]:
        """Return the neighbourhood score: the share of prompts at which the old answer is more probable than the new one."""
        now = [answer.preferred for answer in answers]
        passed, failed = now.count(True), now.count(False)
        if not passed + failed:
            return []
        base = [preferred for preferred in before if preferred is not None]
        score = self.measurement(
            "neighbourhood-score",
            passed / (passed + failed),
            Outcome.INFO,
            condition=EVERYWHERE,
            protocol="probability",
            baseline=sum(base) / len(base) if base else None,
            unit="share",
            passed=passed,
            failed=failed,
            not_judged=len(now) - passed - failed,
        )
        return [score]

    def _measure_tokens(
        self, bench: Bench, condition: str, answers: Sequence[EditedAnswer], *, judged: bool
    ) -> Measurement:
        marks = torch.cat([answer.token_marks for answer in answers])
        passed, failed, broken = (int((marks == mark).sum()) for mark in (1, 0, -1))
        least = bench.limits.locality
        # Tokens that were not measured are no part of a share that could pass.
        value = None if broken else passed / len(marks)
        outcome, message = Outcome.UNMEASURED, f"{broken} of {len(marks)} tokens have logits that are not finite"
        if value is not None:
            outcome, message = Outcome.INFO, f"{passed} of {len(marks)} tokens are unchanged"
            if judged:
                outcome = judge(value, value >= least)
                message = compare_with_bound(message, value >= least, f"at least {least:.0%}")
        return self.measurement(
            self.name,
            value,
            outcome,
            condition=condition,
            protocol="token-match",
            baseline=1.0,
            threshold=least,
            unit="share of tokens",
            passed=passed,
            failed=failed,
            not_judged=broken,
            message=message,
        )

    def _measure_answers(
        self, bench: Bench, condition: str, answers: Sequence[EditedAnswer], *, judged: bool
    ) -> Measurement:
        marks = [int(answer.token_marks[-1]) for answer in answers]
        passed, failed, broken = (marks.count(mark) for mark in (1, 0, -1))
        value = passed / (passed + failed) if passed + failed else None
        least = bench.limits.neighbour_answers if judged else 0.0
        message = f"prompts about other subjects whose answer is what it was: {passed} of {len(marks)}"
        outcome = Outcome.INFO
        if value is None or (least and broken):
            outcome = Outcome.UNMEASURED
        elif least:
            outcome = judge(value, value >= least)
            message = compare_with_bound(message, value >= least, f"at least {least:.0%}")
        return self.measurement(
            "answers",
            value,
            outcome,
            condition=condition,
            protocol="exact",
            baseline=1.0,
            threshold=least or None,
            unit="share",
            passed=passed,
            failed=failed,
            not_judged=broken,
            message=message,
        )


def measure_constant_leaks(
    check: Check[State], bench: Bench, edit: EditUnderTest[State], answers: UneditedAnswers
) -> CheckResult | None:
    """Return the leaks that `check` measures in a model whose every answer is the target.

    None where the target is known by several tokens, for which no single token can stand.
    """
    if len(answers.lead) != 1:
        return None
    with answer_constantly(bench.lm, answers.lead[0]):
        result = check.measure(bench, replace(edit, needs_prefix=True))
    return CheckResult([row for row in result.measurements if row.metric == "leaks"])
