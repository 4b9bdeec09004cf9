"""A model made ready: seeded, complete, calibrated, and refused where it or its statistics are broken."""

from __future__ import annotations

import copy
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from editguard.audit import key_statistics
from editguard.audit.key_statistics import load_or_compute_statistics
from editguard.audit.policy import Policy
from editguard.audit.setup import (
    EMBEDDED_LAYER,
    NULL_SAMPLE,
    Setup,
    check_editable,
    check_names,
    default_layer,
    make_null_sample,
    prepare,
)
from editguard.probes.errors import ModelError, NotFinite, PolicyError, StatisticsError
from editguard.probes.keys.corpus_statistics import Corpus, sample_corpus
from editguard.probes.keys.prefixes import Role
from editguard.probes.keys.statistics import save_statistics
from editguard.probes.keys.subject_keys import locate
from editguard.probes.model.embedded import EMBEDDED_NAME
from editguard.probes.model.language_model import LanguageModel
from editguard.probes.model.site import find_site

from ..helpers.families import OTHERS
from ..helpers.tiny_models import long_tokenizer as tokenizer
from ..helpers.tiny_models import tiny_lm
from ..helpers.tiny_setups import SENTENCES

pytestmark = pytest.mark.tiny


def silent(*_: object) -> None:
    """Report no progress."""


@pytest.mark.end_to_end
def test_prepare_depends_on_the_seed_only(setup: Setup) -> None:
    same, other = (
        prepare(tiny_lm(), layer=0, seed=seed, statistics="identity", perplexity_corpus=SENTENCES) for seed in (0, 1)
    )
    assert same.prefixes == setup.prefixes != other.prefixes
    assert same.calibration.thresholds == setup.calibration.thresholds != other.calibration.thresholds
    assert same.bench_perplexity() == setup.bench_perplexity() == other.bench_perplexity()


def test_prepare_held_out_prefixes_are_not_edited_under(setup: Setup) -> None:
    edit_texts, tested = setup.prefixes.texts(Role.EDIT), setup.prefixes.texts(Role.HELD_OUT)
    assert not set(edit_texts) & set(tested)
    assert {p.family for p in setup.prefixes.of(Role.EDIT)} == {p.family for p in setup.prefixes.of(Role.HELD_OUT)}


@pytest.mark.end_to_end
def test_prepare_progress_ends_every_stage() -> None:
    stages: dict[str, tuple[int, int]] = {}
    prepare(
        tiny_lm(),
        layer=0,
        statistics="identity",
        progress=lambda what, done, total: stages.update({what: (done, total)}),
    )
    assert stages["sampling prefixes"] == (54, 54), "a step for each sampled token"
    assert stages["calibration"] == (NULL_SAMPLE, NULL_SAMPLE)


def test_default_layer_is_measured_or_a_fifth_up() -> None:
    lm = tiny_lm()
    assert default_layer(LanguageModel(lm.model, lm.tokenizer, EMBEDDED_NAME)) == EMBEDDED_LAYER
    for layers, expected in ((2, 0), (5, 0), (12, 1), (28, 5), (32, 5)):
        blocks = torch.nn.ModuleList([lm.model.model.layers[0]] * layers)
        deep = tiny_lm()
        deep.model.model.layers = blocks
        assert default_layer(deep) == expected


def test_default_layer_counts_the_layers_of_a_named_site() -> None:
    lm = tiny_lm()
    # Two stacks of one length: which is meant is not guessed.
    lm.model.other = copy.deepcopy(lm.model.model.layers)
    with pytest.raises(ModelError, match="--site"):
        default_layer(lm)
    assert default_layer(lm, "model.layers.{layer}.mlp.down_proj") == 0


@pytest.mark.parametrize("bos", [False, True])
def test_null_sample_holds_ordinary_subjects_only(bos: bool) -> None:
    lm = tiny_lm(bos=bos)
    sample = make_null_sample(lm, NULL_SAMPLE)
    assert len(sample) == NULL_SAMPLE == len({request.id for request in sample})
    assert not any(locate(lm, request).is_first_token for request in sample)
    opening = [request for request in sample if request.prompt.startswith(request.subject)]
    assert len(opening) == NULL_SAMPLE // 2


@pytest.mark.parametrize("where", ["lm_head.weight", "model.norm.weight", "model.layers.0.mlp.down_proj.weight"])
@pytest.mark.parametrize("value", [float("nan"), float("inf")], ids=str)
def test_prepare_broken_model_is_refused(where: str, value: float) -> None:
    lm = tiny_lm()
    with torch.no_grad():
        lm.model.get_parameter(where).fill_(value)
    with pytest.raises(NotFinite, match="weights"):
        prepare(lm, layer=0, statistics="identity")


def test_statistics_of_each_engine_are_cached_apart(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EDITGUARD_CACHE", str(tmp_path / "cache"))
    lm, plain_flags = tiny_lm(), []
    site = find_site(lm.model, 0)

    def sampled(lm: LanguageModel, **_: object) -> Corpus:
        plain_flags.append(lm.plain)
        return Corpus(tuple(SENTENCES * 20), "sampled")

    monkeypatch.setattr(key_statistics, "sample_corpus", sampled)
    for plain in (False, True, False, True):
        load_or_compute_statistics(replace(lm, plain=plain), site, None, None, seed=0, progress=silent)
    assert plain_flags == [False, True]


def test_statistics_fresh_are_sampled_again_and_replaced(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EDITGUARD_CACHE", str(tmp_path / "cache"))
    lm, texts = tiny_lm(), iter([SENTENCES * 20, SENTENCES[:2] * 20])
    site = find_site(lm.model, 0)
    monkeypatch.setattr(key_statistics, "sample_corpus", lambda *_, **__: Corpus(tuple(next(texts)), "sampled"))
    hashes = [
        load_or_compute_statistics(lm, site, None, None, seed=0, progress=silent, fresh=fresh).sha256
        for fresh in (False, False, True, False)
    ]
    assert hashes[0] == hashes[1] != hashes[2] == hashes[3]


def test_statistics_come_from_each_source(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EDITGUARD_CACHE", str(tmp_path / "cache"))
    lm = tiny_lm()
    site = find_site(lm.model, 0)
    assert (
        load_or_compute_statistics(lm, site, "identity", None, seed=0, progress=silent).provenance.method == "identity"
    )
    text = tmp_path / "corpus.txt"
    text.write_text("\n".join(SENTENCES * 20), encoding="utf-8")
    statistics = load_or_compute_statistics(lm, site, None, str(text), seed=0, progress=silent)
    assert (statistics.provenance.method, statistics.provenance.source) == ("corpus", "corpus.txt")
    save_statistics(statistics, tmp_path / "c.safetensors")
    assert (
        load_or_compute_statistics(lm, site, str(tmp_path / "c.safetensors"), None, seed=0, progress=silent).sha256
        == statistics.sha256
    )
    with pytest.raises(StatisticsError):
        load_or_compute_statistics(
            tiny_lm(seed=1), site, str(tmp_path / "c.safetensors"), None, seed=0, progress=silent
        )
    with pytest.raises(StatisticsError, match="--stats identity"):
        load_or_compute_statistics(lm, site, str(tmp_path / "missing.safetensors"), None, seed=0, progress=silent)
    # A corpus is a file that may change under its name: it is never taken from the cache.
    text.write_text("\n".join(SENTENCES[:1] * 20), encoding="utf-8")
    assert load_or_compute_statistics(lm, site, None, str(text), seed=0, progress=silent).sha256 != statistics.sha256


def test_prepare_encoder_is_refused() -> None:
    site = find_site(OTHERS["t5_encoder"](), 0)
    with pytest.raises(ModelError):
        check_editable(site)
    check_editable(find_site(tiny_lm().model, 0))


def test_prepare_missing_layer_is_named() -> None:
    with pytest.raises(ModelError, match=r"Layer 99 is not one of the 2 layers"):
        prepare(tiny_lm(), layer=99)


def test_prepare_tokenizer_needs_no_pad_token() -> None:
    assert tokenizer().pad_token_id is None


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"editor": "romee"}, "did you mean 'rome'"),
        ({"editor": "exploded"}, "is a control"),
        ({"rewrite_editor": "exploded"}, "is a control"),
        ({"rewrite_editor": "rome"}, "keys are inconsistent"),
        ({"rules": {"first-tokn": "refuse"}}, "did you mean 'first-token'"),
    ],
)
def test_check_names_policy_that_guards_nothing_is_refused(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(PolicyError, match=message):
        check_names(Policy.model_validate(changes))
    check_names(Policy(editor="c-rome", rewrite_editor="r-rome"))


def test_prepare_model_in_training_mode_is_refused() -> None:
    lm = tiny_lm()
    lm.model.train()
    with pytest.raises(ModelError, match=r"call model.eval\(\)"):
        prepare(lm, layer=0, statistics="identity")


def test_statistics_sampled_text_covers_every_feature(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("EDITGUARD_CACHE", str(tmp_path))
    lm = tiny_lm()
    corpus = sample_corpus(lm, seed=0, documents=2, tokens=8, least=50)
    assert len(corpus.documents) == 7


@pytest.mark.parametrize("suffix", ["safetensors", "npz"])
def test_state_at_another_layer_takes_no_file_of_one_layer(setup: Setup, tmp_path: Path, suffix: str) -> None:
    path, size = tmp_path / f"c.{suffix}", setup.site.d_ff
    if suffix == "npz":
        # A file of ROME's names neither model nor layer.
        np.savez(path, **{"mom2.mom2": np.eye(size, dtype=np.float32), "mom2.count": 1})
    else:
        save_statistics(setup.statistics, path)
    given = prepare(tiny_lm(), layer=0, statistics=str(path), perplexity_corpus=SENTENCES)
    with pytest.raises(StatisticsError, match="those of layer 0, and layer 1 is edited too"):
        given.state_at(1)
    assert given.state_at(0).statistics is given.statistics
