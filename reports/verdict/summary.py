"""`Summary`: the one verdict object of an audit, the content of ``summary.json``.

Terminal, HTML and exit code print this object; `digest.summarise` computes it, once. Rates stand beside their
counts in `counts`; a rate is passed over total, null where nothing was measured.
"""

from __future__ import annotations

from typing import Literal

from pydantic import Field, model_validator

from ..log.types import Count, Model, Rate
from .edit_sequence import SequenceTally

__all__ = ["MOST_EXPLAINED", "ControlTally", "ExplainedEdit", "Summary"]

MOST_EXPLAINED = 200
"""Edits that `Summary.edits_explained` holds at most; the log and the report have all."""
_NONE = Rate(passed=0, failed=0, not_judged=0, total=0)


class ControlTally(Model):
    """How many controls were recorded, and how many of them showed what was expected."""

    total: Count
    ok: Count


class ExplainedEdit(Model):
    """Why one edit ended as it did, and what to do: a sentence each; `advice` is empty for an edit that passed.

    `leak` is its worst leak to another subject in words, also where something graver is explained; empty without one.
    """

    id: str
    result: Literal["passed", "failed", "refused"]
    why: str
    advice: str = ""
    leak: str = ""


class Summary(Model):
    """The verdict over a log, with the figures that it rests on.

    `edits` = `allowed` + `rewritten` + `refused`. `failed` counts edits that errored, failed a check, collapsed the
    model, were not measured or not restored; `collapsed` are those of them over `collapse_ratio`, or with a perplexity
    that is not finite. Ratios are perplexities of the edited over the unedited model, where they are finite. `protocol`
    is the one that efficacy and generalization are judged by. `judged` says for each of `counts` in how many edits the
    policy judges it; where that is 0 the counts are shown and decide nothing. `not_controlled` names the probes and
    checks of which the controls show only one side, or neither, and says why.

    `may_ship` names the edits that passed and may ship: all of a pass, and of a fail those that were judged alone in a
    whole audit. `leaks` and `flips` count prompts about other subjects, `other_fact_leaks` and
    `other_fact_flips` prompts about other facts of
    the edited subject; passed are the prompts without. `edits_explained` holds the first `MOST_EXPLAINED` edits that
    failed, were refused, leak or were rewritten, failed ones first, and `edits_explained_left_out` counts the rest.
    """

    schema_version: Literal[1] = 1
    status: Literal["finished", "unfinished"]
    verdict: Literal["pass", "fail", "void"]
    exit_code: Literal[0, 1]
    reasons: list[str]
    model: str
    model_fingerprint: str
    layer: int
    edits: Count
    allowed: Count
    rewritten: Count
    refused: Count
    failed: Count
    collapsed: Count
    skipped_invalid: Count
    needs_prefix: Count
    baseline_perplexity: float | None
    perplexity_not_finite: Count = 0
    worst_perplexity_ratio: float | None
    median_perplexity_ratio: float | None
    collapse_ratio: float
    protocol: str
    efficacy_unprefixed: float | None
    efficacy_prefixed: float | None
    efficacy_served: float | None = None
    efficacy_by_family: dict[str, Rate]
    generalization: float | None
    locality: float | None
    counts: dict[str, Rate]
    judged: dict[str, Count]
    controls: ControlTally
    controls_ok: bool
    not_controlled: list[str] = Field(default_factory=list)
    may_ship: list[str] = Field(default_factory=list)
    edited: str | None = None
    """The checkpoint that holds the edits. Null where the audit made them itself."""
    edited_fingerprint: str | None = None
    change: str | None = None
    """The kind of its change, as one sentence."""
    side_effects: Rate = _NONE
    """Answers of that checkpoint about subjects that nobody edited; failed are those that changed, near ties left out."""
    leaks: Rate = _NONE
    flips: Rate = _NONE
    other_fact_leaks: Rate = _NONE
    other_fact_flips: Rate = _NONE
    judged_by_made_neighbours: Count = 0
    edits_explained: list[ExplainedEdit] = Field(default_factory=list)
    edits_explained_left_out: Count = 0
    sequence: SequenceTally | None = None
    """Null where each edit was made alone."""

    @property
    def answers_judged_by(self) -> str:
        """How the policy judges the answers of neighbours, in words that a note about changed ones ends with."""
        if any(self.judged.get(f"neighbour_answers_{how}") for how in ("unprefixed", "prefixed")):
            return "the policy judges their share (min_neighbour_answers)"
        if self.leaks.total:
            return "the policy judges the leaks and the flips among them, not near ties"
        return "the policy judges the share of all their tokens, not these alone"

    @model_validator(mode="after")
    def _coherent(self) -> Summary:
        if (self.verdict == "pass") != (self.exit_code == 0):
            raise ValueError(f"verdict {self.verdict!r} has exit code {self.exit_code}, but only a pass exits with 0")
        return self
