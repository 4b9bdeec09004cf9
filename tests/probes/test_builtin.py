"""Every built-in probe is seen firing and not firing; evidence that is not finite is an ERROR."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
from editguard.probes.builtin import Denominator, FirstToken, KeyShift, SinkKey, WellFormed
from editguard.probes.evidence import Evidence
from editguard.probes.forward.generation import continuations
from editguard.probes.model.language_model import LanguageModel
from editguard.probes.probe import Level, Probe, ProbeInput, Threshold
from editguard.probes.requests.request import EditRequest

from ..helpers.tiny_models import TWIN_REQUEST, tiny_language_model, tiny_meter
from ..helpers.tokenizer_kinds import BYTE_LEVEL, WORDPIECE

pytestmark = pytest.mark.tiny

LIMITS = {
    "denominator/ratio": 0.2,
    "denominator/predicted_relative_norm": 2.0,
    "key-shift/cosine": 0.6,
    "sink-key/cosine": 0.8,
}
THRESHOLDS = {key: Threshold(*key.split("/"), value, "by hand", 16, {}) for key, value in LIMITS.items()}
FIRST = EditRequest(id="first", subject="Chicago", prompt="Chicago is a twin city of", target_new="Lyon")


@pytest.fixture(scope="module")
def lm() -> LanguageModel:
    return tiny_language_model("llama")


@pytest.fixture(scope="module")
def sound(lm: LanguageModel) -> ProbeInput:
    """A case that no probe fires on; tests replace the one number that they are about."""
    evidence = replace(
        tiny_meter(lm).measure(TWIN_REQUEST), denominator=0.9, denominator_prefixed=1.0, cosine=0.9, sink_similarity=0.1,
        predicted_relative_norm=0.5,
    )  # fmt: skip
    return ProbeInput(lm, TWIN_REQUEST, evidence, THRESHOLDS)


def with_evidence(case: ProbeInput, **numbers: float) -> ProbeInput:
    return replace(case, evidence=replace(case.evidence, **numbers))


def asked(lm: LanguageModel, request: EditRequest) -> ProbeInput:
    return ProbeInput(lm, request, tiny_meter(lm).measure(request), THRESHOLDS)


@pytest.mark.parametrize("probe", [FirstToken, KeyShift, Denominator, SinkKey, WellFormed])
def test_no_probe_fires_on_a_sound_case(sound: ProbeInput, probe: type[Probe]) -> None:
    found = probe().examine(sound)
    assert (found.level, found.probe, found.unit) == (Level.OK, probe.name, probe.card.unit)
    assert found.value is not None


@pytest.mark.parametrize(
    ("probe", "numbers", "fires"),
    [
        (KeyShift, {"cosine": 0.61}, False),
        (KeyShift, {"cosine": 0.59}, True),
        (KeyShift, {"cosine": -0.9}, True),
        (SinkKey, {"sink_similarity": 0.79}, False),
        (SinkKey, {"sink_similarity": 0.81}, True),
        (Denominator, {"denominator": 0.21}, False),
        (Denominator, {"denominator": 0.19}, True),
        (Denominator, {"denominator": 4.2, "denominator_prefixed": 20.0}, False),
        (Denominator, {"denominator": 3.8, "denominator_prefixed": 20.0}, True),
        (Denominator, {"predicted_relative_norm": 1.9}, False),
        (Denominator, {"predicted_relative_norm": 2.1}, True),
    ],
)
def test_a_probe_fires_on_one_side_of_its_threshold(
    sound: ProbeInput, probe: type[Probe], numbers: dict[str, float], fires: bool
) -> None:
    found = probe().examine(with_evidence(sound, **numbers))
    assert found.level is (Level.RISK if fires else Level.OK)
    assert found.threshold in LIMITS.values()
    assert ("outside the bound" in found.message.split(";")[0]) is fires  # the rule that fired is told first
    assert found.message.count("side the bound (at ") == found.message.count(";") + 1


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize(
    ("probe", "number"),
    [
        (KeyShift, "cosine"),
        (SinkKey, "sink_similarity"),
        (Denominator, "denominator"),
        (Denominator, "denominator_prefixed"),
        (Denominator, "predicted_relative_norm"),
    ],
)
def test_evidence_that_is_not_finite_is_an_error(sound: ProbeInput, probe: type[Probe], number: str, bad: float) -> None:
    assert probe().examine(with_evidence(sound, **{number: bad})).level is Level.ERROR


def test_a_denominator_of_zero_never_passes(sound: ProbeInput) -> None:
    found = Denominator().examine(with_evidence(sound, denominator=0.0, predicted_relative_norm=math.inf))
    assert found.level is Level.ERROR


def test_the_details_stand_beside_the_numbers(sound: ProbeInput) -> None:
    seen: Evidence = sound.evidence
    assert KeyShift().examine(sound).details == {
        "norm_ratio": seen.norm_ratio,
        "distance_ratio": seen.distance_ratio,
    }
    assert Denominator().examine(sound).details["predicted_relative_norm"] == 0.5


# The first token


def test_a_single_token_that_begins_the_prompt_fires(lm: LanguageModel) -> None:
    found = FirstToken().examine(asked(lm, FIRST))
    assert (found.level, found.value) == (Level.RISK, 0.0)


def test_a_bos_in_front_keeps_it_quiet() -> None:
    found = FirstToken().examine(asked(tiny_language_model("llama", BYTE_LEVEL["bytes-bos"]), FIRST))
    assert (found.level, found.value) == (Level.OK, 1.0)


# Well-formed


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
def test_a_request_that_cannot_be_judged_fires(lm: LanguageModel, change: dict[str, str], message: str) -> None:
    found = WellFormed().examine(asked(lm, replace(TWIN_REQUEST, **change)))
    assert found.level is Level.RISK
    assert message in found.message
    assert found.value == 1.0


def test_a_target_that_the_tokenizer_cannot_spell_fires() -> None:
    lm = tiny_language_model("llama", WORDPIECE["wordpiece-lower"])
    found = WellFormed().examine(asked(lm, replace(TWIN_REQUEST, target_new="Lyon")))
    assert found.level is Level.RISK
    assert "does not survive tokenisation" in found.message


def test_several_faults_are_all_named(lm: LanguageModel) -> None:
    found = WellFormed().examine(asked(lm, replace(TWIN_REQUEST, subject="Istanb", target_new="Paris", target_true="Paris")))
    assert found.value == 3.0
    assert "is a part of 'Istanbul'" in found.message
    assert "ends inside a token" in found.message
    assert "is also target_true" in found.message


def test_well_formed_known_bad_cases_all_fire(sound: ProbeInput) -> None:
    for number, spoilt in enumerate(WellFormed().known_bad(sound)):
        found = WellFormed().examine(spoilt)
        assert found.level is Level.RISK, number
        assert found.value == 1.0, number


def test_well_formed_with_several_notices_names_all(lm: LanguageModel) -> None:
    asks = replace(
        TWIN_REQUEST,
        prompt=TWIN_REQUEST.prompt + " ",
        paraphrases=("Boston is a twin city of",),
        neighbourhood=(f"{TWIN_REQUEST.subject} Heights is twinned with",),
    )
    found = WellFormed().examine(asked(lm, asks))
    assert found.level is Level.NOTICE
    assert "ends in white space" in found.message
    assert "'Boston is a twin city of' does not name the subject" in found.message
    assert "Heights is twinned with' names the subject" in found.message


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({}, ""),
        ({"prompt": TWIN_REQUEST.prompt + ' "'}, "the target follows without a space, as the characters"),
        ({"space": False}, "without a space, as the request asks"),
        ({"space": True}, "after a space, as the request asks"),
    ],
)
def test_well_formed_says_how_prompt_and_target_are_joined(
    lm: LanguageModel, change: dict[str, object], said: str
) -> None:
    found = WellFormed().examine(asked(lm, replace(TWIN_REQUEST, **change)))  # type: ignore[arg-type]
    assert found.level is Level.OK
    assert ("the target follows" in found.message) is bool(said)
    assert said in found.message


def test_a_prompt_that_ends_in_white_space_is_a_notice(lm: LanguageModel) -> None:
    found = WellFormed().examine(asked(lm, replace(TWIN_REQUEST, prompt=TWIN_REQUEST.prompt + " ")))
    assert (found.level, "ends in white space" in found.message) == (Level.NOTICE, True)


def test_a_target_that_the_model_says_already_is_a_notice(lm: LanguageModel) -> None:
    ids = lm.tokenizer(TWIN_REQUEST.prompt).input_ids
    said = lm.tokenizer.decode(continuations(lm, [ids], 1)[0])
    case = asked(lm, TWIN_REQUEST)
    assert WellFormed().examine(case).level is Level.OK
    # The target is whatever this random model says; where it says no clean word, the prompt's end is varied.
    for end in ("", " not", " a", " the", " Paris", " France", " Lyon", " city", " It", " twin"):
        prompt = TWIN_REQUEST.prompt + end
        said = lm.tokenizer.decode(continuations(lm, [lm.tokenizer(prompt).input_ids], 1)[0])
        if said.strip().isascii() and said.startswith(" ") and said.strip().isalpha():
            found = WellFormed().examine(asked(lm, replace(TWIN_REQUEST, prompt=prompt, target_new=said.strip())))
            assert found.level is Level.NOTICE
            assert "already continues" in found.message
            return
    pytest.fail("this model says no word at all; take another seed")
