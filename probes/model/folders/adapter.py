"""A plain LoRA adapter in PEFT's format, read beside its base and merged into it in memory: ``W + (alpha / r) B A``.

Source of the equation: Hu et al., "LoRA" (arXiv 2106.09685), section 4.1. The library peft is not needed.
The sum is computed in float64 and rounded once to the dtype of the weight.
Out of scope: every variant whose merged weight is another one (DoRA, rank-stabilised scaling, other ranks for some maps,
trained biases or whole modules), which is refused by name.
"""

from __future__ import annotations

import json
import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from ...errors import ModelError
from ...wording import first_line
from .refusals import ADAPTER_CONFIG

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    import torch

__all__ = ["Adapter", "merge_adapter", "read_adapter"]

_WEIGHTS = "adapter_model.safetensors"
_PREFIX = "base_model.model."
_FACTORS = (".lora_A.weight", ".lora_B.weight")
_PLAIN_VALUES = {"bias": ("none", None), "init_lora_weights": (True, False, None, "gaussian"), "peft_type": ("LORA",)}
"""Values of settings with which a merged weight is the one of the equation; of those below, only what counts as unset."""
_UNSET = (
    "alora_invocation_tokens",
    "alpha_pattern",
    "arrow_config",
    "corda_config",
    "eva_config",
    "layer_replication",
    "lora_bias",
    "megatron_config",
    "modules_to_save",
    "rank_pattern",
    "target_parameters",
    "trainable_token_indices",
    "use_bdlora",
    "use_dora",
    "use_qalora",
    "use_rslora",
)


@dataclass(frozen=True, kw_only=True, eq=False)
class Adapter:
    """A plain LoRA adapter: its scale, and the factors A [r, inputs] and B [outputs, r] by the path of their map."""

    folder: Path
    base: str
    """The base as the adapter names it; it may lie elsewhere here."""
    scale: float
    """alpha / r."""
    factors: Mapping[str, tuple[torch.Tensor, torch.Tensor]]


def read_adapter(folder: Path) -> Adapter:
    """Return the adapter in `folder`, on the CPU; raises `ModelError` for a damaged one, or another than plain LoRA."""
    config = _read_config(folder)
    _check_plain(folder, config)
    rank, alpha = (_read_positive(folder, config, name) for name in ("r", "lora_alpha"))
    tensors = _read_tensors(folder)
    factors = {}
    for name in sorted(tensors):
        path = next((name.removesuffix(end) for end in _FACTORS if name.endswith(end)), None)
        if path is None or not name.startswith(_PREFIX):
            raise _refuse(folder, f"it holds the tensor {name[:120]!r}")
        pair = [tensors.get(f"{path}{end}") for end in _FACTORS]
        if pair[0] is None or pair[1] is None or not _fit(pair[0], pair[1], rank):
            raise _damage_error(folder, f"the factors of {path[:120]!r} do not fit each other or r = {rank:g}")
        factors[path.removeprefix(_PREFIX)] = pair[0], pair[1]
    if not factors:
        raise _damage_error(folder, "it holds no factors")
    base = str(config.get("base_model_name_or_path") or "")
    return Adapter(folder=folder, base=base, scale=alpha / rank, factors=factors)


def merge_adapter(model: torch.nn.Module, adapter: Adapter) -> list[str]:
    """Add `adapter` to the weights of its base, in place, and return the names of the changed tensors.

    Raises `ModelError` before anything is written, where `model` lacks a map or has it in another size.
    """
    import torch
    from transformers.pytorch_utils import Conv1D

    modules = dict(model.named_modules())
    sums = {}
    for path, (down, up) in adapter.factors.items():
        module = modules.get(path)
        if not isinstance(module, torch.nn.Linear | Conv1D):
            raise _refuse_base(adapter, f"it has no linear map {path[:120]!r}")
        product = adapter.scale * (up.double() @ down.double())
        # Conv1D keeps its weight as [inputs, outputs].
        product = product.T if isinstance(module, Conv1D) else product
        if product.shape != module.weight.shape:
            shapes = (" x ".join(map(str, tensor.shape)) for tensor in (module.weight, product))
            raise _refuse_base(adapter, "its {!r} is {}, and the adapter's {}".format(path[:120], *shapes))
        sums[path] = module, product
    with torch.no_grad():
        for module, product in sums.values():
            weight: torch.Tensor = module.weight
            weight.copy_((weight.double() + product.to(weight.device)).to(weight.dtype))
    return [f"{path}.weight" for path in sums]


def _fit(down: torch.Tensor, up: torch.Tensor, rank: float) -> bool:
    return down.ndim == up.ndim == 2 and down.shape[0] == up.shape[1] == rank


def _read_config(folder: Path) -> dict[str, Any]:
    try:
        config = json.loads((folder / ADAPTER_CONFIG).read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise _damage_error(folder, f"{ADAPTER_CONFIG}: {first_line(error)}") from error
    if not isinstance(config, dict):
        raise _damage_error(folder, f"{ADAPTER_CONFIG} holds no object")
    return config


def _check_plain(folder: Path, config: Mapping[str, Any]) -> None:
    for name, values in _PLAIN_VALUES.items():
        if not any(value is config.get(name) or value == config.get(name) for value in values):
            raise _refuse(folder, f"{name} is {str(config.get(name))[:60]!r}")
    for name in _UNSET:
        if config.get(name):
            raise _refuse(folder, f"{name} is set")


def _read_positive(folder: Path, config: Mapping[str, Any], name: str) -> float:
    value = config.get(name)
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 < value < math.inf:
        raise _damage_error(folder, f"{name} must be a number over 0, and is {str(value)[:40]}")
    return float(value)


def _read_tensors(folder: Path) -> dict[str, torch.Tensor]:
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    path = folder / _WEIGHTS
    if not path.is_file():
        raise _damage_error(folder, f"it has no {_WEIGHTS}")
    try:
        tensors: dict[str, torch.Tensor] = load_file(path)
    except (OSError, SafetensorError) as error:
        raise _damage_error(folder, f"{_WEIGHTS}: {first_line(error)}") from error
    return tensors


def _refuse(folder: Path, why: str) -> ModelError:
    return ModelError(
        f"The adapter {str(folder)!r} is not plain LoRA ({why}), and only that is merged here; merge it as PEFT's "
        "merge_and_unload does, and save the whole model."
    )


def _damage_error(folder: Path, why: str) -> ModelError:
    return ModelError(f"The adapter {str(folder)!r} cannot be read ({why}); save it again.")


def _refuse_base(adapter: Adapter, why: str) -> ModelError:
    made_for = f", which was made for {adapter.base[:80]!r}" if adapter.base else ""
    return ModelError(
        f"The model is no base of the adapter {str(adapter.folder)!r}{made_for}: {why}; name the model that it was trained on."
    )
