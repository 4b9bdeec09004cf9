"""The command line: exit codes, and one sentence for everything that a user can get wrong."""

from __future__ import annotations

import errno
import os
import subprocess
import sys
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path

import pytest

from ...helpers.command_line import CommandResult, RunCommand, assert_one_sentence, files_below, run_in_process

pytestmark = pytest.mark.tiny


def test_main_version_is_that_of_the_package(command: RunCommand) -> None:
    assert command("--version") == CommandResult(0, f"editguard {version('editguard')}\n", "")


def test_main_help_loads_nothing_heavy() -> None:
    code = (
        "import sys\nsys.argv = ['editguard', 'audit', '--help']\nfrom editguard.audit.cli.main import main\n"
        "try:\n    main()\nexcept SystemExit as stopped:\n    assert not stopped.code\n"
        "sys.exit(bool({'torch', 'transformers', 'datasets', 'pandas', 'plotly'} & set(sys.modules)))"
    )
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, timeout=120, check=False).returncode == 0


def test_main_wrong_path_in_a_process_is_one_line(place: Path) -> None:
    assert_one_sentence(run_in_process("probe", "nowhere.json"), "nowhere.json")


CHEAP: list[tuple[Sequence[str], Sequence[str]]] = [
    (["probe", "nowhere.json"], ["nowhere.json"]),
    (["probe", "empty.json"], ["empty.json"]),
    (["probe", "none.json"], ["none.json", "no records"]),
    (["probe", "edits.xyz"], ["edits.xyz"]),
    (["probe", "folder"], ["folder"]),
    (
        ["probe", "edits.json", "--editor", "romee"],
        ["'romee'", "did you mean 'rome'? 'editguard list editors' describes them."],
    ),
    (["audit", "edits.json", "--editor", "exploded"], ["'exploded' is a control", "use 'local' or 'everywhere'"]),
    (["audit", "edits.json", "--editor", "zzz"], ["'zzz'", "known are c-rome"]),
    (
        ["probe", "edits.json", "--policy", "bad.toml"],
        ["bad.toml", "has an unknown key 'min_eficacy' (did you mean 'min_efficacy'?)."],
    ),
    (["audit", "edits.json", "--policy", "nowhere.toml"], ["nowhere.toml"]),
    (["audit", "edits.json", "--policy", "editor.toml"], ["'prefixd'", "did you mean 'prefixed'?"]),
    (["audit", "edits.json", "--engine", "warp"], ["'warp'", "'live', 'reference'"]),
    (["audit", "edits.json", "--check-dtype", "int8"], ["'int8'", "'auto', 'bfloat16'"]),
    (["probe", "edits.json", "--dtype", "float8"], ["'float8'", "float32"]),
    (["probe", "edits.json", "--device", "gpu0"], ["'gpu0'", "'cpu'"]),
    (["probe", "edits.json", "--model", "folder"], ["folder", "config.json"]),
    (["probe", "edits.json", "--model", "./nowhere"], ["./nowhere"]),
    (["probe", "edits.json", "--model", "edits.json"], ["is a file"]),
    (["audit", "edits.json", "--out", "edits.json"], ["is a file"]),
    (["audit", "edits.json", "--perplexity-corpus", "nowhere.txt"], ["nowhere.txt"]),
    (["audit", "edits.json", "--perplexity-corpus", ""], ["corpus ''", "cannot be read"]),
    (["audit", "edits.json", "--perplexity-corpus", "empty.json"], ["empty.json"]),
    (["stats", "--out", "c.npz"], ["c.npz", ".safetensors"]),
    (["stats", "--out", "edits.json/c.safetensors"], ["edits.json", "is a file"]),
    (["trace", "nowhere.json"], ["nowhere.json"]),
    (["trace", "none.json"], ["none.json", "no records"]),
    (["trace", "edits.json", "--out", "edits.json"], ["is a file"]),
    (["trace", "edits.json", "--out", "traced"], ["already holds a trace", "--overwrite"]),
    (["trace", "edits.json", "--model", "folder", "--out", "new/deep"], ["folder", "config.json"]),
    (["reproduce", "nowhere.json"], ["nowhere.json"]),
    (["reproduce", "edits.json", "--out", "edits.json"], ["is a file"]),
    (["reproduce", "edits.json", "--model", "folder", "--out", "new/deep"], ["folder", "config.json"]),
    (["report", "nowhere"], ["nowhere"]),
    (["report", "edits.json"], ["edits.json"]),
]


@pytest.mark.parametrize(("arguments", "said"), CHEAP, ids=lambda part: "-".join(part[:4]))
def test_main_wrong_call_is_one_sentence_and_changes_nothing(
    place: Path, command: RunCommand, arguments: Sequence[str], said: Sequence[str]
) -> None:
    (place / "empty.json").touch()
    (place / "none.json").write_text("[]", encoding="utf-8")
    (place / "edits.xyz").write_text("[]", encoding="utf-8")
    (place / "bad.toml").write_text("min_eficacy = 0.5", encoding="utf-8")
    (place / "editor.toml").write_text('rewrite_editor = "prefixd"', encoding="utf-8")
    (place / "folder").mkdir()
    (place / "traced").mkdir()
    (place / "traced" / "trace.json").write_text("{}", encoding="utf-8")
    before, folders = files_below(place), [*place.rglob("*/")]
    assert_one_sentence(command(*arguments), *said)
    assert files_below(place) == before
    assert [*place.rglob("*/")] == folders, "an empty folder is left behind"


@pytest.mark.parametrize(
    ("arguments", "wrong"),
    [
        (["audit", "edits.json", "--editor", "romee"], "'romee'"),
        (["probe", "edits.json", "--editor", "romee"], "'romee'"),
        (["export", "edits.json", "--out", "new", "--editor", "romee"], "'romee'"),
        (["audit", "edits.json", "--device", "gpu0"], "'gpu0'"),
        (["probe", "edits.json", "--device", "gpu0"], "'gpu0'"),
        (["export", "edits.json", "--out", "new", "--device", "gpu0"], "'gpu0'"),
        (["stats", "--out", "c.safetensors", "--device", "gpu0"], "'gpu0'"),
        (["trace", "edits.json", "--device", "gpu0"], "'gpu0'"),
        (["reproduce", "edits.json", "--device", "gpu0"], "'gpu0'"),
        (["diff", "before", "after", "--device", "gpu0"], "'gpu0'"),
        (["export", "edits.json", "--out", "new", "--log", "nowhere.jsonl"], "nowhere.jsonl"),
        (["apply", "nowhere.delta.safetensors", "--out", "new"], "no delta file or folder 'nowhere.delta.safetensors'"),
    ],
    ids=lambda part: "-".join(part[::3]) if isinstance(part, list) else part,
)
def test_main_wrong_name_is_reported_before_the_model_is_loaded(
    place: Path, command: RunCommand, arguments: Sequence[str], wrong: str
) -> None:
    before = files_below(place)
    result = command(*arguments)
    assert_one_sentence(result, wrong)
    assert "Loading the model" not in result.err
    assert files_below(place) == before


@pytest.mark.parametrize(
    "arguments",
    [
        ["audit", "--limit", "0"],
        ["audit", "--seed", "-1"],
        ["probe", "--seed", str(2**32)],
        ["audit", "--nonsense"],
        ["audit", "--layer", "two"],
        ["trace", "--draws", "0"],
        ["trace", "--noise", "-1"],
        ["reproduce", "--ordinary", "2"],
        ["reproduce", "--most-cases", "0"],
    ],
)
def test_main_wrong_usage_is_one_line(place: Path, command: RunCommand, arguments: list[str]) -> None:
    name, *rest = arguments
    assert_one_sentence(command(name, "edits.json", *rest), f"See 'editguard {name} --help'.")


@pytest.mark.parametrize(
    ("arguments", "parts"),
    [
        (["gate", "out"], ["Missing option '--baseline'"]),
        (["gate"], ["Missing argument", "log"]),
        (["baseline", "save", "out"], ["Missing argument", "name", "'editguard baseline save --help'"]),
        (["nonsense", "edits.json"], ["No such command 'nonsense'. See 'editguard --help'."]),
        (["aduit", "edits.json"], ["No such command 'aduit'. Did you mean 'audit'? See 'editguard --help'."]),
        (["audit", "a.json", "b.json"], ["unexpected extra argument", "b.json"]),
    ],
)
def test_main_missing_or_unknown_part_is_one_line(
    place: Path, command: RunCommand, arguments: list[str], parts: list[str]
) -> None:
    assert_one_sentence(command(*arguments), *parts)


@pytest.mark.parametrize("arguments", [[], ["baseline"]])
def test_main_group_without_a_command_shows_its_help(command: RunCommand, arguments: list[str]) -> None:
    result = command(*arguments)
    assert result.code == 2
    assert "Usage: editguard" in result.out + result.err


SLOW = """
import sys, time
from editguard.audit.cli.main import main
from editguard.probes.requests import loader
def wait(*_, **__):
    try:
        print("ready", flush=True)
        time.sleep(600)
    finally:
        print("undone", flush=True)
loader.load_requests = wait
sys.argv[0] = "editguard"
main()
"""


@pytest.mark.skipif(sys.platform == "win32", reason="Windows ends a process without asking it")
@pytest.mark.parametrize(
    ("arguments", "rest"),
    [
        (["audit", "edits.json"], "what was logged before is sound"),
        (["export", "edits.json", "--out", "audit"], "nothing unfinished was written; start again"),
    ],
    ids=["audit", "export"],
)
def test_main_sigterm_ends_with_one_line_and_143(place: Path, arguments: Sequence[str], rest: str) -> None:
    with subprocess.Popen(
        [sys.executable, "-c", SLOW, *arguments], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        process.terminate()
        out, err = process.communicate(timeout=120)
    assert (process.returncode, out) == (143, "undone\n")
    assert err == f"editguard: ended by SIGTERM; {rest}.\n"


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT])
def test_main_full_disk_is_one_sentence(
    place: Path, command: RunCommand, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    from editguard.audit.folders import output_folder as folders

    def full(*_: object, **__: object) -> None:
        raise OSError(number, os.strerror(number), "model.safetensors")

    monkeypatch.setattr(folders, "locked_folder", full)
    assert_one_sentence(
        command("trace", "edits.json", "--out", "new"), os.strerror(number), "'model.safetensors'", "make room"
    )


@pytest.mark.parametrize(("error", "code"), [(ZeroDivisionError("boom"), 3), (KeyboardInterrupt(), 130)])
def test_main_own_fault_exits_3_and_interrupt_130(
    place: Path, command: RunCommand, monkeypatch: pytest.MonkeyPatch, error: BaseException, code: int
) -> None:
    from editguard.probes.requests import loader as request_files

    def fail(*_: object, **__: object) -> None:
        raise error

    monkeypatch.setattr(request_files, "load_requests", fail)
    result = command("probe", "edits.json")
    assert (result.code, result.out) == (code, "")
    assert code == 130 or result.err.splitlines()[-1].startswith("editguard: ")
