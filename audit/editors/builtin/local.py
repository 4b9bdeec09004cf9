"""The editor of ordinary edits: it acts with no prefix and under prefixes of every family, and at its subject alone."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from ....probes.keys.prefixes import ContextPrefixes, Role
from ..local_editor import LocalEditor

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = ["Local"]


class Local(LocalEditor):
    """Mean key and mean value over no prefix and the edit prefixes of all families."""

    name = "local"
    next_try: ClassVar[str | None] = "local-firm"
    question = (
        "keys and values both means over no prefix and prefixes, with other subjects and other facts held: consistent"
    )

    def contexts(self, prefixes: ContextPrefixes) -> Sequence[str]:
        """Return no prefix, and the edit prefixes of all families."""
        return ("", *prefixes.texts(Role.EDIT))
