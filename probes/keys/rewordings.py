"""A fact in other words, written by the model itself: the same request, asked for in another way.

The model is asked several times to rephrase the sentence that is true, or the one that the edit would make true. Of each
answer that names the subject and, after it, the object, what stands before the object is a prompt of the same fact. Nothing
is known of their quality: one in a few is a fragment. They are contexts to seek an edit under, never ones to judge it by.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence

from ..forward.generation import sampled
from ..model.language_model import LanguageModel
from ..requests.request import EditRequest
from ..requests.spacing import choose_separator
from ..words import find_cut_word

__all__ = ["extract_prompt", "write_rewordings"]

_ASKED = (
    "Rephrase this sentence in other words: {}",
    "Write the same fact differently, in one short sentence: {}",
    'Paraphrase: "{}"',
)
_EACH, _TOKENS, _TOP_K, _TEMPERATURE = 8, 24, 40, 0.9
_LONGEST = 100
"""Characters of a prompt; what is longer is a digression."""


def write_rewordings(lm: LanguageModel, requests: Sequence[EditRequest], most: int, seed: int) -> list[tuple[str, ...]]:
    """Return for each request at most `most` prompts in the model's own words that ask for what it does; there may be none.

    None of them is the request's prompt or one of its paraphrases, which are there to test with. What is drawn for a
    request does not depend on the others.
    """
    each = len(_ASKED) * _EACH
    asked = [[_ids(lm, text.format(_sentence(one))) for text in _ASKED for _ in range(_EACH)] for one in requests]
    # What would be longer than the model reads is not asked.
    fits = [max(map(len, rows)) + _TOKENS <= lm.context_length for rows in asked]
    rows = [row for some, fit in zip(asked, fits, strict=True) if fit for row in some]
    seeds = [seed + index for index in range(each)] * sum(fits)
    drawn = sampled(lm, rows, _TOKENS, seed=seeds, top_k=_TOP_K, temperature=_TEMPERATURE)
    written = lm.tokenizer.batch_decode(drawn, skip_special_tokens=True)
    parts = iter([written[start : start + each] for start in range(0, len(written), each)])
    return [_prompts(one, next(parts))[:most] if fit else () for one, fit in zip(requests, fits, strict=True)]


def _sentence(request: EditRequest) -> str:
    # A fact that the model knows is reworded better than one that it does not.
    target = _object(request)
    return f"{request.prompt}{choose_separator(request.prompt, target, request.space)}{target}."


def _object(request: EditRequest) -> str:
    return request.target_true or request.target_new


def _prompts(request: EditRequest, written: Sequence[str]) -> tuple[str, ...]:
    known = {_plain(prompt) for prompt in (request.prompt, *request.paraphrases)}
    found = dict.fromkeys(extract_prompt(text, request) for text in written)
    return tuple(prompt for prompt in found if prompt is not None and _plain(prompt) not in known)


def _ids(lm: LanguageModel, asked: str) -> list[int]:
    tokenizer = lm.tokenizer
    chat = tokenizer.chat_template is not None
    # A model that was only trained on text goes on with it.
    text = f'{asked}\n"'
    if chat:
        message = [{"role": "user", "content": asked}]
        text = str(tokenizer.apply_chat_template(message, add_generation_prompt=True, tokenize=False))
    ids: list[int] = tokenizer(text, add_special_tokens=not chat).input_ids
    return ids


def extract_prompt(text: str, request: EditRequest) -> str | None:
    """Return what stands before the object in the first line of `text`, where that names the subject once; else None."""
    line = text.strip().partition("\n")[0]
    said = next(_words(line, _object(request)), None)
    if said is None:
        return None
    # What leads up to a quotation is about the answer, not the fact.
    part = re.split(r'["“:]', line[:said].rstrip(" \"'“("))[-1].strip()
    named = list(_words(part, request.subject))
    rest = part.partition(request.subject)[2].strip()
    return part if len(named) == 1 == part.count(request.subject) and rest and len(part) <= _LONGEST else None


def _words(text: str, name: str) -> Iterator[int]:
    """Yield where `name` stands in `text` as a word of its own."""
    for found in re.finditer(re.escape(name), text):
        if find_cut_word(text, *found.span()) is None:
            yield found.start()


def _plain(prompt: str) -> str:
    return " ".join(re.findall(r"\w+", prompt.casefold()))
