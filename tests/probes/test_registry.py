"""The registry enters built-in and foreign classes by one rule, refuses what does not fit, and suggests a name."""

from __future__ import annotations

import sys
from collections.abc import Callable
from importlib.metadata import EntryPoint
from pathlib import Path

import pytest
from editguard.probes import builtin
from editguard.probes import registry as module
from editguard.probes.errors import EditguardError, InputError
from editguard.probes.probe import PROBES
from editguard.probes.registry import Registry, is_installed


class Thing:
    pass


class Other:
    pass


class Named:
    name = "mine"


INSTANCE = Named()
Install = Callable[..., None]


@pytest.fixture
def install(monkeypatch: pytest.MonkeyPatch) -> Install:
    """Install entry points: name="module:object", in the group that the registry asks for."""

    def entries(values: dict[str, str]) -> Callable[..., list[EntryPoint]]:
        def select(*, group: str) -> list[EntryPoint]:
            return [EntryPoint(name, value, group) for name, value in values.items() if group == "editguard.things"]

        return select

    return lambda **values: monkeypatch.setattr(module, "entry_points", entries(values))


@pytest.fixture
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., str]:
    """Return a function that writes a package of the given modules and returns its name."""
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setattr(sys, "dont_write_bytecode", True)

    def write(**modules: str) -> str:
        name = f"plugins_{tmp_path.name.replace('-', '_')}"
        folder = tmp_path / name
        folder.mkdir()
        for stem, text in {"__init__": "", **modules}.items():
            (folder / f"{stem}.py").write_text(text)
        return name

    return write


def test_registry_class_is_found_by_its_name() -> None:
    things: Registry[object] = Registry("things")
    assert things.register("one")(Thing) is Thing
    things.register("another")(Other)
    assert things.get("one") is Thing
    assert things.names() == ["another", "one"]
    assert list(things) == [("another", Other), ("one", Thing)]


def test_register_same_class_twice_is_accepted_and_another_class_refused() -> None:
    things: Registry[object] = Registry("things")
    things.register("one")(Thing)
    things.register("one")(Thing)
    with pytest.raises(InputError, match=r"Two things are called 'one': .*\.Thing and .*\.Other"):
        things.register("one")(Other)
    assert things.get("one") is Thing


def test_register_reserved_name_is_refused() -> None:
    things: Registry[object] = Registry("things", reserved=("measurement",))
    with pytest.raises(InputError, match=r"The name 'measurement' of .*\.Thing is reserved"):
        things.register("measurement")(Thing)
    assert things.names() == []


def test_register_class_that_does_not_extend_the_base_is_refused() -> None:
    things: Registry[Thing] = Registry("things", base=Thing)
    with pytest.raises(InputError, match=r"'other' among the things is .*Other.* does not extend .*\.Thing"):
        things.register("other")(Other)  # type: ignore[arg-type]
    assert things.names() == []


def test_get_unknown_name_suggests_the_nearest_or_lists_all() -> None:
    things: Registry[object] = Registry("things")
    things.register("denominator")(Thing)
    with pytest.raises(InputError, match=r"did you mean 'denominator'\?"):
        things.get("denominater")
    with pytest.raises(InputError, match="known are denominator"):
        things.get("zzz")


def test_is_installed_asks_modules_and_entry_points_and_imports_none(install: Install) -> None:
    install(foreign="no.such.module:Probe")
    assert all(is_installed(name, "things", builtin) for name in [*PROBES.names(), "foreign"])
    assert not any(is_installed(name, "things", builtin) for name in ("first_token", "denominater", "foreig", ""))


def test_two_registries_share_no_classes() -> None:
    first: Registry[object] = Registry("things")
    first.register("one")(Thing)
    second: Registry[object] = Registry("things")
    assert second.names() == []


# Built-in classes


def test_load_builtin_package_enters_the_named_classes_of_its_modules(package: Callable[..., str]) -> None:
    name = package(
        large="from collections import OrderedDict\nclass Large:\n    name = 'large'\nclass Helper:\n    pass\n",
        small="from ._shared import Shared\nclass Small(Shared):\n    name = 'small'\n",
        _shared="class Shared:\n    name = 'shared'\n",
    )
    things: Registry[object] = Registry("things", name)
    assert things.names() == ["large", "small"]
    assert things.get("small").__module__ == f"{name}.small"


@pytest.mark.parametrize("text", ["", "class Nameless:\n    pass\n", "from collections import Counter\n"])
def test_load_builtin_module_without_a_named_class_is_an_error(package: Callable[..., str], text: str) -> None:
    things: Registry[object] = Registry("things", package(empty=text))
    for read in (things.load, things.names):
        with pytest.raises(EditguardError, match=r"\.empty of built-in plug-ins holds no class with a name"):
            read()


def test_load_builtin_module_that_does_not_import_is_an_error(package: Callable[..., str]) -> None:
    things: Registry[object] = Registry("things", package(broken="import no_such_module\n"))
    with pytest.raises(ModuleNotFoundError, match="no_such_module"):
        things.names()


def test_load_two_builtin_classes_of_one_name_is_an_error(package: Callable[..., str]) -> None:
    text = "class Thing:\n    name = 'same'\n"
    with pytest.raises(InputError, match=r"Two things are called 'same': .*\.first\.Thing and .*\.second\.Thing"):
        Registry[object]("things", package(first=text, second=text)).names()


def test_load_builtin_and_foreign_class_of_one_name_is_an_error(package: Callable[..., str], install: Install) -> None:
    things: Registry[object] = Registry("things", package(mine="class Own:\n    name = 'mine'\n"))
    install(mine=f"{__name__}:Named")
    with pytest.raises(InputError, match=r"Two things are called 'mine': .*\.Own and .*\.Named"):
        things.names()


# Classes of other packages


def test_load_enters_classes_of_installed_packages_once(install: Install) -> None:
    install(theirs="collections:OrderedDict")
    things: Registry[object] = Registry("things")
    things.register("one")(Thing)
    assert things.names() == ["one", "theirs"]
    install(late="collections:Counter")
    assert things.names() == ["one", "theirs"], "entry points are read once"


def test_load_reads_no_other_group(install: Install) -> None:
    install(theirs="collections:OrderedDict")
    assert Registry[object]("others").names() == []


@pytest.mark.parametrize(
    "text",
    [
        None,
        "",
        "class Thing:",
        "import no_such_module",
        "no_such_name",
        "'text' + 1",
        "raise OSError('no disk')",
        "raise ValueError",
    ],
)
def test_load_plugin_that_does_not_import_is_an_error_each_time(
    install: Install, package: Callable[..., str], text: str | None
) -> None:
    install(broken="no_such_module:Thing" if text is None else f"{package(broken=text)}.broken:Thing")
    things: Registry[object] = Registry("things")
    for read in (things.load, things.names, lambda: things.get("one"), lambda: list(things)):
        with pytest.raises(InputError, match=r"'broken' .* in group 'editguard.things' does not load"):
            read()


def test_load_plugin_that_takes_a_name_is_an_error(install: Install) -> None:
    things: Registry[object] = Registry("things")
    things.register("one")(Thing)
    install(one="collections:Counter")
    with pytest.raises(InputError, match=r"Thing and collections\.Counter"):
        things.names()


def test_load_plugin_whose_class_has_another_name_is_an_error(install: Install) -> None:
    install(theirs=f"{__name__}:Named")
    with pytest.raises(InputError, match=r"'theirs' .* calls itself 'mine'.*; give both the same name"):
        Registry[object]("things").names()
    install(mine=f"{__name__}:Named")
    assert Registry[object]("things").names() == ["mine"]


@pytest.mark.parametrize("value", [f"{__name__}:Named", f"{__name__}:INSTANCE"])
def test_load_plugin_that_does_not_extend_the_base_is_an_error(install: Install, value: str) -> None:
    install(mine=value)
    with pytest.raises(InputError, match=r"'mine' among the things is .* does not extend .*\.Thing"):
        Registry[Thing]("things", base=Thing).names()


def test_load_plugin_of_a_reserved_name_is_an_error(install: Install) -> None:
    install(mine=f"{__name__}:Named")
    with pytest.raises(InputError, match=r"'mine' .* is reserved"):
        Registry[object]("things", reserved=("mine",)).names()
