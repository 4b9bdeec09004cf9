"""ROME as its public code computes it: two different keys in one equation.

Keys are taken under ROME's own contexts (sampled sentences and the empty one), and v* starts from the value that the
subject has with no prefix.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from ....probes.keys.prefixes import ContextPrefixes, Role
from ..base import Editor, Insertion

if TYPE_CHECKING:
    from collections.abc import Sequence

    from ....probes.keys.subject_keys import SubjectKeys

__all__ = ["Rome"]


class Rome(Editor):
    """ROME as coded: direction from the prefixed mean key, denominator and residual from the key with no prefix.

    Source: the public code of arXiv 2202.05262, analysed in arXiv 2406.11263. It is here to be audited, and
    as the known-bad control: with a first-token subject it destroys the model.
    """

    name = "rome"
    consistent = False
    question = "direction from the mean prefixed key, residual and denominator from the bare key: inconsistent"

    def contexts(self, prefixes: ContextPrefixes) -> Sequence[str]:
        """Return ROME's contexts: the empty one first, then sampled sentences."""
        return prefixes.texts(Role.KEY)

    def insertion(self, keys: SubjectKeys) -> Insertion:
        """Insert at the key with no prefix."""
        return Insertion(keys.no_prefix_key, keys.no_prefix_value, keys.no_prefix_value)
