"""The size of a low-rank change is known from its factors, and Delta has the same bits everywhere."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch
from editguard.probes.errors import InputError
from editguard.probes.model.site import EditSite, find_site
from editguard.probes.model.site_change import SiteChange, combine_norms, sum_products
from hypothesis import given, settings
from hypothesis import strategies as st

from ...helpers.examples import count_examples
from ...helpers.tiny_models import tiny_model
from ...helpers.weight_updates import make_change

pytestmark = pytest.mark.tiny


@pytest.fixture(scope="module")
def site() -> EditSite:
    return find_site(tiny_model("llama"), 0)


@settings(max_examples=count_examples(40), deadline=None)
@given(rank=st.integers(1, 20), scale=st.floats(1e-12, 1e12), seed=st.integers(0, 2**31))
def test_norm_any_rank_equals_that_of_the_product(site: EditSite, rank: int, scale: float, seed: int) -> None:
    change = make_change(site, rank, scale=scale, seed=seed)
    assert change.rank == rank
    assert change.norm == pytest.approx(float((change.left @ change.right.T).norm()), rel=1e-12)
    assert change.norm == pytest.approx(float(change.delta().norm()), rel=1e-12)


def test_norm_rank_one_is_the_product_of_the_norms(site: EditSite) -> None:
    change = make_change(site, scale=3.0)
    assert change.norm == pytest.approx(float(change.left.norm() * change.right.norm()), rel=1e-15)


def test_norm_columns_that_nearly_cancel_keep_their_digits(site: EditSite) -> None:
    first = make_change(site, scale=1e6)
    small = make_change(site, seed=1, scale=1e-3)
    left = torch.cat([first.left, -first.left + small.left], 1)
    both = SiteChange(site=site, left=left, right=first.right.repeat(1, 2))
    assert both.norm == pytest.approx(float(small.left.norm() * first.right.norm()), rel=1e-6)


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf], ids=str)
@pytest.mark.parametrize("factor", ["left", "right"])
@pytest.mark.parametrize("rank", [1, 3])
@pytest.mark.parametrize("row", [0, 3, -1])
def test_norm_factor_not_finite_is_not_finite(site: EditSite, factor: str, value: float, rank: int, row: int) -> None:
    change = make_change(site, rank)
    broken = getattr(change, factor).clone()
    broken[row, -1] = value
    assert not math.isfinite(replace(change, **{factor: broken}).norm)


def test_delta_is_the_sum_of_outer_products_in_order(site: EditSite) -> None:
    change = make_change(site, 3)
    outer = [torch.outer(change.left[:, column], change.right[:, column]) for column in range(3)]
    assert torch.equal(change.delta(), outer[0] + outer[1] + outer[2])
    assert torch.equal(sum_products(change.left[:, :1], change.right[:, :1]), outer[0])


def test_site_change_factors_that_do_not_fit_are_refused(site: EditSite) -> None:
    change = make_change(site, 2)
    for changes, why in (
        ({"left": change.left[:-1]}, "have the shapes"),
        ({"right": change.right[:, :1]}, "have the shapes"),
        ({"left": change.left[:, 0], "right": change.right[:, 0]}, "have the shapes"),
        ({"left": change.left[:, :0], "right": change.right[:, :0]}, "have the shapes"),
        ({"left": change.left.float()}, "float64"),
    ):
        with pytest.raises(InputError, match=why):
            replace(change, **changes)


def test_combine_norms_is_the_root_of_the_sum_of_squares() -> None:
    assert combine_norms([0.3]) == 0.3
    assert combine_norms([3.0, 4.0]) == 5.0
    assert combine_norms([1e200, 1e200]) == pytest.approx(math.sqrt(2) * 1e200)
    assert math.isnan(combine_norms([math.inf, math.nan]))
    assert combine_norms([1.0, math.inf]) == math.inf
