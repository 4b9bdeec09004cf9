"""Where the tokens of a subject lie in a prompt, and which ids a target has after it.

The whole text is tokenised once, special tokens included, and the offsets of that encoding answer every question.
Lengths of pieces that are tokenised separately would count a BOS twice and miss merges across the subject's end.
Offsets are cleaned first: tokenizers disagree about the space before a word, and about the space that they add themselves.
Out of scope: slow tokenizers (no offsets), keys and values (`keys`), and whether a position is dangerous (the probes).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

from .errors import ModelError, RequestError
from .requests.spacing import choose_separator

if TYPE_CHECKING:
    from collections.abc import Sequence

    from transformers import PreTrainedTokenizerFast

__all__ = [
    "SubjectPosition",
    "count_tokens",
    "encode_target",
    "has_special",
    "locate_span",
    "locate_subject",
    "round_trips",
]

# The characters by which byte-level BPE and SentencePiece write a space inside a token.
_SPACE_MARKERS = "Ġ▁ "


@dataclass(frozen=True, kw_only=True)
class SubjectPosition:
    """The tokens of a subject within a whole text."""

    input_ids: tuple[int, ...]
    """Ids of the whole text, with the special tokens that the tokenizer adds."""
    first: int
    """Index in `input_ids` of the first token that covers a character of the subject."""
    last: int
    """Index in `input_ids` of the last token that covers a character of the subject: where an edit goes in."""
    first_content: int
    """Index of the first token that is not a special token added by the tokenizer."""
    merged_end: bool
    """Whether the last subject token also covers characters after the subject."""
    merged_start: bool
    """Whether the first subject token also covers characters other than spaces before the subject."""

    @property
    def is_first_token(self) -> bool:
        """Whether the subject's last token is position 0 of the input: nothing stands before it, not even a BOS."""
        return self.last == 0

    @property
    def single_token(self) -> bool:
        """Whether one token covers the whole subject."""
        return self.first == self.last

    @property
    def starts_text(self) -> bool:
        """Whether nothing but added special tokens stands before the subject."""
        return self.first == self.first_content


def locate_subject(
    tokenizer: PreTrainedTokenizerFast, text: str, subject: str, *, occurrence_start: int | None = None
) -> SubjectPosition:
    """Return the tokens of `subject` in `text`.

    `occurrence_start` is the index of the character at which the occurrence begins.
    It may be left out where the subject stands in the text exactly once.
    Raises `RequestError` when the subject is absent, ambiguous or covered by no token, and `ModelError` when the
    tokenizer gives no offsets.
    """
    if not subject.strip():
        raise RequestError(f"The subject {subject!r} is empty; it must name something, so take it from the prompt.")
    if occurrence_start is None:
        occurrence_start = _only_occurrence(text, subject)
    elif occurrence_start < 0 or not text.startswith(subject, occurrence_start):
        raise RequestError(
            f"The subject {subject!r} does not begin at character {occurrence_start} of {_short(text)}; "
            "occurrence_start must be the index of its first character, so correct it."
        )
    return locate_span(tokenizer, text, occurrence_start, occurrence_start + len(subject))


def locate_span(tokenizer: PreTrainedTokenizerFast, text: str, start: int, end: int) -> SubjectPosition:
    """Return the tokens that cover the characters ``text[start:end]``.

    Spaces at either end of the span are not counted: some tokenizers include them in a token's offsets, others do not.
    Raises `RequestError` when the span is empty, outside the text or covered by no token, and `ModelError` when the
    tokenizer gives no offsets.
    """
    core = _core(text, start, end)
    encoded = _encode(tokenizer, text)
    inside = [index for index, span in enumerate(encoded.spans) if span.overlaps(core)]
    if not inside:
        raise RequestError(
            f"No token covers {text[start:end]!r} in {_short(text)}: this model's tokenizer drops those characters; "
            "an edit needs a token to go in at, so name the subject in characters that the model reads."
        )
    head, tail = encoded.spans[inside[0]], encoded.spans[inside[-1]]
    return SubjectPosition(
        input_ids=encoded.ids,
        first=inside[0],
        last=inside[-1],
        first_content=encoded.first_content,
        merged_end=tail.end > core.end or _hides_space(tokenizer, encoded.ids[inside[-1]], text, core.end),
        merged_start=bool(text[head.start : core.start].strip()),
    )


def encode_target(
    tokenizer: PreTrainedTokenizerFast, prompt: str, target: str, space: bool | None = None
) -> tuple[int, ...]:
    """Return the ids of `target` as the continuation of `prompt`, without special tokens.

    Between the two stands one space or none, as `spacing.choose_separator` says; `space` forces it. The ids are what follows
    the prompt's own ids when both are tokenised together. Where a token would reach across the seam, the target is tokenised
    after a newline instead, which keeps a SentencePiece tokenizer from adding a second space. Raises `RequestError`
    for a target that is empty or has no ids.
    """
    piece = choose_separator(prompt, target, space) + target
    for context in (prompt, "\n", ""):
        before, whole = _plain_ids(tokenizer, context), _plain_ids(tokenizer, context + piece)
        if target.strip() and len(whole) > len(before) and whole[: len(before)] == before:
            return whole[len(before) :]
    raise RequestError(
        f"The target {target!r} has no tokens; it must be a text that the model can say, so write another one."
    )


def count_tokens(tokenizer: PreTrainedTokenizerFast, text: str) -> int:
    """Return the number of tokens of `text`, special ones not counted; raises `RequestError` for half a surrogate pair."""
    return len(_plain_ids(tokenizer, text))


def round_trips(tokenizer: PreTrainedTokenizerFast, ids: Sequence[int], text: str) -> bool:
    """Return whether `ids` decode to `text`, up to the one space in front that some tokenizers add or drop."""
    decoded = tokenizer.decode(list(ids), skip_special_tokens=False, clean_up_tokenization_spaces=False)
    return str(decoded).removeprefix(" ") == text.removeprefix(" ")


def has_special(tokenizer: PreTrainedTokenizerFast, ids: Sequence[int]) -> bool:
    """Return whether any id is a special token (BOS, EOS, unknown, padding, a chat marker, ...)."""
    special = set(tokenizer.all_special_ids)
    special.update(index for index, token in tokenizer.added_tokens_decoder.items() if token.special)
    return not special.isdisjoint(ids)


class _Span(NamedTuple):
    """Characters ``start`` to ``end`` of the text, the end excluded; empty where a token covers none."""

    start: int
    end: int

    def overlaps(self, other: _Span) -> bool:
        return max(self.start, other.start) < min(self.end, other.end)


class _Encoded(NamedTuple):
    ids: tuple[int, ...]
    spans: tuple[_Span, ...]
    first_content: int


def _encode(tokenizer: PreTrainedTokenizerFast, text: str) -> _Encoded:
    if not getattr(tokenizer, "is_fast", False):
        raise ModelError(
            f"The tokenizer {type(tokenizer).__name__} is a slow one, which gives no character offsets; subjects are "
            "located by offsets, so load a fast tokenizer (tokenizer.json) for this model."
        )
    _encodable(text)
    encoding = tokenizer(
        text,
        return_offsets_mapping=True,
        add_special_tokens=True,
        truncation=False,
        padding=False,
        verbose=False,
    )
    ids = tuple(int(index) for index in encoding["input_ids"])
    # Sequence ids are None for exactly the tokens that the post-processor added; a special token that is written out
    # in the text itself belongs to the text.
    added = [sequence is None for sequence in encoding.sequence_ids(0)]
    spans = [
        _Span(0, 0) if special else _Span(*offsets)
        for special, offsets in zip(added, encoding["offset_mapping"], strict=True)
    ]
    tokens = tokenizer.convert_ids_to_tokens(list(ids))
    cleaned = tuple(
        _Span(0, 0) if _is_dummy(str(token), spans[index : index + 2]) else spans[index]
        for index, token in enumerate(tokens)
    )
    return _Encoded(ids, cleaned, added.index(False) if False in added else len(ids))


def _is_dummy(token: str, spans: Sequence[_Span]) -> bool:
    """Return whether a token is only the space that the tokenizer itself put before a word.

    `spans` are those of the token and of the next one. A token for a real space has that character to itself; one for
    the tokenizer's own space claims the first character of the word, which the next token covers too.
    """
    return not token.strip(_SPACE_MARKERS) and len(spans) > 1 and spans[0].overlaps(spans[1])


def _hides_space(tokenizer: PreTrainedTokenizerFast, token_id: int, text: str, end: int) -> bool:
    """Return whether a token also spells the space after `end`, though its offsets (trimmed ones) do not say so."""
    if not text[end : end + 1].isspace():
        return False
    spelled = str(tokenizer.decode([token_id], skip_special_tokens=False, clean_up_tokenization_spaces=False))
    return spelled[-1:].isspace()


def _plain_ids(tokenizer: PreTrainedTokenizerFast, text: str) -> tuple[int, ...]:
    _encodable(text)
    encoding = tokenizer(text, add_special_tokens=False, truncation=False, padding=False, verbose=False)
    return tuple(int(index) for index in encoding["input_ids"])


def _encodable(text: str) -> None:
    try:
        text.encode("utf-8")
    except UnicodeEncodeError as error:
        raise RequestError(
            f"The text {_short(text)} holds half a surrogate pair at character {error.start}; a text must be valid "
            "Unicode, so write the whole character there."
        ) from error


def _core(text: str, start: int, end: int) -> _Span:
    if not 0 <= start < end <= len(text):
        raise RequestError(
            f"The characters {start} to {end} do not lie in {_short(text)}, which has {len(text)}; "
            "a span must be inside the text and not empty, so correct it."
        )
    inner = text[start:end]
    if not inner.strip():
        raise RequestError(f"The span {inner!r} of {_short(text)} is only space; it must name something, so widen it.")
    return _Span(start + len(inner) - len(inner.lstrip()), end - len(inner) + len(inner.rstrip()))


def _only_occurrence(text: str, subject: str) -> int:
    """Return where `subject` begins in `text`; overlapping occurrences count apart."""
    starts = [index for index in range(len(text)) if text.startswith(subject, index)]
    if len(starts) == 1:
        return starts[0]
    if not starts:
        raise RequestError(
            f"The subject {subject!r} stands 0 times in {_short(text)}; the text must contain it letter by letter, "
            "so correct one of the two."
        )
    places = ", ".join(map(str, starts[:5])) + (", ..." if len(starts) > 5 else "")
    raise RequestError(
        f"The subject {subject!r} is ambiguous: it stands {len(starts)} times in {_short(text)} (at characters "
        f"{places}), so that it is not known which is meant; word the text so that it stands there once."
    )


def _short(text: str) -> str:
    return repr(text if len(text) <= 80 else f"{text[:77]}...")
