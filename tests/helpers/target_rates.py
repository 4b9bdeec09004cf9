"""Rates of targets by ordinary forward passes of single texts, to compare with what the checks of targets measure."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import torch
from editguard.probes.keys.prefixes import Role
from editguard.suites.check import Bench, Measurement
from torch import Tensor, nn

from .check_benches import ASKED
from .tiny_models import PREFIXES

TargetAnswer = tuple[bool, float, bool]
Rates = dict[tuple[str, str], float]


def log_probs(bench: Bench, text: str, target: str) -> tuple[Tensor, list[int]]:
    """Log-probabilities at the target's tokens, from one text run alone; the target is joined as ids."""
    ids = bench.lm.tokenizer(text).input_ids
    target_ids = bench.lm.tokenizer(f" {target}", add_special_tokens=False).input_ids
    with torch.no_grad():
        logits = bench.lm.model(torch.tensor([ids + target_ids])).logits[0].double()
    return logits.log_softmax(-1)[len(ids) - 1 : len(ids) + len(target_ids) - 1], target_ids


def plain_answer(bench: Bench, text: str) -> TargetAnswer:
    new, target = log_probs(bench, text, ASKED.target_new)
    true, truth = log_probs(bench, text, str(ASKED.target_true))
    hits = [int(row.argmax()) == token for row, token in zip(new, target, strict=True)]
    mean_new, mean_true = (
        sum(float(row[token]) for row, token in zip(rows, tokens, strict=True)) / len(tokens)
        for rows, tokens in ((new, target), (true, truth))
    )
    return all(hits), sum(hits) / len(hits), mean_new > mean_true


def plain_rates(bench: Bench, prompts: tuple[str, ...]) -> Rates:
    answers: dict[str, list[TargetAnswer]] = {
        "unprefixed": [plain_answer(bench, prompt) for prompt in prompts],
        "prefixed": [],
    }
    for prefix in PREFIXES.of(Role.HELD_OUT):
        for prompt in prompts:
            score = plain_answer(bench, prefix.text + prompt)
            answers["prefixed"].append(score)
            answers.setdefault(f"family:{prefix.family.value}", []).append(score)
    return {
        (condition, protocol): sum(row[place] for row in rows) / len(rows)
        for condition, rows in answers.items()
        for place, protocol in enumerate(("exact", "token-match", "probability"))
    }


def rates_of(measurements: Any) -> Rates:
    return {(item.condition, str(item.protocol)): item.value for item in measurements}


@contextmanager
def outer_rows_broken(bench: Bench) -> Iterator[None]:
    """Make the site's output NaN in the first and the last row of every batch: its longest and its shortest text."""

    def spoil(_: nn.Module, __: Any, output: Tensor) -> Tensor:
        broken = output.clone()
        broken[[0, -1]] = torch.nan
        return broken

    handle = bench.lowest_site.module.register_forward_hook(spoil)
    try:
        yield
    finally:
        handle.remove()


def rounded(measurements: list[Measurement]) -> list[Measurement]:
    """A divergence has all digits of the logits, and the last ones depend on who is computed with whom."""
    return [
        replace(row, value=round(row.value, 6)) if row.metric == "divergence" and row.value is not None else row
        for row in measurements
    ]
