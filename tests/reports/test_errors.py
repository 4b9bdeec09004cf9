"""The exceptions of the reports hang below the one root, each with the exit code of its branch."""

from __future__ import annotations

import pytest
from editguard.probes.errors import EditguardError
from editguard.reports import errors
from editguard.reports.errors import (
    AllowanceError,
    BaselineError,
    BaselineRefused,
    DuplicateRecord,
    LogError,
    NotFiniteRecord,
    OutputError,
    ReportError,
)


@pytest.mark.parametrize(
    ("error", "base", "exit_code"),
    [
        (ReportError, EditguardError, 2),
        (LogError, ReportError, 2),
        (DuplicateRecord, LogError, 2),
        (NotFiniteRecord, LogError, 2),
        (OutputError, ReportError, 2),
        (AllowanceError, ReportError, 2),
        (BaselineError, ReportError, 2),
        (BaselineRefused, BaselineError, 1),
    ],
)
def test_report_error_class_has_base_and_exit_code(
    error: type[ReportError], base: type[Exception], exit_code: int
) -> None:
    assert error.__bases__ == (base,)
    assert error.exit_code == exit_code


def test_report_errors_are_public_and_described() -> None:
    classes = {item for item in vars(errors).values() if isinstance(item, type) and issubclass(item, ReportError)}
    assert sorted(cls.__name__ for cls in classes) == sorted(errors.__all__)
    assert all(cls.__name__ in str(errors.__doc__) for cls in classes)
