"""An edit request: the fact to change, and the prompts to judge the edit by.

Out of scope: reading files (`loader`), tokens (`tokens`), and whether the edit is a good idea (the probes).
"""

from __future__ import annotations

from dataclasses import KW_ONLY, dataclass

from ..errors import RequestError

__all__ = ["SUFFIXES", "EditRequest"]

SUFFIXES = (".json", ".jsonl", ".ndjson", ".yaml", ".yml", ".csv")
"""Suffixes of files of edits. The loader chooses a parser by them; pytest and pre-commit collect files by them."""


@dataclass(frozen=True)
class EditRequest:
    """One edit request: after the edit, the model must continue `prompt` with `target_new`.

    `prompt` is plain text that contains `subject`.
    Targets have no leading space; editguard adds the one that the prompt needs.
    `paraphrases` ask for the same fact in other words.
    `neighbourhood` prompts ask for facts about other subjects, which must not change.

    Raises `RequestError` where a field has another type: a text in place of several texts would be read letter by letter.
    """

    id: str
    subject: str
    prompt: str
    target_new: str
    _: KW_ONLY
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
    """Whether a space stands between a prompt and a target; None leaves it to script and punctuation."""
    not_judged: tuple[str, ...] = ()
    """Prompts of the file that no check judges (portability, questions over several facts); the report shows them."""

    def __post_init__(self) -> None:
        """Check the types, which a dataclass does not; lists become tuples."""
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
            if not isinstance(value, tuple | list) or not all(isinstance(text, str) for text in value):
                raise RequestError(
                    f"{name} = {value!r} of an edit must be a tuple of texts; put it in brackets with a comma after it."
                )
            object.__setattr__(self, name, tuple(value))
