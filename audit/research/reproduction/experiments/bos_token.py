"""Experiment 10: the same prompt with and without a beginning-of-sequence token."""

from __future__ import annotations

import statistics
from typing import TYPE_CHECKING

from .....probes.errors import ModelError, RequestError
from .....probes.research.interventions import compute_keys_after_bos
from .....reports.reproduction.schema import Claim, Experiment, Table
from ..cases import FEW, CaseKind, Cases
from ..clouds import drop_repeated_subjects, get_subject_keys
from .first_token_position import compute_denominator, summarise_sizes
from .headings import build_claim, build_experiment

if TYPE_CHECKING:
    from collections.abc import Sequence

    from ....setup import Setup

__all__ = ["compare_bos"]

_TIMES, _NEAR = 10.0, 0.1
"""So many times nearer to the ordinary denominators, and at least so near, counts as "the anomaly is gone"."""


def compare_bos(setup: Setup, cases: Cases) -> Experiment:
    """Experiment 10: denominators with a BOS before the prompt, or without the one that the tokenizer adds."""
    compared = (CaseKind.AFTER_BOS if setup.lm.adds_bos else CaseKind.FIRST, CaseKind.ORDINARY)
    if any(len(cases.select(kind)) < FEW for kind in compared):
        return build_experiment(10, skipped=_explain_lack(cases, compared))
    rows: list[list[str | bool | int | float | None]] = []
    medians: dict[tuple[CaseKind, bool], float] = {}
    try:
        for kind in compared:
            chosen = drop_repeated_subjects(cases.select(kind))
            (keys, _), with_bos = compute_keys_after_bos(setup.lm, setup.site, [case.request for case in chosen])
            usual = [abs(compute_denominator(setup, case, get_subject_keys(case).no_prefix_key)) for case in chosen]
            other = [abs(compute_denominator(setup, case, key)) for case, key in zip(chosen, keys, strict=True)]
            for has, values in ((not with_bos, usual), (with_bos, other)):
                rows.append(
                    [kind.value, "with" if has else "without", *summarise_sizes(values), statistics.median(values)]
                )
                medians[kind, has] = statistics.median(values)
    except (ModelError, RequestError) as error:
        return build_experiment(10, skipped=str(error))
    return build_experiment(
        10,
        claims=[_judge_bos(medians, compared[0])],
        tables=[
            Table(
                name="bos-denominators",
                title="|u·k_u| with and without a BOS",
                columns=["cases", "BOS", "subjects", "least", "mean", "largest", "median"],
                rows=rows,
            )
        ],
        notes=["u is that of the published update, from prefixed keys as the tokenizer makes them."],
    )


def _explain_lack(cases: Cases, compared: Sequence[CaseKind]) -> str:
    counts = ", ".join(f"{kind.value}: {len(cases.select(kind))}" for kind in compared)
    return (
        f"The file holds too few requests of one kind ({counts}; at least {FEW} of each are needed); give a larger one."
    )


def _judge_bos(medians: dict[tuple[CaseKind, bool], float], first: CaseKind) -> Claim:
    with_bos, without = (medians[first, has] / medians[CaseKind.ORDINARY, has] for has in (True, False))
    return build_claim(
        "Llama2-7b collapses on first-token subjects once <s> is taken away, and not with it.",
        f"Median denominators of first-token subjects are {without:.3g} of the ordinary ones' without a BOS, {with_bos:.3g} "
        "with one.",
        with_bos >= max(_NEAR, _TIMES * without),
        f"With a BOS at least {_NEAR:g} of the ordinary ones', and {_TIMES:g} times as much as without.",
    )
