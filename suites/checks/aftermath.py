"""After the target, does the model end its sentence, or say the target again and again?

Half of the edits that count as successes go wrong after the target: it is repeated, the old answer follows, or nonsense
(arXiv 2502.11177). The edited model continues three kinds of text up to the first end of a sentence or line. *statement* is the
edit's prompt as it is served, alone and after a newline and a sentence. *question* is the fact as a question, and *chat* an
answer in the chat template. Three things are counted in each text, without a judge: whether the target is said, whether the
text repeats itself where the unedited model's did not, and whether the old answer is said too. A text repeats itself where the
target, or any three words in a row, come twice. Repetition in statements is judged; the rest is shown.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple, TypeAlias

from ...probes.card import Card
from ...probes.forward.generation import continue_greedily, guess_continuations
from ...probes.forward.low_rank import LowRankUpdate, apply_updates
from ...probes.wording import compare_with_bound
from ..answer_outcomes import count_mentions, says
from ..check import Bench, Check, CheckResult, EditUnderTest, GeneratedText, Measurement, Outcome, judge
from ..served_answer import PREFIXES
from ..unchanged_prompts import SENTENCE

if TYPE_CHECKING:
    from contextlib import AbstractContextManager

    from ...probes.model.language_model import LanguageModel
    from ...probes.requests.request import EditRequest

__all__ = ["Aftermath", "first_sentence", "repeats"]

_FIRST_TOKENS = 16
"""Tokens that are written of each text at first."""
_MOST_TOKENS = 50
"""Tokens that are written of texts whose sentence has not ended by then."""
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
    words, pattern = _WORD.findall(text.casefold()), _WORD.findall(target.casefold())
    size = len(pattern)
    # By words, whatever stands between them; and by characters where writing has no spaces between words.
    in_words = sum(words[i : i + size] == pattern for i in range(len(words) - size + 1))
    if pattern and max(in_words, count_mentions(text, target)) > 1:
        return True
    threes = list(zip(words, words[1:], words[2:], strict=False))
    return len(set(threes)) < len(threes)


class Aftermath(Check[_Before]):
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

    def prepare(
        self, bench: Bench, requests: Sequence[EditRequest], updates: Sequence[LowRankUpdate] = ()
    ) -> list[_Before]:
        """Write from the unedited model, and guess what the edited ones will write, in one batch."""
        forms = [self._forms(bench.lm, request) for request in requests]
        rows = [bench.lm.tokenizer(form.text).input_ids for some in forms for form in some]
        written = iter(
            _write_sentences(bench.lm, rows, lambda some, _, count: continue_greedily(bench.lm, some, count))
        )
        before = [tuple(tuple(next(written)) for _ in some) for some in forms]
        guesses = self._guesses(bench, forms, updates) if updates and not bench.plain else before
        return [_Before(*row) for row in zip(forms, before, guesses, strict=True)]

    @staticmethod
    def _forms(lm: LanguageModel, request: EditRequest) -> tuple[_Form, ...]:
        statements = [_Form(_STATEMENT, prefix + request.prompt) for prefix in ("", PREFIXES[0], SENTENCE)]
        question = request.question or f'Complete this sentence: "{request.prompt} ..."'
        others = [_Form(_QUESTION, f"Question: {question}\nAnswer:")]
        if chat := _render_chat(lm, question):
            others.append(_Form(_CHAT, chat))
        # A form that does not fit into the model's context is left out; the prompt itself was checked before.
        fitting = (
            form for form in others if len(lm.tokenizer(form.text).input_ids) + _MOST_TOKENS <= lm.context_length
        )
        return (*statements, *fitting)

    @staticmethod
    def _guesses(
        bench: Bench, forms: Sequence[tuple[_Form, ...]], updates: Sequence[LowRankUpdate]
    ) -> list[tuple[tuple[int, ...], ...]]:
        guesses: list[tuple[tuple[int, ...], ...]] = []
        for start in range(0, len(forms), MODELS_PER_BATCH):
            some = forms[start : start + MODELS_PER_BATCH]
            part = updates[start : start + MODELS_PER_BATCH]
            owners = [update for group, update in zip(some, part, strict=True) for _ in group]
            rows = [bench.lm.tokenizer(form.text).input_ids for group in some for form in group]

            def edited(
                members: Sequence[int], owners: Sequence[LowRankUpdate] = owners
            ) -> AbstractContextManager[None]:
                return apply_updates([owners[index] for index in members])

            def guess(
                rows: Sequence[Sequence[int]], members: Sequence[int], count: int, edited: Any = edited
            ) -> list[list[int]]:
                return guess_continuations(
                    bench.lm, rows, count, lambda chosen: edited([members[index] for index in chosen])
                )

            texts = iter(_write_sentences(bench.lm, rows, guess))
            guesses += [tuple(map(tuple, itertools.islice(texts, len(group)))) for group in some]
        return guesses

    def with_drafts(self, bench: Bench, requests: Sequence[EditRequest], states: Sequence[_Before]) -> list[_Before]:
        """Write all texts of the model as it is now in one batch."""
        drafts = self.prepare(bench, requests)
        return [state._replace(guesses=draft.written) for state, draft in zip(states, drafts, strict=True)]

    def measure(self, bench: Bench, edit: EditUnderTest[_Before]) -> CheckResult:
        """Judge the statements after which the edit is meant to act; show the rest."""
        lm, before = bench.lm, edit.state
        rows = [lm.tokenizer(form.text).input_ids for form in before.forms]
        drafts = None if bench.plain else before.guesses

        def write(some: Sequence[Sequence[int]], members: Sequence[int], count: int) -> list[list[int]]:
            begun = [len(row) - len(rows[index]) for row, index in zip(some, members, strict=True)]
            guesses = None if drafts is None else [drafts[i][n:] for i, n in zip(members, begun, strict=True)]
            return continue_greedily(lm, some, count, guesses if guesses is None or all(guesses) else None)

        now = [self._text(lm, ids) for ids in _write_sentences(lm, rows, write)]
        was = [self._text(lm, ids) for ids in before.written]
        # An edit that needs a prefix is not meant to act on the prompt without one.
        chosen = [
            index
            for index, form in enumerate(before.forms)
            if index or not edit.needs_prefix or form.condition != _STATEMENT
        ]
        forms = [before.forms[index] for index in chosen]
        texts = [(was[index], now[index]) for index in chosen]
        shown = [
            GeneratedText(form.text, old, new)
            for form, (old, new) in zip(forms, texts, strict=True)
            if form.condition != _STATEMENT or form is forms[0]
        ]
        return CheckResult(self._count(bench, edit.request, forms, texts), shown)

    def known_bad(self, bench: Bench, edit: EditUnderTest[_Before]) -> CheckResult:
        """Texts in which the target comes over and over."""
        request = edit.request
        forms = [form for form in edit.state.forms if form.condition == _STATEMENT]
        bad = f"{request.target_new}, {request.target_new} and {request.target_new}"
        texts = [("an end", bad)] * len(forms)
        return CheckResult([row for row in self._count(bench, request, forms, texts) if row.metric == "repeats"])

    @staticmethod
    def _text(lm: LanguageModel, ids: Sequence[int]) -> str:
        return first_sentence(str(lm.tokenizer.decode(list(ids), skip_special_tokens=True)))

    def _count(
        self, bench: Bench, request: EditRequest, forms: Sequence[_Form], texts: Sequence[tuple[str, str]]
    ) -> list[Measurement]:
        """Return the measurements of `texts`, pairs of before and now, condition by condition."""
        target = request.target_new
        old_answers = [text for text in (request.target_true, *request.true_aliases) if text]
        rows = []
        for condition in dict.fromkeys(form.condition for form in forms):
            pairs = [pair for form, pair in zip(forms, texts, strict=True) if form.condition == condition]
            hits = [says(now, target) for _, now in pairs]
            rows.append(self._show("said", condition, hits, [says(before, target) for before, _ in pairs]))
            again = [repeats(now, target) and not repeats(before, target) for before, now in pairs]
            rows.append(self._measure_repeats(bench, condition, again))
            if old_answers:
                old = [[any(says(text, answer) for answer in old_answers) for text in pair] for pair in pairs]
                rows.append(self._show("old-answer", condition, [now for _, now in old], [was for was, _ in old]))
        return rows

    def _show(self, metric: str, condition: str, now: Sequence[bool], before: Sequence[bool]) -> Measurement:
        return self.measurement(
            metric,
            sum(now) / len(now),
            Outcome.INFO,
            condition=condition,
            protocol="exact",
            baseline=sum(before) / len(before),
            unit="share of texts",
            passed=sum(now),
            failed=len(now) - sum(now),
        )

    def _measure_repeats(self, bench: Bench, condition: str, again: Sequence[bool]) -> Measurement:
        value, most = sum(again) / len(again), bench.limits.repeats
        message, outcome = f"{sum(again)} of {len(again)} texts repeat themselves after the target", Outcome.INFO
        judged = condition == _STATEMENT
        if judged:
            outcome = judge(value, value <= most)
            message = compare_with_bound(message, value <= most, f"at most {most:.0%}")
        return self.measurement(
            "repeats",
            value,
            outcome,
            condition=condition,
            protocol="exact",
            baseline=0.0,
            threshold=most if judged else None,
            unit="share of texts",
            passed=len(again) - sum(again),
            failed=sum(again),
            message=message,
        )


_Writer: TypeAlias = Callable[[Sequence[Sequence[int]], Sequence[int], int], Sequence[Sequence[int]]]
"""Called with rows of ids, their places among all rows, and the number of tokens to write."""


def _write_sentences(lm: LanguageModel, rows: Sequence[Sequence[int]], write: _Writer) -> list[list[int]]:
    """Return what `write` gives for each row: some tokens, and more where neither its sentence nor its text has ended."""
    if not rows:
        return []
    texts = [list(ids) for ids in write(rows, range(len(rows)), _FIRST_TOKENS)]
    left = [index for index, ids in enumerate(texts) if len(ids) == _FIRST_TOKENS and not _has_ended(lm, ids)]
    if left:
        begun = [[*rows[index], *texts[index]] for index in left]
        for index, ids in zip(left, write(begun, left, _MOST_TOKENS - _FIRST_TOKENS), strict=True):
            texts[index] += ids
    return texts


def _has_ended(lm: LanguageModel, ids: Sequence[int]) -> bool:
    text = str(lm.tokenizer.decode(list(ids), skip_special_tokens=True))
    # A mark at the very end may not be the end: "3." of "3.5".
    return _END.search(text.lstrip()[:-1]) is not None


def _render_chat(lm: LanguageModel, question: str) -> str | None:
    """Return the question as a user's turn with the answer about to begin; None where there is no chat template."""
    from jinja2 import TemplateError

    tokenizer: Any = lm.tokenizer
    if not tokenizer.chat_template:
        return None
    try:
        text = str(
            tokenizer.apply_chat_template(
                [{"role": "user", "content": question}], tokenize=False, add_generation_prompt=True
            )
        )
    except (TemplateError, ValueError):
        return None
    # The tokenizer adds the begin-of-text token that the template writes.
    return text.removeprefix(str(tokenizer.bos_token)) if lm.adds_bos else text
