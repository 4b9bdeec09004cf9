"""Policy files: read, or told in one sentence what is wrong."""

from __future__ import annotations

from pathlib import Path

import pytest
from editguard.audit.policy import Policy, load_policy
from hypothesis import given
from hypothesis import strategies as st

from .harness import FUZZED, spoilt, told_or_read

TABLE = b'editor = "rome"\nmax_relative_update = 0.75\nallow_refused = true\n[rules]\nfirst-token = "refuse"\n'
SEEDS = {
    "policy.toml": [TABLE, b'rules = { denominator = "allow" }\nmin_efficacy = 0.5 # half\ncontrols = false\n'],
    "pyproject.toml": [
        b"[tool.editguard]\n" + TABLE.replace(b"[rules]", b"[tool.editguard.rules]"),
        b"[tool]\nother = 1\n",
    ],
}


@pytest.mark.parametrize("name", SEEDS)
@FUZZED
@given(data=st.data())
def test_load_policy_spoilt_file_is_read_or_refused(name: str, data: st.DataObject, tmp_path: Path) -> None:
    path = tmp_path / name
    path.write_bytes(data.draw(spoilt(SEEDS[name])))
    assert isinstance(told_or_read(lambda: load_policy(path), tmp_path), Policy | None)
    told_or_read(lambda: load_policy(None, tmp_path), tmp_path)
