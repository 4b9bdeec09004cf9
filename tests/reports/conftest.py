from __future__ import annotations

import pytest
from editguard.reports.log.file import Log

from ..helpers.synthetic_logs import make_log


@pytest.fixture(scope="session")
def log() -> Log:
    """A finished log of 60 edits that passes; logs are frozen, so tests share it."""
    return make_log()
