"""Which writing puts spaces between its words, and whether a name in a text is a word of its own.

Unicode ranges and categories alone decide: there is no dictionary and no guess at the language.
Out of scope: tokens (`tokens`).
"""

from __future__ import annotations

import unicodedata
from enum import Enum

__all__ = ["Writing", "classify_writing", "find_cut_word", "fold"]


class Writing(Enum):
    """How a script separates words."""

    SPACED = "spaced"
    """Words stand apart: Latin, Cyrillic, Greek, Arabic, Hebrew, Hangul, the scripts of India, and all others."""
    EAST_ASIAN = "east-asian"
    """No spaces, and none around foreign words either: Chinese, Japanese, Yi, and their full-width punctuation."""
    SOUTHEAST_ASIAN = "southeast-asian"
    """No spaces between words, but usually around foreign words and numbers: Thai, Lao, Khmer, Burmese, Tibetan and others."""


_EAST_ASIAN = (
    (0x2E80, 0x2FFF),
    (0x3000, 0x312F),
    (0x31A0, 0x31FF),
    (0x3220, 0x4DBF),
    (0x4E00, 0xA4CF),
    (0xF900, 0xFAFF),
    (0xFE30, 0xFE4F),
    (0xFF01, 0xFF9F),
    (0x1AFF0, 0x1B16F),
    (0x20000, 0x3FFFF),
)
_SOUTHEAST_ASIAN = (
    (0x0E00, 0x0FFF),  # Thai, Lao, Tibetan
    (0x1000, 0x109F),  # Burmese
    (0x1780, 0x17FF),  # Khmer
    (0x1950, 0x19FF),  # Tai Le, New Tai Lue, Khmer symbols
    (0x1A20, 0x1AAF),  # Tai Tham
    (0x1B00, 0x1B7F),  # Balinese
    (0xA980, 0xA9FF),  # Javanese, Burmese
    (0xAA60, 0xAA7F),  # Burmese
)
_LATIN = ((0x0041, 0x024F), (0x1E00, 0x1EFF), (0x2C60, 0x2C7F), (0xA720, 0xA7FF))
_PREFIXING = ((0x0590, 0x06FF), (0x0750, 0x077F), (0x08A0, 0x08FF), (0xFB1D, 0xFDFF), (0xFE70, 0xFEFC))
"""Hebrew and Arabic, which write prepositions and the article in one with the word after them."""
_SYLLABIC = ((0x0900, 0x0DFF), (0x1100, 0x11FF), (0x1200, 0x139F), (0xAC00, 0xD7FF))
"""India's scripts, Hangul and Ethiopic: a name of two letters is a whole one."""
_ACCENTS = range(0x0300, 0x0370)
_LONGEST_AFFIX = 3
_SHORTEST_WITH_S = 4
_IN_NUMBERS = ".,'’"


def _within(character: str, ranges: tuple[tuple[int, int], ...]) -> bool:
    return any(first <= ord(character) <= last for first, last in ranges)


def classify_writing(character: str) -> Writing:
    """Return how the script of `character` separates words; digits and punctuation of no script are `SPACED`."""
    if _within(character, _EAST_ASIAN):
        return Writing.EAST_ASIAN
    return Writing.SOUTHEAST_ASIAN if _within(character, _SOUTHEAST_ASIAN) else Writing.SPACED


def fold(text: str) -> str:
    """Return `text` for comparison: NFKC, without case and accents, one kind of apostrophe.

    Hyphens are spaces, and a run of spaces is one.
    """
    decomposed = unicodedata.normalize("NFD", unicodedata.normalize("NFKC", text).casefold())
    letters = "".join(character for character in decomposed if ord(character) not in _ACCENTS)
    plain = "".join(" " if unicodedata.category(character) == "Pd" else character for character in letters)
    return unicodedata.normalize("NFC", " ".join(plain.replace("’", "'").replace("ʼ", "'").split()))


def find_cut_word(text: str, start: int, end: int) -> str | None:
    """Return the word out of which ``text[start:end]`` is cut, or None where it is a word (or words) of its own.

    It is cut out where a letter or a digit stands directly before or after it, or an accent on its last letter.
    A point, a comma or an apostrophe between digits is a part of the number.
    Apostrophes and hyphens end a word: "Chicago's", "l'Italie", "Chicago-based" hold Chicago and Italie.

    In scripts without spaces every name counts as separate. Endings are part of the grammar in many languages: the
    subject's own tokens come before them, and an edit still goes in at the subject. So these count as separate:

    - an s in Latin script after four letters or more ("Berlins"). Other endings there make other names: Niger, Nigeria;
    - up to three letters in other scripts (Cyrillic cases, Korean particles), in alphabets fewer than the name has;
    - up to three letters before a name in Hebrew and Arabic: prepositions and the article.
    """
    first, last = start, end
    while first > 0 and _continues_word(text[first - 1]):
        first -= 1
    while last < len(text) and _continues_word(text[last]):
        last += 1
    if _cut_before(text, first, start) or _cut_after(text, start, end, last):
        return text[first:last]
    return None


def _continues_word(character: str) -> bool:
    return character.isalnum() or unicodedata.category(character)[0] == "M"


def _cut_before(text: str, first: int, start: int) -> bool:
    own = text[start]
    if own.isdigit() and start > 1 and text[start - 1] in _IN_NUMBERS and text[start - 2].isdigit():
        return True
    before = [character for character in text[first:start] if character.isalnum()]
    if not before:
        return False
    if own.isdigit() and before[-1].isdigit():
        return True
    if Writing.SPACED not in (classify_writing(own), classify_writing(before[-1])) or classify_writing(
        own
    ) is not classify_writing(before[-1]):
        return False
    return not (_within(before[-1], _PREFIXING) and _within(own, _PREFIXING) and len(before) <= _LONGEST_AFFIX)


def _cut_after(text: str, start: int, end: int, last: int) -> bool:
    own, following = text[end - 1], text[end:last]
    if own.isdigit() and text[end : end + 1] in tuple(_IN_NUMBERS) and text[end + 1 : end + 2].isdigit():
        return True
    if not following:
        return False
    if ord(following[0]) in _ACCENTS or (own.isdigit() and following[0].isdigit()):
        return True
    if Writing.SPACED not in (classify_writing(own), classify_writing(following[0])):
        return unicodedata.category(following[0])[0] == "M"
    if classify_writing(own) is not classify_writing(following[0]):
        return False
    letters = [character for character in following if character.isalnum()]
    if any(character.isdigit() for character in letters) or own.isdigit():
        return True
    if _within(own, _LATIN) or _within(following[0], _LATIN):
        return not (following in ("s", "S") and end - start >= _SHORTEST_WITH_S)
    longest = _LONGEST_AFFIX if _within(own, _SYLLABIC) else min(_LONGEST_AFFIX, end - start - 1)
    return len(letters) > longest
