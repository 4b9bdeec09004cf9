"""The guide to delta files can be followed: its Python runs as it stands, and its names of files are those that are given."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
from editguard.audit.delta import Delta, save_applied
from editguard.audit.delta.file import SUFFIX, encode
from editguard.probes.model.fingerprint import hash_tensors
from editguard.probes.model.language_model import load_model
from editguard.reports.text import make_slugs

from ...helpers.delta_files import make_delta
from ...helpers.tiny_models import save_checkpoint

pytestmark = pytest.mark.tiny

DOCS = Path(__file__).resolve().parents[3] / "docs"
GUIDE = (DOCS / "how-to" / "export-apply-serve.md").read_text(encoding="utf-8")
REFERENCE = (DOCS / "reference" / "delta-files.md").read_text(encoding="utf-8")
APPLY, SERVE = re.findall(r"```python\n(.*?)```", GUIDE, re.DOTALL)


@pytest.fixture
def delta(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Delta:
    """Stand where the guide's commands were run: a base, and an export of an edit that needs a prefix."""
    monkeypatch.chdir(tmp_path)
    save_checkpoint(tmp_path / "base")
    delta = make_delta(load_model("./base", device="cpu").model, needs_prefix=True, prefix="\n")
    (tmp_path / "build" / "deltas").mkdir(parents=True)
    (tmp_path / "build" / "deltas" / f"1{SUFFIX}").write_bytes(encode(delta))
    return delta


def run(example: str) -> dict[str, Any]:
    names: dict[str, Any] = {}
    exec(compile(example, "export-apply-serve.md", "exec"), names)
    return names


def test_guide_example_of_apply_keeps_the_edit(delta: Delta) -> None:
    lm = run(APPLY)["lm"]
    assert hash_tensors(lm.model)["model.layers.0.mlp.down_proj.weight"] == delta.manifest.sites[0].weight_edited


def test_guide_example_of_serving_serves_texts_ids_and_pipelines(delta: Delta, tmp_path: Path) -> None:
    save_applied([delta], "./base", tmp_path / "build" / "edited")
    names = run(SERVE)
    assert names["prompt"] == "\nChicago is a twin city of"
    written = names["tokenizer"].decode(names["written"][0])
    assert written.startswith(names["prompt"])
    assert names["answer"]["generated_text"].startswith("Chicago is a twin city of")


def test_reference_example_of_a_file_name_is_the_slug() -> None:
    ((edit_id, name),) = re.findall(r"`([^`]+)` is `([^`]+)\.delta\.safetensors`", REFERENCE)
    assert list(make_slugs([edit_id, "1"])) == [name, "1"]
