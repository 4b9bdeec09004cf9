"""A stored weight does not change with the weight, and says how far the weight has moved."""

from __future__ import annotations

import math

import pytest
import torch
from editguard.probes.model.fingerprint import hash_tensor
from editguard.probes.model.site import find_site
from editguard.probes.model.stored_weight import store_weight

from ...helpers.tiny_models import tiny_model
from ...helpers.weight_updates import DTYPES

pytestmark = pytest.mark.tiny


@pytest.mark.parametrize("family", ["gpt2", "llama"])
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_stored_weight_is_the_weight_as_it_was(family: str, dtype: torch.dtype) -> None:
    site = find_site(tiny_model(family).to(dtype), 0)
    before, stored = site.matrix(torch.float64), store_weight(site)
    assert stored.is_current
    assert (stored.distance(), stored.relate(0.0)) == (0.0, 0.0)
    site.write(1.5 * before)
    moved = site.matrix(torch.float64) - before
    assert not stored.is_current
    assert torch.equal(stored.matrix(torch.float64), before)
    assert stored.matrix().shape == (site.d_model, site.d_ff)
    assert hash_tensor(stored.tensor) == stored.sha256 != hash_tensor(site.weight)
    assert stored.distance() == pytest.approx(float(moved.norm()))
    assert stored.relate(stored.distance()) == pytest.approx(float(moved.norm() / before.norm()))


def test_stored_weight_of_zeros_has_no_relative_distance() -> None:
    site = find_site(tiny_model("llama"), 0)
    site.write(torch.zeros(site.d_model, site.d_ff))
    stored = store_weight(site)
    assert math.isnan(stored.relate(stored.distance()))
    site.write(torch.ones(site.d_model, site.d_ff))
    assert stored.relate(stored.distance()) == math.inf
