"""The base class of editors: from keys and values it computes one update, whose size is clear before it is written.

An editor decides three things: the prefixes under which it takes keys, the key that it inserts at (``key``) and the
value that it starts from (``start``). The rest is common: ``u = C^-1 k_bar / ||C^-1 k_bar||`` and
``Delta = (v* - W k) u^T / (u . k)``, computed in float64.

An editor of several sites names its `stages`: the layers in the order in which their values are sought, and the editor that
does so at each. A later value is sought in the model with the earlier changes in place, so that it puts in what these leave
over.

Source: "The Fall of ROME" (arXiv 2406.11263), equations 3 and 4.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, ClassVar, NamedTuple, TypeAlias

import torch

from ...probes.errors import InputError, NotFinite, RequestError
from ...probes.keys.rewordings import write_rewordings
from ...probes.keys.subject_keys import SubjectKeys, compute_all_subject_keys
from ...probes.model.site_change import SiteChange
from ...probes.registry import Registry
from ..progress import Progress, show_nothing
from ..transaction import Transaction
from .search import optimise_values
from .surroundings import Surroundings, find_surroundings
from .update import InsertionFigures, WeightUpdate, join_updates
from .value import Engine, OptimisedValue, ValueProblem, ValueSettings, build_value_problem

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from ...probes.forward.prefix_cache import PrefixCache
    from ...probes.keys.prefixes import ContextPrefixes
    from ...probes.keys.statistics import KeyStatistics
    from ...probes.model.language_model import LanguageModel
    from ...probes.model.site import EditSite
    from ...probes.requests.request import EditRequest

__all__ = [
    "EDITORS",
    "Alternative",
    "EditContext",
    "Editor",
    "EditorTexts",
    "Insertion",
    "Plan",
    "SiteState",
    "Stage",
    "compute_updates",
    "find_editor",
]


class SiteState(NamedTuple):
    """The parts of an editor's context that belong to one site."""

    site: EditSite
    statistics: KeyStatistics
    prefix_cache: PrefixCache | None


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
    state_at: Callable[[int], SiteState] | None = None
    """Gives site, statistics and states of the unedited model at another layer; None where only `site` is edited."""
    memo: dict[str, Any] = field(default_factory=dict)
    """What editors compute once of the unedited model, by a name of their own."""

    def at_layer(self, layer: int) -> EditContext:
        """Return the context for the site of `layer`; raises `InputError` where edits are made at `site` alone."""
        if layer == self.site.layer:
            return self
        if self.state_at is None:
            raise InputError(
                f"The editor edits layer {layer}, and only layer {self.site.layer} is prepared; prepare the model with "
                "GuardedEditor.load, which prepares other layers when they are needed."
            )
        return replace(self, **self.state_at(layer)._asdict())


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
    """The parts of the change of one site that are settled before its v* is."""

    site: EditSite
    keys: SubjectKeys
    insertion: Insertion
    problem: ValueProblem
    direction: torch.Tensor | None = None
    """u [d_ff], a unit vector in float64 on the CPU; None for that of the key statistics at the mean key."""


class Stage(NamedTuple):
    """One site of an edit, and the editor that computes its change."""

    layer: int
    editor: Editor


class Alternative(NamedTuple):
    """An editor that is taken instead of another one."""

    editor: str
    reason: str
    """Why, as a clause."""


class Editor(ABC):
    """A method that computes the update of one request. It reads the model and never writes to it."""

    name: ClassVar[str]
    question: ClassVar[str]
    """One line for the documentation: which key and value are consistent with each other."""
    needs_prefix: ClassVar[bool] = False
    consistent: ClassVar[bool] = True
    """Whether key and denominator come from the same contexts, so that it may rewrite an edit to be safe."""
    rewrites: ClassVar[bool] = False
    """Whether it is made for subjects whose key with no prefix is a sink's, so that an edit asked of it needs no rewriting."""
    next_try: ClassVar[str | None] = None
    """The editor that makes an edit again where this one's failed its checks; it changes the same sites."""
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

    def stages(self, context: EditContext) -> Sequence[Stage]:
        """Return the sites that the edit changes, in the order in which their values are sought; one by default."""
        return (Stage(context.site.layer, self),)

    def find_alternative(self, context: EditContext) -> Alternative | None:
        """Return the editor to take instead where this one can make no edit in the model of `context`; None where it can."""
        return None

    def settings(self, general: ValueSettings) -> ValueSettings:
        """Return the constants of the search for v*. An editor may replace those of `general` by its own."""
        return general

    def plan(self, context: EditContext, request: EditRequest, keys: SubjectKeys, texts: EditorTexts) -> Plan:
        """Return the insertion and the search for v* of `request` at `context.site`.

        `keys` are those under the editor's contexts. At a later stage of an edit the earlier changes are in the model. Raises
        `RequestError`.
        """
        insertion = self.insertion(keys)
        start_norm, settings = float(insertion.start.norm()), self.settings(context.settings)
        prefixes = self.contexts(context.prefixes)
        problem = build_value_problem(
            context.lm, request, prefixes, start_norm=start_norm, settings=settings, reworded=texts.reworded
        )
        return Plan(context.site, keys, insertion, problem)

    def denominator(self, direction: torch.Tensor, insertion: Insertion) -> float:
        """Return u . k; raises `NotFinite` where it is 0."""
        along = float(direction @ insertion.key.double().cpu())
        if along == 0.0:
            raise NotFinite(
                f"The update of editor {self.name!r} has a denominator of 0: its key is orthogonal to its direction, so "
                "use --editor prefixed."
            )
        return along

    def finish(self, plan: Plan, value: OptimisedValue, statistics: KeyStatistics) -> WeightUpdate:
        """Return the update of the plan's site that puts `value` in; raises `NotFinite`."""
        keys, insertion = plan.keys, plan.insertion
        direction = statistics.direction(keys.mean_key) if plan.direction is None else plan.direction
        target = (insertion.start + value.delta.to(insertion.start.device)).double().cpu()
        residual = target - insertion.output.double().cpu()
        along = self.denominator(direction, insertion)
        if not torch.isfinite(residual).all():
            raise NotFinite(f"The value of editor {self.name!r} holds NaN or Inf; check the model's weights and dtype.")
        change = SiteChange(site=plan.site, left=(residual / along)[:, None], right=direction[:, None])
        figures = InsertionFigures(
            numerator=float(residual.norm()),
            denominator=abs(along),
            start_norm=float(insertion.start.norm()),
            target_norm=float(target.norm()),
            steps=value.steps,
            loss=value.loss,
            engine=value.engine.value,
        )
        return WeightUpdate(changes=(change,), editor=self.name, needs_prefix=self.needs_prefix, figures=(figures,))


EDITORS: Registry[Editor] = Registry("editors", f"{__package__}.builtin")


def find_editor(name: str) -> type[Editor]:
    """Return the editor called `name`, for edits.

    Raises `InputError` for an unknown editor and for a control.
    """
    editor = EDITORS.get(name)
    if editor.control:
        raise InputError(f"The editor {name!r} is a control, made to break models; use 'local' or 'everywhere'.")
    return editor


_Outcome: TypeAlias = WeightUpdate | RequestError | NotFinite


def compute_updates(context: EditContext, jobs: Sequence[tuple[str, EditRequest]]) -> list[_Outcome]:
    """Return the update of each (editor's name, request), or the error that it ended in.

    The searches of the first stage of each edit share batches. Those of a further stage are made one by one, with the
    job's earlier changes written for as long as it takes; they are undone, and proved by hash. An error is returned, not
    raised, since it says nothing about the other jobs.
    """
    if context.settings.engine is Engine.REFERENCE:
        context = replace(context, lm=replace(context.lm, plain=True), prefix_cache=None)
    editors = [EDITORS.get(name)() for name, _ in jobs]
    requests = [request for _, request in jobs]
    # The states of other layers are taken before anything is written.
    faults = {index: fault for index, editor in enumerate(editors) if (fault := _find_fault(context, editor))}
    stages = {
        index: [(context.at_layer(stage.layer), stage.editor) for stage in editor.stages(context)]
        for index, editor in enumerate(editors)
        if index not in faults
    }
    reworded = _write_rewordings(context, editors, requests)
    surroundings = _find_surroundings(context, editors, requests)
    texts = [
        EditorTexts(reworded.get(index, ()), surroundings.get(index, Surroundings())) for index in range(len(jobs))
    ]
    outcomes: dict[int, _Outcome] = {**faults}
    groups: dict[str, list[int]] = {}
    for index, ((first, _), *_) in stages.items():
        groups.setdefault(first.site.path, []).append(index)
    for members in groups.values():
        together = [_Job(stages[index][0][1], requests[index], texts[index]) for index in members]
        outcomes.update(zip(members, _compute_at_site(stages[members[0]][0][0], together), strict=True))
    for index, (_, *further) in stages.items():
        for site_context, editor in further:
            job = _Job(editor, requests[index], texts[index])
            outcomes[index] = _extend_update(site_context, job, outcomes[index])
    return [_name_editor(outcomes[index], editor) for index, editor in enumerate(editors)]


def _find_fault(context: EditContext, editor: Editor) -> RequestError | None:
    """Return the error of an editor that can make no edit in this model, None for one that can."""
    alternative = editor.find_alternative(context)
    if alternative is None:
        return None
    return RequestError(
        f"The editor {editor.name!r} makes no edit of this model: {alternative.reason}; use --editor {alternative.editor}."
    )


def _name_editor(outcome: _Outcome, editor: Editor) -> _Outcome:
    """Return the outcome as that of `editor`, and not of the editors of its stages."""
    if isinstance(outcome, WeightUpdate):
        return replace(outcome, editor=editor.name, needs_prefix=editor.needs_prefix)
    return outcome


class _Job(NamedTuple):
    """One request, its editor, and the texts that were made for it."""

    editor: Editor
    request: EditRequest
    texts: EditorTexts


def _extend_update(context: EditContext, job: _Job, update: _Outcome) -> _Outcome:
    """Return `update` with the change of one more site, computed with `update` in the model; an error stays one."""
    if not isinstance(update, WeightUpdate):
        return update
    with Transaction(update):
        # The stored states of the prefixes are those of the unedited model.
        (further,) = _compute_at_site(replace(context, prefix_cache=None), [job])
    return join_updates([update, further]) if isinstance(further, WeightUpdate) else further


def _compute_at_site(context: EditContext, jobs: Sequence[_Job]) -> list[_Outcome]:
    """Return the update of each job at the site of `context`, or its error. The searches share batches."""
    outcomes: dict[int, _Outcome] = {}
    plans: dict[int, Plan] = {}
    for index, keys in _compute_keys(context, jobs).items():
        editor, request, texts = jobs[index]
        try:
            if isinstance(keys, RequestError):
                raise keys
            plans[index] = editor.plan(context, request, keys, texts)
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
                value if isinstance(value, NotFinite) else jobs[index].editor.finish(plan, value, context.statistics)
            )
        except NotFinite as error:
            outcomes[index] = error
    return [outcomes[index] for index in range(len(jobs))]


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


def _compute_keys(context: EditContext, jobs: Sequence[_Job]) -> dict[int, SubjectKeys | RequestError]:
    """Return each request's keys under its editor's contexts. Requests with the same contexts are run together."""
    groups: dict[tuple[str, ...], list[int]] = {}
    for index, job in enumerate(jobs):
        groups.setdefault(tuple(job.editor.contexts(context.prefixes)), []).append(index)
    keys_by_index: dict[int, SubjectKeys | RequestError] = {}
    for texts, members in groups.items():
        group_requests = [jobs[index].request for index in members]
        keys = compute_all_subject_keys(
            context.lm, context.site, group_requests, texts, prefix_cache=context.prefix_cache
        )
        keys_by_index.update(zip(members, keys, strict=True))
    return keys_by_index
