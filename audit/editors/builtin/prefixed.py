"""The guard's own editor: keys and values are consistent, since both are taken under prefixes only, of every family.

C-ROME leaves the value inconsistent: v* starts from the first token's value with no prefix and is clamped to a multiple of
its norm. That norm is far too small, so the edit does not take. This editor leaves the empty context out. Its keys and
values are means over prefixes of all families. Delta is added to each context's own output, so that ``Delta k_bar =
delta`` holds for the value that was optimised. The edit acts after any prefix of these families. With no prefix, a
first-token subject's key is the attention sink's, and no edit there can be specific.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from ....probes.keys.prefixes import ContextPrefixes, Role
from ..base import Editor, Insertion
from ..value import Descent, ValueSettings

if TYPE_CHECKING:
    from collections.abc import Sequence

    from ....probes.keys.subject_keys import SubjectKeys

__all__ = ["Prefixed"]

_STEPS, _STEP, _CLAMP, _STOP_LOSS, _PARTS = 20, 0.3, 6.0, 0.1, 5


class Prefixed(Editor):
    """Mean key and mean value under prefixes of every family, the empty one left out."""

    name = "prefixed"
    question = "keys and values both means over prefixes of every family: consistent"
    needs_prefix = True

    def contexts(self, prefixes: ContextPrefixes) -> Sequence[str]:
        """Return the edit prefixes of all families."""
        return prefixes.texts(Role.EDIT)

    def settings(self, general: ValueSettings) -> ValueSettings:
        """Return constants of a search that is faster and wider than published, with a fifth of the contexts at a time.

        A mean over contexts of many kinds is harder to satisfy than ROME's, so the clamp is wider. The search ends earlier,
        since its late gains cost perplexity. The comparison is in docs/research/results.md.
        """
        return replace(
            general,
            steps=_STEPS,
            learning_rate=_STEP,
            clamp=_CLAMP,
            stop_loss=_STOP_LOSS,
            parts=_PARTS,
            descent=Descent.STEEPEST,
        )

    def insertion(self, keys: SubjectKeys) -> Insertion:
        """Insert at the mean key, starting from the mean value."""
        return Insertion(keys.mean_key, keys.mean_value, keys.mean_value)
