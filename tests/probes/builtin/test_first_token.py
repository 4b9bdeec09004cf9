"""The first-token probe: with and without a BOS before the subject."""

from __future__ import annotations

import pytest
from editguard.probes.builtin.first_token import FirstToken
from editguard.probes.model.language_model import LanguageModel
from editguard.probes.probe import Level
from editguard.probes.requests.request import EditRequest

from ...helpers.probe_inputs import measured_input
from ...helpers.tiny_models import tiny_language_model
from ...helpers.tokenizer_kinds import BYTE_LEVEL

pytestmark = pytest.mark.tiny

FIRST = EditRequest(id="first", subject="Chicago", prompt="Chicago is a twin city of", target_new="Lyon")


def test_first_token_subject_of_one_token_at_the_start_fires(lm: LanguageModel) -> None:
    finding = FirstToken().examine(measured_input(lm, FIRST))
    assert (finding.level, finding.value) == (Level.RISK, 0.0)


def test_first_token_after_a_bos_is_ok() -> None:
    finding = FirstToken().examine(measured_input(tiny_language_model("llama", BYTE_LEVEL["bytes-bos"]), FIRST))
    assert (finding.level, finding.value) == (Level.OK, 1.0)
