"""Options of commands: one record, choices that typer checks, groups in the help, and what the log says was given."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch
import typer
from editguard.audit.cli.main import app
from editguard.audit.cli.options import EditOptions, ModelOptions, Panel, takes_records
from editguard.audit.editors.value import Engine
from editguard.audit.folders.file_names import LOG
from editguard.audit.pytest_plugin.options import OPTIONS
from editguard.probes.model.dtypes import DTYPES, Dtype
from editguard.probes.requests import loader
from editguard.probes.requests.loader import InvalidRecord, LoadedRequests
from editguard.reports.log.file import read_log

from ...helpers.command_line import RunCommand, assert_one_sentence

GROUP = typer.main.get_command(app)
COMMANDS = {name: command for name, command in GROUP.commands.items() if name != "baseline"}  # type: ignore[attr-defined]
COMMANDS |= {f"baseline {name}": command for name, command in GROUP.commands["baseline"].commands.items()}  # type: ignore[attr-defined]

OPTION_NAMES = {
    "audit": "model out editor policy layer site seed fresh device dtype stats corpus perplexity-corpus engine check-dtype "
    "limit skip-invalid zsre-target allow-pickle overwrite resume in-sequence edited tasks save-baseline baselines json",
    "probe": "model editor policy layer site seed fresh device dtype stats corpus engine limit skip-invalid zsre-target "
    "allow-pickle screen json",
    "stats": "out model layer site corpus seed fresh device dtype allow-pickle overwrite",
    "report": "out baseline max-regress accept baselines json",
    "export": "out model only in-sequence log editor policy layer site seed fresh device dtype stats corpus perplexity-corpus "
    "check-dtype engine limit skip-invalid allow-pickle overwrite json",
    "apply": "out model only unaudited unaudited-together allow-pickle overwrite json",
    "diff": "out subjects policy seed device dtype stats corpus require-change overwrite json",
    "fingerprint": "dtype allow-pickle json",
    "trace": "model out noise draws site seed device dtype limit skip-invalid allow-pickle overwrite json",
    "reproduce": "model out ordinary most-cases encoder policy layer site seed fresh device dtype stats corpus engine limit "
    "skip-invalid allow-pickle json",
    "compare": "baselines json markdown",
    "gate": "baseline max-regress accept baselines out overwrite json markdown",
    "override": "baseline reason author max-regress accept baselines",
    "list": "json",
    "baseline save": "baselines allow-failed",
    "baseline list": "baselines",
}
"""The options that users write in scripts: none may go."""


@pytest.mark.parametrize("name", COMMANDS)
def test_command_options_keep_their_names(name: str) -> None:
    flags = {flag for option in COMMANDS[name].params for flag in option.opts if flag.startswith("--")}
    assert flags == {f"--{option}" for option in OPTION_NAMES[name].split()} | ({"--help"} & flags)


@pytest.mark.parametrize("name", COMMANDS)
def test_command_help_has_an_example_and_groups(name: str) -> None:
    command = COMMANDS[name]
    assert f"Example: editguard {name} " in command.help
    groups = [
        getattr(option, "rich_help_panel", None) for option in command.params if option.param_type_name == "option"
    ]
    places = [[panel.value for panel in Panel].index(group) for group in groups if group is not None]
    assert None not in groups
    assert places == sorted(places)
    assert all(option.help for option in command.params if option.name != "help")


@pytest.mark.parametrize("name", ["", "baseline", *COMMANDS])
def test_command_help_names_no_type_of_flags_and_no_default_in_parentheses(command: RunCommand, name: str) -> None:
    result = command(*name.split(), "--help")
    assert (result.code, result.err) == (0, "")
    assert "--help" in result.out
    assert "<bool>" not in result.out
    assert "default: (" not in result.out


@pytest.mark.tiny
def test_audit_log_names_exactly_the_options_of_the_command(place: Path, checkpoint: Path, command: RunCommand) -> None:
    result = command(
        "audit",
        "edits.json",
        "--model",
        checkpoint,
        "--layer",
        0,
        "--stats",
        "identity",
        "--policy",
        "policy.toml",
        "--limit",
        1,
        "--out",
        "out",
        "--engine",
        "reference",
        "--dtype",
        "float32",
    )
    assert result.code == 0
    arguments = read_log(place / "out" / LOG).header.arguments
    assert set(arguments) == {option.name for option in COMMANDS["audit"].params if option.name != "help"}
    assert (arguments["edits"], arguments["out"], arguments["limit"]) == ("edits.json", "out", 1)
    assert (arguments["engine"], arguments["dtype"], arguments["zsre_target"]) == ("reference", "float32", "alt")
    assert json.loads(json.dumps(arguments)) == arguments


@pytest.mark.parametrize(
    ("option", "value", "choices"),
    [
        ("--engine", "warp", [engine.value for engine in Engine]),
        ("--check-dtype", "int8", ["auto", "bfloat16"]),
        ("--dtype", "float8", list(DTYPES)),
        ("--zsre-target", "new", ["alt", "answers"]),
    ],
)
def test_choice_unknown_value_names_the_choices(
    place: Path, command: RunCommand, option: str, value: str, choices: list[str]
) -> None:
    assert_one_sentence(command("audit", "edits.json", option, value), repr(value), option, *choices)


def test_dtypes_are_one_list_and_torch_has_them() -> None:
    assert tuple(Dtype) == DTYPES
    assert all(isinstance(getattr(torch, name), torch.dtype) for name in DTYPES if name != "auto")
    (option,) = (option for option in OPTIONS if option.name == "dtype")
    assert [option.parse(name, Path()) for name in DTYPES] == list(DTYPES)
    assert ModelOptions().dtype in Dtype


def test_takes_records_fills_a_record_and_keeps_defaults_of_fields_left_out() -> None:
    received: list[tuple[ModelOptions, EditOptions, int]] = []
    small = typer.Typer()

    @small.command()
    @takes_records(model_options=("seed",))
    def run(model_options: ModelOptions, edit_options: EditOptions, number: int = 1) -> None:
        """Run."""
        received.append((model_options, edit_options, number))

    small(["--seed", "5", "--limit", "2", "--number", "3"], standalone_mode=False)
    assert received == [(ModelOptions(seed=5), EditOptions(limit=2), 3)]
    with pytest.raises(typer.BadParameter.__mro__[1]):
        small(["--layer", "5"], standalone_mode=False)


@pytest.mark.parametrize(
    ("number", "ends"),
    [
        (20, ["left out place 19: wrong", "note: key 19 is not used"]),
        (21, ["and 1 more record was left out", "and 1 more note"]),
        (23, ["and 3 more records were left out", "and 3 more notes"]),
    ],
)
def test_read_many_left_out_records_and_notes_names_the_first_and_counts_the_rest(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], number: int, ends: list[str]
) -> None:
    loaded = LoadedRequests(
        requests=(),
        invalid=tuple(InvalidRecord(f"place {index}", "subject", "wrong") for index in range(number)),
        source="edits.json",
        sha256="0" * 64,
        unused=tuple(f"key {index} is not used" for index in range(number)),
    )
    monkeypatch.setattr(loader, "load_requests", lambda *_, **__: loaded)
    assert EditOptions().read("edits.json") is loaded
    lines = capsys.readouterr().err.splitlines()
    half = len(lines) // 2
    assert [lines[half - 1], lines[-1]] == ends
    assert len(lines) == 2 * min(number, 21)


def test_options_load_without_torch() -> None:
    code = "import sys, editguard.audit.cli.options; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], timeout=120, check=False).returncode == 0
