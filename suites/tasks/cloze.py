"""Common facts: a sentence whose last word is asked, such as "The opposite of hot is".

An item is right where all tokens of the answer, or of an alias, are the model's greedy choices after the prompt, and the next
greedy token does not continue the word. That is the protocol *exact* of the checks.
"""

from __future__ import annotations

from functools import cached_property
from typing import TYPE_CHECKING, Any, NamedTuple

import torch

from ...probes.forward.partial import Row
from ...probes.tokens import encode_target
from .task import read_items, run_rows

if TYPE_CHECKING:
    from ...probes.model.language_model import LanguageModel

__all__ = ["Cloze"]


class _Answer(NamedTuple):
    item: int
    ids: tuple[int, ...]


class Cloze:
    """A cloze of common facts: does the model say the word that belongs there?"""

    name = "cloze"

    @cached_property
    def _records(self) -> list[dict[str, Any]]:
        return read_items("cloze.json")

    @cached_property
    def items(self) -> tuple[str, ...]:
        """The prompts."""
        return tuple(record["prompt"] for record in self._records)

    def score(self, lm: LanguageModel) -> list[bool | None]:
        """Return whether the model says the answer of each item, or one of its aliases."""
        answers: list[_Answer] = []
        rows: list[Row] = []
        for index, record in enumerate(self._records):
            prompt = tuple(lm.tokenizer(record["prompt"]).input_ids)
            for text in record["answers"]:
                ids = encode_target(lm.tokenizer, record["prompt"], text)
                answers.append(_Answer(index, ids))
                # The last place shows whether the word ends with the answer.
                rows.append(Row(prompt + ids, 0, tuple(range(len(prompt) - 1, len(prompt) + len(ids)))))
        says = run_rows(lm, rows, lambda row, scores: _says(lm, answers[row].ids, scores))
        results: list[bool | None] = [False] * len(self._records)
        for answer, value in zip(answers, says, strict=True):
            so_far = results[answer.item]
            results[answer.item] = None if value is None or so_far is None else so_far or value
        return results


def _says(lm: LanguageModel, ids: tuple[int, ...], scores: torch.Tensor) -> bool | None:
    if not bool(torch.isfinite(scores).all()):
        return None
    *choices, following = scores.argmax(-1).tolist()
    if tuple(choices) != ids:
        return False
    said, longer = (str(lm.tokenizer.decode(list(part), skip_special_tokens=True)) for part in (ids, (*ids, following)))
    return not longer[len(said) : len(said) + 1].isalnum()
