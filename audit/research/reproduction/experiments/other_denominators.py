"""Experiment 12: small denominators of subjects that are not first tokens, and whether their edits collapse the model."""

from __future__ import annotations

import itertools
import re
from typing import TYPE_CHECKING

from .....reports.reproduction.schema import Claim, Experiment, Table, describe_cases
from .....reports.text import count_noun
from ..cases import CaseKind, Cases, has_small_denominator
from ..record_figures import (
    NOTHING_MEASURED,
    get_perplexity_ratio,
    get_relative_norm,
    has_collapsed,
    read_key_figure,
    select_records,
)
from .headings import build_claim, build_experiment

if TYPE_CHECKING:
    from collections.abc import Sequence

    from .....reports.log.schema import EditRecord
    from ..edits import Edits

__all__ = ["list_other_cases"]


def list_other_cases(cases: Cases, edits: Edits, collapse_ratio: float) -> Experiment:
    """Experiment 12: requests with a small denominator whose subject is not the first token."""
    small = {
        case.request.id
        for case in cases.select(CaseKind.OTHER, CaseKind.AFTER_BOS)
        if has_small_denominator(case.assessment) or case.kind is CaseKind.OTHER
    }
    records = [
        record
        for record in select_records(edits, cases, "rome", CaseKind.OTHER, CaseKind.AFTER_BOS)
        if record.id in small
    ]
    rows: list[list[str | bool | int | float | None]] = [
        [
            record.id,
            record.subject,
            record.prompt,
            _describe_shape(record.subject),
            read_key_figure(record, "denominator"),
            read_key_figure(record, "denominator_ratio"),
            get_relative_norm(record),
            get_perplexity_ratio(record),
            has_collapsed(record, collapse_ratio),
        ]
        for record in sorted(records, key=lambda record: read_key_figure(record, "denominator") or 0.0)
    ]
    return build_experiment(
        12,
        claims=[_judge_other_cases(records, collapse_ratio, cases)],
        tables=[
            Table(
                name="other-small-denominators",
                title="Small denominators of subjects that are no first tokens",
                columns=[
                    "id",
                    "subject",
                    "prompt",
                    "shape",
                    "|u·k_u|",
                    "|u·k_u| / |u·k̄|",
                    "‖Δ‖ / ‖W‖",
                    "perplexity ratio",
                    "collapsed",
                ],
                rows=rows,
                note="Edited by rome, unguarded.",
            )
        ],
        notes=[_describe_selection(cases)],
    )


def _describe_selection(cases: Cases) -> str:
    chosen, fired = (
        cases.selection,
        sum(has_small_denominator(case.assessment) for case in cases.select(CaseKind.FIRST)),
    )
    other_kind = len(chosen.kinds) - len(cases.cases)
    left_out = f" Drawn, and left out since their kind differs under all contexts: {other_kind}." if other_kind else ""
    return (
        f"Requests probed: {chosen.probed}, of which {chosen.unusable} could not be. "
        f"Edited: {describe_cases(cases.counts())}; where "
        f"not all were, the seed drew them.{left_out} Of the first tokens the denominator probe fires at {fired}."
    )


def _describe_shape(subject: str) -> str:
    words = subject.split()
    if subject.endswith("."):
        return "ends in a period"
    if any(first == second for first, second in itertools.pairwise(words)):
        return "a word twice"
    return "not Latin script" if re.search(r"[^\u0000-\u024f\u2000-\u206f]", subject) else ""


def _judge_other_cases(records: Sequence[EditRecord], collapse_ratio: float, cases: Cases) -> Claim:
    paper = (
        "Subjects that are no first tokens collapse Llama2-7b, names that end in a period among them, so that a first-token test "
        "alone is not enough."
    )
    rule = "One of them that collapses the model."
    if not records:
        return build_claim(paper, NOTHING_MEASURED, None, rule)
    measured_records = [record for record in records if has_collapsed(record, collapse_ratio) is not None]
    collapse_records = [record for record in measured_records if has_collapsed(record, collapse_ratio)]
    shapes = [shape for record in collapse_records if (shape := _describe_shape(record.subject))]
    return build_claim(
        paper,
        f"{len(collapse_records)} of {count_noun(len(measured_records), 'such request')} with a small denominator collapse the "
        f"model, {len(shapes)} of them of a listed shape; edits not made: {len(records) - len(measured_records)}; requests "
        f"probed: {cases.selection.probed}.",
        bool(collapse_records) if measured_records else None,
        rule,
    )
