"""A transaction undoes exactly what it did, whatever happens inside, and proves it by hash."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from editguard.audit.transaction import Transaction, check_update
from editguard.probes.errors import EditguardError, EditRefused, NotFinite
from editguard.probes.model.fingerprint import hash_tensor, hash_tensors
from editguard.probes.model.site import EditSite, find_site
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import PreTrainedModel

from ..helpers.examples import count_examples
from ..helpers.rank_one_updates import DTYPES, Stopped, rank_one
from ..helpers.tiny_models import tiny_model

pytestmark = pytest.mark.tiny

FAMILIES = ("gpt2", "llama", "opt")


@pytest.fixture(params=[(f, d) for f in FAMILIES for d in DTYPES], ids=lambda p: f"{p[0]}-{str(p[1])[6:]}")
def model(request: pytest.FixtureRequest) -> PreTrainedModel:
    family, dtype = request.param
    built: PreTrainedModel = tiny_model(family).to(dtype)
    return built


def test_transaction_without_commit_restores_every_tensor(model: PreTrainedModel) -> None:
    site, before = find_site(model, 0), hash_tensors(model)
    with Transaction(site, rank_one(site)) as transaction:
        inside = hash_tensors(model)
        assert {name for name in before if inside[name] != before[name]} == {f"{site.path}.weight"}
        assert transaction.edited == hash_tensor(site.weight) != transaction.before
    assert hash_tensors(model) == before
    assert transaction.restored == transaction.before


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt, SystemExit, Stopped, EditRefused])
@pytest.mark.parametrize("committed", [False, True])
def test_transaction_exception_undoes_a_committed_edit(
    model: PreTrainedModel, error: type[BaseException], committed: bool
) -> None:
    site, before = find_site(model, 1), hash_tensors(model)
    transaction = Transaction(site, rank_one(site))

    def edit_and_fail() -> None:
        with transaction:
            if committed:
                transaction.commit()
            assert hash_tensors(model) != before
            raise error("inside")

    with pytest.raises(error, match="inside"):
        edit_and_fail()
    assert hash_tensors(model) == before
    assert transaction.restored == transaction.before


def test_transaction_commit_keeps_w_plus_delta_cast_once(model: PreTrainedModel) -> None:
    site = find_site(model, 0)
    update, before = rank_one(site), hash_tensors(model)
    expected = (site.matrix(torch.float64) + update.delta()).to(site.weight.dtype)
    with Transaction(site, update) as transaction:
        transaction.commit()
    torch.testing.assert_close(site.matrix(torch.float64), expected.double(), rtol=0, atol=0)
    after = hash_tensors(model)
    assert {name for name in before if after[name] != before[name]} == {f"{site.path}.weight"}
    assert transaction.restored is None
    assert transaction.edited == hash_tensor(site.weight)


def test_transaction_commit_of_a_changed_weight_is_undone(model: PreTrainedModel) -> None:
    site, before = find_site(model, 0), hash_tensors(model)

    def commit_after_a_check_that_writes() -> None:
        with Transaction(site, rank_one(site)) as transaction:
            transaction.commit()
            with torch.no_grad():
                site.weight[0, 0] += 1

    with pytest.raises(EditguardError, match="while it was checked"):
        commit_after_a_check_that_writes()
    assert hash_tensors(model) == before


@pytest.mark.parametrize("value", [float("nan"), float("inf"), 6e4], ids=str)
def test_transaction_restores_a_destroyed_weight(model: PreTrainedModel, value: float) -> None:
    site, before = find_site(model, 0), hash_tensors(model)
    with Transaction(site, rank_one(site)), torch.no_grad():
        site.weight.fill_(value)
    assert hash_tensors(model) == before


def test_transaction_prove_notices_a_changed_weight(model: PreTrainedModel) -> None:
    site, before = find_site(model, 0), hash_tensors(model)

    def prove_after(change: float) -> None:
        with Transaction(site, rank_one(site)) as transaction:
            with torch.no_grad():
                site.weight[0, 0] += change
            transaction.prove()

    prove_after(0.0)
    with pytest.raises(EditguardError, match="the checks measured another weight than the edit's; the edit was undone"):
        prove_after(1.0)
    assert hash_tensors(model) == before


def test_transaction_error_inside_is_raised_first(model: PreTrainedModel) -> None:
    site, before = find_site(model, 0), hash_tensors(model)

    def commit_write_and_fail() -> None:
        with Transaction(site, rank_one(site)) as transaction:
            transaction.commit()
            with torch.no_grad():
                site.weight[0] = 7.0
            raise KeyError("inside")

    with pytest.raises(KeyError, match="inside"):
        commit_write_and_fail()
    assert hash_tensors(model) == before


def test_transaction_nested_ones_undo_in_order(model: PreTrainedModel) -> None:
    site, before = find_site(model, 0), hash_tensors(model)
    with Transaction(site, rank_one(site)) as outer:
        with Transaction(site, rank_one(site, seed=1)) as inner:
            assert inner.before == outer.edited
        assert hash_tensor(site.weight) == outer.edited
    assert hash_tensors(model) == before


def test_transaction_writes_nothing_before_the_block() -> None:
    model = tiny_model("llama")
    site, before = find_site(model, 0), hash_tensors(model)
    Transaction(site, rank_one(site))
    assert hash_tensors(model) == before


def test_transaction_write_that_fails_is_undone(monkeypatch: pytest.MonkeyPatch) -> None:
    model = tiny_model("llama")
    site, before = find_site(model, 0), hash_tensors(model)

    def write_half(self: EditSite, matrix: torch.Tensor) -> None:
        with torch.no_grad():
            self.weight[0] = 7.0
        raise KeyboardInterrupt

    monkeypatch.setattr(EditSite, "write", write_half)
    with pytest.raises(KeyboardInterrupt), Transaction(site, rank_one(site)):
        pytest.fail("the block was entered")
    assert hash_tensors(model) == before


@pytest.mark.parametrize("error", [KeyboardInterrupt, MemoryError])
def test_transaction_unproved_weight_is_not_kept(monkeypatch: pytest.MonkeyPatch, error: type[BaseException]) -> None:
    model = tiny_model("llama")
    site, before = find_site(model, 0), hash_tensors(model)
    raised = iter([error])

    def failing(tensor: torch.Tensor) -> str:
        for kind in raised:
            raise kind
        return hash_tensor(tensor)

    def commit() -> None:
        with Transaction(site, rank_one(site)) as transaction:
            transaction.commit()
            monkeypatch.setattr("editguard.audit.transaction.hash_tensor", failing)

    with pytest.raises(error):
        commit()
    assert hash_tensors(model) == before


def test_transaction_failed_roll_back_is_our_own_fault(monkeypatch: pytest.MonkeyPatch) -> None:
    model = tiny_model("llama")
    site = find_site(model, 0)
    transaction = Transaction(site, rank_one(site))
    transaction.__enter__()
    original = transaction._original
    assert original is not None
    original[0, 0] += 1
    with pytest.raises(EditguardError, match="must not be used") as caught:
        transaction.__exit__(None, None, None)
    assert caught.value.exit_code == 3


@settings(max_examples=count_examples(50), deadline=None)
@given(
    scale=st.floats(min_value=1e-12, max_value=1e12),
    seed=st.integers(0, 2**32),
    dtype=st.sampled_from(DTYPES),
    family=st.sampled_from(FAMILIES),
)
def test_transaction_any_update_is_undone_to_the_bit(scale: float, seed: int, dtype: torch.dtype, family: str) -> None:
    model = tiny_model(family).to(dtype)
    site = find_site(model, 0)
    before = site.weight.detach().clone()
    with Transaction(site, rank_one(site, scale, seed)):
        pass
    # As bytes: equality of floats takes 0.0 for -0.0.
    assert torch.equal(site.weight.detach().view(torch.uint8), before.view(torch.uint8))


# ------------------------------------------------------------------------------------------------------- check_update


@pytest.fixture(scope="module")
def site() -> EditSite:
    return find_site(tiny_model("llama"), 0)


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")], ids=str)
@pytest.mark.parametrize("factor", ["left", "right"])
def test_check_update_not_finite_is_refused(site: EditSite, factor: str, value: float) -> None:
    update = rank_one(site)
    broken = getattr(update, factor).clone()
    broken[3] = value
    with pytest.raises(NotFinite, match="NaN or Inf") as caught:
        check_update(replace(update, **{factor: broken}), 10.0, float("inf"))
    assert caught.value.exit_code == 1


@pytest.mark.parametrize("weight_norm", [0.0, float("nan")])
def test_check_update_weight_without_norm_is_refused(site: EditSite, weight_norm: float) -> None:
    with pytest.raises(NotFinite):
        check_update(rank_one(site), weight_norm, 1.0)


def test_check_update_bound_is_exact_and_named(site: EditSite) -> None:
    update = rank_one(site)
    relative = update.norm / 10.0
    assert check_update(update, 10.0, relative) == pytest.approx(relative)
    with pytest.raises(EditRefused, match=r"over the bound of 0\.01, and was not written"):
        check_update(update, 10.0, 0.01)
    with pytest.raises(EditRefused):
        check_update(update, 10.0, relative * (1 - 1e-9))


def test_check_update_overflowing_norm_is_refused(site: EditSite) -> None:
    update = rank_one(site)
    huge = replace(update, left=torch.full_like(update.left, 1e200), right=torch.full_like(update.right, 1e200))
    with pytest.raises(NotFinite):
        check_update(huge, 1.0, float("inf"))
