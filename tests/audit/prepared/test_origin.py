"""The origin of what was prepared: the same for the same, another for anything that could change a threshold."""

from __future__ import annotations

import types
from collections.abc import Callable, Iterator
from dataclasses import replace
from importlib.metadata import EntryPoint
from pathlib import Path

import pytest
import torch
from editguard.audit.prepared import origin
from editguard.audit.prepared.origin import find_origin
from editguard.probes.model.language_model import LanguageModel

from ...helpers.foreign_probes import KeyNorm, NormRatio, install_probe
from ...helpers.tiny_models import long_tokenizer, tiny_lm

pytestmark = pytest.mark.tiny


def test_find_origin_same_model_has_the_same() -> None:
    first, second = find_origin(tiny_lm(), 0), find_origin(tiny_lm(), 0)
    assert first == second is not None


def _change_weight(lm: LanguageModel) -> None:
    with torch.no_grad():
        lm.model.lm_head.weight[0, 0] += 1


def _change_configuration(lm: LanguageModel) -> None:
    lm.model.config.rms_norm_eps *= 2


def _change_module(lm: LanguageModel) -> None:
    lm.model.model.layers[0].mlp.act_fn = torch.nn.ReLU()


def _change_attention(lm: LanguageModel) -> None:
    lm.model.config._attn_implementation = "eager"


def _change_dtype(lm: LanguageModel) -> None:
    lm.model.to(torch.bfloat16)


@pytest.mark.parametrize(
    "change", [_change_weight, _change_configuration, _change_module, _change_attention, _change_dtype]
)
def test_find_origin_changed_model_has_another(change: Callable[[LanguageModel], None]) -> None:
    lm = tiny_lm()
    before = find_origin(lm, 0)
    change(lm)
    after = find_origin(replace(lm), 0)
    assert None not in (before, after)
    assert after != before


def test_find_origin_other_tokenizer_template_or_seed_has_another(monkeypatch: pytest.MonkeyPatch) -> None:
    lm = tiny_lm()
    origins = {find_origin(lm, 0), find_origin(lm, 1), find_origin(replace(lm, tokenizer=long_tokenizer(bos=True)), 0)}
    monkeypatch.setattr(lm.tokenizer, "chat_template", "{{ messages[0].content }}")
    origins.add(find_origin(lm, 0))
    assert None not in origins
    assert len(origins) == 4


@pytest.mark.parametrize("name", ["version", "_name_processor", "_hash_own_sources"])
def test_find_origin_other_version_processor_or_source_has_another(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    lm = tiny_lm()
    before = find_origin(lm, 0)
    monkeypatch.setattr(origin, name, lambda *_: "another")
    assert find_origin(lm, 0) != before


@pytest.fixture
def threads() -> Iterator[None]:
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


@pytest.mark.usefixtures("threads")
def test_find_origin_other_number_of_threads_or_precision_has_another() -> None:
    lm = tiny_lm()
    before = find_origin(lm, 0)
    torch.set_num_threads(torch.get_num_threads() + 1)
    assert find_origin(lm, 0) != before


def test_hash_files_name_and_content_count(tmp_path: Path) -> None:
    (one := tmp_path / "one.py").write_text("a", encoding="utf-8")
    (two := tmp_path / "two.py").write_text("a", encoding="utf-8")
    hashes = [origin._hash_files([one]), origin._hash_files([two])]
    one.write_text("b", encoding="utf-8")
    hashes.append(origin._hash_files([one]))
    assert None not in hashes
    assert len(set(hashes)) == 3
    assert origin._hash_files([tmp_path / "gone.py"]) is None
    assert origin._hash_files([]) is None


def test_hash_own_sources_covers_probes_and_preparation(monkeypatch: pytest.MonkeyPatch) -> None:
    listed: list[Path] = []
    monkeypatch.setattr(origin, "_hash_files", lambda paths: listed.extend(paths))
    origin._hash_own_sources()
    ends = {"/".join(path.parts[-2:]) for path in listed}
    assert ends >= {
        "probes/calibration.py",
        "probes/screen.py",
        "builtin/denominator.py",
        "keys/prefixes.py",
        "forward/generation.py",
        "subjects/kinds.json",
        "prepared/null_sample.py",
        "audit/setup.py",
    }


def test_find_origin_foreign_probe_counts_by_its_source_and_distribution(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    lm = tiny_lm()
    origins = {find_origin(lm, 0)}
    install_probe(monkeypatch, KeyNorm)
    origins.add(find_origin(lm, 0))
    install_probe(monkeypatch, NormRatio)
    origins.add(find_origin(lm, 0))
    (file := tmp_path / "other.py").write_text("changed", encoding="utf-8")
    module = types.SimpleNamespace(__file__=str(file), __package__="")
    monkeypatch.setitem(origin.sys.modules, NormRatio.__module__, module)
    origins.add(find_origin(lm, 0))
    entry = EntryPoint("key-norm", "other:NormRatio", "editguard.probes")
    monkeypatch.setattr(origin, "entry_points", lambda **_: [entry])
    origins.add(find_origin(lm, 0))
    assert None not in origins
    assert len(origins) == 5


def test_find_origin_probe_without_source_has_none(monkeypatch: pytest.MonkeyPatch) -> None:
    install_probe(monkeypatch, KeyNorm)
    assert find_origin(tiny_lm(), 0) is not None
    monkeypatch.setitem(origin.sys.modules, KeyNorm.__module__, types.ModuleType("typed_in"))
    assert find_origin(tiny_lm(), 0) is None


class OwnActivation(torch.nn.SiLU):
    """A module whose code no version of a known package names."""


def _hang_hook(lm: LanguageModel) -> None:
    lm.model.model.layers[0].register_forward_hook(lambda *_: None)


def _hang_pre_hook(lm: LanguageModel) -> None:
    lm.model.model.layers[0].register_forward_pre_hook(lambda *_: None)


def _replace_forward(lm: LanguageModel) -> None:
    layer = lm.model.model.layers[0]
    layer.forward = layer.forward


def _put_own_module(lm: LanguageModel) -> None:
    lm.model.model.layers[0].mlp.act_fn = OwnActivation()


@pytest.mark.parametrize("change", [_hang_hook, _hang_pre_hook, _replace_forward, _put_own_module])
def test_find_origin_model_with_other_code_has_none(change: Callable[[LanguageModel], None]) -> None:
    lm = tiny_lm()
    change(lm)
    assert find_origin(lm, 0) is None


def test_find_origin_class_with_a_replaced_forward_has_none(monkeypatch: pytest.MonkeyPatch) -> None:
    lm = tiny_lm()
    monkeypatch.setattr(type(lm.model.model.layers[0].mlp), "forward", lambda self, hidden: hidden)
    assert find_origin(lm, 0) is None


def test_find_origin_reference_engine_has_none() -> None:
    assert find_origin(replace(tiny_lm(), plain=True), 0) is None
