"""Serve edits that act only where something stands before the prompt.

Whoever serves a model puts an edit's `prefix` before a text that begins with its subject (`serve_prompt`), into token ids
(`serve_inputs`) or through a pipeline (`ServedPipeline`). The first two are what audits and exports measure the edited
model through (`editguard.suites.serving`), so that what was judged is what is served.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from ..probes.errors import InputError
from ..reports.log.bounded_read import LARGEST_TABLE, bounded_bytes
from ..suites.serving import ServedEdit, Serving, serve_inputs, serve_prompt, special_texts
from .delta.manifest import MODEL_MARKER, EditProvenance

__all__ = [
    "ServedEdit",
    "ServedPipeline",
    "Serving",
    "load_provenance",
    "serve_inputs",
    "serve_prompt",
    "special_texts",
]


def load_provenance(folder: Path | str) -> EditProvenance:
    """Return what ``editguard apply`` wrote beside an edited model; its `edits` are what serving asks for.

    Raises `InputError`.
    """
    try:
        return EditProvenance.model_validate_json(
            bounded_bytes(Path(folder) / MODEL_MARKER.name, LARGEST_TABLE), strict=True
        )
    except (OSError, ValueError) as error:
        why = (str(error).splitlines() or ["unknown"])[0]
        raise InputError(
            f"The folder {str(folder)!r} has no {MODEL_MARKER.name} that can be read ({why}); give a folder that 'editguard apply' "
            "wrote."
        ) from error


class ServedPipeline:
    """A text-generation pipeline that puts prefixes in, and takes them off what it returns.

    Called as the pipeline is. Texts are served; conversations are passed on as they are, since a chat template stands
    before their first word.
    """

    def __init__(self, pipe: Any, edits: Sequence[ServedEdit]) -> None:
        """`pipe` is a ``transformers`` pipeline for ``text-generation``."""
        self._pipe, self._edits = pipe, tuple(edits)
        self._special = special_texts(pipe.tokenizer)

    def __call__(self, text_inputs: Any, **options: Any) -> Any:
        """Return what the pipeline returns for the served texts, each beginning as it was given."""
        inputs = (
            list(text_inputs) if isinstance(text_inputs, Iterator) else text_inputs
        )  # it is gone through three times
        if isinstance(inputs, str):
            served = serve_prompt(inputs, self._edits, self._special)
            return _as_given(self._pipe(served, **options), served, inputs)
        if not all(isinstance(one, str) for one in inputs):
            return self._pipe(inputs, **options)
        texts = [serve_prompt(text, self._edits, self._special) for text in inputs]
        found = self._pipe(texts, **options)
        return [_as_given(*row) for row in zip(found, texts, inputs, strict=True)]


def _as_given(found: list[dict[str, Any]], served: str, given: str) -> list[dict[str, Any]]:
    """Put the text as it was given in place of the served one, where the pipeline returns whole texts."""
    return [
        {**one, "generated_text": given + text.removeprefix(served)}
        if isinstance(text := one.get("generated_text"), str) and text.startswith(served)
        else one
        for one in found
    ]
