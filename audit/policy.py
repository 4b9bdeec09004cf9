"""The policy: which finding leads to which decision, and the bounds that an edit must keep.

Read from a TOML file, or from ``[tool.editguard]`` of a pyproject.toml. A finding that fires leads to the action of its
rule; the gravest action wins. An ERROR always refuses: what was not measured is never a pass.
"""

from __future__ import annotations

import tomllib
from dataclasses import dataclass
from enum import Enum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError

from ..probes.errors import PolicyError
from ..probes.probe import Finding, Level
from ..probes.wording import suggest
from ..reports.log.bounded_read import LARGEST_POLICY, bounded_bytes
from ..reports.text import printable

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = ["Action", "Decision", "Policy", "decide", "load_policy"]


class Action(Enum):
    """The actions that the guard may take on a requested edit, mildest first."""

    ALLOW = "allow"
    REWRITE = "rewrite"
    REFUSE = "refuse"


_Rule = Literal["allow", "rewrite", "refuse"]
_LONGEST_VALUE, _MOST_FAULTS = 60, 10
_GRAVITY = {Action.ALLOW: 0, Action.REWRITE: 1, Action.REFUSE: 2}


def _rules() -> dict[str, _Rule]:
    return {
        "first-token": "rewrite",
        "denominator": "rewrite",
        "key-shift": "rewrite",
        "sink-key": "rewrite",
        "crowded-key": "allow",
        "well-formed": "refuse",
    }


def _with_defaults(given: Any) -> Any:
    """Return the default rules with those of the table `given` in their place."""
    return {**_rules(), **given} if isinstance(given, dict) else given


def _at_most(default: float, *, gt: float | None = None, ge: float | None = None, le: float | None = None) -> Any:
    """Return a field that gets stricter as it gets lower."""
    return Field(default=default, gt=gt, ge=ge, le=le, json_schema_extra={"stricter": "lower"})


def _at_least(default: float, *, le: float | None = 1, stricter: str = "higher") -> Any:
    """Return a field from 0 on that gets stricter as it gets higher, unless `stricter` says otherwise."""
    return Field(default=default, ge=0, le=le, json_schema_extra={"stricter": stricter})


class Policy(BaseModel):
    """The edits that a release may contain; docs/reference/policy.md gives the reasons for the defaults."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False, strict=True)

    rules: Annotated[dict[str, _Rule], BeforeValidator(_with_defaults)] = Field(default_factory=_rules)
    unknown_probe: _Rule = "refuse"
    """Action for a probe that `rules` does not name, such as one of another package."""
    editor: str = "local"
    """Editor of edits that are allowed as requested."""
    rewrite_editor: str = "everywhere"
    """Editor of edits that are rewritten."""
    tries: int = Field(default=2, ge=1, le=2)
    """Tries of one edit: one that fails its checks is made again by the editor that its own names for that."""
    max_relative_update: float = _at_most(0.75, gt=0)
    """Bound of ||Delta||_F / ||W||_F, checked after v* and before anything is written."""
    over_bound: Literal["rewrite", "refuse"] = "rewrite"
    """The action on an allowed edit whose update is over that bound; a rewritten edit that is over it too is refused."""
    max_perplexity_ratio: float = _at_most(1.05, gt=0)
    """An edit over it is rolled back."""
    min_efficacy: float = _at_least(0.5)
    """Least exact efficacy under held-out prefixes; an edit under it did not take and is rolled back."""
    require_served: bool = False
    """Whether the model must say an edit's target as it would be served: after the prefix that the edit needs, or without one."""
    min_generalization: float = _at_least(0.0)
    """Least share of paraphrases that give the target; 0: shown, not judged."""
    max_leaks: float = _at_most(0.0, ge=0, le=1)
    """Largest share of answers about other subjects that may be the new target; a prompt has one answer under each condition."""
    max_target_rise: float = _at_most(0.1, ge=0, le=1)
    """A prompt about another subject or another fact leaks where the target's probability rose by more than this."""
    max_flips: float = _at_most(0.25, ge=0, le=1)
    """Largest share of answers about other subjects that may change, near ties left out."""
    near_tie: float = _at_least(0.35, le=None, stricter="lower")
    """Lead of the old answer over the second choice, in nats, below which a changed answer is a near tie and not a flip."""
    max_first_word_leaks: float = _at_most(0.02, ge=0, le=1)
    """Largest share of other words in a first-token subject's place that may say the new target."""
    max_other_fact_leaks: float = _at_most(0.1, ge=0, le=1)
    """Largest share of answers about the subject's other facts that may be the new target."""
    max_other_fact_flips: float = _at_most(0.5, ge=0, le=1)
    """Largest share of these answers that may change, near ties left out."""
    max_side_effects: float = _at_most(0.1, ge=0, le=1)
    """Largest share of an edited checkpoint's answers about subjects that nobody edited that may change, near ties left out."""
    max_task_loss: float = _at_most(0.1, ge=0, le=1)
    """Largest share of a task's items that an edited checkpoint may have lost, as far as the items can tell."""
    max_repeats: float = _at_most(0.7, ge=0, le=1)
    """Largest share of an edit's statements that may repeat themselves after the target, where they did not before."""
    min_locality: float = _at_least(0.5)
    """Least share of unchanged tokens on neighbourhood prompts, after a prefix too where the edit needs one."""
    min_neighbour_answers: float = _at_least(0.0)
    """Least share of neighbourhood prompts that are answered as before; 0: shown, not judged."""
    min_entropy_ratio: float = _at_least(0.5, le=None)
    """Least ratio of word entropy of generated text to that of the unedited model."""
    max_accumulated_ratio: float = _at_most(1.1, gt=0)
    """Perplexity ratio of a sequence of kept edits to the model before the first; one that leads over it is rolled back."""
    max_accumulated_update: float = _at_most(1.5, gt=0)
    """Bound of ||W - W_0||_F / ||W_0||_F of such a sequence."""
    min_retained: float = _at_least(0.9)
    """Least share of such a sequence's edits that the model must still say at the end."""
    collapse_ratio: float = Field(default=1.5, gt=1)
    """Perplexity ratio from which a model is called collapsed."""
    allow_refused: bool = False
    """Whether the gate stays open when an edit was refused."""
    controls: bool = True
    """Whether the known-bad and known-good controls are made; without them a pass says that nothing proves the checks."""

    def at_least_as_wide_as_default(self) -> Policy:
        """Return the policy with each bound the wider of its own and the default one; the controls are judged by it.

        A policy may be too strict for the known-good control, and that says nothing against the checks.
        """
        default = Policy()
        # The wider of true and false is false: a known-good control need not be served.
        bounds: dict[str, Any] = {"require_served": False}
        for name, field in Policy.model_fields.items():
            extra = field.json_schema_extra
            stricter = extra.get("stricter") if isinstance(extra, dict) else None
            if stricter is not None:
                wider = max if stricter == "lower" else min
                bounds[name] = wider(getattr(self, name), getattr(default, name))
        return self.model_copy(update=bounds)


@dataclass(frozen=True)
class Decision:
    """The action on one request, the editor that makes the edit, and the reasons in words."""

    action: Action
    editor: str | None
    reasons: tuple[str, ...]


def load_policy(path: Path | None, root: Path | None = None) -> Policy:
    """Read a policy; None means ``[tool.editguard]`` of ./pyproject.toml where there is one, else the defaults.

    With `root` it is that folder's pyproject.toml.

    Raises `PolicyError`.
    """
    if path is None:
        project = (root or Path()) / "pyproject.toml"
        return load_policy(project) if project.is_file() and "editguard" in _tools(project) else Policy()
    table = _tools(path).get("editguard") if path.name == "pyproject.toml" else _toml(path)
    if table is None:
        raise PolicyError(
            f"The file {str(path)!r} has no table [tool.editguard], so it holds no policy; add one, or leave --policy out."
        )
    try:
        return Policy.model_validate(table)
    except ValidationError as error:
        raise PolicyError(_explain(path, error)) from error


def _tools(path: Path) -> dict[str, Any]:
    tools = _toml(path).get("tool", {})
    return tools if isinstance(tools, dict) else {}


def _toml(path: Path) -> dict[str, Any]:
    try:
        return tomllib.loads(bounded_bytes(path, LARGEST_POLICY).decode())
    except OSError as error:
        raise PolicyError(
            f"The policy {str(path)!r} cannot be read ({error.strerror}); name a TOML file, or leave --policy out."
        ) from error
    except (ValueError, RecursionError) as error:  # ValueError: not TOML, not UTF-8, or a number of thousands of digits
        why = "it is nested too deep" if isinstance(error, RecursionError) else printable(str(error))
        raise PolicyError(f"The policy {str(path)!r} is not TOML ({why}); correct it at that place.") from error


def _explain(path: Path, error: ValidationError) -> str:
    all_keys = f"the keys are {', '.join(Policy.model_fields)}; "
    faults: list[str] = []
    for details in error.errors()[:_MOST_FAULTS]:
        # The list of all keys stands in the first fault only.
        faults.append(_fault(dict(details), "" if any(all_keys in fault for fault in faults) else all_keys))
    if more := error.error_count() - len(faults):
        faults.append(f"{more} more faults")
    return f"The policy {str(path)!r} has " + "; and it has ".join(faults) + "."


def _fault(details: dict[str, Any], all_keys: str) -> str:
    name = printable(".".join(str(part) for part in details["loc"]), _LONGEST_VALUE) or "the table"
    if details["type"] == "extra_forbidden":
        suggestion = suggest(name, Policy.model_fields)
        hint = f"{all_keys}take it out" if suggestion is None else f"did you mean {suggestion!r}?"
        return f"an unknown key {name!r} ({hint})"
    return f"{name} = {_shorten(details['input'])}, which is not allowed ({details['msg']}): correct it"


def _shorten(value: object) -> str:
    text = repr(value)
    return text if len(text) <= _LONGEST_VALUE else f"{text[:_LONGEST_VALUE]}..."


def decide(policy: Policy, findings: Sequence[Finding], editor: str | None = None) -> Decision:
    """Return the decision on one request; `editor` replaces the policy's editor for edits allowed as requested."""
    action = Action.ALLOW
    reasons: list[tuple[Action, str]] = []
    if not findings:
        return Decision(Action.REFUSE, None, ("no probe looked at this edit, and what was not measured is refused",))
    for finding in findings:
        if finding.level in (Level.OK, Level.NOTICE):
            continue
        rule = policy.rules.get(finding.probe, policy.unknown_probe)
        consequence = Action.REFUSE if finding.level is Level.ERROR else Action(rule)
        if consequence is not Action.ALLOW:
            reasons.append((consequence, f"{finding.probe}: {finding.message}"))
        if _GRAVITY[consequence] > _GRAVITY[action]:
            action = consequence
    requested_editor = editor or policy.editor
    chosen_editor = {Action.ALLOW: requested_editor, Action.REWRITE: policy.rewrite_editor, Action.REFUSE: None}[action]
    # The rewriter's own edit needs no rewriting.
    if action is Action.REWRITE and requested_editor == policy.rewrite_editor:
        action = Action.ALLOW
    # The gravest reason decided, so it comes first.
    reasons.sort(key=lambda reason: -_GRAVITY[reason[0]])
    return Decision(action, chosen_editor, tuple(text for _, text in reasons))
