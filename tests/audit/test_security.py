"""What nobody who controls an input or an output folder gets: the network, another's files, a look at what is confidential."""

from __future__ import annotations

import json
import os
import stat
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from editguard.audit.folders.file_names import AUDIT_FILES, LOG
from editguard.audit.folders.output_folder import make_writable, one_writer
from editguard.audit.gate.baseline_store import BaselineStore
from editguard.audit.run.outputs import write_outputs
from editguard.probes.errors import InputError
from editguard.probes.research.tracing import Trace
from editguard.reports.errors import BaselineError, LogError
from editguard.reports.gate.baseline import build_baseline
from editguard.reports.log.file import LogWriter, append_line

from ..helpers.audit_logs import make_audit, write_log
from ..helpers.command_line import RunCommand

pytestmark = pytest.mark.tiny

OPTIONS = ("--layer", "0", "--stats", "identity", "--policy", "policy.toml")
NO_NETWORK = """
import socket

def _refused(self, address, *_):
    if self.family not in (socket.AF_UNIX,) and address[0] not in ("127.0.0.1", "::1", "localhost"):
        print("CONNECTS TO", address, flush=True)
        raise SystemError(f"this process connects to {address}")

socket.socket.connect = socket.socket.connect_ex = _refused

def _looked_up(host, *_, **__):
    print("LOOKS UP", host, flush=True)
    raise SystemError(f"this process looks up {host}")

socket.getaddrinfo = _looked_up
"""


def cut_off(place: Path, *arguments: str | Path, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run a command in a process in which any connection to another machine, or look-up of its name, is an error."""
    (place / "cut").mkdir(exist_ok=True)
    (place / "cut" / "sitecustomize.py").write_text(NO_NETWORK)
    environment_kept = {
        name: value for name, value in os.environ.items() if not name.startswith(("HF_", "TRANSFORMERS_"))
    }
    return subprocess.run(
        [sys.executable, "-m", "editguard.audit.cli.main", *map(str, arguments)],
        cwd=place,
        capture_output=True,
        text=True,
        encoding="utf-8",
        timeout=300,
        check=False,
        env=environment_kept | {"PYTHONPATH": str(place / "cut")} | environment,
    )


def test_audit_local_model_uses_no_network(place: Path, checkpoint: Path) -> None:
    done = cut_off(place, "audit", "edits.json", "--limit", "1", "--model", checkpoint, *OPTIONS, "--out", "found")
    assert "CONNECTS" not in done.stdout + done.stderr
    assert "LOOKS UP" not in done.stdout + done.stderr
    assert done.returncode == 0, done.stderr
    assert {path.name for path in (place / "found").iterdir()} == {*AUDIT_FILES, ".lock"}


def test_hub_id_uses_the_network_unless_offline(place: Path) -> None:
    call = ("probe", "edits.json", "--model", "nobody/no-such-model", *OPTIONS)
    assert "LOOKS UP" in cut_off(place, *call).stdout
    for arguments in (call, ("probe", "hf://nobody/nothing:train", *OPTIONS)):
        done = cut_off(place, *arguments, HF_HUB_OFFLINE="1", HF_HOME=str(place / "hub"))
        assert done.returncode == 2, done.stderr
        (message,) = [line for line in done.stderr.splitlines() if line.startswith("editguard:")]
        assert message.endswith("or use a local folder or 'smollm2-135m'.") or message.endswith("or use a file.")
        assert "LOOKS UP" not in done.stdout
        assert "Traceback" not in done.stderr


# ------------------------------------------------------------------------------------------------------------- outputs


@pytest.fixture
def open_umask() -> Iterator[None]:
    """Let everybody read what is made, unless it is made otherwise."""
    before = os.umask(0)
    yield
    os.umask(before)


def exposed(folder: Path) -> list[str]:
    """Return what others than the owner may read or enter."""
    paths = [folder, *folder.rglob("*")]
    return [f"{path.name} {stat.S_IMODE(path.stat().st_mode):o}" for path in paths if path.stat().st_mode & 0o077]


@pytest.mark.usefixtures("open_umask")
def test_commands_write_files_readable_by_their_owner_only(
    place: Path, checkpoint: Path, command: RunCommand, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = ("--model", checkpoint)
    options = (*model, *OPTIONS)
    calls = {
        "audit": ("audit", "edits.json", *options, "--limit", 1, "--save-baseline", "main"),
        "page": ("report", "audit"),
        "gate": ("gate", "audit", "--baseline", "main"),
        "diff": ("diff", checkpoint, checkpoint, *OPTIONS[2:4]),
        "deltas": ("export", "edits.json", *options, "--only", "france"),
        "edited": ("apply", place / "deltas" / "france.delta.safetensors", *model, "--unaudited"),
        "traced": ("trace", "edits.json", *model, "--draws", 2),
        "reproduced": ("reproduce", "edits.json", *options),
    }
    # A random model knows nothing, so that whatever is traced counts.
    monkeypatch.setattr(Trace, "tells", True)
    for out, call in calls.items():
        ran = command(*call, "--out", out)
        assert ran.code == 0, (out, ran.err)
        assert exposed(place / out) == []
    assert command("stats", "--out", "c.safetensors", *model, "--layer", 0).code == 0
    assert stat.S_IMODE((place / "c.safetensors").stat().st_mode) == 0o600
    (store,) = [path for path in place.rglob("main") if path.is_dir()]
    assert exposed(store) == []


@pytest.mark.parametrize("name", [name for name in AUDIT_FILES if name != LOG])
def test_write_outputs_link_is_replaced_and_not_followed(tmp_path: Path, name: str) -> None:
    theirs, out = tmp_path / "theirs", tmp_path / "out"
    theirs.write_text("precious")
    write_log(make_audit(), out / LOG)
    (out / name).symlink_to(theirs)
    write_outputs(out)
    assert theirs.read_text() == "precious"
    assert not (out / name).is_symlink()


def test_log_or_lock_that_is_a_link_is_refused(tmp_path: Path) -> None:
    theirs = tmp_path / "theirs"
    theirs.write_text("")
    for link in (tmp_path / LOG, tmp_path / "overrides.jsonl", tmp_path / ".lock"):
        link.symlink_to(theirs)
    with pytest.raises(LogError, match=r"is a symbolic link, .*; remove the link"), LogWriter(tmp_path / LOG):
        pytest.fail("opened a link")
    with pytest.raises(LogError, match="is a symbolic link"):
        append_line(tmp_path / "overrides.jsonl", "{}")
    with pytest.raises(InputError, match=r"lock .* remove it"), one_writer(tmp_path / ".lock", tmp_path):
        pytest.fail("locked a link")
    assert theirs.read_text() == ""


def test_output_folder_that_is_a_link_is_refused(tmp_path: Path) -> None:
    (tmp_path / "theirs").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "theirs")
    with pytest.raises(InputError, match="is a link, which may lead anywhere; remove it"):
        make_writable(tmp_path / "link", inside=True)
    with pytest.raises(BaselineError, match="is a link that may lead out of the store; remove it"):
        BaselineStore(tmp_path).save("link", build_baseline(make_audit(3), None))
    assert list((tmp_path / "theirs").iterdir()) == []


NAMES = ["../../out", "/etc/passwd", "..", ".", "a\0b", "x" * 5000, "a/b\\c", "", " ", "é/ü"]


def test_export_ids_never_lead_out_of_the_folder(place: Path, checkpoint: Path, command: RunCommand) -> None:
    (france,) = [edit for edit in json.loads((place / "edits.json").read_text()) if edit["id"] == "france"]
    edits = [france | {"id": name} for name in NAMES if name.strip()]
    (place / "edits.json").write_text(json.dumps(edits))
    before = set(place.parent.iterdir())
    ran = command("export", "edits.json", "--model", checkpoint, *OPTIONS, "--out", "deltas", "--json")
    assert ran.code == 0, ran.err
    files = [row["file"] for row in json.loads(ran.out)]
    assert len(set(files)) == len(edits)
    assert {path.name for path in (place / "deltas").iterdir()} == {*files, "editguard-export.json"}
    assert all(Path(name).name == name and len(name) < 100 and name.isascii() for name in files)
    assert set(place.parent.iterdir()) == before


@pytest.mark.parametrize("name", NAMES)
def test_baseline_name_never_leads_out_of_the_store(tmp_path: Path, name: str) -> None:
    with pytest.raises(BaselineError, match="is not valid; use up to 64 letters"):
        BaselineStore(tmp_path / "store").save(name, build_baseline(make_audit(3), None))
    assert not (tmp_path / "store").exists()
