"""What kind of method changed a checkpoint, told from where all its changes lie and from their ranks together.

An editor of the ROME family changes one down-projection by rank one, a batch editor several by a higher rank.
A merged LoRA adapter leaves low ranks in the projections of all layers, and fine-tuning leaves full ones nearly everywhere.
The kinds are tried in the order of `ChangeKind`, and the first that fits is taken.
Changes that rounding could have made are left out of account where there are others.
Out of scope: the rank of one change (`tensor_change`).
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = [
    "ChangeKind",
    "ChangedTensor",
    "Classification",
    "ModelPart",
    "TensorPlace",
    "classify_changes",
    "place_tensor",
]

_LOW = 2
"""A rank is low up to the smaller side divided by this."""
_WIDESPREAD = 2
"""A change is in most tensors where it is in this fraction of the matrices of the checkpoint, or more."""

_LAYER = re.compile(r"(?:^|\.)(\d+)(?=\.|$)")
_ATTENTION = re.compile(r"attn|attention", re.IGNORECASE)
_MLP = re.compile(r"(?:^|\.)(?:mlp|ffn|feed_?forward|ff)(?:\.|$)", re.IGNORECASE)
_DOWN = frozenset({"c_proj", "fc_out", "dense_4h_to_h", "fc2", "down_proj", "wo", "w2"})
_UP = frozenset({"c_fc", "fc_in", "dense_h_to_4h", "fc1", "up_proj", "gate_proj", "gate_up_proj", "w1", "w3", "wi"})


class ModelPart(StrEnum):
    """The part of a model that a tensor belongs to, by its name."""

    DOWN_PROJECTION = "down-projection"
    MLP = "MLP"
    ATTENTION = "attention"
    OTHER = "other"


class ChangeKind(StrEnum):
    """What all changes of a checkpoint look like together."""

    NONE = "none"
    WITHIN_ROUNDING = "within rounding"
    RANK_ONE = "rank one"
    """One change of rank one in a down-projection, or one in each of a few: the ROME family."""
    BATCH = "batch"
    """Changes of a higher rank in down-projections alone: batch editors, or several edits of one layer."""
    LOW_RANK = "low rank"
    """Low ranks in projections of attention or MLP: a merged LoRA adapter."""
    FULL_RANK = "full rank"
    """Full ranks in most tensors: fine-tuning."""
    OTHER = "other"


class TensorPlace(NamedTuple):
    """Where a tensor lies."""

    part: ModelPart
    layer: int | None


@dataclass(frozen=True, kw_only=True)
class ChangedTensor:
    """One changed tensor, as far as its kind of change depends on it."""

    name: str
    shape: tuple[int, ...]
    rank: int | None
    """Its determined rank, as `Spectrum.determined`; None of a tensor that is no matrix as well."""
    within_rounding: bool = False


class Classification(NamedTuple):
    """The kind of all changes together, and a sentence about them."""

    kind: ChangeKind
    sentence: str


def place_tensor(name: str) -> TensorPlace:
    """Return the part of the model and the layer of a tensor, read off its name."""
    steps = name.removesuffix(".weight").split(".")
    numbers = _LAYER.findall(name)
    if not numbers or name.endswith(".bias"):
        return TensorPlace(ModelPart.OTHER, int(numbers[0]) if numbers else None)
    layer, leaf = int(numbers[0]), steps[-1]
    # A norm may be called "post_attention_layernorm"; it is no part of the attention.
    if any(_ATTENTION.search(step) for step in steps[:-1]):
        return TensorPlace(ModelPart.ATTENTION, layer)
    if leaf in _DOWN:
        return TensorPlace(ModelPart.DOWN_PROJECTION, layer)
    if leaf in _UP or _MLP.search(".".join(steps[:-1])):
        return TensorPlace(ModelPart.MLP, layer)
    return TensorPlace(ModelPart.OTHER, layer)


def classify_changes(changed: Sequence[ChangedTensor], matrices: int) -> Classification:
    """Return what kind of method leaves such changes; `matrices` is the number of matrices in the checkpoint."""
    if not changed:
        return Classification(ChangeKind.NONE, "no change")
    real = [tensor for tensor in changed if not tensor.within_rounding]
    if not real:
        return Classification(
            ChangeKind.WITHIN_ROUNDING, f"changes within rounding in {_count(len(changed), 'tensor')}"
        )
    kind, sentence = _classify_real(real, matrices)
    rest = len(changed) - len(real)
    return Classification(kind, f"{sentence}; {_count(rest, 'more change')} within rounding" if rest else sentence)


def _classify_real(real: Sequence[ChangedTensor], matrices: int) -> Classification:
    places = {tensor.name: place_tensor(tensor.name) for tensor in real}
    flat = all(len(tensor.shape) == 2 for tensor in real)
    parts = {place.part for place in places.values()}
    # A batch of many edits may have more than a low rank, and a rank beyond what was computed.
    if flat and parts == {ModelPart.DOWN_PROJECTION} and not all(tensor.rank == min(tensor.shape) for tensor in real):
        return _classify_down_projections(real, sorted(place.layer or 0 for place in places.values()))
    if flat and ModelPart.OTHER not in parts and all(map(_is_low, real)):
        layers = len({place.layer for place in places.values()})
        return Classification(
            ChangeKind.LOW_RANK,
            f"low-rank changes (rank <= {max(tensor.rank or 0 for tensor in real)}) in {_name_parts(parts)} projections of "
            f"{_count(layers, 'layer')}, as a merged LoRA adapter leaves them",
        )
    full = [tensor for tensor in real if len(tensor.shape) == 2 and _is_full(tensor)]
    if len(full) * _WIDESPREAD >= matrices:
        return Classification(ChangeKind.FULL_RANK, "changes of full rank in most tensors, as fine-tuning leaves them")
    return Classification(ChangeKind.OTHER, _describe_other(real))


def _classify_down_projections(real: Sequence[ChangedTensor], layers: Sequence[int]) -> Classification:
    ranks = [tensor.rank for tensor in real]
    kind = ChangeKind.RANK_ONE if set(ranks) == {1} else ChangeKind.BATCH
    if len(real) > 1:
        maker = "editors of several layers make them" if kind is ChangeKind.RANK_ONE else "MEMIT or AlphaEdit make them"
        text = f"changes of {_name_ranks(ranks)} in the down-projections of {_name_layers(layers)} (as {maker})"
        return Classification(kind, text)
    maker = "(ROME-like)" if kind is ChangeKind.RANK_ONE else "(as several edits of one layer leave it)"
    return Classification(kind, f"one change of {_name_ranks(ranks)} in layer {layers[0]}'s down-projection {maker}")


def _describe_other(real: Sequence[ChangedTensor]) -> str:
    ranks = [tensor.rank for tensor in real if len(tensor.shape) == 2]
    rank = f" of {_name_ranks(ranks)}" if ranks else ""
    return f"changes{rank} in {_count(len(real), 'tensor')}, of no known kind"


def _is_full(tensor: ChangedTensor) -> bool:
    """A rank beyond what was computed counts as full."""
    return tensor.rank is None or tensor.rank * _LOW > min(tensor.shape)


def _is_low(tensor: ChangedTensor) -> bool:
    return not _is_full(tensor)


def _name_parts(parts: set[ModelPart]) -> str:
    names = [
        *(["attention"] if ModelPart.ATTENTION in parts else []),
        *(["MLP"] if parts & {ModelPart.MLP, ModelPart.DOWN_PROJECTION} else []),
    ]
    return "/".join(names)


def _name_ranks(ranks: Sequence[int | None]) -> str:
    """Return ``rank one``, ``rank 10``, ``ranks 3 to 10``."""
    measured = [rank for rank in ranks if rank is not None]
    if not measured:
        return "a rank that was not determined"
    low, high = min(measured), max(measured)
    text = ("rank one" if low == 1 else f"rank {low}") if low == high else f"ranks {low} to {high}"
    return text if len(measured) == len(ranks) else f"{text} or more"


def _name_layers(layers: Sequence[int]) -> str:
    """Return ``layers 3 to 7`` for a run of layers, else ``layers 1 and 9``."""
    different = sorted({*layers})
    if len(different) > 2 and different[-1] - different[0] == len(different) - 1:
        return f"layers {different[0]} to {different[-1]}"
    return (
        f"layers {', '.join(map(str, different[:-1]))} and {different[-1]}" if different[1:] else f"layer {layers[0]}"
    )


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}{'' if number == 1 else 's'}"
