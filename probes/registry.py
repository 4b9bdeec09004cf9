"""One generic registry for probes, editors and checks; other packages add theirs by entry points.

`Registry.load` enters every class the same way, under its `name`.
The built-in classes come first: each is one file in a folder of its own.
Then come those of installed packages (groups ``editguard.probes``, ``editguard.editors``, ``editguard.checks``).
The import of a module enters nothing.
A clash, or a plug-in that fails to load, is an error and never a warning: a missing probe would be a hole in the audit.
"""

from __future__ import annotations

import pkgutil
from importlib import import_module
from importlib.metadata import entry_points
from typing import TYPE_CHECKING, Any, Generic, TypeVar

from .errors import EditguardError, InputError
from .wording import suggest

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterator
    from types import ModuleType

__all__ = ["Registry", "is_installed"]

T = TypeVar("T")


class Registry(Generic[T]):
    """Classes by name, with the origin of each."""

    def __init__(
        self, kind: str, builtin: str | None = None, *, base: type[object] = object, reserved: Collection[str] = ()
    ) -> None:
        """`kind` is the plural used in messages and in the entry-point group, e.g. ``probes``.

        `builtin` names the package whose modules hold the built-in classes, except modules that begin with an underscore.
        `base` is the class that every class extends. `reserved` are names that no class may take.
        """
        self.kind = kind
        self._base = base
        self._reserved = frozenset(reserved)
        self._builtin = builtin
        self._classes: dict[str, type[T]] = {}
        self._loaded = False

    def register(self, name: str) -> Callable[[type[T]], type[T]]:
        """Return a class decorator that enters the class under `name`.

        Raises `InputError` when the name is reserved or taken by another class, or the class does not extend `base`.
        """

        def enter(cls: type[T]) -> type[T]:
            if not (isinstance(cls, type) and issubclass(cls, self._base)):
                raise InputError(
                    f"{name!r} among the {self.kind} is {cls!r}, which does not extend {_origin(self._base)}; extend it or "
                    "uninstall its package."
                )
            if name in self._reserved:
                raise InputError(
                    f"The name {name!r} of {_origin(cls)} is reserved for editguard itself; give the class another name or "
                    "uninstall its package."
                )
            registered = self._classes.get(name)
            if registered is not None and registered is not cls:
                raise InputError(
                    f"Two {self.kind} are called {name!r}: {_origin(registered)} and {_origin(cls)}; a name must be "
                    "unique, so rename one or uninstall its package."
                )
            self._classes[name] = cls
            return cls

        return enter

    def load(self) -> None:
        """Enter the built-in classes and those of installed packages; called once, later calls do nothing."""
        if self._loaded:
            return
        for cls in _classes_in(self._builtin) if self._builtin else ():
            self.register(cls.name)(cls)
        for entry in entry_points(group=f"editguard.{self.kind}"):
            try:
                cls = entry.load()
            except Exception as error:  # the import runs another package's code, which may raise anything
                fault = f"{type(error).__name__}: {error}" if str(error) else type(error).__name__
                raise InputError(
                    f"The entry point {entry.name!r} ({entry.value}) in group 'editguard.{self.kind}' does not load "
                    f"({fault}); a plugin that is installed must load, so mend it or uninstall its package."
                ) from error
            own_name = getattr(cls, "name", entry.name)
            if own_name != entry.name:
                raise InputError(
                    f"The entry point {entry.name!r} ({entry.value}) in group 'editguard.{self.kind}' is a class that calls "
                    f"itself {own_name!r}, and its results are logged under that name; give both the same name or uninstall "
                    "its package."
                )
            self.register(entry.name)(cls)
        self._loaded = True

    def get(self, name: str) -> type[T]:
        """Return the class called `name`; raises `InputError` with the nearest known name."""
        self.load()
        if name in self._classes:
            return self._classes[name]
        # A control is run by the audit and chosen by nobody.
        choices = [other for other in self.names() if not getattr(self._classes[other], "control", False)]
        suggestion = suggest(name, choices)
        hint = f"known are {', '.join(choices)}." if suggestion is None else f"did you mean {suggestion!r}?"
        raise InputError(
            f"There is no {name!r} among the {self.kind}; {hint} 'editguard list {self.kind}' describes them."
        )

    def names(self) -> list[str]:
        """Return all names, sorted."""
        self.load()
        return sorted(self._classes)

    def __iter__(self) -> Iterator[tuple[str, type[T]]]:
        """Iterate over (name, class), sorted by name."""
        self.load()
        return iter(sorted(self._classes.items()))


def is_installed(name: str, kind: str, builtin: ModuleType) -> bool:
    """Return whether a module of the package `builtin` or an entry point has the name of a plug-in; none is imported.

    A built-in plug-in is named like its module, with hyphens for underscores.
    """
    modules = {module.name.replace("_", "-") for module in pkgutil.iter_modules(builtin.__path__)}
    return name in modules or any(entry.name == name for entry in entry_points(group=f"editguard.{kind}"))


def _classes_in(package: str) -> Iterator[type[Any]]:
    """Yield the named classes of each public module of `package`; raises `EditguardError` where a module has none."""
    for module in pkgutil.iter_modules(import_module(package).__path__, f"{package}."):
        if module.name.rpartition(".")[2].startswith("_"):
            continue
        members = vars(import_module(module.name)).values()
        classes = [
            cls
            for cls in members
            if isinstance(cls, type) and cls.__module__ == module.name and isinstance(getattr(cls, "name", None), str)
        ]
        if not classes:
            raise EditguardError(
                f"The module {module.name} of built-in plug-ins holds no class with a name; give its class a name, or begin "
                "the file's name with an underscore."
            )
        yield from classes


def _origin(cls: type[object]) -> str:
    return f"{cls.__module__}.{cls.__qualname__}"
