"""Context prefixes: the texts before a prompt, for keys, for edits and for tests of edits.

There are three roles, which never share a text:

- *key* prefixes (ROME's own: sampled sentences and the empty one) define the mean key of the published editors;
- *edit* prefixes, of every family, are the contexts of the ``prefixed`` editor;
- *held-out* prefixes, of every family, are the contexts in which an edit is tested. No edit uses them.

An edit holds only after prefixes of the families that it was made with, so families are named and reported separately.

Sampled texts come from the model itself, from a seed, and all prefixes are logged.
There is no process-wide state: a second model has its own prefixes.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from enum import Enum
from functools import partial
from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Callable

    from ..model.language_model import LanguageModel

__all__ = [
    "ContextPrefixes",
    "Family",
    "Prefix",
    "Role",
    "SampledTexts",
    "assemble_prefixes",
    "list_special_tokens",
    "make_prefixes",
    "sample_prefix_texts",
    "sample_texts",
]

_MAX_SPECIAL_TOKENS = 24
"""Special tokens after which an edit is measured; some tokenizers have thousands, which no text holds."""

_SCREEN_STRIDE = 7
"""A screen takes every seventh key prefix."""


class Family(Enum):
    """Kinds of text before a prompt, shortest first."""

    NONE = "none"
    BOS = "bos"
    NEWLINE = "newline"
    QUOTE = "quote"
    BULLET = "bullet"
    QUESTION = "question"
    CHAT = "chat"
    WORD = "word"
    SENTENCE = "sentence"
    PARAGRAPH = "paragraph"


class Role(Enum):
    """The use of a prefix."""

    KEY = "key"
    EDIT = "edit"
    HELD_OUT = "held-out"


@dataclass(frozen=True)
class Prefix:
    """One text before a prompt, with the white space that separates them."""

    family: Family
    text: str
    role: Role


@dataclass(frozen=True)
class ContextPrefixes:
    """All prefixes of one run: made from the model and a seed, logged, and used for every request."""

    prefixes: tuple[Prefix, ...]
    seed: int

    def texts(self, role: Role) -> tuple[str, ...]:
        """Return the texts of one role, in order."""
        return tuple(prefix.text for prefix in self.prefixes if prefix.role is role)

    def screen_weights(self) -> dict[int, float]:
        """Return the key prefixes of a screen: the index of each, and its weight in a mean that stands for the mean over all.

        The empty prefix is among them and has the weight that it has there.
        The others share the weight of all prefixes that are left out.
        """
        count = len(self.texts(Role.KEY))
        others = range(1, count, _SCREEN_STRIDE)
        return {0: 1 / count, **dict.fromkeys(others, (count - 1) / count / len(others))} if others else {0: 1.0}

    def of(self, role: Role) -> tuple[Prefix, ...]:
        """Return the prefixes of one role, in order."""
        return tuple(prefix for prefix in self.prefixes if prefix.role is role)


_STARTERS = ("The", "Therefore", "Because", "I", "You")
_FIXED: dict[Family, tuple[tuple[str, ...], tuple[str, ...]]] = {
    # family: (texts for edits, held-out texts)
    Family.NEWLINE: (("\n", "\n\n"), (" \n", "\n\n\n")),
    Family.QUOTE: (('"', "“"), ("'", "«")),
    Family.BULLET: (("- ", "1. "), ("* ", "3. ")),
    Family.QUESTION: (("Q: ", "Question: "), ("Query: ", "Prompt: ")),
    Family.WORD: (("However, ", "Today "), ("Indeed, ", "Well, ")),
}


_OPENINGS = ("The", "Because", "I", "In", "When", "There")
_PARAGRAPH_OPENINGS = ("The history of", "It is well known that", "Once upon a time")
_SENTENCE_TOKENS = (5,) * 10 + (10,) * 10 + (14,) * len(_OPENINGS)
_PARAGRAPH_TOKENS = (40,) * len(_PARAGRAPH_OPENINGS)


class SampledTexts(NamedTuple):
    """The texts of prefixes that come from the model."""

    sentences: tuple[str, ...]
    paragraphs: tuple[str, ...]


def make_prefixes(lm: LanguageModel, seed: int, progress: Callable[[int, int], None] | None = None) -> ContextPrefixes:
    """Sample and assemble the prefixes of a run.

    `progress` is called with (steps done, of all) after each sampled token.
    Raises `NotFinite` where the model's logits hold NaN or +Inf.
    """
    return assemble_prefixes(lm, seed, sample_prefix_texts(lm, seed, progress))


def sample_prefix_texts(
    lm: LanguageModel, seed: int, progress: Callable[[int, int], None] | None = None
) -> SampledTexts:
    """Sample the texts of the prefixes: most of the time that prefixes take.

    `progress` and errors are those of `make_prefixes`.
    """
    # One batch for the short texts, one for the long: most of the cost is the number of steps.
    short, long = max(_SENTENCE_TOKENS), max(_PARAGRAPH_TOKENS)
    report = partial(_report_part, progress, short + long) if progress else None
    starters = _STARTERS * 4 + _OPENINGS
    return SampledTexts(
        sample_texts(lm, starters, _SENTENCE_TOKENS, seed, report and partial(report, 0)),
        sample_texts(lm, _PARAGRAPH_OPENINGS, _PARAGRAPH_TOKENS, seed + 1, report and partial(report, short)),
    )


def assemble_prefixes(lm: LanguageModel, seed: int, texts: SampledTexts) -> ContextPrefixes:
    """Return all prefixes of a run, with the `texts` that were sampled from `seed`.

    Families that the model cannot have are left out.
    There is no ``bos`` where the tokenizer has no BOS token or adds it to every text, and no ``chat`` without a chat template.
    """
    rome, sentences, paragraphs = texts.sentences[:20], texts.sentences[20:], texts.paragraphs
    prefixes = [Prefix(Family.NONE, "", Role.KEY)]
    prefixes += [Prefix(Family.SENTENCE, text, Role.KEY) for text in rome]
    prefixes += _assign_roles(Family.SENTENCE, sentences[:4], sentences[4:])
    prefixes += _assign_roles(Family.PARAGRAPH, paragraphs[:2], paragraphs[2:])
    for family, (for_edits, held_out) in _FIXED.items():
        prefixes += _assign_roles(family, for_edits, held_out)
    bos = lm.tokenizer.bos_token
    if bos and not lm.adds_bos:
        prefixes += _assign_roles(Family.BOS, (bos, f"{bos} "), (f"{bos}\n", f"{bos}\n\n"))
    prefixes += _make_chat_prefixes(lm)
    return ContextPrefixes(tuple(prefixes), seed)


def _report_part(progress: Callable[[int, int], None], total: int, before: int, done: int, _: int) -> None:
    """Report the steps of one part of the sampling, after `before` steps of earlier parts."""
    progress(before + done, total)


def list_special_tokens(lm: LanguageModel) -> tuple[str, ...]:
    """Return the special tokens that may stand before a text, as text: the tokenizer's own, then its chat template's.

    A begin-of-text token that the tokenizer adds to every text is left out, because the prompt has it with no prefix.
    At most 24 are returned.
    """
    tokenizer: Any = lm.tokenizer
    added = [str(token) for token in tokenizer.added_tokens_decoder.values() if token.special]
    template = str(tokenizer.chat_template or "")
    tokens = dict.fromkeys([*map(str, tokenizer.all_special_tokens), *(token for token in added if token in template)])
    tokens.pop(str(tokenizer.bos_token) if lm.adds_bos else "", None)
    return tuple(token for token in tokens if token)[:_MAX_SPECIAL_TOKENS]


def _assign_roles(family: Family, for_edits: tuple[str, ...], held_out: tuple[str, ...]) -> list[Prefix]:
    """Return the prefixes of a family; a held-out text that is also one for edits is left out."""
    held_out = tuple(text for text in dict.fromkeys(held_out) if text not in for_edits)
    return [
        *(Prefix(family, text, Role.EDIT) for text in for_edits),
        *(Prefix(family, text, Role.HELD_OUT) for text in held_out),
    ]


def _make_chat_prefixes(lm: LanguageModel) -> list[Prefix]:
    tokenizer: Any = lm.tokenizer
    # The tokenizer adds the BOS that the template writes, and no conversation begins with two.
    added_bos = tokenizer.bos_token if lm.adds_bos else ""
    if not tokenizer.chat_template:
        return []
    hello = {"role": "user", "content": "Hello."}
    greeting = {"role": "assistant", "content": "Hello! What can I do for you?"}
    for_edits: list[list[dict[str, str]]] = [[], [_system("You are a concise assistant."), hello, greeting]]
    held_out = [
        [_system("You are an expert who completes sentences.")],
        [_system("Be brief and correct."), hello, {"role": "assistant", "content": "Good morning."}],
    ]
    rendered = [
        tuple(text.removeprefix(added_bos) for turns in group if (text := _render_to_user_turn(tokenizer, turns)))
        for group in (for_edits, held_out)
    ]
    return _assign_roles(Family.CHAT, rendered[0], rendered[1])


def _system(content: str) -> dict[str, str]:
    return {"role": "system", "content": content}


def _render_to_user_turn(tokenizer: Any, turns: list[dict[str, str]]) -> str | None:
    """Return the conversation `turns` as text, up to the first character of a user's turn after them.

    None where the template refuses the conversation, or leaves the user's words out.
    """
    from jinja2 import TemplateError

    mark = "\u2063content\u2063"
    try:
        text = tokenizer.apply_chat_template([*turns, {"role": "user", "content": mark}], tokenize=False)
    except (TemplateError, ValueError):
        return None
    head, separator, _ = text.partition(mark)
    return head if separator else None


def sample_texts(
    lm: LanguageModel,
    starters: tuple[str, ...],
    tokens: tuple[int, ...],
    seed: int,
    progress: Callable[[int, int], None] | None = None,
) -> tuple[str, ...]:
    """Sample one continuation of each starter from the model, as a sentence.

    `tokens` holds the number of new tokens for each starter. `progress` is called with (steps done, of all).
    Raises `NotFinite` where the model's logits hold NaN or +Inf.
    """
    from ..forward.generation import sample_continuations

    rows = [lm.tokenizer(text).input_ids for text in starters]
    sampled_rows = sample_continuations(
        lm, rows, max(tokens), seed=seed, top_k=20, least=max(tokens), progress=progress
    )
    return tuple(
        _as_sentence(str(lm.tokenizer.decode(row + new[:length], skip_special_tokens=True)))
        for row, new, length in zip(rows, sampled_rows, tokens, strict=True)
    )


def _as_sentence(text: str) -> str:
    """Return a sampled text with the end of a sentence and one space, so that a prompt may follow."""
    text = re.sub(r"\s+", " ", text).strip().rstrip(",;:-–—(\"'")
    return (text if text.endswith((".", "!", "?")) else f"{text}.") + " "
