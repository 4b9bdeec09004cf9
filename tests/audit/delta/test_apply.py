"""A delta on its base gives the audited model to the bit, and on anything else nothing at all."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from editguard.audit.delta.apply import apply_delta, save_applied
from editguard.audit.delta.file import encode, read_delta
from editguard.audit.saved_model.manifest import MODEL_MARKER, audit_status
from editguard.audit.serving import load_provenance
from editguard.probes.errors import InputError
from editguard.probes.model.fingerprint import compute_fingerprint, hash_tensors
from editguard.probes.model.language_model import load_model
from editguard.probes.model.site import find_site
from hypothesis import given, settings
from hypothesis import strategies as st

from ...helpers.delta_files import change_left, make_delta
from ...helpers.examples import count_examples
from ...helpers.tiny_models import tiny_lm, tiny_model

pytestmark = pytest.mark.tiny

DTYPES = (torch.float32, torch.bfloat16, torch.float16)


@settings(max_examples=count_examples(40), deadline=None)
@given(
    family=st.sampled_from(["gpt2", "llama"]),
    dtype=st.sampled_from(DTYPES),
    layer=st.integers(0, 1),
    scale=st.floats(1e-4, 1e2),
    seed=st.integers(0, 2**31),
)
def test_apply_delta_gives_the_audited_model_to_the_bit(
    family: str, dtype: torch.dtype, layer: int, scale: float, seed: int, tmp_path_factory: pytest.TempPathFactory
) -> None:
    model = tiny_model(family).to(dtype)
    before = hash_tensors(model)
    delta = make_delta(model, layer, scale=scale, seed=seed)
    path = tmp_path_factory.getbasetemp() / "edit.delta.safetensors"
    path.write_bytes(encode(delta))
    again = read_delta(path)
    assert again.manifest == delta.manifest
    site = find_site(model, layer)
    with apply_delta(model, again):
        edited = hash_tensors(model)
        assert edited[f"{site.path}.weight"] == delta.manifest.sites[0].weight_edited
        assert {name for name in before if edited[name] != before[name]} <= {f"{site.path}.weight"}
    assert hash_tensors(model) == before


def test_apply_delta_exception_undoes_and_commit_keeps() -> None:
    model = tiny_model("llama")
    before, delta = compute_fingerprint(model), make_delta(model)
    with pytest.raises(KeyError), apply_delta(model, delta):
        raise KeyError
    assert compute_fingerprint(model) == before
    with apply_delta(model, delta) as applied:
        applied.commit()
    assert compute_fingerprint(model) != before
    with pytest.raises(InputError, match="unedited"), apply_delta(model, delta):
        pass


def test_apply_delta_of_another_model_or_shape_is_refused() -> None:
    delta = make_delta(tiny_model("llama"))
    with pytest.raises(InputError, match="fingerprint"), apply_delta(tiny_model("llama", seed=1), delta):
        pass
    short = change_left(delta, lambda left: left[:-1])
    with pytest.raises(InputError, match="factors"), apply_delta(tiny_model("llama"), short):
        pass


def test_apply_delta_with_another_result_is_put_back() -> None:
    model = tiny_model("llama")
    before, delta = compute_fingerprint(model), make_delta(model)
    wrong = change_left(delta, lambda left: left * (1 + 1e-6))
    with pytest.raises(InputError, match="as audited, and was put back"), apply_delta(model, wrong):
        pass
    assert compute_fingerprint(model) == before


def test_apply_delta_several_need_unaudited_together() -> None:
    model = tiny_model("llama")
    before, deltas = (
        compute_fingerprint(model),
        [make_delta(model, 0), make_delta(model, 0, seed=1), make_delta(model, 1, seed=2)],
    )
    with pytest.raises(InputError, match="audited alone"), apply_delta(model, *deltas):
        pass
    site = find_site(model, 0)
    wanted = (site.matrix(torch.float64) + (deltas[0].factors[0].delta() + deltas[1].factors[0].delta())).float()
    with apply_delta(model, *deltas, unaudited_together=True):
        assert torch.equal(site.matrix(), wanted)
    assert compute_fingerprint(model) == before
    other = make_delta(tiny_model("llama", seed=1))
    with (
        pytest.raises(InputError, match="different models"),
        apply_delta(model, deltas[0], other, unaudited_together=True),
    ):
        pass


@pytest.mark.parametrize("family", ["gpt2", "llama"])
@pytest.mark.parametrize("dtype", DTYPES)
def test_save_applied_folder_loads_as_the_audited_model(family: str, dtype: torch.dtype, tmp_path: Path) -> None:
    lm = tiny_lm(family, dtype=dtype)
    lm.model.save_pretrained(tmp_path / "base")
    lm.tokenizer.save_pretrained(tmp_path / "base")
    base = load_model(tmp_path / "base", device="cpu", dtype="auto")
    delta = make_delta(base.model)
    found = save_applied([delta], str(tmp_path / "base"), tmp_path / "out")
    again = load_model(tmp_path / "out", device="cpu", dtype="auto")
    site = f"{find_site(again.model, 0).path}.weight"
    assert hash_tensors(again.model)[site] == delta.manifest.sites[0].weight_edited
    assert again.fingerprint == found.fingerprint != found.base_fingerprint
    assert load_provenance(tmp_path / "out") == found
    assert sorted(path.name for path in tmp_path.iterdir() if path.suffix != ".lock") == ["base", "out"]
    with pytest.raises(InputError, match="not empty"):
        save_applied([delta], str(tmp_path / "base"), tmp_path / "out")
    save_applied([delta], str(tmp_path / "base"), tmp_path / "out", overwrite=True)
    with pytest.raises(InputError, match="unedited"):
        save_applied([delta], str(tmp_path / "out"), tmp_path / "twice")
    assert not (tmp_path / "twice").exists()


def test_save_applied_never_replaces_a_foreign_folder(tmp_path: Path) -> None:
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.tex").write_text("years of work")
    with pytest.raises(InputError, match="did not write"):
        save_applied([make_delta(tiny_model("llama"))], "x", tmp_path / "mine", overwrite=True)
    (tmp_path / MODEL_MARKER.name).write_text("{}")
    with pytest.raises(InputError, match="is a file"):
        save_applied([make_delta(tiny_model("llama"))], "x", tmp_path / MODEL_MARKER.name, overwrite=True)


VOID = {"log_sha256": "0" * 64, "verdict": "pass", "controls_ok": False}


def test_apply_delta_unaudited_edit_needs_the_option() -> None:
    model = tiny_model("llama")
    good, other, bare, void = (
        make_delta(model),
        make_delta(model, seed=1),
        make_delta(model, seed=2, audit=None),
        make_delta(model, seed=3, audit=VOID),
    )
    for one, why in ((bare, "it has no audit"), (void, "controls of its audit")):
        with pytest.raises(InputError, match=f"{one.manifest.id}.*{why}.*--unaudited"), apply_delta(model, one):
            pass
        with apply_delta(model, one, unaudited=True):
            assert hash_tensors(model)[f"{find_site(model, 0).path}.weight"] == one.manifest.sites[0].weight_edited
        assert audit_status([one.manifest]) == audit_status([good.manifest, one.manifest]) == "no"
    assert audit_status([good.manifest]) == "alone"
    assert audit_status([good.manifest, other.manifest]) == "each-alone"


def test_apply_delta_same_edit_twice_is_refused() -> None:
    model = tiny_model("llama")
    one = make_delta(model)
    again = replace(one, manifest=one.manifest.model_copy(update={"id": "renamed"}))
    for other in (one, again, make_delta(model, 1, id=one.manifest.id)):
        with pytest.raises(InputError, match="given twice"), apply_delta(model, one, other, unaudited_together=True):
            pass


def test_apply_delta_sum_not_finite_is_put_back() -> None:
    model = tiny_model("llama").half()
    before, one = compute_fingerprint(model), make_delta(model)
    scale = 40_000 / float(one.factors[0].delta().abs().max())
    first = make_delta(model, scale=scale)
    second = replace(
        first,
        manifest=first.manifest.model_copy(
            update={"id": "b", "sites": [first.manifest.sites[0].model_copy(update={"weight_edited": "0" * 64})]}
        ),
    )
    with apply_delta(model, first):
        assert torch.isfinite(find_site(model, 0).weight).all()
    with pytest.raises(InputError, match="finite"), apply_delta(model, first, second, unaudited_together=True):
        pass
    assert compute_fingerprint(model) == before


@settings(max_examples=count_examples(10), deadline=None)
@given(
    family=st.sampled_from(["gpt2", "llama"]),
    dtype=st.sampled_from(DTYPES),
    ranks=st.tuples(st.integers(1, 3), st.integers(1, 3)),
    seed=st.integers(0, 2**31),
)
def test_apply_delta_of_two_sites_gives_the_audited_model_to_the_bit(
    family: str, dtype: torch.dtype, ranks: tuple[int, int], seed: int, tmp_path_factory: pytest.TempPathFactory
) -> None:
    model = tiny_model(family).to(dtype)
    before, delta = hash_tensors(model), make_delta(model, 0, 1, ranks=ranks, seed=seed)
    path = tmp_path_factory.getbasetemp() / "two.delta.safetensors"
    path.write_bytes(encode(delta))
    again = read_delta(path)
    assert again.manifest == delta.manifest
    assert [site.rank for site in again.manifest.sites] == [*ranks]
    with apply_delta(model, again):
        edited = hash_tensors(model)
        for layer, site in enumerate(again.manifest.sites):
            assert edited[f"{find_site(model, layer).path}.weight"] == site.weight_edited
        assert sum(edited[name] != before[name] for name in before) == 2
    assert hash_tensors(model) == before


def test_apply_delta_of_two_sites_writes_none_where_one_does_not_fit() -> None:
    model = tiny_model("llama")
    before, delta = compute_fingerprint(model), make_delta(model, 0, 1)
    first, second = delta.factors
    for factors, why in (
        ((first, second._replace(left=second.left * 2)), "as audited, and was put back"),
        ((first, second._replace(left=second.left[:-1])), "make a change"),
    ):
        with pytest.raises(InputError, match=why), apply_delta(model, replace(delta, factors=factors)):
            pass
        assert compute_fingerprint(model) == before


def test_apply_delta_sums_what_edits_share_and_proves_the_rest() -> None:
    model = tiny_model("llama")
    before, both, low = compute_fingerprint(model), make_delta(model, 0, 1), make_delta(model, 0, seed=1)
    site, other = find_site(model, 0), find_site(model, 1)
    expected = (site.matrix(torch.float64) + (both.factors[0].delta() + low.factors[0].delta())).float()
    with apply_delta(model, both, low, unaudited_together=True):
        assert torch.equal(site.matrix(), expected)
        assert hash_tensors(model)[f"{other.path}.weight"] == both.manifest.sites[1].weight_edited
    assert compute_fingerprint(model) == before
