"""Tasks of lm-evaluation-harness on the model in memory, with local data and no network. They need the extra ``tasks``."""

from __future__ import annotations

import copy
import json
import random
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from editguard.probes.errors import InputError
from editguard.probes.model.fingerprint import compute_fingerprint
from editguard.probes.model.language_model import LanguageModel
from editguard.suites.tasks.harness import HarnessTask
from editguard.suites.tasks.names import load_tasks
from editguard.suites.tasks.task import Task

from ...helpers.tiny_models import tiny_lm

pytest.importorskip("lm_eval", reason="the extra editguard[tasks] is not installed")

# The harness and what it imports warn about themselves.
pytestmark = [pytest.mark.tiny, pytest.mark.filterwarnings("default")]

ITEMS = [
    {"question": "The capital of France is", "choices": ["Paris", "a twin of 1984"], "answer": 0},
    {"question": "It is", "choices": ["2024", "Lyon is not France"], "answer": 1},
    {"question": "Lyon is a", "choices": ["city", "day of the year"], "answer": 0},
]
CHOICE = """
output_type: multiple_choice
doc_to_text: "{{question}}"
doc_to_choice: "{{choices}}"
doc_to_target: answer
metric_list:
  - metric: acc
"""
TEXT = """
output_type: generate_until
doc_to_text: "{{question}}"
doc_to_target: "{{choices[0]}}"
generation_kwargs:
  max_gen_toks: 4
  until: ["."]
metric_list:
  - metric: exact_match
"""


def write_task(folder: Path, body: str = CHOICE, items: list[dict[str, Any]] = ITEMS) -> str:
    """Write a task with local data; return its name for `load_tasks`."""
    data = folder / "items.jsonl"
    data.write_text("\n".join(json.dumps(item) for item in items), encoding="utf-8")
    head = f"task: mine\ndataset_path: json\ndataset_kwargs:\n  data_files:\n    test: {data}\ntest_split: test\n"
    (folder / "mine.yaml").write_text(head + body, encoding="utf-8")
    return f"lm-eval:{folder}/mine"


def ended_lm() -> LanguageModel:
    """A tiny model whose tokenizer names the token that ends a text, and none for padding."""
    lm = tiny_lm()
    tokenizer = copy.deepcopy(lm.tokenizer)
    tokenizer.eos_token, tokenizer.pad_token = "<s>", None
    return replace(lm, tokenizer=tokenizer)


def load(name: str) -> Task:
    (task,) = load_tasks([name])
    return task


def prefer(lm: LanguageModel, item: dict[str, Any]) -> int:
    """Return the choice with the highest log-probability, from one plain pass for each."""
    sums = []
    for choice in item["choices"]:
        before = lm.tokenizer(item["question"]).input_ids
        ids = lm.tokenizer(f"{item['question']} {choice}").input_ids
        with torch.no_grad():
            logs = lm.model(torch.tensor([ids])).logits[0].log_softmax(-1)
        sums.append(sum(float(logs[place - 1, ids[place]]) for place in range(len(before), len(ids))))
    return sums.index(max(sums))


def test_harness_task_scores_each_item_as_a_plain_pass_does(tmp_path: Path) -> None:
    lm = ended_lm()
    task = load(write_task(tmp_path))
    assert task.score(lm) == [prefer(lm, item) == item["answer"] for item in ITEMS]
    assert list(task.items) == [item["question"] for item in ITEMS]
    others = [{**item, "answer": 1 - item["answer"]} for item in ITEMS]
    (tmp_path / "other").mkdir()
    opposite = load(write_task(tmp_path / "other", items=others)).score(lm)
    assert opposite == [not answer for answer in task.score(lm)]


def test_harness_task_leaves_model_tokenizer_and_random_state_as_they_are(tmp_path: Path) -> None:
    lm = ended_lm()
    before = compute_fingerprint(lm.model), lm.tokenizer.pad_token, lm.tokenizer.padding_side, len(lm.tokenizer)
    random.seed(3), torch.manual_seed(3)
    states = random.getstate(), torch.get_rng_state()
    load(write_task(tmp_path)).score(lm)
    now = compute_fingerprint(lm.model), lm.tokenizer.pad_token, lm.tokenizer.padding_side, len(lm.tokenizer)
    assert now == before
    assert random.getstate() == states[0]
    assert torch.equal(torch.get_rng_state(), states[1])


def test_harness_task_model_with_nan_is_unmeasured(tmp_path: Path) -> None:
    lm = ended_lm()
    weight = lm.model.get_output_embeddings().weight
    own = weight.detach().clone()
    with torch.no_grad():
        weight.fill_(float("nan"))
    try:
        assert load(write_task(tmp_path)).score(lm) == [None] * 3
    finally:
        with torch.no_grad():
            weight.copy_(own)


def test_harness_task_of_generated_text_is_right_or_wrong(tmp_path: Path) -> None:
    assert load(write_task(tmp_path, TEXT)).score(ended_lm()) == [False] * 3


def test_harness_task_metric_between_0_and_1_is_refused(tmp_path: Path) -> None:
    task = HarnessTask("lm-eval:mine", "mine", tmp_path)
    sample = {"doc_id": 0, "acc": 0.5, "filtered_resps": [], "arguments": [("a", "b")]}
    with pytest.raises(InputError, match=r"is 0\.5 for an item"):
        task._read([sample])
    with pytest.raises(InputError, match="by none of exact_match, acc_norm, acc"):
        task._read([{**{k: v for k, v in sample.items() if k != "acc"}, "f1": 1.0}])
    with pytest.raises(InputError, match="several filters"):
        task._read([sample, sample])


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("lm-eval:{}/other", r"no task 'other' among those in .* \(mine\)"),
        ("lm-eval:{}/gone/mine", "which does not exist"),
        ("lm-eval:no-such-task", "that lm-evaluation-harness ships"),
    ],
)
def test_harness_task_that_is_not_there_is_refused(tmp_path: Path, name: str, message: str) -> None:
    write_task(tmp_path)
    with pytest.raises(InputError, match=message):
        load(name.format(tmp_path))


def test_harness_task_that_fails_says_why_in_one_sentence(tmp_path: Path) -> None:
    name = write_task(tmp_path)
    (tmp_path / "items.jsonl").unlink()
    with pytest.raises(InputError, match="cannot run the task 'mine' "):
        load(name).score(ended_lm())


def test_harness_task_tokenizer_without_an_end_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="eos_token"):
        load(write_task(tmp_path)).score(tiny_lm())
