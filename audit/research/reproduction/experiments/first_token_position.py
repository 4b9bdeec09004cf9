"""Experiment 9: the same prompt with its first token at the second position.

As in the paper, the key that rome divides by is read with the first token at the second token's position.
The edit is made with that key.
Under rotary positions no key moves, and no edit needs to be made again.
"""

from __future__ import annotations

import math
import statistics
from typing import TYPE_CHECKING

from .....probes.errors import ModelError, RequestError
from .....probes.research.interventions import compute_shifted_keys
from .....reports.reproduction.schema import Claim, Experiment, Table
from .....reports.text import count_noun
from .....suites.checks.perplexity import Perplexity
from ....editors.base import compute_updates
from ....editors.update import WeightUpdate
from ....transaction import Transaction
from .. import published
from ..cases import FEW, CaseKind, Cases, ReproductionCase
from ..clouds import get_subject_keys
from .headings import build_claim, build_experiment

if TYPE_CHECKING:
    from collections.abc import Sequence

    import torch

    from ....setup import Setup

__all__ = ["compute_denominator", "shift_first_token", "summarise_sizes"]

_SAME = 1e-3
"""Relative difference of denominators up to which nothing has moved."""


_PAPER = (
    "Position alone is not the cause: GPT-2-XL's collapse cases stay at a perplexity of 1008 to 2154, GPT-J and Llama2-7b stay "
    "collapsed."
)


_RULE = "More than half of the models still collapse."


def shift_first_token(setup: Setup, cases: Cases, collapse_ratio: float) -> Experiment:
    """Experiment 9: denominators, and perplexity of the edits, with the first token at the second position."""
    chosen = cases.select(CaseKind.FIRST)
    try:
        keys, _ = compute_shifted_keys(setup.lm, setup.site, [case.request for case in chosen])
    except (ModelError, RequestError) as error:
        return build_experiment(9, skipped=str(error))
    before = [compute_denominator(setup, case, get_subject_keys(case).no_prefix_key) for case in chosen]
    after = [compute_denominator(setup, case, key) for case, key in zip(chosen, keys, strict=True)]
    table = Table(
        name="position-denominators",
        title="|u·k_u| of collapse cases",
        columns=["first token", "cases", "least", "mean", "largest"],
        rows=[["as it is", *summarise_sizes(before)], ["at the second position", *summarise_sizes(after)]],
    )
    if all(abs(new - old) <= _SAME * abs(old) for old, new in zip(before, after, strict=True)):
        return build_experiment(
            9,
            claims=[_report_unmoved(chosen)],
            tables=[table, _build_paper_table()],
            notes=[
                "Rotary positions are relative, so that a shift of all of them changes nothing but rounding; the edits would be "
                "those of experiment 2."
            ],
        )
    factors = [old / new if new else math.inf for old, new in zip(before, after, strict=True)]
    ratios = _measure_edits(setup, chosen, factors)
    return build_experiment(
        9,
        claims=[_judge_collapse(ratios, collapse_ratio)],
        tables=[table, _build_ratio_table(ratios), _build_paper_table()],
        notes=[
            "Only the denominator is taken at the second position: v* and the perplexity are those of ordinary positions."
        ],
    )


def compute_denominator(setup: Setup, case: ReproductionCase, key: torch.Tensor) -> float:
    """Return u . k, u being of the prefixed mean key."""
    return float(setup.statistics.direction(get_subject_keys(case).mean_key) @ key.double().cpu())


def _report_unmoved(chosen: Sequence[ReproductionCase]) -> Claim:
    return build_claim(
        _PAPER,
        f"None of {count_noun(len(chosen), 'denominator')} moves by a thousandth, so that the claim stays open.",
        None,
        _RULE,
    )


def _judge_collapse(ratios: Sequence[float | None], collapse_ratio: float) -> Claim:
    measured_ratios = [value for value in ratios if value is not None]
    missing = len(ratios) - len(measured_ratios)
    count = sum(value > collapse_ratio for value in measured_ratios)
    # Left open where few were made, or where those that were not could turn the majority.
    is_settled = len(measured_ratios) >= FEW and (count > len(ratios) / 2) == (count + missing > len(ratios) / 2)
    return build_claim(
        _PAPER,
        f"{count} of {count_noun(len(measured_ratios), 'model')} still collapse; edits that could not be made: {missing}.",
        count > len(ratios) / 2 if is_settled else None,
        _RULE,
    )


def _measure_edits(setup: Setup, cases: Sequence[ReproductionCase], factors: Sequence[float]) -> list[float | None]:
    """Return the perplexity ratio of each case's rome edit, larger by a factor; None where it was not made.

    rome's residual is delta alone, so that another denominator makes the same update larger or smaller. Infinite where the
    edited model's perplexity is not finite.
    """
    updates = compute_updates(setup.edit_context, [("rome", case.request) for case in cases])
    with setup.bench.autocast():
        base = Perplexity().baseline(setup.bench)
    ratios: list[float | None] = []
    for update, factor in zip(updates, factors, strict=True):
        if not isinstance(update, WeightUpdate) or not math.isfinite(factor):
            ratios.append(None)
            continue
        with Transaction(update.scale(factor)), setup.bench.autocast():
            value = base.score_again().mean / base.before.mean
        ratios.append(value if math.isfinite(value) else math.inf)
    return ratios


def _build_ratio_table(ratios: Sequence[float | None]) -> Table:
    finite = [value for value in ratios if value is not None and value < math.inf]
    return Table(
        name="position-perplexity",
        title="Perplexity ratio, first token at the second position",
        columns=["cases", "measured and finite", "least", "mean", "largest"],
        rows=[[len(ratios), *summarise_sizes(finite)]] if finite else [[len(ratios), 0, None, None, None]],
    )


def _build_paper_table() -> Table:
    return Table(
        name="position-published",
        title="The paper's perplexities, GPT-2-XL",
        columns=["first token", "least", "mean", "largest"],
        rows=[[name, *values] for name, values in published.POSITION.items()],
    )


def summarise_sizes(values: Sequence[float]) -> tuple[int, float, float, float]:
    """Return the number of the values and their least, mean and largest size."""
    sizes = [abs(value) for value in values]
    return len(sizes), min(sizes), statistics.fmean(sizes), max(sizes)
