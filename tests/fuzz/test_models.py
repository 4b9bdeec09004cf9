"""Folders of models whose configuration or tokenizer is spoilt: loaded, or refused in one sentence."""

from __future__ import annotations

from pathlib import Path

import pytest
from editguard.probes.model.language_model import LanguageModel, load_model
from hypothesis import given, settings
from hypothesis import strategies as st

from ..helpers.tiny_models import tiny_lm
from .harness import EXAMPLES, FUZZ_SETTINGS, read_or_refuse, spoil

FAMILIES = ("llama", "gpt2")


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folders = {}
    for family in FAMILIES:
        folders[family] = tmp_path_factory.mktemp(family)
        lm = tiny_lm(family)
        lm.model.save_pretrained(folders[family])
        lm.tokenizer.save_pretrained(folders[family])
    return folders


@pytest.mark.parametrize("name", ["config.json", "tokenizer_config.json", "tokenizer.json", "generation_config.json"])
@pytest.mark.parametrize("family", FAMILIES)
# Each takes a tenth of a second, and not a thousandth.
@settings(FUZZ_SETTINGS, max_examples=max(40, EXAMPLES // 10))
@given(data=st.data())
def test_load_model_spoilt_folder_is_read_or_refused(
    family: str, name: str, data: st.DataObject, folders: dict[str, Path]
) -> None:
    path = folders[family] / name
    whole = path.read_bytes()
    path.write_bytes(data.draw(spoil([whole])))
    try:
        lm = read_or_refuse(lambda: load_model(folders[family]), folders[family])
        assert lm is None or isinstance(lm, LanguageModel)
    finally:
        path.write_bytes(whole)
