"""The registry finds, refuses a clash and a plugin that does not load, and names what was meant."""

from __future__ import annotations

from collections.abc import Callable
from importlib.metadata import EntryPoint

import pytest
from editguard.probes import registry as module
from editguard.probes.errors import InputError
from editguard.probes.registry import Registry


class Thing:
    pass


class Other:
    pass


Install = Callable[..., None]


@pytest.fixture
def install(monkeypatch: pytest.MonkeyPatch) -> Install:
    """Install entry points: name="module:object", in the group that the registry asks for."""

    def entries(found: dict[str, str]) -> Callable[..., list[EntryPoint]]:
        def ask(*, group: str) -> list[EntryPoint]:
            return [EntryPoint(name, value, group) for name, value in found.items() if group == "editguard.things"]

        return ask

    return lambda **found: monkeypatch.setattr(module, "entry_points", entries(found))


def test_a_class_is_found_by_its_name() -> None:
    things: Registry[object] = Registry("things")
    assert things.register("one")(Thing) is Thing
    things.register("another")(Other)
    assert things.get("one") is Thing
    assert things.names() == ["another", "one"]
    assert list(things) == [("another", Other), ("one", Thing)]


def test_a_class_may_register_twice_but_two_classes_may_not_share_a_name() -> None:
    things: Registry[object] = Registry("things")
    things.register("one")(Thing)
    things.register("one")(Thing)
    with pytest.raises(InputError, match=r"Two things are called 'one': .*\.Thing and .*\.Other"):
        things.register("one")(Other)
    assert things.get("one") is Thing


def test_an_unknown_name_is_answered_with_the_nearest_or_with_all() -> None:
    things: Registry[object] = Registry("things")
    things.register("denominator")(Thing)
    with pytest.raises(InputError, match=r"did you mean 'denominator'\?"):
        things.get("denominater")
    with pytest.raises(InputError, match="known are denominator"):
        things.get("zzz")


def test_two_registries_do_not_share_classes() -> None:
    first: Registry[object] = Registry("things")
    first.register("one")(Thing)
    second: Registry[object] = Registry("things")
    assert second.names() == []


def test_classes_of_installed_packages_are_found(install: Install) -> None:
    install(theirs="collections:OrderedDict")
    things: Registry[object] = Registry("things")
    things.register("one")(Thing)
    assert things.names() == ["one", "theirs"]
    install(late="collections:Counter")
    assert things.names() == ["one", "theirs"], "entry points are read once"


def test_another_group_is_not_read(install: Install) -> None:
    install(theirs="collections:OrderedDict")
    assert Registry[object]("others").names() == []


@pytest.mark.parametrize("value", ["no_such_module:Thing", "collections:NoSuchThing"])
def test_a_plugin_that_does_not_load_is_an_error_each_time(install: Install, value: str) -> None:
    install(broken=value)
    things: Registry[object] = Registry("things")
    for ask in (things.load, things.names, lambda: things.get("one"), lambda: list(things)):
        with pytest.raises(InputError, match=r"'broken' .* in group 'editguard.things' does not load"):
            ask()


def test_a_plugin_that_takes_a_name_is_an_error(install: Install) -> None:
    things: Registry[object] = Registry("things")
    things.register("one")(Thing)
    install(one="collections:Counter")
    with pytest.raises(InputError, match=r"Thing and collections\.Counter"):
        things.names()


class Named:
    name = "mine"


def test_a_plugin_whose_class_has_another_name_is_an_error(install: Install) -> None:
    install(theirs=f"{__name__}:Named")
    with pytest.raises(InputError, match=r"'theirs' .* calls itself 'mine'; .* give both the same"):
        Registry[object]("things").names()
    install(mine=f"{__name__}:Named")
    assert Registry[object]("things").names() == ["mine"]
