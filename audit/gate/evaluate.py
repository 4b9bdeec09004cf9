"""The gate over files: a log and a baseline are read, judged, and looked up among the overrides; nothing is written.

What cannot be read closes the gate by its name rather than ending in an error: in a pipeline a gate that is not there must
not be open. A mistyped option is an error all the same.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import NamedTuple

from ...reports.errors import BaselineError, DuplicateRecord, NotFiniteRecord, ReportError
from ...reports.gate.allowances import Allowances
from ...reports.gate.baseline import Baseline, build_baseline, require_saveable
from ...reports.gate.decision import closed_by, judge_gate
from ...reports.gate.result import OVERRIDABLE, Gate, LapsedOverride, Override, ReasonCode
from ...reports.log.file import Log, log_bytes, parse_log
from ...reports.verdict.digest import summarise
from ..run.file_names import LOG
from .baseline_store import BaselineStore, StoredBaseline, git_state, sha256_of

__all__ = [
    "GateEvaluation",
    "LoadedLog",
    "read_comparison_side",
    "make_override",
    "read_audit",
    "run_gate",
    "save_baseline",
]

_FEWEST_WORDS = 3


class LoadedLog(NamedTuple):
    """A log as read, with the hash of its bytes."""

    path: Path
    sha256: str
    log: Log


class GateEvaluation(NamedTuple):
    """The gate's verdict with what it was passed on; a side that could not be read is None."""

    gate: Gate
    audit: LoadedLog | None
    baseline: StoredBaseline | None


def read_audit(place: Path) -> LoadedLog:
    """Read a log, or the one in a folder; raises `ReportError`."""
    path = place / LOG if place.is_dir() else place
    data = log_bytes(path)
    return LoadedLog(path, sha256_of(data), parse_log(data, path))


def save_baseline(place: Path, name: str, store: BaselineStore, *, allow_failed: bool = False) -> Path:
    """Save the audit in `place` as the next baseline of `name` and return the file; raises `BaselineRefused`."""
    found = build_baseline(read_audit(place).log, git_state())
    require_saveable(found, allow_failed=allow_failed)
    return store.save(name, found)


def read_comparison_side(reference: str, store: BaselineStore) -> tuple[str, Baseline]:
    """Read one side of a comparison: a log, an audit's folder, a baseline's name or file; raises `ReportError`."""
    place = Path(reference)
    if (place / LOG).is_file() or (place.is_file() and place.suffix != ".json"):
        return reference, build_baseline(read_audit(place).log, None)
    found = store.find(reference)
    return found.name, found.baseline


def run_gate(
    place: Path, reference: str, store: BaselineStore, allowed: Allowances, accepted: frozenset[ReasonCode] = frozenset()
) -> GateEvaluation:
    """Hold the audit in `place` against a baseline and look for an override; raises for a name that none may have."""
    store.holds(reference)  # a name that no baseline may have is a mistyped option, and raises
    judged = _judged(place, reference, store, allowed, accepted)
    if judged.gate.open:
        return judged
    lapsed: list[LapsedOverride] = []
    for one in _concerned(judged, reference, store.overrides()):
        why = "; ".join(_why_not(one, judged))
        if not why:
            return judged._replace(gate=judged.gate.model_copy(update={"open": True, "override": one}))
        lapsed.append(LapsedOverride(override=one, why=why))
    return judged._replace(gate=judged.gate.model_copy(update={"lapsed": lapsed}))


def _concerned(judged: GateEvaluation, reference: str, overrides: Sequence[Override]) -> list[Override]:
    """Return the overrides of this log, and the last one of another log against a baseline of this name; newest first."""
    log = None if judged.audit is None else judged.audit.sha256
    name = (reference if judged.baseline is None else judged.baseline.name).partition("@")[0]
    same = [one for one in reversed(overrides) if one.log_sha256 == log]
    other = [one for one in reversed(overrides) if one.log_sha256 != log and one.baseline.partition("@")[0] == name]
    return [*same, *other[:1]]


def _why_not(one: Override, judged: GateEvaluation) -> Iterator[str]:
    """Yield why an override does not lift what closes the gate: it must be for these bytes, and name these reasons."""
    log, baseline = judged.audit, judged.baseline
    if log is None or one.log_sha256 != log.sha256:
        this = "this log cannot be read" if log is None else f"this is {log.sha256[:12]}"
        yield f"it is for the log {one.log_sha256[:12]}, and {this}"
    if baseline is None or one.baseline_sha256 != baseline.sha256:
        this = (
            "this baseline cannot be read" if baseline is None else f"this is {baseline.name} ({baseline.sha256[:12]})"
        )
        yield f"it is against {one.baseline} ({one.baseline_sha256[:12]}), and {this}"
    keys, names = {closing.key for closing in judged.gate.closings}, {*one.closings}
    if more := sorted(keys - names):
        yield f"it does not name {', '.join(more)}"
    if less := sorted(names - keys):
        yield f"it names {', '.join(less)}, which {'does' if len(less) == 1 else 'do'} not close the gate now"
    if firm := _firm(judged.gate):
        yield f"nobody can answer for {', '.join(firm)}"


def _judged(
    place: Path, reference: str, store: BaselineStore, allowed: Allowances, accepted: frozenset[ReasonCode]
) -> GateEvaluation:
    try:
        baseline = store.find(reference)
    except ReportError as error:
        return GateEvaluation(closed_by(_named(error, store, reference), str(error), reference, allowed), None, None)
    try:
        read = read_audit(place)
    except ReportError as error:
        return GateEvaluation(closed_by(_named(error), str(error), baseline.name, allowed), None, baseline)
    audit = build_baseline(read.log, None)
    names = baseline.name, str(place)
    why = summarise(read.log).reasons
    gate = judge_gate(baseline.baseline, audit, names, allowed, why=why, accepted=accepted)
    return GateEvaluation(gate, read, baseline)


def _named(error: ReportError, store: BaselineStore | None = None, reference: str = "") -> ReasonCode:
    if isinstance(error, DuplicateRecord):
        return ReasonCode.DUPLICATE_EDITS
    if isinstance(error, NotFiniteRecord):
        return ReasonCode.NOT_FINITE
    if store is not None and not store.holds(reference):
        return ReasonCode.NO_BASELINE
    return ReasonCode.UNREADABLE


def _firm(gate: Gate) -> list[str]:
    return sorted({closing.reason.value for closing in gate.closings if closing.reason not in OVERRIDABLE})


def make_override(judged: GateEvaluation, author: str, reason: str) -> Override:
    """Return the record that lifts what closes the gate now; raises `BaselineError` where that may not be."""
    if judged.gate.open:
        raise BaselineError("The gate is open, so there is nothing to override.")
    firm = _firm(judged.gate)
    if firm or judged.audit is None or judged.baseline is None:
        raise BaselineError(f"The gate is closed by {', '.join(firm)}, which nobody can answer for; mend that first.")
    if not author.strip():
        raise BaselineError("The override has no author, and somebody must answer for it; add --author.")
    if len(reason.split()) < _FEWEST_WORDS:
        raise BaselineError(
            f"The reason {reason!r} is too short to be understood later; say in {_FEWEST_WORDS} words or more why this may ship."
        )
    return Override(
        time=datetime.now(UTC).isoformat(timespec="seconds"),
        author=author.strip(),
        reason=reason.strip(),
        baseline=judged.baseline.name,
        baseline_sha256=judged.baseline.sha256,
        log_sha256=judged.audit.sha256,
        closings=sorted(closing.key for closing in judged.gate.closings),
    )
