"""The layouts in which a record may ask for an edit, one module each.

To add one, copy a module and change it: it is found by its being here, and its class is its `LAYOUT`. Out of scope: files and
formats (`request_files`), and how faults are worded (`request_forms`).
"""

from __future__ import annotations

import pkgutil
from importlib import import_module

from .base import Layout

__all__ = ["LAYOUTS"]


def _found() -> list[type[Layout]]:
    names = [module.name for module in pkgutil.iter_modules(__path__) if module.name != "base"]
    found: list[type[Layout]] = [import_module(f"{__name__}.{name}").LAYOUT for name in names]
    return sorted(found, key=lambda layout: (layout.order, layout.title))


LAYOUTS = tuple(_found())
"""All layouts in the order in which they are asked whether a record is theirs; editguard's own takes the rest, and is last."""
