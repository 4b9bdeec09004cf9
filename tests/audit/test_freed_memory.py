"""Freed memory is kept for the next pass: fewer pages are cleared anew. Tried in a process of its own."""

from __future__ import annotations

import subprocess
import sys

import pytest
from editguard.audit import freed_memory

PROGRAM = """
import resource, sys
from editguard.audit.freed_memory import keep_freed_memory
if sys.argv[1] == "keep" and not keep_freed_memory():
    print("cannot")
    raise SystemExit
import torch
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range(60):
    torch.ones(20, 1024, 1024)
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


GAPS = """
from pathlib import Path
from editguard.audit.freed_memory import give_back_freed_memory, keep_freed_memory
if not keep_freed_memory():
    print("cannot")
    raise SystemExit
import torch
def resident():
    return int(Path("/proc/self/statm").read_text().split()[1]) * 4096 / 2**20
before = resident()
kept, freed = [], []
for _ in range(100):
    freed.append(torch.ones(1024, 1024))
    kept.append(torch.ones(1024))
del freed
full = resident() - before
give_back_freed_memory()
print(full, resident() - before)
"""
"""Frees 400 MiB that lie between small pieces which are kept."""


def faults(mode: str) -> str:
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, mode], capture_output=True, text=True, timeout=120, check=True
    )
    return done.stdout.strip()


def test_keep_freed_memory_reuses_pages() -> None:
    fault_count = faults("keep")
    if fault_count == "cannot":
        pytest.skip("the allocator of this system is not glibc's")
    assert int(fault_count) * 5 < int(faults("usual"))


def test_give_back_freed_memory_returns_gaps() -> None:
    done = subprocess.run([sys.executable, "-c", GAPS], capture_output=True, text=True, timeout=120, check=True)
    if done.stdout.strip() == "cannot":
        pytest.skip("the allocator of this system is not glibc's")
    full, left = map(float, done.stdout.split())
    assert full > 350
    assert left < 100


def test_keep_freed_memory_with_static_python_does_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(_: object) -> None:
        raise OSError

    monkeypatch.setattr(freed_memory.ctypes, "CDLL", fail)
    assert freed_memory._glibc.__wrapped__("malloc_trim") is None


def test_freed_memory_without_glibc_does_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(freed_memory, "_glibc", lambda _: None)
    freed_memory.give_back_freed_memory()
    assert not freed_memory.keep_freed_memory()
