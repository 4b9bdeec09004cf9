"""Text from models, files and users, made fit to be shown: characters that hide or reorder text become visible.

`visible` replaces control characters, also those that turn the direction of writing, by the name of their code point, as in
``U+202E``. JSON, UTF-8 and XML 1.0 can hold the result. Escaping for HTML comes after it, in the templates. `shorten` cuts long
text and says so. `make_slugs` makes anchors from ids.
"""

from __future__ import annotations

import hashlib
import re
from typing import TYPE_CHECKING, NamedTuple
from unicodedata import bidirectional

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

__all__ = [
    "NAMED",
    "Piece",
    "capitalise",
    "count_noun",
    "join_parts",
    "make_slugs",
    "printable",
    "quote_names",
    "reads_from_right",
    "shorten",
    "split_hidden",
    "visible",
]

# C0 and C1 controls but tab and newline; soft hyphen; Arabic letter mark; zero-width space; marks, embeddings,
# overrides and isolates of direction; line and paragraph separators; invisible operators; byte-order mark; annotation
# and tag characters; the two that XML forbids. Joiners (U+200C, U+200D) stay: scripts and emoji need them.
_HIDDEN = re.compile(
    "([\x00-\x08\x0b-\x1f\x7f-\x9f\xad\u061c\u115f\u1160\u180e\u200b\u200e\u200f\u2028-\u202e\u2060-\u206f\u3164\ufeff"
    "\ufff9-\ufffb\ufffe\uffff\ud800-\udfff\U000e0000-\U000e0fff])"
)
_UNSAFE = re.compile(r"[^A-Za-z0-9_-]+")
_FROM_RIGHT = frozenset({"R", "AL", "AN"})
_LONGEST_SLUG = 48
NAMED = 10
"""A sentence holds so many names; the others are counted."""


class Piece(NamedTuple):
    """A stretch of text, either as it stands or the name of a hidden character."""

    text: str
    hidden: bool


def split_hidden(text: str) -> Iterator[Piece]:
    """Split `text` into stretches that can be shown and names of characters that cannot."""
    for index, part in enumerate(_HIDDEN.split(text)):
        if part:
            yield Piece(f"U+{ord(part):04X}" if index % 2 else part, bool(index % 2))


def printable(text: str, most: int = 120) -> str:
    """Return at most `most` characters of `text` on one line, for a message; a terminal takes nothing in it for a command."""
    line = "".join(character if character.isprintable() else f"[U+{ord(character):04X}]" for character in text[:most])
    return line if len(text) <= most else f"{line}..."


def visible(text: str) -> str:
    """Return `text` with each hidden character as ``[U+202E]``."""
    return "".join(f"[{piece.text}]" if piece.hidden else piece.text for piece in split_hidden(text))


def capitalise(sentence: str) -> str:
    """Return `sentence` with a capital first letter; a first word that has one already, such as ``iPhone``, stays."""
    first_word = sentence.split(maxsplit=1)[:1]
    if any(character.isupper() for word in first_word for character in word):
        return sentence
    return sentence[:1].upper() + sentence[1:]


def count_noun(number: int, singular: str, plural: str = "") -> str:
    """Return a number with its noun: ``1 edit``, ``2 edits``. An empty `plural` is `singular` with an s."""
    return f"{number} {singular if number == 1 else plural or f'{singular}s'}"


def quote_names(names: Sequence[str], most: int | None = NAMED) -> str:
    """Return the first `most` names in quotes and the count of the others; None is all."""
    return join_parts([repr(name) for name in names], most)


def join_parts(parts: Sequence[str], most: int | None = NAMED) -> str:
    """Return the first `most` parts of a list as they stand and the count of the others; None is all."""
    listing = ", ".join(parts[:most])
    return listing if most is None or len(parts) <= most else f"{listing} and {len(parts) - most} more"


def shorten(text: str, most: int) -> str:
    """Return `text`, or its first `most` characters and the count of all."""
    return text if len(text) <= most else f"{text[:most]}… ({len(text)} characters)"


def reads_from_right(text: str) -> bool:
    """Return whether `text` holds letters or digits of a script that is written from right to left."""
    return not text.isascii() and any(bidirectional(character) in _FROM_RIGHT for character in text)


def make_slugs(ids: Iterable[str]) -> Iterator[str]:
    """Return an anchor for each id: ASCII letters, digits, ``_`` and ``-``, each different from all others.

    An id that is safe and short is its own anchor. Any other gets a hash at its end, so that two ids that differ in unsafe
    characters alone stay apart. So does an anchor that differs in case alone: as names of files the two may be the same.
    """
    taken: set[str] = set()
    for name in ids:
        safe = _UNSAFE.sub("-", name)[:_LONGEST_SLUG].strip("-")
        slug = safe if safe == name else ""
        salt = 0
        while not slug or slug.lower() in taken:
            slug = f"{safe}-{_short_hash(f'{salt}{name}')}".lstrip("-")
            salt += 1
        taken.add(slug.lower())
        yield slug


def _short_hash(text: str) -> str:
    return hashlib.sha256(text.encode(errors="surrogatepass")).hexdigest()[:10]
