"""The prefix that is put before a text whose edit acts only after a prefix.

An edit with `needs_prefix` was made with prefixed keys. Its subject as the first token of a text is another key, at which the
edit does not act. Its `prefix` is put before a text that begins with its subject, in texts (`serve_prompt`) and in token ids
(`serve_inputs`). Special tokens at the front, such as a begin-of-text token, do not count as text: the prefix is put after
them. A text in which anything else stands before the subject, such as a rendered chat template, does not change, and nor does
a text about other subjects. Programs that serve use this through `editguard.audit.serving`, and
`editguard.suites.served_answer` measures with it. ``docs/how-to/serve-elsewhere.md`` states the rule for servers in other
languages, and ``docs/reference/serving-vectors.json`` holds its examples: keep the three together. Out of scope: subjects in
another spelling.
"""

from __future__ import annotations

import itertools
import unicodedata
from typing import TYPE_CHECKING, NamedTuple, Protocol

from ..probes.errors import InputError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    import torch
    from transformers import PreTrainedTokenizerFast

__all__ = ["ServedEdit", "Serving", "serve_inputs", "serve_prompt", "special_texts"]

_BLANK = " \t"
_JOINERS = "\u200c\u200d"
_UNSPACED = (
    range(0x0E00, 0x0F00),  # Thai, Lao
    range(0x1000, 0x10A0),  # Myanmar
    range(0x1780, 0x1800),  # Khmer
    range(0x3040, 0x3100),  # Hiragana, Katakana
    range(0x3400, 0xA000),  # Han, and what stands between its blocks
    range(0xAC00, 0xD7A4),  # Hangul, whose particles follow a name without a space
    range(0xF900, 0xFB00),  # Han, compatibility
    range(0xFF66, 0xFFDD),  # Katakana and Hangul of half width
    range(0x20000, 0x40000),  # Han, further planes
)
"""Scripts in which a letter may follow a name without a space, so that it says nothing about where the name ends."""


class ServedEdit(Protocol):
    """The facts about an edit that serving needs; the manifest of a delta file is one."""

    @property
    def subject(self) -> str:
        """The subject of the edit."""

    @property
    def prefix(self) -> str | None:
        """The text before a text that begins with the subject; None where the edit needs none."""


class Serving(NamedTuple):
    """The facts about an edit that serving needs, without a manifest."""

    subject: str
    prefix: str | None


def serve_prompt(text: str, edits: Sequence[ServedEdit], special: Sequence[str] = ()) -> str:
    """Return `text` with a prefix in front where it begins with the subject of an edit that needs one.

    Blanks before the subject are dropped. Tokens of `special` (`special_texts` of the tokenizer) at the front stay before the
    prefix. Where several subjects fit, the longest counts; where its edit needs no prefix, the text does not change. Of edits
    of one subject the first that needs a prefix counts. Call it once for a text: a prefix may begin with another subject.
    """
    head, rest = "", text.lstrip(_BLANK)
    while token := max((name for name in special if name and rest.startswith(name)), key=len, default=""):
        head, rest = head + token, rest.removeprefix(token).lstrip(_BLANK)
    fitting = [edit for edit in edits if _begins(rest, edit.subject)]
    # Subjects that fit begin one text, so those of one length are the same.
    longest = max((len(edit.subject) for edit in fitting), default=0)
    prefix = next((edit.prefix for edit in fitting if edit.prefix and len(edit.subject) == longest), None)
    return text if prefix is None else head + prefix + rest


def special_texts(tokenizer: PreTrainedTokenizerFast) -> tuple[str, ...]:
    """Return the special tokens of `tokenizer` as texts, which may stand before a subject and its prefix."""
    added = (str(token) for token in tokenizer.added_tokens_decoder.values() if token.special)
    return tuple(dict.fromkeys([*map(str, tokenizer.all_special_tokens), *added]))


def _begins(text: str, subject: str) -> bool:
    return text.startswith(subject) and not _continues_word(text[len(subject) : len(subject) + 1])


def _continues_word(following: str) -> bool:
    """Return whether the word before the character `following` (empty: none) is not at its end there.

    A combining mark makes another letter of the one before it, and a joiner ties it to the next.
    """
    if not following or following in _JOINERS:
        return bool(following)
    kind = unicodedata.category(following)[0]
    return kind in "MN" or (kind == "L" and not any(ord(following) in block for block in _UNSPACED))


def serve_inputs(
    tokenizer: PreTrainedTokenizerFast, inputs: Mapping[str, torch.Tensor], edits: Sequence[ServedEdit]
) -> dict[str, torch.Tensor]:
    """Return `inputs` for ``model.generate`` with the prefixes put in: ``input_ids`` and ``attention_mask``.

    `inputs` holds ``input_ids`` [rows, tokens], and an ``attention_mask`` where rows are padded, on either side; the
    same side is padded again. Raises `InputError` for a row whose text is not tokenised as the row is, so that a prefix
    before its text would change more than that: serve its text with `serve_prompt` instead.
    """
    ids, mask = inputs["input_ids"], inputs.get("attention_mask")
    unpadded = [row if mask is None else row[mask[index].bool()] for index, row in enumerate(ids)]
    rows = [_serve_row(tokenizer, row.tolist(), edits) for row in unpadded]
    # Rows that are not padded yet are padded where generating needs it.
    right = mask is not None and bool((mask[:, -1] == 0).any())
    width, fill = max(map(len, rows)), tokenizer.pad_token_id
    padded = [_pad(row, width, 0 if fill is None else fill, right=right) for row in rows]
    masks = [_pad([1] * len(row), width, 0, right=right) for row in rows]
    return {"input_ids": ids.new_tensor(padded), "attention_mask": ids.new_tensor(masks)}


def _pad(row: list[int], width: int, fill: int, *, right: bool) -> list[int]:
    gap = [fill] * (width - len(row))
    return row + gap if right else gap + row


def _serve_row(tokenizer: PreTrainedTokenizerFast, row: list[int], edits: Sequence[ServedEdit]) -> list[int]:
    plain, whole = tokenizer("a", add_special_tokens=False).input_ids, tokenizer("a").input_ids
    added = whole[: whole.index(plain[0])] if plain and plain[0] in whole else []
    special = bool(added) and row[: len(added)] == added
    content = row[len(added) :] if special else row
    text = str(tokenizer.decode(content, skip_special_tokens=False, clean_up_tokenization_spaces=False))
    served = serve_prompt(text, edits, special_texts(tokenizer))
    if served == text:
        return row
    if tokenizer(text, add_special_tokens=special).input_ids == row:
        return list(tokenizer(served, add_special_tokens=special).input_ids)
    # Some tokenizers write a space after a special token that its text does not have: that token's id then stays as it is.
    special_ids = {tokenizer.convert_tokens_to_ids(text) for text in special_texts(tokenizer)}
    head = list(itertools.takewhile(special_ids.__contains__, row))
    rest = str(tokenizer.decode(row[len(head) :], skip_special_tokens=False, clean_up_tokenization_spaces=False))
    if head and tokenizer(rest, add_special_tokens=False).input_ids == row[len(head) :]:
        return [*head, *tokenizer(serve_prompt(rest, edits), add_special_tokens=False).input_ids]
    raise InputError(
        f"The ids of {text!r} are not those that its text has, so a prefix cannot be put before them without changing "
        "them; serve the text with serve_prompt, and tokenise it then."
    )
