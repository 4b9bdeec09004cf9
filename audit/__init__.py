"""Decide and act: policy, guarded editor, editors, transactions, runner and command line.

`GuardedEditor` and `Policy` are the public Python API; they are imported when first asked for, so that importing this
package loads neither torch nor transformers.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from .._lazy import lazy_names

if TYPE_CHECKING:
    from ..probes.requests.request import EditRequest as EditRequest
    from .edit_result import Assessment as Assessment
    from .edit_result import EditResult as EditResult
    from .guard import GuardedEditor as GuardedEditor
    from .policy import Policy as Policy
    from .policy import load_policy as load_policy
    from .sequence import EditSequence as EditSequence

__all__, __getattr__, __dir__ = lazy_names(
    __name__,
    {
        "EditRequest": "..probes.requests.request",
        "Assessment": ".edit_result",
        "GuardedEditor": ".guard",
        "EditResult": ".edit_result",
        "Policy": ".policy",
        "load_policy": ".policy",
        "EditSequence": ".sequence",
    },
)
