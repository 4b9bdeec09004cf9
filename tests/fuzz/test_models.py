"""Folders of models whose configuration or tokenizer is spoilt: loaded, or told in one sentence what is wrong."""

from __future__ import annotations

from pathlib import Path

import pytest
from editguard.probes.model.language_model import LanguageModel, load_model
from hypothesis import given, settings
from hypothesis import strategies as st

from ..helpers.tiny_models import tiny_lm
from .harness import EXAMPLES, FUZZED, spoilt, told_or_read

FAMILIES = ("llama", "gpt2")


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    found = {}
    for family in FAMILIES:
        found[family] = tmp_path_factory.mktemp(family)
        lm = tiny_lm(family)
        lm.model.save_pretrained(found[family])
        lm.tokenizer.save_pretrained(found[family])
    return found


@pytest.mark.parametrize("name", ["config.json", "tokenizer_config.json", "tokenizer.json", "generation_config.json"])
@pytest.mark.parametrize("family", FAMILIES)
# Each takes a tenth of a second, and not a thousandth.
@settings(FUZZED, max_examples=max(40, EXAMPLES // 10))
@given(data=st.data())
def test_load_model_spoilt_folder_is_read_or_refused(family: str, name: str, data: st.DataObject, folders: dict[str, Path]) -> None:
    path = folders[family] / name
    whole = path.read_bytes()
    path.write_bytes(data.draw(spoilt([whole])))
    try:
        found = told_or_read(lambda: load_model(folders[family]), folders[family])
        assert found is None or isinstance(found, LanguageModel)
    finally:
        path.write_bytes(whole)
