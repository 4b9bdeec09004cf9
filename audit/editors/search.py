"""The search for v*: descent on one delta for each problem, many problems in one batch, finished ones dropped.

Problems are independent: the loss is a sum over them, so each delta gets the gradient of its own loss alone, and a
problem that breaks (NaN) leaves the others as they are. The last evaluation is never followed by a step.

Two engines compute the same logits: ``reference`` runs each problem's whole texts through the whole model; ``live`` runs
only the tokens and layers that delta can reach (`editguard.probes.forward.partial`), problems of similar width together, and is
compared with the full pass before it is trusted.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import cached_property
from itertools import accumulate, chain
from typing import Protocol

import torch

from ...probes.errors import NotFinite
from ...probes.forward.batches import run_fitting
from ...probes.forward.partial import LiveRows, Row, compute_plain_logits
from ...probes.forward.prefix_cache import PrefixCache
from ...probes.model.language_model import LanguageModel
from ...probes.model.site import EditSite
from .value import Descent, Engine, OptimisedValue, ValueProblem

__all__ = ["optimise_values"]

_AGREEMENT = 5e-3
"""Largest relative difference of a probability between the live and the full pass, in fp32; measured: under 1e-4."""
_LIVE_TOKENS, _KEPT_TOKENS = 512, 16384
"""Live tokens of one step, padding included, with which matrix products are at full speed on two cores; and tokens whose
attention states one batch keeps, which bounds its memory."""

_MOMENTUM = 0.5

Outcome = OptimisedValue | NotFinite


class _Forward(Protocol):
    """Logits of some rows, with a delta added at each row's place."""

    engine: Engine

    @property
    def first(self) -> torch.Tensor:
        """The unedited logits [places, vocabulary]."""

    def logits(self, deltas: torch.Tensor) -> torch.Tensor:
        """Return the logits [places, vocabulary] with `deltas` [rows, d_model] added."""

    def only(self, kept: Sequence[int]) -> _Forward:
        """Return the forward of the rows of these indices alone."""


class _Whole:
    """The reference: whole texts through the whole model."""

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
        with _added(self._site, deltas, self._at):
            return compute_plain_logits(self._lm, self._rows)

    def only(self, kept: Sequence[int]) -> _Whole:
        return _Whole(self._lm, self._site, [self._rows[row] for row in kept])


class _Live:
    """Only what delta can reach."""

    engine = Engine.LIVE

    def __init__(self, site: EditSite, live: LiveRows) -> None:
        self._site, self._live = site, live
        self._at = [n * live.width for n in range(len(live.rows))]

    @property
    def first(self) -> torch.Tensor:
        return self._live.first

    def logits(self, deltas: torch.Tensor) -> torch.Tensor:
        with _added(self._site, deltas, self._at):
            return self._live.logits()

    def only(self, kept: Sequence[int]) -> _Live:
        return _Live(self._site, self._live.part(kept))

    def agrees(self, *, exact: bool) -> bool:
        """Whether the live pass gives the full pass's probabilities; half precision is held to less."""
        with torch.no_grad():
            worst = float((self._live.logits().log_softmax(-1) - self.first.log_softmax(-1)).exp().sub(1).abs().max())
        return worst <= (_AGREEMENT if exact else 0.5)


class _Search:
    """The state of one problem's search."""

    def __init__(self, problem: ValueProblem, unedited: torch.Tensor, start: torch.Tensor, engine: Engine) -> None:
        self.problem, self._unedited, self._engine = problem, unedited, engine
        self.delta = start.requires_grad_()
        self._step = _adam(self) if problem.settings.descent is Descent.ADAM else _steepest(self)
        self._steps = 0
        self._recent: deque[float] = deque(maxlen=problem.parts)

    @property
    def rows(self) -> list[int]:
        """The rows that the next evaluation looks at."""
        return self.problem.rows_at(self._steps)

    @property
    def places(self) -> int:
        """How many rows of logits they have."""
        return sum(len(self.problem.rows[row].predict) for row in self.rows)

    def loss(self, log_probs: torch.Tensor) -> torch.Tensor:
        return self.problem.loss(self._steps, log_probs, self._unedited, self.delta)

    def end(self, loss: float) -> Outcome | None:
        """Return how the search ended with this evaluation, None where it goes on."""
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
        seen = len(self._recent) == self.problem.parts
        if (seen and mean < settings.stop_loss) or self._steps >= settings.steps:
            return OptimisedValue(self.delta.detach(), self._steps, mean, self._engine)
        return None

    def step(self, gradient: torch.Tensor) -> None:
        self._step(gradient)
        limit = self.problem.settings.clamp * self.problem.start_norm
        with torch.no_grad():
            if float(self.delta.norm()) > limit:
                self.delta.mul_(limit / self.delta.norm())


def _adam(search: _Search) -> Callable[[torch.Tensor], None]:
    optimiser = torch.optim.Adam([search.delta], lr=search.problem.settings.learning_rate)

    def step(gradient: torch.Tensor) -> None:
        search.delta.grad = gradient
        optimiser.step()

    return step


def _steepest(search: _Search) -> Callable[[torch.Tensor], None]:
    """Return steps of one length along the mean of recent directions."""
    length = search.problem.settings.learning_rate * search.problem.start_norm
    towards = torch.zeros_like(search.delta)

    def step(gradient: torch.Tensor) -> None:
        nonlocal towards
        towards = _MOMENTUM * towards + (1 - _MOMENTUM) * torch.nn.functional.normalize(gradient, dim=0)
        with torch.no_grad():
            search.delta.sub_(length * torch.nn.functional.normalize(towards, dim=0))

    return step


def optimise_values(
    lm: LanguageModel, site: EditSite, problems: Sequence[ValueProblem], known: PrefixCache | None = None
) -> list[Outcome]:
    """Return what each search found, in order: a value, or the `NotFinite` that ended it (not raised: others go on)."""
    found: dict[int, Outcome] = {}

    def run(members: Sequence[int]) -> list[Outcome]:
        return _solved(lm, site, [problems[index] for index in members], known)

    for members, answers in run_fitting(_together(problems), run):
        found.update(zip(members, answers, strict=True))
    return [found[index] for index in range(len(problems))]


def _solved(
    lm: LanguageModel, site: EditSite, problems: Sequence[ValueProblem], known: PrefixCache | None
) -> list[Outcome]:
    """Return what the searches of one batch found."""
    rows = list(chain.from_iterable(problem.rows for problem in problems))
    found: dict[int, Outcome] = {}
    with torch.enable_grad():
        for part, forward in _forwards(lm, site, rows, problems, known):
            found.update(zip(part, _descend(forward, [problems[index] for index in part], site), strict=True))
    return [found[index] for index in range(len(problems))]


def _together(problems: Sequence[ValueProblem]) -> Iterator[list[int]]:
    """Yield batches of problems, of similar width first, within the budget of live tokens; the reference's one by one."""

    def width(index: int) -> int:
        return max(len(row.ids) - row.at for row in problems[index].rows)

    def tokens(index: int) -> int:
        return len(problems[index].rows) * max(len(row.ids) for row in problems[index].rows)

    part: list[int] = []
    for index in sorted(range(len(problems)), key=lambda index: (-width(index), index)):
        rows = sum(len(problems[member].rows_at(0)) for member in (*part, index))
        alone = problems[index].settings.engine is Engine.REFERENCE
        kept = sum(tokens(member) for member in (*part, index))
        if part and (alone or rows * width(part[0]) > _LIVE_TOKENS or kept > _KEPT_TOKENS):
            yield part
            part = []
        part.append(index)
    if part:
        yield part


def _forwards(
    lm: LanguageModel,
    site: EditSite,
    rows: Sequence[Row],
    problems: Sequence[ValueProblem],
    known: PrefixCache | None,
) -> list[tuple[list[int], _Forward]]:
    """Return forwards with the problems that each is for: one live for all, or the reference for each."""
    if problems[0].settings.engine is Engine.LIVE:
        live = _Live(site, LiveRows(lm, site, rows, known))
        if live.agrees(exact=lm.dtype in (torch.float32, torch.float64)):
            return [(list(range(len(problems))), live)]
    return [([index], _Whole(lm, site, problem.rows)) for index, problem in enumerate(problems)]


def _descend(forward: _Forward, problems: Sequence[ValueProblem], site: EditSite) -> list[Outcome]:
    counts = [sum(len(row.predict) for row in problem.rows) for problem in problems]
    unedited = [
        part[-len(problem.essences) :].log_softmax(-1)
        for part, problem in zip(forward.first.split(counts), problems, strict=True)
    ]
    start = torch.zeros(site.d_model, device=site.weight.device)
    searches = [
        _Search(problem, essences, start.clone(), forward.engine)
        for problem, essences in zip(problems, unedited, strict=True)
    ]
    begins = [0, *accumulate(len(problem.rows) for problem in problems)]
    views: dict[tuple[int, ...], _Forward] = {}
    found: dict[int, Outcome] = {}
    active = list(range(len(problems)))
    while active:
        # The parts come round again, so that each selection of rows is made once.
        rows = tuple(begins[index] + row for index in active for row in searches[index].rows)
        if rows not in views:
            views[rows] = forward if len(rows) == begins[-1] else forward.only(rows)
        ended = _advance(views[rows], [searches[index] for index in active])
        found.update({index: outcome for index, outcome in zip(active, ended, strict=True) if outcome is not None})
        if len(found) + len(active) > len(problems):
            active = [index for index in active if index not in found]
            views.clear()
    return [found[index] for index in range(len(problems))]


def _advance(view: _Forward, searches: Sequence[_Search]) -> list[Outcome | None]:
    """Evaluate all searches in one pass, and take a step in those that go on; return how the others ended."""
    deltas = torch.stack([search.delta for search in searches for _ in search.rows])
    parts = view.logits(deltas).log_softmax(-1).split([search.places for search in searches])
    losses = [search.loss(part) for search, part in zip(searches, parts, strict=True)]
    ended = [search.end(loss.item()) for search, loss in zip(searches, losses, strict=True)]
    going = [index for index, outcome in enumerate(ended) if outcome is None]
    if going:
        total = torch.stack([losses[index] for index in going]).sum()
        gradients = torch.autograd.grad(total, [searches[index].delta for index in going])
        for index, gradient in zip(going, gradients, strict=True):
            searches[index].step(gradient)
    return ended


@contextmanager
def _added(site: EditSite, deltas: torch.Tensor, places: Sequence[int]) -> Iterator[None]:
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
