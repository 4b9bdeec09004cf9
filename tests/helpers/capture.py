"""What goes into a module and comes out of it in a real forward pass.

Order: `capture` adds its hooks, the caller runs the model inside the ``with``, the hooks are removed in ``finally``
(only those that it added), and `Captured` is read inside or after it. Out of scope: changing what a module returns.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

from editguard.probes.errors import ModelError
from editguard.probes.model.site import EditSite
from torch import Tensor, nn

__all__ = ["Captured", "capture"]


class Captured:
    """The input and output of a module in its latest forward; earlier ones are let go, so that memory stays flat."""

    def __init__(self, label: str) -> None:
        """`label` names the module in messages."""
        self.calls = 0
        """How often the module has run."""
        self._label = label
        self._input: Tensor | None = None
        self._output: Tensor | None = None
        self._grid: tuple[int, int] | None = None

    @property
    def input(self) -> Tensor:
        """The module's input [batch, tokens, d_in]; raises `ModelError` when the module never ran."""
        return self._shaped(self._input)

    @property
    def output(self) -> Tensor:
        """The module's output [batch, tokens, d_out]; raises `ModelError` when the module never ran."""
        return self._shaped(self._output)

    def _shaped(self, tensor: Tensor | None) -> Tensor:
        if tensor is None:
            raise ModelError(
                f"{self._label} did not run while it was captured, so there is nothing to read; run the model inside "
                "the `with capture(...)` block, and check that its forward calls this module."
            )
        if tensor.dim() != 2:
            return tensor
        # OPT flattens batch and tokens before its MLP.
        if self._grid is None or self._grid[0] * self._grid[1] != tensor.shape[0]:
            raise ModelError(
                f"{self._label} was run on a tensor of shape {tuple(tensor.shape)}, where batch and tokens are one "
                "dimension; capture the EditSite, which knows its block, instead of the bare module."
            )
        return tensor.reshape(*self._grid, tensor.shape[-1])


@contextmanager
def capture(target: nn.Module | EditSite) -> Iterator[Captured]:
    """Record the input and output of `target` in each forward pass inside the ``with``; detached copies.

    Give the `EditSite` rather than its module where there is one: for models that flatten batch and tokens before the
    MLP (OPT), only the site's block knows the shape [batch, tokens] to restore. Of a module that returns a tuple, the
    first element is recorded.
    """
    module = target.module if isinstance(target, EditSite) else target
    captured = Captured(target.path if isinstance(target, EditSite) else type(target).__name__)

    def learn_grid(_: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        hidden = args[0] if args else next(iter(kwargs.values()))
        captured._grid = (hidden.shape[0], hidden.shape[1])

    def record(_: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any], output: Any) -> None:
        given = args[0] if args else next(iter(kwargs.values()))
        returned = output[0] if isinstance(output, tuple) else output
        # Copies: Falcon adds the attention's output to the MLP's in place, after this hook has seen it.
        captured._input, captured._output = given.detach().clone(), returned.detach().clone()
        captured.calls += 1

    with ExitStack() as hooks:
        if isinstance(target, EditSite):
            hooks.callback(target.block.register_forward_pre_hook(learn_grid, with_kwargs=True).remove)
        hooks.callback(module.register_forward_hook(record, with_kwargs=True).remove)
        yield captured
