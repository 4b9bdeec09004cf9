"""A task: questions in a fixed order, each of which the model answers right or wrong.

The same items are asked of the base and of the edited model, so that `comparison` can pair the answers. Items of our own tasks
are scored by forward passes of padded batches; each score is what the text alone would give.
"""

from __future__ import annotations

import json
from importlib.resources import files
from typing import TYPE_CHECKING, Any, Protocol

import torch

from ...probes.errors import InputError
from ...probes.forward.batches import run_fitting, split_batches
from ...probes.forward.partial import Row, compute_full_logits, compute_plain_logits

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from ...probes.model.language_model import LanguageModel

__all__ = ["Task", "read_items", "run_rows"]

_TOKENS_PER_PASS = 1024
"""Tokens of one pass, padding included; the logits of most of them are computed."""


class Task(Protocol):
    """Items that a model answers right or wrong."""

    @property
    def name(self) -> str:
        """The name by which users choose the task."""

    @property
    def items(self) -> Sequence[str]:
        """The items as text, for people to read, in the order of the scores."""

    def score(self, lm: LanguageModel) -> list[bool | None]:
        """Return whether the model as it is now is right, for each item; None where its logits are not finite."""


def read_items(name: str) -> list[dict[str, Any]]:
    """Return the items of one of our own tasks."""
    items: list[dict[str, Any]] = json.loads(
        (files(__package__).joinpath("../data") / name).read_text(encoding="utf-8")
    )
    return items


def run_rows(
    lm: LanguageModel, rows: Sequence[Row], read: Callable[[int, torch.Tensor], float | bool | None]
) -> list[Any]:
    """Return what `read` makes of each row's log-probabilities [places of the row, vocabulary], called with the row's index.

    Raises `InputError` where a row is longer than the model reads.
    """
    longest = max((len(row.ids) for row in rows), default=0)
    if longest > lm.context_length:
        raise InputError(
            f"An item of the task has {longest} tokens, and the model reads {lm.context_length:g}; leave the task out."
        )
    compute = compute_plain_logits if lm.plain else compute_full_logits

    def run(members: list[int]) -> list[Any]:
        with torch.no_grad():
            logits = compute(lm, [rows[index] for index in members]).log_softmax(-1)
        parts = logits.split([len(rows[index].predict) for index in members])
        return [read(index, part) for index, part in zip(members, parts, strict=True)]

    results: list[Any] = [None] * len(rows)
    for members, values in run_fitting(split_batches([len(row.ids) for row in rows], _TOKENS_PER_PASS), run):
        for index, value in zip(members, values, strict=True):
            results[index] = value
    return results
