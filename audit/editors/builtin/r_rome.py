"""r-ROME: the equation of C-ROME, published under another name."""

from __future__ import annotations

from .c_rome import CRome

__all__ = ["RRome"]


class RRome(CRome):
    """r-ROME: the same correction, found independently and published under another name.

    Its present output is ``W k_bar`` (+ bias), which equals the mean output because the site is linear; it is
    registered by its own name so that published results can be looked up. Source: arXiv 2403.07175, equation 5.
    """

    name = "r-rome"
    question = "as c-rome: the same equation, published independently"
