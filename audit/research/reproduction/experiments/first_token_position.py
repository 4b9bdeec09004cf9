"""Experiments 9 and 10: the same prompt at other positions, and behind a BOS.

Position: as in the paper, the key that rome divides by is read with the first token at the second token's position, and the
edit is made with it. Where no key moves, as under rotary positions, no edit needs to be made again.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence
from dataclasses import replace

import torch

from .....probes.errors import ModelError, RequestError
from .....probes.research.interventions import keys_behind_bos, shifted_keys
from .....reports.reproduction.schema import Claim, Experiment, Table
from .....reports.text import count_noun
from .....suites.checks.perplexity import Perplexity
from ....editors.base import RankOneUpdate, compute_updates
from ....setup import Setup
from ....transaction import Transaction
from .. import published
from ..cases import FEW, Case, Cases, Kind
from ..clouds import one_each, subject_keys_of
from .headings import claim, experiment

__all__ = ["behind_bos", "shifted_position"]

_SAME = 1e-3
"""Relative difference of denominators up to which nothing has moved."""
_PAPER = (
    "Position alone is not the cause: GPT-2-XL's collapse cases stay at a perplexity of 1008 to 2154, GPT-J and Llama2-7b stay "
    "collapsed."
)
_RULE = "More than half of the models still collapse."
_TIMES, _NEAR = 10.0, 0.1
"""So many times nearer to the ordinary denominators, and at least so near, counts as "the anomaly is gone"."""


def shifted_position(setup: Setup, cases: Cases, collapse_ratio: float) -> Experiment:
    """Experiment 9: denominators, and perplexity of the edits, with the first token at the second position."""
    chosen = cases.of(Kind.FIRST)
    try:
        keys, _ = shifted_keys(setup.lm, setup.site, [case.request for case in chosen])
    except (ModelError, RequestError) as error:
        return experiment(9, skipped=str(error))
    before = [_along(setup, case, subject_keys_of(case).no_prefix_key) for case in chosen]
    after = [_along(setup, case, key) for case, key in zip(chosen, keys, strict=True)]
    table = Table(
        name="position-denominators", title="|u·k_u| of collapse cases",
        columns=["first token", "cases", "least", "mean", "largest"],
        rows=[["as it is", *_least_mean_most(before)], ["at the second position", *_least_mean_most(after)]],
    )  # fmt: skip
    if all(abs(new - old) <= _SAME * abs(old) for old, new in zip(before, after, strict=True)):
        return experiment(9, claims=[_unmoved(chosen)], tables=[table, _paper()], notes=[
            "Rotary positions are relative, so that a shift of all of them changes nothing but rounding; the edits would be "
            "those of experiment 2."
        ])  # fmt: skip
    factors = [old / new if new else math.inf for old, new in zip(before, after, strict=True)]
    ratios = _edited(setup, chosen, factors)
    return experiment(9, claims=[_collapsed(ratios, collapse_ratio)], tables=[table, _ratios(ratios), _paper()], notes=[
        "The denominator alone is taken at the second position: v* and the perplexity are those of ordinary positions."
    ])  # fmt: skip


def _along(setup: Setup, case: Case, key: torch.Tensor) -> float:
    """Return u . k, u being of the prefixed mean key."""
    return float(setup.statistics.direction(subject_keys_of(case).mean_key) @ key.double().cpu())


def _unmoved(chosen: Sequence[Case]) -> Claim:
    return claim(
        _PAPER,
        f"None of {count_noun(len(chosen), 'denominator')} moves by a thousandth, so that nothing is told.",
        None,
        _RULE,
    )


def _collapsed(ratios: Sequence[float | None], collapse_ratio: float) -> Claim:
    known = [value for value in ratios if value is not None]
    missing = len(ratios) - len(known)
    count = sum(value > collapse_ratio for value in known)
    # Left open where few were made, or where those that were not could turn the majority.
    told = len(known) >= FEW and (count > len(ratios) / 2) == (count + missing > len(ratios) / 2)
    return claim(
        _PAPER,
        f"{count} of {count_noun(len(known), 'model')} still collapse; edits that could not be made: {missing}.",
        count > len(ratios) / 2 if told else None,
        _RULE,
    )


def _edited(setup: Setup, cases: Sequence[Case], factors: Sequence[float]) -> list[float | None]:
    """Return the perplexity ratio of each case's rome edit, larger by a factor; None where it was not made.

    rome's residual is delta alone, so that another denominator makes the same update larger or smaller. Infinite where the
    edited model's perplexity is not finite.
    """
    updates = compute_updates(setup.edit_context, [("rome", case.request) for case in cases])
    with setup.bench.autocast():
        base = Perplexity().baseline(setup.bench)
    found: list[float | None] = []
    for update, factor in zip(updates, factors, strict=True):
        if not isinstance(update, RankOneUpdate) or not math.isfinite(factor):
            found.append(None)
            continue
        with Transaction(setup.site, replace(update, left=update.left * factor)), setup.bench.autocast():
            value = base.score_again().mean / base.before.mean
        found.append(value if math.isfinite(value) else math.inf)
    return found


def _ratios(ratios: Sequence[float | None]) -> Table:
    finite = [value for value in ratios if value is not None and value < math.inf]
    return Table(
        name="position-perplexity", title="Perplexity ratio, first token at the second position",
        columns=["cases", "measured and finite", "least", "mean", "largest"],
        rows=[[len(ratios), *_least_mean_most(finite)]] if finite else [[len(ratios), 0, None, None, None]],
    )  # fmt: skip


def _paper() -> Table:
    return Table(
        name="position-published", title="The paper's perplexities, GPT-2-XL",
        columns=["first token", "least", "mean", "largest"],
        rows=[[name, *values] for name, values in published.POSITION.items()],
    )  # fmt: skip


def behind_bos(setup: Setup, cases: Cases) -> Experiment:
    """Experiment 10: denominators with a BOS before the prompt, or without the one that the tokenizer adds."""
    compared = (Kind.BEHIND_BOS if setup.lm.adds_bos else Kind.FIRST, Kind.ORDINARY)
    if any(len(cases.of(kind)) < FEW for kind in compared):
        return experiment(10, skipped=_lacking(cases, compared))
    rows: list[list[str | bool | int | float | None]] = []
    medians: dict[tuple[Kind, bool], float] = {}
    try:
        for kind in compared:
            chosen = one_each(cases.of(kind))
            (keys, _), with_bos = keys_behind_bos(setup.lm, setup.site, [case.request for case in chosen])
            usual = [abs(_along(setup, case, subject_keys_of(case).no_prefix_key)) for case in chosen]
            other = [abs(_along(setup, case, key)) for case, key in zip(chosen, keys, strict=True)]
            for has, values in ((not with_bos, usual), (with_bos, other)):
                rows.append(
                    [kind.value, "with" if has else "without", *_least_mean_most(values), statistics.median(values)]
                )
                medians[kind, has] = statistics.median(values)
    except (ModelError, RequestError) as error:
        return experiment(10, skipped=str(error))
    return experiment(
        10,
        claims=[_bos_claim(medians, compared[0])],
        tables=[Table(
            name="bos-denominators", title="|u·k_u| with and without a BOS",
            columns=["cases", "BOS", "subjects", "least", "mean", "largest", "median"], rows=rows,
        )],
        notes=["u is that of the published update, from prefixed keys as the tokenizer makes them."],
    )  # fmt: skip


def _lacking(cases: Cases, compared: Sequence[Kind]) -> str:
    counts = ", ".join(f"{kind.value}: {len(cases.of(kind))}" for kind in compared)
    return (
        f"The file holds too few requests of one kind ({counts}; at least {FEW} of each are needed); give a larger one."
    )


def _bos_claim(medians: dict[tuple[Kind, bool], float], first: Kind) -> Claim:
    with_bos, without = (medians[first, has] / medians[Kind.ORDINARY, has] for has in (True, False))
    return claim(
        "Llama2-7b collapses on first-token subjects once <s> is taken away, and not with it.",
        f"Median denominators of first-token subjects are {without:.3g} of the ordinary ones' without a BOS, {with_bos:.3g} "
        "with one.",
        with_bos >= max(_NEAR, _TIMES * without),
        f"With a BOS at least {_NEAR:g} of the ordinary ones', and {_TIMES:g} times as much as without.",
    )


def _least_mean_most(values: Sequence[float]) -> tuple[int, float, float, float]:
    sizes = [abs(value) for value in values]
    return len(sizes), min(sizes), statistics.fmean(sizes), max(sizes)
