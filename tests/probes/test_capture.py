"""Capture sees what really passes through a module, leaves no hook behind, and never returns what was not produced."""

from __future__ import annotations

import pytest
import torch
from editguard.probes.capture import capture
from editguard.probes.errors import ModelError
from editguard.probes.site import find_site
from torch import nn

from ..families import D_FF, D_MODEL, FAMILIES, random_ids

pytestmark = pytest.mark.tiny


def hooks(model: nn.Module) -> int:
    return sum(len(module._forward_hooks) + len(module._forward_pre_hooks) for module in model.modules())


@pytest.mark.parametrize("family", FAMILIES)
def test_input_and_output_have_batch_and_tokens(family: str) -> None:
    model = FAMILIES[family]()
    site = find_site(model, 0)
    for batch, tokens in ((1, 5), (3, 4)):
        with capture(site) as captured, torch.no_grad():
            model(random_ids(batch, tokens))
        assert captured.input.shape == (batch, tokens, site.d_ff)
        assert captured.output.shape == (batch, tokens, site.d_model)
        assert captured.calls == 1


@pytest.mark.parametrize("family", ["opt", "llama"])
def test_each_row_of_a_batch_is_captured_as_if_it_ran_alone(family: str) -> None:
    model, ids = FAMILIES[family]().double(), random_ids(3, 5)
    site = find_site(model, 1)
    with capture(site) as together, torch.no_grad():
        model(ids)
    for row in range(3):
        with capture(site) as alone, torch.no_grad():
            model(ids[row : row + 1])
        torch.testing.assert_close(together.input[row], alone.input[0], rtol=1e-10, atol=1e-12)


def test_a_bare_module_that_sees_two_dimensions_is_an_error_that_names_the_way_out() -> None:
    model = FAMILIES["opt"]()
    with capture(find_site(model, 0).module) as captured:
        model(random_ids())
    with pytest.raises(ModelError, match="capture the EditSite"):
        _ = captured.input


def test_a_bare_module_can_be_captured_and_a_tuple_gives_its_first_element() -> None:
    model, ids = FAMILIES["bloom"](), random_ids()
    with capture(model.transformer.h[1]) as block, torch.no_grad():
        model(ids)
    assert block.input.shape == block.output.shape == (2, 7, D_MODEL)


def test_an_argument_given_by_name_is_captured() -> None:
    linear = nn.Linear(3, 2)
    given = torch.randn(1, 4, 3)
    with capture(linear) as captured:
        linear(input=given)
    assert torch.equal(captured.input, given)


def test_what_was_never_produced_is_an_error() -> None:
    model = FAMILIES["llama"]()
    site = find_site(model, 0)
    with capture(site) as captured:
        pass
    model(random_ids())
    assert captured.calls == 0
    with pytest.raises(ModelError, match="did not run"):
        _ = captured.input
    with pytest.raises(ModelError, match="did not run"):
        _ = captured.output


def test_the_latest_forward_is_kept_and_the_calls_are_counted() -> None:
    model, first, last = FAMILIES["llama"](), random_ids(seed=1), random_ids(1, 3, seed=2)
    site = find_site(model, 0)
    with capture(site) as both, torch.no_grad():
        model(first)
        model(last)
    with capture(site) as alone, torch.no_grad():
        model(last)
    assert both.calls == 2
    assert torch.equal(both.input, alone.input)
    assert torch.equal(both.output, alone.output)


def test_nothing_captured_holds_a_graph_or_changes_later() -> None:
    linear = nn.Linear(D_FF, D_MODEL)
    given = torch.randn(1, 2, D_FF, requires_grad=True)
    with capture(linear) as captured:
        output = linear(given * 1)
    kept = captured.output.clone()
    with torch.no_grad():
        output.add_(1)
    assert torch.equal(captured.output, kept)
    assert not captured.input.requires_grad
    assert not captured.output.requires_grad


def test_hooks_are_removed_in_any_case_and_only_those_of_the_capture() -> None:
    model = FAMILIES["llama"]()
    site = find_site(model, 0)
    ran: list[int] = []
    site.module.register_forward_hook(lambda *_: ran.append(1))
    before = hooks(model)

    def broken() -> None:
        with capture(site):
            assert hooks(model) == before + 2
            raise RuntimeError("in the middle")

    with pytest.raises(RuntimeError, match="in the middle"):
        broken()
    assert hooks(model) == before
    with capture(site), capture(site) as inner:
        model(random_ids())
    assert hooks(model) == before
    assert inner.calls == len(ran) == 1


def test_capturing_changes_nothing() -> None:
    model, ids = FAMILIES["gemma2"](), random_ids()
    with torch.no_grad():
        plain = model(ids).logits
        with capture(find_site(model, 1)):
            captured = model(ids).logits
    assert torch.equal(plain, captured)
