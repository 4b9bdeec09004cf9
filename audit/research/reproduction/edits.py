"""Each case edited without the guard by each editor, on the unedited model each time, into one resumable log an editor.

Neither policy nor bounds apply, since collapses are to be measured. A log holds the records of an audit's log, so that
``editguard report`` reads it too. Edits in a log are not made again, except for edits that ended in an error. Their records
are removed from the log, since an id stands in it once.
"""

from __future__ import annotations

import json
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import replace
from typing import TYPE_CHECKING

from ....probes.errors import InputError
from ....reports.log.file import Log, LogWriter, read_unfinished_log, rewrite_log
from ....reports.log.schema import EditRecord, Footer, Header
from ....reports.text import count_noun
from ...editors.base import find_editor
from ...policy import Action, Decision
from ...run.execute import edit_record_for, try_together_then_singly
from ...run.to_log import header
from .cases import CaseKind, Cases, ReproductionCase
from .stamp import Stamp, check_stamp, parse_stamp

if TYPE_CHECKING:
    from pathlib import Path

    from ....probes.requests.loader import LoadedRequests
    from ...edit_result import Assessment, Proposal
    from ...guard import GuardedEditor
    from ...progress import Progress

__all__ = ["EDITORS", "LOGS", "Edits", "make_edits"]

EDITORS = ("rome", "c-rome", "prefixed")
LOGS = "logs"
"""Folder of the logs."""
_CHECKS = ("perplexity", "efficacy", "generalization", "locality", "drift")
_CASES_PER_BATCH = 8
"""Cases whose updates are computed at once. The batch of an edit changes its last bits, so that a resumed run computes the
same batches again."""

Edits = Mapping[str, Mapping[str, EditRecord]]
"""The record of each edit: by editor, then by request id."""


def make_edits(
    guard: GuardedEditor,
    loaded: LoadedRequests,
    cases: Cases,
    folder: Path,
    stamps: Mapping[str, Stamp],
    *,
    progress: Progress = lambda *_: None,
) -> Edits:
    """Make all edits that the logs in `folder` do not hold yet, and return all of them.

    `stamps` names for each editor what its figures depend on. Raises `InputError` where a log was begun under another.
    """
    guard, started = replace(guard, checks=_CHECKS), time.monotonic()
    folder.mkdir(parents=True, exist_ok=True)
    with ExitStack() as opened:
        writers: dict[str, _LogWithHeader] = {}
        records: dict[str, dict[str, EditRecord]] = {}
        for editor in EDITORS:
            path = folder / f"{editor}.jsonl"
            log = _read_existing_log(path, stamps[editor])
            expected_ids = {case.request.id for case in cases.cases if editor in _list_editors(case.kind)}
            if log is None or log.footer is None:
                head = _build_header(guard, loaded, editor, stamps[editor], len(expected_ids))
                writers[editor] = opened.enter_context(_LogWithHeader(path, head))
            records[editor] = {} if log is None else {record.id: record for record in log.edits}
            if editor not in writers and (lacking := expected_ids - records[editor].keys()):
                raise InputError(
                    f"The log {str(path)!r} is finished and lacks {count_noun(len(lacking), 'edit')} of the cases; remove it, or "
                    "give another --out."
                )
        for start in range(0, len(cases.cases), _CASES_PER_BATCH):
            group = cases.cases[start : start + _CASES_PER_BATCH]
            if all(case.request.id in records[editor] for case in group for editor in _list_editors(case.kind)):
                continue
            progress("edits", start, len(cases.cases))
            for editor, record in _execute_edits(guard, group, records, cases):
                writers[editor].write(record)
                records[editor][record.id] = record
        for editor, writer in writers.items():
            writer.write(Footer(records=len(records[editor]), seconds=round(time.monotonic() - started, 1)))
    progress("edits", len(cases.cases), len(cases.cases))
    return records


def _list_editors(kind: CaseKind) -> tuple[str, ...]:
    """Return the editors of a kind: other kinds than the paper's two are edited by the published editor only."""
    return EDITORS if kind in (CaseKind.FIRST, CaseKind.ORDINARY) else EDITORS[:1]


def _read_existing_log(path: Path, stamp: Stamp) -> Log | None:
    """Return the log without edits that ended in an error, None where no log is there.

    Raises `InputError` for a log of another stamp.
    """
    log = read_unfinished_log(path)
    if log is None:
        return None
    check_stamp(f"The log {str(path)!r}", parse_stamp(log.header.arguments.get("stamp"), path), stamp)
    completed = tuple(record for record in log.edits if record.outcome != "errored")
    if len(completed) < len(log.edits):
        log = replace(log, edits=completed, footer=None, torn=False)
        rewrite_log(path, log)
    return log


class _LogWithHeader(LogWriter):
    """A log that has its header, whether it was begun now or before."""

    def __init__(self, path: Path, header: Header) -> None:
        super().__init__(path)
        self._header = header

    def __enter__(self) -> _LogWithHeader:
        super().__enter__()
        if self.existing is None:
            self.write(self._header)
        return self


def _build_header(guard: GuardedEditor, loaded: LoadedRequests, editor: str, stamp: Stamp, edit_count: int) -> Header:
    arguments = {"command": "reproduce", "editor": editor, "stamp": json.dumps(stamp)}
    setup = replace(guard.setup, settings=find_editor(editor)().settings(guard.setup.settings))
    log_header = header(setup, loaded, arguments, [], guard.setup.baselines())
    # No control is made, and only the cases are edited.
    return log_header.model_copy(update={"requests": edit_count, "policy": {**log_header.policy, "controls": False}})


def _execute_edits(
    guard: GuardedEditor,
    group: Sequence[ReproductionCase],
    existing: Mapping[str, Mapping[str, EditRecord]],
    cases: Cases,
) -> Iterator[tuple[str, EditRecord]]:
    """Compute all edits of the cases in `group`; yield editor and record of each that is not in `existing`, as it is made."""
    order = {case.request.id: index for index, case in enumerate(cases.cases)}
    jobs = [(editor, case) for case in group for editor in _list_editors(case.kind)]

    def propose(guard: GuardedEditor, batch: Sequence[tuple[str, ReproductionCase]]) -> list[Proposal]:
        return guard.propose([_force(case.assessment, editor) for editor, case in batch], bound=float("inf"))

    for (editor, case), proposal in zip(jobs, try_together_then_singly(guard, jobs, propose), strict=True):
        if case.request.id not in existing[editor]:
            yield editor, edit_record_for(guard, case.request, proposal, order[case.request.id])


def _force(assessment: Assessment, editor: str) -> Assessment:
    return replace(assessment, decision=Decision(Action.ALLOW, editor, ("made without the guard",)))
