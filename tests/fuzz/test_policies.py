"""Policy files: read, or refused in one sentence."""

from __future__ import annotations

from pathlib import Path

import pytest
from editguard.audit.policy import Policy, load_policy
from hypothesis import given
from hypothesis import strategies as st

from .harness import FUZZ_SETTINGS, read_or_refuse, spoil
from .seeds.policies import SEEDS


@pytest.mark.parametrize("name", SEEDS)
@FUZZ_SETTINGS
@given(data=st.data())
def test_load_policy_spoilt_file_is_read_or_refused(name: str, data: st.DataObject, tmp_path: Path) -> None:
    path = tmp_path / name
    path.write_bytes(data.draw(spoil(SEEDS[name])))
    assert isinstance(read_or_refuse(lambda: load_policy(path), tmp_path), Policy | None)
    read_or_refuse(lambda: load_policy(None, tmp_path), tmp_path)
