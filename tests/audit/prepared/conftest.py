"""A cache folder of its own, in which what was prepared is kept."""

from __future__ import annotations

from pathlib import Path

import pytest
from editguard.audit.prepared import origin, store


@pytest.fixture
def kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Keep what is prepared, as outside of tests; returns the folder of the entries."""
    monkeypatch.setenv("EDITGUARD_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(store, "find_origin", origin.find_origin)
    return tmp_path / "cache" / "prepared"
