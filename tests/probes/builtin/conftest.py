"""A tiny model and an input that no built-in probe fires on."""

from __future__ import annotations

import pytest
from editguard.probes.model.language_model import LanguageModel
from editguard.probes.probe import ProbeInput

from ...helpers.probe_inputs import sound_input
from ...helpers.tiny_models import tiny_language_model


@pytest.fixture(scope="package")
def lm() -> LanguageModel:
    return tiny_language_model("llama")


@pytest.fixture(scope="package")
def sound(lm: LanguageModel) -> ProbeInput:
    return sound_input(lm)
