"""A transaction undoes exactly what it did, whatever happens inside, and proves it by hash."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch
from editguard.audit import transaction as transaction_module
from editguard.audit.editors.update import WeightUpdate
from editguard.audit.transaction import Transaction, check_update, relative_norms
from editguard.probes.errors import EditguardError, EditRefused, NotFinite
from editguard.probes.model.fingerprint import hash_tensor, hash_tensors
from editguard.probes.model.site import EditSite, find_site
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import PreTrainedModel

from ..helpers.examples import count_examples
from ..helpers.tiny_models import tiny_model
from ..helpers.weight_updates import DTYPES, Stopped, get_only, make_change, make_update, rank_one

pytestmark = pytest.mark.tiny

FAMILIES = ("gpt2", "llama", "opt")


@pytest.fixture(params=[(f, d) for f in FAMILIES for d in DTYPES], ids=lambda p: f"{p[0]}-{str(p[1])[6:]}")
def model(request: pytest.FixtureRequest) -> PreTrainedModel:
    family, dtype = request.param
    built: PreTrainedModel = tiny_model(family).to(dtype)
    return built


def test_transaction_without_commit_restores_every_tensor(model: PreTrainedModel) -> None:
    site, before = find_site(model, 0), hash_tensors(model)
    with Transaction(rank_one(site)) as transaction:
        inside = hash_tensors(model)
        assert {name for name in before if inside[name] != before[name]} == {f"{site.path}.weight"}
        assert get_only(transaction.edited) == hash_tensor(site.weight) != get_only(transaction.before)
    assert hash_tensors(model) == before
    assert transaction.restored == transaction.before


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt, SystemExit, Stopped, EditRefused])
@pytest.mark.parametrize("committed", [False, True])
def test_transaction_exception_undoes_a_committed_edit(
    model: PreTrainedModel, error: type[BaseException], committed: bool
) -> None:
    site, before = find_site(model, 1), hash_tensors(model)
    transaction = Transaction(rank_one(site))

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
    expected = (site.matrix(torch.float64) + update.changes[0].delta()).to(site.weight.dtype)
    with Transaction(update) as transaction:
        transaction.commit()
    torch.testing.assert_close(site.matrix(torch.float64), expected.double(), rtol=0, atol=0)
    after = hash_tensors(model)
    assert {name for name in before if after[name] != before[name]} == {f"{site.path}.weight"}
    assert transaction.restored == {}
    assert get_only(transaction.hashes) == (get_only(transaction.before), hash_tensor(site.weight), None)


def test_transaction_commit_of_a_changed_weight_is_undone(model: PreTrainedModel) -> None:
    site, before = find_site(model, 0), hash_tensors(model)

    def commit_after_a_check_that_writes() -> None:
        with Transaction(rank_one(site)) as transaction:
            transaction.commit()
            with torch.no_grad():
                site.weight[0, 0] += 1

    with pytest.raises(EditguardError, match="while it was checked"):
        commit_after_a_check_that_writes()
    assert hash_tensors(model) == before


@pytest.mark.parametrize("value", [float("nan"), float("inf"), 6e4], ids=str)
def test_transaction_restores_a_destroyed_weight(model: PreTrainedModel, value: float) -> None:
    site, before = find_site(model, 0), hash_tensors(model)
    with Transaction(rank_one(site)), torch.no_grad():
        site.weight.fill_(value)
    assert hash_tensors(model) == before


def test_transaction_prove_notices_a_changed_weight(model: PreTrainedModel) -> None:
    site, before = find_site(model, 0), hash_tensors(model)

    def prove_after(change: float) -> None:
        with Transaction(rank_one(site)) as transaction:
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
        with Transaction(rank_one(site)) as transaction:
            transaction.commit()
            with torch.no_grad():
                site.weight[0] = 7.0
            raise KeyError("inside")

    with pytest.raises(KeyError, match="inside"):
        commit_write_and_fail()
    assert hash_tensors(model) == before


def test_transaction_nested_ones_undo_in_order(model: PreTrainedModel) -> None:
    site, before = find_site(model, 0), hash_tensors(model)
    with Transaction(rank_one(site)) as outer:
        with Transaction(rank_one(site, seed=1)) as inner:
            assert inner.before == outer.edited
        assert hash_tensor(site.weight) == get_only(outer.edited)
    assert hash_tensors(model) == before


def test_transaction_writes_nothing_before_the_block() -> None:
    model = tiny_model("llama")
    site, before = find_site(model, 0), hash_tensors(model)
    Transaction(rank_one(site))
    assert hash_tensors(model) == before


def test_transaction_write_that_fails_is_undone(monkeypatch: pytest.MonkeyPatch) -> None:
    model = tiny_model("llama")
    site, before = find_site(model, 0), hash_tensors(model)

    def write_half(self: EditSite, matrix: torch.Tensor) -> None:
        with torch.no_grad():
            self.weight[0] = 7.0
        raise KeyboardInterrupt

    monkeypatch.setattr(EditSite, "write", write_half)
    with pytest.raises(KeyboardInterrupt), Transaction(rank_one(site)):
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
        with Transaction(rank_one(site)) as transaction:
            transaction.commit()
            monkeypatch.setattr("editguard.audit.transaction.hash_tensor", failing)

    with pytest.raises(error):
        commit()
    assert hash_tensors(model) == before


def test_transaction_failed_roll_back_is_our_own_fault(monkeypatch: pytest.MonkeyPatch) -> None:
    model = tiny_model("llama")
    site = find_site(model, 0)
    transaction = Transaction(rank_one(site))
    transaction.__enter__()
    (original,) = transaction._originals
    original.tensor[0, 0] += 1
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
    with Transaction(rank_one(site, scale, seed)):
        pass
    # As bytes: equality of floats takes 0.0 for -0.0.
    assert torch.equal(site.weight.detach().view(torch.uint8), before.view(torch.uint8))


# ------------------------------------------------------------------------------------------------------ several sites


def two_sites(model: PreTrainedModel) -> WeightUpdate:
    return make_update(make_change(find_site(model, 0), 2), make_change(find_site(model, 1), 1, seed=1))


def test_transaction_of_two_sites_restores_every_tensor(model: PreTrainedModel) -> None:
    update, before = two_sites(model), hash_tensors(model)
    names = {f"{site.path}.weight" for site in update.sites}
    expected = [
        (change.site.matrix(torch.float64) + change.delta()).to(change.site.weight.dtype) for change in update.changes
    ]
    with Transaction(update) as transaction:
        inside = hash_tensors(model)
        assert {name for name in before if inside[name] != before[name]} == names
        for site, weight in zip(update.sites, expected, strict=True):
            assert torch.equal(site.matrix(torch.float64), weight.double())
        assert {f"{path}.weight": sha for path, sha in transaction.edited.items()} == {n: inside[n] for n in names}
    assert hash_tensors(model) == before
    assert transaction.restored == transaction.before
    assert {path: hashes.before for path, hashes in transaction.hashes.items()} == transaction.before


class _Fault:
    """Raises `error` at the call number `place` of the functions that it stands for, and calls them otherwise."""

    def __init__(self, place: int, error: type[BaseException]) -> None:
        self.calls, self._place, self._error = 0, place, error

    def wrap(self, function: Callable[..., Any]) -> Callable[..., Any]:
        def call(*given: Any, **options: Any) -> Any:
            self.calls += 1
            if self.calls == self._place:
                raise self._error
            return function(*given, **options)

        return call


@pytest.mark.parametrize("committed", [False, True], ids=["tried", "kept"])
@pytest.mark.parametrize("error", [KeyboardInterrupt, MemoryError])
def test_transaction_of_two_sites_ended_at_any_step_leaves_nothing(
    monkeypatch: pytest.MonkeyPatch, error: type[BaseException], committed: bool
) -> None:
    """Every copy, write and hash is a step; the fault comes at each of them in turn, also in the roll-back itself."""
    model = tiny_model("llama")
    update, before = two_sites(model), hash_tensors(model)
    targets = ["hash_tensor", "store_weight", "_write_back"]
    originals = {name: getattr(transaction_module, name) for name in targets}
    write = EditSite.write

    def run(place: int) -> _Fault:
        fault = _Fault(place, error)
        with monkeypatch.context() as patch:
            for name, function in originals.items():
                patch.setattr(transaction_module, name, fault.wrap(function))
            patch.setattr(EditSite, "write", fault.wrap(write))
            with Transaction(update) as transaction:
                if committed:
                    transaction.commit()
        return fault

    if not committed:
        assert run(0).calls == 2 + 2 + 2 + 2 + 2  # copies, writes, hashes, and the roll-back's writes and hashes
    for place in range(1, 11 if not committed else 9):
        with pytest.raises(error):
            run(place)
        assert hash_tensors(model) == before, place


def test_transaction_of_two_sites_between_the_writes_leaves_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    model = tiny_model("llama")
    before, write, written = hash_tensors(model), EditSite.write, []

    def write_first(self: EditSite, matrix: torch.Tensor) -> None:
        if written:
            assert hash_tensors(model) != before
            raise KeyboardInterrupt
        write(self, matrix)
        written.append(self.path)

    monkeypatch.setattr(EditSite, "write", write_first)
    with pytest.raises(KeyboardInterrupt), Transaction(two_sites(model)):
        pytest.fail("the block was entered")
    assert len(written) == 1
    assert hash_tensors(model) == before


def test_transaction_of_two_sites_restores_one_where_the_other_cannot_be() -> None:
    model = tiny_model("llama")
    update, before = two_sites(model), hash_tensors(model)
    transaction = Transaction(update)
    transaction.__enter__()
    transaction._originals[0].tensor[0, 0] += 1
    with pytest.raises(EditguardError, match=rf"{update.sites[0].path} hashes to .* must not be used"):
        transaction.__exit__(None, None, None)
    after = hash_tensors(model)
    assert {name for name in before if after[name] != before[name]} == {f"{update.sites[0].path}.weight"}


@pytest.mark.parametrize("place", [0, 1])
def test_transaction_of_two_sites_with_one_changed_is_undone(place: int) -> None:
    model = tiny_model("llama")
    update, before = two_sites(model), hash_tensors(model)

    def commit_after_a_check_that_writes() -> None:
        with Transaction(update) as transaction:
            transaction.commit()
            with torch.no_grad():
                update.sites[place].weight[0, 0] += 1

    with pytest.raises(EditguardError, match=rf"{update.sites[place].path} was changed while it was checked"):
        commit_after_a_check_that_writes()
    assert hash_tensors(model) == before


# ------------------------------------------------------------------------------------------------------- check_update


@pytest.fixture(scope="module")
def site() -> EditSite:
    return find_site(tiny_model("llama"), 0)


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")], ids=str)
@pytest.mark.parametrize("factor", ["left", "right"])
def test_check_update_not_finite_is_refused(site: EditSite, factor: str, value: float) -> None:
    (change,) = rank_one(site).changes
    broken = getattr(change, factor).clone()
    broken[3] = value
    with pytest.raises(NotFinite, match="NaN or Inf") as caught:
        check_update(make_update(replace(change, **{factor: broken})), {site.path: 10.0}, float("inf"))
    assert caught.value.exit_code == 1


@pytest.mark.parametrize("weight_norm", [0.0, float("nan")])
def test_check_update_weight_without_norm_is_refused(site: EditSite, weight_norm: float) -> None:
    with pytest.raises(NotFinite):
        check_update(rank_one(site), {site.path: weight_norm}, 1.0)


def test_check_update_bound_is_exact_and_named(site: EditSite) -> None:
    update = rank_one(site)
    relative = update.norm / 10.0
    assert check_update(update, {site.path: 10.0}, relative) == pytest.approx(relative)
    with pytest.raises(EditRefused, match=r"over the bound of 0\.01, and was not written"):
        check_update(update, {site.path: 10.0}, 0.01)
    with pytest.raises(EditRefused):
        check_update(update, {site.path: 10.0}, relative * (1 - 1e-9))


def test_check_update_overflowing_norm_is_refused(site: EditSite) -> None:
    update = rank_one(site)
    (change,) = update.changes
    huge = make_update(
        replace(change, left=torch.full_like(change.left, 1e200), right=torch.full_like(change.right, 1e200))
    )
    with pytest.raises(NotFinite):
        check_update(huge, {site.path: 1.0}, float("inf"))


def test_check_update_of_two_sites_compares_the_whole_and_names_the_worst() -> None:
    update = two_sites(tiny_model("llama"))
    (low, high), (first, second) = update.sites, update.changes
    norms = {low.path: first.norm / 0.3, high.path: second.norm / 0.4}
    assert relative_norms(update, norms) == pytest.approx({low.path: 0.3, high.path: 0.4})
    assert check_update(update, norms, 0.51) == pytest.approx(0.5)
    with pytest.raises(
        EditRefused, match=rf"is 0\.5 times .* \(most of it, 0\.4, at {high.path}\), over the bound of 0\.45"
    ):
        check_update(update, norms, 0.45)
    for norm in (0.0, float("nan")):
        with pytest.raises(NotFinite):
            check_update(update, norms | {high.path: norm}, float("inf"))
