"""A weight that is no number is found wherever it stands, and named."""

from __future__ import annotations

import pytest
import torch
from editguard.probes.errors import NotFinite
from editguard.probes.model.finite_weights import require_finite_weights

from ...helpers.tiny_models import tiny_model

pytestmark = pytest.mark.tiny


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16], ids=lambda dtype: str(dtype)[6:])
@pytest.mark.parametrize("value", [float("nan"), float("inf"), float("-inf")], ids=str)
def test_require_finite_weights_finds_any_value_of_any_weight(value: float, dtype: torch.dtype) -> None:
    model = tiny_model("llama").to(dtype)
    require_finite_weights(model, "tiny")
    for name, weight in model.named_parameters():
        place = weight.numel() - 1
        before = weight.flatten()[place].clone()
        weight.data.view(-1)[place] = value
        where = [size - 1 for size in weight.shape]
        with pytest.raises(NotFinite) as caught:
            require_finite_weights(model, "tiny")
        assert f"The weight {name!r} of the model 'tiny' holds 1 of {weight.numel()} values" in str(caught.value)
        assert f"the first at {where}, so no edit of it can be judged; take sound weights" in str(caught.value)
        weight.data.view(-1)[place] = before
    require_finite_weights(model, "tiny")


def test_require_finite_weights_accepts_infinities_of_a_mask() -> None:
    model = torch.nn.Linear(2, 2)
    model.register_buffer("mask", torch.full((2, 2), float("-inf")))
    require_finite_weights(model, "masked")
