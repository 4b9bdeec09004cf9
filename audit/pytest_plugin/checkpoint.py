"""The audit of a checkpoint that any tool edited, from a test: what ``editguard audit --edited`` does.

The base is the session's model, prepared once. The controls are those of such an audit, made anew each time in the place of
the checkpoint; those of the session's edits are not made. Nothing is remembered from one call to the next, since the folder
may have changed. Out of scope: the judgement itself (`editguard.audit.checkpoint`).
"""

from __future__ import annotations

import hashlib
import json
import re
from collections import Counter
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, TypeAlias

from ...probes.errors import InputError, RequestError
from ...probes.requests.loader import LoadedRequests, load_requests
from ..checkpoint.audit import NO_EDITS, run_checkpoint_audit
from ..folders.output_folder import locked_folder
from .session import CheckpointAudit

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from ...probes.requests.request import EditRequest
    from ...reports.verdict.summary import Summary
    from .session import EditSession

__all__ = ["CheckpointAudits", "Edits"]

Edits: TypeAlias = "Path | str | LoadedRequests | Sequence[EditRequest]"
_FOLDER = "checkpoints"
"""Folder in that of ``--editguard-out``."""
_LONGEST_NAME = 48
_OPTION = re.compile(r"(?<![\w-])--(model|out)\b")


class CheckpointAudits:
    """Audits checkpoints against the session's model."""

    def __init__(self, session: EditSession, make_folder: Callable[[], Path], worker: str = "") -> None:
        """`make_folder` makes a folder for an audit of which nothing is kept; `worker` names one of several processes."""
        self._session, self._make_folder, self._worker = session, make_folder, worker

    def __call__(self, edited: Path | str, edits: Edits | None = None) -> Summary:
        """Audit the checkpoint `edited`, and return the verdict.

        Raises `ModelError` for a checkpoint that cannot be read or was not made from the session's model, and `RequestError`
        for edits that cannot be read.
        """
        loaded = NO_EDITS if edits is None else _load(edits)
        folder = self._choose_folder(str(edited), loaded)
        arguments = {"edited": str(edited), "edits": loaded.source or None}
        try:
            with locked_folder(folder, overwrite=True):
                summary = run_checkpoint_audit(
                    self._session.guard.setup, loaded, str(edited), folder, arguments=arguments, overwrite=True
                )
        except InputError as error:
            # What reads the checkpoint and makes the folder speaks of the command line's options.
            raise type(error)(_OPTION.sub(r"--editguard-\1", str(error))) from error
        self._session.checkpoint_audits.append(CheckpointAudit(str(edited), summary.verdict, folder))
        return summary

    def _choose_folder(self, edited: str, loaded: LoadedRequests) -> Path:
        """Return the folder of the audit, the same in each session for the same checkpoint and edits."""
        out = self._session.settings.out
        if out is None:
            return self._make_folder()
        digest = hashlib.sha256("\n".join([edited, loaded.source, loaded.sha256]).encode()).hexdigest()[:10]
        name = re.sub(r"[^A-Za-z0-9_]+", "-", Path(edited).name).strip("-")[:_LONGEST_NAME]
        return out / _FOLDER / "-".join(part for part in (name, digest, self._worker) if part)


def _load(edits: Edits) -> LoadedRequests:
    if isinstance(edits, LoadedRequests):
        return edits
    if isinstance(edits, str | Path):
        return load_requests(edits)
    requests = tuple(edits)
    if not requests:
        raise RequestError("The list of edits is empty; leave it out where the model as a whole is to be judged alone.")
    (identity, count), *_ = Counter(request.id for request in requests).most_common(1)
    if count > 1:
        raise RequestError(f"The id {identity!r} belongs to {count} edits; give the edits different ids.")
    content = json.dumps([asdict(request) for request in requests], sort_keys=True)
    return LoadedRequests(
        requests=requests, invalid=(), source="a test", sha256=hashlib.sha256(content.encode()).hexdigest()
    )
