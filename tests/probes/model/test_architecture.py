"""Unknown architectures: structure identifies the stack and the last map, or the search reports that it cannot."""

from __future__ import annotations

import pytest
import torch
from editguard.probes.errors import ModelError
from editguard.probes.model.architecture import attends_causally, find_down_projection, find_mixture_part, find_stack
from editguard.probes.model.site import count_layers, find_site
from torch import nn

from ...helpers.families import FAMILIES, OTHERS

pytestmark = pytest.mark.tiny


class Attention(nn.Module):
    def __init__(self, width: int, causal: bool = True) -> None:
        super().__init__()
        self.out = nn.Linear(width, width)
        self.is_causal = causal


class Block(nn.Module):
    """A block whose MLP is made of maps with the names and widths given."""

    def __init__(self, maps: dict[str, tuple[int, int]], width: int = 4, causal: bool = True) -> None:
        super().__init__()
        self.mixer = Attention(width, causal)
        self.ffn_norm = nn.LayerNorm(width)
        self.ffn = nn.ModuleDict({name: nn.Linear(*widths) for name, widths in maps.items()})


class Other(Block):
    pass


TWO = {"a": (4, 6), "z": (6, 4)}


def stacked(*blocks: nn.Module) -> nn.Module:
    return nn.ModuleDict({"body": nn.ModuleList(blocks)})


@pytest.mark.parametrize(
    ("maps", "last"),
    [
        ({"gate": (4, 6), "z": (6, 4), "up": (4, 6)}, "z"),
        ({"fused": (4, 12), "z": (6, 4)}, "z"),
        ({"fc2": (4, 6), "z": (6, 4), "up": (4, 6)}, "z"),
        ({"a": (4, 6), "fc2": (6, 4)}, "fc2"),
        ({"a": (4, 4), "fc2": (4, 4)}, "fc2"),
        ({"down_proj": (6, 4), "gate": (4, 6), "up": (4, 6)}, "down_proj"),
    ],
    ids=["gated", "fused gate", "misleading name", "known name", "known name, square", "known name, first in order"],
)
def test_find_down_projection_by_widths_and_names(maps: dict[str, tuple[int, int]], last: str) -> None:
    assert find_down_projection(Block(maps), hidden_size=4) == f"ffn.{last}"


@pytest.mark.parametrize(
    "maps",
    [
        {"a": (4, 4), "z": (4, 4)},
        {"a": (4, 6), "b": (6, 6), "z": (6, 4)},
        {"fc2": (4, 4), "wo": (4, 4)},
        {"only": (4, 4)},
        {"c_proj": (4, 6), "z": (6, 4), "y": (6, 4)},
    ],
    ids=["square", "three in a row", "two known names", "one map", "known name, wrong width"],
)
def test_find_down_projection_ambiguous_is_refused_with_its_candidates(maps: dict[str, tuple[int, int]]) -> None:
    with pytest.raises(ModelError, match="cannot be told") as raised:
        find_down_projection(Block(maps), hidden_size=4)
    message = str(raised.value)
    assert "--site" in message
    for name, (into, out) in maps.items():
        assert f"ffn.{name} ({into} to {out})" in message


def test_find_down_projection_without_a_hidden_size_is_not_guessed() -> None:
    with pytest.raises(ModelError, match="cannot be told"):
        find_down_projection(Block(TWO))
    assert find_down_projection(Block(TWO), hidden_size=4) == "ffn.z"
    assert find_down_projection(Block(TWO), hidden_size=6) == "ffn.a"


def test_find_down_projection_name_against_the_widths_is_not_guessed() -> None:
    with pytest.raises(ModelError, match="cannot be told"):
        find_down_projection(Block({"fc2": (4, 6), "z": (6, 4), "up": (4, 6)}))


def test_find_site_by_path_settles_an_ambiguous_map() -> None:
    model = stacked(Block(TWO), Block(TWO))
    with pytest.raises(ModelError, match="cannot be told"):
        find_site(model, 1)
    site = find_site(model, 1, "body.{layer}.ffn.z")
    assert (site.path, site.d_ff, site.d_model) == ("body.1.ffn.z", 6, 4)


def test_find_stack_of_two_block_classes_needs_a_path() -> None:
    model = stacked(Block(TWO), Other(TWO))
    with pytest.raises(ModelError, match="holds no stack"):
        count_layers(model)
    assert find_site(model, 1, "body.{layer}.ffn.z").blocks is model["body"]


@pytest.mark.parametrize(
    "model",
    [nn.Linear(2, 2), nn.ModuleDict({"body": nn.ModuleList()}), stacked(nn.Linear(2, 2)), stacked(Attention(4))],
    ids=["no list", "empty list", "no attention", "no blocks"],
)
def test_find_site_in_a_model_without_a_stack_is_refused(model: nn.Module) -> None:
    with pytest.raises(ModelError, match="holds no stack"):
        find_site(model, 0)


def test_find_stack_prefers_a_causal_stack_to_a_longer_encoder() -> None:
    tower = nn.ModuleList(Block(TWO, causal=False) for _ in range(5))
    model = nn.ModuleDict({"tower": tower, "text": nn.ModuleList(Block(TWO) for _ in range(3))})
    assert find_stack(model).path == "text"
    model["draft"] = nn.ModuleList(Block(TWO) for _ in range(1))
    assert find_stack(model).path == "text"


def test_find_stack_ignores_a_stack_inside_a_block() -> None:
    outer = [Block(TWO), Block(TWO)]
    for block in outer:
        block.inner = nn.ModuleList(Other(TWO) for _ in range(5))
    assert find_stack(stacked(*outer)).path == "body"


def test_find_stack_takes_no_norm_for_attention() -> None:
    block = Block(TWO)
    block.mixer = nn.Identity()
    block.post_attention_layernorm = nn.LayerNorm(4)
    with pytest.raises(ModelError, match="holds no stack"):
        find_stack(stacked(block))


def test_find_down_projection_ignores_a_map_and_a_norm_beside_the_mlp() -> None:
    block = Block(TWO)
    block.per_layer_gate = nn.Linear(4, 3)
    assert find_down_projection(block, hidden_size=4) == "ffn.z"


def test_find_stack_of_two_equal_stacks_is_refused() -> None:
    model = nn.ModuleDict({"one": nn.ModuleList([Block(TWO)]), "two": nn.ModuleList([Block(TWO)])})
    with pytest.raises(ModelError, match=r"'one' and 'two'"):
        find_stack(model)


def test_attends_causally_reads_the_attention_modules() -> None:
    assert attends_causally(FAMILIES["llama"]()) is True
    assert attends_causally(FAMILIES["bloom"]()) is None
    assert attends_causally(OTHERS["bert"]()) is False
    t5 = OTHERS["t5"]()
    assert attends_causally(t5.decoder) is True
    assert attends_causally(t5.encoder) is False


def test_find_mixture_part_is_none_for_dense_layers() -> None:
    mixed = OTHERS["qwen2_moe"]().model.layers
    assert find_mixture_part(mixed[0]) is None
    assert find_mixture_part(mixed[1]) == "mlp.gate"
    beside = Block(TWO)
    beside.router = nn.Linear(4, 2)
    assert find_mixture_part(beside) == "router"


def test_find_site_runs_no_forward_pass_and_changes_nothing() -> None:
    model = FAMILIES["gpt2"]()
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    ran: list[object] = []
    for module in model.modules():
        module.register_forward_pre_hook(lambda module, _: ran.append(module))
    find_site(model, 1)
    assert not ran
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())
