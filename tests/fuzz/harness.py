"""Shared by all fuzzing tests: the number of files, how a file is spoilt, and the rule for every reader.

Each test spoils valid files, because a reader refuses random bytes at the first one.
With ``HYPOTHESIS_PROFILE=thorough`` each reader gets 10 000 files (`tox -e fuzz`), otherwise a few dozen.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from editguard.probes.errors import EditguardError
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st

__all__ = ["EXAMPLES", "FUZZ_SETTINGS", "HOSTILE", "SECONDS", "spoil", "read_or_refuse"]

EXAMPLES = 10_000 if os.environ.get("HYPOTHESIS_PROFILE") == "thorough" else 40
SECONDS = 5.0
"""Processor time for one file of some kilobytes: far more than any needs, and far less than a hang."""
LONGEST = 20_000
"""Characters of a message: it may list many records, and must not hold the file."""

FUZZ_SETTINGS = settings(
    max_examples=EXAMPLES,
    # The short run is the same every time: a failure of a random one would stop somebody else's commit.
    derandomize=EXAMPLES < 10_000,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large, HealthCheck.function_scoped_fixture],
)

HOSTILE = (
    b"NaN",
    b"-Infinity",
    b"1e999",
    b"9" * 5000,
    b"-0",
    b"[" * 3000,
    b'{"a":' * 3000,
    b"]" * 40,
    b"\x00",
    b"\x1b[31m",
    b"\xff",
    b"\xef\xbb\xbf",
    b"\xff\xfe",
    b"\xc3\x28",
    b"\\ud800",
    b"\\u0000",
    b"null",
    b"true",
    b'""',
    b"[]",
    b"{}",
    b"\n",
    b"\r\n",
    b"\xe2\x80\xa8",
    b'"',
    b"'",
    b",",
    b":",
    b"|",
    b"#",
    b"=",
    b"../../x",
    b"!!python/object/apply:os.system [id]",
    b"&a [*a]",
    b"<<: *a",
    b"\t",
    b"? ",
    b"- ",
    b"1:" * 300 + b"1.0",
    b"2024-13-45",
    b"0x",
    b"0b",
    b"18446744073709551616",
    b"nan",
    b"inf",
)


def _change(content: bytes, how: tuple[str, int, int, bytes]) -> bytes:
    kind, at, length, piece = how
    start = at % (len(content) + 1)
    end = min(len(content), start + length)
    if kind == "flip":
        flipped = bytes(byte ^ (1 + at % 255) for byte in content[start : start + 1])
        return content[:start] + flipped + content[start + 1 :]
    changed_content = {
        "cut": content[:start],
        "behead": content[start:],
        "remove": content[:start] + content[end:],
        "repeat": content[:end] + content[start:end] + content[end:],
        "insert": content[:start] + piece + content[start:],
        "replace": content[:start] + piece + content[end:],
    }
    return changed_content[kind]


_CHANGES = st.tuples(
    st.sampled_from(["flip", "flip", "insert", "insert", "replace", "replace", "remove", "repeat", "cut", "behead"]),
    st.integers(0, 2**16),
    st.integers(1, 64),
    st.sampled_from(HOSTILE) | st.binary(max_size=8),
)


def spoil(seeds: Sequence[bytes]) -> st.SearchStrategy[bytes]:
    """Return one of `seeds`, changed in up to six places, or the beginning of one followed by the end of another."""
    seed = st.sampled_from(seeds)
    spliced = st.builds(
        lambda first, second, at: first[: at % (len(first) + 1)] + second[at % (len(second) + 1) :],
        seed,
        seed,
        st.integers(0, 2**16),
    )

    def changed(content: bytes, changes: Sequence[tuple[str, int, int, bytes]]) -> bytes:
        for change in changes:
            content = _change(content, change)
        return content

    return st.builds(changed, seed | spliced, st.lists(_CHANGES, min_size=1, max_size=6)) | st.binary(max_size=64)


def read_or_refuse(read: Callable[[], object], folder: Path) -> object:
    """Return the result of `read`, or None where it raises an error of editguard; every other error fails the test.

    The message must be a sentence with a way out.
    Nothing may be written beside the file, and the processor time is bounded.
    """
    before, started = sorted(folder.rglob("*")), time.process_time()
    refusal: EditguardError | None = None
    try:
        result = read()
    except EditguardError as error:
        result, refusal = None, error
    if refusal is not None:
        assert refusal.exit_code in (1, 2)
        _is_a_sentence(str(refusal))
    assert time.process_time() - started < SECONDS
    assert sorted(folder.rglob("*")) == before
    return result


def _is_a_sentence(message: str) -> None:
    first, *listed = message.split("\n")
    assert first.endswith("."), message
    assert not first[:1].islower(), message
    assert any(mark in first for mark in ("; ", ": ", ", so ", "did you mean")), message
    assert all(line.isprintable() for line in (first, *listed)), message
    assert len(message) < LONGEST, len(message)
