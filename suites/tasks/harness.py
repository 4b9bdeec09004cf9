"""Tasks of lm-evaluation-harness, on the model in memory. They need the extra ``editguard[tasks]``.

``lm-eval:NAME`` is a task that the harness ships; its data come from a network. ``lm-eval:FOLDER/NAME`` is the task NAME of a
folder of YAML files, of which the data may be local. The harness scores each item, and an item counts as right where its metric
is 1. Out of scope: groups of tasks, and metrics between 0 and 1.
"""

from __future__ import annotations

import copy
import math
import random
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy
import torch

from ...probes.errors import InputError
from ...probes.wording import first_line

if TYPE_CHECKING:
    from ...probes.model.language_model import LanguageModel

__all__ = ["HARNESS", "HarnessTask", "find_harness_task"]

HARNESS = "lm-eval:"
"""Begins the name of a task of lm-evaluation-harness."""
_METRICS = ("exact_match", "acc_norm", "acc")
"""Metrics of one item that are 0 or 1; the first one that a task has counts."""
_ROWS = 8
"""Rows of one batch."""


def find_harness_task(name: str) -> HarnessTask:
    """Return the task called `name`, which begins with ``lm-eval:``.

    Raises `InputError` where the extra is not installed, or there is no such folder or task.
    """
    if find_spec("lm_eval") is None:
        raise InputError(
            f"The task {name!r} needs lm-evaluation-harness, which is not installed; install 'editguard[tasks]'."
        )
    folder, _, task = name.removeprefix(HARNESS).rpartition("/")
    path = Path(folder).expanduser() if folder else None
    if path is not None and not path.is_dir():
        raise InputError(
            f"The task {name!r} names the folder {folder!r}, which does not exist; write '{HARNESS}FOLDER/NAME'."
        )
    found = HarnessTask(name, task, path)
    found.check()
    return found


class HarnessTask:
    """One task of the harness: how many of its items does the model get right?"""

    def __init__(self, name: str, task: str, folder: Path | None) -> None:
        """`folder` holds the task's YAML; None stands for the tasks that the harness ships."""
        self.name, self._task, self._folder = name, task, folder
        self.items: tuple[str, ...] = ()
        """The items as text; they are known once the task was scored."""

    def check(self) -> None:
        """Raise `InputError` where the harness knows no single task of that name."""
        known = self._manager().all_subtasks
        if self._task not in known:
            where = "that lm-evaluation-harness ships" if self._folder is None else f"in {str(self._folder)!r}"
            listed = f" ({', '.join(sorted(known)[:5])})" if self._folder is not None and known else ""
            raise InputError(
                f"There is no task {self._task!r} among those {where}{listed}; name a single task, not a group."
            )

    def score(self, lm: LanguageModel) -> list[bool | None]:
        """Return whether the model is right, for each item, as the harness scores it; None for a score that is not finite.

        Raises `InputError` where the harness cannot run the task, or scores its items by no metric of 0 and 1.
        """
        from lm_eval.evaluator import simple_evaluate
        from lm_eval.models.huggingface import HFLM

        if lm.tokenizer.bos_token_id is None and lm.tokenizer.eos_token_id is None:
            raise InputError(
                "lm-evaluation-harness needs a token that begins or ends a text, and this tokenizer names neither; name its "
                "eos_token in tokenizer_config.json."
            )
        # The harness gives a tokenizer without a padding token one; the audit's own stays as it is.
        model = HFLM(pretrained=lm.model, tokenizer=copy.deepcopy(lm.tokenizer), batch_size=_ROWS)
        try:
            with _kept_random_state():
                results = simple_evaluate(
                    model=model,
                    tasks=[self._task],
                    task_manager=self._manager(),
                    bootstrap_iters=0,
                    log_samples=True,
                )
        except torch.AcceleratorError:
            raise
        except Exception as error:  # the harness runs the code of the task, which may raise anything
            raise InputError(
                f"lm-evaluation-harness cannot run the task {self._task!r} ({first_line(error)}); try it with lm_eval alone."
            ) from error
        samples = sorted(results["samples"][self._task], key=lambda sample: int(sample["doc_id"]))
        self.items = tuple(_describe(sample) for sample in samples)
        return self._read(samples)

    def _read(self, samples: Sequence[Mapping[str, Any]]) -> list[bool | None]:
        ids = [sample["doc_id"] for sample in samples]
        if len(set(ids)) != len(ids):
            raise InputError(
                f"The task {self._task!r} scores each item by several filters, and answers are paired by item; give it one."
            )
        metric = next((name for name in _METRICS if samples and all(name in sample for sample in samples)), None)
        if metric is None:
            raise InputError(
                f"The task {self._task!r} scores its items by none of {', '.join(_METRICS)}, so none is right or wrong; choose "
                "another task."
            )
        return [self._decide(sample, metric) for sample in samples]

    def _decide(self, sample: Mapping[str, Any], metric: str) -> bool | None:
        value = float(sample[metric])
        if not math.isfinite(value) or not all(map(math.isfinite, _iter_numbers(sample["filtered_resps"]))):
            return None
        if value not in (0.0, 1.0):
            raise InputError(
                f"The metric {metric!r} of the task {self._task!r} is {value:g} for an item, and an item is right or wrong (1 or "
                "0); choose another task."
            )
        return value == 1.0

    def _manager(self) -> Any:
        from lm_eval.tasks import TaskManager

        return TaskManager(include_path=self._folder, include_defaults=self._folder is None)


@contextmanager
def _kept_random_state() -> Iterator[None]:
    """Put back the process's random state, which the harness seeds and draws from."""
    states = random.getstate(), numpy.random.get_state()
    try:
        with torch.random.fork_rng():
            yield
    finally:
        random.setstate(states[0])
        numpy.random.set_state(states[1])


def _iter_numbers(answer: Any) -> list[float]:
    """Return the numbers in what the model answered to one item: log-probabilities, or none where it wrote text."""
    if isinstance(answer, float):
        return [answer]
    if isinstance(answer, list | tuple):
        return [number for part in answer for number in _iter_numbers(part)]
    return []


def _describe(sample: Mapping[str, Any]) -> str:
    """Return the text of the item: its first request to the model."""
    first = (
        next(iter(sample["arguments"].values())) if isinstance(sample["arguments"], Mapping) else sample["arguments"][0]
    )
    return str(next(iter(first.values())) if isinstance(first, Mapping) else first[0])
