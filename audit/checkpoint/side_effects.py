"""Facts that nobody edited: do prompts about other subjects still get their answers from the edited model?

The prompts are those of the built-in suite and of the ordinary subjects. One about a subject of the file of edits is left out.
An answer that changes although the base preferred it clearly is a side effect; near ties are shown and not counted.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from ...probes.requests.request import EditRequest
from ...reports.log.prompt_outcomes import PromptRole
from ...reports.verdict.checkpoint import SIDE_EFFECTS
from ...suites.builtin import load_builtin_edits, load_ordinary_requests
from ...suites.check import Bench, Measurement, Outcome, PromptAnswer, judge
from ...suites.tasks.measure import names_subject
from ...suites.unchanged_prompts import RolePrompt, UneditedAnswers, ask_edited, ask_unedited

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = ["SideEffects"]

_ORDINARY = 20
"""Ordinary subjects that are asked about, beside those of the suite."""
_FEWEST = 20
"""Prompts that must be left, so that the share of their answers means something."""
_NO_TARGET = "something else"
"""Stands for the new target, which such a prompt does not have."""


class SideEffects:
    """The base's answers about subjects that are not in the file of edits."""

    def __init__(self, bench: Bench, edits: Sequence[EditRequest]) -> None:
        """Ask the base, which is unedited now."""
        self._bench = bench
        self._requests = self.list_requests(edits)
        prompts = [[RolePrompt(PromptRole.SIDE_EFFECT.value, request.prompt)] for request in self._requests]
        with bench.autocast():
            self._before: list[UneditedAnswers | None] = ask_unedited(bench, self._requests, prompts)

    @staticmethod
    def list_requests(edits: Sequence[EditRequest]) -> list[EditRequest]:
        """Return requests whose prompts speak of no subject of `edits`, each prompt once."""
        subjects = [edit.subject for edit in edits]
        requests = {
            request.prompt: EditRequest(
                id=request.id, subject=request.subject, prompt=request.prompt, target_new=_NO_TARGET
            )
            for request in (*load_builtin_edits(), *load_ordinary_requests(_ORDINARY))
            if not names_subject(request.prompt, subjects)
        }
        return list(requests.values())

    def measure(self, most: float) -> tuple[Measurement, list[PromptAnswer]]:
        """Return the share of answers that changed, at most `most`, and all answers of the model as it is now."""
        with self._bench.autocast():
            answers = [
                answer.prompt_answer
                for request, before in zip(self._requests, self._before, strict=True)
                if before is not None
                for answer in ask_edited(self._bench, request, before)
            ]
        return _measure_changes(answers, most), answers


def _measure_changes(answers: Sequence[PromptAnswer], most: float) -> Measurement:
    broken = sum(answer.result == "unmeasured" for answer in answers)
    changed = sum(answer.result in ("flip", "leak") for answer in answers)
    few = len({answer.prompt for answer in answers}) < _FEWEST
    value = None if broken or few else changed / len(answers)
    message = f"{changed} of {len(answers)} answers about subjects that nobody edited changed, at most {most:.0%} may"
    if value is None:
        message = f"{broken} of {len(answers)} answers have logits that are not finite"
        if few:
            message = f"fewer than {_FEWEST} prompts name none of the edited subjects, and so few show nothing"
    return Measurement(
        check=SIDE_EFFECTS,
        metric="changed",
        value=value,
        outcome=Outcome.UNMEASURED if value is None else judge(value, value <= most),
        condition="everywhere",
        protocol="exact",
        baseline=0.0,
        threshold=most,
        unit="share",
        passed=len(answers) - changed - broken,
        failed=changed,
        not_judged=broken,
        message=message,
    )
