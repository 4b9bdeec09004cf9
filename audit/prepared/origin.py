"""Everything that prefixes and thresholds depend on, as one hash: model, tokenizer, seed, machine, libraries and code.

Code counts by its source: that of all probes, and of what prepares a model. A changed probe is never judged by thresholds
that another version of it gave. Of a probe of another package its distribution counts, and the source beside its class.

Where one of these is unknown there is no origin, and nothing is kept: for a model that runs code of others or has hooks, and
for a probe without source. The reference engine computes all of it anew, so it has none.
"""

from __future__ import annotations

import hashlib
import json
import platform
import sys
from importlib.metadata import entry_points, version
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from ...probes.probe import PROBES, Probe

if TYPE_CHECKING:
    from collections.abc import Iterable

    from ...probes.model.language_model import LanguageModel

__all__ = ["find_origin", "hash_facts"]

_LIBRARIES = ("editguard", "torch", "transformers", "tokenizers", "numpy")
_KNOWN_CODE = ("torch", "transformers")
"""Packages whose modules do what their version says."""
_SOURCES = frozenset({".py", ".json"})
_PROBES_ROOM = Probe.__module__.rpartition(".")[0]
_PROCESSORS = Path("/proc/cpuinfo")
_PLACES = ("_name_or_path", "transformers_version")
"""Fields of a configuration that say where it came from."""


def find_origin(lm: LanguageModel, seed: int) -> str | None:
    """Return the hash of all that sampled texts and evidence depend on; None where something is unknown."""
    if lm.plain or not _runs_known_code(lm.model):
        return None
    sources, probes = _hash_own_sources(), _describe_probes()
    if sources is None or probes is None:
        return None
    return hash_facts(
        model=[lm.fingerprint, lm.architecture, str(lm.model), _describe_config(lm)],
        tokenizer=_describe_tokenizer(lm),
        seed=seed,
        machine=_describe_machine(lm),
        libraries=[version(name) for name in _LIBRARIES],
        sources=sources,
        probes=probes,
    )


def hash_facts(**facts: object) -> str:
    """Return the sha256 of `facts`; what is no plain value counts by its ``repr``."""
    return hashlib.sha256(json.dumps(facts, default=repr).encode("utf-8", "surrogatepass")).hexdigest()


def _runs_known_code(model: torch.nn.Module) -> bool:
    """Return whether all modules of a model are torch's and transformers' own, and nothing was hung into them."""
    general = torch.nn.modules.module
    if general._global_forward_hooks or general._global_forward_pre_hooks:
        return False
    return all(
        _is_known(type(module))
        and _is_known(type(module).forward)
        and "forward" not in vars(module)
        and not module._forward_hooks
        and not module._forward_pre_hooks
        for module in model.modules()
    )


def _is_known(code: Any) -> bool:
    return str(getattr(code, "__module__", "")).partition(".")[0] in _KNOWN_CODE


def _describe_config(lm: LanguageModel) -> object:
    config: Any = lm.model.config
    fields = {name: value for name, value in config.to_dict().items() if name not in _PLACES}
    generation = getattr(lm.model, "generation_config", None)
    # What ends or forbids a token acts on sampled texts.
    sampling = {} if generation is None else {k: v for k, v in generation.to_dict().items() if k not in _PLACES}
    return fields, sampling, config.get_text_config()._attn_implementation


def _describe_tokenizer(lm: LanguageModel) -> object:
    tokenizer: Any = lm.tokenizer
    given = {name: value for name, value in tokenizer.init_kwargs.items() if not name.endswith(("_file", "_path"))}
    state = tokenizer.backend_tokenizer.to_str()
    return [type(tokenizer).__qualname__, state, given, tokenizer.special_tokens_map, tokenizer.chat_template]


def _describe_machine(lm: LanguageModel) -> object:
    """Return what decides how products are rounded: two processors, or two numbers of threads, may differ in the last bit."""
    device = torch.cuda.get_device_name(lm.device) if lm.device.type == "cuda" else ""
    return [
        lm.device.type,
        device,
        lm.dtype,
        lm.product_library,
        torch.get_num_threads(),
        torch.get_default_dtype(),
        torch.get_float32_matmul_precision(),
        torch.backends.cpu.get_cpu_capability(),
        platform.machine(),
        _name_processor(),
    ]


def _name_processor() -> str:
    if not _PROCESSORS.is_file():
        return platform.processor()
    lines = _PROCESSORS.read_text(errors="replace").splitlines()
    return next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), "")


# -------------------------------------------------------------------------------------------------------------- sources


def _hash_own_sources() -> str | None:
    """Return the hash of the sources of all probes and of what prepares a model; None where they are not at hand."""
    here = Path(__file__).parent
    room = sys.modules[_PROBES_ROOM].__file__
    return (
        None
        if room is None
        else _hash_files([*_list_sources(Path(room).parent), *_list_sources(here), here.parent / "setup.py"])
    )


def _describe_probes() -> list[object] | None:
    """Return each probe with all that its answers come from; None where the source of one is not at hand."""
    described: list[object] = []
    for name, probe in PROBES:
        described.append([name, probe.__module__, probe.__qualname__])
        for cls in probe.__mro__:
            if cls.__module__ in ("builtins", "abc") or f"{cls.__module__}.".startswith(f"{_PROBES_ROOM}."):
                continue
            if (source := _hash_source_of(cls)) is None:
                return None
            described.append([cls.__module__, cls.__qualname__, source])
    for entry in entry_points(group=f"editguard.{PROBES.kind}"):
        described.append([entry.name, entry.value, entry.dist and (entry.dist.name, entry.dist.version)])
    return described


def _hash_source_of(cls: type[object]) -> str | None:
    """Return the hash of the package that holds the module of a class, or of that module where it is in none."""
    module = sys.modules.get(cls.__module__)
    file = getattr(module, "__file__", None)
    if file is None:
        return None
    path = Path(file)
    # A module in no package may lie beside everything that is installed.
    return _hash_files(_list_sources(path.parent) if getattr(module, "__package__", "") else [path])


def _list_sources(folder: Path) -> list[Path]:
    return sorted(path for path in folder.rglob("*") if path.suffix in _SOURCES)


def _hash_files(paths: Iterable[Path]) -> str | None:
    """Return the hash of the names and contents of files; None where one cannot be read, or none is a source."""
    digest, sources = hashlib.sha256(), 0
    for path in paths:
        try:
            content = path.read_bytes()
        except OSError:
            return None
        sources += path.suffix == ".py"
        digest.update(f"{path.name}:{len(content)}:".encode("utf-8", "surrogatepass") + content)
    return digest.hexdigest() if sources else None
