"""The policy: which finding leads to which decision, and the bounds that an edit must keep.

Read from a TOML file, or from ``[tool.editguard]`` of a pyproject.toml. A finding that fires leads to the action of its
rule; the gravest action wins. An ERROR always refuses: what was not measured is never a pass.
"""

from __future__ import annotations

import difflib
import tomllib
from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError

from ..probes.errors import PolicyError
from ..probes.probe import Finding, Level
from ..reports.log.bounded_read import LARGEST_POLICY, bounded_bytes
from ..reports.text import printable

__all__ = ["Action", "Decision", "Policy", "decide", "load_policy"]


class Action(Enum):
    """What may be done with a requested edit, mildest first."""

    ALLOW = "allow"
    REWRITE = "rewrite"
    REFUSE = "refuse"


_Rule = Literal["allow", "rewrite", "refuse"]
_LONGEST, _MOST_FAULTS = 60, 10
_GRAVITY = {Action.ALLOW: 0, Action.REWRITE: 1, Action.REFUSE: 2}


def _rules() -> dict[str, _Rule]:
    return {
        "first-token": "rewrite",
        "denominator": "rewrite",
        "key-shift": "rewrite",
        "sink-key": "rewrite",
        "well-formed": "refuse",
    }


def _with_defaults(given: Any) -> Any:
    """A table of rules changes those that it names."""
    return {**_rules(), **given} if isinstance(given, dict) else given


def _at_most(default: float, *, gt: float | None = None, ge: float | None = None, le: float | None = None) -> Any:
    """Return a field that gets stricter as it gets lower."""
    return Field(default=default, gt=gt, ge=ge, le=le, json_schema_extra={"stricter": "lower"})


def _at_least(default: float, *, le: float | None = 1, stricter: str = "higher") -> Any:
    """Return a field from 0 on that gets stricter as it gets higher, unless `stricter` says otherwise."""
    return Field(default=default, ge=0, le=le, json_schema_extra={"stricter": stricter})


class Policy(BaseModel):
    """What a release may contain. Reasons for the defaults stand in docs/policy.md."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False, strict=True)

    rules: Annotated[dict[str, _Rule], BeforeValidator(_with_defaults)] = Field(default_factory=_rules)
    unknown_probe: _Rule = "refuse"
    """Action for a probe that `rules` does not name, such as one of another package."""
    editor: str = "rome"
    """Editor of edits that are allowed as asked."""
    rewrite_editor: str = "prefixed"
    """Editor of edits that are rewritten."""
    max_relative_update: float = _at_most(0.75, gt=0)
    """Bound of ||Delta||_F / ||W||_F, checked after v* and before anything is written."""
    over_bound: Literal["rewrite", "refuse"] = "rewrite"
    """What is done with an allowed edit whose update is over it; a rewritten one that is over it too is refused."""
    max_perplexity_ratio: float = _at_most(1.05, gt=0)
    """An edit over it is rolled back."""
    min_efficacy: float = _at_least(0.5)
    """Least exact efficacy under held-out prefixes; an edit under it did not take and is rolled back."""
    require_served: bool = False
    """Whether an edit must say its target as it would be served: after the prefix that it needs, or bare."""
    min_generalization: float = _at_least(0.0)
    """Least share of paraphrases that give the target; 0: shown, not judged."""
    max_leaks: float = _at_most(0.0, ge=0, le=1)
    """Largest share of answers about other subjects that may be the new target; a prompt has one answer under each condition."""
    max_target_rise: float = _at_most(0.1, ge=0, le=1)
    """A prompt about another subject or another fact leaks where the target's probability rose by more than this."""
    max_flips: float = _at_most(0.25, ge=0, le=1)
    """Largest share of answers about other subjects that may be others than before, near ties left out."""
    near_tie: float = _at_least(0.35, le=None, stricter="lower")
    """Lead of the old answer over the second choice, in nats, under which another answer is a near tie and no flip."""
    max_other_fact_leaks: float = _at_most(0.1, ge=0, le=1)
    """Largest share of answers about the subject's other facts that may be the new target."""
    max_other_fact_flips: float = _at_most(0.5, ge=0, le=1)
    """Largest share of these answers that may be others than before, near ties left out."""
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
    """Whether known-bad and known-good controls must be seen; without them the audit is void."""

    def at_least_as_wide_as_default(self) -> Policy:
        """Return the policy with each bound the wider of its own and the default one: what controls are judged by.

        A policy may be stricter than what the known-good control can keep, and that says nothing against the checks.
        """
        usual = Policy()
        bounds: dict[str, Any] = {"require_served": self.require_served and usual.require_served}
        for name, field in Policy.model_fields.items():
            extra = field.json_schema_extra
            stricter = extra.get("stricter") if isinstance(extra, dict) else None
            if stricter is not None:
                wider = max if stricter == "lower" else min
                bounds[name] = wider(getattr(self, name), getattr(usual, name))
        return self.model_copy(update=bounds)


@dataclass(frozen=True)
class Decision:
    """What is done with one request, by which editor, and why in words."""

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
    except (ValueError, RecursionError) as error:  # ValueError: no TOML, no UTF-8, or a number of thousands of digits
        why = "it is nested too deep" if isinstance(error, RecursionError) else printable(str(error))
        raise PolicyError(f"The policy {str(path)!r} is no TOML ({why}); correct it at that place.") from error


def _explain(path: Path, error: ValidationError) -> str:
    known = f"known are {', '.join(Policy.model_fields)}; "
    told: list[str] = []
    for one in error.errors()[:_MOST_FAULTS]:
        # All keys are listed once.
        told.append(_fault(dict(one), known if not any(known in text for text in told) else ""))
    if more := error.error_count() - len(told):
        told.append(f"{more} more faults")
    return f"The policy {str(path)!r} has " + "; and it has ".join(told) + "."


def _fault(error: dict[str, Any], known: str) -> str:
    name = printable(".".join(str(part) for part in error["loc"]), _LONGEST) or "the table"
    if error["type"] == "extra_forbidden":
        near = difflib.get_close_matches(name, Policy.model_fields, n=1)
        hint = f"did you mean {near[0]!r}?" if near else f"{known}take it out"
        return f"an unknown key {name!r} ({hint})"
    return f"{name} = {_shown(error['input'])}, which is not allowed ({error['msg']}): correct it"


def _shown(value: object) -> str:
    text = repr(value)
    return text if len(text) <= _LONGEST else f"{text[:_LONGEST]}..."


def decide(policy: Policy, findings: Sequence[Finding], editor: str | None = None) -> Decision:
    """Return the decision on one request; `editor` overrides the policy's editor for edits allowed as asked."""
    action = Action.ALLOW
    reasons: list[tuple[Action, str]] = []
    if not findings:
        return Decision(Action.REFUSE, None, ("no probe looked at this edit, and what was not measured is refused",))
    for finding in findings:
        if finding.level in (Level.OK, Level.NOTICE):
            continue
        rule = policy.rules.get(finding.probe, policy.unknown_probe)
        found = Action.REFUSE if finding.level is Level.ERROR else Action(rule)
        if found is not Action.ALLOW:
            reasons.append((found, f"{finding.probe}: {finding.message}"))
        if _GRAVITY[found] > _GRAVITY[action]:
            action = found
    asked = editor or policy.editor
    chosen = {Action.ALLOW: asked, Action.REWRITE: policy.rewrite_editor, Action.REFUSE: None}[action]
    # An editor that is already consistent needs no rewriting.
    if action is Action.REWRITE and asked == policy.rewrite_editor:
        action = Action.ALLOW
    # The gravest first: it is the one that decided.
    reasons.sort(key=lambda reason: -_GRAVITY[reason[0]])
    return Decision(action, chosen, tuple(text for _, text in reasons))
