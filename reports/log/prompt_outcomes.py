"""The answers to one prompt that an edit must not change, before and after the edit.

A *leak*: the prompt now says the new target, or its probability rose by more than the policy allows. A *flip*: another
answer, although the old one had a clear margin. A *near tie*: another answer, and the old one was hardly preferred.
Source of the distinction: arXiv 2202.05262 counts P(true) > P(new); leaks and margins are this project's.
"""

from __future__ import annotations

from enum import StrEnum

from .types import Model

__all__ = ["PromptOutcome", "PromptResult", "PromptRole"]


class PromptRole(StrEnum):
    """Role of a prompt: about another subject, another fact of the same one, or a subject that nobody edited."""

    NEIGHBOUR = "neighbour"
    MADE_NEIGHBOUR = "made-neighbour"
    OTHER_FACT = "other-fact"
    MADE_OTHER_FACT = "made-other-fact"
    SIDE_EFFECT = "side-effect"
    """About a subject that nobody edited."""


class PromptResult(StrEnum):
    """Change of a prompt's answer, mildest first."""

    KEPT = "kept"
    NEAR_TIE = "near-tie"
    FLIP = "flip"
    LEAK = "leak"
    UNMEASURED = "unmeasured"


class PromptOutcome(Model):
    """One prompt under one condition; `before` and `after` are the words that the model writes greedily.

    `margin` is the difference of log-probability between the first and the second choice before the edit, in nats.
    `target_before` and `target_after` are the probabilities of the new target's first tokens, `divergence` the
    Kullback-Leibler divergence of the next token's distribution from the unedited one, in nats; null where not finite.
    """

    role: PromptRole
    condition: str
    prompt: str
    before: str
    after: str
    result: PromptResult
    margin: float | None = None
    target_before: float | None = None
    target_after: float | None = None
    divergence: float | None = None
