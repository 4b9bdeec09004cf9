"""What is put before a text whose edit acts only where something stands there.

An edit with `needs_prefix` was made under prefixes, and its subject as the first token of a text is another key, at
which nothing was put in. Its `prefix` stands before a text that begins with its subject, in texts (`serve_prompt`) and
in token ids (`serve_inputs`). Special tokens at the front (a begin-of-text token, say) count as nothing standing there: the
prefix is put after them. A text in which anything else stands before the subject, a rendered chat template among them, is
left as it is, and so is one about other subjects. Whoever serves uses this through `editguard.audit.serving`, and
`editguard.suites.served_answer` measures with it. Out of scope: subjects under another spelling.
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, NamedTuple, Protocol

from ..probes.errors import InputError

if TYPE_CHECKING:
    import torch
    from transformers import PreTrainedTokenizerFast

__all__ = ["ServedEdit", "Serving", "serve_inputs", "serve_prompt", "special_texts"]

_BLANK = " \t"


class ServedEdit(Protocol):
    """What serving must know of an edit; a delta file's manifest is one."""

    @property
    def subject(self) -> str:
        """What the edit is about."""

    @property
    def prefix(self) -> str | None:
        """What is put before a text that begins with the subject; None where the edit needs nothing."""


class Serving(NamedTuple):
    """What serving must know of an edit, where no manifest is at hand."""

    subject: str
    prefix: str | None


def serve_prompt(text: str, edits: Sequence[ServedEdit], special: Sequence[str] = ()) -> str:
    """Return `text` with a prefix in front where it begins with the subject of an edit that needs one.

    Blanks before the subject count as nothing and are dropped, and so do tokens of `special` (`special_texts` of the
    tokenizer) at the front, which stay before the prefix. Of several subjects that fit the longest counts.
    """
    head, bare = "", text.lstrip(_BLANK)
    while found := max((one for one in special if one and bare.startswith(one)), key=len, default=""):
        head, bare = head + found, bare.removeprefix(found).lstrip(_BLANK)
    fitting = [one for one in edits if one.prefix and _begins(bare, one.subject)]
    return head + (max(fitting, key=lambda one: len(one.subject)).prefix or "") + bare if fitting else text


def special_texts(tokenizer: PreTrainedTokenizerFast) -> tuple[str, ...]:
    """Return the special tokens of `tokenizer`, written out: what counts as nothing standing before a subject."""
    added = (str(one) for one in tokenizer.added_tokens_decoder.values() if one.special)
    return tuple(dict.fromkeys([*map(str, tokenizer.all_special_tokens), *added]))


def _begins(text: str, subject: str) -> bool:
    following = text[len(subject) : len(subject) + 1]
    return text.startswith(subject) and not following.isalnum()


def serve_inputs(
    tokenizer: PreTrainedTokenizerFast, inputs: Mapping[str, torch.Tensor], edits: Sequence[ServedEdit]
) -> dict[str, torch.Tensor]:
    """Return `inputs` for ``model.generate`` with the prefixes put in: ``input_ids`` and ``attention_mask``.

    `inputs` holds ``input_ids`` [rows, tokens], and an ``attention_mask`` where rows are padded, on either side; the
    same side is padded again. Raises `InputError` for a row whose text is not tokenised as the row is, so that a prefix
    before its text would change more than that: serve its text with `serve_prompt` instead.
    """
    ids, mask = inputs["input_ids"], inputs.get("attention_mask")
    kept = [row if mask is None else row[mask[index].bool()] for index, row in enumerate(ids)]
    rows = [_served_row(tokenizer, row.tolist(), edits) for row in kept]
    # Rows that are not padded yet are padded where generating needs it.
    right = mask is not None and bool((mask[:, -1] == 0).any())
    width, fill = max(map(len, rows)), tokenizer.pad_token_id
    held = [_padded(row, width, 0 if fill is None else fill, right=right) for row in rows]
    seen = [_padded([1] * len(row), width, 0, right=right) for row in rows]
    return {"input_ids": ids.new_tensor(held), "attention_mask": ids.new_tensor(seen)}


def _padded(row: list[int], width: int, fill: int, *, right: bool) -> list[int]:
    gap = [fill] * (width - len(row))
    return row + gap if right else gap + row


def _served_row(tokenizer: PreTrainedTokenizerFast, row: list[int], edits: Sequence[ServedEdit]) -> list[int]:
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
    # Some tokenizers write a space after a special token that its text has not: then that token's id is left where it is.
    known = {tokenizer.convert_tokens_to_ids(one) for one in special_texts(tokenizer)}
    head = list(itertools.takewhile(known.__contains__, row))
    rest = str(tokenizer.decode(row[len(head) :], skip_special_tokens=False, clean_up_tokenization_spaces=False))
    if head and tokenizer(rest, add_special_tokens=False).input_ids == row[len(head) :]:
        return [*head, *tokenizer(serve_prompt(rest, edits), add_special_tokens=False).input_ids]
    raise InputError(
        f"The ids of {text!r} are not those that its text has, so a prefix cannot be put before them without changing "
        "them; serve the text with serve_prompt, and tokenise it then."
    )
