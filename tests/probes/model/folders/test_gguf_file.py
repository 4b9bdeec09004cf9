"""A GGUF file is converted where its architecture is known; a header that is not whole is one sentence."""

from __future__ import annotations

import struct
from pathlib import Path

import pytest
import torch
from editguard.probes.errors import ModelError
from editguard.probes.model.checkpoint import open_checkpoint
from editguard.probes.model.folders.gguf_file import describe_conversion, read_architecture
from editguard.probes.model.language_model import load_model

from ....helpers.gguf_files import write_llama

pytestmark = pytest.mark.tiny


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EDITGUARD_CACHE", str(tmp_path / "cache"))


def test_load_model_from_a_gguf_file_has_its_weights(tmp_path: Path) -> None:
    path = tmp_path / "tiny.gguf"
    expected = write_llama(path)
    lm = load_model(path, device="cpu")
    assert (lm.architecture, lm.dtype, lm.ref) == ("LlamaForCausalLM", torch.float32, str(path))
    assert all(torch.equal(tensor, lm.model.state_dict()[name]) for name, tensor in expected.items())
    checkpoint = open_checkpoint(str(path))
    assert all(torch.equal(checkpoint.tensor(name), tensor) for name, tensor in expected.items())
    assert describe_conversion(path) == (
        f"The GGUF file {str(path)!r} is dequantised to float32, and all that is measured is of these weights."
    )


@pytest.mark.parametrize("architecture", ["rwkv6", "general", "tokenizer"])
def test_load_model_from_gguf_of_an_unknown_architecture_is_refused(tmp_path: Path, architecture: str) -> None:
    write_llama(tmp_path / "tiny.gguf", architecture)
    with pytest.raises(ModelError, match=f"of the architecture '{architecture}', which transformers does not read"):
        load_model(tmp_path / "tiny.gguf", device="cpu")


def header(*fields: bytes, tensors: int = 0, count: int | None = None) -> bytes:
    number = len(fields) if count is None else count
    return b"GGUF" + struct.pack("<IQQ", 3, tensors, number) + b"".join(fields)


def text(value: str) -> bytes:
    return struct.pack("<Q", len(value)) + value.encode()


LLAMA = text("general.architecture") + struct.pack("<I", 8) + text("llama")


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"", "does not begin with GGUF"),
        (b"not a model", "does not begin with GGUF"),
        (b"GGUF" + struct.pack("<IQQ", 9, 0, 0), "version is 9"),
        (header(), "names no general.architecture"),
        (header(LLAMA, count=2**60), "ends before"),
        (header(LLAMA, tensors=2**60), "ends before"),
        (header(text("a") + struct.pack("<IIQ", 9, 4, 2**61)), "ends before"),
        (header(text("a") + struct.pack("<IIQQ", 9, 9, 1, 0)), "unknown type 9"),
        (header(text("a") + struct.pack("<I", 77)), "unknown type 77"),
        (header(struct.pack("<Q", 2**62)), "ends before"),
        (header(LLAMA)[:-2], "ends before"),
    ],
)
def test_read_architecture_header_that_is_not_whole_is_one_sentence(
    tmp_path: Path, content: bytes, reason: str
) -> None:
    path = tmp_path / "spoilt.gguf"
    path.write_bytes(content)
    with pytest.raises(ModelError, match=f"cannot be read as GGUF .*{reason}"):
        read_architecture(path)


def test_read_architecture_of_whole_header_is_what_it_names(tmp_path: Path) -> None:
    path = tmp_path / "small.gguf"
    path.write_bytes(header(text("x") + struct.pack("<If", 6, 1.0), LLAMA))
    assert read_architecture(path) == "llama"
