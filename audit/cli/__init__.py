"""The command line."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ..._lazy import lazy_names

if TYPE_CHECKING:
    from .main import app as app
    from .main import main as main

__all__, __getattr__, __dir__ = lazy_names(
    __name__,
    {
        "app": ".main",
        "main": ".main",
    },
)
