"""The edit that somebody asks for: one fact, in the field's own terms.

Out of scope: reading files (`request_files`), tokens (`tokens`), and whether the edit is a good idea (the probes).
"""

from __future__ import annotations

from dataclasses import dataclass

from ..errors import RequestError

__all__ = ["SUFFIXES", "EditRequest"]

SUFFIXES = (".json", ".jsonl", ".ndjson", ".yaml", ".yml", ".csv")
"""How the names of files of edits end, by which they are read (`request_files`), collected by pytest and hooked by pre-commit."""


@dataclass(frozen=True)
class EditRequest:
    """One requested edit: after it, `prompt` is to be continued by `target_new`.

    `prompt` is plain text that contains `subject`; targets carry no leading space (`editguard` adds the one that the
    prompt needs). `paraphrases` ask for the same fact in other words, and `neighbourhood` prompts ask for facts about
    other subjects, which must not change. Raises `RequestError` where a field is not of its type: a text in place of
    several texts would be taken letter by letter.
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
    true_aliases: tuple[str, ...] = ()
    """Other names of `target_true`."""
    other_facts: tuple[str, ...] = ()
    """Prompts about the same subject in other relations: their answers must not change."""
    question: str | None = None
    """The fact as a question, whose answer is `target_new` after the edit."""
    space: bool | None = None
    """Whether a space stands between a prompt and a target; None: as script and punctuation ask for it."""
    not_judged: tuple[str, ...] = ()
    """Prompts that the file holds and no check judges (portability, questions over several facts): shown as such."""

    def __post_init__(self) -> None:
        """Check the types, which Python does not; lists become tuples."""
        for name in ("id", "subject", "prompt", "target_new", "group"):
            if not isinstance(value := getattr(self, name), str):
                raise RequestError(f"{name} = {value!r} of an edit must be a text; write it as a string.")
        if not isinstance(self.target_true, str | None):
            raise RequestError(f"target_true = {self.target_true!r} of an edit must be a text, or None; write one.")
        if not isinstance(self.question, str | None):
            raise RequestError(f"question = {self.question!r} of an edit must be a text, or None; write one.")
        if not isinstance(self.space, bool | None):
            raise RequestError(f"space = {self.space!r} of an edit must be True, False or None; write one of them.")
        for name in ("paraphrases", "neighbourhood", "true_aliases", "other_facts", "not_judged"):
            value = getattr(self, name)
            if not isinstance(value, tuple | list) or not all(isinstance(one, str) for one in value):
                raise RequestError(
                    f"{name} = {value!r} of an edit must be a tuple of texts; put it in brackets with a comma behind it."
                )
            object.__setattr__(self, name, tuple(value))
