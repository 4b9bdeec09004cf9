"""Whether a space stands between a prompt and its target.

A request's target has no leading space; this module decides whether it needs one. In order:

1. The request's own `space` decides.
2. No space is added after a prompt that ends in white space, nor before a target that begins with it.
3. There is no space after a character that opens something: a bracket, an opening quote, a currency sign before a number,
   a slash or a hyphen attached to a word.
4. There is no space before a character that closes something: punctuation, a closing bracket or quote, a possessive ending.
5. The script decides, by the last letter of the prompt and the first of the target:
   - Chinese and Japanese have no spaces, not even around a foreign word, so only the prompt decides: 是 + Paris is 是Paris;
   - Thai, Lao, Khmer, Burmese and Tibetan have no spaces between their own words, but have them around foreign words and
     numbers, so the target must have such a script too;
   - after any other script, Korean included, there is a space, also before a Chinese word in an English sentence. A
     prompt that is mostly Chinese and ends in a foreign word counts as Chinese.

No model is needed: a model learns its expectations from texts that follow these rules.
"""

from __future__ import annotations

import re
import unicodedata

from ..word_boundaries import Writing, classify_writing

__all__ = ["choose_separator"]

_LOW_QUOTES = {"“": "„", "”": "„", "‘": "‚", "’": "‚"}
"""The opening quote for each closing quote of German; some closing quotes open an English quotation."""
_GUILLEMETS = {"«": "»", "»": "«", "‹": "›", "›": "‹"}
_CLOSING = frozenset(",.;:!?…%‰)]}·、。，．！？：；")
_POSSESSIVE = re.compile(r"['’](?:s|t|re|ve|ll|d|m)\b", re.IGNORECASE)
_TAG = re.compile(r"<[^<>\s/][^<>]*>$")
_MARKUP = re.compile(r"(?:^|\s)(?:\*\*|__|\*\*\*)$")
_INVISIBLE = "\u200b\u200c\u200d\u2060\ufeff\u00ad"
"""A zero-width space or joiner separates or joins without a space."""


def choose_separator(prompt: str, target: str, space: bool | None = None) -> str:
    """Return what stands between `prompt` and `target`: one space or nothing.

    With `space` True there is a space unless a side has one already, with False there is none, with None the characters decide.
    """
    if space is False or prompt[-1:].isspace() or target[:1].isspace():
        return ""
    if space or not prompt or not target:
        return " "
    return "" if _opens(prompt, target) or _closes(prompt, target) or _unspaced(prompt, target) else " "


# ------------------------------------------------------------------------------------------------- opening characters


def _opens(prompt: str, target: str) -> bool:
    last, before = prompt[-1], prompt[-2:-1]
    starts = not before or before.isspace() or unicodedata.category(before) in ("Ps", "Pi", "Pd")
    if last in _INVISIBLE or last in "¿¡" or _TAG.search(prompt) or _MARKUP.search(prompt):
        return True
    if last in "\"'`“”‘’«»‹›":
        return _opening_quote(prompt, starts)
    kind = unicodedata.category(last)
    if kind in ("Ps", "Pi"):  # opening brackets, „ and ‚
        return True
    if kind == "Sc":
        return target[0].isdigit() and not prompt[:-1].rstrip()[-1:].isdigit()
    if last in "+-−±~#" and starts and target[0].isdigit():
        return True
    if last in "@#" and starts:
        return True
    # A character that is attached to the word before it is attached to the word after it as well.
    return (last in "/\\_=" or kind == "Pd") and bool(before) and not before.isspace()


def _opening_quote(prompt: str, starts: bool) -> bool:
    last, inside = prompt[-1], prompt[:-1]
    if last in _LOW_QUOTES and inside.count(_LOW_QUOTES[last]) > inside.count(last):
        return False  # „Paris“
    if last in _GUILLEMETS:
        # » opens a quotation if no « is open and white space stands before it: Danish and German »Paris«.
        other = _GUILLEMETS[last]
        if inside.count(other) > inside.count(last):
            return False
        return last in "«‹" or starts
    if last in "“‘":
        return True
    if starts:
        return True
    # Attached to a word: an inch mark, an apostrophe, a closing quote, or an opening one as in code.
    return last in '"`' and inside.count(last) % 2 == 0 and not prompt[-2].isdigit()


# ------------------------------------------------------------------------------------------------- closing characters


def _closes(prompt: str, target: str) -> bool:
    first, following = target[0], target[1:2]
    kind = unicodedata.category(first)
    if first in _INVISIBLE or kind[0] == "M":  # an accent for the letter before it
        return True
    if first in "'’" and _POSSESSIVE.match(target):
        return prompt[-1].isalnum()
    if first in _LOW_QUOTES or first in _GUILLEMETS or first in "\"'`":
        return _closing_quote(prompt, target)
    if first in _CLOSING:
        # ".NET", ":memory:" and ".5" begin words.
        return kind != "Po" or first == "…" or not following.isalnum()
    return kind in ("Pe", "Pf")


def _closing_quote(prompt: str, target: str) -> bool:
    first, following = target[0], target[1:2]
    if first in _LOW_QUOTES and prompt.count(_LOW_QUOTES[first]) > prompt.count(first):
        return True
    if first in _GUILLEMETS:
        return prompt.count(_GUILLEMETS[first]) > prompt.count(first) or (first in "»›" and not following.isalnum())
    if first in "”’":
        return not following.isalnum()
    if first in "“‘":
        return False
    return prompt.count(first) % 2 == 1 and not following.isalnum()


# ------------------------------------------------------------------------------------------------------- the script


def _unspaced(prompt: str, target: str) -> bool:
    if _is_east_asian_mark(prompt[-1]) or _is_east_asian_mark(target[0]):
        return True  # full-width punctuation has its own blank
    before = next((character for character in reversed(prompt) if character.isalnum()), "")
    after = next((character for character in target if character.isalnum()), "")
    if not before:
        return False
    own, other = classify_writing(before), classify_writing(after) if after else None
    if own is Writing.SOUTHEAST_ASIAN:
        return other in (own, Writing.EAST_ASIAN)
    if own is Writing.SPACED and other is Writing.EAST_ASIAN:
        return _mostly_east_asian(prompt)  # 2024年,iPhone + 中国
    return own is Writing.EAST_ASIAN


def _is_east_asian_mark(character: str) -> bool:
    return classify_writing(character) is Writing.EAST_ASIAN and not character.isalnum()


def _mostly_east_asian(prompt: str) -> bool:
    letters = [classify_writing(character) for character in prompt if character.isalpha()]
    return 2 * letters.count(Writing.EAST_ASIAN) > len(letters)
