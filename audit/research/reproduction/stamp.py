"""What the figures of a reproduction depend on, by name, so that what was kept of another one is told from this one's.

A stamp is kept beside whatever is kept; where it differs, the error names each difference with both values.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from enum import Enum
from importlib.metadata import version
from pathlib import Path

from ....probes.errors import InputError
from ....probes.requests.loader import LoadedRequests
from ....reports.text import join_parts, printable
from ...editors.base import chosen_editor
from ...setup import Setup

__all__ = ["Stamp", "editor_settings", "editor_stamp", "refuse_another", "run_stamp", "stamp_in"]

Stamp = Mapping[str, str]
"""Value by name; long ones as the start of their hash."""

_PACKAGES = ("editguard", "torch", "transformers")


def run_stamp(setup: Setup, loaded: LoadedRequests, ordinary: int, most_cases: int) -> Stamp:
    """Return what the choice of cases, and all that is measured of them, depends on."""
    lm, ids = setup.lm, [request.id for request in loaded.requests]
    prefixes = [[one.family.value, one.text, one.role.value] for one in setup.prefixes.prefixes]
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


def editor_settings(setup: Setup, editor: str) -> dict[str, str | int | float]:
    """Return the constants of the search for v* that `editor` works with."""
    found = asdict(chosen_editor(editor)().settings(setup.settings))
    return {name: value.value if isinstance(value, Enum) else value for name, value in found.items()}


def editor_stamp(stamp: Stamp, setup: Setup, editor: str) -> Stamp:
    """Return what the edits of `editor` depend on."""
    return {
        **stamp,
        "editor": editor,
        **{f"setting {name}": _plain(value) for name, value in editor_settings(setup, editor).items()},
    }


def refuse_another(what: str, kept: Stamp, asked: Stamp) -> None:
    """Raise `InputError` where `what`, a sentence's beginning, was made under another stamp than the one asked for."""
    names = [name for name in {**asked, **kept} if kept.get(name) != asked.get(name)]
    if names:
        told = [printable(f"{name} ({kept.get(name, 'none')}, now {asked.get(name, 'none')})") for name in names]
        raise InputError(f"{what} was begun with another {join_parts(told)}; give another --out, or remove it.")


def stamp_in(text: object, path: Path) -> Stamp:
    """Return the stamp that the header of the log `path` holds as `text`; raises `InputError` where it holds none."""
    try:
        found = json.loads(text) if isinstance(text, str) else None
    except (ValueError, RecursionError):
        found = None
    if not isinstance(found, dict) or not all(isinstance(value, str) for value in found.values()):
        raise InputError(
            f"The log {str(path)!r} does not say what it was begun with; give another --out, or remove it."
        )
    return found


def _plain(value: object) -> str:
    return value if isinstance(value, str) else json.dumps(value)


def _digest(parts: Sequence[str]) -> str:
    return hashlib.sha256("\1".join(parts).encode("utf-8", "surrogatepass")).hexdigest()[:12]
