"""Files of edits and corpora, in every format: read, or refused in one sentence."""

from __future__ import annotations

from pathlib import Path

import pytest
from editguard.probes.keys.corpus_statistics import read_corpus
from editguard.probes.requests.loader import load_requests
from editguard.probes.requests.parsers import PARSERS
from editguard.probes.requests.request import EditRequest
from hypothesis import given
from hypothesis import strategies as st

from .harness import FUZZ_SETTINGS, read_or_refuse, spoil
from .seeds.requests import CORPORA, SEEDS


@pytest.mark.parametrize("suffix", [".json", ".jsonl", ".yaml", ".csv"])
@FUZZ_SETTINGS
@given(data=st.data(), skip=st.booleans())
def test_load_requests_spoilt_file_is_read_or_refused(
    suffix: str, data: st.DataObject, skip: bool, tmp_path: Path
) -> None:
    path = tmp_path / f"edits{suffix}"
    path.write_bytes(data.draw(spoil([seed.encode() for seed in SEEDS[suffix]])))
    requests = read_or_refuse(lambda: load_requests(path, skip_invalid=skip).requests, tmp_path)
    if requests is not None:
        assert isinstance(requests, tuple)
        assert requests
        assert all(isinstance(record, EditRequest) and record.subject in record.prompt for record in requests)


def test_seeds_cover_every_format() -> None:
    assert SEEDS.keys() == PARSERS.keys()


@pytest.mark.parametrize("suffix", CORPORA)
@FUZZ_SETTINGS
@given(data=st.data())
def test_read_corpus_spoilt_file_is_read_or_refused(suffix: str, data: st.DataObject, tmp_path: Path) -> None:
    path = tmp_path / f"corpus{suffix}"
    path.write_bytes(data.draw(spoil([CORPORA[suffix]])))
    read_or_refuse(lambda: read_corpus(str(path)).sha256, tmp_path)
