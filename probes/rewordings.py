"""A fact in other words, written by the model itself: the same request, asked for in another way.

The model is asked to rephrase the sentence that the edit would make true, several times under one seed. Of each answer
that names the subject and, behind it, the target, what stands before the target is a prompt of the same fact. Nothing
is known of their quality: one in a few is a fragment. They are contexts to seek an edit under, never ones to judge it by.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

from .generation import sampled
from .model import LanguageModel
from .requests import EditRequest

__all__ = ["rewordings"]

_ASKED = (
    "Rephrase this sentence in other words: {}",
    "Write the same fact differently, in one short sentence: {}",
    'Paraphrase: "{}"',
)
_EACH, _TOKENS, _TOP_K = 6, 24, 40
_LONGEST = 100
"""Characters of a prompt; what is longer is a digression."""


def rewordings(lm: LanguageModel, request: EditRequest, most: int, seed: int) -> tuple[str, ...]:
    """Return at most `most` prompts in the model's own words that ask for what `request` does; there may be none.

    None of them is the request's prompt or one of its paraphrases, which are there to test with. Every call for a request
    gives the same, whatever else is run.
    """
    if not most:
        return ()
    sentence = f"{request.prompt} {request.target_new}."
    rows = [_ids(lm, asked.format(sentence)) for asked in _ASKED for _ in range(_EACH)]
    written = lm.tokenizer.batch_decode(sampled(lm, rows, _TOKENS, seed=seed, top_k=_TOP_K), skip_special_tokens=True)
    known = {_plain(prompt) for prompt in (request.prompt, *request.paraphrases)}
    found = dict.fromkeys(
        prompt for text in written for prompt in _prompt(text, request) if _plain(prompt) not in known
    )
    return tuple(found)[:most]


def _ids(lm: LanguageModel, asked: str) -> list[int]:
    tokenizer = lm.tokenizer
    chat = tokenizer.chat_template is not None
    # A model that was only trained on text goes on with it.
    text = f'{asked}\n"'
    if chat:
        message = [{"role": "user", "content": asked}]
        text = tokenizer.apply_chat_template(message, add_generation_prompt=True, tokenize=False)
    ids: list[int] = tokenizer(text, add_special_tokens=not chat).input_ids
    return ids


def _prompt(text: str, request: EditRequest) -> Iterator[str]:
    """Yield what stands before the target in the first line of `text`, from the subject's own sentence on."""
    line = text.strip().partition("\n")[0]
    said = re.search(rf"(?<!\w){re.escape(request.target_new)}(?!\w)", line)
    if said is None:
        return
    # What leads up to a quotation is about the answer, not the fact.
    part = re.split(r'["“:]', line[: said.start()].rstrip(" \"'“("))[-1].strip()
    named = re.findall(rf"(?<!\w){re.escape(request.subject)}(?!\w)", part)
    rest = part.partition(request.subject)[2].strip()
    if len(named) == 1 == part.count(request.subject) and rest and len(part) <= _LONGEST:
        yield part


def _plain(prompt: str) -> str:
    return " ".join(re.findall(r"\w+", prompt.casefold()))
