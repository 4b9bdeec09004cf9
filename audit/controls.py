"""Controls: edits whose end is known, made in every audit to prove that its checks can see a collapse and a sound edit.

Known bad: the unguarded published editor on a first-token subject must collapse the model. Where the tokenizer puts a
BOS before every text no subject is a first token; there an ordinary update is blown up to the size of such a collapse.
Known good: an ordinary edit must pass all checks. A control that does not show what it must voids the audit.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

from ..probes.keys import locate
from ..probes.requests import EditRequest
from ..suites.builtin import builtin_edits
from .editors.exploded import Exploded
from .guard import GuardedEditor, Proposal, Result
from .policy import Policy
from .setup import Setup

__all__ = ["Control", "control_guard", "controls_for", "propose_controls", "run_control"]

_FROM_ABOVE = ("max_perplexity_ratio", "max_relative_update", "max_accumulated_ratio", "max_accumulated_update")
_FROM_BELOW = ("min_efficacy", "min_locality", "min_entropy_ratio")


@dataclass(frozen=True)
class Control:
    """One edit with what it must show: ``collapse`` or ``sound``."""

    request: EditRequest
    editor: str
    expect: Literal["collapse", "sound"]


def controls_for(setup: Setup) -> tuple[Control, ...]:
    """Return a known-bad control and a known-good one, from the built-in suite."""
    edits = builtin_edits()
    first = [edit for edit in edits if edit.group == "single-token-first" and locate(setup.lm, edit).is_first_token]
    # Short prompts, since the controls are made in every audit.
    good, other, *_ = sorted((edit for edit in edits if edit.group == "mid-prompt"), key=lambda edit: len(edit.prompt))
    bad, editor = (first[0], "rome") if first else (other, Exploded.name)
    return Control(_named(bad, "bad"), editor, "collapse"), Control(_named(good, "good"), "rome", "sound")


def control_guard(guard: GuardedEditor) -> GuardedEditor:
    """Return the guard that controls are made under: its bounds are the default ones, or the policy's where those are wider.

    A policy may be stricter than what the known-good control can keep, and that says nothing against the checks.
    """
    given, usual = guard.setup.policy, Policy()
    bounds = {
        **{name: max(getattr(given, name), getattr(usual, name)) for name in _FROM_ABOVE},
        **{name: min(getattr(given, name), getattr(usual, name)) for name in _FROM_BELOW},
    }
    return replace(guard, setup=replace(guard.setup, policy=given.model_copy(update=bounds)))


def propose_controls(guard: GuardedEditor, controls: Sequence[Control]) -> list[Proposal]:
    """Compute the controls' updates together, asking no policy and keeping no bound."""
    return guard.propose([guard.force(one.request, one.editor) for one in controls], bound=float("inf"))


def run_control(guard: GuardedEditor, control: Control, proposal: Proposal) -> tuple[Result, bool]:
    """Make the control's edit, measure, undo it; return the result and whether it showed what it must."""
    result = guard.test(proposal)
    if control.expect == "sound":
        return result, result.sound
    ratios = [m for m in result.measurements if m.check == "perplexity" and m.metric == "ratio"]
    # A ratio that is not a number is a collapse too; that no broken check gave it is seen on the known-good control.
    blown = any(m.value is None or m.value > guard.setup.policy.collapse_ratio for m in ratios)
    return result, blown and not result.sound


def _named(edit: EditRequest, kind: str) -> EditRequest:
    return replace(edit, id=f"control-{kind}-{edit.id}")
