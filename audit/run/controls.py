"""Controls: edits whose result is known, made in every audit to prove that its checks tell a collapse from a sound edit.

Known bad: the unguarded published editor on a first-token subject must collapse the model. Where the tokenizer puts a
BOS before every text no subject is a first token; there an ordinary update is scaled to the size of such a collapse.
Known good: an ordinary edit must pass all checks, with its neighbours and its subject's other facts. Several candidates
are made in turn on the model at hand, and the first sound one is the control. A control that does not show the expected
result, or a model on which no candidate is sound, voids the audit.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Literal, NamedTuple

from ...probes.keys.subject_keys import locate
from ...suites.builtin import load_builtin_edits, load_control_candidates
from ..editors.builtin.exploded import Exploded

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from ...probes.requests.request import EditRequest
    from ..edit_result import EditResult, Proposal
    from ..guard import GuardedEditor
    from ..setup import Setup

__all__ = [
    "Candidate",
    "Control",
    "control_guard",
    "controls_for",
    "propose_controls",
    "iter_candidate_rounds",
    "run_control",
]

_EDITORS = ("local", "prefixed")
"""Editors of the known-good candidates, in the order in which they are tried."""
_CANDIDATES_PER_BATCH = 4
"""Candidates whose updates are computed together where the first one is not sound."""


class Candidate(NamedTuple):
    """One edit that may serve as a control, and who makes it."""

    request: EditRequest
    editor: str


@dataclass(frozen=True)
class Control:
    """The expected result, ``collapse`` or ``sound``, and the edits that may show it, tried in order."""

    id: str
    candidates: tuple[Candidate, ...]
    expect: Literal["collapse", "sound"]


def controls_for(setup: Setup) -> tuple[Control, ...]:
    """Return a known-bad control and a known-good one, from the built-in suite; each candidate has its control's id."""
    edits = load_builtin_edits()
    first = [edit for edit in edits if edit.group == "single-token-first" and locate(setup.lm, edit).is_first_token]
    good = load_control_candidates()
    bad, editor = (first[0], "rome") if first else (good[0], Exploded.name)
    sound = tuple(Candidate(_with_id(edit, "control-good"), name) for name in _EDITORS for edit in good)
    name = f"control-bad-{bad.id}"
    return (
        Control(name, (Candidate(_with_id(bad, name), editor),), "collapse"),
        Control("control-good", sound, "sound"),
    )


def control_guard(guard: GuardedEditor) -> GuardedEditor:
    """Return the guard that makes the controls; each of its bounds is the wider of the default and the policy's."""
    setup = guard.setup
    return replace(guard, setup=replace(setup, policy=setup.policy.at_least_as_wide_as_default()))


def propose_controls(guard: GuardedEditor, candidates: Sequence[Candidate]) -> list[Proposal]:
    """Compute the candidates' updates together, without policy and bound."""
    return guard.propose_unguarded([(candidate.request, candidate.editor) for candidate in candidates])


def iter_candidate_rounds(controls: Sequence[Control]) -> Iterator[list[tuple[Control, Candidate]]]:
    """Yield the candidates that are computed together: the first of each control, then the others in small batches."""
    yield [(control, control.candidates[0]) for control in controls]
    for control in controls:
        for start in range(1, len(control.candidates), _CANDIDATES_PER_BATCH):
            yield [(control, candidate) for candidate in control.candidates[start : start + _CANDIDATES_PER_BATCH]]


def run_control(guard: GuardedEditor, control: Control, proposal: Proposal) -> tuple[EditResult, bool]:
    """Make the control's edit, measure and undo it; return the result and whether it is the expected one."""
    result = guard.try_proposal(proposal)
    if control.expect == "sound":
        return result, result.sound
    ratios = [m for m in result.measurements if m.check == "perplexity" and m.metric == "ratio"]
    # A ratio that is not a number is a collapse too; that no broken check gave it is seen on the known-good control.
    collapsed = any(m.value is None or m.value > guard.setup.policy.collapse_ratio for m in ratios)
    return result, collapsed and not result.sound


def _with_id(edit: EditRequest, control_id: str) -> EditRequest:
    return replace(edit, id=control_id)
