"""What a model's folder holds, told from its small files before anything heavy is loaded.

A folder that cannot be read as a model is refused at once, with the reason and the way out: an adapter alone, quantised
weights, a pickle, no configuration. Neither torch nor transformers is imported.
Out of scope: reading an adapter beside its base (`adapter`), and the weights themselves (`language_model`, `checkpoint`).
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from ...errors import ModelError
from ...wording import first_line

__all__ = [
    "ADAPTER_CONFIG",
    "check_model_folder",
    "is_adapter_folder",
    "refuse_other_weights",
    "refuse_quantised",
]

ADAPTER_CONFIG = "adapter_config.json"
_CONFIG = "config.json"


def is_adapter_folder(ref: str | Path) -> bool:
    """Return whether `ref` is a folder that holds an adapter and no model of its own."""
    path = Path(ref).expanduser()
    return (path / ADAPTER_CONFIG).is_file() and not (path / _CONFIG).exists()


def refuse_other_weights(ref: str | Path) -> None:
    """Raise `ModelError` where `ref` is a folder whose weights are an adapter or quantised; anything else is left to others."""
    path = Path(ref).expanduser()
    if (path / ADAPTER_CONFIG).exists():
        raise ModelError(_describe_adapter(path))
    try:
        config = json.loads((path / _CONFIG).read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return
    if isinstance(config, dict):
        refuse_quantised(str(ref), config.get("quantization_config"))


def refuse_quantised(ref: str, quantisation: object) -> None:
    """Raise `ModelError` where `quantisation`, the ``quantization_config`` of the model `ref`, is anything."""
    if not quantisation:
        return
    settings = quantisation if isinstance(quantisation, dict) else vars(quantisation)
    bits = next((name for name in ("load_in_4bit", "load_in_8bit") if settings.get(name)), "")
    method = settings.get("quant_method") or ("bitsandbytes" if bits else "an unnamed method")
    method = str(getattr(method, "value", method))[:60]
    raise ModelError(
        f"The weights of {ref!r} are quantised by {method} (quantization_config in config.json), and an edit of rounded "
        "codes is no matrix that can be added; use the checkpoint before quantisation, or save a dequantised one."
    )


def check_model_folder(path: Path, *, allow_pickle: bool) -> None:
    """Raise `ModelError` for a folder that is no model, or whose weights only a pickle holds without `allow_pickle`."""
    refuse_other_weights(path)
    if not (path / _CONFIG).is_file():
        raise ModelError(
            f"The folder {str(path)!r} is no model: it has no config.json; name a folder saved by save_pretrained."
        )
    try:
        config = json.loads((path / _CONFIG).read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise ModelError(
            f"The config.json of {str(path)!r} cannot be read ({first_line(error)}); save the model again."
        ) from error
    if not isinstance(config, dict) or "model_type" not in config:
        raise ModelError(
            f"The config.json of {str(path)!r} names no model_type, so its architecture is unknown; save the model again."
        )
    if any(path.glob("*.safetensors")):
        return
    pickles = sorted(p.name for pattern in ("*.bin", "*.pt", "*.pth") for p in path.glob(pattern))
    if not pickles:
        raise ModelError(f"The folder {str(path)!r} has no weights (*.safetensors); save the model there again.")
    if not allow_pickle:
        raise ModelError(
            f"The weights of {str(path)!r} are a pickle ({pickles[0]}), which can run code when it is read; convert "
            "them to safetensors, or add --allow-pickle if you trust their author."
        )


def _describe_adapter(path: Path) -> str:
    """Say which adapter the folder holds, and for which base."""
    try:
        config: Any = json.loads((path / ADAPTER_CONFIG).read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        config = None
    config = config if isinstance(config, dict) else {}
    kind = f"{str(config['peft_type'])[:20]} adapter" if config.get("peft_type") else "adapter"
    base = config.get("base_model_name_or_path")
    owner = f" for {str(base)[:80]!r}" if base else ""
    return (
        f"The folder {str(path)!r} holds an adapter alone or beside a model ({ADAPTER_CONFIG}: {kind}{owner}), and no whole "
        "model is read from it; merge it into the weights of its base, as PEFT's merge_and_unload does, and save the whole "
        "model, or read it in Python by editguard.load_model(base, adapter=folder)."
    )
