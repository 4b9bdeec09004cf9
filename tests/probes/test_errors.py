"""The tree of exceptions is as its docstring draws it, and each class carries the exit code of its branch."""

from __future__ import annotations

import pytest
from editguard.probes import errors
from editguard.probes.errors import (
    EditguardError,
    EditRefused,
    InputError,
    ModelError,
    NotFinite,
    PolicyError,
    RequestError,
    StatisticsError,
)


@pytest.mark.parametrize(
    ("error", "base", "exit_code"),
    [
        (EditguardError, Exception, 3),
        (InputError, EditguardError, 2),
        (RequestError, InputError, 2),
        (ModelError, InputError, 2),
        (StatisticsError, InputError, 2),
        (PolicyError, InputError, 2),
        (EditRefused, EditguardError, 1),
        (NotFinite, EditRefused, 1),
    ],
)
def test_error_class_has_its_base_and_its_exit_code(
    error: type[EditguardError], base: type[Exception], exit_code: int
) -> None:
    assert error.__bases__ == (base,)
    assert error.exit_code == exit_code
    assert str(error("what, which rule, way out")) == "what, which rule, way out"


def test_error_classes_are_public_and_none_exits_as_a_pass() -> None:
    classes = [item for item in vars(errors).values() if isinstance(item, type) and issubclass(item, Exception)]
    assert sorted(cls.__name__ for cls in classes) == sorted(errors.__all__)
    assert all(cls.exit_code != 0 for cls in classes)
    assert all(cls.__name__ in str(errors.__doc__) for cls in classes)
