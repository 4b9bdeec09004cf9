"""The seeds of atheris are valid, so that it has something to spoil; atheris itself runs only in `tox -e fuzz`."""

from __future__ import annotations

from pathlib import Path

import pytest

from .guided import READERS, _readers


def test_readers_all_have_a_name() -> None:
    assert tuple(_readers()) == READERS


@pytest.mark.parametrize("name", READERS)
def test_readers_accept_their_seeds(name: str, tmp_path: Path) -> None:
    reader = _readers()[name]
    for file, content in reader.beside.items():
        (tmp_path / file).write_bytes(content)
    for seed in reader.seeds:
        (tmp_path / reader.file).write_bytes(seed)
        reader.read(tmp_path / reader.file)
