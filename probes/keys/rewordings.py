"""A fact in other words, written by the model itself: the same request, asked for in another way.

The model must rephrase the sentence that is true, or the one that the edit would make true, several times.
If its answer names the subject and, after it, the object, the text before the object is a prompt of the same fact.
Their quality is not measured, and some are fragments.
They are contexts for the search of an edit, never for its judgement.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from ..forward.generation import sample_continuations
from ..requests.spacing import choose_separator
from ..word_boundaries import find_cut_word

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from ..model.language_model import LanguageModel
    from ..requests.request import EditRequest

__all__ = ["extract_prompt", "write_rewordings"]

_INSTRUCTIONS = (
    "Rephrase this sentence in other words: {}",
    "Write the same fact differently, in one short sentence: {}",
    'Paraphrase: "{}"',
)
_ANSWERS_PER_INSTRUCTION, _TOKENS, _TOP_K, _TEMPERATURE = 8, 24, 40, 0.9
_LONGEST_PROMPT = 100
"""Characters of a prompt; a longer one digresses."""


def write_rewordings(lm: LanguageModel, requests: Sequence[EditRequest], most: int, seed: int) -> list[tuple[str, ...]]:
    """Return for each request at most `most` prompts for the same fact in the model's own words; there may be none.

    None of them is the request's prompt or one of its paraphrases, which are for tests.
    The draws for one request do not depend on the others.
    """
    per_request = len(_INSTRUCTIONS) * _ANSWERS_PER_INSTRUCTION
    instructions = [
        [
            _encode(lm, text.format(_make_sentence(request)))
            for text in _INSTRUCTIONS
            for _ in range(_ANSWERS_PER_INSTRUCTION)
        ]
        for request in requests
    ]
    # A text that is longer than the model reads is left out.
    fits = [max(map(len, rows)) + _TOKENS <= lm.context_length for rows in instructions]
    rows = [row for group, fit in zip(instructions, fits, strict=True) if fit for row in group]
    seeds = [seed + index for index in range(per_request)] * sum(fits)
    sampled_rows = sample_continuations(lm, rows, _TOKENS, seed=seeds, top_k=_TOP_K, temperature=_TEMPERATURE)
    texts = lm.tokenizer.batch_decode(sampled_rows, skip_special_tokens=True)
    groups = iter([texts[start : start + per_request] for start in range(0, len(texts), per_request)])
    return [
        _select_prompts(request, next(groups))[:most] if fit else ()
        for request, fit in zip(requests, fits, strict=True)
    ]


def _make_sentence(request: EditRequest) -> str:
    # A fact that the model holds is reworded better than one that it does not.
    target = _object_of(request)
    return f"{request.prompt}{choose_separator(request.prompt, target, request.space)}{target}."


def _object_of(request: EditRequest) -> str:
    return request.target_true or request.target_new


def _select_prompts(request: EditRequest, texts: Sequence[str]) -> tuple[str, ...]:
    """Return the prompts in `texts` that are neither the request's prompt nor a paraphrase, each one time."""
    own_prompts = {_fold(prompt) for prompt in (request.prompt, *request.paraphrases)}
    prompts = dict.fromkeys(extract_prompt(text, request) for text in texts)
    return tuple(prompt for prompt in prompts if prompt is not None and _fold(prompt) not in own_prompts)


def _encode(lm: LanguageModel, instruction: str) -> list[int]:
    tokenizer = lm.tokenizer
    has_chat = tokenizer.chat_template is not None
    # A model that was trained on text only continues it.
    text = f'{instruction}\n"'
    if has_chat:
        message = [{"role": "user", "content": instruction}]
        text = str(tokenizer.apply_chat_template(message, add_generation_prompt=True, tokenize=False))
    ids: list[int] = tokenizer(text, add_special_tokens=not has_chat).input_ids
    return ids


def extract_prompt(text: str, request: EditRequest) -> str | None:
    """Return the text before the object in the first line of `text`, if it names the subject exactly once; else None."""
    line = text.strip().partition("\n")[0]
    object_start = next(_word_starts(line, _object_of(request)), None)
    if object_start is None:
        return None
    # The text before a quotation is about the answer, not the fact.
    prompt = re.split(r'["“:]', line[:object_start].rstrip(" \"'“("))[-1].strip()
    subject_starts = list(_word_starts(prompt, request.subject))
    rest = prompt.partition(request.subject)[2].strip()
    names_subject_once = len(subject_starts) == 1 == prompt.count(request.subject)
    return prompt if names_subject_once and rest and len(prompt) <= _LONGEST_PROMPT else None


def _word_starts(text: str, name: str) -> Iterator[int]:
    """Yield where `name` stands in `text` as a word of its own."""
    for match in re.finditer(re.escape(name), text):
        if find_cut_word(text, *match.span()) is None:
            yield match.start()


def _fold(prompt: str) -> str:
    """Return the words of a prompt in small letters."""
    return " ".join(re.findall(r"\w+", prompt.casefold()))
