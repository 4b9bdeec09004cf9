"""The edit site of every family: where it lies, how it is stored, that a write does what the algebra says; refusals."""

from __future__ import annotations

import re

import pytest
import torch
from editguard.probes.errors import ModelError
from editguard.probes.model.site import EditSite, Orientation, count_layers, find_site
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.nn.utils import parametrizations, prune
from transformers import GgufConfig, PreTrainedModel
from transformers.pytorch_utils import Conv1D

from ...helpers.capture import capture
from ...helpers.examples import count_examples
from ...helpers.families import D_FF, D_MODEL, FAMILIES, LAYERS, OTHERS, SITE_PATHS, SQUARE_FAMILIES, random_ids

pytestmark = pytest.mark.tiny

FAMILIES_AND_SHAPES = pytest.mark.parametrize(
    ("family", "square"),
    [pytest.param(name, False, id=f"{name}-wide") for name in FAMILIES]
    + [pytest.param(name, True, id=f"{name}-square") for name in SQUARE_FAMILIES],
)


def rank_one(site: EditSite, key: Tensor, target: Tensor, seed: int) -> Tensor:
    """W' = W + (v* - W k - b) u^T / (u . k), in float64: after it, the site gives v* for k."""
    weight, k, value = site.matrix(torch.float64), key.double(), target.double()
    u = torch.randn(site.d_ff, generator=torch.Generator().manual_seed(seed), dtype=torch.float64) + k / k.norm()
    residual = value - weight @ k - (0.0 if site.bias is None else site.bias.double())
    return weight + torch.outer(residual, u) / (u @ k)


def site_output(model: nn.Module, site: EditSite, ids: Tensor, row: int, token: int) -> Tensor:
    """What the module really returns at one token, by a hook of the test's own."""
    outputs: list[Tensor] = []
    handle = site.module.register_forward_hook(lambda _module, _args, output: outputs.append(output.detach().clone()))
    try:
        with torch.no_grad():
            model(ids)
    finally:
        handle.remove()
    (output,) = outputs
    return output.reshape(*ids.shape, -1)[row, token]


def bits(tensor: Tensor) -> Tensor:
    return tensor.detach().clone().contiguous().view(torch.uint8)


@FAMILIES_AND_SHAPES
def test_find_site_of_every_layer_lies_where_the_source_has_it(family: str, square: bool) -> None:
    model = FAMILIES[family](square=square)
    assert count_layers(model) == LAYERS
    for layer in range(LAYERS):
        site = find_site(model, layer)
        assert site.path == SITE_PATHS[family].format(layer=layer)
        assert site.module is model.get_submodule(site.path)
        assert site.block is site.blocks[layer]
        assert site.path.startswith(f"{site.blocks_path}.{layer}.")
        assert model.get_submodule(site.blocks_path) is site.blocks
        assert site.orientation is (Orientation.IN_OUT if family == "gpt2" else Orientation.OUT_IN)
        assert (site.d_model, site.d_ff) == (D_MODEL, D_MODEL if square else 4 * D_MODEL if family == "bloom" else D_FF)
        assert site.editable
        assert site.reason == ""


@pytest.mark.parametrize("family", FAMILIES)
def test_find_site_is_the_last_map_to_run_outside_attention(family: str) -> None:
    model = FAMILIES[family]()
    site = find_site(model, 1)
    ran: list[str] = []
    handles = [
        module.register_forward_hook(lambda *_, path=path: ran.append(path))
        for path, module in model.named_modules()
        if isinstance(module, nn.Linear | Conv1D)
        and path.startswith(f"{site.blocks_path}.1.")
        and not re.search("attn|attention", path)
    ]
    model(random_ids())
    for handle in handles:
        handle.remove()
    assert ran[-1] == site.path


@FAMILIES_AND_SHAPES
def test_matrix_is_the_map_that_the_module_computes(family: str, square: bool) -> None:
    model = FAMILIES[family](square=square).double()
    site = find_site(model, 1)
    with capture(site) as captured, torch.no_grad():
        model(random_ids())
    expected = captured.input @ site.matrix(torch.float64).T
    if site.bias is not None:
        expected = expected + site.bias
    torch.testing.assert_close(captured.output, expected, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float64, 1e-10), (torch.float32, 1e-4)], ids=["fp64", "fp32"])
@FAMILIES_AND_SHAPES
def test_write_of_a_rank_one_update_gives_the_value(
    family: str, square: bool, dtype: torch.dtype, tolerance: float
) -> None:
    model, ids = FAMILIES[family](square=square).to(dtype), random_ids()
    site = find_site(model, 1)
    original, saved = bits(site.weight), site.matrix(dtype)
    with capture(site) as captured, torch.no_grad():
        before = model(ids).logits
    target = torch.randn(site.d_model, generator=torch.Generator().manual_seed(3), dtype=dtype)

    site.write(rank_one(site, captured.input[1, 4], target, seed=4))
    real = site_output(model, site, ids, row=1, token=4)
    assert (real - target).norm() / target.norm() < tolerance
    assert not torch.equal(bits(site.weight), original)

    site.write(saved)
    assert torch.equal(bits(site.weight), original)
    with torch.no_grad():
        assert torch.equal(model(ids).logits, before)


@pytest.mark.parametrize("family", ["gpt2", "llama", "opt"])
@settings(max_examples=count_examples(15), deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(seed=st.integers(0, 2**31), row=st.integers(0, 1), token=st.integers(0, 6), scale=st.floats(1e-3, 1e3))
def test_write_gives_any_value_for_any_input_and_direction(
    family: str, seed: int, row: int, token: int, scale: float
) -> None:
    model, ids = FAMILIES[family](seed=seed % 7).double(), random_ids(seed=seed)
    site = find_site(model, 0)
    with capture(site) as captured, torch.no_grad():
        model(ids)
    target = scale * torch.randn(D_MODEL, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    site.write(rank_one(site, captured.input[row, token], target, seed=seed))
    real = site_output(model, site, ids, row, token)
    assert (real - target).norm() / target.norm() < 1e-9


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16], ids=["bf16", "fp16"])
@pytest.mark.parametrize("family", ["llama", "gpt2"])
def test_matrix_and_write_keep_every_half_precision_number(family: str, dtype: torch.dtype) -> None:
    """All 65 536 bit patterns in one weight; only a NaN's payload may change."""
    every = torch.arange(-(2**15), 2**15, dtype=torch.int32).to(torch.int16).view(dtype).reshape(256, 256)
    model = FAMILIES[family]()
    site = find_site(model, 0)
    module = Conv1D(256, 256) if family == "gpt2" else nn.Linear(256, 256)
    module.weight = nn.Parameter(every.clone())
    model.set_submodule(site.path, module)
    model.config.hidden_size = 256
    site = find_site(model, 0, SITE_PATHS[family])

    matrix = site.matrix(torch.float32)
    layout = every.T if family == "gpt2" else every
    assert torch.equal(matrix.nan_to_num(nan=7.0), layout.to(torch.float32).nan_to_num(nan=7.0))
    with torch.no_grad():
        module.weight.zero_()
    site.write(matrix)
    assert site.weight.dtype is dtype
    finite = ~every.isnan()
    assert torch.equal(site.weight.detach().view(torch.int16)[finite], every.view(torch.int16)[finite])
    assert site.weight.detach()[~finite].isnan().all()


@pytest.mark.parametrize("family", ["gpt2", "llama"])
def test_matrix_is_a_copy_and_write_is_in_place(family: str) -> None:
    model = FAMILIES[family]()
    site = find_site(model, 0)
    weight, place = site.weight, site.weight.data_ptr()
    matrix = site.matrix()
    assert matrix.is_contiguous()
    assert not matrix.requires_grad
    original = matrix.clone()
    site.write(torch.ones(site.d_model, site.d_ff))
    assert torch.equal(matrix, original)
    assert site.weight is weight
    assert weight.data_ptr() == place
    assert weight.requires_grad
    assert weight.grad_fn is None


@pytest.mark.parametrize("family", ["gpt2", "llama"])
def test_write_in_the_other_orientation_is_refused(family: str) -> None:
    site = find_site(FAMILIES[family](), 0)
    before = bits(site.weight)
    with pytest.raises(ModelError, match=re.escape(f"({D_FF}, {D_MODEL}) does not fit")):
        site.write(site.matrix().T)
    with pytest.raises(ModelError, match="does not fit"):
        site.write(torch.zeros(1, 1))  # would broadcast
    assert torch.equal(bits(site.weight), before)


def test_bias_is_detached_or_none() -> None:
    assert find_site(FAMILIES["llama"](), 0).bias is None
    site = find_site(FAMILIES["gpt2"](), 0)
    assert site.bias is not None
    assert not site.bias.requires_grad
    assert torch.equal(site.bias, site.module.bias)


# --- a path of the user's own ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("family", FAMILIES)
def test_find_site_by_path_equals_find_site_by_search(family: str) -> None:
    model = FAMILIES[family]()
    assert find_site(model, 1, SITE_PATHS[family]) == find_site(model, 1)
    assert find_site(model, 1, SITE_PATHS[family].format(layer=1)) == find_site(model, 1)


@pytest.mark.parametrize(
    ("path", "message"),
    [
        ("model.layers.{layer}.mlp.nothing", "names no module"),
        ("model.layers.0.mlp.down_proj", "to layer 1"),
        ("model.stack.{layer}.mlp.down_proj", "to layer 1"),
        ("lm_head", "to layer 1"),
        ("", "to layer 1"),
        ("model.layers.{layer}.mlp", "a site is a torch.nn.Linear"),
    ],
)
def test_find_site_by_a_wrong_path_is_refused(path: str, message: str) -> None:
    with pytest.raises(ModelError, match=message):
        find_site(FAMILIES["llama"](), 1, path)


# --- refusals -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("path", [None, "model.layers.{layer}.mlp.down_proj"])
@pytest.mark.parametrize("layer", [-1, LAYERS, 99])
def test_find_site_layer_out_of_range_is_refused_with_the_range(layer: int, path: str | None) -> None:
    with pytest.raises(ModelError, match=re.escape(f"Layer {layer} is not one of the 2 layers")) as raised:
        find_site(FAMILIES["llama"](), layer, path)
    assert "0..1" in str(raised.value)


@pytest.mark.parametrize(("model", "layer"), [("mixtral", 0), ("mixtral", 1), ("olmoe", 0), ("qwen2_moe", 1)])
def test_find_site_in_a_mixture_of_experts_is_refused(model: str, layer: int) -> None:
    with pytest.raises(ModelError, match="mixture of experts"):
        find_site(OTHERS[model](), layer)


def test_find_site_in_a_mixture_by_path_is_refused() -> None:
    with pytest.raises(ModelError, match="mixture of experts"):
        find_site(OTHERS["qwen2_moe"](), 1, "model.layers.{layer}.mlp.shared_expert.down_proj")


def test_find_site_in_a_dense_layer_of_a_mixed_model() -> None:
    site = find_site(OTHERS["qwen2_moe"](), 0)
    assert site.path == "model.layers.0.mlp.down_proj"
    assert site.editable


@pytest.mark.parametrize(
    ("name", "path", "reason"),
    [
        ("t5_encoder", "encoder.block.1.layer.1.DenseReluDense.wo", "belongs to an encoder "),
        ("t5", "encoder.block.1.layer.1.DenseReluDense.wo", "belongs to an encoder-decoder model"),
        ("bert", "encoder.layer.1.output.dense", "belongs to an encoder "),
    ],
)
def test_find_site_in_an_encoder_is_read_only(name: str, path: str, reason: str) -> None:
    model = OTHERS[name]()
    site = find_site(model, 1)
    assert site.path == path
    assert not site.editable
    assert reason in site.reason
    with capture(site) as captured, torch.no_grad():
        (model if name == "bert" else model.encoder)(random_ids())
    assert captured.input.shape == (2, 7, D_FF)
    before = bits(site.weight)
    with pytest.raises(ModelError, match=re.escape(reason)):
        site.write(site.matrix() + 1)
    assert torch.equal(bits(site.weight), before)


def test_find_site_in_the_decoder_of_an_encoder_decoder_is_read_only() -> None:
    site = find_site(OTHERS["t5"](), 0, "decoder.block.{layer}.layer.2.DenseReluDense.wo")
    assert not site.editable


def replaced(module: nn.Module, family: str = "llama") -> PreTrainedModel:
    """A model whose down-projection in layer 1 is `module`."""
    model = FAMILIES[family]()
    model.set_submodule(SITE_PATHS[family].format(layer=1), module)
    return model


class Linear4bit(nn.Module):
    """Stands for the quantised layers of other libraries, which need not be subclasses of nn.Linear."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(192, 1, dtype=torch.uint8), requires_grad=False)


class Adapter(nn.Module):
    """Stands for a layer that wraps the real one, as adapters do."""

    def __init__(self) -> None:
        super().__init__()
        self.base_layer = nn.Linear(D_FF, D_MODEL)
        self.lora_a = nn.Linear(D_FF, 2)
        self.lora_b = nn.Linear(2, D_MODEL)


class OddTensor(torch.Tensor):
    """Stands for the tensor subclasses that hold packed weights behind an ordinary dtype."""


def with_weight(data: Tensor) -> nn.Linear:
    linear = nn.Linear(D_FF, D_MODEL)
    linear.weight = nn.Parameter(data, requires_grad=False)
    return linear


@pytest.mark.parametrize(
    "module",
    [
        Linear4bit(),
        with_weight(torch.zeros(D_MODEL, D_FF, dtype=torch.int8)),
        with_weight(torch.zeros(D_MODEL, D_FF).to(torch.float8_e4m3fn)),
        with_weight(torch.zeros(D_MODEL, D_FF).as_subclass(OddTensor)),
    ],
    ids=["4bit class", "int8", "fp8", "tensor subclass"],
)
def test_find_site_quantised_map_is_refused(module: nn.Module) -> None:
    with pytest.raises(ModelError, match="without quantisation"):
        find_site(replaced(module), 1)


@pytest.mark.parametrize("config", [{"quant_method": "gptq", "bits": 4}, {"bits": 4}])
def test_find_site_with_a_quantisation_config_is_refused(config: dict[str, object]) -> None:
    model = FAMILIES["llama"]()
    model.config.quantization_config = config
    with pytest.raises(ModelError, match="quantised"):
        find_site(model, 1)


def test_find_site_in_an_unpacked_gguf_is_editable() -> None:
    model = FAMILIES["llama"]()
    model.config.quantization_config = GgufConfig()
    assert find_site(model, 1).editable


def test_find_site_in_an_adapter_is_refused() -> None:
    with pytest.raises(ModelError, match="merge or unload the adapter"):
        find_site(replaced(Adapter()), 1)


@pytest.mark.parametrize("how", ["orthogonal", "prune"])
def test_find_site_parametrized_map_is_refused(how: str) -> None:
    model = FAMILIES["llama"]()
    module = find_site(model, 1).module
    if how == "orthogonal":
        parametrizations.orthogonal(module)
    else:
        prune.l1_unstructured(module, "weight", 0.5)
    with pytest.raises(ModelError, match="parametrized"):
        find_site(model, 1)
    assert find_site(model, 0).editable


def test_find_site_on_the_meta_device_is_refused() -> None:
    with torch.device("meta"):
        meta = nn.Linear(D_FF, D_MODEL)
    with pytest.raises(ModelError, match="meta device"):
        find_site(replaced(meta), 1)


@pytest.mark.parametrize("how", ["parameter", "view", "module"])
def test_find_site_of_a_shared_weight_is_refused_in_both_places(how: str) -> None:
    model = FAMILIES["llama"]()
    first, second = find_site(model, 0), find_site(model, 1)
    if how == "parameter":
        second.module.weight = first.weight
    elif how == "view":
        second.module.weight = nn.Parameter(first.weight.detach().view(D_MODEL, D_FF))
    else:
        model.set_submodule(second.path, first.module)
    for layer, other in ((0, 1), (1, 0)):
        with pytest.raises(ModelError, match=re.escape(f"shares its memory with model.layers.{other}.mlp")):
            find_site(model, layer)


def test_find_site_weights_side_by_side_are_not_shared() -> None:
    model = FAMILIES["llama"]()
    file = torch.randn(2 * D_MODEL, D_FF)
    for layer in range(2):
        find_site(model, layer).module.weight = nn.Parameter(file[layer * D_MODEL : (layer + 1) * D_MODEL])
    find_site(model, 0).write(torch.zeros(D_MODEL, D_FF))
    assert torch.equal(find_site(model, 1).matrix(), file[D_MODEL:])


def test_find_site_ignores_a_tied_embedding() -> None:
    model = FAMILIES["gpt2"]()
    assert model.lm_head.weight is model.transformer.wte.weight
    assert find_site(model, 0).editable
