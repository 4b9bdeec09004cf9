"""Write docs/probes.md and docs/checks.md from the cards of the registered probes and checks.

    python docs/generate.py

A test compares the files with what this script would write, so that they never fall behind the registries. Only
editguard's own classes are described: an installed plugin has its own documentation.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import fields
from pathlib import Path
from typing import NamedTuple

from editguard.audit.policy import Policy
from editguard.probes.card import Card
from editguard.probes.probe import PROBES
from editguard.suites.check import CHECKS

__all__ = ["FOLDER", "PAGES", "main"]

FOLDER = Path(__file__).resolve().parent

_TITLES = {
    "question": "Question",
    "source": "Source",
    "needs": "Needs",
    "unit": "Unit",
    "range": "Range",
    "threshold": "Threshold",
    "action": "What to do about it",
}

_PROBES = """# Probes

Each probe asks one question about one requested edit, before anything is changed, and answers with a finding: `ok`, `notice`,
`risk` or `error`. What follows from a finding is for the [policy](policy.md) to say; an `error` always refuses, since what
was not measured is never a pass.

A calibrated threshold is set on the model at hand, from 64 ordinary subjects that ship with editguard, none of them the first
token of its prompt. The rule, the sample's size and its quantiles are in the log's header.

In every audit each of them must fire at what is known to be bad and be silent at what is known to be good, or the audit is void:
see [what the controls prove](guide-audit.md#what-the-controls-prove). A probe of another package brings its own known bad in
`known_bad`; without it the audit says *not controlled*.
"""

_CHECKS = """# Checks

Each check asks one question about the model with one edit in it, against the same model without. A measurement has one of
four verdicts: `pass`, `fail`, `unmeasured` (NaN, or it could not be taken; never a pass) or `info` (shown, not judged). Bounds
come from the [policy](policy.md). An edit is sound when at least one measurement was judged and all that were judged passed.

Efficacy and generalization are given under three protocols, never mixed: `exact` (every token of the target is the greedy
choice; the one that is judged), `token-match` (share of the target's tokens that are, under teacher forcing) and `probability`
(the new target is likelier than the true one). The figure without a prefix comes first.

Efficacy has a condition `served` beside `unprefixed` and `prefixed`: the edit's own prompt as its users' texts reach the
model, through the code of `editguard.audit.serving` ([guide](guide-delta.md#serve)). An edit that needs a prefix is served
behind the first of a newline, two newlines, "However, " and "Here is a fact. " behind which the edited model writes the whole
target; one that needs none is served bare, and so is a prompt in which something stands before the subject. It is `info`, so
that no verdict changed with it, unless the policy has `require_served`; `export` requires it always, and takes the prefix
from this measurement.

In every audit each check that judges must fail what is known to be bad and pass what is known to be good, or the audit is void:
see [what the controls prove](guide-audit.md#what-the-controls-prove). A check of another package brings its own known bad in
`known_bad`; without it, and where the control's edit does not make it fail, the audit says *not controlled*.
"""

_TAIL = "\n_Written by `docs/generate.py` from the cards in the source; change those._\n"


class _Entry(NamedTuple):
    name: str
    home: str
    card: Card
    action: str = ""


def _entry(entry: _Entry) -> str:
    rows = "\n".join(f"| {_TITLES[field.name]} | {_cell(getattr(entry.card, field.name))} |" for field in fields(Card))
    action = f"| Default action of the policy | {entry.action} |\n" if entry.action else ""
    return f"\n## {entry.name}\n\n`{entry.home}`\n\n| | |\n|---|---|\n{rows}\n{action}"


def _cell(text: str) -> str:
    return text.replace("|", "\\|")


def _page(head: str, entries: Iterable[_Entry]) -> str:
    return head + "".join(_entry(entry) for entry in entries) + _TAIL


def _probes() -> str:
    rules = Policy().rules
    return _page(
        _PROBES,
        (_Entry(name, _home(cls), cls.card, f"`{rules[name]}`") for name, cls in PROBES if _ours(cls)),
    )


def _checks() -> str:
    return _page(_CHECKS, (_Entry(name, _home(cls), cls.card) for name, cls in CHECKS if _ours(cls)))


def _ours(cls: type[object]) -> bool:
    return cls.__module__.startswith("editguard.")


def _home(cls: type[object]) -> str:
    return f"{cls.__module__}.{cls.__qualname__}"


PAGES = {"probes.md": _probes, "checks.md": _checks}
"""File name to the function that returns its text."""


def main() -> None:
    """Write all pages beside this script."""
    for name, text in PAGES.items():
        (FOLDER / name).write_text(text(), encoding="utf-8")


if __name__ == "__main__":
    main()
