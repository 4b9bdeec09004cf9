"""Prompts that an edit must not change: what they are answered with before and after it, and what became of the answer.

Each prompt is asked bare, after a newline, after a sentence and after a begin-of-text token, since an edit that leaves a
bare prompt alone may take over the same prompt after a newline. The sentence is none that edits are made under.
What counts as a leak, a flip, a near tie or kept stands in `outcomes`.

Shares of unchanged tokens, which the field reports as locality, count near ties as damage and hide leaks: hence both.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch

from ..probes.forward.generation import continuations
from ..probes.forward.partial import PlainRows, Row, Stem
from ..probes.keys.prefixes import Family
from ..probes.model.language_model import LanguageModel
from ..probes.requests.request import EditRequest
from ..probes.tokens import target_ids
from .answer_outcomes import AnswerPair, classify_answer, says, take_beginning
from .check import Bench, PromptAnswer

__all__ = [
    "SENTENCE",
    "RolePrompt",
    "PrefixCondition",
    "UneditedAnswers",
    "ask_edited",
    "ask_unedited",
    "list_conditions",
    "predict_first_words",
    "cut_lead",
    "normalise_word",
]

WORDS = 6
"""Tokens of an answer that are written, compared and shown; more where the target is longer."""
_MOST_WORDS = 24
SENTENCE = "Here is a fact. "
_COMMON = 256
"""Tokens whose probabilities are kept for the divergence; all others count as one, which can only make it smaller."""
_LIKELY = 5
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


class _Text(NamedTuple):
    role: str
    condition: str
    prompt: str
    ids: tuple[int, ...]
    own: int
    """Tokens at the end whose next token is compared: the prompt's own, or its last alone."""


class _Place(NamedTuple):
    """The next token's distribution, as far as it is kept."""

    margin: float
    certainty: float
    common: torch.Tensor
    """Ids of the most probable tokens."""
    shares: torch.Tensor
    """Their probabilities, and that of all others."""


@dataclass(frozen=True)
class UneditedAnswers:
    """What the unedited model answers to the prompts of one request."""

    texts: tuple[_Text, ...]
    written: tuple[tuple[int, ...], ...]
    """Ids of each text's answer."""
    budget: int
    """Tokens of an answer, where the text does not end before."""
    stem: Stem | PlainRows
    choices: torch.Tensor
    """Greedy choices at all places of all rows."""
    places: tuple[_Place | None, ...]
    """None where the unedited model's logits are not finite."""
    lead: tuple[int, ...]
    leads: tuple[float, ...]
    """Probability of the target's first tokens after each text."""
    truth: int | None
    """The old answer's token that is held against the target's; None where one of the two needs several."""
    preferred: tuple[bool | None, ...]
    """Whether the old answer was more probable than the target."""

    def may_leak(self, lm: LanguageModel, target: str) -> bool:
        """Return whether some answer does not begin with the target already."""
        said = (str(lm.tokenizer.decode(list(ids), skip_special_tokens=True)) for ids in self.written)
        return any(not says(take_beginning(text, target), target) for text in said)


class Answer(NamedTuple):
    """One text's answer after the edit, and which of the prompt's own tokens are the greedy choice that they were."""

    told: PromptAnswer
    same: torch.Tensor
    """1 unchanged, 0 changed, -1 not finite, for each token of the prompt; the last is the answer's first token."""
    certainty: float
    """Probability of the answer's first token before the edit."""
    preferred: bool | None
    """Whether the old answer is more probable than the target; None where the request gives none."""


def list_conditions(bench: Bench) -> tuple[PrefixCondition, ...]:
    """Return what stands before a prompt in turn: nothing, a newline, a sentence, and a begin-of-text token."""
    tokenizer = bench.lm.tokenizer
    found = [
        PrefixCondition("unprefixed", ""),
        PrefixCondition(f"family:{Family.NEWLINE.value}", "\n"),
        PrefixCondition(f"family:{Family.SENTENCE.value}", SENTENCE),
    ]
    if tokenizer.bos_token and not bench.lm.adds_bos:
        found.append(PrefixCondition(f"special:{tokenizer.bos_token}", str(tokenizer.bos_token)))
    return tuple(found)


# ------------------------------------------------------------------------------------------------------------- before


class FirstWords(NamedTuple):
    """What the unedited model may say next to a prompt, bare or after a newline."""

    said: frozenset[str]
    """The next token that it says, bare and after a newline, without spaces and in lower case; no articles."""
    likely: frozenset[str]
    """The most probable next tokens, in the same form."""
    certainty: float
    """Probability of the surest of them."""


def predict_first_words(bench: Bench, prompts: Sequence[str]) -> dict[str, FirstWords]:
    """Return what the unedited model says next to each prompt, by a short pass; a prompt of broken logits is left out."""
    if not prompts:
        return {}
    before, tokenizer = ("", "\n"), bench.lm.tokenizer
    ids = [tuple(tokenizer(prefix + prompt).input_ids) for prompt in prompts for prefix in before]
    shares = bench.stem([Row(row, 0, (len(row) - 1,)) for row in ids]).first.softmax(-1)
    best = shares.topk(min(_LIKELY, shares.shape[-1]))
    found = {}
    for index, prompt in enumerate(prompts):
        places = slice(index * len(before), (index + 1) * len(before))
        if bool(torch.isfinite(best.values[places]).all()):
            words = [
                [normalise_word(tokenizer.decode([token])) for token in row] for row in best.indices[places].tolist()
            ]
            said = frozenset(row[0] for row in words) - _ARTICLES
            likely = frozenset(word for row in words for word in row) - _ARTICLES
            found[prompt] = FirstWords(said, likely, float(best.values[places].max()))
    return found


def normalise_word(text: object) -> str:
    """Return a token's text without the spaces around it, in lower case."""
    return str(text).strip().casefold()


def ask_unedited(
    bench: Bench, requests: Sequence[EditRequest], asked: Sequence[Sequence[RolePrompt]], *, tokens: bool = False
) -> list[UneditedAnswers | None]:
    """Ask the unedited model each request's prompts under every condition; None where there are none.

    With `tokens` the greedy choices at all tokens of the prompts are compared too, not their answers alone.
    """
    texts = [_texts(bench, some, tokens=tokens) for some in asked]
    budgets = [_budget(bench.lm, request) for request in requests]
    rows = [text.ids for some in texts for text in some]
    wanted = [count for count, some in zip(budgets, texts, strict=True) for _ in some]
    written = iter(continuations(bench.lm, rows, wanted) if rows else ())
    return [
        _state(bench, request, some, [tuple(next(written)) for _ in some], budget) if some else None
        for request, some, budget in zip(requests, texts, budgets, strict=True)
    ]


def _budget(lm: LanguageModel, request: EditRequest) -> int:
    target = target_ids(lm.tokenizer, request.prompt, request.target_new, request.space)
    return min(max(WORDS, len(target) + 3), _MOST_WORDS)


def _texts(bench: Bench, asked: Sequence[RolePrompt], *, tokens: bool) -> list[_Text]:
    tokenizer = bench.lm.tokenizer
    under = list_conditions(bench) if asked else ()
    found = []
    for condition, prefix in under:
        for role, prompt in asked:
            ids = tuple(tokenizer(prefix + prompt).input_ids)
            if len(ids) + _MOST_WORDS > bench.lm.context_length:
                continue
            own = len(tokenizer(prompt).input_ids) if tokens else 1
            found.append(_Text(role, condition, prompt, ids, min(own, len(ids))))
    return found


def _state(
    bench: Bench, request: EditRequest, texts: Sequence[_Text], written: Sequence[tuple[int, ...]], budget: int
) -> UneditedAnswers:
    target = target_ids(bench.lm.tokenizer, request.prompt, request.target_new, request.space)
    lead = cut_lead(bench.lm, target)
    rows = [
        # A token of the prompt itself is compared too; and each token of the answer, so that it need not be written again.
        Row(text.ids + said[:-1], 0, tuple(range(len(text.ids) - text.own, len(text.ids) + len(said) - 1)))
        for text, said in zip(texts, written, strict=True)
    ]
    if len(lead) > 1:
        rows += [
            Row(text.ids + lead[:-1], 0, tuple(range(len(text.ids) - 1, len(text.ids) + len(lead) - 1)))
            for text in texts
        ]
    stem = bench.stem(rows)
    parts = stem.first.split([len(row.predict) for row in rows])
    places = [part[text.own - 1] for part, text in zip(parts, texts, strict=False)]
    truth = _truth(bench.lm, request, lead)
    return UneditedAnswers(
        texts=tuple(texts),
        written=tuple(written),
        budget=budget,
        stem=stem.part(range(len(rows))),
        choices=stem.first.argmax(-1),
        places=tuple(map(_place, places)),
        lead=lead,
        leads=tuple(_leads(parts, texts, lead)),
        truth=truth,
        preferred=tuple(_prefers(place, truth, lead) for place in places),
    )


def _truth(lm: LanguageModel, request: EditRequest, lead: Sequence[int]) -> int | None:
    if not request.target_true or len(lead) != 1:
        return None
    found = cut_lead(lm, target_ids(lm.tokenizer, request.prompt, request.target_true, request.space))
    return found[0] if len(found) == 1 and found != tuple(lead) else None


def _prefers(logits: torch.Tensor, truth: int | None, lead: Sequence[int]) -> bool | None:
    if truth is None or not bool(torch.isfinite(logits).all()):
        return None
    return bool(logits[truth] > logits[lead[0]])


def cut_lead(lm: LanguageModel, target: Sequence[int]) -> tuple[int, ...]:
    """Return the beginning of `target` by which an answer is known as the target: to the first token that is no article."""
    for index, token in enumerate(target):
        word = str(lm.tokenizer.decode([token])).strip().lower()
        if word not in _ARTICLES and any(letter.isalnum() for letter in word):
            return tuple(target[: index + 1])
    return tuple(target)


def _place(logits: torch.Tensor) -> _Place | None:
    if not bool(torch.isfinite(logits).all()):
        return None
    log_shares = logits.double().log_softmax(-1)
    top = log_shares.topk(min(_COMMON, len(log_shares)))
    margin = float(top.values[0] - top.values[1]) if len(top.values) > 1 else float("inf")
    shares = top.values.exp()
    return _Place(margin, float(shares[0]), top.indices, torch.cat([shares, (1 - shares.sum()).clamp(min=0)[None]]))


def _leads(parts: Sequence[torch.Tensor], texts: Sequence[_Text], lead: Sequence[int]) -> Iterator[float]:
    """Yield the probability of the target's first tokens after each text."""
    for index, text in enumerate(texts):
        places = parts[index][text.own - 1][None] if len(lead) == 1 else parts[len(texts) + index]
        wanted = torch.tensor(lead, device=places.device)
        yield float(places.double().log_softmax(-1).gather(1, wanted[:, None]).sum().exp())


# -------------------------------------------------------------------------------------------------------------- after


def ask_edited(bench: Bench, request: EditRequest, state: UneditedAnswers) -> list[Answer]:
    """Ask the model as it is now, and say what became of each answer."""
    logits = state.stem.logits()
    counts = [len(row.predict) for row in state.stem.rows]
    parts = logits.split(counts)
    finite = [bool(torch.isfinite(part).all()) for part in parts]
    same = (logits.argmax(-1) == state.choices).long()
    marks = torch.where(torch.isfinite(logits).all(-1), same, -1).split(counts)
    now = list(_leads(parts, state.texts, state.lead))
    written = _written(bench, state, marks)
    target = request.target_new
    return [
        _answer(bench, state, index, parts[index], marks[index], written[index], now[index], target, finite[index])
        for index in range(len(state.texts))
    ]


def _written(bench: Bench, state: UneditedAnswers, marks: Sequence[torch.Tensor]) -> list[tuple[int, ...]]:
    """Return each answer's ids now: those of before as far as nothing changed, and from there on written anew."""
    found = list(state.written)
    left: list[tuple[int, int]] = []
    for index, text in enumerate(state.texts):
        agreed = marks[index][text.own - 1 :].tolist()
        if (step := next((i for i, mark in enumerate(agreed) if mark != 1), None)) is not None and -1 not in agreed:
            left.append((index, step))
    if left:
        rows = [[*state.texts[index].ids, *state.written[index][:step]] for index, step in left]
        wanted = [state.budget - step for _, step in left]
        for (index, step), new in zip(left, continuations(bench.lm, rows, wanted), strict=True):
            found[index] = (*state.written[index][:step], *new)
    return found


def _answer(
    bench: Bench, state: UneditedAnswers, index: int, logits: torch.Tensor, marks: torch.Tensor,
    written: tuple[int, ...], lead_now: float, target: str, finite: bool,
) -> Answer:  # fmt: skip
    text, place = state.texts[index], state.places[index]
    decode = bench.lm.tokenizer.decode
    before, after = (str(decode(list(ids), skip_special_tokens=True)) for ids in (state.written[index], written))
    said = AnswerPair(state.written[index], written, before, after)
    result, divergence = "unmeasured", None
    rise = lead_now - state.leads[index]
    if finite and place is not None and math.isfinite(rise):
        same = text.role.endswith("fact")
        result = classify_answer(said, state.lead, target, place.margin, rise, bench.limits, same_subject=same)
        divergence = _divergence(place, logits[text.own - 1])
    told = PromptAnswer(
        role=text.role, condition=text.condition, prompt=text.prompt, before=before, after=after if finite else "",
        result=result, margin=None if place is None else place.margin, target_before=state.leads[index],
        target_after=lead_now, divergence=divergence,
    )  # fmt: skip
    preferred = _prefers(logits[text.own - 1], state.truth, state.lead)
    return Answer(told, marks[: text.own], 0.0 if place is None else place.certainty, preferred)


def _divergence(place: _Place, logits: torch.Tensor) -> float:
    """Return the Kullback-Leibler divergence of the next token from before to now, in nats, rare tokens taken together."""
    shares = logits.double().softmax(-1)[place.common.to(logits.device)]
    now = torch.cat([shares, (1 - shares.sum()).clamp(min=0)[None]])
    was = place.shares.to(now.device)
    tiny = torch.finfo(torch.float32).tiny
    return float((was * (was.clamp(min=tiny).log() - now.clamp(min=tiny).log())).sum().clamp(min=0))
