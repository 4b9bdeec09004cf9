"""Decide and act: policy, guarded editor, editors, transactions, runner and command line.

`GuardedEditor` and `Policy` are the public Python API; they are imported when first asked for, so that importing this
package loads neither torch nor transformers.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ..probes.requests import EditRequest
    from .guard import Assessment, GuardedEditor, Result
    from .policy import Policy, load_policy
    from .sequence import EditSequence

__all__ = ["Assessment", "EditRequest", "EditSequence", "GuardedEditor", "Policy", "Result", "load_policy"]

_HOMES = {
    "Assessment": ".guard",
    "EditRequest": "..probes.requests",
    "EditSequence": ".sequence",
    "GuardedEditor": ".guard",
    "Policy": ".policy",
    "Result": ".guard",
    "load_policy": ".policy",
}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(_HOMES[name], __package__), name)
