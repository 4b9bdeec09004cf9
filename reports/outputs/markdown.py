"""A log as Markdown: the summary of a job in continuous integration, verdict first.

A pure function of the log. Its size is bounded, since GitHub shows at most 1 MiB: a table shows its first `MOST_ROWS` edits
and says how many more there are, and a text is cut where it is long.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from ..gate.comparison_rows import describe_gate, describe_lapsed_override, describe_override
from ..log.schema import ControlRecord, Header
from ..markdown_escaping import escaped, grid
from ..numbers import format_percent, format_ratio
from ..text import count_noun, shorten
from ..verdict.digest import Digest, digest
from ..verdict.edit_sequence import describe_sequence
from ..verdict.edit_summary import EditDecision, EditSummary, EditVerdict
from ..verdict.explanation import explain
from ..verdict.reasons import control_fault, not_controlled

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from ..gate.result import Gate, Override
    from ..log.file import Log
    from ..log.types import Rate
    from ..verdict.summary import Summary

__all__ = ["MOST_ROWS", "render_markdown"]

MOST_ROWS = 25
"""A table shows so many rows; the report shows the others."""
_MOST = 300
"""Characters of one text."""
_MOST_OF_GATE = 2000
"""Characters of one sentence about the gate, which names edits."""
_MARKS = {"pass": "✅ pass", "fail": "❌ fail", "void": "⚠️ void"}
_GATES = {"open": "✅ gate open", "closed": "❌ gate closed", "override": "⚠️ gate open by override"}


def render_markdown(log: Log, gate: Gate | None = None, overrides: Sequence[Override] = ()) -> str:
    """Return the summary of `log`; no text of a model, a file or a user is read as Markdown, HTML, link or mention.

    With `gate` its verdict comes first; without, the recorded `overrides` for this log.
    """
    return "\n".join(_lines(digest(log), gate, overrides)) + "\n"


def _lines(audit: Digest, gate: Gate | None, overrides: Sequence[Override]) -> Iterator[str]:
    summary = audit.summary
    standing = gate.standing if gate is not None else "override" if overrides else None
    itself = _MARKS[summary.verdict]
    yield f"## editguard: {itself if standing is None else f'{_GATES[standing]}; the audit itself: {itself}'}"
    yield ""
    yield from (f"- {escaped(shorten(sentence, _MOST_OF_GATE))}" for sentence in _gate_sentences(gate, overrides))
    yield from (f"- {_text(reason)}" for reason in summary.reasons[:MOST_ROWS])
    yield ""
    yield from grid(
        ["edits", "allowed", "rewritten", "refused", "failed", "collapsed", "need a prefix", "worst perplexity ratio"],
        [
            [
                *map(
                    str,
                    (
                        summary.edits,
                        summary.allowed,
                        summary.rewritten,
                        summary.refused,
                        summary.failed,
                        summary.collapsed,
                        summary.needs_prefix,
                    ),
                ),
                format_ratio(summary.worst_perplexity_ratio),
            ]
        ],
    )
    if summary.sequence is not None:
        yield ""
        yield f"In sequence: {describe_sequence(summary.sequence, summary.edits)}."
    if summary.skipped_invalid:
        yield ""
        yield f"{count_noun(summary.skipped_invalid, 'wrong record was', 'wrong records were')} left out."
    yield from _leaks(summary)
    yield from _edits(audit.edits, audit.header)
    yield from _rates(summary.counts, summary.efficacy_by_family)
    yield from _controls(audit.controls)
    yield from _provenance(audit)


def _gate_sentences(gate: Gate | None, overrides: Sequence[Override]) -> Iterator[str]:
    if gate is None:
        yield from map(describe_override, overrides[-MOST_ROWS:])
        return
    yield describe_gate(gate)
    yield from (f"{ground.key}: {ground.message}" for ground in gate.closings)
    yield from (f"accepted: {message}" for message in gate.accepted)
    yield from map(describe_lapsed_override, gate.lapsed[:MOST_ROWS])


def _edits(edits: Sequence[EditSummary], header: Header) -> Iterator[str]:
    failed = [edit for edit in edits if edit.result is EditVerdict.FAILED]
    refused = [edit for edit in edits if edit.result is EditVerdict.REFUSED]
    rewritten = [
        edit for edit in edits if edit.result is EditVerdict.PASSED and edit.decision is EditDecision.REWRITTEN
    ]
    yield from _table("Failed", failed, header)
    yield from _table("Refused", refused, header)
    yield from _table("Rewritten", rewritten, header)


def _leaks(summary: Summary) -> Iterator[str]:
    rates = [("about other subjects", summary.leaks), ("about other facts of the subjects", summary.other_fact_leaks)]
    for topic, rate in rates:
        if rate.total:
            yield ""
            yield f"{rate.failed} of {count_noun(rate.total, 'prompt')} {topic} {'leaks' if rate.failed == 1 else 'leak'}."


def _table(title: str, edits: Sequence[EditSummary], header: Header) -> Iterator[str]:
    if not edits:
        return
    yield ""
    yield f"### {title}: {len(edits)}"
    yield ""
    explained = [(edit, explain(edit, header)) for edit in edits[:MOST_ROWS]]
    advised = any(explanation is not None and explanation.advice for _, explanation in explained)
    yield from grid(
        ["edit", "subject", "new target", "perplexity ratio", "why", *(["what to do"] if advised else [])],
        [
            [
                _text(edit.record.id),
                _text(edit.record.subject),
                _text(edit.record.target_new),
                format_ratio(edit.ratio),
                _text(explanation.why if explanation else ""),
                *([_text(explanation.advice if explanation else "")] if advised else []),
            ]
            for edit, explanation in explained
        ],
    )
    yield from _rest(len(edits), "edit")


def _rates(counts: dict[str, Rate], families: dict[str, Rate]) -> Iterator[str]:
    named = {name.replace("_", " "): rate for name, rate in counts.items() if name.endswith(("prefixed", "served"))}
    rows = {**named, **{f"efficacy after the prefix {name}": rate for name, rate in families.items()}}
    measured = [(name, rate) for name, rate in rows.items() if rate.total]
    if not measured:
        return
    yield ""
    yield "### Rates"
    yield ""
    yield from grid(
        ["what", "passed", "failed", "not judged", "total", "rate"],
        [
            [_text(name), *map(str, (rate.passed, rate.failed, rate.not_judged, rate.total)), format_percent(rate.rate)]
            for name, rate in measured[:MOST_ROWS]
        ],
    )
    yield from _rest(len(measured), "rate")


def _controls(controls: Sequence[EditSummary]) -> Iterator[str]:
    yield ""
    yield "### Controls"
    yield ""
    if not controls:
        yield "None was run, so nothing proves that the checks see a collapse."
        return
    yield from grid(
        ["control", "to show", "perplexity ratio", "shown"],
        [
            [
                _text(control.record.id),
                control.record.expect if isinstance(control.record, ControlRecord) else "",
                format_ratio(control.ratio),
                _text(control_fault(control) or "yes"),
            ]
            for control in controls[:MOST_ROWS]
        ],
    )
    yield from _rest(len(controls), "control")
    yield from _control_observations(
        [control.record for control in controls if isinstance(control.record, ControlRecord)]
    )


def _control_observations(controls: Sequence[ControlRecord]) -> Iterator[str]:
    observations = [observation for control in controls for observation in control.sightings]
    names = {(observation.kind, observation.name) for observation in observations}
    if names:
        proved = names - {(observation.kind, observation.name) for observation in observations if not observation.ok}
        yield ""
        yield f"{len(proved)} of {len(names)} probes and checks caught a known bad and let pass a known good."
    for reason in not_controlled(controls):
        yield ""
        yield f"Not controlled: {_text(reason)}."


def _rest(count: int, what: str) -> Iterator[str]:
    if count > MOST_ROWS:
        yield ""
        yield f"{count_noun(count - MOST_ROWS, f'more {what} is', f'more {what}s are')} in the report."


def _provenance(audit: Digest) -> Iterator[str]:
    header = audit.header
    facts = {
        "model": header.model.ref,
        "fingerprint": header.model.fingerprint,
        "layer": str(header.layer),
        "site": header.site,
        "edits": header.source,
        "edits' SHA-256": header.source_sha256,
        "policy's SHA-256": header.policy_sha256,
        "seed": str(header.seed),
        "begun": header.created,
        "editguard": header.editguard_version,
    }
    yield ""
    yield "; ".join(f"{name} {_text(value)}" for name, value in facts.items()) + "."


def _text(text: str) -> str:
    return escaped(shorten(text, _MOST))
