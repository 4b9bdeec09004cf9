"""Sentences that differ in their numbers alone, told as one: each number that differs becomes a range."""

from __future__ import annotations

import re
from collections.abc import Sequence

__all__ = ["shape", "told_as_one"]

_NUMBER = re.compile(r"(?<![\w.])(-?\d+(?:\.\d+)?(?:e[+-]?\d+)?)(?!\w)", re.ASCII)
_QUOTED = re.compile(r"('[^']*'|\"[^\"]*\")")


def shape(text: str) -> tuple[str, ...]:
    """Return what stands around the numbers of `text`; what stands in quotes is a name and no number."""
    return tuple(_parts(text)[0::2])


def told_as_one(texts: Sequence[str]) -> str:
    """Return one sentence for `texts` of one shape, with "least to most" where a number is not the same in all."""
    told = []
    for place, column in enumerate(zip(*map(_parts, texts), strict=True)):
        if place % 2:
            least, most = min(column, key=float), max(column, key=float)
            told.append(least if float(least) == float(most) else f"{least} to {most}")
        else:
            told.append(column[0])
    return "".join(told)


def _parts(text: str) -> list[str]:
    """Return words and numbers by turns, words first and last."""
    found = [""]
    for index, part in enumerate(_QUOTED.split(text)):
        words, *others = [part] if index % 2 else _NUMBER.split(part)
        found[-1] += words
        found += others
    return found
