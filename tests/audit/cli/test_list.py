"""``editguard list``: every plug-in with its name and one line, those of other packages too."""

from __future__ import annotations

import json

import pytest
from editguard.audit.cli.list import KINDS, ListKind
from editguard.audit.editors.base import EDITORS
from editguard.probes.probe import PROBES
from editguard.probes.requests.layout import LAYOUTS
from editguard.reports.gate.metrics import METRICS
from editguard.suites.check import CHECKS

from ...helpers.command_line import RunCommand, assert_one_sentence

NAMES = {
    "probes": PROBES.names(),
    "checks": CHECKS.names(),
    "editors": [name for name, cls in EDITORS if not cls.control],
    "metrics": [metric.value for metric in METRICS],
    "layouts": LAYOUTS.names(),
}


def test_list_json_has_every_name_with_one_line(command: RunCommand) -> None:
    result = command("list", "--json")
    assert (result.code, result.err) == (0, "")
    listed = json.loads(result.out)
    assert list(listed) == [kind.value for kind in ListKind]
    for kind, names in NAMES.items():
        assert [entry["name"] for entry in listed[kind]] == names
    lines = [entry["description"] for entries in listed.values() for entry in entries]
    assert all(line.strip() and "\n" not in line for line in lines)


@pytest.mark.parametrize("kind", KINDS)
def test_list_of_one_kind_prints_a_line_for_each_name(command: RunCommand, kind: ListKind) -> None:
    result = command("list", kind.value)
    assert (result.code, result.err) == (0, "")
    title, *lines = result.out.splitlines()
    assert title == kind.value.capitalize()
    assert [line.partition(":")[0].strip() for line in lines] == [entry.name for entry in KINDS[kind]()]


def test_list_editors_leaves_out_controls_which_nobody_may_choose(command: RunCommand) -> None:
    assert "exploded" in EDITORS.names()
    assert "exploded" not in command("list", "editors").out


def test_list_shows_the_plugin_of_another_package(command: RunCommand, monkeypatch: pytest.MonkeyPatch) -> None:
    PROBES.load()
    foreign = type("Foreign", (), {"name": "foreign", "card": next(iter(PROBES))[1].card})
    monkeypatch.setitem(
        PROBES._classes, "foreign", foreign
    )  # as `Registry.load` enters it; see tests/probes/test_registry.py
    assert "  foreign: " in command("list", "probes").out


def test_list_unknown_kind_names_the_kinds(command: RunCommand) -> None:
    result = command("list", "probs")
    assert_one_sentence(result, "'probs'", *(kind.value for kind in ListKind))
    assert "Value error" not in result.err
