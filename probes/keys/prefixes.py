"""Context prefixes: the texts in front of a prompt under which keys are taken and edits are made and tested.

Three roles, never mixed: *key* prefixes (ROME's own: sampled sentences and the empty one) define the mean key of the
published editors; *edit* prefixes, of every family, are what the ``prefixed`` editor is made under; *held-out* prefixes
of every family are what an edit is tested under, and none of them was used in the edit. An edit holds only under
prefixes of families that it was made under, which is why the families are named and reported one by one.

Sampled texts come from the model itself under one seed; everything is logged. No process-wide state: a second model
gets its own prefixes.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from enum import Enum
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ..model.language_model import LanguageModel

__all__ = ["ContextPrefixes", "Family", "Prefix", "Role", "make_prefixes", "sample_texts", "list_special_tokens"]

_MOST_SPECIAL = 24
"""Special tokens before which an edit is measured; some tokenizers have thousands that no text holds."""

_STRIDE = 7
"""Of so many key prefixes a screen takes one."""


class Family(Enum):
    """Kinds of text in front of a prompt, shortest first."""

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
    """What a prefix is used for."""

    KEY = "key"
    EDIT = "edit"
    HELD_OUT = "held-out"


@dataclass(frozen=True)
class Prefix:
    """One text in front of a prompt, with the white space that separates them."""

    family: Family
    text: str
    role: Role


@dataclass(frozen=True)
class ContextPrefixes:
    """All prefixes of one run: made once from (model, seed), logged, and used for every request."""

    prefixes: tuple[Prefix, ...]
    seed: int

    def texts(self, role: Role) -> tuple[str, ...]:
        """Return the texts of one role, in order."""
        return tuple(prefix.text for prefix in self.prefixes if prefix.role is role)

    def few(self) -> dict[int, float]:
        """Return a screen's key prefixes: their indices, and the weight of each in a mean that stands for the mean over all.

        The empty one is among them and weighs what it weighs there; the others stand for those that are left out.
        """
        count = len(self.texts(Role.KEY))
        others = range(1, count, _STRIDE)
        return {0: 1 / count, **dict.fromkeys(others, (count - 1) / count / len(others))} if others else {0: 1.0}

    def of(self, role: Role) -> tuple[Prefix, ...]:
        """Return the prefixes of one role, in order."""
        return tuple(prefix for prefix in self.prefixes if prefix.role is role)


_STARTERS = ("The", "Therefore", "Because", "I", "You")
_FIXED: dict[Family, tuple[tuple[str, ...], tuple[str, ...]]] = {
    # family: (made under, tested under)
    Family.NEWLINE: (("\n", "\n\n"), (" \n", "\n\n\n")),
    Family.QUOTE: (('"', "“"), ("'", "«")),
    Family.BULLET: (("- ", "1. "), ("* ", "3. ")),
    Family.QUESTION: (("Q: ", "Question: "), ("Query: ", "Prompt: ")),
    Family.WORD: (("However, ", "Today "), ("Indeed, ", "Well, ")),
}


def make_prefixes(lm: LanguageModel, seed: int) -> ContextPrefixes:
    """Sample and assemble the prefixes of a run.

    Families that the model cannot have are left out: ``bos`` where the tokenizer has no BOS token or adds it to every
    text anyway, ``chat`` where it has no chat template.
    """
    # One batch for the short texts, one for the long: most of the cost is the number of steps.
    openings = ("The", "Because", "I", "In", "When", "There")
    texts = sample_texts(lm, _STARTERS * 4 + openings, (5,) * 10 + (10,) * 10 + (14,) * len(openings), seed)
    paragraphs = sample_texts(lm, ("The history of", "It is well known that", "Once upon a time"), (40,) * 3, seed + 1)
    rome, sentences = texts[:20], texts[20:]
    found = [Prefix(Family.NONE, "", Role.KEY)]
    found += [Prefix(Family.SENTENCE, text, Role.KEY) for text in rome]
    found += _split(Family.SENTENCE, sentences[:4], sentences[4:])
    found += _split(Family.PARAGRAPH, paragraphs[:2], paragraphs[2:])
    for family, (made, tested) in _FIXED.items():
        found += _split(family, made, tested)
    bos = lm.tokenizer.bos_token
    if bos and not lm.adds_bos:
        found += _split(Family.BOS, (bos, f"{bos} "), (f"{bos}\n", f"{bos}\n\n"))
    found += _chat(lm)
    return ContextPrefixes(tuple(found), seed)


def list_special_tokens(lm: LanguageModel) -> tuple[str, ...]:
    """Return the special tokens that may stand before a text, written out: the tokenizer's own, then its chat template's.

    A begin-of-text token that the tokenizer adds to every text is left out: the bare prompt has it. At most 24.
    """
    tokenizer: Any = lm.tokenizer
    added = [str(one) for one in tokenizer.added_tokens_decoder.values() if one.special]
    template = str(tokenizer.chat_template or "")
    found = dict.fromkeys([*map(str, tokenizer.all_special_tokens), *(one for one in added if one in template)])
    found.pop(str(tokenizer.bos_token) if lm.adds_bos else "", None)
    return tuple(one for one in found if one)[:_MOST_SPECIAL]


def _split(family: Family, made: tuple[str, ...], tested: tuple[str, ...]) -> list[Prefix]:
    tested = tuple(text for text in dict.fromkeys(tested) if text not in made)
    return [Prefix(family, text, Role.EDIT) for text in made] + [Prefix(family, text, Role.HELD_OUT) for text in tested]


def _chat(lm: LanguageModel) -> list[Prefix]:
    tokenizer: Any = lm.tokenizer
    # The tokenizer adds the BOS that the template writes, and no conversation begins with two.
    added = tokenizer.bos_token if lm.adds_bos else ""
    if not tokenizer.chat_template:
        return []
    hello = {"role": "user", "content": "Hello."}
    greeting = {"role": "assistant", "content": "Hello! What can I do for you?"}
    made: list[list[dict[str, str]]] = [[], [_system("You are a concise assistant."), hello, greeting]]
    tested = [
        [_system("You are an expert who completes sentences.")],
        [_system("Be brief and correct."), hello, {"role": "assistant", "content": "Good morning."}],
    ]
    rendered = [
        [text.removeprefix(added) for before in group if (text := _turn(tokenizer, before))] for group in (made, tested)
    ]
    return _split(Family.CHAT, tuple(rendered[0]), tuple(rendered[1]))


def _system(content: str) -> dict[str, str]:
    return {"role": "system", "content": content}


def _turn(tokenizer: Any, before: list[dict[str, str]]) -> str | None:
    """Return the rendered conversation up to the first character of a user's turn, None if the template refuses it."""
    from jinja2 import TemplateError

    mark = "\u2063content\u2063"
    try:
        text = tokenizer.apply_chat_template([*before, {"role": "user", "content": mark}], tokenize=False)
    except (TemplateError, ValueError):
        return None
    head, found, _ = text.partition(mark)
    return head if found else None


def sample_texts(lm: LanguageModel, starters: tuple[str, ...], tokens: tuple[int, ...], seed: int) -> tuple[str, ...]:
    """Sample one continuation of each starter from the model, `tokens` new ones (one number a starter), as a sentence."""
    from ..forward.generation import sampled

    rows = [lm.tokenizer(text).input_ids for text in starters]
    found = sampled(lm, rows, max(tokens), seed=seed, top_k=20, least=max(tokens))
    return tuple(
        _as_sentence(str(lm.tokenizer.decode(row + new[:length], skip_special_tokens=True)))
        for row, new, length in zip(rows, found, tokens, strict=True)
    )


def _as_sentence(text: str) -> str:
    """End a sampled text as a sentence, followed by one space, so that a prompt may follow."""
    text = re.sub(r"\s+", " ", text).strip().rstrip(",;:-–—(\"'")
    return (text if text.endswith((".", "!", "?")) else f"{text}.") + " "
