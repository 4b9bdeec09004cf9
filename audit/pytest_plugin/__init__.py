"""The pytest plug-in: a file of edits is a file of tests.

Each edit is a node with one item for the guard and one for each check. The plug-in is loaded in every session of pytest in
which editguard is installed. It imports nothing heavy, and does nothing until a file of edits is collected or one of its
fixtures is used.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from .fixtures import checkpoint_audit, collapse_suite, edited_model, guarded_editor
from .log import SessionEvidence
from .options import add_options, is_edits_file, read_settings
from .session import SESSION, EditSession

if TYPE_CHECKING:
    from collections.abc import Generator, Iterator
    from pathlib import Path

__all__ = ["checkpoint_audit", "collapse_suite", "edited_model", "guarded_editor"]


def pytest_addoption(parser: pytest.Parser) -> None:
    """Declare the options."""
    add_options(parser)


def pytest_configure(config: pytest.Config) -> None:
    """Parse the options; raises `pytest.UsageError`."""
    settings = read_settings(config)
    session = EditSession(settings, worker=hasattr(config, "workerinput"))
    config.stash[SESSION] = session
    config.pluginmanager.register(SessionEvidence(session), "editguard-evidence")
    if config.getoption("--editguard-editor") is not None:
        _check_editor_name(settings.editor)


def _check_editor_name(name: str | None) -> None:
    from ...probes.errors import InputError
    from ..cli.options import check_editor

    try:
        check_editor(name)
    except InputError as error:
        raise pytest.UsageError(f"editguard: --editguard-editor: {error}") from None


def pytest_collect_file(file_path: Path, parent: pytest.Collector) -> pytest.Collector | None:
    """Collect a file whose name says that it holds edits; files that an option names are collected beside the tests."""
    named_edits = parent.config.stash[SESSION].settings.edits
    if not is_edits_file(file_path) and (not named_edits or file_path.resolve() not in named_edits):
        return None
    if not _is_named(parent.session, file_path) and named_edits and file_path.resolve() in named_edits:
        return None
    from .nodes import EditsFile

    return EditsFile.from_parent(parent, path=file_path)


@pytest.hookimpl(wrapper=True)
def pytest_make_collect_report(
    collector: pytest.Collector,
) -> Generator[None, pytest.CollectReport, pytest.CollectReport]:
    """Add the files that the option ``--editguard-edits`` names to the collected tests."""
    report = yield
    if isinstance(collector, pytest.Session):
        report.result += list(_collect_named_edits(collector))
    return report


def _collect_named_edits(session: pytest.Session) -> Iterator[pytest.Collector]:
    for path in session.config.stash[SESSION].settings.edits:
        from .nodes import BuiltinEdits, EditsFile

        if path is None:
            yield BuiltinEdits.from_parent(session, name="builtin", nodeid="builtin")
        elif not _is_named(session, path):
            yield EditsFile.from_parent(session, path=path)


def _is_named(session: pytest.Session, path: Path) -> bool:
    """Whether an argument on the command line names the file, or something in it."""
    start = session.config.invocation_params.dir
    return any((start / str(arg).split("::")[0]).resolve() == path.resolve() for arg in session.config.args)
