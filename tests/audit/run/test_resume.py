"""A killed audit is gone on with: the log ends as that of a run that was not killed, byte for byte apart from times."""

from __future__ import annotations

import os
import random
import signal
import time
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from editguard.audit.folders.file_names import AUDIT_FILES, LOG
from editguard.audit.folders.output_folder import locked_folder
from editguard.audit.policy import Policy
from editguard.audit.run import execute as making
from editguard.audit.run.audit import run_audit
from editguard.audit.setup import Setup, prepare
from editguard.probes.errors import InputError
from editguard.probes.model.language_model import LanguageModel
from editguard.probes.requests.request import EditRequest
from editguard.reports.log.file import read_log
from editguard.reports.verdict.summary import Summary
from editguard.suites.builtin import load_builtin_edits, load_control_candidates

from ...helpers.tiny_audits import drop_times, load_edits
from ...helpers.tiny_setups import FIRST_TOKEN_REQUEST, MID_PROMPT_REQUEST, MISSING_SUBJECT_REQUEST, lenient, tiny_setup

pytestmark = pytest.mark.tiny

REQUESTS = (
    FIRST_TOKEN_REQUEST,
    MISSING_SUBJECT_REQUEST,
    MID_PROMPT_REQUEST,
    *(replace(MID_PROMPT_REQUEST, id=f"more-{n}", target_new="Lyon") for n in range(2)),
)
_TIMES = ("seconds", "created")


@pytest.fixture(scope="module", autouse=True)
def chunks_of_two() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(making, "REQUESTS_PER_BATCH", 2)
        yield


@pytest.fixture(scope="module", autouse=True)
def one_thread() -> Iterator[None]:
    """A child of a process that computes with more threads would wait for those that it has not."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def controlled(one_thread: None) -> Setup:
    """A setup of this module's own: what was measured with more threads differs in its last bits."""
    return tiny_setup(policy=lenient(controls=True))


@pytest.fixture(scope="module")
def whole(controlled: Setup, tmp_path_factory: pytest.TempPathFactory) -> bytes:
    """The log of an audit that nobody killed."""
    out = tmp_path_factory.mktemp("whole")
    run_audit(controlled, load_edits(*REQUESTS), out)
    return (out / LOG).read_bytes()


def resumed(setup: Setup, out: Path, *requests: EditRequest) -> Summary:
    with locked_folder(out, overwrite=False, resume=True):
        # A new process knows nothing of what the killed one had measured.
        return run_audit(replace(setup), load_edits(*requests or REQUESTS), out, resume=True)


def test_resume_log_cut_after_any_record_ends_alike(controlled: Setup, whole: bytes, tmp_path: Path) -> None:
    lines = whole.splitlines(keepends=True)
    for kept in range(len(lines) + 1):
        out = tmp_path / str(kept)
        out.mkdir()
        (out / LOG).write_bytes(b"".join(lines[:kept]))
        resumed(controlled, out)
        assert drop_times((out / LOG).read_bytes()) == drop_times(whole), kept
        assert sorted(path.name for path in out.iterdir() if path.name != ".lock") == sorted(AUDIT_FILES)


def test_resume_control_with_later_candidate_ends_alike(
    controlled: Setup, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The candidates are tried anew, and end at the same one."""
    monkeypatch.setattr("editguard.audit.run.controls._EDITORS", ("exploded", "rome"))
    monkeypatch.setattr("editguard.audit.run.controls.load_control_candidates", lambda: load_control_candidates()[:2])
    bounded = replace(controlled, policy=lenient(controls=True, max_relative_update=10))
    (tmp_path / "whole").mkdir()
    run_audit(bounded, load_edits(MID_PROMPT_REQUEST), tmp_path / "whole")
    log = (tmp_path / "whole" / LOG).read_bytes()
    good = read_log(tmp_path / "whole" / LOG).controls[1]
    assert (good.ok, len(good.tried)) == (True, 2)
    lines = log.splitlines(keepends=True)
    for kept in range(1, 4):
        out = tmp_path / str(kept)
        out.mkdir()
        (out / LOG).write_bytes(b"".join(lines[:kept]))
        resumed(bounded, out, MID_PROMPT_REQUEST)
        assert drop_times((out / LOG).read_bytes()) == drop_times(log), kept


@pytest.mark.parametrize("seed", range(6))
def test_resume_log_torn_anywhere_ends_alike(controlled: Setup, whole: bytes, tmp_path: Path, seed: int) -> None:
    (tmp_path / LOG).write_bytes(whole[: random.Random(seed).randrange(len(whole))])
    resumed(controlled, tmp_path)
    assert drop_times((tmp_path / LOG).read_bytes()) == drop_times(whole)


def test_resume_makes_no_record_twice(controlled: Setup, whole: bytes, tmp_path: Path) -> None:
    lines = whole.splitlines(keepends=True)
    (tmp_path / LOG).write_bytes(b"".join(lines[:5]))
    resumed(controlled, tmp_path)
    assert (tmp_path / LOG).read_bytes().splitlines(keepends=True)[:5] == lines[:5]


def test_resume_finished_audit_writes_outputs_only(controlled: Setup, whole: bytes, tmp_path: Path) -> None:
    (tmp_path / LOG).write_bytes(whole)
    (tmp_path / ".report.html.x1y2.tmp").write_text("<p>half", encoding="utf-8")
    resumed(controlled, tmp_path)
    assert (tmp_path / LOG).read_bytes() == whole
    assert sorted(path.name for path in tmp_path.iterdir() if path.name != ".lock") == sorted(AUDIT_FILES)


def test_resume_without_log_begins_one(controlled: Setup, whole: bytes, tmp_path: Path) -> None:
    resumed(controlled, tmp_path)
    assert drop_times((tmp_path / LOG).read_bytes()) == drop_times(whole)


def test_resume_by_another_run_is_refused(controlled: Setup, whole: bytes, tmp_path: Path) -> None:
    begun = b"".join(whole.splitlines(keepends=True)[:5])
    (tmp_path / LOG).write_bytes(begun)
    with pytest.raises(InputError, match=r"policy\.min_efficacy \(0\.0, now 0\.5\)"):
        resumed(replace(controlled, policy=lenient(controls=True, min_efficacy=0.5)), tmp_path)
    with pytest.raises(InputError, match=r"another requests \(5, now 2\)"):
        resumed(controlled, tmp_path, FIRST_TOKEN_REQUEST, MISSING_SUBJECT_REQUEST)
    with pytest.raises(InputError, match=r"Record 1 of the log .* is of 'chicago', and this run has 'missing' there"):
        resumed(controlled, tmp_path, *REQUESTS[1:], REQUESTS[0])
    with pytest.raises(InputError, match=r"another seed \(0, now 1\)"):
        resumed(replace(controlled, seed=1), tmp_path)
    assert (tmp_path / LOG).read_bytes() == begun


def test_resume_and_overwrite_exclude_each_other(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="leave one of them out"), locked_folder(tmp_path, overwrite=True, resume=True):
        pass


def test_resume_results_without_log_are_kept(tmp_path: Path) -> None:
    (tmp_path / "report.html").write_text("mine", encoding="utf-8")
    with (
        pytest.raises(InputError, match="already holds an audit"),
        locked_folder(tmp_path, overwrite=False, resume=True),
    ):
        pass


# --------------------------------------------------------------------------------------------------------- kill -9


def killed(setup: Setup, out: Path, after: float, requests: Sequence[EditRequest] = REQUESTS) -> bool:
    """Run the audit in a process of its own that is killed `after` seconds; return whether it was still running."""
    child = os.fork()
    if child == 0:  # another process, which must not come back into this test
        status = 1
        try:
            with locked_folder(out, overwrite=False, resume=True):
                run_audit(setup, load_edits(*requests), out, resume=True)
            status = 0
        finally:
            os._exit(status)
    time.sleep(after)
    os.kill(child, signal.SIGKILL)
    ended = os.waitpid(child, 0)[1]
    assert os.WIFSIGNALED(ended) or os.WEXITSTATUS(ended) == 0
    return os.WIFSIGNALED(ended)


def killed_and_resumed(
    setup: Setup, out: Path, kills: int, seed: int, requests: Sequence[EditRequest] = REQUESTS
) -> int:
    """Kill the audit `kills` times at random moments, each time going on with it; return how often it was running."""
    started = time.monotonic()
    run_audit(replace(setup), load_edits(*requests), out / "whole")
    length, draw, hit, number = time.monotonic() - started, random.Random(seed), 0, 0
    whole = (out / "whole" / LOG).read_bytes()
    while kills:
        folder = out / str(number)
        number += 1
        for _ in range(min(kills, draw.randint(1, 3))):
            kills -= 1
            hit += killed(replace(setup), folder, draw.uniform(0, 1.1 * length), requests)
            if (folder / LOG).exists() and b"\n" in (folder / LOG).read_bytes():
                read_log(folder / LOG)
        resumed(setup, folder, *requests)
        assert drop_times((folder / LOG).read_bytes()) == drop_times(whole), (seed, number)
        assert sorted(path.name for path in folder.iterdir() if path.name != ".lock") == sorted(AUDIT_FILES)
    return hit


def test_resume_after_random_kills_ends_alike(controlled: Setup, tmp_path: Path) -> None:
    (tmp_path / "whole").mkdir()
    assert killed_and_resumed(controlled, tmp_path, kills=5, seed=0) > 0


@pytest.mark.slow
@pytest.mark.timeout(3600)
def test_resume_after_two_hundred_kills_ends_alike(controlled: Setup, tmp_path: Path) -> None:
    (tmp_path / "whole").mkdir()
    assert killed_and_resumed(controlled, tmp_path, kills=200, seed=1) > 100


@pytest.mark.slow
@pytest.mark.real
@pytest.mark.timeout(3600)
def test_resume_embedded_model_after_kills_ends_alike(one_thread: None, smollm2: LanguageModel, tmp_path: Path) -> None:
    (tmp_path / "whole").mkdir()
    edits = load_builtin_edits()
    requests = [edits[0], *[edit for edit in edits if edit.group == "mid-prompt"][:2]]
    setup = prepare(smollm2, policy=Policy(controls=False))
    assert killed_and_resumed(setup, tmp_path, kills=4, seed=2, requests=requests) > 0


def test_resume_lock_of_a_dead_run_is_free(controlled: Setup, tmp_path: Path) -> None:
    ready = tmp_path / "ready"
    out = tmp_path / "out"
    child = os.fork()
    if child == 0:  # no cover: another process
        with locked_folder(out, overwrite=False):
            ready.touch()
            time.sleep(60)
        os._exit(0)
    while not ready.exists():
        time.sleep(0.01)
    with pytest.raises(InputError, match="Another run is writing"), locked_folder(out, overwrite=True):
        pass
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    with locked_folder(out, overwrite=False):
        pass
