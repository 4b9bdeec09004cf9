"""What is no model is refused from its small files, before torch is loaded, with the reason and the way out."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from editguard.probes.errors import ModelError
from editguard.probes.model.checkpoint import open_checkpoint
from editguard.probes.model.folders.refusals import check_model_folder, refuse_other_weights
from editguard.probes.model.language_model import load_model

from ....helpers.tiny_models import save_tiny_checkpoint

ADAPTER = {"peft_type": "LORA", "base_model_name_or_path": "org/base"}


@pytest.fixture(scope="session")
def saved(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("checkpoint")
    save_tiny_checkpoint(folder)
    return folder


@pytest.fixture
def folder(saved: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(saved, tmp_path / "model"))


@pytest.mark.tiny
@pytest.mark.parametrize("whole", [False, True], ids=["adapter alone", "beside a model"])
def test_load_model_adapter_is_named_with_its_base_and_the_way_out(folder: Path, whole: bool) -> None:
    if not whole:
        (folder / "config.json").unlink()
        (folder / "model.safetensors").rename(folder / "adapter_model.safetensors")
    (folder / "adapter_config.json").write_text(json.dumps(ADAPTER), encoding="utf-8")
    for read in (load_model, lambda path: open_checkpoint(str(path))):
        with pytest.raises(
            ModelError, match=r"LORA adapter for 'org/base'.* merge it into the weights .* adapter=folder"
        ):
            read(folder)


@pytest.mark.tiny
@pytest.mark.parametrize("content", ["{", "[]", "null", '{"peft_type": 3}'])
def test_refuse_other_weights_spoilt_adapter_is_still_one_sentence(folder: Path, content: str) -> None:
    (folder / "adapter_config.json").write_text(content, encoding="utf-8")
    with pytest.raises(ModelError, match="holds an adapter") as caught:
        refuse_other_weights(folder)
    assert "\n" not in str(caught.value)


@pytest.mark.tiny
@pytest.mark.parametrize(
    ("settings", "method"),
    [
        ({"quant_method": "gptq", "bits": 4}, "gptq"),
        ({"quant_method": "bitsandbytes", "load_in_4bit": True}, "bitsandbytes"),
        ({"load_in_8bit": True}, "bitsandbytes"),
        ({"bits": 4}, "an unnamed method"),
    ],
)
def test_load_model_quantised_weights_are_refused_by_method(
    folder: Path, settings: dict[str, object], method: str
) -> None:
    path = folder / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"quantization_config": settings}), encoding="utf-8")
    for read in (load_model, lambda path: open_checkpoint(str(path))):
        with pytest.raises(ModelError, match=f"are quantised by {method} .* use the checkpoint before quantisation"):
            read(folder)


COMMAND = """
import sys
from editguard.audit.cli.main import main
sys.argv = ["editguard", *sys.argv[1:]]
try:
    main()
finally:
    print("torch" in sys.modules)
"""


@pytest.mark.parametrize(
    "arguments",
    [("fingerprint", "model"), ("probe", "edits.json", "--model", "model"), ("diff", "model", "model", "--out", "out")],
    ids=lambda arguments: arguments[0],
)
def test_command_refuses_quantised_weights_before_torch_is_loaded(tmp_path: Path, arguments: tuple[str, ...]) -> None:
    (tmp_path / "model").mkdir()
    config = {"model_type": "llama", "quantization_config": {"quant_method": "awq"}}
    (tmp_path / "model" / "config.json").write_text(json.dumps(config), encoding="utf-8")
    record = {"subject": "Lyon", "prompt": "Lyon is in", "target_new": "Chile"}
    (tmp_path / "edits.json").write_text(json.dumps([record]), encoding="utf-8")
    done = subprocess.run(
        [sys.executable, "-c", COMMAND, *arguments], cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stdout) == (2, "False\n")
    assert "quantised by awq" in done.stderr


def test_check_model_folder_other_folders_are_left_to_their_readers(tmp_path: Path) -> None:
    refuse_other_weights(tmp_path / "missing")
    refuse_other_weights(tmp_path)
    (tmp_path / "config.json").write_text("{", encoding="utf-8")
    refuse_other_weights(tmp_path)
    with pytest.raises(ModelError, match="cannot be read"):
        check_model_folder(tmp_path, allow_pickle=False)
