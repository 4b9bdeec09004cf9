"""Logs, baselines and overrides: read, or refused in one sentence; a log that is read can be judged and shown."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from editguard.audit.gate.baseline_store import BaselineStore
from editguard.audit.run.resume import check_resumable, check_resumed_run
from editguard.reports.log.file import Log, LogWriter, read_log, read_unfinished_log
from editguard.reports.verdict.digest import summarise
from hypothesis import example, given
from hypothesis import strategies as st

from .harness import FUZZ_SETTINGS, read_or_refuse, spoil
from .seeds.logs import AUDIT, BASELINE, LOGS, OVERRIDE, OVERRIDES, REQUESTS

# A log is long, and hypothesis shows the one that fails whole.
pytestmark = pytest.mark.filterwarnings("ignore::hypothesis.errors.HypothesisWarning")


@FUZZ_SETTINGS
@example(content=LOGS[0].replace(b'"kind":"header"', b'"kind":"\xef\xbb\xbfheader"', 1))
@given(content=spoil(LOGS))
def test_read_log_spoilt_file_is_read_or_refused(content: bytes, tmp_path: Path) -> None:
    path = tmp_path / "audit.jsonl"
    path.write_bytes(content)
    read_or_refuse(lambda: read_unfinished_log(path), tmp_path)
    log = read_or_refuse(lambda: read_log(path), tmp_path)
    if log is not None:
        assert isinstance(log, Log)
        assert summarise(log).exit_code in (0, 1)


@FUZZ_SETTINGS
@given(content=spoil(LOGS[1:]))
def test_resume_spoilt_log_is_read_or_refused(content: bytes, tmp_path: Path) -> None:
    path = tmp_path / "audit.jsonl"
    path.write_bytes(content)

    def resume() -> None:
        with LogWriter(path):
            pass

    read_or_refuse(resume, tmp_path)
    # As `audit --resume` asks, before the model is ready and after.
    read_or_refuse(lambda: check_resumable(path, REQUESTS, in_sequence=False, seed=0, editor=None), tmp_path)
    begun = read_or_refuse(lambda: read_unfinished_log(path), tmp_path)
    if isinstance(begun, Log):
        read_or_refuse(lambda: check_resumed_run(begun, AUDIT.header, REQUESTS.requests, path), tmp_path)


@FUZZ_SETTINGS
@given(content=spoil([BASELINE]))
def test_load_baseline_spoilt_file_is_read_or_refused(content: bytes, tmp_path: Path) -> None:
    path = tmp_path / "baseline.json"
    path.write_bytes(content)
    read_or_refuse(lambda: BaselineStore(tmp_path).load(str(path)), tmp_path)


@FUZZ_SETTINGS
@given(content=spoil([OVERRIDES, json.dumps(OVERRIDE.model_dump()).encode()]))
def test_overrides_spoilt_file_is_read_or_refused(content: bytes, tmp_path: Path) -> None:
    (tmp_path / "overrides.jsonl").write_bytes(content)
    read_or_refuse(BaselineStore(tmp_path).read_overrides, tmp_path)


@FUZZ_SETTINGS
@given(
    reference=st.text(max_size=80)
    | st.sampled_from(["main@9999999999", "../main", "a/../../b", "\0", "main@" + "9" * 5000])
)
def test_load_baseline_any_name_is_read_or_refused(reference: str, tmp_path: Path) -> None:
    read_or_refuse(lambda: BaselineStore(tmp_path).load(reference), tmp_path)
