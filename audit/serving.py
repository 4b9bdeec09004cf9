"""Serve edits that act only where something stands before the prompt.

An edit with `needs_prefix` was made under prefixes, and its subject as the first token of a text is another key, at
which nothing was put in. Whoever serves the model puts the edit's `prefix` before a text that begins with its subject
(`serve_prompt`), into token ids (`serve_inputs`) or through a pipeline (`ServedPipeline`). A text in which anything
stands before the subject, a rendered chat template among them, is left as it is, and so is one about other subjects.

`served_efficacy` measures an edit through this very code. Out of scope: subjects under another spelling.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

from ..probes.errors import InputError
from ..probes.generation import continuations
from ..probes.tokens import target_ids
from ..reports.bounded import LARGEST_TABLE, bounded_bytes
from .delta.manifest import MODEL, Provenance

if TYPE_CHECKING:
    import torch
    from transformers import PreTrainedTokenizerFast

    from ..probes.model import LanguageModel

__all__ = [
    "Served",
    "ServedEdit",
    "ServedPipeline",
    "load_provenance",
    "serve_inputs",
    "serve_prompt",
    "served_efficacy",
]

_BLANK = " \t"


class ServedEdit(Protocol):
    """What serving must know of an edit; a delta file's manifest is one."""

    @property
    def subject(self) -> str:
        """What the edit is about."""

    @property
    def prefix(self) -> str | None:
        """What is put before a text that begins with the subject; None where the edit needs nothing."""


def load_provenance(folder: Path) -> Provenance:
    """Return what ``editguard apply`` wrote beside an edited model; its `edits` are what serving asks for.

    Raises `InputError`.
    """
    try:
        return Provenance.model_validate_json(bounded_bytes(folder / MODEL.name, LARGEST_TABLE), strict=True)
    except (OSError, ValueError) as error:
        why = (str(error).splitlines() or ["unknown"])[0]
        raise InputError(
            f"The folder {str(folder)!r} has no {MODEL.name} that can be read ({why}); give a folder that 'editguard apply' "
            "wrote."
        ) from error


def serve_prompt(text: str, edits: Sequence[ServedEdit]) -> str:
    """Return `text` with a prefix in front where it begins with the subject of an edit that needs one.

    Blanks before the subject count as nothing and are dropped. Of several subjects that fit the longest counts.
    """
    bare = text.lstrip(_BLANK)
    fitting = [one for one in edits if one.prefix and _begins(bare, one.subject)]
    return (max(fitting, key=lambda one: len(one.subject)).prefix or "") + bare if fitting else text


def _begins(text: str, subject: str) -> bool:
    following = text[len(subject) : len(subject) + 1]
    return text.startswith(subject) and not following.isalnum()


def serve_inputs(
    tokenizer: PreTrainedTokenizerFast, inputs: Mapping[str, torch.Tensor], edits: Sequence[ServedEdit]
) -> dict[str, torch.Tensor]:
    """Return `inputs` for ``model.generate`` with the prefixes put in: ``input_ids`` and ``attention_mask``.

    `inputs` holds ``input_ids`` [rows, tokens], and an ``attention_mask`` where rows are padded, on either side; the
    same side is padded again. Raises `InputError` for a row whose text is not tokenised as the row is, so that a prefix
    before its text would change more than that: serve its text with `serve_prompt` instead.
    """
    ids, mask = inputs["input_ids"], inputs.get("attention_mask")
    kept = [row if mask is None else row[mask[index].bool()] for index, row in enumerate(ids)]
    rows = [_served_row(tokenizer, row.tolist(), edits) for row in kept]
    # Rows that are not padded yet are padded where generating needs it.
    right = mask is not None and bool((mask[:, -1] == 0).any())
    width, fill = max(map(len, rows)), tokenizer.pad_token_id
    held = [_padded(row, width, 0 if fill is None else fill, right=right) for row in rows]
    seen = [_padded([1] * len(row), width, 0, right=right) for row in rows]
    return {"input_ids": ids.new_tensor(held), "attention_mask": ids.new_tensor(seen)}


def _padded(row: list[int], width: int, fill: int, *, right: bool) -> list[int]:
    gap = [fill] * (width - len(row))
    return row + gap if right else gap + row


def _served_row(tokenizer: PreTrainedTokenizerFast, row: list[int], edits: Sequence[ServedEdit]) -> list[int]:
    plain, whole = tokenizer("a", add_special_tokens=False).input_ids, tokenizer("a").input_ids
    added = whole[: whole.index(plain[0])] if plain and plain[0] in whole else []
    special = bool(added) and row[: len(added)] == added
    content = row[len(added) :] if special else row
    text = str(tokenizer.decode(content, skip_special_tokens=False, clean_up_tokenization_spaces=False))
    served = serve_prompt(text, edits)
    if served == text:
        return row
    if tokenizer(text, add_special_tokens=special).input_ids != row:
        raise InputError(
            f"The ids of {text!r} are not those that its text has, so a prefix cannot be put before them without changing "
            "them; serve the text with serve_prompt, and tokenise it then."
        )
    return list(tokenizer(served, add_special_tokens=special).input_ids)


class ServedPipeline:
    """A text-generation pipeline that puts prefixes in, and takes them off what it returns.

    Called as the pipeline is. Texts are served; conversations are passed on as they are, since a chat template stands
    before their first word.
    """

    def __init__(self, pipe: Any, edits: Sequence[ServedEdit]) -> None:
        """`pipe` is a ``transformers`` pipeline for ``text-generation``."""
        self._pipe, self._edits = pipe, tuple(edits)

    def __call__(self, text_inputs: Any, **options: Any) -> Any:
        """Return what the pipeline returns for the served texts, each beginning as it was given."""
        inputs = (
            list(text_inputs) if isinstance(text_inputs, Iterator) else text_inputs
        )  # it is gone through three times
        if isinstance(inputs, str):
            served = serve_prompt(inputs, self._edits)
            return _as_given(self._pipe(served, **options), served, inputs)
        if not all(isinstance(one, str) for one in inputs):
            return self._pipe(inputs, **options)
        texts = [serve_prompt(text, self._edits) for text in inputs]
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


class Served(NamedTuple):
    """One prompt as it was served, and whether the model then said the target."""

    prompt: str
    served: str
    says: bool


def served_efficacy(lm: LanguageModel, asked: Sequence[tuple[str, str]], edits: Sequence[ServedEdit]) -> list[Served]:
    """Return for each (prompt, target) whether the served model writes the whole target, greedily.

    Ids go through `serve_inputs`, as those of a user do.
    """
    import torch

    found = []
    for prompt, target in asked:
        ids = torch.tensor([lm.tokenizer(prompt).input_ids])
        row = serve_inputs(lm.tokenizer, {"input_ids": ids}, edits)["input_ids"][0].tolist()
        wanted = list(target_ids(lm.tokenizer, prompt, target))
        (written,) = continuations(lm, [row], len(wanted))
        found.append(Served(prompt, serve_prompt(prompt, edits), written == wanted))
    return found
