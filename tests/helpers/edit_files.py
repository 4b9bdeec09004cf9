"""Texts of files of edits, read by the parser of their suffix."""

from __future__ import annotations

import pytest
from editguard.probes.errors import RequestError
from editguard.probes.requests.parsers import PARSERS
from editguard.probes.requests.raw_record import RawRecord

__all__ = ["RECORD", "parse", "refusal"]

RECORD = {"subject": "Lyon", "prompt": "{} is in", "target_new": "Spain"}


def parse(suffix: str, text: str) -> list[RawRecord]:
    """Return the raw records of a file with this suffix and text."""
    return PARSERS[suffix](text, f"data/edits{suffix}", f"edits{suffix}")


def refusal(suffix: str, text: str) -> str:
    """Return the message of the error for such a file: one line that names it."""
    with pytest.raises(RequestError) as caught:
        parse(suffix, text)
    message = str(caught.value)
    assert f"'data/edits{suffix}'" in message
    assert "\n" not in message
    return message
