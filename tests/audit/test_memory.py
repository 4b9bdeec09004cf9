"""Freed memory is kept for the next pass: fewer pages are cleared anew. Tried in a process of its own."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest
from editguard.audit.memory import keep_little_code

PROGRAM = """
import resource, sys
from editguard.audit.memory import keep_freed_memory
if sys.argv[1] == "keep" and not keep_freed_memory():
    print("cannot")
    raise SystemExit
import torch
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range(60):
    torch.ones(20, 1024, 1024)
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


def faults(mode: str) -> str:
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, mode], capture_output=True, text=True, timeout=120, check=True
    )
    return done.stdout.strip()


def test_the_same_memory_is_used_again() -> None:
    kept = faults("keep")
    if kept == "cannot":
        pytest.skip("the allocator of this system is not glibc's")
    assert int(kept) * 5 < int(faults("usual"))


@pytest.mark.parametrize(("given", "kept"), [(None, "128"), ("7", "7")])
def test_little_code_is_kept_unless_the_user_says_how_much(
    monkeypatch: pytest.MonkeyPatch, given: str | None, kept: str
) -> None:
    name = "ONEDNN_PRIMITIVE_CACHE_CAPACITY"
    monkeypatch.setenv(name, given or "")
    if given is None:
        monkeypatch.delenv(name)
    keep_little_code()
    assert os.environ[name] == kept
