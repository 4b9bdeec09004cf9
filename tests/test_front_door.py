"""The front door: `import editguard` offers the stable names, and loads nothing heavy."""

from __future__ import annotations

import inspect
import subprocess
import sys
import typing
from importlib.metadata import version

import pytest
from editguard.audit import setup

import editguard

HEAVY = ("torch", "transformers", "pandas", "numpy")


@pytest.mark.parametrize("name", editguard.__all__)
def test_front_door_name_loads_and_is_documented(name: str) -> None:
    value = getattr(editguard, name)
    assert value.__name__ == name
    assert (value.__doc__ or "").strip()


def test_front_door_has_its_names_in_order() -> None:
    assert editguard.__all__ == sorted(editguard.__all__)
    assert dir(editguard) == editguard.__all__


def test_front_door_offers_the_domain_names() -> None:
    assert {"EditRequest", "EditResult", "GuardedEditor", "ProbeInput", "Finding", "Measurement"} <= {
        *editguard.__all__
    }
    assert not {"Result", "Case"} & {*editguard.__all__}


def test_front_door_unknown_name_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="'editguard' has no attribute 'nothing'"):
        editguard.nothing  # type: ignore[attr-defined]  # noqa: B018


def test_version_equals_that_of_the_distribution() -> None:
    assert editguard.__version__ == version("editguard")


def test_importing_the_front_door_loads_nothing_heavy() -> None:
    program = f"import editguard, sys; print([name for name in {HEAVY!r} if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_load_spells_out_the_parameters_of_prepare() -> None:
    load, prepare = (inspect.signature(function) for function in (editguard.GuardedEditor.load, setup.prepare))
    given = {name: parameter for name, parameter in load.parameters.items() if name != "model"}
    assert given.keys() == prepare.parameters.keys() - {"lm"}
    for name, parameter in given.items():
        assert parameter.kind is inspect.Parameter.KEYWORD_ONLY
        assert parameter.default == prepare.parameters[name].default
        assert parameter.annotation == prepare.parameters[name].annotation
        assert "Any" not in str(parameter.annotation)
        assert f"{name}:" in (editguard.GuardedEditor.load.__doc__ or "")
    assert typing.get_origin(load.return_annotation) is None
