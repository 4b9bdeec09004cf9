"""The loss of a task is judged by the end of its interval, and a task that cannot tell is unmeasured."""

from __future__ import annotations

import pytest
from editguard.probes.errors import InputError
from editguard.suites.check import Measurement, Outcome
from editguard.suites.tasks.measure import measure_task

from ...helpers.scripted_tasks import ScriptedTask

TASK = ScriptedTask("greeting", [[True] * 100])


def judge_loss(before: list[bool | None], after: list[bool | None], most: float = 0.1) -> Measurement:
    task = ScriptedTask("greeting", [before])
    (loss,) = [row for row in measure_task(task, before, after, most) if row.metric == "loss"]
    return loss


def test_measure_task_with_other_numbers_of_scores_is_refused() -> None:
    with pytest.raises(InputError, match="has 100 items, and 100 and 40 scores"):
        measure_task(TASK, answers(90), answers(30, 40), 0.1)


def answers(right: int, count: int = 100) -> list[bool | None]:
    return [index < right for index in range(count)]


def test_measure_task_unchanged_answers_pass_with_the_base_s_accuracy() -> None:
    rows = {row.metric: row for row in measure_task(TASK, answers(90), answers(90), 0.1)}
    assert {row.check for row in rows.values()} == {"task:greeting"}
    accuracy, loss = rows["accuracy"], rows["loss"]
    assert (accuracy.value, accuracy.baseline, accuracy.passed, accuracy.failed) == (0.9, 0.9, 90, 10)
    assert accuracy.outcome is rows["p-value"].outcome is Outcome.INFO
    assert rows["p-value"].value == 1.0
    assert loss.outcome is Outcome.PASS
    assert loss.value is not None
    assert 0 < loss.value < 0.05


@pytest.mark.parametrize(("lost", "outcome"), [(4, Outcome.PASS), (5, Outcome.FAIL), (40, Outcome.FAIL)])
def test_measure_task_loss_that_the_items_cannot_exclude_fails(lost: int, outcome: Outcome) -> None:
    loss = judge_loss(answers(90), answers(90 - lost))
    assert loss.outcome is outcome
    assert (loss.failed, loss.passed, loss.threshold) == (lost, 100 - lost, 0.1)
    assert f"{lost} lost, 0 gained" in loss.message
    assert repr(TASK.items[90 - lost]) in loss.message


def test_measure_task_gains_never_fail() -> None:
    assert judge_loss(answers(60), answers(100)).outcome is Outcome.PASS


def test_measure_task_one_item_that_is_not_finite_is_unmeasured() -> None:
    loss = judge_loss([*answers(90, 99), True], [*answers(90, 99), None])
    assert (loss.outcome, loss.value, loss.not_judged) == (Outcome.UNMEASURED, None, 1)


def test_measure_task_no_item_is_unmeasured() -> None:
    assert judge_loss([], []).outcome is Outcome.UNMEASURED


def test_measure_task_too_few_items_are_unmeasured() -> None:
    loss = judge_loss(answers(9, 10), answers(9, 10))
    assert (loss.outcome, loss.value) == (Outcome.UNMEASURED, None)
    assert "10 items are too few" in loss.message
    assert judge_loss(answers(9, 10), answers(9, 10), most=0.4).outcome is Outcome.PASS


@pytest.mark.parametrize("right", [0, 2])
def test_measure_task_that_the_base_cannot_do_is_unmeasured(right: int) -> None:
    loss = judge_loss(answers(right), answers(0))
    assert loss.outcome is Outcome.UNMEASURED
    assert f"the base gets {right} of 100 items right" in loss.message


def test_measure_task_items_about_an_edited_subject_are_left_out() -> None:
    task = ScriptedTask("greeting", [[True] * 100])
    task.items = ("The Eiffel Tower is in", "the eiffel tower again", "Eiffel Towers", *task.items[3:])
    after = [False, False, False, *[True] * 97]
    rows = {row.metric: row for row in measure_task(task, [True] * 100, after, 0.1, ["Eiffel Tower", "Lyon"])}
    assert rows["loss"].failed == 1  # "Eiffel Towers" names another word
    assert rows["accuracy"].passed + rows["accuracy"].failed == 98
    assert "'Eiffel Towers'" in rows["loss"].message
    assert "left out: 2" in rows["loss"].message
