"""The guard's own editor with rewordings: the fact is found by more questions than its own prompt."""

from __future__ import annotations

from dataclasses import replace

from ..value import ValueSettings
from .prefixed import Prefixed

__all__ = ["Reworded"]

_REWORDINGS, _ESSENCES = 8, 6
"""Most rewordings that are used, and prefixes under which the subject is held; docs/research/reproduction.md has the figures."""


class Reworded(Prefixed):
    """`Prefixed`, sought under other words as well: slower, and the fact is found by more questions than its own prompt.

    The model rewords the prompt; and what it says of the subject is held under prefixes, not bare alone, without which
    rewordings are paid in perplexity.
    """

    name = "reworded"
    question = "as prefixed, with v* sought under the model's own rewordings of the prompt as well"

    def settings(self, asked: ValueSettings) -> ValueSettings:
        """Return the settings of `prefixed` with rewordings."""
        return replace(super().settings(asked), rewordings=_REWORDINGS, essences=_ESSENCES)
