"""Prompts that an edit must not change: their answers before and after it, and how each answer changed.

Each prompt is asked without a prefix, after a newline, after a sentence and after a begin-of-text token. An edit that leaves a
prompt unchanged may take over the same prompt after a newline. The sentence is not one that edits are made with.
`editguard.suites.answer_outcomes` says what counts as a leak, a flip, a near tie or kept.

The field reports shares of unchanged tokens as locality. These count near ties as damage and hide leaks, hence both figures.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

import torch

from ..probes.forward.generation import continue_greedily
from ..probes.forward.partial import Row, Rows, get_first_logits
from ..probes.keys.prefixes import Family
from ..probes.tokens import encode_target
from .answer_outcomes import AnswerPair, classify_answer, says, take_beginning
from .check import Bench, PromptAnswer

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from ..probes.model.language_model import LanguageModel
    from ..probes.requests.request import EditRequest

__all__ = [
    "SENTENCE",
    "PrefixCondition",
    "RolePrompt",
    "UneditedAnswers",
    "ask_edited",
    "ask_unedited",
    "cut_lead",
    "list_conditions",
    "normalise_word",
    "predict_first_words",
]

ANSWER_TOKENS = 6
"""Tokens of an answer that are written, compared and shown; more where the target is longer."""
_MOST_ANSWER_TOKENS = 24
SENTENCE = "Here is a fact. "
_DIVERGENCE_TOKENS = 256
"""Tokens with a probability of their own in the divergence; all others count as one, which can only make it smaller."""
_LIKELY_TOKENS = 5
"""Next tokens among which an answer is looked for."""
_ARTICLES = {"the", "a", "an"}


class PrefixCondition(NamedTuple):
    """One text that stands before a prompt, with the name of the condition."""

    condition: str
    prefix: str


class RolePrompt(NamedTuple):
    """A prompt and why it is asked: ``neighbour``, ``made-neighbour``, ``other-fact`` or ``made-other-fact``."""

    role: str
    prompt: str


@dataclass(frozen=True, kw_only=True)
class _Text:
    role: str
    condition: str
    prompt: str
    ids: tuple[int, ...]
    own: int
    """Number of tokens at the end whose next token is compared: those of the prompt, or its last one."""


class _Place(NamedTuple):
    """The next token's distribution, as far as the divergence needs it."""

    margin: float
    certainty: float
    common: torch.Tensor
    """Ids of the most probable tokens."""
    shares: torch.Tensor
    """Their probabilities, and that of all others."""


@dataclass(frozen=True, kw_only=True)
class UneditedAnswers:
    """The unedited model's answers to the prompts of one request."""

    texts: tuple[_Text, ...]
    written: tuple[tuple[int, ...], ...]
    """Ids of each text's answer."""
    budget: int
    """Tokens of an answer, where the text does not end before."""
    stem: Rows
    choices: torch.Tensor
    """Greedy choices at all places of all rows."""
    places: tuple[_Place | None, ...]
    """None where the unedited model's logits are not finite."""
    lead: tuple[int, ...]
    leads: tuple[float, ...]
    """Probability of the target's first tokens after each text."""
    truth: int | None
    """The old answer's token, to compare with the target's; None where one of the two needs several."""
    preferred: tuple[bool | None, ...]
    """Whether the old answer was more probable than the target."""

    def may_leak(self, lm: LanguageModel, target: str) -> bool:
        """Return whether some answer does not begin with the target already."""
        answers = (str(lm.tokenizer.decode(list(ids), skip_special_tokens=True)) for ids in self.written)
        return any(not says(take_beginning(text, target), target) for text in answers)


class EditedAnswer(NamedTuple):
    """The answer to one text after the edit, with the greedy choices at the prompt's own tokens."""

    prompt_answer: PromptAnswer
    token_marks: torch.Tensor
    """1 unchanged, 0 changed, -1 not finite, for each token of the prompt; the last mark is the answer's first token."""
    certainty: float
    """Probability of the answer's first token before the edit."""
    preferred: bool | None
    """Whether the old answer is more probable than the target; None where the request gives none."""


def list_conditions(bench: Bench) -> tuple[PrefixCondition, ...]:
    """Return the prefixes of a prompt in turn: none, a newline, a sentence, and a begin-of-text token."""
    tokenizer = bench.lm.tokenizer
    conditions = [
        PrefixCondition("unprefixed", ""),
        PrefixCondition(f"family:{Family.NEWLINE.value}", "\n"),
        PrefixCondition(f"family:{Family.SENTENCE.value}", SENTENCE),
    ]
    if tokenizer.bos_token and not bench.lm.adds_bos:
        conditions.append(PrefixCondition(f"special:{tokenizer.bos_token}", str(tokenizer.bos_token)))
    return tuple(conditions)


# ------------------------------------------------------------------------------------------------------------- before


class FirstWords(NamedTuple):
    """The words with which the unedited model may continue a prompt, alone or after a newline."""

    best: frozenset[str]
    """The next token of the prompt alone and after a newline, without spaces and in lower case; no articles."""
    likely: frozenset[str]
    """The most probable next tokens, in the same form."""
    certainty: float
    """Probability of the surest of them."""


def predict_first_words(bench: Bench, prompts: Sequence[str]) -> dict[str, FirstWords]:
    """Return how the unedited model continues each prompt, by a short pass; a prompt of broken logits is left out."""
    if not prompts:
        return {}
    before, tokenizer = ("", "\n"), bench.lm.tokenizer
    ids = [tuple(tokenizer(prefix + prompt).input_ids) for prompt in prompts for prefix in before]
    stem = bench.stem([Row(row, 0, (len(row) - 1,)) for row in ids])
    shares = get_first_logits(stem).softmax(-1)
    best = shares.topk(min(_LIKELY_TOKENS, shares.shape[-1]))
    first_words = {}
    for index, prompt in enumerate(prompts):
        places = slice(index * len(before), (index + 1) * len(before))
        if bool(torch.isfinite(best.values[places]).all()):
            words = [
                [normalise_word(tokenizer.decode([token])) for token in row] for row in best.indices[places].tolist()
            ]
            top = frozenset(row[0] for row in words) - _ARTICLES
            likely = frozenset(word for row in words for word in row) - _ARTICLES
            first_words[prompt] = FirstWords(top, likely, float(best.values[places].max()))
    return first_words


def normalise_word(text: object) -> str:
    """Return a token's text without the spaces around it, in lower case."""
    return str(text).strip().casefold()


def ask_unedited(
    bench: Bench, requests: Sequence[EditRequest], prompts: Sequence[Sequence[RolePrompt]], *, tokens: bool = False
) -> list[UneditedAnswers | None]:
    """Ask the unedited model each request's prompts under every condition; None where there are none.

    With `tokens` the greedy choices at all tokens of the prompts are compared too, not only their answers.
    """
    texts = [_texts(bench, some, tokens=tokens) for some in prompts]
    budgets = [_budget(bench.lm, request) for request in requests]
    rows = [text.ids for some in texts for text in some]
    counts = [budget for budget, some in zip(budgets, texts, strict=True) for _ in some]
    written = iter(continue_greedily(bench.lm, rows, counts) if rows else ())
    return [
        _state(bench, request, some, [tuple(next(written)) for _ in some], budget) if some else None
        for request, some, budget in zip(requests, texts, budgets, strict=True)
    ]


def _budget(lm: LanguageModel, request: EditRequest) -> int:
    target = encode_target(lm.tokenizer, request.prompt, request.target_new, request.space)
    return min(max(ANSWER_TOKENS, len(target) + 3), _MOST_ANSWER_TOKENS)


def _texts(bench: Bench, prompts: Sequence[RolePrompt], *, tokens: bool) -> list[_Text]:
    """Return the texts of all conditions that fit into the model's context."""
    tokenizer = bench.lm.tokenizer
    texts = []
    for condition, prefix in list_conditions(bench) if prompts else ():
        for role, prompt in prompts:
            ids = tuple(tokenizer(prefix + prompt).input_ids)
            if len(ids) + _MOST_ANSWER_TOKENS > bench.lm.context_length:
                continue
            own = min(len(tokenizer(prompt).input_ids) if tokens else 1, len(ids))
            texts.append(_Text(role=role, condition=condition, prompt=prompt, ids=ids, own=own))
    return texts


def _state(
    bench: Bench, request: EditRequest, texts: Sequence[_Text], written: Sequence[tuple[int, ...]], budget: int
) -> UneditedAnswers:
    target = encode_target(bench.lm.tokenizer, request.prompt, request.target_new, request.space)
    lead = cut_lead(bench.lm, target)
    rows = [
        # A token of the prompt itself is compared too; and each token of the answer, so that it need not be written again.
        Row(text.ids + ids[:-1], 0, tuple(range(len(text.ids) - text.own, len(text.ids) + len(ids) - 1)))
        for text, ids in zip(texts, written, strict=True)
    ]
    if len(lead) > 1:
        rows += [
            Row(text.ids + lead[:-1], 0, tuple(range(len(text.ids) - 1, len(text.ids) + len(lead) - 1)))
            for text in texts
        ]
    stem = bench.stem(rows)
    first = get_first_logits(stem)
    parts = first.split([len(row.predict) for row in rows])
    places = [part[text.own - 1] for part, text in zip(parts, texts, strict=False)]
    truth = _truth(bench.lm, request, lead)
    return UneditedAnswers(
        texts=tuple(texts),
        written=tuple(written),
        budget=budget,
        stem=stem.part(range(len(rows))),
        choices=first.argmax(-1),
        places=tuple(map(_place, places)),
        lead=lead,
        leads=tuple(_leads(parts, texts, lead)),
        truth=truth,
        preferred=tuple(_prefers(place, truth, lead) for place in places),
    )


def _truth(lm: LanguageModel, request: EditRequest, lead: Sequence[int]) -> int | None:
    if not request.target_true or len(lead) != 1:
        return None
    true_lead = cut_lead(lm, encode_target(lm.tokenizer, request.prompt, request.target_true, request.space))
    return true_lead[0] if len(true_lead) == 1 and true_lead != tuple(lead) else None


def _prefers(logits: torch.Tensor, truth: int | None, lead: Sequence[int]) -> bool | None:
    if truth is None or not bool(torch.isfinite(logits).all()):
        return None
    return bool(logits[truth] > logits[lead[0]])


def cut_lead(lm: LanguageModel, target: Sequence[int]) -> tuple[int, ...]:
    """Return the beginning of `target` that identifies an answer as the target: up to the first token that is no article."""
    for index, token in enumerate(target):
        word = str(lm.tokenizer.decode([token])).strip().lower()
        if word not in _ARTICLES and any(letter.isalnum() for letter in word):
            return tuple(target[: index + 1])
    return tuple(target)


def _place(logits: torch.Tensor) -> _Place | None:
    if not bool(torch.isfinite(logits).all()):
        return None
    log_shares = logits.double().log_softmax(-1)
    top = log_shares.topk(min(_DIVERGENCE_TOKENS, len(log_shares)))
    margin = float(top.values[0] - top.values[1]) if len(top.values) > 1 else float("inf")
    shares = top.values.exp()
    return _Place(margin, float(shares[0]), top.indices, torch.cat([shares, (1 - shares.sum()).clamp(min=0)[None]]))


def _leads(parts: Sequence[torch.Tensor], texts: Sequence[_Text], lead: Sequence[int]) -> Iterator[float]:
    """Yield the probability of the target's first tokens after each text."""
    for index, text in enumerate(texts):
        places = parts[index][text.own - 1][None] if len(lead) == 1 else parts[len(texts) + index]
        ids = torch.tensor(lead, device=places.device)
        yield float(places.double().log_softmax(-1).gather(1, ids[:, None]).sum().exp())


# -------------------------------------------------------------------------------------------------------------- after


def ask_edited(bench: Bench, request: EditRequest, state: UneditedAnswers) -> list[EditedAnswer]:
    """Return the answers of the model as it is now, and how each of them changed."""
    logits = state.stem.logits()
    counts = [len(row.predict) for row in state.stem.rows]
    parts = logits.split(counts)
    same = (logits.argmax(-1) == state.choices).long()
    marks = torch.where(torch.isfinite(logits).all(-1), same, -1).split(counts)
    leads = list(_leads(parts, state.texts, state.lead))
    written = _rewrite(bench, state, marks)
    return [
        _answer(
            bench,
            state,
            index,
            target=request.target_new,
            logits=parts[index],
            marks=marks[index],
            written=written[index],
            lead=leads[index],
        )
        for index in range(len(state.texts))
    ]


def _rewrite(bench: Bench, state: UneditedAnswers, marks: Sequence[torch.Tensor]) -> list[tuple[int, ...]]:
    """Return each answer's ids now: those of before as far as nothing changed, and from there on written anew."""
    answers = list(state.written)
    changes: list[tuple[int, int]] = []
    for index, text in enumerate(state.texts):
        own = marks[index][text.own - 1 :].tolist()
        step = next((place for place, mark in enumerate(own) if mark != 1), None)
        if step is not None and -1 not in own:
            changes.append((index, step))
    if changes:
        rows = [[*state.texts[index].ids, *state.written[index][:step]] for index, step in changes]
        counts = [state.budget - step for _, step in changes]
        for (index, step), new in zip(changes, continue_greedily(bench.lm, rows, counts), strict=True):
            answers[index] = (*state.written[index][:step], *new)
    return answers


def _answer(
    bench: Bench,
    state: UneditedAnswers,
    index: int,
    *,
    target: str,
    logits: torch.Tensor,
    marks: torch.Tensor,
    written: tuple[int, ...],
    lead: float,
) -> EditedAnswer:
    """Return the answer to the text number `index`; `lead` is the probability of the target's first tokens now."""
    text, place = state.texts[index], state.places[index]
    decode, finite = bench.lm.tokenizer.decode, bool(torch.isfinite(logits).all())
    before, after = (str(decode(list(ids), skip_special_tokens=True)) for ids in (state.written[index], written))
    result, divergence = "unmeasured", None
    rise = lead - state.leads[index]
    if finite and place is not None and math.isfinite(rise):
        result = classify_answer(
            AnswerPair(state.written[index], written, before, after),
            state.lead,
            target,
            margin=place.margin,
            rise=rise,
            limits=bench.limits,
            same_subject=text.role.endswith("fact"),
        )
        divergence = _divergence(place, logits[text.own - 1])
    prompt_answer = PromptAnswer(
        role=text.role,
        condition=text.condition,
        prompt=text.prompt,
        before=before,
        after=after if finite else "",
        result=result,
        margin=None if place is None else place.margin,
        target_before=state.leads[index],
        target_after=lead,
        divergence=divergence,
    )
    return EditedAnswer(
        prompt_answer=prompt_answer,
        token_marks=marks[: text.own],
        certainty=0.0 if place is None else place.certainty,
        preferred=_prefers(logits[text.own - 1], state.truth, state.lead),
    )


def _divergence(place: _Place, logits: torch.Tensor) -> float:
    """Return the Kullback-Leibler divergence of the next token from before to now, in nats, rare tokens taken together."""
    shares = logits.double().softmax(-1)[place.common.to(logits.device)]
    now = torch.cat([shares, (1 - shares.sum()).clamp(min=0)[None]])
    before = place.shares.to(now.device)
    tiny = torch.finfo(torch.float32).tiny
    return float((before * (before.clamp(min=tiny).log() - now.clamp(min=tiny).log())).sum().clamp(min=0))
