"""The kind of method is told from all changes together, on matrices that such methods leave."""

from __future__ import annotations

import pytest
import torch
from editguard.probes.research.change_kind import ChangedTensor, ChangeKind, ModelPart, classify_changes, place_tensor
from editguard.probes.research.tensor_change import compare_tensors

ROWS, COLUMNS, LAYERS = 32, 48, 10
DOWN = "model.layers.{}.mlp.down_proj.weight"
NAMES = [
    f"model.layers.{layer}.{part}.weight"
    for layer in range(LAYERS)
    for part in ("self_attn.q_proj", "self_attn.o_proj", "mlp.up_proj", "mlp.down_proj")
]


def change(
    name: str, rank: int, *, dtype: torch.dtype = torch.bfloat16, size: float = 0.3, seed: int = 0
) -> ChangedTensor:
    """Add a matrix of `rank` to a weight in `dtype`, and return what a comparison finds of it."""
    draw = torch.Generator().manual_seed(seed)
    base = torch.randn(ROWS, COLUMNS, generator=draw)
    left, right = torch.randn(ROWS, rank, generator=draw), torch.randn(rank, COLUMNS, generator=draw)
    update = left @ right
    edited = (base.to(dtype).float() + size * update * base.norm() / update.norm()).to(dtype)
    found = compare_tensors(base.to(dtype), edited)
    assert found.spectrum is not None
    return ChangedTensor(
        name=name,
        shape=(ROWS, COLUMNS),
        rank=found.spectrum.determined,
        within_rounding=found.within_rounding,
    )


@pytest.mark.parametrize(
    ("changed", "kind", "sentence"),
    [
        ([], ChangeKind.NONE, "no change"),
        (
            [change(DOWN.format(9), 1)],
            ChangeKind.RANK_ONE,
            "one change of rank one in layer 9's down-projection (ROME-like)",
        ),
        (
            [change(DOWN.format(layer), 1) for layer in (1, 9)],
            ChangeKind.RANK_ONE,
            "changes of rank one in the down-projections of layers 1 and 9 (as editors of several layers make them)",
        ),
        (
            [change(DOWN.format(layer), 10, seed=layer) for layer in range(3, 8)],
            ChangeKind.BATCH,
            "changes of rank 10 in the down-projections of layers 3 to 7 (as MEMIT or AlphaEdit make them)",
        ),
        (
            [change(DOWN.format(5), 3)],
            ChangeKind.BATCH,
            "one change of rank 3 in layer 5's down-projection (as several edits of one layer leave it)",
        ),
        (
            [change(DOWN.format(layer), 24, dtype=torch.float32) for layer in (3, 5)],
            ChangeKind.BATCH,
            "changes of rank 24 in the down-projections of layers 3 and 5 (as MEMIT or AlphaEdit make them)",
        ),
        (
            [change(DOWN.format(5), ROWS, dtype=torch.float32)],
            ChangeKind.OTHER,
            "changes of rank 32 in 1 tensor, of no known kind",
        ),
        (
            [change(name, 8) for name in NAMES],
            ChangeKind.LOW_RANK,
            "low-rank changes (rank <= 8) in attention/MLP projections of 10 layers, as a merged LoRA adapter leaves them",
        ),
        (
            [change(name, ROWS) for name in NAMES],
            ChangeKind.FULL_RANK,
            "changes of full rank in most tensors, as fine-tuning leaves them",
        ),
        (
            [change(name, 1, size=1e-4) for name in NAMES[:2]],
            ChangeKind.WITHIN_ROUNDING,
            "changes within rounding in 2 tensors",
        ),
        (
            [change(DOWN.format(9), 1), change(NAMES[0], 1, size=1e-4)],
            ChangeKind.RANK_ONE,
            "one change of rank one in layer 9's down-projection (ROME-like); 1 more change within rounding",
        ),
        (
            [change("model.embed_tokens.weight", 2)],
            ChangeKind.OTHER,
            "changes of rank 2 in 1 tensor, of no known kind",
        ),
    ],
    ids=lambda value: value.value if isinstance(value, ChangeKind) else None,
)
def test_classify_changes_kind_and_sentence_are_those_of_the_method(
    changed: list[ChangedTensor], kind: ChangeKind, sentence: str
) -> None:
    assert classify_changes(changed, len(NAMES)) == (kind, sentence)


def test_classify_changes_undetermined_rank_is_said_to_be_so() -> None:
    unknown = [ChangedTensor(name=DOWN.format(layer), shape=(4096, 4096), rank=None) for layer in (1, 2, 3)]
    kind, sentence = classify_changes(unknown, 200)
    assert kind is ChangeKind.BATCH
    assert sentence.startswith("changes of a rank that was not determined in the down-projections of layers 1 to 3")
    norm = ChangedTensor(name="model.norm.weight", shape=(64,), rank=None)
    assert classify_changes([norm], 200) == (ChangeKind.OTHER, "changes in 1 tensor, of no known kind")


@pytest.mark.parametrize(
    ("name", "part", "layer"),
    [
        ("model.layers.3.mlp.down_proj.weight", ModelPart.DOWN_PROJECTION, 3),
        ("transformer.h.0.mlp.c_proj.weight", ModelPart.DOWN_PROJECTION, 0),
        ("transformer.h.0.attn.c_proj.weight", ModelPart.ATTENTION, 0),
        ("model.decoder.layers.11.fc2.weight", ModelPart.DOWN_PROJECTION, 11),
        ("gpt_neox.layers.2.mlp.dense_4h_to_h.weight", ModelPart.DOWN_PROJECTION, 2),
        ("model.layers.3.mlp.gate_proj.weight", ModelPart.MLP, 3),
        ("model.layers.3.post_attention_layernorm.weight", ModelPart.OTHER, 3),
        ("model.layers.3.mlp.down_proj.bias", ModelPart.OTHER, 3),
        ("model.embed_tokens.weight", ModelPart.OTHER, None),
        ("lm_head.weight", ModelPart.OTHER, None),
    ],
)
def test_place_tensor_is_part_and_layer_by_name(name: str, part: ModelPart, layer: int | None) -> None:
    assert place_tensor(name) == (part, layer)
