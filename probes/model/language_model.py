"""A language model at hand: weights, fast tokenizer, and where both came from.

`load_model` takes the name of the embedded default, a local folder, a GGUF file or a Hugging Face id.
Weights come from safetensors. A pickle is read only with `allow_pickle`, and then with `weights_only=True`.
Code of the checkpoint never runs.
Out of scope: finding the layer to edit (`site`) and hashing beyond the fingerprint (`fingerprint`).
"""

from __future__ import annotations

import pickle
import re
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from ..errors import ModelError, OutOfMemory
from ..wording import first_line
from .dtypes import DTYPES
from .embedded import EMBEDDED_NAME, prepare_embedded_folder
from .fingerprint import compute_fingerprint
from .folders.adapter import merge_adapter, read_adapter
from .folders.gguf_file import is_gguf_file, prepare_gguf_folder
from .folders.refusals import check_model_folder, refuse_other_weights, refuse_quantised

if TYPE_CHECKING:
    import torch
    from transformers import PreTrainedModel, PreTrainedTokenizerFast

__all__ = ["DTYPES", "LanguageModel", "check_model_ref", "choose_device", "load_model"]

_ATTENTION = (None, "eager", "sdpa")
_MOST_LAYERS = 10_000
"""A deeper model would take minutes to build; the deepest models have some hundreds of layers."""
_ENCODERS = {"t5": "T5EncoderModel", "mt5": "MT5EncoderModel", "umt5": "UMT5EncoderModel"}


@dataclass(frozen=True, repr=False)
class LanguageModel:
    """A model, its tokenizer and its origin; device and dtype are always asked of the model itself."""

    model: PreTrainedModel
    tokenizer: PreTrainedTokenizerFast
    ref: str
    plain: bool = field(default=False, kw_only=True)
    """Whether every pass is PyTorch's own, as the reference engine's are."""

    @property
    def device(self) -> torch.device:
        """Device of the input embeddings, where ids must be put."""
        return self._embedding.device

    @property
    def dtype(self) -> torch.dtype:
        """Dtype of the weights."""
        return self._embedding.dtype

    @property
    def _embedding(self) -> torch.Tensor:
        return cast("torch.Tensor", self.model.get_input_embeddings().weight)

    @property
    def architecture(self) -> str:
        """The model's class, e.g. ``LlamaForCausalLM``."""
        return type(self.model).__name__

    @property
    def causal(self) -> bool:
        """Whether the model has a language-model head over a causal stack, so that it can be edited and scored."""
        return self.model.get_output_embeddings() is not None and not self.model.config.is_encoder_decoder

    @property
    def is_training(self) -> bool:
        """Whether a module is in training mode, where dropout makes every measurement random."""
        return any(module.training for module in self.model.modules())

    @cached_property
    def adds_bos(self) -> bool:
        """Whether the tokenizer puts a special token before every text."""
        # Asked of what it does: a token may be put there that the tokenizer does not declare as special.
        plain = self.tokenizer("a", add_special_tokens=False).input_ids
        return bool(self.tokenizer("a").input_ids[: len(plain)] != plain)

    @cached_property
    def fingerprint(self) -> str:
        """Hash of all tensors as they were when first asked; see `editguard.probes.model.fingerprint`."""
        return compute_fingerprint(self.model)

    @property
    def context_length(self) -> float:
        """Tokens that the model reads at once; infinite where its configuration names no limit."""
        config = self.model.config.get_text_config()
        names = ("max_position_embeddings", "n_positions", "max_sequence_length")
        limits = [value for name in names if isinstance(value := getattr(config, name, None), int) and value > 0]
        return min(limits, default=float("inf"))

    @property
    def parameters(self) -> int:
        """Number of parameters, tied ones counted once."""
        return sum(parameter.numel() for parameter in self.model.parameters())

    def products(self) -> AbstractContextManager[None]:
        """Return the context in which the model's matrix products are computed the fast way (`probes.forward.onednn`)."""
        from ..forward.onednn import use_fast_products

        return nullcontext() if self.plain else use_fast_products(self.model)

    @property
    def product_library(self) -> str:
        """The library that computes the matrix products of `run`."""
        from ..forward.onednn import name_library

        return "PyTorch" if self.plain else name_library(self.model)

    def run(self, **inputs: Any) -> Any:
        """Return the model's output for `inputs`, computed in `products`; ``model(...)`` is always the plain way."""
        with self.products():
            return self.model(**inputs)

    def __repr__(self) -> str:
        dtype = str(self.dtype).removeprefix("torch.")
        return f"<{type(self).__name__} {self.ref}: {self.architecture}, {self.parameters} parameters, {dtype}, {self.device}>"


def load_model(
    ref: str | Path = EMBEDDED_NAME,
    *,
    device: str = "auto",
    dtype: str = "auto",
    allow_pickle: bool = False,
    encoder: bool = False,
    adapter: Path | None = None,
) -> LanguageModel:
    """Load a model and its fast tokenizer in evaluation mode.

    `ref` is ``smollm2-135m``, a local folder, a GGUF file or a Hugging Face id; `device` is ``auto`` (a GPU where there is
    one) or any torch device; `dtype` is ``auto`` (that of the checkpoint) or one of `DTYPES`. `allow_pickle` admits a
    ``.bin`` checkpoint, read with ``weights_only=True``; `encoder` loads only the stack of an encoder, see `encoders`.
    `adapter` is the folder of a plain LoRA adapter, which is merged into the weights in memory, see `folders.adapter`.
    Raises `ModelError`.
    """
    if dtype not in DTYPES:
        raise ModelError(f"The dtype {dtype!r} is not known; use one of {', '.join(DTYPES)}.")
    refuse_other_weights(ref)
    target = choose_device(device)
    lora = None if adapter is None else read_adapter(adapter)
    source = _locate_source(ref, allow_pickle=allow_pickle)
    config = _load_config(source, str(ref))
    tokenizer = _load_tokenizer(source, str(ref))
    model = _load_weights(source, str(ref), config, dtype, allow_pickle=allow_pickle, encoder=encoder)
    if lora is not None:
        merge_adapter(model, lora)
    model.to(target)
    model.eval()
    model.requires_grad_(False)
    return LanguageModel(model, tokenizer, str(ref) if adapter is None else f"{ref} with {adapter}")


def choose_device(name: str) -> torch.device:
    """Return the device called `name`, with which torch can work here; raises `ModelError`.

    ``auto`` is a GPU where there is one.
    """
    import torch

    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    why = "no device of PyTorch has that name"
    try:
        device = torch.device(name)
        why = ""
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        raise ModelError(
            f"The device {name!r} is not available here ({why or first_line(error)}); use 'auto', 'cpu', 'mps', 'cuda' or "
            "'cuda:N'."
        ) from error
    return device


def check_model_ref(ref: str | Path, *, allow_pickle: bool = False) -> None:
    """Raise `ModelError` for a folder or file that is no model, before anything is loaded; a name of the hub is not looked up.

    The folder of an adapter is none by itself.
    """
    refuse_other_weights(ref)
    if str(ref) != EMBEDDED_NAME and not is_gguf_file(ref):
        _locate_source(ref, allow_pickle=allow_pickle)


def _locate_source(ref: str | Path, *, allow_pickle: bool) -> str:
    if str(ref) == EMBEDDED_NAME:
        return str(prepare_embedded_folder())
    path = Path(ref).expanduser()
    if path.is_dir():
        check_model_folder(path, allow_pickle=allow_pickle)
        return str(path)
    if is_gguf_file(path):
        return str(prepare_gguf_folder(path))
    if path.is_file():
        raise ModelError(
            f"The model {str(ref)!r} is a file; a model is a folder with config.json, weights and tokenizer, or a GGUF file: "
            "name that folder."
        )
    if isinstance(ref, Path) or not re.fullmatch(r"[\w][\w.-]*(/[\w][\w.-]*)?", ref):
        raise ModelError(
            f"There is no model folder {str(ref)!r}; name a folder that exists, a Hugging Face id, or {EMBEDDED_NAME!r}."
        )
    return ref


def _load_config(source: str, ref: str) -> Any:
    from transformers import AutoConfig

    try:
        config = AutoConfig.from_pretrained(source, trust_remote_code=False)
    except Exception as error:  # a spoilt file raises anything, and nothing but transformers runs here
        raise ModelError(_load_error("model", ref, error)) from error
    if getattr(config, "auto_map", None):
        raise ModelError(
            f"The model {ref!r} wants to run code of its own (auto_map in config.json), which editguard never does; "
            "use a checkpoint of an architecture that transformers has."
        )
    refuse_quantised(ref, getattr(config, "quantization_config", None))
    text = config.get_text_config()
    if isinstance(layers := getattr(text, "num_hidden_layers", None), int) and layers > _MOST_LAYERS:
        raise ModelError(
            f"The config.json of {ref!r} asks for {layers} layers, and a model of more than {_MOST_LAYERS} is not built; correct "
            "num_hidden_layers."
        )
    if (attention := text._attn_implementation) not in _ATTENTION:
        # Others are fetched as compiled code from a hub.
        raise ModelError(
            f"The config.json of {ref!r} asks for the attention {attention!r}, and only that of torch and transformers is "
            "run; take attn_implementation out of it."
        )
    return config


def _load_tokenizer(source: str, ref: str) -> Any:
    from transformers import AutoTokenizer

    try:
        tokenizer = AutoTokenizer.from_pretrained(source, trust_remote_code=False)
    except Exception as error:  # the tokenizers' own are of no narrower class
        raise ModelError(_load_error("tokenizer", ref, error)) from error
    if not tokenizer.is_fast:
        raise ModelError(
            f"The tokenizer of {ref!r} is {type(tokenizer).__name__}, which gives no character offsets; editguard needs "
            "a fast tokenizer: save one (tokenizer.json) beside the model."
        )
    return tokenizer


def _load_weights(source: str, ref: str, config: Any, dtype: str, *, allow_pickle: bool, encoder: bool) -> Any:
    import transformers

    name = _ENCODERS.get(config.model_type, "AutoModel" if encoder else "AutoModelForCausalLM")
    pickled = allow_pickle and Path(source).is_dir() and not any(Path(source).glob("*.safetensors"))
    progress = transformers.utils.logging.is_progress_bar_enabled()
    transformers.utils.logging.disable_progress_bar()
    try:
        model, report = getattr(transformers, name).from_pretrained(
            source,
            dtype=dtype,
            trust_remote_code=False,
            use_safetensors=not pickled,
            weights_only=True,
            output_loading_info=True,
        )
    except (pickle.UnpicklingError, EOFError) as error:
        raise ModelError(
            f"The weights of {ref!r} are a pickle that is broken or holds more than tensors, which is never run; convert "
            "them to safetensors where you trust their author."
        ) from error
    except MemoryError as error:
        raise OutOfMemory(
            f"The model {ref!r} does not fit into memory; take a smaller one, or --dtype bfloat16."
        ) from error
    except Exception as error:  # as for the configuration, which decides what is built
        raise ModelError(_load_error("model", ref, error)) from error
    finally:
        if progress:
            transformers.utils.logging.enable_progress_bar()
    if encoder and hasattr(model, "pooler"):
        # It is above all sites, and many checkpoints of encoders have none.
        model.pooler = None
    if missing := sorted(key for key in report["missing_keys"] if not (encoder and key.startswith("pooler."))):
        # transformers fills these with random numbers, and only warns.
        raise ModelError(
            f"The model in {ref!r} cannot be loaded: {len(missing)} of its weights are in no file ({missing[0]}, ...); "
            "save it again with save_pretrained."
        )
    return model


def _load_error(what: str, ref: str, error: Exception) -> str:
    if Path(ref).expanduser().is_dir() or ref == EMBEDDED_NAME:
        return f"The {what} in {ref!r} cannot be loaded ({first_line(error)}); save it again with save_pretrained."
    from huggingface_hub import constants

    wait = "" if constants.HF_HUB_OFFLINE else " Without a network, HF_HUB_OFFLINE=1 saves the wait for it."
    return (
        f"The {what} {ref!r} is neither a folder here nor to be had from the model hub ({first_line(error)}); check the "
        f"name and the connection, or use a local folder or {EMBEDDED_NAME!r}.{wait}"
    )
