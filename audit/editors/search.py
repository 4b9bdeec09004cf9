"""The search for v*: descent on one delta for each problem, many problems in one batch, finished ones dropped.

Problems are independent: the loss is a sum over them, so each delta gets the gradient of its own loss only. A problem
that breaks (NaN) leaves the others as they are. No step follows the last evaluation.

Two engines compute the same logits. The engine ``reference`` runs each problem's whole texts through the whole model. The
engine ``live`` runs only the tokens and layers that delta can reach (`editguard.probes.forward.partial`), with problems of
similar width together. It is compared with the full pass before it is trusted.
"""

from __future__ import annotations

from collections import deque
from contextlib import contextmanager
from functools import cached_property, partial
from itertools import accumulate, chain
from typing import TYPE_CHECKING, Protocol

import torch

from ...probes.errors import NotFinite
from ...probes.forward.batches import run_fitting
from ...probes.forward.live_rows import LiveRows
from ...probes.forward.partial import Row, compute_plain_logits
from ..progress import Progress, show_nothing
from .value import Descent, Engine, OptimisedValue, ValueProblem

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from ...probes.forward.prefix_cache import PrefixCache
    from ...probes.model.language_model import LanguageModel
    from ...probes.model.site import EditSite

__all__ = ["optimise_values"]

_AGREEMENT = 5e-3
"""Largest relative difference of a probability between the live and the full pass, in fp32; measured: under 1e-4."""
_LIVE_TOKENS, _KEPT_TOKENS = 512, 16384
"""Two bounds of one batch. The first is on the live tokens of one step, padding included: with so many, matrix products
are at full speed on two cores. The second is on the tokens whose attention states it keeps, which bounds its memory."""

_MOMENTUM = 0.5
"""Weight of earlier directions in that of a step of steepest descent."""

Outcome = OptimisedValue | NotFinite


class _Forward(Protocol):
    """Logits of some rows, with a delta added at each row's place."""

    engine: Engine

    @property
    def first(self) -> torch.Tensor:
        """The unedited logits [places, vocabulary]."""

    def logits(self, deltas: torch.Tensor) -> torch.Tensor:
        """Return the logits [places, vocabulary] with `deltas` [rows, d_model] added."""

    def part(self, indices: Sequence[int]) -> _Forward:
        """Return the forward of the rows with these indices only."""


class _Whole:
    """The engine ``reference``: whole texts through the whole model."""

    engine = Engine.REFERENCE

    def __init__(self, lm: LanguageModel, site: EditSite, rows: Sequence[Row]) -> None:
        self._lm, self._site, self._rows = lm, site, rows
        width = max(len(row.ids) for row in rows)
        self._at = [n * width + row.at for n, row in enumerate(rows)]

    @cached_property
    def first(self) -> torch.Tensor:
        with torch.no_grad():
            return compute_plain_logits(self._lm, self._rows)

    def logits(self, deltas: torch.Tensor) -> torch.Tensor:
        with _add_deltas(self._site, deltas, self._at):
            return compute_plain_logits(self._lm, self._rows)

    def part(self, indices: Sequence[int]) -> _Whole:
        return _Whole(self._lm, self._site, [self._rows[row] for row in indices])


class _Live:
    """The engine ``live``: only the tokens and layers that delta can reach."""

    engine = Engine.LIVE

    def __init__(self, site: EditSite, live: LiveRows) -> None:
        self._site, self._live = site, live
        self._at = [n * live.width for n in range(len(live.rows))]

    @property
    def first(self) -> torch.Tensor:
        return self._live.first

    def logits(self, deltas: torch.Tensor) -> torch.Tensor:
        with _add_deltas(self._site, deltas, self._at):
            return self._live.logits()

    def part(self, indices: Sequence[int]) -> _Live:
        return _Live(self._site, self._live.part(indices))

    def agrees(self, *, exact: bool) -> bool:
        """Return whether the live pass gives the full pass's probabilities. Half precision has a wider tolerance."""
        with torch.no_grad():
            worst = float((self._live.logits().log_softmax(-1) - self.first.log_softmax(-1)).exp().sub(1).abs().max())
        return worst <= (_AGREEMENT if exact else 0.5)


class _Optimiser(Protocol):
    """Moves a delta in place, down one gradient after the other."""

    def step(self, delta: torch.Tensor, gradient: torch.Tensor) -> None:
        """Move `delta` [d_model] in place by one step down `gradient` [d_model]."""


class _Adam:
    """Adam as published, over the one delta that it is built for."""

    def __init__(self, delta: torch.Tensor, learning_rate: float) -> None:
        self._adam = torch.optim.Adam([delta], lr=learning_rate)

    def step(self, delta: torch.Tensor, gradient: torch.Tensor) -> None:
        delta.grad = gradient
        self._adam.step()


class _SteepestDescent:
    """Steps of one length along the running mean of the directions of the gradients."""

    def __init__(self, length: float) -> None:
        self._length = length
        self._direction: torch.Tensor | None = None

    def step(self, delta: torch.Tensor, gradient: torch.Tensor) -> None:
        before = torch.zeros_like(delta) if self._direction is None else self._direction
        unit = torch.nn.functional.normalize(gradient, dim=0)
        self._direction = _MOMENTUM * before + (1 - _MOMENTUM) * unit
        with torch.no_grad():
            delta.sub_(self._length * torch.nn.functional.normalize(self._direction, dim=0))


def _build_optimiser(problem: ValueProblem, delta: torch.Tensor) -> _Optimiser:
    rate = problem.settings.learning_rate
    if problem.settings.descent is Descent.ADAM:
        return _Adam(delta, rate)
    return _SteepestDescent(rate * problem.start_norm)


class _Search:
    """The state of one problem's search."""

    def __init__(self, problem: ValueProblem, unedited: torch.Tensor, start: torch.Tensor, engine: Engine) -> None:
        self.problem, self._unedited, self._engine = problem, unedited, engine
        self.delta = start.requires_grad_()
        self._optimiser = _build_optimiser(problem, self.delta)
        self._steps = 0
        self._recent: deque[float] = deque(maxlen=problem.parts)
        self._margins: deque[float] = deque(maxlen=problem.parts)
        shares = problem.shares or (1.0,) * len(problem.rows)
        self._shares = start.new_tensor(shares)

    @property
    def rows(self) -> list[int]:
        """The rows that the next evaluation computes."""
        return self.problem.rows_at(self._steps)

    @property
    def steps(self) -> int:
        """The evaluations so far."""
        return self._steps

    @property
    def places(self) -> int:
        """The number of rows of logits that they have."""
        return sum(len(self.problem.rows[row].predict) for row in self.rows)

    def deltas(self) -> torch.Tensor:
        """Return what is added to each row of the next evaluation [rows, d_model]."""
        return self._shares[self.rows][:, None] * self.delta

    def loss(self, log_probs: torch.Tensor) -> torch.Tensor:
        if self.problem.settings.margin is not None:
            self._margins.append(self.problem.margin(self._steps, log_probs.detach()))
        return self.problem.loss(self._steps, log_probs, self._unedited, self.delta)

    def end(self, loss: float) -> Outcome | None:
        """Return the outcome of a search that ends with this evaluation, None for a search that continues."""
        self._steps += 1
        settings = self.problem.settings
        # A comparison with NaN is false, so that it cannot pass for a small loss.
        if not abs(loss) < float("inf"):
            return NotFinite(
                f"The loss over {len(self.problem.contexts)} contexts is {loss} at step {self._steps}; a value cannot be "
                "optimised: check the model's weights and dtype."
            )
        self._recent.append(loss)
        mean = sum(self._recent) / len(self._recent)
        complete = len(self._recent) == self.problem.parts
        leads = settings.margin is not None and min(self._margins) >= settings.margin
        if (complete and (mean < settings.stop_loss or leads)) or self._steps >= settings.steps:
            return OptimisedValue(self.delta.detach(), self._steps, mean, self._engine)
        return None

    def step(self, gradient: torch.Tensor) -> None:
        self._optimiser.step(self.delta, gradient)
        limit = self.problem.settings.clamp * self.problem.start_norm
        with torch.no_grad():
            if float(self.delta.norm()) > limit:
                self.delta.mul_(limit / self.delta.norm())


def optimise_values(
    lm: LanguageModel,
    site: EditSite,
    problems: Sequence[ValueProblem],
    prefix_cache: PrefixCache | None = None,
    progress: Progress = show_nothing,
) -> list[Outcome]:
    """Return the outcome of each search, in order: a value, or the `NotFinite` that ended it.

    The error is not raised, since the other searches continue. `prefix_cache` holds the states of prefixes in the unedited
    model. `progress` is told the steps that were taken and the most that may be.
    """
    outcomes: dict[int, Outcome] = {}
    most = sum(problem.settings.steps for problem in problems)
    taken: dict[int, int] = {}

    def run(members: Sequence[int]) -> list[Outcome]:
        def tell(place: int, step: int) -> None:
            taken[members[place]] = step
            progress("searching values", sum(taken.values()), most)

        return _solve(lm, site, [problems[index] for index in members], prefix_cache, tell)

    for members, values in run_fitting(_iter_batches(problems), run):
        outcomes.update(zip(members, values, strict=True))
        # An ended search takes no more steps.
        taken.update({index: problems[index].settings.steps for index in members})
    return [outcomes[index] for index in range(len(problems))]


def _solve(
    lm: LanguageModel,
    site: EditSite,
    problems: Sequence[ValueProblem],
    prefix_cache: PrefixCache | None,
    tell: Callable[[int, int], None],
) -> list[Outcome]:
    """Return the outcomes of the searches of one batch; `tell` is told the place of each and the steps that it took."""
    rows = list(chain.from_iterable(problem.rows for problem in problems))
    outcomes: dict[int, Outcome] = {}
    with torch.enable_grad():
        for part, forward in _choose_forwards(lm, site, rows, problems, prefix_cache):
            members = [problems[index] for index in part]
            values = _descend(forward, members, site, partial(_tell_of_part, tell, part))
            outcomes.update(zip(part, values, strict=True))
    return [outcomes[index] for index in range(len(problems))]


def _tell_of_part(tell: Callable[[int, int], None], part: Sequence[int], place: int, step: int) -> None:
    tell(part[place], step)


def _iter_batches(problems: Sequence[ValueProblem]) -> Iterator[list[int]]:
    """Yield batches of indices of problems, the widest first, each within the budget of tokens.

    A problem of the engine ``reference`` is a batch by itself.
    """

    def width(index: int) -> int:
        return max(len(row.ids) - row.at for row in problems[index].rows)

    def tokens(index: int) -> int:
        return len(problems[index].rows) * max(len(row.ids) for row in problems[index].rows)

    part: list[int] = []
    for index in sorted(range(len(problems)), key=lambda index: (-width(index), index)):
        rows = sum(len(problems[member].rows_at(0)) for member in (*part, index))
        single = problems[index].settings.engine is Engine.REFERENCE
        kept_tokens = sum(tokens(member) for member in (*part, index))
        if part and (single or rows * width(part[0]) > _LIVE_TOKENS or kept_tokens > _KEPT_TOKENS):
            yield part
            part = []
        part.append(index)
    if part:
        yield part


def _choose_forwards(
    lm: LanguageModel,
    site: EditSite,
    rows: Sequence[Row],
    problems: Sequence[ValueProblem],
    prefix_cache: PrefixCache | None,
) -> list[tuple[list[int], _Forward]]:
    """Return forwards with the indices of their problems: one live forward for all, or a reference for each."""
    if problems[0].settings.engine is Engine.LIVE:
        live = _Live(site, LiveRows(lm, site, rows, prefix_cache))
        if live.agrees(exact=lm.dtype in (torch.float32, torch.float64)):
            return [(list(range(len(problems))), live)]
    return [([index], _Whole(lm, site, problem.rows)) for index, problem in enumerate(problems)]


def _descend(
    forward: _Forward, problems: Sequence[ValueProblem], site: EditSite, tell: Callable[[int, int], None]
) -> list[Outcome]:
    counts = [sum(len(row.predict) for row in problem.rows) for problem in problems]
    unedited = [
        part[-len(problem.essences) - len(problem.held) :].log_softmax(-1)
        for part, problem in zip(forward.first.split(counts), problems, strict=True)
    ]
    start = torch.zeros(site.d_model, device=site.weight.device)
    searches = [
        _Search(problem, essences, start.clone(), forward.engine)
        for problem, essences in zip(problems, unedited, strict=True)
    ]
    begins = [0, *accumulate(len(problem.rows) for problem in problems)]
    views: dict[tuple[int, ...], _Forward] = {}
    outcomes: dict[int, Outcome] = {}
    active = list(range(len(problems)))
    while active:
        # The parts recur, so that each selection of rows is built once.
        rows = tuple(begins[index] + row for index in active for row in searches[index].rows)
        if rows not in views:
            views[rows] = forward if len(rows) == begins[-1] else forward.part(rows)
        ended = _advance(views[rows], [searches[index] for index in active])
        for index, outcome in zip(active, ended, strict=True):
            tell(index, searches[index].steps if outcome is None else problems[index].settings.steps)
        outcomes.update({index: outcome for index, outcome in zip(active, ended, strict=True) if outcome is not None})
        if len(outcomes) + len(active) > len(problems):
            active = [index for index in active if index not in outcomes]
            views.clear()
    return [outcomes[index] for index in range(len(problems))]


def _advance(view: _Forward, searches: Sequence[_Search]) -> list[Outcome | None]:
    """Evaluate all searches in one pass, and take a step in those that continue.

    Returns the outcome of each search that ended, None for the others.
    """
    deltas = torch.cat([search.deltas() for search in searches])
    parts = view.logits(deltas).log_softmax(-1).split([search.places for search in searches])
    losses = [search.loss(part) for search, part in zip(searches, parts, strict=True)]
    ended = [search.end(loss.item()) for search, loss in zip(searches, losses, strict=True)]
    open_indices = [index for index, outcome in enumerate(ended) if outcome is None]
    if open_indices:
        total = torch.stack([losses[index] for index in open_indices]).sum()
        gradients = torch.autograd.grad(total, [searches[index].delta for index in open_indices])
        for index, gradient in zip(open_indices, gradients, strict=True):
            searches[index].step(gradient)
    return ended


@contextmanager
def _add_deltas(site: EditSite, deltas: torch.Tensor, places: Sequence[int]) -> Iterator[None]:
    """Add `deltas` [rows, d_model] to the site's output at the flat `places` (row * tokens + token)."""

    def add(_: torch.nn.Module, __: tuple[torch.Tensor, ...], output: torch.Tensor) -> torch.Tensor:
        index = torch.tensor(places, device=output.device)
        flat = output.reshape(-1, output.shape[-1])
        return flat.index_add(0, index, deltas.to(flat.dtype)).reshape(output.shape)

    handle = site.module.register_forward_hook(add)
    try:
        yield
    finally:
        handle.remove()
