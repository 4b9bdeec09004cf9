"""Stamp of a reproduction: everything that its figures depend on, by name.

Each stored file holds the stamp that it was made under. Where it differs, the error names each difference with both values.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from enum import Enum
from importlib.metadata import version
from typing import TYPE_CHECKING

from ....probes.errors import InputError
from ....reports.text import join_parts, printable
from ...editors.base import find_editor

if TYPE_CHECKING:
    from pathlib import Path

    from ....probes.requests.loader import LoadedRequests
    from ...setup import Setup

__all__ = ["Stamp", "build_editor_stamp", "build_run_stamp", "check_stamp", "list_editor_settings", "parse_stamp"]

Stamp = Mapping[str, str]
"""Value by name; long ones as the start of their hash."""

_PACKAGES = ("editguard", "torch", "transformers")


def build_run_stamp(setup: Setup, loaded: LoadedRequests, ordinary: int, most_cases: int) -> Stamp:
    """Return everything that the cases and their measurements depend on."""
    lm, ids = setup.lm, [request.id for request in loaded.requests]
    prefixes = [[prefix.family.value, prefix.text, prefix.role.value] for prefix in setup.prefixes.prefixes]
    return {
        **{name: version(name) for name in _PACKAGES},
        "model": f"{lm.architecture} {lm.fingerprint[:12]}",
        "dtype": str(lm.dtype).removeprefix("torch."),
        "dtype of the checks": str(setup.check_dtype or lm.dtype).removeprefix("torch."),
        "device": str(lm.device),
        "site": setup.site.path,
        "file": loaded.sha256[:12],
        "requests": f"{len(ids)} with ids {_digest(ids)}",
        "seed": str(setup.seed),
        "number of ordinary cases": str(ordinary),
        "most cases": str(most_cases),
        "engine": setup.settings.engine.value,
        "matrix products": lm.product_library,
        "key statistics": setup.statistics.sha256[:12],
        "prefixes": _digest([json.dumps(prefixes)]),
        "perplexity corpus": _digest(setup.corpus),
        **{f"policy {name}": _plain(value) for name, value in setup.policy.model_dump(mode="json").items()},
    }


def list_editor_settings(setup: Setup, editor: str) -> dict[str, str | int | float]:
    """Return the constants of the search for v* that `editor` works with."""
    settings = asdict(find_editor(editor)().settings(setup.settings))
    return {name: value.value if isinstance(value, Enum) else value for name, value in settings.items()}


def build_editor_stamp(stamp: Stamp, setup: Setup, editor: str) -> Stamp:
    """Return what the edits of `editor` depend on."""
    return {
        **stamp,
        "editor": editor,
        **{f"setting {name}": _plain(value) for name, value in list_editor_settings(setup, editor).items()},
    }


def check_stamp(what: str, stored: Stamp, current: Stamp) -> None:
    """Raise `InputError` where `what`, a sentence's beginning, was made under another stamp than `current`."""
    names = [name for name in {**current, **stored} if stored.get(name) != current.get(name)]
    if names:
        differences = [
            printable(f"{name} ({stored.get(name, 'none')}, now {current.get(name, 'none')})") for name in names
        ]
        raise InputError(f"{what} was begun with another {join_parts(differences)}; give another --out, or remove it.")


def parse_stamp(text: object, path: Path) -> Stamp:
    """Return the stamp that the header of the log `path` holds as `text`; raises `InputError` where it holds none."""
    try:
        stamp = json.loads(text) if isinstance(text, str) else None
    except (ValueError, RecursionError):
        stamp = None
    if not isinstance(stamp, dict) or not all(isinstance(value, str) for value in stamp.values()):
        raise InputError(
            f"The log {str(path)!r} does not say what it was begun with; give another --out, or remove it."
        )
    return stamp


def _plain(value: object) -> str:
    return value if isinstance(value, str) else json.dumps(value)


def _digest(parts: Sequence[str]) -> str:
    return hashlib.sha256("\1".join(parts).encode("utf-8", "surrogatepass")).hexdigest()[:12]
