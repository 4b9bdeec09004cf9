"""Controls: edits whose end is known, made in every audit to prove that its checks can see a collapse and a sound edit.

Known bad: the unguarded published editor on a first-token subject must collapse the model. Where the tokenizer puts a
BOS before every text no subject is a first token; there an ordinary update is blown up to the size of such a collapse.
Known good: an ordinary edit must pass all checks, with its neighbours and its subject's other facts. Which edit does on
the model at hand is found out by making several candidates in turn; the first sound one is the control. A control that
does not show what it must, or a model on which no candidate is sound, voids the audit.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Literal, NamedTuple

from ...probes.keys.subject_keys import locate
from ...probes.requests.request import EditRequest
from ...suites.builtin import builtin_edits, control_candidates
from ..editors.builtin.exploded import Exploded
from ..guard import EditResult, GuardedEditor, Proposal
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

_EDITORS = ("rome", "prefixed")
"""Editors of the known-good candidates, in the order in which they are tried."""
_AT_ONCE = 4
"""Candidates whose updates are computed together where the first one is not sound."""


class Candidate(NamedTuple):
    """One edit that may serve as a control, and who makes it."""

    request: EditRequest
    editor: str


@dataclass(frozen=True)
class Control:
    """What must be shown, ``collapse`` or ``sound``, and the edits that may show it, tried in order."""

    id: str
    candidates: tuple[Candidate, ...]
    expect: Literal["collapse", "sound"]


def controls_for(setup: Setup) -> tuple[Control, ...]:
    """Return a known-bad control and a known-good one, from the built-in suite; all candidates bear their control's id."""
    edits = builtin_edits()
    first = [edit for edit in edits if edit.group == "single-token-first" and locate(setup.lm, edit).is_first_token]
    good = control_candidates()
    bad, editor = (first[0], "rome") if first else (good[0], Exploded.name)
    sound = tuple(Candidate(_named(edit, "control-good"), name) for name in _EDITORS for edit in good)
    name = f"control-bad-{bad.id}"
    return (
        Control(name, (Candidate(_named(bad, name), editor),), "collapse"),
        Control("control-good", sound, "sound"),
    )


def control_guard(guard: GuardedEditor) -> GuardedEditor:
    """Return the guard that controls are made under: its bounds are the default ones, or the policy's where those are wider."""
    setup = guard.setup
    return replace(guard, setup=replace(setup, policy=setup.policy.at_least_as_wide_as_default()))


def propose_controls(guard: GuardedEditor, candidates: Sequence[Candidate]) -> list[Proposal]:
    """Compute the candidates' updates together, asking no policy and keeping no bound."""
    return guard.propose([guard.force(one.request, one.editor) for one in candidates], bound=float("inf"))


def iter_candidate_rounds(controls: Sequence[Control]) -> Iterator[list[tuple[Control, Candidate]]]:
    """Yield the candidates that are computed together: the first of each control, and then some of the others at a time."""
    yield [(control, control.candidates[0]) for control in controls]
    for control in controls:
        for start in range(1, len(control.candidates), _AT_ONCE):
            yield [(control, one) for one in control.candidates[start : start + _AT_ONCE]]


def run_control(guard: GuardedEditor, control: Control, proposal: Proposal) -> tuple[EditResult, bool]:
    """Make the control's edit, measure, undo it; return the result and whether it showed what it must."""
    result = guard.test(proposal)
    if control.expect == "sound":
        return result, result.sound
    ratios = [m for m in result.measurements if m.check == "perplexity" and m.metric == "ratio"]
    # A ratio that is not a number is a collapse too; that no broken check gave it is seen on the known-good control.
    blown = any(m.value is None or m.value > guard.setup.policy.collapse_ratio for m in ratios)
    return result, blown and not result.sound


def _named(edit: EditRequest, name: str) -> EditRequest:
    return replace(edit, id=name)
