"""Do other words at the start of the prompt say the new target?

An edit of a first-token subject acts with no prefix only where it is written at a layer at which first tokens have keys of their
own. It may then reach other words that stand first in the same prompt, whether or not a neighbour of the request is among
them. This check puts two hundred words of the vocabulary into the subject's place, none of which an editor looks at. It also
gives the largest share of the update that such a word receives, from its key at the lowest edited layer.
"""

from __future__ import annotations

import random
from contextlib import nullcontext
from typing import TYPE_CHECKING, NamedTuple

import torch

from ...probes.card import Card
from ...probes.errors import RequestError
from ...probes.forward.partial import Row, Rows, get_first_logits
from ...probes.keys.first_token_keys import list_check_words
from ...probes.keys.subject_keys import compute_row_keys, locate
from ...probes.tokens import encode_target
from ...probes.wording import compare_with_bound
from ..check import Bench, Check, CheckResult, EditUnderTest, Measurement, Outcome, judge
from ..constant_model import answer_constantly
from ..unchanged_prompts import cut_lead

if TYPE_CHECKING:
    from collections.abc import Sequence

    from ...probes.forward.low_rank import LowRankUpdate
    from ...probes.model.site_change import SiteChange
    from ...probes.requests.request import EditRequest

__all__ = ["OtherFirstWords"]

_MOST_WORDS = 200


class _Words(NamedTuple):
    """The prompt with each word in the subject's place, and what the unedited model says to it."""

    rows: Rows
    said_target: torch.Tensor
    """Whether it says the target [words]."""
    lead: tuple[int, ...]
    """The first tokens of the target, up to the one that tells it apart."""
    reach: float | None = None
    """The largest share of the update that a word receives; None where no update was given."""


class OtherFirstWords(Check[_Words | None]):
    """Do other words at the start of the prompt say the new target?"""

    name = "first-words"
    card = Card(
        question="With another word of the vocabulary in the place of a first-token subject, does the prompt say the target now?",
        source="this project's; first tokens have nearly one key from some layer on: arXiv 2406.11263 section 4",
        needs="a subject that is the first token of the prompt, and capitalised words in the vocabulary",
        unit="share of words",
        range="0 to 1",
        threshold="max_first_word_leaks of the policy; the largest share of the update that a word receives is shown",
        action="Do not ship an edit that other subjects take: edit with another editor, or word the prompt so that something "
        "stands before the subject.",
    )

    def prepare(
        self, bench: Bench, requests: Sequence[EditRequest], updates: Sequence[LowRankUpdate] = ()
    ) -> list[_Words | None]:
        """Ask the unedited model with all words; None for a subject that is not the first token."""
        lowest: list[SiteChange | None] = [update.changes[0] for update in updates] or [None] * len(requests)
        return [self._ask(bench, request, change) for request, change in zip(requests, lowest, strict=True)]

    def _ask(self, bench: Bench, request: EditRequest, change: SiteChange | None) -> _Words | None:
        position = locate(bench.lm, request)
        if not position.is_first_token:
            return None
        own, rest = position.input_ids[position.last], position.input_ids[position.last + 1 :]
        words = [word for word in _choose_words(bench) if word != own]
        if not words:
            return None
        state = _run(bench, [(word, *rest) for word in words], _find_lead(bench, request))
        return state if change is None else state._replace(reach=_compute_reach(bench, change, words, own))

    def measure(self, bench: Bench, edit: EditUnderTest[_Words | None]) -> CheckResult:
        """Judge the share of words that say the target now and did not before."""
        return CheckResult([]) if edit.state is None else self._judge(bench, edit.state)

    def _judge(self, bench: Bench, state: _Words) -> CheckResult:
        logits, most = state.rows.logits(), bench.limits.first_word_leaks
        total = len(state.said_target)
        finite = torch.isfinite(logits).all(-1).reshape(total, -1).all(-1)
        broken = total - int(finite.sum())
        leaks = int((_says(logits, state.lead) & ~state.said_target & finite).sum())
        value = None if broken else leaks / total
        message = f"{broken} of {total} words have logits that are not finite"
        outcome = Outcome.UNMEASURED
        if value is not None:
            text = f"{leaks} of {total} other words at the start of the prompt say the new target"
            outcome, message = (
                judge(value, value <= most),
                compare_with_bound(text, value <= most, f"at most {most:.0%}"),
            )
        measurement = self.measurement(
            "leaks",
            value,
            outcome,
            protocol="exact",
            baseline=0.0,
            threshold=most,
            unit="share of words",
            passed=total - leaks - broken,
            failed=leaks,
            not_judged=broken,
            message=message,
        )
        return CheckResult([measurement, *self._show_reach(state)])

    def _show_reach(self, state: _Words) -> list[Measurement]:
        if state.reach is None:
            return []
        message = "largest share of the update that another word at the start of the prompt receives"
        return [self.measurement("reach", state.reach, Outcome.INFO, unit="share of the update", message=message)]

    def known_bad(self, bench: Bench, edit: EditUnderTest[_Words | None]) -> CheckResult | None:
        """A model whose every answer is the new target."""
        return self._judge_evidence(bench, edit, says_target=True)

    def known_good(self, bench: Bench, edit: EditUnderTest[_Words | None]) -> CheckResult | None:
        """The unedited model, asked with the words alone: a sound edit of another subject has none to judge."""
        return self._judge_evidence(bench, edit, says_target=False)

    def _judge_evidence(
        self, bench: Bench, edit: EditUnderTest[_Words | None], *, says_target: bool
    ) -> CheckResult | None:
        words, request = _choose_words(bench), edit.request
        if not words:
            return None
        try:
            lead = _find_lead(bench, request)
        except RequestError:
            return None
        # No single token stands for a target that several tell apart.
        if says_target and len(lead) != 1:
            return None
        state = edit.state or _run(bench, [(word,) for word in words], lead)
        with answer_constantly(bench.lm, lead[0]) if says_target else nullcontext():
            rows = self._judge(bench, state).measurements
        return CheckResult([row for row in rows if row.metric == "leaks"])


def _choose_words(bench: Bench) -> tuple[int, ...]:
    """Return the words of a run, the same for every request."""
    if "first-words" not in bench.memo:
        words = list_check_words(bench.lm)
        bench.memo["first-words"] = tuple(
            random.Random(bench.prefixes.seed).sample(words, min(_MOST_WORDS, len(words)))
        )
    chosen: tuple[int, ...] = bench.memo["first-words"]
    return chosen


def _find_lead(bench: Bench, request: EditRequest) -> tuple[int, ...]:
    target = encode_target(bench.lm.tokenizer, request.prompt, request.target_new, request.space)
    return tuple(cut_lead(bench.lm, target))


def _run(bench: Bench, texts: Sequence[tuple[int, ...]], lead: tuple[int, ...]) -> _Words:
    places = range(len(lead))
    rows = bench.stem([Row(ids + lead[:-1], 0, tuple(len(ids) - 1 + place for place in places)) for ids in texts])
    said_target = _says(get_first_logits(rows), lead)
    return _Words(rows.part(range(len(texts))), said_target, lead)


def _says(logits: torch.Tensor, lead: tuple[int, ...]) -> torch.Tensor:
    """Return whether each text's choices are the tokens of `lead` [texts]; `logits` are [texts * lead, vocabulary]."""
    choices = logits.argmax(-1).reshape(-1, len(lead))
    return (choices == torch.tensor(lead, device=choices.device)).all(1)


def _compute_reach(bench: Bench, change: SiteChange, words: Sequence[int], own: int) -> float:
    """Return the largest ||Delta k_w|| over ||Delta k||: k_w are the words' keys as first tokens, k is the subject's."""
    keys = compute_row_keys(bench.lm, change.site, [((token,), 0) for token in (own, *words)]).double().cpu()
    sizes = (keys @ change.right @ change.left.T).norm(dim=1)
    return float(sizes[1:].max() / sizes[0])
