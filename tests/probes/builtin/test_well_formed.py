"""The well-formed probe: every fault and every notice, and how prompt and target are joined."""

from __future__ import annotations

from dataclasses import replace

import pytest
from editguard.probes.builtin.well_formed import WellFormed
from editguard.probes.forward.generation import continue_greedily
from editguard.probes.model.language_model import LanguageModel
from editguard.probes.probe import Level, ProbeInput

from ...helpers.probe_inputs import measured_input
from ...helpers.tiny_models import TWIN_REQUEST, tiny_language_model
from ...helpers.tokenizer_kinds import WORDPIECE

pytestmark = pytest.mark.tiny


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"target_new": "<|im_start|>"}, "special token"),
        ({"target_new": "Paris", "target_true": "Paris"}, "is also target_true"),
        ({"prompt": "The <|im_start|>twin city of Istanbul is"}, "prompt holds a special token"),
        ({"target_new": "Paris", "target_true": "Lutetia", "true_aliases": ("Paris",)}, "is also target_true"),
        ({"subject": "stanbul"}, "subject 'stanbul' is a part of 'Istanbul'"),
    ],
    ids=["special-target", "same-targets", "special-prompt", "same-alias", "part-of-a-word"],
)
def test_well_formed_request_that_cannot_be_judged_fires(
    lm: LanguageModel, change: dict[str, str], message: str
) -> None:
    finding = WellFormed().examine(measured_input(lm, replace(TWIN_REQUEST, **change)))
    assert finding.level is Level.RISK
    assert message in finding.message
    assert finding.value == 1.0


def test_well_formed_target_that_the_tokenizer_cannot_spell_fires() -> None:
    lm = tiny_language_model("llama", WORDPIECE["wordpiece-lower"])
    finding = WellFormed().examine(measured_input(lm, replace(TWIN_REQUEST, target_new="Lyon")))
    assert finding.level is Level.RISK
    assert "does not survive tokenisation" in finding.message


def test_well_formed_several_faults_are_all_named(lm: LanguageModel) -> None:
    request = replace(TWIN_REQUEST, subject="Istanb", target_new="Paris", target_true="Paris")
    finding = WellFormed().examine(measured_input(lm, request))
    assert finding.value == 3.0
    assert "is a part of 'Istanbul'" in finding.message
    assert "ends inside a token" in finding.message
    assert "is also target_true" in finding.message


def test_well_formed_known_bad_inputs_all_fire(sound: ProbeInput) -> None:
    for number, spoiled in enumerate(WellFormed().known_bad(sound)):
        finding = WellFormed().examine(spoiled)
        assert finding.level is Level.RISK, number
        assert finding.value == 1.0, number


def test_well_formed_several_notices_are_all_named(lm: LanguageModel) -> None:
    request = replace(
        TWIN_REQUEST,
        prompt=TWIN_REQUEST.prompt + " ",
        paraphrases=("Boston is a twin city of",),
        neighbourhood=(f"{TWIN_REQUEST.subject} Heights is twinned with",),
    )
    finding = WellFormed().examine(measured_input(lm, request))
    assert finding.level is Level.NOTICE
    assert (finding.value, finding.threshold, finding.unit) == (0.0, 0.0, "faults")
    assert "ends in white space" in finding.message
    assert "'Boston is a twin city of' does not name the subject" in finding.message
    assert "Heights is twinned with' names the subject" in finding.message


@pytest.mark.parametrize(
    ("change", "clause"),
    [
        ({}, ""),
        ({"prompt": TWIN_REQUEST.prompt + ' "'}, "the target follows without a space, as the characters"),
        ({"space": False}, "without a space, as the request asks"),
        ({"space": True}, "after a space, as the request asks"),
    ],
)
def test_well_formed_message_names_the_join_of_prompt_and_target(
    lm: LanguageModel, change: dict[str, object], clause: str
) -> None:
    finding = WellFormed().examine(measured_input(lm, replace(TWIN_REQUEST, **change)))  # type: ignore[arg-type]
    assert finding.level is Level.OK
    assert ("the target follows" in finding.message) is bool(clause)
    assert clause in finding.message


def test_well_formed_prompt_that_ends_in_white_space_is_a_notice(lm: LanguageModel) -> None:
    finding = WellFormed().examine(measured_input(lm, replace(TWIN_REQUEST, prompt=TWIN_REQUEST.prompt + " ")))
    assert (finding.level, "ends in white space" in finding.message) == (Level.NOTICE, True)


def test_well_formed_target_that_the_model_says_already_is_a_notice(lm: LanguageModel) -> None:
    assert WellFormed().examine(measured_input(lm, TWIN_REQUEST)).level is Level.OK
    # The target is whatever this random model says; where it says no clean word, the prompt's end is varied.
    for end in ("", " not", " a", " the", " Paris", " France", " Lyon", " city", " It", " twin"):
        prompt = TWIN_REQUEST.prompt + end
        answer = lm.tokenizer.decode(continue_greedily(lm, [lm.tokenizer(prompt).input_ids], 1)[0])
        if answer.strip().isascii() and answer.startswith(" ") and answer.strip().isalpha():
            request = replace(TWIN_REQUEST, prompt=prompt, target_new=answer.strip())
            finding = WellFormed().examine(measured_input(lm, request))
            assert finding.level is Level.NOTICE
            assert "already continues" in finding.message
            return
    pytest.fail("this model says no word at all; take another seed")
