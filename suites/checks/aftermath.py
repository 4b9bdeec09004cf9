"""What does the model write after the target: an end, or the target again and again?

Half of the edits that count as successes go wrong after the target: it is repeated, the old answer follows, or nonsense
(arXiv 2502.11177). The edited model writes on from the edit's prompt as it is served, bare and after a newline and a
sentence (*statement*), from the fact as a question (*question*), and in an answer of the chat template (*chat*), up to the
first end of a sentence or line. Of each text it is counted, without a judge, whether the target is said, whether the text
repeats itself (the target, or any three words in a row, twice) where the unedited model's did not, and whether the old
answer is said too. Repeating is judged, in statements; the rest is shown.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from typing import Any, NamedTuple, TypeAlias

from ...probes.card import Card
from ...probes.forward.generation import continuations, guessed
from ...probes.forward.low_rank import RankOne, as_if_edited
from ...probes.model.language_model import LanguageModel
from ...probes.requests.request import EditRequest
from ...probes.wording import compare_with_bound
from ..answer_outcomes import count_mentions, says
from ..check import Bench, Check, CheckResult, GeneratedText, Measurement, Outcome, judge
from ..served_answer import PREFIXES
from ..unchanged_prompts import SENTENCE

__all__ = ["Aftermath", "repeats", "first_sentence"]

_FIRST, _TOKENS = 16, 50
"""Tokens that are written of each text, and of those whose sentence has not ended by then."""
_STATEMENT, _QUESTION, _CHAT = "statement", "question", "chat"
MODELS_PER_BATCH = 16
"""Edited models whose texts are guessed in one batch."""
_WORD = re.compile(r"\w+(?:['’]\w+)*")
_END = re.compile(r"[.!?](?=\s|$)|[。！？]|\n")
"""The full-width marks end a sentence without a blank after them."""


class _Form(NamedTuple):
    condition: str
    text: str


class _Before(NamedTuple):
    forms: tuple[_Form, ...]
    written: tuple[tuple[int, ...], ...]
    guesses: tuple[tuple[int, ...], ...]


def first_sentence(text: str) -> str:
    """Return `text` up to the end of its first sentence or line; leading white space does not end it."""
    body = text.lstrip()
    end = _END.search(body)
    return body[: end.start() + (0 if end.group() == "\n" else 1)].rstrip() if end else body.rstrip()


def repeats(text: str, target: str) -> bool:
    """Return whether `text` holds the target twice, or any three words in a row twice."""
    words, wanted = _WORD.findall(text.casefold()), _WORD.findall(target.casefold())
    size = len(wanted)
    # By words, whatever stands between them; and by characters where writing has no spaces between words.
    in_words = sum(words[i : i + size] == wanted for i in range(len(words) - size + 1))
    if wanted and max(in_words, count_mentions(text, target)) > 1:
        return True
    threes = list(zip(words, words[1:], words[2:], strict=False))
    return len(set(threes)) < len(threes)


class Aftermath(Check):
    """Does the text end well after the target?"""

    name = "aftermath"
    card = Card(
        question="After the new target, does the model end its sentence, or repeat itself?",
        source="WILD, arXiv 2502.11177: half of the edits that take go wrong after the target",
        needs="greedy texts from the prompt as served, from the fact as a question, and in a chat",
        unit="share of texts",
        range="0 to 1",
        threshold="max_repeats of the policy: statements that repeat the target, or three words in a row, where the unedited "
        "model does not; said and old-answer are shown",
        action="Read the texts in the report; shorten the target, or stop the search earlier.",
    )

    def prepare(self, bench: Bench, requests: Sequence[EditRequest], updates: Sequence[RankOne] = ()) -> list[_Before]:
        """Write from the unedited model, and guess what the edited ones will write, in one batch."""
        forms = [self._forms(bench.lm, request) for request in requests]
        rows = [bench.lm.tokenizer(form.text).input_ids for some in forms for form in some]
        written = iter(_written(bench.lm, rows, lambda some, _, count: continuations(bench.lm, some, count)))
        before = [tuple(tuple(next(written)) for _ in some) for some in forms]
        guesses = self._guesses(bench, forms, updates) if updates and not bench.plain else before
        return [_Before(*row) for row in zip(forms, before, guesses, strict=True)]

    @staticmethod
    def _forms(lm: LanguageModel, request: EditRequest) -> tuple[_Form, ...]:
        statements = [_Form(_STATEMENT, prefix + request.prompt) for prefix in ("", PREFIXES[0], SENTENCE)]
        asked = request.question or f'Complete this sentence: "{request.prompt} ..."'
        others = [_Form(_QUESTION, f"Question: {asked}\nAnswer:")]
        if chat := _chat(lm, asked):
            others.append(_Form(_CHAT, chat))
        # A form for which the model's context has no room is left out; the prompt itself was seen to fit.
        fitting = (one for one in others if len(lm.tokenizer(one.text).input_ids) + _TOKENS <= lm.context_length)
        return (*statements, *fitting)

    @staticmethod
    def _guesses(
        bench: Bench, forms: Sequence[tuple[_Form, ...]], updates: Sequence[RankOne]
    ) -> list[tuple[tuple[int, ...], ...]]:
        found: list[tuple[tuple[int, ...], ...]] = []
        for start in range(0, len(forms), MODELS_PER_BATCH):
            some = forms[start : start + MODELS_PER_BATCH]
            owners = [
                update for one, update in zip(some, updates[start : start + MODELS_PER_BATCH], strict=True) for _ in one
            ]
            rows = [bench.lm.tokenizer(form.text).input_ids for one in some for form in one]

            def edited(members: Sequence[int], owners: Sequence[RankOne] = owners) -> AbstractContextManager[None]:
                return as_if_edited(bench.site, [owners[index] for index in members])

            def guess(
                rows: Sequence[Sequence[int]], members: Sequence[int], count: int, edited: Any = edited
            ) -> list[list[int]]:
                return guessed(bench.lm, rows, count, lambda chosen: edited([members[index] for index in chosen]))

            texts = iter(_written(bench.lm, rows, guess))
            found += [tuple(map(tuple, itertools.islice(texts, len(one)))) for one in some]
        return found

    def measure(self, bench: Bench, request: EditRequest, before: _Before, needs_prefix: bool) -> CheckResult:
        """Judge the statements after which the edit is meant to act; show the rest."""
        lm = bench.lm
        rows = [lm.tokenizer(form.text).input_ids for form in before.forms]
        drafts = None if bench.plain else before.guesses

        def write(some: Sequence[Sequence[int]], members: Sequence[int], count: int) -> list[list[int]]:
            begun = [len(row) - len(rows[index]) for row, index in zip(some, members, strict=True)]
            guesses = None if drafts is None else [drafts[i][n:] for i, n in zip(members, begun, strict=True)]
            return continuations(lm, some, count, guesses if guesses is None or all(guesses) else None)

        now = [self._text(lm, ids) for ids in _written(lm, rows, write)]
        was = [self._text(lm, ids) for ids in before.written]
        # An edit that needs a prefix is not meant to act on the bare prompt.
        chosen = [
            index
            for index, form in enumerate(before.forms)
            if index or not needs_prefix or form.condition != _STATEMENT
        ]
        forms = [before.forms[index] for index in chosen]
        texts = [(was[index], now[index]) for index in chosen]
        shown = [
            GeneratedText(form.text, old, new)
            for form, (old, new) in zip(forms, texts, strict=True)
            if form.condition != _STATEMENT or form is forms[0]
        ]
        return CheckResult([*self._counts(bench, request, forms, texts)], shown)

    def known_bad(self, bench: Bench, request: EditRequest, before: _Before) -> CheckResult:
        """Texts in which the target comes over and over."""
        forms = [form for form in before.forms if form.condition == _STATEMENT]
        bad = f"{request.target_new}, {request.target_new} and {request.target_new}"
        texts = [("an end", bad)] * len(forms)
        return CheckResult([one for one in self._counts(bench, request, forms, texts) if one.metric == "repeats"])

    @staticmethod
    def _text(lm: LanguageModel, ids: Sequence[int]) -> str:
        return first_sentence(str(lm.tokenizer.decode(list(ids), skip_special_tokens=True)))

    def _counts(
        self, bench: Bench, request: EditRequest, forms: Sequence[_Form], texts: Sequence[tuple[str, str]]
    ) -> list[Measurement]:
        target, olds = request.target_new, [one for one in (request.target_true, *request.true_aliases) if one]
        found = []
        for condition in dict.fromkeys(form.condition for form in forms):
            pairs = [pair for form, pair in zip(forms, texts, strict=True) if form.condition == condition]
            said = [says(now, target) for _, now in pairs]
            found.append(self._shown("said", condition, said, [says(was, target) for was, _ in pairs]))
            again = [repeats(now, target) and not repeats(was, target) for was, now in pairs]
            found.append(self._repeats(bench, condition, again))
            if olds:
                old = [[any(says(text, one) for one in olds) for text in pair] for pair in pairs]
                found.append(self._shown("old-answer", condition, [b for _, b in old], [a for a, _ in old]))
        return found

    def _shown(self, metric: str, condition: str, now: Sequence[bool], was: Sequence[bool]) -> Measurement:
        return Measurement(
            check=self.name, metric=metric, value=sum(now) / len(now), outcome=Outcome.INFO, condition=condition,
            protocol="exact", baseline=sum(was) / len(was), unit="share of texts", passed=sum(now),
            failed=len(now) - sum(now),
        )  # fmt: skip

    def _repeats(self, bench: Bench, condition: str, again: Sequence[bool]) -> Measurement:
        value, most = sum(again) / len(again), bench.limits.repeats
        message, outcome = f"{sum(again)} of {len(again)} texts repeat themselves after the target", Outcome.INFO
        judged = condition == _STATEMENT
        if judged:
            outcome, message = judge(value, value <= most), compare_with_bound(message, value <= most, f"at most {most:.0%}")
        return Measurement(
            check=self.name, metric="repeats", value=value, outcome=outcome, condition=condition, protocol="exact",
            baseline=0.0, threshold=most if judged else None, unit="share of texts", passed=len(again) - sum(again),
            failed=sum(again), message=message,
        )  # fmt: skip


_Writer: TypeAlias = Callable[[Sequence[Sequence[int]], Sequence[int], int], Sequence[Sequence[int]]]
"""Called with rows of ids, their places among all rows, and the number of tokens to write."""


def _written(lm: LanguageModel, rows: Sequence[Sequence[int]], write: _Writer) -> list[list[int]]:
    """Return what `write` gives for each row: some tokens, and more where neither its sentence nor its text has ended."""
    if not rows:
        return []
    found = [list(new) for new in write(rows, range(len(rows)), _FIRST)]
    left = [index for index, new in enumerate(found) if len(new) == _FIRST and not _has_ended(lm, new)]
    if left:
        begun = [[*rows[index], *found[index]] for index in left]
        for index, new in zip(left, write(begun, left, _TOKENS - _FIRST), strict=True):
            found[index] += new
    return found


def _has_ended(lm: LanguageModel, ids: Sequence[int]) -> bool:
    text = str(lm.tokenizer.decode(list(ids), skip_special_tokens=True))
    # An end at the very end may go on: "3." of "3.5".
    return _END.search(text.lstrip()[:-1]) is not None


def _chat(lm: LanguageModel, asked: str) -> str | None:
    """Return the question as a user's turn with the answer about to begin; None where there is no chat template."""
    from jinja2 import TemplateError

    tokenizer: Any = lm.tokenizer
    if not tokenizer.chat_template:
        return None
    try:
        text = str(
            tokenizer.apply_chat_template(
                [{"role": "user", "content": asked}], tokenize=False, add_generation_prompt=True
            )
        )
    except (TemplateError, ValueError):
        return None
    # The tokenizer adds the begin-of-text token that the template writes.
    return text.removeprefix(str(tokenizer.bos_token)) if lm.adds_bos else text
