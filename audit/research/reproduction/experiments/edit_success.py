"""Experiments 3 to 5: do the edits take, generalise, and leave other subjects alone?

Shares are means over edits of the share of target tokens that are the greedy choice (the paper's protocol); how many prompts
give the whole target stands beside them.
"""

from __future__ import annotations

from collections.abc import Sequence

from .....reports.reproduction.schema import Claim, Experiment, Table
from .....reports.text import count_noun
from .. import published
from ..cases import FEW, Cases, Kind
from ..edits import Edits
from ..record_figures import NONE, Share, share
from .headings import claim, experiment
from .update_size import forms_table, perplexity_table, size_table

__all__ = ["own_editor", "with_prefix", "without_prefix"]

_CONDITIONS = ("unprefixed", "family:sentence", "prefixed")
"""No prefix; a held-out sentence, which is nearest to the paper's prefixes; held-out prefixes of every family."""


_NAMES = {
    "unprefixed": "no prefix",
    "family:sentence": "a held-out sentence",
    "prefixed": "held-out prefixes of every family",
}


def without_prefix(cases: Cases, edits: Edits) -> Experiment:
    """Experiment 3: C-ROME on collapse cases, bare."""
    shares = [share(edits, cases, "c-rome", Kind.FIRST, "efficacy", condition) for condition in _CONDITIONS[:1]]
    return experiment(
        3,
        claims=[_efficacy_claim("Hardly: efficacy 5.19 %, 30.59 %, 18.65 %.", shares[0], high=False)],
        tables=[
            _shares(cases, edits, ("c-rome",), (Kind.FIRST,), _CONDITIONS[:1], "c-rome-without-prefix-shares"),
            _paper_shares("c-rome-without-prefix-published", [("unprefixed", "collapse")]),
        ],
    )


def with_prefix(cases: Cases, edits: Edits) -> Experiment:
    """Experiment 4: C-ROME behind a prefix, on both kinds of case."""
    found = {
        kind: share(edits, cases, "c-rome", kind, "efficacy", _CONDITIONS[1]) for kind in (Kind.FIRST, Kind.ORDINARY)
    }
    return experiment(
        4,
        claims=[
            _efficacy_claim("On collapse cases it does: 100 %, 100 %, 91.27 %.", found[Kind.FIRST], high=True),
            _efficacy_claim("On ordinary ones too: 96.16 %, 99.77 %, 91.95 %.", found[Kind.ORDINARY], high=True),
        ],
        tables=[
            _shares(cases, edits, ("c-rome", "rome"), (Kind.FIRST, Kind.ORDINARY), _CONDITIONS, "c-rome-with-prefix-shares"),
            _paper_shares("c-rome-with-prefix-published", [("prefixed", "collapse"), ("prefixed", "ordinary")]),
        ],
        notes=["In rome and c-rome v* starts from the value that the subject has in the bare prompt, and is clamped to a "
               "multiple of its norm, which for a first token may be too little for the target."],
    )  # fmt: skip


def own_editor(cases: Cases, edits: Edits, collapse_ratio: float) -> Experiment:
    """Experiment 5: the same figures for `prefixed`, beside rome."""
    kinds = (Kind.FIRST, Kind.ORDINARY)
    return experiment(
        5,
        tables=[
            _shares(cases, edits, ("prefixed", "rome"), kinds, _CONDITIONS, "prefixed-shares"),
            perplexity_table(cases, edits, ("prefixed", "rome"), collapse_ratio, "prefixed-perplexity"),
            forms_table(cases, edits, ("prefixed",), "prefixed-perplexity-forms"),
            size_table(cases, edits, ("prefixed",), "prefixed-update-size"),
        ],
    )  # fmt: skip


def _efficacy_claim(paper: str, found: Share, *, high: bool) -> Claim:
    if found.mean is None:
        return claim(paper, NONE, None)
    of = f" of {found.asked}" if found.edits < found.asked else ""
    return claim(
        paper,
        f"{found.mean:.1%} of target tokens over {count_noun(found.edits, 'edit')}{of}; the whole target in {found.passed} of "
        f"{count_noun(found.total, 'prompt')}.",
        _agrees(found.mean * found.edits, found.edits, found.asked, high=high),
        f"{'At least 90 %' if high else 'At most 50 %'} of the tokens, whatever edits that were not measured would have given.",
    )


def _agrees(tokens: float, measured: int, asked: int, *, high: bool) -> bool | None:
    """Whether a mean share is high, or low; None where that hangs on the edits that were not measured."""
    if measured < FEW:
        return None
    least, most = tokens / asked, (tokens + asked - measured) / asked
    ends = {share >= 0.9 if high else share <= 0.5 for share in (least, most)}
    return ends.pop() if len(ends) == 1 else None


def _shares(
    cases: Cases, edits: Edits, editors: Sequence[str], kinds: Sequence[Kind], conditions: Sequence[str], name: str
) -> Table:
    rows: list[list[str | int | float | bool | None]] = []
    for editor in editors:
        for kind in kinds:
            for condition in conditions:
                for check in ("efficacy", "generalization", "locality"):
                    found = share(edits, cases, editor, kind, check, condition)
                    if found.edits and (check == "efficacy" or condition != "prefixed"):
                        rows.append(
                            [
                                editor,
                                kind.value,
                                _NAMES[condition],
                                check,
                                found.edits,
                                found.mean,
                                found.passed,
                                found.total,
                            ]
                        )
    return Table(
        name=name,
        title="Efficacy, generalization, locality",
        columns=["editor", "cases", "condition", "measure", "edits", "share of tokens, mean", "exact", "of"],
        rows=rows,
        note="Exact counts prompts: the whole target given; for locality, the answer of another subject's prompt unchanged.",
    )


def _paper_shares(name: str, keys: Sequence[tuple[str, str]]) -> Table:
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
