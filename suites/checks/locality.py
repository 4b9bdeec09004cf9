"""Did the edit leave other subjects alone?

Neighbours are judged by what happens to them (`unchanged`): leaks, which no edit may have, and flips. Beside these stand
the field's own figures: the share of tokens whose greedy choice is unchanged (*token-match*, of arXiv 2406.11263
section 5), the share of prompts whose answer is (*exact*), the neighbourhood score P(true) > P(new) of arXiv 2202.05262,
and the divergence of the next token. A request that names no neighbour is judged by ones that are made for it: other
subjects of the same kind in the same prompt.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

import torch

from ...probes.card import Card
from ...probes.forward.low_rank import RankOne
from ...probes.requests.prompt_subjects import select_neighbours
from ...probes.requests.request import EditRequest
from ...probes.wording import compare_with_bound
from ..check import Bench, Check, CheckResult, Measurement, Outcome, PromptAnswer, judge
from ..constant_model import answer_constantly
from ..kinds import classify_kinds, make_neighbours
from ..unchanged_prompts import Answer, RolePrompt, UneditedAnswers, ask_edited, ask_unedited

__all__ = ["EVERYWHERE", "Locality", "measure_constant_leaks", "measure_divergence", "measure_share"]

EVERYWHERE = "everywhere"
"""Name of the condition under which all conditions are counted together."""
_MADE = 4
"""Neighbours that are made for a request without any."""


def measure_share(
    check: str, metric: str, told: Sequence[PromptAnswer], bad: str, most: float, what: str
) -> Measurement:
    """Return the judged share of prompts whose result is `bad`; UNMEASURED where one could not be measured."""
    broken = sum(one.result == "unmeasured" for one in told)
    failed = sum(one.result == bad for one in told)
    passed = len(told) - failed - broken
    message = f"{failed} of {len(told)} answers to prompts about {what}"
    value = failed / len(told) if told and not broken else None
    outcome = Outcome.UNMEASURED
    if value is not None:
        outcome, message = judge(value, value <= most), compare_with_bound(message, value <= most, f"at most {most:.0%}")
    elif broken:
        message = f"{broken} of {len(told)} answers have logits that are not finite"
    return Measurement(
        check=check, metric=metric, value=value, outcome=outcome, condition=EVERYWHERE, protocol="exact",
        baseline=0.0, threshold=most, unit="share", passed=passed, failed=failed, not_judged=broken, message=message,
    )  # fmt: skip


def measure_divergence(check: str, told: Iterable[PromptAnswer]) -> Measurement:
    """Return the mean divergence of the next token over all prompts, which is shown."""
    values = [one.divergence for one in told if one.divergence is not None and math.isfinite(one.divergence)]
    mean = sum(values) / len(values) if values else None
    return Measurement(
        check=check, metric="divergence", value=mean, outcome=Outcome.UNMEASURED if mean is None else Outcome.INFO,
        condition=EVERYWHERE, unit="nats", message="mean divergence of the next token from that without the edit",
    )  # fmt: skip


def measure_neighbourhood_score(
    check: str, found: Sequence[Answer], before: Sequence[bool | None]
) -> list[Measurement]:
    """Return the neighbourhood score: the share of prompts at which the old answer is more probable than the new one."""
    now = [one.preferred for one in found]
    passed, failed = now.count(True), now.count(False)
    if not passed + failed:
        return []
    was = [one for one in before if one is not None]
    return [
        Measurement(
            check=check, metric="neighbourhood-score", value=passed / (passed + failed), outcome=Outcome.INFO,
            condition=EVERYWHERE, protocol="probability", baseline=sum(was) / len(was) if was else None, unit="share",
            passed=passed, failed=failed, not_judged=len(now) - passed - failed,
        )
    ]  # fmt: skip


class _Neighbours(NamedTuple):
    asked: UneditedAnswers
    made: bool


class Locality(Check):
    """Did other subjects stay as they were?"""

    name = "locality"
    card = Card(
        question="Do prompts about other subjects still get their own answers, and none of them the new target?",
        source="leaks and margins are this project's; shares of unchanged tokens: arXiv 2406.11263 section 5",
        needs="neighbourhood prompts of the request, or ones made of other subjects in the same prompt",
        unit="share of prompts",
        range="0 to 1",
        threshold="max_leaks (with max_target_rise) and max_flips (with near_tie) of the policy, over all conditions; "
        "min_locality and min_neighbour_answers, without a prefix, and after one too for rewritten edits",
        action="Do not ship an edit that leaks: shorten its target, word its prompt otherwise, or edit another layer.",
    )

    def prepare(
        self, bench: Bench, requests: Sequence[EditRequest], updates: Sequence[RankOne] = ()
    ) -> list[_Neighbours | None]:
        """Ask all neighbours once; None where a request has none and none can be made."""
        given = ask_unedited(
            bench,
            requests,
            [[RolePrompt("neighbour", text) for text in select_neighbours(request)] for request in requests],
            tokens=True,
        )
        # Neighbours that all say the target already cannot show a leak.
        lacking = [
            index
            for index, (request, one) in enumerate(zip(requests, given, strict=True))
            if one is None or not one.may_leak(bench.lm, request.target_new)
        ]
        made = dict(zip(lacking, self._made(bench, [requests[index] for index in lacking]), strict=True))
        found: list[_Neighbours | None] = []
        for index, (request, state) in enumerate(zip(requests, given, strict=True)):
            one = made.get(index)
            # Where the made ones say it too, the model says the target to everybody, and those that were given are asked.
            if one is not None and (state is None or one.may_leak(bench.lm, request.target_new)):
                found.append(_Neighbours(one, made=True))
            else:
                found.append(None if state is None else _Neighbours(state, made=False))
        return found

    @staticmethod
    def _made(bench: Bench, requests: Sequence[EditRequest]) -> list[UneditedAnswers | None]:
        if not requests:
            return []
        texts = [
            make_neighbours(bench.lm, request, kind, _MADE, seed=bench.prefixes.seed)
            for request, kind in zip(requests, classify_kinds(bench.lm, requests), strict=True)
        ]
        return ask_unedited(
            bench, requests, [[RolePrompt("made-neighbour", text) for text in some] for some in texts], tokens=True
        )

    def measure(
        self, bench: Bench, request: EditRequest, before: _Neighbours | None, needs_prefix: bool
    ) -> CheckResult:
        """Judge leaks and flips in every condition; tokens and answers where the edit acts."""
        if before is None:
            return CheckResult([self._nothing()])
        found = ask_edited(bench, request, before.asked)
        told, limits = [one.told for one in found], bench.limits
        judged = {"unprefixed", "prefixed"} if needs_prefix else {"unprefixed"}
        groups = {
            "unprefixed": [one for one in found if one.told.condition == "unprefixed"],
            "prefixed": [one for one in found if one.told.condition.startswith("family:")],
        }
        shares = [self._tokens(bench, name, some, judged=name in judged) for name, some in groups.items()]
        kept = [self._kept(bench, name, some, judged=name in judged) for name, some in groups.items()]
        others = "other subjects that the audit made" if before.made else "other subjects"
        return CheckResult(
            [
                measure_share(self.name, "leaks", told, "leak", limits.leaks, f"{others} say the new target"),
                measure_share(self.name, "flips", told, "flip", limits.flips, f"{others} are answered otherwise"),
                *shares,
                *kept,
                *measure_neighbourhood_score(self.name, found, before.asked.preferred),
                measure_divergence(self.name, told),
            ],
            prompts=told,
        )

    def known_bad(self, bench: Bench, request: EditRequest, before: _Neighbours | None) -> CheckResult | None:
        """A model whose every answer is the new target."""
        if before is None:
            return None
        return measure_constant_leaks(self, bench, request, before, before.asked)

    def _nothing(self) -> Measurement:
        message = "no other subject could be asked about: the request names none, and none could be made"
        return Measurement(self.name, "leaks", None, Outcome.UNMEASURED, EVERYWHERE, "exact", message=message)

    def _tokens(self, bench: Bench, condition: str, found: Sequence[Answer], *, judged: bool) -> Measurement:
        same = torch.cat([one.same for one in found])
        passed, failed, broken = (int((same == mark).sum()) for mark in (1, 0, -1))
        least = bench.limits.locality
        # Tokens that were not measured are no part of a share that could pass.
        value = None if broken else passed / len(same)
        outcome, message = Outcome.UNMEASURED, f"{broken} of {len(same)} tokens have logits that are not finite"
        if value is not None:
            outcome, message = Outcome.INFO, f"{passed} of {len(same)} tokens are unchanged"
            if judged:
                outcome = judge(value, value >= least)
                message = compare_with_bound(message, value >= least, f"at least {least:.0%}")
        return Measurement(
            check=self.name, metric=self.name, value=value, outcome=outcome, condition=condition,
            protocol="token-match", baseline=1.0, threshold=least, unit="share of tokens", passed=passed, failed=failed,
            not_judged=broken, message=message,
        )  # fmt: skip

    def _kept(self, bench: Bench, condition: str, found: Sequence[Answer], *, judged: bool) -> Measurement:
        same = [int(one.same[-1]) for one in found]
        passed, failed, broken = (same.count(mark) for mark in (1, 0, -1))
        value = passed / (passed + failed) if passed + failed else None
        least = bench.limits.neighbour_answers if judged else 0.0
        message = f"prompts about other subjects whose answer is what it was: {passed} of {len(same)}"
        outcome = Outcome.INFO
        if value is None or (least and broken):
            outcome = Outcome.UNMEASURED
        elif least:
            outcome, message = judge(value, value >= least), compare_with_bound(message, value >= least, f"at least {least:.0%}")
        return Measurement(
            check=self.name, metric="answers", value=value, outcome=outcome, condition=condition, protocol="exact",
            baseline=1.0, threshold=least or None, unit="share", passed=passed, failed=failed, not_judged=broken,
            message=message,
        )  # fmt: skip


def measure_constant_leaks(
    check: Check, bench: Bench, request: EditRequest, before: Any, asked: UneditedAnswers
) -> CheckResult | None:
    """Return the leaks that `check` sees in a model whose every answer is the target.

    None where the target is known by several tokens, which no one token can stand for.
    """
    if len(asked.lead) != 1:
        return None
    with answer_constantly(bench.lm, asked.lead[0]):
        found = check.measure(bench, request, before, needs_prefix=True)
    return CheckResult([one for one in found.measurements if one.metric == "leaks"])
