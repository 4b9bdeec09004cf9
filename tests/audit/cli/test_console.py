"""What people see at a terminal, in a file and in a pipe that nobody reads any more."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from editguard.audit.folders.file_names import LOG
from editguard.reports.log.file import rewrite_log

from ...helpers.audit_logs import make_audit


@pytest.mark.parametrize("more", [[], ["--json"]], ids=["rich", "plain"])
def test_main_reader_gone_exits_141(tmp_path: Path, more: list[str]) -> None:
    rewrite_log(tmp_path / LOG, make_audit(2))
    reading, writing = os.pipe()
    os.close(reading)
    command = [sys.executable, "-m", "editguard.audit.cli.main", "report", str(tmp_path), *more]
    environment = {**os.environ, "PYTHONUNBUFFERED": "1"}
    try:
        ended = subprocess.run(command, stdout=writing, stderr=subprocess.PIPE, env=environment, check=False)
    finally:
        os.close(writing)
    assert ended.returncode == 128 + 13, ended.stderr.decode()
    assert b"Traceback" not in ended.stderr
