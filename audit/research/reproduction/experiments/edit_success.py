"""Experiments 3 to 5: efficacy, generalization and locality of the edits.

Shares are means over edits of the share of target tokens that are the greedy choice (the paper's protocol); how many prompts
give the whole target stands beside them.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from .....reports.reproduction.schema import Claim, Experiment, Table
from .....reports.text import count_noun
from .. import published
from ..cases import FEW, CaseKind, Cases
from ..record_figures import NOTHING_MEASURED, TokenShare, compute_share
from .headings import build_claim, build_experiment
from .perplexity_after import build_forms_table, build_perplexity_table
from .update_size import build_size_table

if TYPE_CHECKING:
    from collections.abc import Sequence

    from ..edits import Edits

__all__ = ["measure_own_editor", "measure_with_prefix", "measure_without_prefix"]

_CONDITIONS = ("unprefixed", "family:sentence", "prefixed")
"""No prefix; a held-out sentence, which is nearest to the paper's prefixes; held-out prefixes of every family."""


_NAMES = {
    "unprefixed": "no prefix",
    "family:sentence": "a held-out sentence",
    "prefixed": "held-out prefixes of every family",
}


def measure_without_prefix(cases: Cases, edits: Edits) -> Experiment:
    """Experiment 3: C-ROME on collapse cases, no prefix."""
    shares = [
        compute_share(edits, cases, "c-rome", CaseKind.FIRST, check="efficacy", condition=condition)
        for condition in _CONDITIONS[:1]
    ]
    return build_experiment(
        3,
        claims=[_judge_efficacy("Hardly: efficacy 5.19 %, 30.59 %, 18.65 %.", shares[0], high=False)],
        tables=[
            _build_share_table(
                cases,
                edits,
                "c-rome-without-prefix-shares",
                editors=("c-rome",),
                kinds=(CaseKind.FIRST,),
                conditions=_CONDITIONS[:1],
            ),
            _build_paper_table("c-rome-without-prefix-published", [("unprefixed", "collapse")]),
        ],
    )


def measure_with_prefix(cases: Cases, edits: Edits) -> Experiment:
    """Experiment 4: C-ROME after a prefix, on both kinds of case."""
    efficacy = {
        kind: compute_share(edits, cases, "c-rome", kind, check="efficacy", condition=_CONDITIONS[1])
        for kind in (CaseKind.FIRST, CaseKind.ORDINARY)
    }
    return build_experiment(
        4,
        claims=[
            _judge_efficacy("On collapse cases it does: 100 %, 100 %, 91.27 %.", efficacy[CaseKind.FIRST], high=True),
            _judge_efficacy("On ordinary ones too: 96.16 %, 99.77 %, 91.95 %.", efficacy[CaseKind.ORDINARY], high=True),
        ],
        tables=[
            _build_share_table(
                cases,
                edits,
                "c-rome-with-prefix-shares",
                editors=("c-rome", "rome"),
                kinds=(CaseKind.FIRST, CaseKind.ORDINARY),
                conditions=_CONDITIONS,
            ),
            _build_paper_table("c-rome-with-prefix-published", [("prefixed", "collapse"), ("prefixed", "ordinary")]),
        ],
        notes=[
            "In rome and c-rome v* starts from the value that the subject has in the prompt without a prefix. It is clamped to a "
            "multiple of its norm, which for a first token may be too little for the target."
        ],
    )


def measure_own_editor(cases: Cases, edits: Edits, collapse_ratio: float) -> Experiment:
    """Experiment 5: the same figures for `prefixed`, beside rome."""
    kinds = (CaseKind.FIRST, CaseKind.ORDINARY)
    return build_experiment(
        5,
        tables=[
            _build_share_table(
                cases, edits, "prefixed-shares", editors=("prefixed", "rome"), kinds=kinds, conditions=_CONDITIONS
            ),
            build_perplexity_table(cases, edits, ("prefixed", "rome"), collapse_ratio, "prefixed-perplexity"),
            build_forms_table(cases, edits, ("prefixed",), "prefixed-perplexity-forms"),
            build_size_table(cases, edits, ("prefixed",), "prefixed-update-size"),
        ],
    )


def _judge_efficacy(paper: str, efficacy: TokenShare, *, high: bool) -> Claim:
    if efficacy.mean is None:
        return build_claim(paper, NOTHING_MEASURED, None)
    of = f" of {efficacy.requested}" if efficacy.edits < efficacy.requested else ""
    return build_claim(
        paper,
        f"{efficacy.mean:.1%} of target tokens over {count_noun(efficacy.edits, 'edit')}{of}; "
        f"the whole target in {efficacy.passed} of {count_noun(efficacy.total, 'prompt')}.",
        _is_high_or_low(efficacy.mean * efficacy.edits, efficacy.edits, efficacy.requested, high=high),
        f"{'At least 90 %' if high else 'At most 50 %'} of the tokens, for any share of the edits that were not measured.",
    )


def _is_high_or_low(tokens: float, measured: int, requested: int, *, high: bool) -> bool | None:
    """Whether a mean share is high, or low; None where that depends on the edits that were not measured."""
    if measured < FEW:
        return None
    least, most = tokens / requested, (tokens + requested - measured) / requested
    ends = {share >= 0.9 if high else share <= 0.5 for share in (least, most)}
    return ends.pop() if len(ends) == 1 else None


def _build_share_table(
    cases: Cases,
    edits: Edits,
    name: str,
    *,
    editors: Sequence[str],
    kinds: Sequence[CaseKind],
    conditions: Sequence[str],
) -> Table:
    rows: list[list[str | int | float | bool | None]] = []
    for editor in editors:
        for kind in kinds:
            for condition in conditions:
                for check in ("efficacy", "generalization", "locality"):
                    tokens = compute_share(edits, cases, editor, kind, check=check, condition=condition)
                    if tokens.edits and (check == "efficacy" or condition != "prefixed"):
                        rows.append(
                            [
                                editor,
                                kind.value,
                                _NAMES[condition],
                                check,
                                tokens.edits,
                                tokens.mean,
                                tokens.passed,
                                tokens.total,
                            ]
                        )
    return Table(
        name=name,
        title="Efficacy, generalization, locality",
        columns=["editor", "cases", "condition", "measure", "edits", "share of tokens, mean", "exact", "of"],
        rows=rows,
        note="Exact counts prompts: the whole target given; for locality, the answer of another subject's prompt unchanged.",
    )


def _build_paper_table(name: str, keys: Sequence[tuple[str, str]]) -> Table:
    return Table(
        name=name,
        title="The paper's C-ROME, per cent of tokens",
        columns=["condition", "cases", "model", "efficacy", "generalization", "locality"],
        rows=[
            [*key, model, *shares]
            for key in keys
            for model, shares in zip(published.MODELS, published.SHARES[key], strict=True)
        ],
    )
