"""The editor of the main site of a rewritten edit: it acts after any prefix, where a first-token subject has a key of its own.

C-ROME leaves the value inconsistent: v* starts from the first token's value with no prefix and is clamped to a multiple of
its norm. That norm is far too small, so the edit does not take. This editor leaves the empty context out. Its keys and
values are means over prefixes of all families. Delta is added to each context's own output, so that ``Delta k_bar =
delta`` holds for the value that was optimised. The edit acts after any prefix of these families. With no prefix, a
first-token subject's key is the attention sink's, and no edit there can be specific: `everywhere` adds a change of a lower layer
for that.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from ....probes.keys.prefixes import ContextPrefixes, Role
from ..local_editor import LocalEditor

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = ["Prefixed"]


class Prefixed(LocalEditor):
    """Mean key and mean value under prefixes of every family, the empty one left out."""

    name = "prefixed"
    next_try: ClassVar[str | None] = "prefixed-firm"
    question = "keys and values both means over prefixes, with other subjects and other facts held: consistent"
    needs_prefix = True
    rewrites = True

    def contexts(self, prefixes: ContextPrefixes) -> Sequence[str]:
        """Return the edit prefixes of all families."""
        return prefixes.texts(Role.EDIT)
