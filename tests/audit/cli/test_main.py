"""The command line: what it prints where, its exit codes, and one sentence for everything that a user can get wrong."""

from __future__ import annotations

import errno
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import NamedTuple

import pytest
import torch
from editguard.audit.cli.main import main
from editguard.audit.research.reproduction import all_experiments as experiments
from editguard.audit.run.file_names import AUDIT_FILES, LOG, REPORT, SUMMARY
from editguard.reports.log.file import read_log

from ...helpers.tiny_setups import FIRST_TOKEN_REQUEST, MID_PROMPT_REQUEST, lenient

pytestmark = pytest.mark.tiny


class Ran(NamedTuple):
    code: int
    out: str
    err: str


Command = Callable[..., Ran]


def record(subject: str, prompt: str, target: str = "Istanbul", **more: object) -> dict[str, object]:
    return {"subject": subject, "prompt": prompt, "target_new": target, **more}


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty folder to stand in, with a file of two good edits."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("EDITGUARD_CACHE", str(tmp_path / ".cache"))
    edits = [record(r.subject, r.prompt, r.target_new, id=r.id) for r in (FIRST_TOKEN_REQUEST, MID_PROMPT_REQUEST)]
    (tmp_path / "edits.json").write_text(json.dumps(edits), encoding="utf-8")
    policy = [f"{name} = {json.dumps(value)}" for name, value in lenient().model_dump().items() if name != "rules"]
    (tmp_path / "policy.toml").write_text("\n".join(policy), encoding="utf-8")
    return tmp_path


@pytest.fixture
def command(monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> Command:
    """Run the command line in this process, as its entry point would."""

    def run(*arguments: str | Path) -> Ran:
        monkeypatch.setattr(sys, "argv", ["editguard", *map(str, arguments)])
        with pytest.raises(SystemExit) as stopped:
            main()
        code = stopped.value.code
        return Ran(code if isinstance(code, int) else 0 if code is None else 1, *capfd.readouterr())

    return run


def in_a_process(*arguments: str | Path) -> Ran:
    done = subprocess.run(
        [sys.executable, "-m", "editguard.audit.cli.main", *map(str, arguments)],
        capture_output=True, text=True, encoding="utf-8", timeout=600, check=False, env=os.environ | {"COLUMNS": "200"},
    )  # fmt: skip
    return Ran(done.returncode, done.stdout, done.stderr)


def tree(folder: Path) -> dict[str, bytes]:
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file() and path.name != ".lock"
    }


def one_sentence(ran: Ran, *said: str) -> None:
    assert ran.code == 2
    assert ran.out == ""
    (line,) = ran.err.splitlines()
    assert line.startswith("editguard: ")
    assert not [part for part in said if part not in line], line


# ---------------------------------------------------------------------------------------------------------- good calls


def test_probe_json_prints_one_object_a_line_and_nothing_else(place: Path, checkpoint: Path) -> None:
    before = tree(place)
    ran = in_a_process("probe", "edits.json", "--model", checkpoint, "--layer", 0, "--stats", "identity", "--json")
    assert (ran.code, ran.err) == (0, "")
    first, middle = (json.loads(line) for line in ran.out.splitlines())
    wanted = {
        "id", "decision", "first_token", "denominator", "denominator_prefixed", "denominator_ratio", "cosine", "findings",
    }  # fmt: skip
    assert wanted <= set(first)
    assert (first["id"], first["decision"], first["first_token"]) == ("chicago", "rewrite", True)
    assert (middle["id"], middle["decision"], middle["first_token"]) == ("france", "allow", False)
    for line in (first, middle):
        assert line["denominator_ratio"] == pytest.approx(line["denominator"] / line["denominator_prefixed"])
        assert {f["probe"] for f in line["findings"]} >= {"denominator", "first-token", "key-shift", "sink-key"}
    assert tree(place) == before


def test_probe_shows_a_table_and_closes_the_gate_for_a_refused_edit(
    place: Path, checkpoint: Path, command: Command
) -> None:
    edits = [record("France", "The capital of France is", "Paris", target_true="Paris", id="same")]
    (place / "same.json").write_text(json.dumps(edits), encoding="utf-8")
    ran = command("probe", "same.json", "--model", checkpoint, "--layer", 0, "--stats", "identity")
    assert ran.code in (1, 2)
    assert "Traceback" not in ran.err
    ran = command("probe", "edits.json", "--model", checkpoint, "--layer", 0, "--stats", "identity", "--limit", 1)
    assert ran.code == 0
    assert "1 edit: 0 allow, 1 rewrite, 0 refuse; 0 invalid records skipped" in ran.out


@pytest.mark.parametrize("as_json", [True, False])
def test_what_is_left_out_is_named(place: Path, checkpoint: Path, command: Command, as_json: bool) -> None:
    good = record("France", "The capital of France is", "Paris", id="good")
    (place / "some.json").write_text(json.dumps([good, {**good, "id": "bad", "prompt": "Nothing"}]), encoding="utf-8")
    call = ("probe", "some.json", "--model", checkpoint, "--layer", 0, "--stats", "identity", "--skip-invalid")
    ran = command(*call, *(["--json"] if as_json else []))
    assert "left out some.json: record 2 (id bad, line 1): subject" in ran.err
    assert "left out" not in ran.out


def test_audit_writes_its_files_and_report_makes_all_but_the_log_again(
    place: Path, checkpoint: Path, command: Command
) -> None:
    call = (
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
    )
    ran = command(*call, "--out", "out", "--engine", "reference", "--check-dtype", "bfloat16", "--json")
    assert ran.code == 0
    assert json.loads(ran.out) == json.loads((place / "out" / SUMMARY).read_text(encoding="utf-8"))
    header = read_log(place / "out" / LOG).header
    assert header.arguments["engine"] == "reference"
    assert header.arguments["policy"] == "policy.toml"
    assert header.settings["check_dtype"] == "bfloat16"
    assert {one.metric for one in header.baseline} == {"perplexity", "perplexity-exact"}
    assert "Checks computed in" in (place / "out" / REPORT).read_text(encoding="utf-8")
    written = tree(place / "out")
    assert set(written) == {*AUDIT_FILES}

    # What is there is not written over unasked, and not given up before the new audit can begin either.
    one_sentence(command(*call, "--out", "out"), "already holds an audit", "--overwrite")
    one_sentence(command(*call, "--out", "out", "--overwrite", "--layer", 99), "Layer 99")
    assert tree(place / "out") == written

    one_sentence(command("report", "out", "--out", "edits.json"), "edits.json", "is a file")
    ran = command("report", "out", "--out", "again")
    assert ran.code == 0
    assert "PASS" in ran.out
    assert tree(place / "again") == {name: written[name] for name in AUDIT_FILES if name != LOG}
    assert command(*call, "--out", "out", "--overwrite").code == 0


def test_audit_in_sequence_says_so_everywhere(place: Path, checkpoint: Path, command: Command) -> None:
    call = (
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
    )
    ran = command(*call, "--out", "out", "--in-sequence", "--json")
    assert ran.code in (0, 1)
    assert json.loads(ran.out)["sequence"]["kept"] >= 0
    assert read_log(place / "out" / LOG).header.in_sequence
    assert "in sequence: " in command("report", "out").out
    one_sentence(
        command("export", "edits.json", "--model", "not-asked", "--log", "out", "--out", "deltas"),
        "is of edits in sequence", "audit them without --in-sequence",
    )  # fmt: skip
    # Before anything is loaded.
    one_sentence(
        command("audit", "edits.json", "--model", "not-asked", "--out", "out", "--resume"),
        "begun with another in_sequence (True, now False)", "--overwrite",
    )  # fmt: skip
    one_sentence(
        command(*call, "--out", "out", "--resume"), "begun with another in_sequence (True, now False)", "--overwrite"
    )


def test_stats_writes_a_file_that_probe_reads(place: Path, checkpoint: Path, command: Command) -> None:
    (place / "corpus.txt").write_text("Paris is not Lyon.\nIt is 2024.\n" * 20, encoding="utf-8")
    call = ("stats", "--model", checkpoint, "--layer", 0, "--corpus", "corpus.txt", "--out", "c.safetensors")
    assert command(*call).code == 0
    kept = (place / "c.safetensors").read_bytes()
    one_sentence(command(*call), "is there already", "--overwrite")
    assert (place / "c.safetensors").read_bytes() == kept
    ran = command("probe", "edits.json", "--model", checkpoint, "--layer", 0, "--stats", "c.safetensors", "--json")
    assert ran.code == 0
    one_sentence(
        command("probe", "edits.json", "--model", checkpoint, "--layer", 1, "--stats", "c.safetensors"), "c.safetensors"
    )


def test_trace_of_a_model_that_knows_nothing_writes_nothing_and_says_why(
    place: Path, checkpoint: Path, command: Command
) -> None:
    before = tree(place)
    call = ("trace", "edits.json", "--model", checkpoint, "--draws", 2, "--out", "traced")
    one_sentence(command(*call, "--noise", 0), "The noise is 0", "give a number over 0")
    one_sentence(
        command(*call, "--noise", 1e-6),
        "None of 2 requests", "could be traced", "first token", "or more --noise",
    )  # fmt: skip
    assert tree(place) == before


def test_trace_json_is_one_object(
    place: Path, checkpoint: Path, command: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    from editguard.probes.research.tracing import Trace

    monkeypatch.setattr(Trace, "tells", True)
    ran = command("trace", "edits.json", "--model", checkpoint, "--draws", 2, "--out", "traced", "--json")
    assert ran.code == 0
    found = json.loads(ran.out)
    assert (found["traced"], found["skipped"]) == (1, 1)
    kept = json.loads((place / "traced" / "trace.json").read_text(encoding="utf-8"))
    assert found["suggested_layer"] == kept["suggested_layer"]
    assert (place / "traced" / "trace.html").is_file()


def test_reproduce_writes_page_tables_and_logs_and_goes_on_with_them(
    place: Path, checkpoint: Path, command: Command
) -> None:
    call = ("reproduce", "edits.json", "--model", checkpoint, "--layer", 0, "--stats", "identity", "--out", "found")
    ran = command(*call)
    assert ran.code == 0
    assert "page: found/reproduction.html" in ran.out.replace(os.sep, "/")
    logs = {name: text for name, text in tree(place / "found").items() if name.endswith(".jsonl")}
    assert {Path(name).stem for name in logs} == {"rome", "c-rome", "prefixed"}
    ran = command(*call, "--json")
    assert json.loads(ran.out) == json.loads((place / "found" / "reproduction.json").read_text(encoding="utf-8"))
    assert {name: text for name, text in tree(place / "found").items() if name in logs} == logs
    one_sentence(command(*call, "--seed", 1), "'found'", "another --out")
    one_sentence(command(*call, "--encoder", "./nowhere"), "./nowhere")
    assert {name: text for name, text in tree(place / "found").items() if name in logs} == logs


def test_a_reproduction_in_which_an_experiment_broke_is_written_and_says_so(
    place: Path, checkpoint: Path, command: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*_: object) -> None:
        raise ZeroDivisionError("float division by zero")

    monkeypatch.setattr(experiments.tables, "update_sizes", broken)
    ran = command(
        "reproduce", "edits.json", "--model", checkpoint, "--layer", 0, "--stats", "identity", "--out", "found"
    )
    assert ran.code == 3
    assert "experiments that broke: 1; this is a fault of editguard itself" in ran.err
    assert "float division by zero" in (place / "found" / "reproduction.html").read_text(encoding="utf-8")


def test_the_version_is_that_of_the_package(command: Command) -> None:
    assert command("--version") == Ran(0, f"editguard {version('editguard')}\n", "")


def test_help_loads_nothing_heavy() -> None:
    code = (
        "import sys\nsys.argv = ['editguard', 'audit', '--help']\nfrom editguard.audit.cli.main import main\n"
        "try:\n    main()\nexcept SystemExit as stopped:\n    assert not stopped.code\n"
        "sys.exit(bool({'torch', 'transformers', 'datasets', 'pandas', 'plotly'} & set(sys.modules)))"
    )
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, timeout=120, check=False).returncode == 0


# --------------------------------------------------------------------------------------------------------- wrong calls


def test_a_wrong_path_in_a_process_of_its_own_is_one_line(place: Path) -> None:
    one_sentence(in_a_process("probe", "nowhere.json"), "nowhere.json")


CHEAP: list[tuple[Sequence[str], Sequence[str]]] = [
    (["probe", "nowhere.json"], ["nowhere.json"]),
    (["probe", "empty.json"], ["empty.json"]),
    (["probe", "none.json"], ["none.json", "no records"]),
    (["probe", "edits.xyz"], ["edits.xyz"]),
    (["probe", "folder"], ["folder"]),
    (["probe", "edits.json", "--editor", "romee"], ["'romee'", "did you mean 'rome'?"]),
    (["audit", "edits.json", "--editor", "exploded"], ["'exploded' is a control", "use 'rome' or 'prefixed'"]),
    (["audit", "edits.json", "--editor", "zzz"], ["'zzz'", "known are c-rome"]),
    (
        ["probe", "edits.json", "--policy", "bad.toml"],
        ["bad.toml", "has an unknown key 'min_eficacy' (did you mean 'min_efficacy'?)."],
    ),
    (["audit", "edits.json", "--policy", "nowhere.toml"], ["nowhere.toml"]),
    (["audit", "edits.json", "--policy", "editor.toml"], ["'prefixd'", "did you mean 'prefixed'?"]),
    (["audit", "edits.json", "--engine", "warp"], ["'warp'", "'live' or 'reference'"]),
    (["audit", "edits.json", "--check-dtype", "int8"], ["'int8'", "auto, bfloat16"]),
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
def test_a_wrong_call_is_one_sentence_and_changes_nothing(
    place: Path, command: Command, arguments: Sequence[str], said: Sequence[str]
) -> None:
    (place / "empty.json").touch()
    (place / "none.json").write_text("[]", encoding="utf-8")
    (place / "edits.xyz").write_text("[]", encoding="utf-8")
    (place / "bad.toml").write_text("min_eficacy = 0.5", encoding="utf-8")
    (place / "editor.toml").write_text('rewrite_editor = "prefixd"', encoding="utf-8")
    (place / "folder").mkdir()
    (place / "traced").mkdir()
    (place / "traced" / "trace.json").write_text("{}", encoding="utf-8")
    before, folders = tree(place), [*place.rglob("*/")]
    one_sentence(command(*arguments), *said)
    assert tree(place) == before
    assert [*place.rglob("*/")] == folders, "an empty folder is left behind"


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ({"subject": "France", "prompt": "The capital of France is"}, "target_new"),
        (record("Berlin", "The capital of France is"), "Berlin"),
        (record("France", "The capital of France is", target="  "), "target_new"),
    ],
    ids=["missing-field", "not-in-prompt", "blank"],
)
def test_wrong_records_are_listed_one_a_line(place: Path, command: Command, wrong: object, said: str) -> None:
    good = record("France", "The capital of France is")
    (place / "edits.jsonl").write_text(f"{json.dumps(good)}\n{json.dumps(wrong)}\n", encoding="utf-8")
    ran = command("audit", "edits.jsonl", "--out", "out")
    assert (ran.code, ran.out) == (2, "")
    first, listed = ran.err.splitlines()
    assert first.startswith("editguard: 1 of 2 records in 'edits.jsonl' is wrong; correct it, or go on without it")
    assert listed.startswith("edits.jsonl:2: ")
    assert said in listed
    assert not (place / "out").exists()


@pytest.mark.parametrize("layer", ["99", "-1"])
def test_a_layer_that_is_not_there_is_one_sentence(place: Path, checkpoint: Path, command: Command, layer: str) -> None:
    one_sentence(command("probe", "edits.json", "--model", checkpoint, "--layer", layer), f"Layer {layer}", "0..1")


def test_statistics_that_are_not_there_are_one_sentence(place: Path, checkpoint: Path, command: Command) -> None:
    one_sentence(
        command("probe", "edits.json", "--model", checkpoint, "--stats", "no.safetensors"), "no.safetensors", "identity"
    )


def test_a_pickle_is_read_only_when_it_is_asked_for(place: Path, checkpoint: Path, command: Command) -> None:
    from safetensors.torch import load_file

    folder = place / "pickled"
    shutil.copytree(checkpoint, folder)
    weights = folder / "model.safetensors"
    torch.save(load_file(weights), folder / "pytorch_model.bin")
    weights.unlink()
    call = ("probe", "edits.json", "--model", folder, "--layer", 0, "--stats", "identity")
    one_sentence(command(*call), "pytorch_model.bin", "--allow-pickle")
    assert command(*call, "--allow-pickle", "--json").code == 0


def test_a_checkpoint_of_nan_is_one_sentence_and_never_a_pass(place: Path, checkpoint: Path, command: Command) -> None:
    from safetensors.torch import load_file, save_file

    folder = place / "broken"
    shutil.copytree(checkpoint, folder)
    tensors = load_file(folder / "model.safetensors")
    tensors["model.norm.weight"].fill_(float("nan"))
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    ran = command("audit", "edits.json", "--model", folder, "--layer", 0, "--stats", "identity", "--out", "out")
    (line,) = ran.err.splitlines()
    assert ran.code == 1
    assert line.startswith("editguard: ")
    assert "NaN" in line
    assert not (place / "out" / SUMMARY).exists()


@pytest.mark.parametrize(
    "arguments",
    [
        ["audit", "--limit", "0"], ["audit", "--seed", "-1"], ["probe", "--seed", str(2**32)], ["audit", "--nonsense"],
        ["audit", "--layer", "two"], ["trace", "--draws", "0"],
        ["trace", "--noise", "-1"], ["reproduce", "--ordinary", "2"],
        ["reproduce", "--most-cases", "0"],
    ],
)  # fmt: skip
def test_wrong_usage_exits_2_without_a_traceback(place: Path, command: Command, arguments: list[str]) -> None:
    name, *rest = arguments
    ran = command(name, "edits.json", *rest)
    assert (ran.code, ran.out) == (2, "")
    assert "Traceback" not in ran.err


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT])
def test_a_full_disk_is_one_sentence_wherever_it_is_met(
    place: Path, command: Command, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    from editguard.audit.run import output_folder as folders

    def full(*_: object, **__: object) -> None:
        raise OSError(number, os.strerror(number), "model.safetensors")

    monkeypatch.setattr(folders, "locked_folder", full)
    one_sentence(
        command("trace", "edits.json", "--out", "new"), os.strerror(number), "'model.safetensors'", "make room"
    )


def test_a_disk_that_fills_while_outputs_are_written_is_one_sentence(
    place: Path, checkpoint: Path, command: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    from editguard.probes.research.tracing import Trace

    def full(descriptor: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(Trace, "tells", True)
    monkeypatch.setattr(os, "fsync", full)
    call = ("trace", "edits.json", "--model", checkpoint, "--draws", 2, "--out", "traced", "--json")
    one_sentence(command(*call), "trace.json cannot be written", "No space left on device", "has room")
    assert not (place / "traced").exists()


@pytest.mark.parametrize(("error", "code"), [(ZeroDivisionError("boom"), 3), (KeyboardInterrupt(), 130)])
def test_our_own_fault_and_an_interrupt_have_codes_of_their_own(
    place: Path, command: Command, monkeypatch: pytest.MonkeyPatch, error: BaseException, code: int
) -> None:
    from editguard.probes.requests import loader as request_files

    def fail(*_: object, **__: object) -> None:
        raise error

    monkeypatch.setattr(request_files, "load_requests", fail)
    ran = command("probe", "edits.json")
    assert (ran.code, ran.out) == (code, "")
    assert code == 130 or ran.err.splitlines()[-1].startswith("editguard: ")
