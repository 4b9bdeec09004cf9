"""Which words of two texts differ: for a text before and after an edit, side by side."""

from __future__ import annotations

import re
from difflib import SequenceMatcher
from typing import NamedTuple

__all__ = ["TextPart", "find_differences"]

_MOST_WORDS = 2000
"""Comparing takes time that grows with the square; longer texts are shown without marks."""


class TextPart(NamedTuple):
    """A stretch of a text, and whether the other text has another one there."""

    text: str
    differs: bool


def find_differences(text: str, other: str) -> list[TextPart]:
    """Return `text` in parts, in order and complete. A part differs if `other` has other words there.

    Words are runs of anything but blanks; the blanks after a word belong to it. If either text is very long, one part
    that does not differ is returned.
    """
    words, others = (re.findall(r"\s*\S+\s*|\s+", side) for side in (text, other))
    if max(len(words), len(others)) > _MOST_WORDS:
        return [TextPart(text, differs=False)]
    plain, against = ([word.strip() for word in side] for side in (words, others))
    steps = SequenceMatcher(None, plain, against, autojunk=False).get_opcodes()
    parts = [TextPart("".join(words[start:end]), kind != "equal") for kind, start, end, _, _ in steps]
    return [part for part in parts if part.text]
