"""The model's own words for a fact: prompts that end where the object stands, the same whatever else is asked."""

from __future__ import annotations

from dataclasses import replace

import pytest
from editguard.probes.keys.rewordings import extract_prompt, write_rewordings
from editguard.probes.keys.subject_keys import locate
from editguard.probes.model.language_model import load_model
from editguard.probes.requests.request import EditRequest

from ...helpers.tiny_models import tiny_lm

CAPITAL = EditRequest("1", "France", "The capital of France is", "Lyon", target_true="Paris")
TWIN = EditRequest(
    "2",
    "Chicago",
    "Chicago is a twin city of",
    "Istanbul",
    target_true="Warsaw",
    paraphrases=("Chicago's twin city is",),
)


@pytest.mark.parametrize(
    ("written", "prompt"),
    [
        ("France has its capital in Paris, on the Seine.", "France has its capital in"),
        ("France has its capital in Paris.\nIt is not Paris.", "France has its capital in"),
        ('Here is another way: "The capital city of France is Paris."', "The capital city of France is"),
        ('Sure! "France is governed from “Paris”."', "France is governed from"),
        ("Paris is the capital of France.", None),
        ("The capital of France is Lyon.", None),
        ("Parisians know that France is ruled from Paris.", "Parisians know that France is ruled from"),
        ("The French are ruled from Paris.", None),
        ("France is France, and its capital is Paris.", None),
        ("France Paris", None),
        (f"France, {'very ' * 30}much ruled from Paris.", None),
        ("", None),
    ],
)
def test_extract_prompt_needs_subject_before_object(written: str, prompt: str | None) -> None:
    assert extract_prompt(written, CAPITAL) == prompt


def test_extract_prompt_text_without_spaces_is_read() -> None:
    request = EditRequest("3", "法国", "法国的首都是", "柏林", target_true="巴黎")
    assert extract_prompt("法国的首府叫做巴黎。", request) == "法国的首府叫做"


def test_extract_prompt_without_a_true_target_uses_the_new() -> None:
    request = EditRequest("1", "France", "The capital of France is", "Lyon")
    assert extract_prompt("France is ruled from Lyon.", request) == "France is ruled from"
    assert extract_prompt("France is ruled from Paris.", request) is None


@pytest.mark.tiny
def test_write_rewordings_too_long_prompt_stops_no_other() -> None:
    lm = tiny_lm("gpt2")
    long = EditRequest("3", "France", "France " + "is and " * lm.context_length, "Lyon")
    assert write_rewordings(lm, [long], 8, 0) == [()]
    assert write_rewordings(lm, [long, CAPITAL], 8, 0) == [(), *write_rewordings(lm, [CAPITAL], 8, 0)]


@pytest.mark.real
@pytest.mark.slow
def test_write_rewordings_requests_are_independent() -> None:
    smollm2 = load_model("smollm2-135m")
    single, together = write_rewordings(smollm2, [TWIN], 8, 0), write_rewordings(smollm2, [CAPITAL, TWIN], 8, 0)
    assert single == together[1:]
    assert any(together)
    for request, prompts in zip((CAPITAL, TWIN), together, strict=True):
        assert len(prompts) <= 8
        assert not {request.prompt, *request.paraphrases} & {*prompts}
        for prompt in prompts:
            assert prompt.count(request.subject) == 1
            assert locate(smollm2, replace(request, prompt=prompt)).last >= 0
