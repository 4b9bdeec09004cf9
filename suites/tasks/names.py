"""Tasks by the names that users give: our own, and after ``lm-eval:`` those of lm-evaluation-harness."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ...probes.errors import InputError
from ...probes.wording import suggest
from .cloze import Cloze
from .endings import Endings
from .harness import HARNESS, find_harness_task

if TYPE_CHECKING:
    from collections.abc import Iterable

    from .task import Task

__all__ = ["load_tasks", "split_names"]

_OWN = (Cloze, Endings)


def split_names(names: str | None) -> list[str]:
    """Return the names in a list that is written with commas."""
    return [] if names is None else [name.strip() for name in names.split(",") if name.strip()]


def load_tasks(tasks: Iterable[str | Task]) -> list[Task]:
    """Return the tasks of these names; a task of one's own stands for itself.

    Raises `InputError` for an unknown name, for a name that is given twice, and for a task of the harness where the extra
    ``editguard[tasks]`` is not installed.
    """
    loaded = [_load(task) if isinstance(task, str) else task for task in tasks]
    names = [task.name for task in loaded]
    for name in (name for name in names if names.count(name) > 1):
        raise InputError(f"The task {name!r} is asked twice, and its answers are the same both times; name it once.")
    return loaded


def _load(name: str) -> Task:
    if name.startswith(HARNESS):
        return find_harness_task(name)
    own = {task.name: task for task in _OWN}
    if name in own:
        return own[name]()
    suggestion = suggest(name, own)
    hint = f"known are {', '.join(own)}" if suggestion is None else f"did you mean {suggestion!r}?"
    raise InputError(f"There is no task {name!r} ({hint}); write '{HARNESS}NAME' for one of lm-evaluation-harness.")
