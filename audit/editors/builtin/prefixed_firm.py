"""The second try of `prefixed`: it holds other subjects and other facts more firmly."""

from __future__ import annotations

from ..local_editor import FIRM
from .prefixed import Prefixed

__all__ = ["PrefixedFirm"]


class PrefixedFirm(Prefixed):
    """`Prefixed`, with more of what an edit must leave alone held, and with more weight."""

    name = "prefixed-firm"
    next_try = None
    question = "as prefixed, with more held and more firmly: the second try of an edit that failed its checks"
    hold = FIRM
