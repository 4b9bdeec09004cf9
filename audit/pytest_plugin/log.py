"""The end of a session: the proof that the model is unchanged, and the log of the edits that were tested.

Reports carry records as plain data. Workers of pytest-xdist hand in header, controls and proof when they end. The process
in which pytest was called writes one log, in the order of the edits, whole or not at all. A log gets its footer only where
the session ended and every proof held. Edits without a record are missing in it, and such a log never passes.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from .session import RECORD, EditSession, fail_in_one_sentence

if TYPE_CHECKING:
    from collections.abc import Generator
    from pathlib import Path

    from ...reports.log.schema import ControlRecord, Header

__all__ = ["SessionEvidence"]

_OUR_FIXTURES = {"guarded_editor", "edited_model", "collapse_suite", "checkpoint_audit"}
_SHIPMENT, _RECORD = "editguard", "editguard_record"
"""Names of a worker's shipment and of the attribute of a report; no other plug-in uses them."""


class SessionEvidence:
    """Hooks that gather records and proofs; a plugin object of its own, with one session's state."""

    def __init__(self, session: EditSession) -> None:
        """Nothing is loaded, and nothing happens in a session that needs no model."""
        self._session, self._out = session, session.settings.out
        self._records: dict[str, str] = {}
        self._shipments: list[dict[str, Any]] = []
        self._problems: list[str] = []
        self._unread: list[str] = []
        self._log: Path | None = None

    # --------------------------------------------------------------------------------------------------------- records

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_makereport(
        self, item: pytest.Item, call: pytest.CallInfo[None]
    ) -> Generator[None, pytest.TestReport, pytest.TestReport]:
        """Let a report carry the record of the edit that was made for it."""
        report = yield
        record = item.stash.get(RECORD, None)
        if record is not None and self._out is not None and call.when == "call":
            vars(report)[_RECORD] = record.model_dump_json()
        return report

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        """Keep the record of each item for which an edit was made, in any worker."""
        record: str | None = getattr(report, _RECORD, None)
        if record is not None:
            self._records[report.nodeid] = record

    def pytest_collectreport(self, report: pytest.CollectReport) -> None:
        """Note a file that could not be collected: the log gets no footer then."""
        if report.failed:
            self._unread.append(report.nodeid)

    # ---------------------------------------------------------------------------------------------------------- proofs

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_teardown(self, item: pytest.Item) -> Generator[None, None, None]:
        """Prove after a test with one of our fixtures that the weights are as before."""
        yield
        if self._session.has_model and _OUR_FIXTURES & {*getattr(item, "fixturenames", ())}:
            with fail_in_one_sentence():
                self._session.prove(f"The test {item.nodeid}")

    @pytest.hookimpl(optionalhook=True)
    def pytest_testnodedown(self, node: Any, error: object) -> None:
        """Take the shipment of a worker when it ends."""
        shipment = getattr(node, "workeroutput", {}).get(_SHIPMENT)
        if shipment is not None:
            self._shipments.append(shipment)

    @pytest.hookimpl(wrapper=True)
    def pytest_runtestloop(self, session: pytest.Session) -> Generator[None, object, object]:
        """Prove the model at the end and write the log; a proof that does not hold fails the session."""
        if session.config.option.collectonly:
            return (yield)
        worker = getattr(session.config, "workeroutput", None)
        finished = False
        try:
            result = yield
            finished = True
            return result
        finally:
            if self._session.has_model:
                self._shipments.append(self._build_shipment())
            if worker is not None:
                worker[_SHIPMENT] = self._shipments[0] if self._shipments else None
            else:
                self._close(finished)
                session.testsfailed += bool(self._problems)

    def _build_shipment(self) -> dict[str, Any]:
        from ...probes.errors import EditguardError

        try:
            self._session.prove_all()
            problem = None
        except EditguardError as error:
            problem = str(error)
        header, controls = self._session.preamble
        return {
            "problem": problem,
            "header": None if header is None else header.model_dump_json(),
            "controls": [control.model_dump_json() for control in controls],
        }

    def _close(self, finished: bool) -> None:
        self._problems += dict.fromkeys(shipment["problem"] for shipment in self._shipments if shipment["problem"])
        if self._out is None:
            return
        from ...probes.errors import EditguardError

        try:
            if self._has_log():
                self._log = self._write(self._out, finished and not self._unread and not self._problems)
        except EditguardError as error:
            # What locks and makes the folder speaks of the command line's option.
            self._problems.append(str(error).replace(" --out", " --editguard-out"))
        except OSError as error:
            self._problems.append(
                f"The log cannot be put into --editguard-out {str(self._out)!r} ({error.strerror}); name another folder."
            )

    def _has_log(self) -> bool:
        """Whether an edit was tested, or a control failed before any; otherwise an older log stays."""
        if not any(shipment["header"] for shipment in self._shipments):
            return False
        header, controls = self._merge_preambles()
        return bool(self._records) or (header.requests > 0 and not all(control.ok for control in controls))

    # ------------------------------------------------------------------------------------------------------------- log

    def _write(self, out: Path, finished: bool) -> Path:
        from ...reports.log.file import LogWriter
        from ...reports.log.schema import EditRecord, Footer
        from ..folders.file_names import AUDIT_FILES, LOG
        from ..folders.output_folder import locked_folder

        edit_records = map(EditRecord.model_validate_json, self._records.values())
        # Two workers may have made one edit: the record that did not pass comes last and is kept.
        worst = {edit.id: edit for edit in sorted(edit_records, key=lambda edit: edit.verdict != "pass")}
        edits = sorted(worst.values(), key=lambda edit: edit.index)
        header, controls = self._merge_preambles()
        records: list[ControlRecord | EditRecord] = [*controls, *edits]
        with locked_folder(out, overwrite=True):
            partial = out / f".{LOG}.partial"
            partial.unlink(missing_ok=True)
            with LogWriter(partial) as log:
                log.write(header)
                for record in records:
                    log.write(record)
                if finished:
                    seconds = sum(record.seconds for record in records)
                    log.write(Footer(records=len(records), seconds=round(seconds, 3)))
            # An older audit must not stand beside this log: its files would be taken for this one's.
            for name in AUDIT_FILES:
                (out / name).unlink(missing_ok=True)
            partial.replace(out / LOG)
        return out / LOG

    def _merge_preambles(self) -> tuple[Header, list[ControlRecord]]:
        """Return the header, and each control with its worst result among the workers."""
        from ...probes.errors import EditguardError
        from ...reports.log.schema import ControlRecord, Header

        headers = [Header.model_validate_json(shipment["header"]) for shipment in self._shipments if shipment["header"]]
        if (
            len({(header.model.fingerprint, header.layer, header.source_sha256, header.requests) for header in headers})
            > 1
        ):
            raise EditguardError(
                "The workers of this session did not test the same edits on the same model, so that their records make no "
                "log; test where all of them see the same files."
            )
        controls = [
            ControlRecord.model_validate_json(control)
            for shipment in self._shipments
            for control in shipment["controls"]
        ]
        # The last record of an id is kept.
        worst = {control.id: control for control in sorted(controls, key=lambda control: not control.ok)}
        return headers[0], [worst[name] for name in headers[0].controls if name in worst]

    def pytest_terminal_summary(self, terminalreporter: pytest.TerminalReporter) -> None:
        """Print the places of log and audits, and the problems of the session as a whole."""
        if self._problems:
            terminalreporter.section("editguard", red=True, bold=True)
            for problem in self._problems:
                terminalreporter.line(f"editguard: {problem}", red=True)
        if self._log is not None:
            terminalreporter.line(f"editguard: log of the edits in {self._log}")
        for edited, verdict, folder in self._session.checkpoint_audits:
            terminalreporter.line(f"editguard: {verdict}: audit of {edited} in {folder}")
