"""A file of what was prepared: returned to the bit, or not at all."""

from __future__ import annotations

import pickle
from pathlib import Path

import pytest
import torch
from editguard.audit.prepared import entry as module
from editguard.audit.prepared.entry import Entry, locate_entry, read_entry, write_entry
from safetensors.torch import save_file

STAMP, OTHER = "a" * 64, "b" * 64
ENTRY = Entry(
    '{"a": "é"}', {"sink": torch.tensor([1.0, -0.0, 1e-40]), "axes": torch.eye(3, dtype=torch.float64)[:, :2]}
)

pytestmark = pytest.mark.usefixtures("kept")


def test_read_entry_written_entry_is_the_same_to_the_bit() -> None:
    assert read_entry(STAMP) is None
    write_entry(STAMP, ENTRY)
    (text, tensors) = read_entry(STAMP) or pytest.fail("nothing was kept")
    assert text == ENTRY.text
    assert {name: tensor.numpy().tobytes() for name, tensor in tensors.items()} == {
        name: tensor.contiguous().numpy().tobytes() for name, tensor in ENTRY.tensors.items()
    }
    write_entry(OTHER, Entry("{}", {}))
    assert read_entry(OTHER) == Entry("{}", {})


def test_read_entry_of_another_stamp_is_none() -> None:
    write_entry(STAMP, ENTRY)
    locate_entry(OTHER).write_bytes(locate_entry(STAMP).read_bytes())
    assert read_entry(OTHER) is None
    assert read_entry(STAMP) is not None


def test_read_entry_any_changed_byte_is_none() -> None:
    write_entry(STAMP, ENTRY)
    path = locate_entry(STAMP)
    content = path.read_bytes()
    # Spaces that fill the header up say nothing.
    places = [place for place, byte in enumerate(content) if byte != ord(" ")]
    for place in places:
        path.write_bytes(content[:place] + bytes([content[place] ^ 1]) + content[place + 1 :])
        assert read_entry(STAMP) is None, place
    path.write_bytes(content)
    assert read_entry(STAMP) is not None


@pytest.mark.parametrize("content", [b"", b"{}", pickle.dumps({"sink": 1}), bytes(100), b"\xff" * 100], ids=range(5))
def test_read_entry_other_file_is_none(content: bytes, kept: Path) -> None:
    kept.mkdir(parents=True)
    locate_entry(STAMP).write_bytes(content)
    assert read_entry(STAMP) is None


def test_read_entry_without_a_hash_is_none(kept: Path) -> None:
    kept.mkdir(parents=True)
    save_file({"sink": torch.ones(3)}, locate_entry(STAMP), metadata={"editguard": "{}"})
    assert read_entry(STAMP) is None
    save_file({"sink": torch.ones(3)}, locate_entry(STAMP))
    assert read_entry(STAMP) is None


def test_read_entry_folder_or_file_over_the_bound_is_none(monkeypatch: pytest.MonkeyPatch) -> None:
    locate_entry(OTHER).mkdir(parents=True)
    assert read_entry(OTHER) is None
    write_entry(STAMP, ENTRY)
    monkeypatch.setattr(module, "_MOST_BYTES", locate_entry(STAMP).stat().st_size - 1)
    assert read_entry(STAMP) is None


def test_write_entry_over_the_bound_is_not_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    size = sum(tensor.nbytes for tensor in ENTRY.tensors.values())
    monkeypatch.setattr(module, "_MOST_BYTES", module._ROOM_FOR_TEXT + size - 1)
    write_entry(STAMP, ENTRY)
    assert not locate_entry(STAMP).exists()


def test_write_entry_replaces_what_was_there_for_its_owner_alone(kept: Path) -> None:
    write_entry(STAMP, ENTRY)
    locate_entry(STAMP).write_bytes(b"damaged")
    write_entry(STAMP, ENTRY)
    assert read_entry(STAMP) is not None
    assert locate_entry(STAMP).stat().st_mode & 0o777 == 0o600
    assert [path.name for path in kept.iterdir()] == [locate_entry(STAMP).name]


def test_write_entry_where_nothing_can_be_written_is_no_fault(kept: Path) -> None:
    kept.parent.mkdir()
    kept.write_text("a file in the place of the folder", encoding="utf-8")
    write_entry(STAMP, ENTRY)
    assert read_entry(STAMP) is None
