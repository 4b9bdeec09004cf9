"""The guard's own editor with rewordings: the fact is found by more questions than its own prompt."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from .prefixed import Prefixed

if TYPE_CHECKING:
    from ..value import ValueSettings

__all__ = ["Reworded"]

_REWORDINGS, _ESSENCES = 8, 6
"""The most rewordings, and the number of prefixes under which the subject is held. docs/research/reproduction.md has figures."""


class Reworded(Prefixed):
    """`Prefixed`, sought under other words as well: slower, and the fact is found by more questions than its own prompt.

    The model rewords the prompt. Its answers about the subject are held under prefixes as well as with no prefix. Without
    that, rewordings cost perplexity.
    """

    name = "reworded"
    next_try = None
    question = "as prefixed, with v* sought under the model's own rewordings of the prompt as well"

    def settings(self, general: ValueSettings) -> ValueSettings:
        """Return the settings of `prefixed` with rewordings."""
        return replace(super().settings(general), rewordings=_REWORDINGS, essences=_ESSENCES)
