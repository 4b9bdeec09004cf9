"""Tasks are chosen by name; an unknown one, one given twice and a missing extra are refused in one sentence."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path

import pytest
from editguard.probes.errors import InputError
from editguard.suites.tasks.names import load_tasks, split_names

from ...helpers.scripted_tasks import ScriptedTask


def test_load_tasks_own_names_are_loaded_in_order() -> None:
    assert [task.name for task in load_tasks(["endings", "cloze"])] == ["endings", "cloze"]


def test_load_tasks_object_stands_for_itself() -> None:
    task = ScriptedTask("greeting", [[True]])
    assert load_tasks([task]) == [task]


@pytest.mark.parametrize(
    ("names", "message"),
    [
        (["closed"], "did you mean 'cloze'"),
        (["mmlu"], "known are cloze, endings"),
        (["cloze", "cloze"], "'cloze' is asked twice"),
    ],
)
def test_load_tasks_wrong_name_is_refused(names: list[str], message: str) -> None:
    with pytest.raises(InputError, match=message):
        load_tasks(names)


@pytest.mark.skipif(find_spec("lm_eval") is not None, reason="the extra is installed")
def test_load_tasks_harness_without_the_extra_names_what_to_install(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"install 'editguard\[tasks\]'\.$"):
        load_tasks([f"lm-eval:{tmp_path}/mine"])


def test_split_names_empty_parts_are_left_out() -> None:
    assert split_names(" cloze, ,endings,") == ["cloze", "endings"]
    assert split_names(None) == []
