"""A task whose answers are written down, one list for each time that it is scored."""

from __future__ import annotations

from collections.abc import Sequence

from editguard.probes.model.language_model import LanguageModel

__all__ = ["ScriptedTask"]


class ScriptedTask:
    """Gives its lists of answers in turn, and keeps what it saw of the weights each time."""

    def __init__(self, name: str, answers: Sequence[Sequence[bool | None]], weight: str | None = None) -> None:
        self.name, self._answers, self._weight = name, list(answers), weight
        self.items = tuple(f"item {index}" for index in range(len(self._answers[0])))
        self.weights: list[float] = []
        """The norm of the parameter `weight` at each time."""

    def score(self, lm: LanguageModel) -> list[bool | None]:
        if self._weight is not None:
            self.weights.append(float(lm.model.get_parameter(self._weight).norm()))
        return list(self._answers.pop(0))
