"""Figures of "The Fall of ROME" (arXiv 2406.11263; EMNLP 2024 Findings), to compare with the measurements here.

As the paper and its project page give them. Each pair is of collapse cases and of ordinary ones.
"""

from __future__ import annotations

from typing import NamedTuple

__all__ = ["MODELS", "NUMERATOR_DENOMINATOR", "PERPLEXITY", "POSITION", "SHARES", "PublishedPair", "PublishedShares"]

MODELS = ("GPT-2-XL", "GPT-J", "Llama2-7b")


class PublishedPair(NamedTuple):
    """A figure on collapse cases and on ordinary ones."""

    collapse: float
    ordinary: float


class PublishedShares(NamedTuple):
    """Efficacy, generalization and locality in per cent: token match under teacher forcing."""

    efficacy: float
    generalization: float
    locality: float


NUMERATOR_DENOMINATOR = {
    "numerator": (PublishedPair(168.55, 79.91), PublishedPair(140.27, 88.69), PublishedPair(4.57, 16.52)),
    "denominator": (PublishedPair(0.04, 9.60), PublishedPair(0.04, 12.78), PublishedPair(0.01, 2.63)),
}
"""||v* - W k|| and |u . k_u|, by model."""

PERPLEXITY = {
    "unedited": (PublishedPair(68.77, 68.77), PublishedPair(49.04, 49.04), PublishedPair(33.18, 33.18)),
    "rome": (PublishedPair(26084.66, 74.32), PublishedPair(25909.24, 50.77), PublishedPair(10574.76, 36.68)),
    "c-rome": (PublishedPair(70.71, 70.28), PublishedPair(51.77, 50.57), PublishedPair(33.20, 33.55)),
}
"""Largest perplexity over the edits, by model."""

SHARES = {
    ("unprefixed", "collapse"): (
        PublishedShares(5.19, 14.29, 97.40),
        PublishedShares(30.59, 30.77, 82.35),
        PublishedShares(18.65, 12.70, 100.0),
    ),
    ("prefixed", "collapse"): (
        PublishedShares(100.0, 16.88, 100.0),
        PublishedShares(100.0, 32.94, 89.41),
        PublishedShares(91.27, 29.37, 100.0),
    ),
    ("prefixed", "ordinary"): (
        PublishedShares(96.16, 41.88, 97.34),
        PublishedShares(99.77, 50.0, 95.61),
        PublishedShares(91.95, 46.73, 97.56),
    ),
}
"""C-ROME without and with a prefix at test, by condition and kind of case."""

POSITION = {
    "as it is": (2177.82, 19877.79, 179185.99),
    "first token at the second position": (1008.21, 1397.87, 2153.86),
}
"""GPT-2-XL: perplexity of collapse cases, least, mean and largest."""
