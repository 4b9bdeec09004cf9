"""Sentences that differ in their numbers alone become one: each number that differs becomes a range."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = ["merge_sentences", "read_shape"]

_NUMBER = re.compile(r"(?<![\w.])(-?\d+(?:\.\d+)?(?:e[+-]?\d+)?)(?!\w)", re.ASCII)
_QUOTED = re.compile(r"('[^']*'|\"[^\"]*\")")


def read_shape(text: str) -> tuple[str, ...]:
    """Return the words around the numbers of `text`; a number in quotes is a name."""
    return tuple(_split_numbers(text)[0::2])


def merge_sentences(texts: Sequence[str]) -> str:
    """Return one sentence for `texts` of one shape, with "least to most" where a number is not the same in all."""
    words = []
    for place, column in enumerate(zip(*map(_split_numbers, texts), strict=True)):
        if place % 2:
            least, most = min(column, key=float), max(column, key=float)
            words.append(least if float(least) == float(most) else f"{least} to {most}")
        else:
            words.append(column[0])
    return "".join(words)


def _split_numbers(text: str) -> list[str]:
    """Return words and numbers by turns, words first and last."""
    parts = [""]
    for index, part in enumerate(_QUOTED.split(text)):
        words, *others = [part] if index % 2 else _NUMBER.split(part)
        parts[-1] += words
        parts += others
    return parts
