"""The base class of editors: from keys and a value it computes one update, whose size is clear before it is written.

An editor decides three things: the prefixes under which it takes keys, the key that it inserts at (``key``) and the
value that it starts from (``start``). The rest is common: ``u = C^-1 k_bar / ||C^-1 k_bar||`` and
``Delta = (v* - W k) u^T / (u . k)``, computed in float64.

Source: "The Fall of ROME" (arXiv 2406.11263), equations 3 and 4.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, ClassVar, NamedTuple

import torch

from ...probes.errors import InputError, NotFinite, RequestError
from ...probes.keys.rewordings import write_rewordings
from ...probes.keys.subject_keys import SubjectKeys, compute_all_subject_keys
from ...probes.registry import Registry
from ..progress import Progress, show_nothing
from .search import optimise_values
from .surroundings import Surroundings, find_surroundings
from .value import Engine, OptimisedValue, ValueProblem, ValueSettings, build_value_problem

if TYPE_CHECKING:
    from collections.abc import Sequence

    from ...probes.forward.prefix_cache import PrefixCache
    from ...probes.keys.prefixes import ContextPrefixes
    from ...probes.keys.statistics import KeyStatistics
    from ...probes.model.language_model import LanguageModel
    from ...probes.model.site import EditSite
    from ...probes.requests.request import EditRequest

__all__ = [
    "EDITORS",
    "EditContext",
    "Editor",
    "EditorTexts",
    "Insertion",
    "Plan",
    "RankOneUpdate",
    "find_editor",
    "compute_updates",
]


@dataclass(frozen=True, kw_only=True)
class EditContext:
    """The model, the statistics and the settings that an editor works with. They are the same for every request of a run."""

    lm: LanguageModel
    site: EditSite
    statistics: KeyStatistics
    prefixes: ContextPrefixes
    settings: ValueSettings
    prefix_cache: PrefixCache | None = None
    """States of the prefixes in the unedited model, so that they are not run for every request."""
    progress: Progress = show_nothing
    """Told how far the searches for v* are."""


class Insertion(NamedTuple):
    """The place where an editor puts the fact.

    These are the key that it divides by, the present output there, and the value that v* starts from.
    """

    key: torch.Tensor
    output: torch.Tensor
    start: torch.Tensor


class EditorTexts(NamedTuple):
    """Texts of one request that the harness made for its editor; empty where the editor asks for none."""

    reworded: tuple[str, ...] = ()
    """The prompt in the model's own words."""
    surroundings: Surroundings = Surroundings()


class Plan(NamedTuple):
    """The parts of an update that are settled before its v* is."""

    keys: SubjectKeys
    insertion: Insertion
    problem: ValueProblem
    direction: torch.Tensor | None = None
    """u [d_ff], a unit vector in float64 on the CPU; None for that of the key statistics at the mean key."""


@dataclass(frozen=True, kw_only=True)
class RankOneUpdate:
    """A change of a weight by ``Delta = left right^T``, with the numbers that explain it.

    ``left`` is [d_model] and ``right`` is [d_ff], both float64 on the CPU.
    """

    left: torch.Tensor
    right: torch.Tensor
    editor: str
    numerator: float
    """||v* - W k||."""
    denominator: float
    """|u . k|, u of unit length."""
    start_norm: float
    """||v|| before the optimisation."""
    target_norm: float
    """||v*||."""
    steps: int
    loss: float
    engine: str
    needs_prefix: bool
    """Whether the edit was made under prefixes only, so that it is not expected to act without one."""

    @property
    def norm(self) -> float:
        """||Delta||_F, from the factors alone."""
        return float(self.left.norm() * self.right.norm())

    def delta(self) -> torch.Tensor:
        """Return Delta [d_model, d_ff] in float64."""
        return torch.outer(self.left, self.right)


class Editor(ABC):
    """A method that computes the update of one request. It reads the model and never writes to it."""

    name: ClassVar[str]
    question: ClassVar[str]
    """One line for the documentation: which key and value are consistent with each other."""
    needs_prefix: ClassVar[bool] = False
    consistent: ClassVar[bool] = True
    """Whether key and denominator come from the same contexts, so that it may rewrite an edit to be safe."""
    needs_surroundings: ClassVar[bool] = False
    """Whether its plan looks at other subjects and at other facts of the subject."""
    control: ClassVar[bool] = False
    """Whether it serves to break models, so that nobody may choose it for an edit."""

    @abstractmethod
    def contexts(self, prefixes: ContextPrefixes) -> Sequence[str]:
        """Return the texts under which keys are averaged and v* is optimised."""

    @abstractmethod
    def insertion(self, keys: SubjectKeys) -> Insertion:
        """Return the key, the present output and the start of v*."""

    def settings(self, general: ValueSettings) -> ValueSettings:
        """Return the constants of the search for v*. An editor may replace those of `general` by its own."""
        return general

    def plan(self, context: EditContext, request: EditRequest, keys: SubjectKeys, texts: EditorTexts) -> Plan:
        """Return the insertion and the search for v* of `request`. `keys` are those under the editor's contexts.

        Raises `RequestError`.
        """
        insertion = self.insertion(keys)
        start_norm, settings = float(insertion.start.norm()), self.settings(context.settings)
        prefixes = self.contexts(context.prefixes)
        problem = build_value_problem(
            context.lm, request, prefixes, start_norm=start_norm, settings=settings, reworded=texts.reworded
        )
        return Plan(keys, insertion, problem)

    def denominator(self, direction: torch.Tensor, insertion: Insertion) -> float:
        """Return u . k; raises `NotFinite` where it is 0."""
        along = float(direction @ insertion.key.double().cpu())
        if along == 0.0:
            raise NotFinite(
                f"The update of editor {self.name!r} has a denominator of 0: its key is orthogonal to its direction, so "
                "use --editor prefixed."
            )
        return along

    def finish(self, plan: Plan, value: OptimisedValue, statistics: KeyStatistics) -> RankOneUpdate:
        """Return the update that puts `value` in; raises `NotFinite`."""
        keys, insertion = plan.keys, plan.insertion
        direction = statistics.direction(keys.mean_key) if plan.direction is None else plan.direction
        target = (insertion.start + value.delta.to(insertion.start.device)).double().cpu()
        residual = target - insertion.output.double().cpu()
        along = self.denominator(direction, insertion)
        if not torch.isfinite(residual).all():
            raise NotFinite(f"The value of editor {self.name!r} holds NaN or Inf; check the model's weights and dtype.")
        return RankOneUpdate(
            left=residual / along,
            right=direction,
            editor=self.name,
            numerator=float(residual.norm()),
            denominator=abs(along),
            start_norm=float(insertion.start.norm()),
            target_norm=float(target.norm()),
            steps=value.steps,
            loss=value.loss,
            engine=value.engine.value,
            needs_prefix=self.needs_prefix,
        )


EDITORS: Registry[Editor] = Registry("editors", f"{__package__}.builtin")


def find_editor(name: str) -> type[Editor]:
    """Return the editor called `name`, for edits.

    Raises `InputError` for an unknown editor and for a control.
    """
    editor = EDITORS.get(name)
    if editor.control:
        raise InputError(f"The editor {name!r} is a control, made to break models; use 'local' or 'prefixed'.")
    return editor


def compute_updates(
    context: EditContext, jobs: Sequence[tuple[str, EditRequest]]
) -> list[RankOneUpdate | RequestError | NotFinite]:
    """Return the update of each (editor's name, request), or the error that it ended in.

    The searches share batches. An error is returned, not raised, since it says nothing about the other jobs.
    """
    if context.settings.engine is Engine.REFERENCE:
        context = replace(context, lm=replace(context.lm, plain=True), prefix_cache=None)
    editors = [EDITORS.get(name)() for name, _ in jobs]
    outcomes: list[RankOneUpdate | RequestError | NotFinite | None] = [None] * len(jobs)
    plans: dict[int, Plan] = {}
    requests = [request for _, request in jobs]
    reworded = _write_rewordings(context, editors, requests)
    surroundings = _find_surroundings(context, editors, requests)
    for index, keys in _compute_keys(context, editors, requests).items():
        try:
            if isinstance(keys, RequestError):
                raise keys
            texts = EditorTexts(reworded.get(index, ()), surroundings.get(index, Surroundings()))
            plans[index] = editors[index].plan(context, requests[index], keys, texts)
        except (RequestError, NotFinite) as error:
            outcomes[index] = error
    # Editors that differ only in the key they insert at (rome, c-rome) seek the same v*.
    problems = list(dict.fromkeys(plan.problem for plan in plans.values()))
    outcomes_of_searches = optimise_values(context.lm, context.site, problems, context.prefix_cache, context.progress)
    values = dict(zip(problems, outcomes_of_searches, strict=True))
    for index, plan in plans.items():
        value = values[plan.problem]
        try:
            outcomes[index] = (
                value if isinstance(value, NotFinite) else editors[index].finish(plan, value, context.statistics)
            )
        except NotFinite as error:
            outcomes[index] = error
    return [outcome for outcome in outcomes if outcome is not None]


def _write_rewordings(
    context: EditContext, editors: Sequence[Editor], requests: Sequence[EditRequest]
) -> dict[int, tuple[str, ...]]:
    """Return the rewordings of the requests whose editors seek v* under some. The model writes them together."""
    counts = {index: editor.settings(context.settings).rewordings for index, editor in enumerate(editors)}
    indices = [index for index, count in counts.items() if count]
    written = (
        write_rewordings(
            context.lm, [requests[index] for index in indices], max(counts.values()), context.prefixes.seed
        )
        if indices
        else []
    )
    return {index: texts[: counts[index]] for index, texts in zip(indices, written, strict=True)}


def _find_surroundings(
    context: EditContext, editors: Sequence[Editor], requests: Sequence[EditRequest]
) -> dict[int, Surroundings]:
    """Return the surroundings of the requests whose editors look at them."""
    indices = [index for index, editor in enumerate(editors) if editor.needs_surroundings]
    each = find_surroundings(context.lm, [requests[index] for index in indices], seed=context.prefixes.seed)
    return dict(zip(indices, each, strict=True))


def _compute_keys(
    context: EditContext, editors: Sequence[Editor], requests: Sequence[EditRequest]
) -> dict[int, SubjectKeys | RequestError]:
    """Return each request's keys under its editor's contexts. Requests with the same contexts are run together."""
    groups: dict[tuple[str, ...], list[int]] = {}
    for index, editor in enumerate(editors):
        groups.setdefault(tuple(editor.contexts(context.prefixes)), []).append(index)
    keys_by_index: dict[int, SubjectKeys | RequestError] = {}
    for texts, members in groups.items():
        group_requests = [requests[index] for index in members]
        keys = compute_all_subject_keys(
            context.lm, context.site, group_requests, texts, prefix_cache=context.prefix_cache
        )
        keys_by_index.update(zip(members, keys, strict=True))
    return keys_by_index
