"""The pytest plugin: files of edits are tests, each edit a node with one item a check and one for the guard.

Loaded in every session of pytest in which editguard is installed, so that it imports nothing heavy and does nothing
until a file of edits is collected or one of its fixtures is asked for. The parts are in `editguard.audit.pytesting`.
"""

from __future__ import annotations

from collections.abc import Generator, Iterator
from pathlib import Path

import pytest

from .fixtures import collapse_suite, edited_model, guarded_editor
from .log import Evidence
from .options import add_options, is_edits_file, read_settings
from .session import SESSION, EditSession

__all__ = ["collapse_suite", "edited_model", "guarded_editor"]


def pytest_addoption(parser: pytest.Parser) -> None:
    """Declare the options."""
    add_options(parser)


def pytest_configure(config: pytest.Config) -> None:
    """Parse the options; raises `pytest.UsageError`."""
    settings = read_settings(config)
    session = EditSession(settings, worker=hasattr(config, "workerinput"))
    config.stash[SESSION] = session
    config.pluginmanager.register(Evidence(session), "editguard-evidence")
    if config.getoption("--editguard-editor") is not None:
        _known_editor(settings.editor)


def _known_editor(name: str | None) -> None:
    from ...probes.errors import InputError
    from ..cli.options import check_editor

    try:
        check_editor(name)
    except InputError as error:
        raise pytest.UsageError(f"editguard: --editguard-editor: {error}") from None


def pytest_collect_file(file_path: Path, parent: pytest.Collector) -> pytest.Collector | None:
    """Collect a file whose name says that it holds edits; what an option names is collected beside the tests."""
    asked = parent.config.stash[SESSION].settings.edits
    if not is_edits_file(file_path) and (not asked or file_path.resolve() not in asked):
        return None
    if not _named(parent.session, file_path) and asked and file_path.resolve() in asked:
        return None
    from .nodes import EditsFile

    return EditsFile.from_parent(parent, path=file_path)


@pytest.hookimpl(wrapper=True)
def pytest_make_collect_report(
    collector: pytest.Collector,
) -> Generator[None, pytest.CollectReport, pytest.CollectReport]:
    """Put what the option ``--editguard-edits`` names beside what the session collects."""
    report = yield
    if isinstance(collector, pytest.Session):
        report.result += list(_asked(collector))
    return report


def _asked(session: pytest.Session) -> Iterator[pytest.Collector]:
    for path in session.config.stash[SESSION].settings.edits:
        from .nodes import BuiltinEdits, EditsFile

        if path is None:
            yield BuiltinEdits.from_parent(session, name="builtin", nodeid="builtin")
        elif not _named(session, path):
            yield EditsFile.from_parent(session, path=path)


def _named(session: pytest.Session, path: Path) -> bool:
    """Whether an argument on the command line names the file, or something in it."""
    start = session.config.invocation_params.dir
    return any((start / str(arg).split("::")[0]).resolve() == path.resolve() for arg in session.config.args)
