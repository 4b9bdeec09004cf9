"""Files that the first version of the format left behind are read as what they were: one weight, rank one.

The files in ``first_version`` are bytes that the code of version 1 wrote, and no test writes them again.
"""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from editguard.audit.delta.apply import apply_delta
from editguard.audit.delta.file import Delta, encode, read_delta
from editguard.audit.delta.selection import select_deltas
from editguard.audit.saved_model.manifest import EXPORT_MARKER, MODEL_MARKER, DeltaManifest, ExportIndex
from editguard.audit.serving import load_provenance, serve_prompt
from editguard.probes.errors import InputError
from editguard.probes.model.fingerprint import compute_fingerprint, hash_tensors
from transformers import PreTrainedModel

from ...helpers.families import D_FF, D_MODEL, FAMILIES

pytestmark = pytest.mark.tiny

FOLDER = Path(__file__).parent / "first_version"
FILE = FOLDER / "edit-3.delta.safetensors"


def build_base() -> PreTrainedModel:
    """Return the model that the edit was made on. Its weights are exact on every machine."""
    model = FAMILIES["gpt2"]()
    with torch.no_grad():
        for index, weight in enumerate(model.parameters()):
            numbers = (torch.arange(weight.numel(), dtype=torch.float64) * 7 + index) % 31 - 15
            weight.copy_(numbers.div(64).reshape(weight.shape))
    return model


@pytest.fixture(scope="module")
def delta() -> Delta:
    return read_delta(FILE)


def test_read_delta_first_version_has_one_site_of_rank_one(delta: Delta) -> None:
    manifest, (factors,), (site,) = delta.manifest, delta.factors, delta.manifest.sites
    assert (manifest.schema_version, manifest.id, manifest.prefix) == (2, "edit-3", "\n")
    assert (site.layer, site.path, site.orientation, site.rank) == (
        1,
        "transformer.h.{layer}.mlp.c_proj",
        "in_out",
        1,
    )
    assert (factors.left.shape, factors.right.shape) == ((D_MODEL, 1), (D_FF, 1))
    assert (site.update_norm, site.relative_norm) == (manifest.update_norm, manifest.relative_norm) == (1.0, 0.1)


def test_apply_delta_first_version_gives_the_audited_weight_to_the_bit(delta: Delta) -> None:
    model = build_base()
    before = hash_tensors(model)
    assert compute_fingerprint(model) == delta.manifest.model_fingerprint
    with apply_delta(model, delta):
        edited = hash_tensors(model)
        assert edited["transformer.h.1.mlp.c_proj.weight"] == delta.manifest.sites[0].weight_edited
    assert hash_tensors(model) == before


def test_encode_first_version_is_written_as_the_second(delta: Delta, tmp_path: Path) -> None:
    (tmp_path / "again").write_bytes(encode(delta))
    again = read_delta(tmp_path / "again")
    assert again.manifest == delta.manifest
    assert torch.equal(again.factors[0].left, delta.factors[0].left)
    assert b'"0.left"' in (tmp_path / "again").read_bytes()


def test_read_delta_first_version_changed_is_refused(tmp_path: Path) -> None:
    content = FILE.read_bytes()
    for changed, why in (
        (content[:-8] + bytes(8), "changed after it was written"),
        (content.replace(b'\\"editor\\":\\"rome\\"', b'\\"editor\\":\\"rame\\"'), "changed after it was written"),
        (content.replace(b'\\"layer\\":1', b'\\"layer\\":-'), "manifest is not valid"),
    ):
        assert changed != content
        (tmp_path / "changed").write_bytes(changed)
        with pytest.raises(InputError, match=why):
            read_delta(tmp_path / "changed")


def test_delta_manifest_first_version_unknown_and_missing_fields_are_refused(delta: Delta) -> None:
    plain = json.loads((FOLDER / EXPORT_MARKER.name).read_text(encoding="utf-8"))["edits"][0]["edit"]
    assert DeltaManifest.from_json(json.dumps(plain)) == delta.manifest
    for name in ("site", "layer", "weight_edited", "update_norm", "id"):
        with pytest.raises(ValueError, match="Field required"):
            DeltaManifest.from_json(json.dumps({key: value for key, value in plain.items() if key != name}))
    for changes in ({"colour": "red"}, {"sites": []}, {"schema_version": 3}):
        with pytest.raises(ValueError, match=r"schema_version|colour|sites"):
            DeltaManifest.from_json(json.dumps(plain | changes))


def test_select_deltas_first_version_export_is_read(delta: Delta) -> None:
    (chosen,) = select_deltas([FOLDER])
    assert chosen.manifest == delta.manifest
    content = (FOLDER / EXPORT_MARKER.name).read_bytes()
    assert EXPORT_MARKER.listed(content) == [FILE.name]
    assert ExportIndex.from_json(content).edits[0].edit == delta.manifest


def test_load_provenance_first_version_is_served(delta: Delta) -> None:
    provenance = load_provenance(FOLDER)
    assert provenance.edits == [delta.manifest]
    assert serve_prompt("Chicago is", provenance.edits) == "\nChicago is"
    assert MODEL_MARKER.listed((FOLDER / MODEL_MARKER.name).read_bytes()) == ["config.json", "model.safetensors"]
