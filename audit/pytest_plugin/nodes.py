"""The collected nodes: a file of edits, one node for each edit, and in it one item for each check and one for the guard.

Collecting reads the file and asks for the names of the checks; no model is loaded. An item asks the session for the
edit's record, which is made once, proves that the weights are as before, and judges its part of the record.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from ...probes.errors import EditguardError
from ...probes.requests.loader import LoadedRequests, load_requests
from ...reports.text import visible
from ...suites.builtin import BUILTIN, hash_builtin_edits, load_builtin_edits
from ...suites.check import CHECKS, list_single_edit_checks
from ..cli.options import check_editor
from .judge import GUARD, ItemOutcome, ItemVerdict, judge_check, judge_guard, list_properties
from .session import RECORD, SESSION, fail_in_one_sentence

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

    from ...probes.requests.request import EditRequest
    from ...reports.log.schema import EditRecord

__all__ = ["BuiltinEdits", "EditItem", "EditNode", "EditsFile"]


class _Edits(pytest.Collector):
    """Requests of one source."""

    def requests(self) -> LoadedRequests:
        """Return the requests; raises `EditguardError`."""
        raise NotImplementedError

    def collect(self) -> Iterator[EditNode]:
        """Yield one node for each request; all faults of a file are one collection error."""
        session = self.config.stash[SESSION]
        try:
            loaded, checks = self.requests(), list_single_edit_checks()
            check_editor(session.settings.editor)
            start = session.enter(loaded)
        except EditguardError as error:
            raise self.CollectError(visible(f"editguard: {error}")) from None
        for index, edit in enumerate(loaded.requests, start):
            yield EditNode.from_parent(self, name=_clean_name(edit.id), edit=edit, index=index, checks=checks)


class EditsFile(_Edits, pytest.File):
    """A file of edits."""

    def requests(self) -> LoadedRequests:
        """Read the file; its path in the log is relative to pytest's root where it lies below it."""
        root = self.config.rootpath
        return load_requests(
            self.path.relative_to(root) if self.path.is_relative_to(root) else self.path, can_skip=False
        )


class BuiltinEdits(_Edits):
    """The built-in suite of edits."""

    def requests(self) -> LoadedRequests:
        """Return the built-in edits."""
        return LoadedRequests(requests=load_builtin_edits(), invalid=(), source=BUILTIN, sha256=hash_builtin_edits())


class EditNode(pytest.Collector):
    """One requested edit; `record` is None until the edit is made."""

    def __init__(self, *, edit: EditRequest, index: int, checks: Sequence[str], **node: Any) -> None:
        """`index` is the edit's place among all that were collected."""
        super().__init__(**node)
        self.edit, self.index, self._checks = edit, index, checks
        self.record: EditRecord | None = None
        if self.config.pluginmanager.hasplugin("xdist"):
            self.add_marker(pytest.mark.xdist_group(f"edit-{index}"))

    def collect(self) -> Iterator[EditItem]:
        """Yield the item of the decision, and one for each check."""
        for check in (GUARD, *self._checks):
            yield EditItem.from_parent(self, name=check)


class EditItem(pytest.Item):
    """One question about one edit."""

    parent: EditNode

    def runtest(self) -> None:
        """Judge this item's part of the edit's record; the first item of an edit has the edit made."""
        session, made_here = self.config.stash[SESSION], self.parent.record is None
        with fail_in_one_sentence():
            record = session.record(self.parent, self._coming())
            session.prove(self.nodeid)
        if made_here:
            self.stash[RECORD] = record
        self.user_properties += list_properties(record).items()
        policy = session.guard.setup.policy
        if self.name == GUARD:
            _report(judge_guard(record, policy))
        else:
            _report(judge_check(self.name, CHECKS.get(self.name).card.action, record, policy))

    def _coming(self) -> Iterator[EditNode]:
        """Yield the edits of the items after this one, in the order in which they run."""
        items = self.session.items
        for item in items[items.index(self) + 1 :]:
            if isinstance(item, EditItem):
                yield item.parent

    def reportinfo(self) -> tuple[Path, None, str]:
        """Return what pytest prints as the item's heading."""
        return self.path, None, f"edit {self.parent.name}: {self.name}"


def _report(verdict: ItemVerdict) -> None:
    if verdict.outcome is ItemOutcome.SKIPPED:
        pytest.skip(verdict.text)
    if verdict.outcome is ItemOutcome.FAILED:
        pytest.fail(verdict.text, pytrace=False)


def _clean_name(text: str) -> str:
    """Return an id as it can stand in the name of a node."""
    return " ".join(visible(text).split())
