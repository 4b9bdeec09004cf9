"""The second try of `everywhere`: it holds other words, other subjects and other facts more firmly, at both sites."""

from __future__ import annotations

from ..local_editor import FIRM
from .everywhere import Everywhere

__all__ = ["EverywhereFirm"]


class EverywhereFirm(Everywhere):
    """`Everywhere`, with more of what an edit must leave alone held, and with more weight."""

    name = "everywhere-firm"
    next_try = None
    question = "as everywhere, with more held and more firmly: the second try of an edit that failed its checks"
    hold = FIRM
