"""The gate over files: a log and a baseline are read and compared, and the overrides are searched; nothing is written.

A file that cannot be read, the overrides among them, closes the gate with a reason instead of an error: in a pipeline a
missing file must not open the gate. A mistyped option is an error all the same.
"""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from ...reports.errors import BaselineError, DuplicateRecord, NotFiniteRecord, ReportError
from ...reports.gate.baseline import Baseline, build_baseline, require_saveable
from ...reports.gate.decision import close_unread, judge_gate
from ...reports.gate.result import OVERRIDABLE, ClosingReason, Gate, LapsedOverride, Override, ReasonCode
from ...reports.log.file import Log, log_bytes, parse_log
from ...reports.verdict.digest import summarise
from ..folders.file_names import LOG
from .baseline_store import BaselineStore, StoredBaseline, git_state, sha256_of

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from ...reports.gate.allowances import Allowances

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
    """The gate's verdict with the two sides that it compares; a side that could not be read is None."""

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
    baseline = build_baseline(read_audit(place).log, git_state())
    require_saveable(baseline, allow_failed=allow_failed)
    return store.save(name, baseline)


def read_comparison_side(reference: str, store: BaselineStore) -> tuple[str, Baseline]:
    """Read one side of a comparison: a log, an audit's folder, a baseline's name or file; raises `ReportError`."""
    place = Path(reference)
    if (place / LOG).is_file() or (place.is_file() and place.suffix != ".json"):
        return reference, build_baseline(read_audit(place).log, None)
    if not store.exists(reference):
        try:
            store.require(reference)
        except BaselineError as error:
            raise BaselineError(f"{error} A log, or a folder with an audit, can be given as well.") from None
    stored = store.load(reference)
    return stored.name, stored.baseline


def run_gate(
    place: Path,
    reference: str,
    store: BaselineStore,
    allowed: Allowances,
    accepted: frozenset[ReasonCode] = frozenset(),
) -> GateEvaluation:
    """Compare the audit in `place` with a baseline and look for an override; raises `BaselineError` for a mistyped name."""
    store.exists(reference)  # raises where the name is not one that a baseline may have
    evaluation = _evaluate(place, reference, store, allowed, accepted)
    if evaluation.gate.open:
        return evaluation
    try:
        overrides = store.read_overrides()
    except BaselineError as error:
        # The reasons for which the gate is closed are shown all the same.
        unread = ClosingReason(reason=ReasonCode.UNREADABLE, message=str(error))
        closings = [*evaluation.gate.closings, unread]
        return evaluation._replace(gate=evaluation.gate.model_copy(update={"closings": closings}))
    lapsed: list[LapsedOverride] = []
    for override in _relevant_overrides(evaluation, reference, overrides):
        why = "; ".join(_mismatches(override, evaluation))
        if not why:
            return evaluation._replace(gate=evaluation.gate.model_copy(update={"open": True, "override": override}))
        lapsed.append(LapsedOverride(override=override, why=why))
    return evaluation._replace(gate=evaluation.gate.model_copy(update={"lapsed": lapsed}))


def _relevant_overrides(evaluation: GateEvaluation, reference: str, overrides: Sequence[Override]) -> list[Override]:
    """Return the overrides of this log, and the last one of another log against a baseline of this name; newest first."""
    log = None if evaluation.audit is None else evaluation.audit.sha256
    name = (reference if evaluation.baseline is None else evaluation.baseline.name).partition("@")[0]
    newest_first = [*reversed(overrides)]
    of_this_log = [override for override in newest_first if override.log_sha256 == log]
    of_this_name = [
        override
        for override in newest_first
        if override.log_sha256 != log and override.baseline.partition("@")[0] == name
    ]
    return [*of_this_log, *of_this_name[:1]]


def _mismatches(override: Override, evaluation: GateEvaluation) -> Iterator[str]:
    """Yield why an override does not open the gate: it must be for these bytes, and name these reasons."""
    log, baseline = evaluation.audit, evaluation.baseline
    if log is None or override.log_sha256 != log.sha256:
        this = "this log cannot be read" if log is None else f"this is {log.sha256[:12]}"
        yield f"it is for the log {override.log_sha256[:12]}, and {this}"
    if baseline is None or override.baseline_sha256 != baseline.sha256:
        this = (
            "this baseline cannot be read" if baseline is None else f"this is {baseline.name} ({baseline.sha256[:12]})"
        )
        yield f"it is against {override.baseline} ({override.baseline_sha256[:12]}), and {this}"
    keys, names = {closing.key for closing in evaluation.gate.closings}, {*override.closings}
    if unnamed := sorted(keys - names):
        yield f"it does not name {', '.join(unnamed)}"
    if obsolete := sorted(names - keys):
        yield f"it names {', '.join(obsolete)}, which {'does' if len(obsolete) == 1 else 'do'} not close the gate now"
    if final := _final_reasons(evaluation.gate):
        yield f"{', '.join(final)} cannot be overridden"


def _evaluate(
    place: Path, reference: str, store: BaselineStore, allowed: Allowances, accepted: frozenset[ReasonCode]
) -> GateEvaluation:
    closings: list[ClosingReason] = []
    baseline, loaded = None, None
    try:
        baseline = store.load(reference)
    except ReportError as error:
        closings.append(ClosingReason(reason=_reason_code(error, store, reference), message=str(error)))
    try:
        loaded = read_audit(place)
    except ReportError as error:
        closings.append(ClosingReason(reason=_reason_code(error), message=str(error)))
    if baseline is None or loaded is None:
        name = reference if baseline is None else baseline.name
        return GateEvaluation(close_unread(closings, name, allowed), loaded, baseline)
    audit = build_baseline(loaded.log, None)
    names = baseline.name, str(place)
    why = summarise(loaded.log).reasons
    gate = judge_gate(baseline.baseline, audit, names, allowed, why=why, accepted=accepted)
    return GateEvaluation(gate, loaded, baseline)


def _reason_code(error: ReportError, store: BaselineStore | None = None, reference: str = "") -> ReasonCode:
    if isinstance(error, DuplicateRecord):
        return ReasonCode.DUPLICATE_EDITS
    if isinstance(error, NotFiniteRecord):
        return ReasonCode.NOT_FINITE
    if store is not None and not store.exists(reference):
        return ReasonCode.NO_BASELINE
    return ReasonCode.UNREADABLE


def _final_reasons(gate: Gate) -> list[str]:
    return sorted({closing.reason.value for closing in gate.closings if closing.reason not in OVERRIDABLE})


def make_override(evaluation: GateEvaluation, author: str, reason: str) -> Override:
    """Return the record that opens the gate despite its present reasons; raises `BaselineError` where that is not allowed."""
    if evaluation.gate.open:
        raise BaselineError("The gate is open, so there is nothing to override.")
    final = _final_reasons(evaluation.gate)
    if final or evaluation.audit is None or evaluation.baseline is None:
        raise BaselineError(
            f"The gate is closed by {', '.join(final)}, which cannot be overridden; correct that first."
        )
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
        baseline=evaluation.baseline.name,
        baseline_sha256=evaluation.baseline.sha256,
        log_sha256=evaluation.audit.sha256,
        closings=sorted(closing.key for closing in evaluation.gate.closings),
    )
