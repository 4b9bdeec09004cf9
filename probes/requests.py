"""The edit that somebody asks for: one fact, in the field's own terms.

Out of scope: reading files (`request_files`), tokens (`tokens`), and whether the edit is a good idea (the probes).
"""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["EditRequest"]


@dataclass(frozen=True)
class EditRequest:
    """One requested edit: after it, `prompt` is to be continued by `target_new`.

    `prompt` is plain text that contains `subject`; targets carry no leading space (`editguard` adds the one that the
    prompt needs). `paraphrases` ask for the same fact in other words, and `neighbourhood` prompts ask for facts about
    other subjects, which must not change.
    """

    id: str
    subject: str
    prompt: str
    target_new: str
    target_true: str | None = None
    paraphrases: tuple[str, ...] = ()
    neighbourhood: tuple[str, ...] = ()
    group: str = ""
    """A label that reports group by, e.g. ``single-token-first``; empty where the file gives none."""
