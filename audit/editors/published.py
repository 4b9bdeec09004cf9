"""The published editors: ROME as its public code computes it, and the two corrections that were published.

All three take keys under ROME's own contexts (sampled sentences and the empty one) and start v* from the value that
the subject has in the bare prompt.
"""

from __future__ import annotations

from collections.abc import Sequence

from ...probes.keys import SubjectKeys
from ...probes.prefixes import ContextPrefixes, Role
from .base import EDITORS, Editor, Insertion

__all__ = ["CRome", "RRome", "Rome"]


@EDITORS.register("rome")
class Rome(Editor):
    """ROME as coded: direction from the prefixed mean key, denominator and residual from the bare key.

    Source: the public code of arXiv 2202.05262, analysed in arXiv 2406.11263. Kept to be audited, and as the known-bad
    control: where the subject is the first token it destroys the model.
    """

    name = "rome"
    consistent = False
    question = "direction from the mean prefixed key, residual and denominator from the bare key: inconsistent"

    def contexts(self, prefixes: ContextPrefixes) -> Sequence[str]:
        """Return ROME's contexts: the empty one first, then sampled sentences."""
        return prefixes.texts(Role.KEY)

    def insertion(self, keys: SubjectKeys) -> Insertion:
        """Insert at the bare key."""
        return Insertion(keys.bare_key, keys.bare_value, keys.bare_value)


@EDITORS.register("c-rome")
class CRome(Rome):
    """C-ROME: mean prefixed key and mean prefixed output everywhere; v* still starts from the bare value.

    Source: "The Fall of ROME" (arXiv 2406.11263), section 5.
    """

    name = "c-rome"
    consistent = True
    question = "mean prefixed key everywhere, value still optimised from the bare one"

    def insertion(self, keys: SubjectKeys) -> Insertion:
        """Insert at the mean prefixed key."""
        return Insertion(keys.mean_key, keys.mean_value, keys.bare_value)


@EDITORS.register("r-rome")
class RRome(CRome):
    """r-ROME: the same correction, found independently and published under another name.

    Its present output is ``W k_bar`` (+ bias), which equals the mean output because the site is linear; it is
    registered by its own name so that published results can be looked up. Source: arXiv 2403.07175, equation 5.
    """

    name = "r-rome"
    question = "as c-rome: the same equation, published independently"
