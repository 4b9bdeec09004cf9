"""Matrix products of linear layers in fp32, by the library that makes them fast on this processor.

PyTorch hands fp32 products on a CPU to MKL, which on AMD processors with AVX-512 runs at the rate of 256-bit code; oneDNN,
which PyTorch carries as well, takes the widest code that there is, and most products of a language model take less than half
of the time by it (docs/research/performance.md). Both round in fp32, in another order of sums.

oneDNN generates code for each number of rows and keeps part of it as long as the process lives, a third of a megabyte each. So
rows of zeros are added up to one of a few numbers, and the memory of these products does not grow with ever new lengths of text.

Which library is used depends on the processor alone and not on a measurement, so that two runs on one machine agree to the
bit. Only for the length of a pass do the layers compute otherwise, and those of a plain model never. Passes of one model in
several threads at once are sound, and rounded by either library. Out of scope: other dtypes, autocast and other devices, of
which PyTorch takes care.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache, partial
from pathlib import Path
from typing import Any

import torch
from torch.autograd.function import once_differentiable
from torch.nn.functional import linear, pad
from transformers.pytorch_utils import Conv1D

__all__ = ["compute_gram", "multiply", "name_library", "prefers_onednn", "round_rows", "use_fast_products"]

_PROCESSORS = Path("/proc/cpuinfo")
_BITS = 4
"""Significant bits of the numbers of rows that are computed: more take more memory, fewer more time for rows of zeros."""


def prefers_onednn(processors: str, capability: str) -> bool:
    """Whether MKL leaves half of the processor idle that Linux describes as `processors` and PyTorch as `capability`.

    MKL chooses its code by the processor's maker; measured on AMD's Zen 5: docs/research/performance.md.
    """
    makers = {line.partition(":")[2].strip() for line in processors.splitlines() if line.startswith("vendor_id")}
    return makers == {"AuthenticAMD"} and capability == "AVX512"


def _in_use() -> bool:
    """Whether oneDNN is chosen, and nobody has switched it off since."""
    return bool(torch.backends.mkldnn.enabled) and _by_onednn()


@cache
def _by_onednn() -> bool:
    """Whether linear layers are computed by oneDNN in this process."""
    if not (torch.backends.mkl.is_available() and torch.backends.mkldnn.is_available() and _PROCESSORS.is_file()):
        return False
    processors = _PROCESSORS.read_text(errors="replace")
    return prefers_onednn(processors, torch.backends.cpu.get_cpu_capability()) and _works()


def _works() -> bool:
    """Whether this release of PyTorch still has the product, and means the same by it."""
    # Whatever a process has set as its default dtype, device or autocast: what is found here holds for all of its passes.
    with torch.autocast("cpu", enabled=False):
        given, weight, bias = (
            torch.arange(size, dtype=torch.float32, device="cpu").reshape(shape)
            for size, shape in ((6, (2, 3)), (12, (4, 3)), (4, (4,)))
        )
        try:
            return torch.allclose(_onednn(given, weight, bias), linear(given, weight, bias))
        except (AttributeError, RuntimeError, NotImplementedError, TypeError):
            return False


def round_rows(rows: int) -> int:
    """Return the least number from `rows` on that is computed: one of eight between a power of two and the next."""
    step = 1 << max(rows.bit_length() - _BITS, 0)
    return -(-rows // step) * step


def _onednn(given: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None) -> torch.Tensor:
    rows = given.reshape(-1, given.shape[-1])
    missing = round_rows(len(rows)) - len(rows)
    whole = pad(rows, (0, 0, 0, missing)) if missing else rows
    # What torch.compile makes of a linear layer; it has no gradient of its own.
    found: torch.Tensor = torch.ops.mkldnn._linear_pointwise(whole, weight, bias, "none", [], "")
    return found[: len(rows)].reshape(*given.shape[:-1], len(weight))


class _Product(torch.autograd.Function):
    """The product with its gradient for what is given; weights are never trained here."""

    @staticmethod
    def forward(ctx: Any, given: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None) -> torch.Tensor:
        ctx.save_for_backward(weight)
        return _onednn(given, weight, bias)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *gradients: torch.Tensor) -> tuple[torch.Tensor, None, None]:
        (weight,) = ctx.saved_tensors
        return _onednn(gradients[0], weight.t(), None), None, None


def multiply(given: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None = None) -> torch.Tensor:
    """Return ``given weight^T + bias`` [..., out] by oneDNN, `given` being [..., in] and `weight` [out, in]; all of them fp32."""
    if torch.is_grad_enabled() and given.requires_grad:
        found: torch.Tensor = _Product.apply(given, weight, bias)  # type: ignore[no-untyped-call]
        return found
    return _onednn(given, weight, bias)


def compute_gram(rows: torch.Tensor, block: int = 512, *, plain: bool = False) -> torch.Tensor:
    """Return ``rows^T rows`` [features, features] of `rows` [n, features]; of features in different blocks each pair once.

    By oneDNN where linear layers are, unless `plain`.
    """
    in_fp32 = len(rows) > 0 and rows.device.type == "cpu" and rows.dtype == torch.float32
    by_onednn = in_fp32 and not plain and _in_use()
    found, columns = rows.new_empty(rows.shape[1], rows.shape[1]), rows.t().contiguous()
    if by_onednn:  # zeros add nothing to the sums
        columns = pad(columns, (0, round_rows(len(rows)) - len(rows)))
    for begin in range(0, len(columns), block):
        left, right = columns[begin : begin + block], columns[begin:]
        part = _onednn(left, right, None) if by_onednn else left @ right.t()
        found[begin : begin + block, begin:] = part
        found[begin:, begin : begin + block] = part.t()
    return found


def _forward(
    layer: Any, plain: Callable[..., torch.Tensor], transposed: bool, *inputs: torch.Tensor, **named: torch.Tensor
) -> torch.Tensor:
    (given,) = (*inputs, *named.values())
    weight, bias = layer.weight, layer.bias
    trained = torch.is_grad_enabled() and (weight.requires_grad or (bias is not None and bias.requires_grad))
    if trained or given.dtype != torch.float32 or torch.is_autocast_enabled("cpu"):
        return plain(*inputs, **named)
    return multiply(given, weight.t() if transposed else weight, bias)


def _is_plain(layer: torch.nn.Module) -> bool:
    """Whether the layer is a linear map and nothing else: what others derived from it or put in its place is left alone."""
    return type(layer) in (torch.nn.Linear, Conv1D) and "forward" not in vars(layer)


def _in_fp32(layer: torch.nn.Module) -> bool:
    # Of other classes are weights that are quantised or spread over devices, and only look like these; and for a weight with gaps
    # in its memory oneDNN has no fast code, but one that is a thousand times slower.
    parts = list(layer.parameters(recurse=False))
    kinds = {(type(part), part.device.type, part.dtype, part.layout) for part in parts}
    return kinds == {(torch.nn.Parameter, "cpu", torch.float32, torch.strided)} and all(
        part.is_contiguous() for part in parts
    )


def _chosen(model: torch.nn.Module) -> list[torch.nn.Module]:
    return [layer for layer in model.modules() if _is_plain(layer) and _in_fp32(layer)] if _in_use() else []


def name_library(model: torch.nn.Module) -> str:
    """Return what makes the model's products in `use_fast_products`, for a log: figures of two libraries differ by rounding."""
    return "oneDNN" if _chosen(model) else "PyTorch"


@contextmanager
def use_fast_products(model: torch.nn.Module) -> Iterator[None]:
    """Compute the model's fp32 linear layers on a CPU by oneDNN where that is the faster one; undone in any case."""
    chosen = _chosen(model)
    try:
        for layer in chosen:
            vars(layer)["forward"] = partial(_forward, layer, layer.forward, type(layer) is Conv1D)
        yield
    finally:
        for layer in chosen:
            vars(layer).pop("forward", None)
