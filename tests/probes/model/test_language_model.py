"""Loading a model: what is whole loads as it was saved, everything else is one sentence with the way out."""

from __future__ import annotations

import json
import pickle
import shutil
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import pytest
import torch
from editguard.probes.errors import ModelError
from editguard.probes.model.fingerprint import compute_fingerprint
from editguard.probes.model.language_model import DTYPES, LanguageModel, load_model
from safetensors.torch import load_file, save_file

from ...helpers.families import OTHERS
from ...helpers.tiny_models import save_tiny_checkpoint, tiny_language_model
from ...helpers.tokenizer_kinds import ALL, BYTE_LEVEL

pytestmark = pytest.mark.tiny


@pytest.fixture(scope="session")
def saved(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("checkpoint")
    save_tiny_checkpoint(folder)
    return folder


@pytest.fixture
def folder(saved: Path, tmp_path: Path) -> Path:
    """A checkpoint of its own, to be damaged."""
    return Path(shutil.copytree(saved, tmp_path / "model"))


def load(folder: Path, **options: object) -> LanguageModel:
    return load_model(folder, device="cpu", **options)  # type: ignore[arg-type]


def to_pickle(folder: Path) -> None:
    weights = folder / "model.safetensors"
    torch.save(load_file(weights), folder / "pytorch_model.bin")
    weights.unlink()


def change_config(folder: Path, **values: object) -> None:
    path = folder / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | values))


def refused(folder: Path, message: str, **options: object) -> None:
    with pytest.raises(ModelError, match=message) as caught:
        load(folder, **options)
    assert "\n" not in str(caught.value)


# What loads


@pytest.mark.parametrize("as_text", [False, True])
def test_load_model_from_a_folder_gives_the_saved_weights(saved: Path, as_text: bool) -> None:
    lm = load_model(str(saved) if as_text else saved, device="cpu")
    expected = tiny_language_model("llama")
    assert compute_fingerprint(lm.model) == compute_fingerprint(expected.model)
    assert lm.tokenizer("Paris is not Lyon").input_ids == expected.tokenizer("Paris is not Lyon").input_ids
    assert lm.ref == str(saved)
    assert (lm.device, lm.dtype, lm.architecture) == (torch.device("cpu"), torch.float32, "LlamaForCausalLM")
    assert lm.causal
    assert lm.parameters == sum(parameter.numel() for parameter in expected.model.parameters())
    assert not lm.model.training
    assert not any(parameter.requires_grad for parameter in lm.model.parameters())


@pytest.mark.parametrize("dtype", DTYPES)
def test_load_model_dtype_is_the_given_one_or_the_checkpoints(saved: Path, dtype: str) -> None:
    lm = load(saved, dtype=dtype)
    assert lm.dtype == (torch.float32 if dtype == "auto" else getattr(torch, dtype))


def test_load_model_keeps_low_precision(tmp_path: Path) -> None:
    lm = tiny_language_model("llama")
    lm.model.to(torch.bfloat16)
    lm.model.save_pretrained(tmp_path)
    lm.tokenizer.save_pretrained(tmp_path)
    assert load(tmp_path).dtype == torch.bfloat16


def test_load_model_of_an_encoder_is_not_causal(tmp_path: Path) -> None:
    OTHERS["t5"]().save_pretrained(tmp_path)
    BYTE_LEVEL["bytes-trimmed"].save_pretrained(tmp_path)
    lm = load(tmp_path)
    assert lm.architecture == "T5EncoderModel"
    assert not lm.causal


@pytest.mark.parametrize("kind", ALL)
def test_adds_bos_is_what_the_tokenizer_does(kind: str) -> None:
    lm = LanguageModel(tiny_language_model("llama").model, ALL[kind], kind)
    assert lm.adds_bos == (kind.endswith("bos") or kind in {"sentencepiece-bpe", "wordpiece", "wordpiece-lower"})


def test_is_training_where_a_single_module_is() -> None:
    lm = tiny_language_model("llama")
    lm.model.eval()
    assert not lm.is_training
    lm.model.get_submodule("model.layers.1.mlp").train()
    assert lm.is_training


def test_fingerprint_stays_that_of_the_first_access() -> None:
    lm = tiny_language_model("llama")
    before = lm.fingerprint
    with torch.no_grad():
        next(lm.model.parameters()).add_(1.0)
    assert lm.fingerprint == before != compute_fingerprint(lm.model)


# Names


@pytest.mark.parametrize("ref", ["/no/such/folder", "./nowhere", "a/b/c", "~/no/such/folder", "with space"])
def test_load_model_from_a_missing_path_is_refused(ref: str) -> None:
    with pytest.raises(ModelError, match="There is no model folder"):
        load_model(ref, device="cpu")


def test_load_model_takes_no_path_object_for_a_hub_name() -> None:
    with pytest.raises(ModelError, match="There is no model folder 'no-such-model'"):
        load_model(Path("no-such-model"), device="cpu")


def test_load_model_of_an_unknown_hub_name_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    with pytest.raises(ModelError, match="'nobody/no-such-model' is neither a folder here nor to be had"):
        load_model("nobody/no-such-model", device="cpu")


@pytest.mark.parametrize(
    ("offline", "end"),
    [
        (False, "or 'smollm2-135m'. Without a network, HF_HUB_OFFLINE=1 saves the wait for it."),
        (True, "or 'smollm2-135m'."),
    ],
)
def test_load_model_of_an_unreachable_hub_names_the_variable_that_saves_the_wait(
    monkeypatch: pytest.MonkeyPatch, offline: bool, end: str
) -> None:
    def fail(*_: object, **__: object) -> None:
        raise OSError("no connection")

    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", offline)
    monkeypatch.setattr("transformers.AutoConfig.from_pretrained", fail)
    with pytest.raises(ModelError) as caught:
        load_model("gpt3", device="cpu")
    assert str(caught.value).endswith(end)


def test_load_model_from_a_file_is_refused(saved: Path) -> None:
    refused(saved / "config.json", "is a file; .* name that folder")


# Options


@pytest.mark.parametrize("dtype", ["float64", "int8", "", "torch.float32"])
def test_load_model_unknown_dtype_is_refused_before_reading(dtype: str) -> None:
    with pytest.raises(ModelError, match=f"dtype '{dtype}' is not known; use one of auto, float32"):
        load_model("/no/such/folder", dtype=dtype)


@pytest.mark.parametrize("device", ["abacus", "cuda:99", "cpu:x", ""])
def test_load_model_unavailable_device_is_refused_before_reading(device: str) -> None:
    with pytest.raises(ModelError, match=f"device '{device}' is not available here .* 'cuda:N'") as caught:
        load_model("/no/such/folder", device=device)
    assert "Expected one of" not in str(caught.value), "PyTorch's list of forty kinds of device helps nobody"


# Folders that are no model


def test_load_model_without_a_config_is_refused(folder: Path) -> None:
    (folder / "config.json").unlink()
    refused(folder, "no config.json")


@pytest.mark.parametrize("content", [b"{", b"", b"\xff\xfe", b"[" * 5000], ids=["cut", "empty", "bytes", "deep"])
def test_load_model_with_an_unreadable_config_is_refused(folder: Path, content: bytes) -> None:
    (folder / "config.json").write_bytes(content)
    refused(folder, "config.json .* cannot be read")


@pytest.mark.parametrize("content", ["[]", "3", "{}", '{"hidden_size": 16}'])
def test_load_model_without_a_model_type_is_refused(folder: Path, content: str) -> None:
    (folder / "config.json").write_text(content)
    refused(folder, "names no model_type")


def test_load_model_of_an_unknown_architecture_is_refused(folder: Path) -> None:
    change_config(folder, model_type="abacus")
    refused(folder, "cannot be loaded")


def test_load_model_never_runs_code_of_the_checkpoint(folder: Path) -> None:
    mark = folder / "ran"
    (folder / "trap.py").write_text(f"import pathlib\npathlib.Path({str(mark)!r}).touch()\nclass M: pass\nC = M\n")
    change_config(folder, auto_map={"AutoConfig": "trap.C", "AutoModelForCausalLM": "trap.M"})
    refused(folder, "auto_map in config.json")
    change_config(folder, model_type="abacus")
    refused(folder, ".")
    assert not mark.exists()


def test_load_model_without_weights_is_refused(folder: Path) -> None:
    (folder / "model.safetensors").unlink()
    refused(folder, "has no weights")


def test_load_model_without_a_tokenizer_is_refused(folder: Path) -> None:
    for path in folder.glob("tokenizer*"):
        path.unlink()
    refused(folder, "tokenizer")


# Weights that are not whole


def _cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-100])


def _empty(path: Path) -> None:
    path.write_bytes(b"")


def _noise(path: Path) -> None:
    path.write_bytes(bytes(range(256)) * 10)


def _other_shape(path: Path) -> None:
    weights = load_file(path)
    weights["model.layers.0.mlp.down_proj.weight"] = torch.zeros(3, 3)
    save_file(weights, path, metadata={"format": "pt"})


def _one_missing(path: Path) -> None:
    weights = load_file(path)
    del weights["model.layers.1.mlp.down_proj.weight"]
    save_file(weights, path, metadata={"format": "pt"})


@pytest.mark.parametrize("damage", [_cut, _empty, _noise, _other_shape, _one_missing])
def test_load_model_with_incomplete_weights_is_refused(folder: Path, damage: Callable[[Path], None]) -> None:
    damage(folder / "model.safetensors")
    refused(folder, "cannot be loaded")


@pytest.mark.parametrize("content", [b"", b"not a pickle"], ids=["empty", "text"])
def test_load_model_from_a_broken_pickle_is_refused(folder: Path, content: bytes) -> None:
    to_pickle(folder)
    (folder / "pytorch_model.bin").write_bytes(content)
    refused(folder, "pickle|cannot be loaded", allow_pickle=True)


def test_load_model_needs_no_tied_head_in_the_file(tmp_path: Path) -> None:
    lm = tiny_language_model("gpt2")
    lm.model.save_pretrained(tmp_path)
    lm.tokenizer.save_pretrained(tmp_path)
    assert "lm_head.weight" not in load_file(tmp_path / "model.safetensors")
    assert compute_fingerprint(load(tmp_path).model) == compute_fingerprint(lm.model)


# Pickles


def test_load_model_from_a_pickle_needs_allow_pickle(folder: Path) -> None:
    to_pickle(folder)
    refused(folder, r"a pickle \(pytorch_model.bin\), .* --allow-pickle")
    assert compute_fingerprint(load(folder, allow_pickle=True).model) == compute_fingerprint(
        tiny_language_model("llama").model
    )


def test_load_model_prefers_safetensors_to_a_pickle(folder: Path) -> None:
    (folder / "pytorch_model.bin").write_bytes(b"broken")
    for allow_pickle in (False, True):
        assert load(folder, allow_pickle=allow_pickle).parameters > 0


class _Trap:
    """Writes a file when it is unpickled."""

    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self) -> tuple[Callable[..., object], tuple[object, ...]]:
        return (Path.touch, (self.mark,))


@pytest.mark.parametrize("bare", [False, True], ids=["torch", "bare"])
def test_load_model_never_runs_code_of_a_pickle(folder: Path, bare: bool) -> None:
    to_pickle(folder)
    mark, path = folder / "ran", folder / "pytorch_model.bin"
    if bare:
        path.write_bytes(pickle.dumps({"weight": _Trap(mark)}, protocol=2))
    else:
        torch.save({"weight": _Trap(mark)}, path)
    refused(folder, "a pickle that is broken or holds more than tensors, which is never run", allow_pickle=True)
    assert not mark.exists()


def test_language_model_repr_is_one_line() -> None:
    lm = tiny_language_model()
    assert repr(lm) == f"<LanguageModel {lm.ref}: LlamaForCausalLM, {lm.parameters} parameters, float32, cpu>"


# What would fetch more than was settings for


def test_load_model_never_runs_code_of_the_tokenizer(folder: Path) -> None:
    mark = folder / "ran"
    (folder / "trap.py").write_text(f"import pathlib\npathlib.Path({str(mark)!r}).touch()\nclass T: pass\n")
    path = folder / "tokenizer_config.json"
    settings = {"auto_map": {"AutoTokenizer": ["trap.T", "trap.T"]}, "tokenizer_class": "T"}
    path.write_text(json.dumps(json.loads(path.read_text()) | settings))
    with suppress(ModelError):
        load(folder)
    assert not mark.exists()


@pytest.mark.parametrize("attention", ["somebody/kernel", "somebody/kernel@main:attention", "flash_attention_2"])
def test_load_model_with_attention_from_a_hub_is_refused(folder: Path, attention: str) -> None:
    change_config(folder, attn_implementation=attention)
    refused(folder, rf"asks for the attention '{attention}', .*; take attn_implementation out of it")


def test_load_model_from_an_adapter_is_refused(folder: Path) -> None:
    (folder / "adapter_config.json").write_text('{"base_model_name_or_path": "nobody/no-such-model"}')
    refused(folder, r"holds an adapter .* merge it into the weights")


def test_load_model_of_a_million_layers_is_refused_unbuilt(folder: Path) -> None:
    change_config(folder, num_hidden_layers=10**6)
    started = time.process_time()
    refused(folder, r"asks for 1000000 layers, and a model of more than 10000 is not built; correct num_hidden_layers")
    assert time.process_time() - started < 5
