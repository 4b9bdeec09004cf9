"""An update holds one change for each site, from the lowest layer up, or it is refused."""

from __future__ import annotations

from dataclasses import replace

import pytest
from editguard.audit.editors.update import WeightUpdate, join_updates
from editguard.probes.errors import InputError
from editguard.probes.model.site import EditSite, find_site

from ...helpers.tiny_models import tiny_model
from ...helpers.weight_updates import FIGURES, make_change, make_update, rank_one

pytestmark = pytest.mark.tiny


@pytest.fixture(scope="module")
def sites() -> tuple[EditSite, EditSite]:
    model = tiny_model("llama")
    return find_site(model, 0), find_site(model, 1)


def test_weight_update_changes_that_are_not_of_one_edit_are_refused(sites: tuple[EditSite, EditSite]) -> None:
    low, high = map(make_change, sites)
    assert make_update(low, high).sites == sites
    for changes, why in (
        ((), "changes nothing"),
        ((low, low), "distinct and sorted by layer"),
        ((high, low), "distinct and sorted by layer"),
        ((low, replace(high, site=replace(sites[1], blocks_path="other"))), "different stacks"),
    ):
        with pytest.raises(InputError, match=why):
            make_update(*changes)
    with pytest.raises(InputError, match="has 1 figures for 2 changes"):
        replace(make_update(low, high), figures=(FIGURES,))


def test_weight_update_norm_is_that_of_all_changes(sites: tuple[EditSite, EditSite]) -> None:
    low, high = make_change(sites[0], 2, scale=3.0), make_change(sites[1], 1, scale=4.0, seed=1)
    update = make_update(low, high)
    assert update.norm == pytest.approx((low.norm**2 + high.norm**2) ** 0.5)
    assert update.scale(2.0).norm == pytest.approx(2 * update.norm)


def test_join_updates_sorts_the_sites_and_keeps_their_figures(sites: tuple[EditSite, EditSite]) -> None:
    low, high = rank_one(sites[0]), replace(rank_one(sites[1]), figures=(replace(FIGURES, steps=7),), needs_prefix=True)
    joined = join_updates([high, low])
    assert joined.sites == sites
    assert [figures.steps for figures in joined.figures if figures is not None] == [1, 7]
    assert joined.needs_prefix
    bare = replace(low, figures=())
    assert join_updates([bare, high]).figures[0] is None
    assert WeightUpdate(changes=bare.changes, editor="x", needs_prefix=False).get_figures(0) is None
    with pytest.raises(InputError, match="distinct"):
        join_updates([low, low])
