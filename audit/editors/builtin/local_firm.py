"""The second try of `local`: it holds other subjects and other facts more firmly."""

from __future__ import annotations

from ..local_editor import FIRM
from .local import Local

__all__ = ["LocalFirm"]


class LocalFirm(Local):
    """`Local`, with more of what an edit must leave alone held, and with more weight."""

    name = "local-firm"
    next_try = None
    question = "as local, with more held and more firmly: the second try of an edit that failed its checks"
    hold = FIRM
