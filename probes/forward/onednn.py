"""Fast fp32 matrix products of linear layers on a CPU, by oneDNN.

PyTorch computes fp32 products on a CPU with MKL.
On AMD processors with AVX-512, MKL runs at the rate of 256-bit code.
PyTorch also carries oneDNN, which uses the widest code of the processor.
Most products of a language model take less than half of the time with it (docs/research/performance.md).
Both libraries round in fp32, in another order of sums.

When it applies
    `use_fast_products` replaces the ``forward`` of a model's plain fp32 linear layers for the length of a pass.
    It does so on Linux, on AMD processors with AVX-512, and only while ``torch.backends.mkldnn.enabled`` is true.
    ``--engine reference`` is without it: a language model that is ``plain`` never uses it.
    Other dtypes, autocast, other devices, trained weights, quantised or sparse weights and derived layers keep PyTorch's code.
    The processor decides, and not a measurement, so that two runs on one machine agree to the bit.

Expiry
    The product is ``torch.ops.mkldnn._linear_pointwise``, a private op of PyTorch that any release may remove or change.
    `_works` calls it once in a process and compares it with ``torch.nn.functional.linear``.
    Where the op is missing, raises or disagrees, every layer keeps its own ``forward``; only the speed is lost.
    Delete this module once PyTorch itself selects oneDNN for these products.

oneDNN generates code for each number of rows, and keeps a third of a megabyte of it for the life of the process.
So rows of zeros fill a product up to one of a few numbers of rows, and new lengths of text need no new memory.

Passes of one model in several threads at once are sound; either library may round them.
"""

from __future__ import annotations

from contextlib import contextmanager
from functools import cache, partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch.autograd.function import once_differentiable
from torch.nn.functional import linear, pad
from transformers.pytorch_utils import Conv1D

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

__all__ = ["compute_gram", "multiply", "name_library", "prefers_onednn", "round_rows", "use_fast_products"]

_PROCESSORS = Path("/proc/cpuinfo")
_BITS = 4
"""Significant bits of the number of computed rows: more bits take more memory, fewer take more time for rows of zeros."""


def prefers_onednn(processors: str, capability: str) -> bool:
    """Return whether MKL uses only half of the processor's width.

    `processors` is Linux's description of the processor, `capability` that of PyTorch.
    MKL selects its code by the processor's maker.
    Measured on AMD's Zen 5: docs/research/performance.md.
    """
    makers = {line.partition(":")[2].strip() for line in processors.splitlines() if line.startswith("vendor_id")}
    return makers == {"AuthenticAMD"} and capability == "AVX512"


def _is_in_use() -> bool:
    """Return whether oneDNN computes linear layers and is switched on."""
    return bool(torch.backends.mkldnn.enabled) and _selects_onednn()


@cache
def _selects_onednn() -> bool:
    """Return whether oneDNN computes linear layers in this process."""
    if not (torch.backends.mkl.is_available() and torch.backends.mkldnn.is_available() and _PROCESSORS.is_file()):
        return False
    processors = _PROCESSORS.read_text(errors="replace")
    return prefers_onednn(processors, torch.backends.cpu.get_cpu_capability()) and _works()


def _works() -> bool:
    """Return whether this release of PyTorch has the private op, and the op agrees with the plain product."""
    # The result holds for all passes, whatever default dtype, device or autocast the process has set at this time.
    with torch.autocast("cpu", enabled=False):
        inputs, weight, bias = (
            torch.arange(size, dtype=torch.float32, device="cpu").reshape(shape)
            for size, shape in ((6, (2, 3)), (12, (4, 3)), (4, (4,)))
        )
        try:
            return torch.allclose(_onednn(inputs, weight, bias), linear(inputs, weight, bias))
        except (AttributeError, RuntimeError, NotImplementedError, TypeError):
            return False


def round_rows(rows: int) -> int:
    """Return the number of computed rows: the least from `rows` on of the eight between a power of two and the next."""
    step = 1 << max(rows.bit_length() - _BITS, 0)
    return -(-rows // step) * step


def _onednn(inputs: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None) -> torch.Tensor:
    rows = inputs.reshape(-1, inputs.shape[-1])
    missing = round_rows(len(rows)) - len(rows)
    whole = pad(rows, (0, 0, 0, missing)) if missing else rows
    # The op that torch.compile uses for a linear layer; it has no gradient of its own.
    outputs: torch.Tensor = torch.ops.mkldnn._linear_pointwise(whole, weight, bias, "none", [], "")
    return outputs[: len(rows)].reshape(*inputs.shape[:-1], len(weight))


class _Product(torch.autograd.Function):
    """The product with the gradient of its input; weights are never trained here."""

    @staticmethod
    def forward(ctx: Any, inputs: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None) -> torch.Tensor:
        ctx.save_for_backward(weight)
        return _onednn(inputs, weight, bias)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *gradients: torch.Tensor) -> tuple[torch.Tensor, None, None]:
        (weight,) = ctx.saved_tensors
        return _onednn(gradients[0], weight.t(), None), None, None


def multiply(inputs: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None = None) -> torch.Tensor:
    """Return ``inputs weight^T + bias`` [..., out] by oneDNN; `inputs` are [..., in], `weight` [out, in], all fp32."""
    if torch.is_grad_enabled() and inputs.requires_grad:
        outputs: torch.Tensor = _Product.apply(inputs, weight, bias)  # type: ignore[no-untyped-call]
        return outputs
    return _onednn(inputs, weight, bias)


def compute_gram(rows: torch.Tensor, block: int = 512, *, plain: bool = False) -> torch.Tensor:
    """Return ``rows^T rows`` [features, features] of `rows` [n, features].

    Each pair of features in different blocks is computed once.
    oneDNN computes it where it computes linear layers, unless `plain`.
    """
    in_fp32 = len(rows) > 0 and rows.device.type == "cpu" and rows.dtype == torch.float32
    by_onednn = in_fp32 and not plain and _is_in_use()
    products, columns = rows.new_empty(rows.shape[1], rows.shape[1]), rows.t().contiguous()
    if by_onednn:  # rows of zeros add nothing to the sums
        columns = pad(columns, (0, round_rows(len(rows)) - len(rows)))
    for begin in range(0, len(columns), block):
        left, right = columns[begin : begin + block], columns[begin:]
        part = _onednn(left, right, None) if by_onednn else left @ right.t()
        products[begin : begin + block, begin:] = part
        products[begin:, begin : begin + block] = part.t()
    return products


def _forward(
    layer: Any, plain: Callable[..., torch.Tensor], transposed: bool, *args: torch.Tensor, **kwargs: torch.Tensor
) -> torch.Tensor:
    (inputs,) = (*args, *kwargs.values())
    weight, bias = layer.weight, layer.bias
    trained = torch.is_grad_enabled() and (weight.requires_grad or (bias is not None and bias.requires_grad))
    if trained or inputs.dtype != torch.float32 or torch.is_autocast_enabled("cpu"):
        return plain(*args, **kwargs)
    return multiply(inputs, weight.t() if transposed else weight, bias)


def _is_plain(layer: torch.nn.Module) -> bool:
    """Return whether the layer is PyTorch's own linear map: derived classes and a replaced ``forward`` stay as they are."""
    return type(layer) in (torch.nn.Linear, Conv1D) and "forward" not in vars(layer)


def _is_in_fp32(layer: torch.nn.Module) -> bool:
    # Quantised weights, and weights spread over devices, have other classes. For a weight with gaps in its memory oneDNN has
    # only code that is a thousand times slower.
    parts = list(layer.parameters(recurse=False))
    kinds = {(type(part), part.device.type, part.dtype, part.layout) for part in parts}
    return kinds == {(torch.nn.Parameter, "cpu", torch.float32, torch.strided)} and all(
        part.is_contiguous() for part in parts
    )


def _select_layers(model: torch.nn.Module) -> list[torch.nn.Module]:
    return [layer for layer in model.modules() if _is_plain(layer) and _is_in_fp32(layer)] if _is_in_use() else []


def name_library(model: torch.nn.Module) -> str:
    """Return the library of the model's products in `use_fast_products`, for a log: the figures of two differ by rounding."""
    return "oneDNN" if _select_layers(model) else "PyTorch"


@contextmanager
def use_fast_products(model: torch.nn.Module) -> Iterator[None]:
    """Compute the model's fp32 linear layers on a CPU by oneDNN where that is faster; undone in any case."""
    layers = _select_layers(model)
    try:
        for layer in layers:
            vars(layer)["forward"] = partial(_forward, layer, layer.forward, type(layer) is Conv1D)
        yield
    finally:
        for layer in layers:
            vars(layer).pop("forward", None)
