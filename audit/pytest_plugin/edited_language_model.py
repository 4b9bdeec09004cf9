"""The model with one edit in it, as the fixture `edited_model` gives it: the result, and how the edit is served."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from ...probes.errors import EditRefused
from ...probes.model.language_model import LanguageModel
from ...suites.serving import Serving, serve_prompt

if TYPE_CHECKING:
    from ..edit_result import EditResult
    from ..editors.update import WeightUpdate
    from ..policy import Decision

__all__ = ["EditedModel"]


@dataclass(frozen=True, repr=False)
class EditedModel(LanguageModel):
    """A `LanguageModel` with a guarded edit in its weights; valid for the length of the fixture's block."""

    result: EditResult
    """The result of the guard: decision, update and measurements."""

    @property
    def decision(self) -> Decision:
        """The decision of the guard: ``action``, ``editor``, ``reasons``."""
        return self.result.decision

    @property
    def update(self) -> WeightUpdate:
        """The update that is in the weights."""
        assert self.result.update is not None
        return self.result.update

    @property
    def needs_prefix(self) -> bool:
        """Whether the edit acts only after a prefix, so that a prompt without one does not show it."""
        return self.update.needs_prefix

    @property
    def prefix(self) -> str | None:
        """The text that `serve` puts before a prompt that begins with the subject; None where the edit needs none."""
        return self.result.prefix

    def serve(self, text: str) -> str:
        """Return `text` as the edit is served, as `editguard.audit.serving.serve_prompt` does.

        Raises `EditRefused` where the edit needs a prefix, and none that was tried serves it.
        """
        if self.needs_prefix and self.prefix is None:
            raise EditRefused(
                f"The edit {self.result.assessment.request.id!r} acts only after a prefix, and after none of the prefixes "
                "that were tried does the model say the target; edit another layer, or reword the prompt."
            )
        return serve_prompt(text, [Serving(self.result.assessment.request.subject, self.prefix)])

    def __repr__(self) -> str:
        request = self.result.assessment.request
        served = f", served after {self.prefix!r}" if self.prefix else ", needs a prefix" if self.needs_prefix else ""
        return (
            f"<{type(self).__name__} {self.ref}: {request.subject!r} -> {request.target_new!r} by {self.update.editor}"
            f"{served}>"
        )
