"""A choice of endings: which of four endings does the model find likeliest after a short beginning?

An item is right where the right ending has the highest log-probability for each of its bytes. Dividing by the length keeps long
endings from losing; lm-evaluation-harness calls such a score ``acc_norm``. Chance is one in four.
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

__all__ = ["Endings"]


class _Ending(NamedTuple):
    item: int
    ids: tuple[int, ...]
    size: int
    """Bytes of the text."""


class Endings:
    """A choice of endings: does the model prefer the one that makes sense?"""

    name = "endings"

    @cached_property
    def _records(self) -> list[dict[str, Any]]:
        return read_items("endings.json")

    @cached_property
    def items(self) -> tuple[str, ...]:
        """The beginnings."""
        return tuple(record["beginning"] for record in self._records)

    def score(self, lm: LanguageModel) -> list[bool | None]:
        """Return whether the right ending is the likeliest one of each item."""
        endings: list[_Ending] = []
        rows: list[Row] = []
        for index, record in enumerate(self._records):
            beginning = tuple(lm.tokenizer(record["beginning"]).input_ids)
            for text in record["endings"]:
                ids = encode_target(lm.tokenizer, record["beginning"], text)
                endings.append(_Ending(index, ids, len(text.encode())))
                places = tuple(range(len(beginning) - 1, len(beginning) + len(ids) - 1))
                rows.append(Row(beginning + ids[:-1], 0, places))
        scores = run_rows(lm, rows, lambda row, logs: _score(endings[row], logs))
        by_item: list[list[float]] = [[] for _ in self._records]
        for ending, score in zip(endings, scores, strict=True):
            by_item[ending.item].append(score)
        return [_choose(scores, record["right"]) for scores, record in zip(by_item, self._records, strict=True)]


def _score(ending: _Ending, logs: torch.Tensor) -> float:
    of_ending = logs.gather(1, torch.tensor(ending.ids, device=logs.device)[:, None])
    return float(of_ending.double().sum()) / ending.size


def _choose(scores: list[float], right: int) -> bool | None:
    if not bool(torch.isfinite(torch.tensor(scores)).all()):
        return None
    # Where all are alike, as in a model that lost everything, none was chosen.
    return all(scores[right] > score for index, score in enumerate(scores) if index != right)
