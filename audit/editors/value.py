"""The value v*: what the site must put out at the subject's last token for the model to say the new target.

Found by Adam on ``delta``, added to the site's output at that token in every context at once. The objective is that of
the public ROME code, with the constants of its authors: the mean negative log-likelihood of the target, plus
``kl_factor`` times the divergence of the next-token distribution at the subject in "{subject} is a", plus
``weight_decay * ||delta|| / ||v_init||^2``; it stops below ``stop_loss``, and ``||delta||`` is clamped to
``clamp * ||v_init||``. The last evaluation is never followed by a step.

Two engines compute the same logits: ``reference`` runs whole texts through the whole model; ``live`` runs only the
tokens and layers that delta can reach (`editguard.probes.partial`), and is compared with the full pass before it is
trusted.

Source: ROME (arXiv 2202.05262), section 3.1, equations 3 and 4.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from enum import Enum
from typing import Protocol

import torch

from ...probes.errors import NotFinite
from ...probes.keys import locate
from ...probes.model import LanguageModel
from ...probes.partial import LiveRows, Row, full_logits
from ...probes.requests import EditRequest
from ...probes.site import EditSite
from ...probes.tokens import locate_subject, target_ids

__all__ = ["Engine", "OptimisedValue", "ValueSettings", "optimise_value"]

_AGREEMENT = 5e-3
"""Largest relative difference of a probability between the live and the full pass, in fp32; measured: under 1e-4."""


class Engine(Enum):
    """How logits are computed while v* is sought."""

    LIVE = "live"
    REFERENCE = "reference"


@dataclass(frozen=True)
class ValueSettings:
    """Constants of the search for v*; the defaults are the paper's for Llama-2-7b (arXiv 2406.11263)."""

    steps: int = 20
    learning_rate: float = 0.5
    weight_decay: float = 1e-3
    clamp: float = 4.0
    kl_factor: float = 0.0625
    stop_loss: float = 0.05
    engine: Engine = Engine.LIVE


@dataclass(frozen=True)
class OptimisedValue:
    """What the search found."""

    delta: torch.Tensor
    """[d_model], fp32: v* minus the value that it started from."""
    steps: int
    """Evaluations of the loss."""
    loss: float
    """The last loss, all three terms."""
    engine: Engine
    """The engine that was used in the end."""


class _Logits(Protocol):
    def __call__(self, delta: torch.Tensor) -> torch.Tensor: ...


def optimise_value(
    lm: LanguageModel,
    site: EditSite,
    request: EditRequest,
    prefixes: Sequence[str],
    start_norm: float,
    settings: ValueSettings,
) -> OptimisedValue:
    """Return the delta that makes `request` true under `prefixes` (texts; the empty one included where wanted).

    `start_norm` is ||v_init||, the norm of the value that delta is added to. Raises `NotFinite` when the loss or delta
    is NaN or Inf.
    """
    target = target_ids(lm.tokenizer, request.prompt, request.target_new)
    rows = [_context_row(lm, request, prefix, target) for prefix in prefixes]
    rows.append(_essence_row(lm, request))
    with torch.enable_grad():
        return _search(lm, site, rows, target, start_norm, settings)


def _context_row(lm: LanguageModel, request: EditRequest, prefix: str, target: tuple[int, ...]) -> Row:
    position = locate(lm, request, prefix)
    # Ids are joined, not texts: text glued to the prompt may be tokenised another way.
    ids = position.input_ids + target[:-1]
    start = len(position.input_ids) - 1
    return Row(ids, position.last, tuple(range(start, start + len(target))))


def _essence_row(lm: LanguageModel, request: EditRequest) -> Row:
    position = locate_subject(lm.tokenizer, f"{request.subject} is a", request.subject, occurrence_start=0)
    return Row(position.input_ids, position.last, (position.last,))


def _search(
    lm: LanguageModel,
    site: EditSite,
    rows: Sequence[Row],
    target: tuple[int, ...],
    start_norm: float,
    settings: ValueSettings,
) -> OptimisedValue:
    logits, essence, engine = _engine(lm, site, rows, settings.engine)
    delta = torch.zeros(site.d_model, device=site.weight.device, requires_grad=True)
    wanted = torch.tensor(target * (len(rows) - 1), device=essence.device)
    limit = settings.clamp * start_norm
    optimiser = torch.optim.Adam([delta], lr=settings.learning_rate)
    steps = 0
    while True:
        steps += 1
        log_probs = logits(delta).log_softmax(-1)
        likelihood = -log_probs[:-1].gather(1, wanted[:, None]).mean()
        divergence = torch.nn.functional.kl_div(essence, log_probs[-1:], log_target=True, reduction="batchmean")
        decay = settings.weight_decay * delta.norm() / start_norm**2
        loss = likelihood + settings.kl_factor * divergence + decay
        if not bool(torch.isfinite(loss)):
            raise NotFinite(
                f"The loss over {len(rows) - 1} contexts is {loss.item()} at step {steps}; a value cannot be optimised."
            )
        if loss.item() < settings.stop_loss or steps >= settings.steps:
            return OptimisedValue(delta.detach(), steps, loss.item(), engine)
        (gradient,) = torch.autograd.grad(loss, [delta])
        delta.grad = gradient
        optimiser.step()
        with torch.no_grad():
            if float(delta.norm()) > limit:
                delta.mul_(limit / delta.norm())


def _engine(
    lm: LanguageModel, site: EditSite, rows: Sequence[Row], asked: Engine
) -> tuple[_Logits, torch.Tensor, Engine]:
    """Return the logits as a function of delta, the unedited essence log-probabilities, and the engine really used."""
    if asked is Engine.LIVE:
        live = LiveRows(lm, site, rows)
        before = live.first.log_softmax(-1)
        with torch.no_grad():
            worst = float((live.logits().log_softmax(-1) - before).exp().sub(1).abs().max())
        if worst <= _AGREEMENT or (lm.dtype != torch.float32 and worst <= 0.5):

            def logits(delta: torch.Tensor) -> torch.Tensor:
                with _added(site, delta, [n * live.width for n in range(len(rows))]):
                    return live.logits()

            return logits, before[-1:], Engine.LIVE
    width = max(len(row.ids) for row in rows)

    def whole(delta: torch.Tensor) -> torch.Tensor:
        with _added(site, delta, [n * width + row.at for n, row in enumerate(rows)]):
            return full_logits(lm, rows)

    with torch.no_grad():
        essence = whole(torch.zeros(site.d_model, device=site.weight.device)).log_softmax(-1)[-1:]
    return whole, essence, Engine.REFERENCE


@contextmanager
def _added(site: EditSite, delta: torch.Tensor, places: Sequence[int]) -> Iterator[None]:
    """Add `delta` to the site's output at the flat `places` (row * tokens + token) for the forwards inside."""

    def add(_: torch.nn.Module, __: tuple[torch.Tensor, ...], output: torch.Tensor) -> torch.Tensor:
        index = torch.tensor(places, device=output.device)
        flat = output.reshape(-1, output.shape[-1])
        change = delta.to(flat.dtype).expand(len(places), -1)
        return flat.index_add(0, index, change).reshape(output.shape)

    handle = site.module.register_forward_hook(add)
    try:
        yield
    finally:
        handle.remove()
