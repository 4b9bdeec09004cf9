"""C-ROME, the correction of "The Fall of ROME": one key everywhere."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ..base import Insertion
from .rome import Rome

if TYPE_CHECKING:
    from ....probes.keys.subject_keys import SubjectKeys

__all__ = ["CRome"]


class CRome(Rome):
    """C-ROME: mean prefixed key and mean prefixed output everywhere; v* still starts from the value with no prefix.

    Source: "The Fall of ROME" (arXiv 2406.11263), section 5.
    """

    name = "c-rome"
    consistent = True
    question = "mean prefixed key everywhere, value still optimised from the bare one"

    def insertion(self, keys: SubjectKeys) -> Insertion:
        """Insert at the mean prefixed key."""
        return Insertion(keys.mean_key, keys.mean_value, keys.no_prefix_value)
