"""Serve edits that act only after a prefix.

A server puts an edit's `prefix` before a text that begins with its subject: in the text (`serve_prompt`), in token ids
(`serve_inputs`) or through a pipeline (`ServedPipeline`). Audits and exports measure the edited model through the first two
(`editguard.suites.serving`), so that the model is judged as it is served.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from ..probes.errors import InputError
from ..reports.log.bounded_read import LARGEST_TABLE, bounded_bytes
from ..suites.serving import ServedEdit, Serving, serve_inputs, serve_prompt, special_texts
from .saved_model.manifest import MODEL_MARKER, EditProvenance

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
    """Return the provenance in the folder of an edited model; `serve_prompt` takes its `edits`.

    ``editguard apply``, `GuardedEditor.save` and `EditSequence.save` write such folders. Raises `InputError`.
    """
    try:
        content = bounded_bytes(Path(folder) / MODEL_MARKER.name, LARGEST_TABLE)
        return EditProvenance.from_json(content)
    except (OSError, ValueError) as error:
        why = (str(error).splitlines() or ["unknown"])[0]
        raise InputError(
            f"The folder {str(folder)!r} has no {MODEL_MARKER.name} that can be read ({why}); give a folder that "
            "'editguard apply' or GuardedEditor.save wrote."
        ) from error


class ServedPipeline:
    """A text-generation pipeline that puts prefixes before texts, and takes them off the texts that it returns.

    It is called as the pipeline is. Conversations are passed on unchanged, since a chat template stands before their first
    word.
    """

    def __init__(self, pipe: Any, edits: Sequence[ServedEdit]) -> None:
        """`pipe` is a ``transformers`` pipeline for ``text-generation``."""
        self._pipe, self._edits = pipe, tuple(edits)
        self._special = special_texts(pipe.tokenizer)

    def __call__(self, text_inputs: Any, **options: Any) -> Any:
        """Return what the pipeline returns for the served texts, each beginning as it was given."""
        # An iterator is needed three times.
        inputs = list(text_inputs) if isinstance(text_inputs, Iterator) else text_inputs
        if isinstance(inputs, str):
            served_text = serve_prompt(inputs, self._edits, self._special)
            return _without_prefix(self._pipe(served_text, **options), served_text, inputs)
        if not all(isinstance(text, str) for text in inputs):
            return self._pipe(inputs, **options)
        served_texts = [serve_prompt(text, self._edits, self._special) for text in inputs]
        outputs = self._pipe(served_texts, **options)
        return [
            _without_prefix(output, served_text, text)
            for output, served_text, text in zip(outputs, served_texts, inputs, strict=True)
        ]


def _without_prefix(output: list[dict[str, Any]], served_text: str, given_text: str) -> list[dict[str, Any]]:
    """Return the output with the given text in place of the served one, where the pipeline returns whole texts."""
    return [
        {**generation, "generated_text": given_text + text.removeprefix(served_text)}
        if isinstance(text := generation.get("generated_text"), str) and text.startswith(served_text)
        else generation
        for generation in output
    ]
