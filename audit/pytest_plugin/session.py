"""The state of a pytest session: the model, loaded once, its controls, and the record of each edit.

Files are entered as they are collected. The first item that runs loads the model and makes the controls. The first item of
an edit has the edit made, checked and undone; only its record is kept. Updates of the edits that come next are computed
together. A worker of pytest-xdist computes one at a time, since it does not know its next edits. The meaning of a record
for an item is in `judge`, and the log in `log`.
"""

from __future__ import annotations

from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

import pytest

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from ...probes.requests.loader import LoadedRequests
    from ...probes.requests.request import EditRequest
    from ...reports.log.schema import ControlRecord, EditRecord, Header
    from ..edit_result import Proposal
    from ..guard import GuardedEditor
    from .options import Settings

__all__ = [
    "RECORD",
    "SESSION",
    "CheckpointAudit",
    "CollectedEdit",
    "EditSession",
    "SessionPreamble",
    "fail_in_one_sentence",
]


class SessionPreamble(NamedTuple):
    """Header and control records of a session; empty until its controls are made."""

    header: Header | None
    controls: tuple[ControlRecord, ...]


class CheckpointAudit(NamedTuple):
    """An audit of a checkpoint that a test ran."""

    edited: str
    verdict: str
    folder: Path


class CollectedEdit(Protocol):
    """One collected edit."""

    edit: EditRequest
    index: int
    """Its place among all collected edits."""
    record: EditRecord | None
    """The record of the edit; None until the edit is made."""


class EditSession:
    """The model of a session and its records; the model is loaded when it is first needed."""

    def __init__(self, settings: Settings, *, worker: bool = False) -> None:
        """`worker` says that this process is one of several that share the items."""
        self.settings = settings
        self.files: list[LoadedRequests] = []
        self.damage: str | None = None
        """Why the model changed, None while it is unchanged; no later measurement can be trusted."""
        self.preamble = SessionPreamble(None, ())
        self.checkpoint_audits: list[CheckpointAudit] = []
        """The audits of checkpoints that tests of this process ran."""
        self._worker = worker
        self._guard: GuardedEditor | None = None
        self._error: Exception | None = None
        self._pending: dict[CollectedEdit, Proposal | Exception] = {}

    # ------------------------------------------------------------------------------------------------------ collection

    def enter(self, loaded: LoadedRequests) -> int:
        """Note the requests of a file and return the number of requests before it.

        Raises `RequestError` where a log is to be written and an id is in another file too.
        """
        from ...probes.errors import RequestError

        owners = {request.id: file.source for file in self.files for request in file.requests}
        both = [request.id for request in loaded.requests if request.id in owners]
        if both and self.settings.out is not None:
            raise RequestError(
                f"The id {both[0]!r} of {loaded.source!r} is also in {owners[both[0]]!r}, and the log of --editguard-out can "
                "hold it once; give the edits different ids, or test the files one by one."
            )
        before = sum(len(file.requests) for file in self.files)
        self.files.append(loaded)
        return before

    # ----------------------------------------------------------------------------------------------------------- model

    @property
    def has_model(self) -> bool:
        """Whether the model is loaded."""
        return self._guard is not None

    @property
    def guard(self) -> GuardedEditor:
        """The model under its policy, loaded at the first use; raises the same `EditguardError` at each use."""
        self._require_intact()
        if self._error is not None:
            raise self._error
        if self._guard is None:
            from ...probes.errors import EditguardError

            try:
                self._guard = self._load()
            except EditguardError as error:
                self._error = error
                raise
        return self._guard

    def _load(self) -> GuardedEditor:
        from ...probes.model.language_model import load_model
        from ..guard import GuardedEditor
        from ..policy import load_policy
        from ..setup import check_editable, check_names, prepare

        settings = self.settings
        policy = load_policy(settings.policy, settings.root)
        check_names(policy, settings.policy)
        setup = prepare(
            load_model(settings.model, device=settings.device, dtype=settings.dtype),
            layer=settings.layer,
            policy=policy,
            seed=settings.seed,
            statistics=settings.stats,
        )
        check_editable(setup.site)
        _ = setup.lm.fingerprint, setup.bench  # as they are of the unedited model
        return GuardedEditor(setup)

    def require_controls(self) -> GuardedEditor:
        """Make the controls and return the guard; raises `EditguardError` where a control fails."""
        from ...probes.errors import EditguardError

        guard = self.guard
        if self.preamble.header is None:
            try:
                self._run_controls(guard)
            except EditguardError as error:
                self._error = error
                raise
        return guard

    def _run_controls(self, guard: GuardedEditor) -> None:
        from ...probes.errors import EditguardError
        from ...reports.log.file import Log
        from ...reports.verdict.edit_summary import collapse_bound, summarise_edits
        from ...reports.verdict.reasons import void_reasons
        from ..run.controls import controls_for
        from ..run.execute import iter_control_records

        controls = controls_for(guard.setup) if guard.setup.policy.controls else ()
        header = self._header(guard, [control.id for control in controls])
        records = tuple(iter_control_records(guard, controls))
        self.preamble = SessionPreamble(header, records)
        void = list(void_reasons(Log(header, (), records, None), summarise_edits(records, collapse_bound(header))))
        if void:
            raise EditguardError(f"void: {' '.join(void)}")

    def _header(self, guard: GuardedEditor, controls: list[str]) -> Header:
        """Return the header, with the number of all requests of the files, selected or not."""
        from ...probes.requests.loader import LoadedRequests
        from ..run.to_log import header

        requests = tuple(request for file in self.files for request in file.requests)
        source, sha256 = ", ".join(file.source for file in self.files), _hash_files(self.files)
        arguments = {name: _to_scalar(value) for name, value in vars(self.settings).items()}
        baselines = guard.setup.baselines()
        return header(
            guard.setup,
            LoadedRequests(requests=requests, invalid=(), source=source, sha256=sha256),
            arguments,
            controls,
            baselines,
        )

    # ----------------------------------------------------------------------------------------------------------- edits

    def record(self, node: CollectedEdit, coming: Iterable[CollectedEdit]) -> EditRecord:
        """Return the record of a collected edit, which is made, checked and undone at the first call.

        `coming` are the edits that will be tested after it, each as often as it has items. Raises `EditguardError` where no
        edit can be made: no model, failed controls, a changed model.
        """
        from ..run.execute import edit_record_for

        guard = self.require_controls()
        if node.record is None:
            if node not in self._pending:
                self._propose(guard, node, () if self._worker else coming)
            node.record = edit_record_for(guard, node.edit, self._pending.pop(node), node.index)
        return node.record

    def _propose(self, guard: GuardedEditor, node: CollectedEdit, coming: Iterable[CollectedEdit]) -> None:
        from ..run.execute import REQUESTS_PER_BATCH, propose_each

        chunk = [node]
        for other in coming:
            if len(chunk) == REQUESTS_PER_BATCH:
                break
            if other.record is None and other not in self._pending and other not in chunk:
                chunk.append(other)
        proposals = propose_each(guard, [other.edit for other in chunk], self.settings.editor)
        self._pending.update(zip(chunk, proposals, strict=True))

    # ----------------------------------------------------------------------------------------------------------- proof

    def prove(self, culprit: str) -> None:
        """Raise `EditguardError` where a weight that edits change is not the one that was loaded; `culprit` was run last."""
        from ...probes.errors import EditguardError
        from ...probes.model.fingerprint import hash_tensor

        if self._guard is None or self.damage is not None:
            return
        stored = self._guard.setup.stored_weights
        changed = [weight.site.path for weight in stored if hash_tensor(weight.site.weight) != weight.sha256]
        if changed:
            self.damage = (
                f"{culprit} left the weight {changed[0]} of the session's model changed, so that no later result can be "
                "trusted; edit through edited_model or try_edit, which undo what they do."
            )
            raise EditguardError(self.damage)

    def prove_all(self) -> None:
        """Raise `EditguardError` where any tensor of the model is not the one that was loaded."""
        from ...probes.errors import EditguardError
        from ...probes.model.fingerprint import compute_fingerprint

        self._require_intact()
        if (
            self._guard is not None
            and compute_fingerprint(self._guard.setup.lm.model) != self._guard.setup.lm.fingerprint
        ):
            raise EditguardError(
                "The model's fingerprint is not the one that it had when it was loaded: something wrote to its weights, and no "
                "result of this session can be trusted; find the test that did."
            )

    def _require_intact(self) -> None:
        from ...probes.errors import EditguardError

        if self.damage is not None:
            raise EditguardError(self.damage)


@contextmanager
def fail_in_one_sentence() -> Iterator[None]:
    """Let an `EditguardError` end a test with its sentence, without a traceback."""
    from ...probes.errors import EditguardError
    from ...reports.text import visible

    try:
        yield
    except EditguardError as error:
        raise pytest.fail.Exception(visible(f"editguard: {error}"), pytrace=False) from None


def _hash_files(files: list[LoadedRequests]) -> str:
    """Return the hash of one file, or the hash of the hashes of several files."""
    import hashlib

    hashes = [file.sha256 for file in files]
    return hashes[0] if len(hashes) == 1 else hashlib.sha256("\n".join(hashes).encode()).hexdigest()


def _to_scalar(value: Any) -> str | int | None:
    if isinstance(value, tuple):
        return ", ".join("builtin" if item is None else str(item) for item in value)
    return str(value) if isinstance(value, Path) else value


SESSION: pytest.StashKey[EditSession] = pytest.StashKey()
"""Where a pytest configuration keeps its session of edits."""
RECORD: pytest.StashKey[EditRecord] = pytest.StashKey()
"""Where the item for which an edit was made keeps its record."""
