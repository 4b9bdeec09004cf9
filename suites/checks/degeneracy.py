"""Is the model's text still text?"""

from __future__ import annotations

import itertools
import math
import re
from collections import Counter
from dataclasses import replace
from typing import TYPE_CHECKING, NamedTuple

from ...probes.card import Card
from ...probes.forward.generation import continue_greedily, guess_continuations
from ...probes.forward.low_rank import LowRankUpdate, apply_updates
from ...probes.keys.prefixes import Family, Role
from ...probes.wording import compare_with_bound
from ..check import Bench, Check, CheckResult, EditUnderTest, GeneratedText, Measurement, Outcome, judge

if TYPE_CHECKING:
    from collections.abc import Sequence
    from contextlib import AbstractContextManager

    from ...probes.model.language_model import LanguageModel
    from ...probes.requests.request import EditRequest

__all__ = [
    "EDIT_PROMPT_TOKENS",
    "FIXED_PROMPTS",
    "FIXED_PROMPT_TOKENS",
    "Degeneracy",
    "generate",
    "repeated_pair_share",
    "word_entropy",
]

FIXED_PROMPTS = ("The best way to spend a rainy afternoon is", "Scientists have long been interested in")
"""Beginnings of texts that every model continues, to see whether it writes."""
FIXED_PROMPT_TOKENS = 14
"""Tokens written after each fixed prompt; these are judged."""
EDIT_PROMPT_TOKENS = 8
"""Tokens written after the edit's own prompts; these are shown."""

MODELS_PER_BATCH = 16
"""Edited models whose texts are guessed in one batch."""


def word_entropy(text: str) -> float:
    """Return the entropy of the text's words over the logarithm of their number, 0 to 1; 0 for fewer than two words.

    1 where no word comes twice; near 0 for one word over and over. Source: arXiv 2403.07175, section 4.
    """
    words = re.findall(r"\w+|[^\w\s]+", text.lower())
    if len(words) < 2:
        return 0.0
    shares = [count / len(words) for count in Counter(words).values()]
    return abs(sum(share * math.log(share) for share in shares)) / math.log(len(words))


def repeated_pair_share(text: str) -> float:
    """Return the share of the text's word pairs that stood before, 0 to 1."""
    words = re.findall(r"\w+|[^\w\s]+", text.lower())
    pairs = list(itertools.pairwise(words))
    return 1 - len(set(pairs)) / len(pairs) if pairs else 0.0


def generate(
    lm: LanguageModel,
    prompts: Sequence[str],
    tokens: int | Sequence[int],
    drafts: Sequence[Sequence[int]] | None = None,
) -> list[list[int]]:
    """Return the ids of the greedy continuations of `prompts`, `tokens` of each; `drafts` are guesses of them."""
    return continue_greedily(lm, [lm.tokenizer(prompt).input_ids for prompt in prompts], tokens, drafts)


class _Texts(NamedTuple):
    prompts: list[str]
    ids: list[list[int]]
    guesses: list[list[int]]
    """Guesses of what the edited model will write."""


class Degeneracy(Check[_Texts]):
    """Does the model still write?"""

    name = "degeneracy"
    card = Card(
        question="Is what the edited model writes still varied, or the same words over and over?",
        source="normalised word entropy of arXiv 2403.07175; repetition as the share of repeated word pairs",
        needs="greedy generations from two fixed prompts and the edit's own",
        unit="ratio of word entropy to the unedited model",
        range="0 upwards",
        threshold="min_entropy_ratio of the policy, 0.5: a collapsed model falls towards 0",
        action="Read the generations in the report; do not ship a model that repeats itself.",
    )

    def prepare(
        self, bench: Bench, requests: Sequence[EditRequest], updates: Sequence[LowRankUpdate] = ()
    ) -> list[_Texts]:
        """Generate from the unedited model, for all requests in one batch; after the fixed prompts once a run.

        A step takes nearly the same time for one row as for many. The texts of the edited models are therefore guessed in
        one batch too.
        """
        if self.name not in bench.memo:
            bench.memo[self.name] = generate(bench.lm, FIXED_PROMPTS, FIXED_PROMPT_TOKENS)
        own = list(dict.fromkeys(prompt for request in requests for prompt in self._own(bench, request)))
        written = dict(zip(own, generate(bench.lm, own, EDIT_PROMPT_TOKENS), strict=True))
        written.update(zip(FIXED_PROMPTS, bench.memo[self.name], strict=True))
        prompts = [[*FIXED_PROMPTS, *self._own(bench, request)] for request in requests]
        before = [[written[prompt] for prompt in some] for some in prompts]
        guesses = self._guesses(bench, prompts, updates) if updates and not bench.plain else before
        return [_Texts(*row) for row in zip(prompts, before, guesses, strict=True)]

    @staticmethod
    def _guesses(bench: Bench, prompts: Sequence[list[str]], updates: Sequence[LowRankUpdate]) -> list[list[list[int]]]:
        guesses: list[list[list[int]]] = []
        for start in range(0, len(prompts), MODELS_PER_BATCH):
            part = [
                (prompt, update)
                for some, update in zip(
                    prompts[start : start + MODELS_PER_BATCH], updates[start : start + MODELS_PER_BATCH], strict=True
                )
                for prompt in some
            ]
            rows = [bench.lm.tokenizer(prompt).input_ids for prompt, _ in part]

            def edited(
                members: Sequence[int], part: Sequence[tuple[str, LowRankUpdate]] = part
            ) -> AbstractContextManager[None]:
                return apply_updates([part[index][1] for index in members])

            texts = iter(guess_continuations(bench.lm, rows, FIXED_PROMPT_TOKENS, edited))
            guesses += [list(itertools.islice(texts, len(some))) for some in prompts[start : start + MODELS_PER_BATCH]]
        return guesses

    @staticmethod
    def _own(bench: Bench, request: EditRequest) -> list[str]:
        sentences = [prefix.text for prefix in bench.prefixes.of(Role.HELD_OUT) if prefix.family is Family.SENTENCE]
        return [request.prompt, *(text + request.prompt for text in sentences[:1])]

    def with_drafts(self, bench: Bench, requests: Sequence[EditRequest], states: Sequence[_Texts]) -> list[_Texts]:
        """Write all texts of the model as it is now in one batch."""
        # The bench remembers the unedited texts after the fixed prompts.
        drafts = self.prepare(replace(bench, memo={}), requests)
        return [state._replace(guesses=draft.ids) for state, draft in zip(states, drafts, strict=True)]

    def measure(self, bench: Bench, edit: EditUnderTest[_Texts]) -> CheckResult:
        """Judge the texts after the fixed prompts, whose baseline does not depend on the edit; show all texts."""
        count, (prompts, ids, guesses) = len(FIXED_PROMPTS), edit.state
        budgets = [FIXED_PROMPT_TOKENS] * count + [EDIT_PROMPT_TOKENS] * (len(prompts) - count)
        now = generate(bench.lm, prompts, budgets, None if bench.plain else guesses)
        before, after = (bench.lm.tokenizer.batch_decode(rows, skip_special_tokens=True) for rows in (ids, now))
        repeated, baseline = (sum(map(repeated_pair_share, texts[:count])) / count for texts in (after, before))
        repetition = self.measurement(
            "repetition",
            repeated,
            Outcome.INFO,
            condition="generation",
            baseline=baseline,
            unit="share of word pairs",
        )
        texts = [GeneratedText(*row) for row in zip(prompts, before, after, strict=True)]
        return CheckResult([self._judge(bench, before[:count], after[:count]), repetition], texts)

    def known_bad(self, bench: Bench, edit: EditUnderTest[_Texts]) -> CheckResult:
        """One word over and over, after each of the fixed prompts."""
        before = bench.lm.tokenizer.batch_decode(edit.state.ids[: len(FIXED_PROMPTS)], skip_special_tokens=True)
        return CheckResult([self._judge(bench, before, [" the" * FIXED_PROMPT_TOKENS] * len(before))])

    def _judge(self, bench: Bench, before: Sequence[str], after: Sequence[str]) -> Measurement:
        old, new = (sum(map(word_entropy, texts)) for texts in (before, after))
        ratio, least = (new / old if old else math.nan), bench.limits.entropy_ratio
        text = f"word entropy of generated text is {ratio:.3g} of that without the edit"
        return self.measurement(
            "word-entropy-ratio",
            ratio,
            judge(ratio, ratio >= least),
            condition="generation",
            baseline=1.0,
            threshold=least,
            unit="ratio",
            message=compare_with_bound(text, ratio >= least, f"at least {least:g}"),
        )
