"""Products made by oneDNN are those of a float64 re-computation, with their gradients, and leave the model as it was."""

from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace

import pytest
import torch
from editguard.probes.forward import onednn as products
from editguard.probes.forward.hooks import stop_after
from editguard.probes.forward.onednn import compute_gram, multiply, prefers_onednn, round_rows, use_fast_products
from editguard.probes.keys.subject_keys import compute_activations
from torch import nn
from torch.nn.functional import linear

from ...helpers.families import FAMILIES
from ...helpers.tiny_models import tiny_language_model, tiny_site

pytestmark = pytest.mark.tiny

ZEN5 = (
    "processor\t: 0\nvendor_id\t: AuthenticAMD\nmodel name\t: AMD EPYC\n\nprocessor\t: 1\nvendor_id\t: AuthenticAMD\n"
)


@pytest.fixture
def by_onednn(monkeypatch):
    """Products by oneDNN whatever the processor, so that they are tested on every machine that has it."""
    if not products._works():
        pytest.skip("this PyTorch was built without oneDNN")
    monkeypatch.setattr(products, "_selects_onednn", lambda: True)


@pytest.mark.parametrize(
    ("processors", "capability", "chosen"),
    [
        (ZEN5, "AVX512", True),
        (ZEN5, "AVX2", False),
        (ZEN5.replace("AuthenticAMD", "GenuineIntel"), "AVX512", False),
        (ZEN5.replace("model name\t: AMD EPYC", "model name\t: like AuthenticAMD"), "AVX512", True),
        ("processor\t: 0\nvendor_id\t: GenuineIntel\nmodel name\t: vendor_id AuthenticAMD\n", "AVX512", False),
        ("CPU architecture: 8\n", "DEFAULT", False),
        ("", "AVX512", False),
    ],
)
def test_prefers_onednn_depends_on_the_processor_only(processors, capability, chosen):
    assert prefers_onednn(processors, capability) is chosen


@pytest.mark.parametrize("shape", [(7,), (1, 7), (5, 7), (2, 3, 7), (0, 7), (2, 0, 7)])
@pytest.mark.parametrize("biased", [True, False])
def test_multiply_equals_float64(by_onednn, shape, biased):
    torch.manual_seed(0)
    given, weight, bias = torch.randn(shape), torch.randn(11, 7), torch.randn(11) if biased else None
    exact = linear(given.double(), weight.double(), None if bias is None else bias.double())
    for chosen in (given, given.expand(2, *shape)[1]):
        torch.testing.assert_close(multiply(chosen, weight, bias).double(), exact, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(multiply(given, weight.t().contiguous().t(), bias).double(), exact, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(
    ("rows", "computed"),
    [(0, 0), (1, 1), (15, 15), (16, 16), (17, 18), (31, 32), (33, 36), (64, 64), (65, 72), (1000, 1024), (1025, 1152)],
)
def test_round_rows_rounds_up_to_four_significant_bits(rows, computed):
    assert round_rows(rows) == computed


def test_multiply_new_lengths_use_few_sizes(by_onednn, monkeypatch):
    shapes, operator = set(), torch.ops.mkldnn._linear_pointwise

    def recorded(given, *others):
        shapes.add(tuple(given.shape))
        return operator(given, *others)

    monkeypatch.setattr(torch.ops.mkldnn, "_linear_pointwise", recorded)
    weight = torch.randn(3, 2)
    for rows in range(1, 257):
        given = torch.randn(rows, 2, requires_grad=True)
        result = multiply(given, weight)
        torch.testing.assert_close(result, linear(given, weight))
        torch.autograd.grad(result.sum(), given)
        compute_gram(torch.ones(rows, 2))
    assert len(shapes) <= 3 * (15 + 8 * 5)


def test_multiply_gradient_of_inputs_equals_float64(by_onednn):
    torch.manual_seed(0)
    given, weight, direction = torch.randn(2, 5, 7, requires_grad=True), torch.randn(11, 7), torch.randn(2, 5, 11)
    (gradient,) = torch.autograd.grad((multiply(given, weight, torch.ones(11)) * direction).sum(), given)
    torch.testing.assert_close(gradient.double(), direction.double() @ weight.double(), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("onednn", [True, False])
@pytest.mark.parametrize(("rows", "features", "block"), [(5, 7, 3), (9, 8, 4), (3, 4, 16), (1, 1, 1), (0, 3, 2)])
def test_compute_gram_equals_float64(by_onednn, monkeypatch, onednn, rows, features, block):
    monkeypatch.setattr(products, "_selects_onednn", lambda: onednn)
    torch.manual_seed(0)
    given = torch.randn(rows, features)
    torch.testing.assert_close(
        compute_gram(given, block).double(), given.double().T @ given.double(), rtol=1e-5, atol=1e-5
    )
    half = given.to(torch.bfloat16)
    assert compute_gram(half, block).dtype is torch.bfloat16


@pytest.mark.parametrize("family", sorted(FAMILIES))
def test_use_fast_products_keeps_logits_and_gradients_of_each_family(by_onednn, family):
    lm = tiny_language_model(family)
    ids = torch.tensor([[11, 42, 7, 99, 23]])

    def answers(plain):
        delta = torch.zeros(tiny_site(lm).d_model, requires_grad=True)
        handle = tiny_site(lm).module.register_forward_hook(lambda _, __, output: output + delta)
        try:
            logits = replace(lm, plain=plain).run(input_ids=ids, use_cache=False).logits
        finally:
            handle.remove()
        return logits.detach(), torch.autograd.grad(logits.log_softmax(-1)[0, -1, 5], delta)[0]

    for actual, expected in zip(answers(plain=False), answers(plain=True), strict=True):
        torch.testing.assert_close(actual, expected, rtol=1e-3, atol=1e-4)


def test_use_fast_products_restores_layers_after_block_and_error(by_onednn):
    lm = tiny_language_model("llama")
    before = [dict(vars(module)) for module in lm.model.modules()]

    def fail():
        with use_fast_products(lm.model):
            assert any("forward" in vars(module) for module in lm.model.modules())
            raise InterruptedError

    with pytest.raises(InterruptedError):
        fail()
    with use_fast_products(lm.model), use_fast_products(lm.model), stop_after(tiny_site(lm).module):
        lm.model(input_ids=torch.tensor([[5, 6]]))
    assert [dict(vars(module)) for module in lm.model.modules()] == before


def test_use_fast_products_skips_layers_of_other_kind_or_dtype(by_onednn):
    class Own(nn.Linear):
        pass

    given = nn.Linear(4, 4)
    hooked = nn.Linear(4, 4)
    hooked.forward = lambda x: x + 1  # as accelerate's hooks do
    model = nn.ModuleList([Own(4, 4), hooked, nn.Linear(4, 4).half(), nn.Linear(4, 4, device="meta"), given])
    with use_fast_products(model):
        assert [module for module in model if hasattr(vars(module).get("forward"), "func")] == [given]
        assert hooked(torch.zeros(1, 4)).tolist() == [[1.0] * 4]


def test_use_fast_products_autocast_and_training_use_plain_products(by_onednn):
    layer, given = nn.Linear(4, 4), torch.randn(3, 4)
    with use_fast_products(layer):
        with torch.autocast("cpu", dtype=torch.bfloat16):
            assert layer(given).dtype is torch.bfloat16
        (gradient,) = torch.autograd.grad(layer(given).sum(), layer.weight)
    torch.testing.assert_close(gradient, given.sum(0).expand(4, 4))


def test_works_process_settings_do_not_decide():
    answers = []
    for setting in (torch.autocast("cpu", dtype=torch.bfloat16), torch.device("meta")):
        with setting:
            answers.append(products._works())
    before = torch.get_default_dtype()
    try:
        torch.set_default_dtype(torch.float64)
        answers.append(products._works())
    finally:
        torch.set_default_dtype(before)
    assert answers == [products._works()] * 3


def test_use_fast_products_onednn_switched_off_is_off(by_onednn, monkeypatch):
    layer = nn.Linear(4, 4)
    monkeypatch.setattr(products, "_onednn", None)
    before = torch.backends.mkldnn.enabled
    torch.backends.mkldnn.set_flags(_enabled=False)
    try:
        with use_fast_products(layer):
            assert "forward" not in vars(layer)
        compute_gram(torch.ones(2, 3))
    finally:
        torch.backends.mkldnn.set_flags(_enabled=before)


def test_use_fast_products_layer_accepts_keyword_input(by_onednn):
    layer, given = nn.Linear(4, 5), torch.randn(3, 4)
    expected = layer(given)
    with use_fast_products(layer):
        torch.testing.assert_close(layer(input=given), expected)


def test_use_fast_products_skips_weights_of_derived_classes(by_onednn):
    class Quantised(nn.Parameter):
        pass

    layer = nn.Linear(4, 4)
    layer.weight = Quantised(layer.weight.detach())
    with use_fast_products(layer):
        assert "forward" not in vars(layer)


def test_use_fast_products_skips_weights_with_gaps_in_memory(by_onednn):
    layer = nn.Linear(4, 4)
    layer.weight = nn.Parameter(torch.randn(4, 8)[:, :4])
    with use_fast_products(layer):
        assert "forward" not in vars(layer)


def test_compute_gram_multiplies_contiguous_matrices(by_onednn, monkeypatch):
    """oneDNN takes a thousand times as long for such a matrix, and says nothing."""
    operator = products._onednn

    def packed(given, weight, bias):
        assert given.is_contiguous()
        assert weight.is_contiguous()
        return operator(given, weight, bias)

    monkeypatch.setattr(products, "_onednn", packed)
    compute_gram(torch.randn(5, 9), 4)


def test_works_op_that_raises_or_disagrees_is_refused(monkeypatch):
    monkeypatch.setattr(products, "_onednn", lambda *_: (_ for _ in ()).throw(AttributeError("_linear_pointwise")))
    assert products._works() is False
    monkeypatch.setattr(products, "_onednn", lambda *_: torch.zeros(2, 4))
    assert products._works() is False


def test_products_plain_model_uses_pytorch_and_names_it(by_onednn, monkeypatch):
    lm = tiny_language_model("llama")
    plain = replace(lm, plain=True)
    assert (lm.product_library, plain.product_library) == ("oneDNN", "PyTorch")
    calls = []
    monkeypatch.setattr(products, "_onednn", lambda *args: calls.append(args) or linear(*args))
    site = tiny_site(lm)
    compute_activations(plain, site, [((5, 6, 7), 1)])
    assert not calls
    compute_activations(lm, site, [((5, 6, 7), 1)])
    assert calls
    monkeypatch.setattr(products, "_selects_onednn", lambda: False)
    assert lm.product_library == "PyTorch"


@pytest.fixture
def amd_processor(monkeypatch):
    """A process on a processor for which oneDNN is preferred, with the selection of oneDNN not yet made."""
    monkeypatch.setattr(products, "prefers_onednn", lambda *_: True)
    products._selects_onednn.cache_clear()
    yield
    products._selects_onednn.cache_clear()


def _raise(*_):
    raise RuntimeError("unknown argument")


@pytest.mark.parametrize(
    "operators",
    [
        pytest.param(SimpleNamespace(), id="missing"),
        pytest.param(SimpleNamespace(_linear_pointwise=_raise), id="raises"),
        pytest.param(SimpleNamespace(_linear_pointwise=lambda rows, *_: rows.new_zeros(len(rows), 4)), id="disagrees"),
    ],
)
def test_use_fast_products_without_the_private_op_keeps_plain_layers(amd_processor, monkeypatch, operators):
    monkeypatch.setattr(torch.ops, "mkldnn", operators)
    lm = tiny_language_model("llama")
    ids = torch.tensor([[11, 42, 7]])
    assert lm.product_library == "PyTorch"
    with use_fast_products(lm.model):
        assert not any("forward" in vars(module) for module in lm.model.modules())
    with torch.no_grad():
        assert torch.equal(lm.run(input_ids=ids).logits, replace(lm, plain=True).run(input_ids=ids).logits)
        rows = torch.arange(6.0).reshape(2, 3)
        assert torch.equal(compute_gram(rows), compute_gram(rows, plain=True))


def test_use_fast_products_preferring_processor_uses_the_op(amd_processor):
    if not products._works():
        pytest.skip("this PyTorch was built without oneDNN")
    lm = tiny_language_model("llama")
    assert lm.product_library == "oneDNN"
    assert replace(lm, plain=True).product_library == "PyTorch"
