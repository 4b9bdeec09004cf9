"""What is read at many layers together is what is read at each alone: statistics to the bit, keys, denominators."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import pytest
import torch
from editguard.probes.errors import InputError, ModelError, NotFinite, RequestError, StatisticsError
from editguard.probes.forward.hooks import stop_after_all
from editguard.probes.keys.corpus_statistics import Corpus, compute_statistics
from editguard.probes.keys.prefixes import Role
from editguard.probes.keys.statistics import KeyStatistics
from editguard.probes.keys.subject_keys import compute_activations, compute_subject_keys
from editguard.probes.model.language_model import LanguageModel
from editguard.probes.model.site import EditSite, find_site
from editguard.probes.requests.request import EditRequest
from editguard.probes.research.layer_sweep import (
    LayerShift,
    compute_keys_at_layers,
    compute_request_keys,
    compute_statistics_by_pass,
    sweep_layers,
)
from torch import Tensor, nn
from transformers import LlamaConfig, LlamaForCausalLM

from ...helpers.families import FAMILIES, LAYERS, OTHERS
from ...helpers.tiny_models import (
    PREFIXES,
    PROMPT_START_REQUEST,
    TWIN_REQUEST,
    enlarge,
    tiny_language_model,
    tiny_meter,
    tiny_site,
)
from ...helpers.tokenizer_kinds import BYTE_LEVEL
from ...helpers.tokenizer_kinds import CORPUS as TEXTS

pytestmark = pytest.mark.tiny

# More windows than a group holds, and one that is longer than a window.
CORPUS = Corpus((*TEXTS[:40], " ".join(TEXTS[:40])), "some texts")
KEY_TEXTS = PREFIXES.texts(Role.KEY)
ROWS = [((5, 6, 7, 8, 9), 2), ((9, 8), 1), ((5, 6, 7, 10), 2), ((3,), 0), ((5, 6, 7, 8, 9), 4), ((9, 8), 1)]


def deep_llama(layers: int = 5) -> LanguageModel:
    tokenizer = BYTE_LEVEL["bytes-trimmed"]
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        config = LlamaConfig(
            vocab_size=len(tokenizer),
            hidden_size=16,
            intermediate_size=24,
            num_hidden_layers=layers,
            num_attention_heads=2,
            num_key_value_heads=1,
            max_position_embeddings=256,
        )
        model = LlamaForCausalLM(config).eval()
    enlarge(model, 4.0)
    return LanguageModel(model, tokenizer, "deep")


@contextmanager
def runs(site: EditSite) -> object:
    """Count how often the site's module runs."""
    calls: list[int] = []
    handle = site.module.register_forward_hook(lambda *_: calls.append(1))
    try:
        yield calls
    finally:
        handle.remove()


def same(actual: Tensor, expected: Tensor) -> None:
    torch.testing.assert_close(actual, expected, rtol=1e-4, atol=1e-5 * float(expected.abs().max()))


# Statistics


def statistics_of(lm: LanguageModel, layers: Sequence[int], corpus: Corpus, **options: Any) -> dict[int, KeyStatistics]:
    return {
        layer: statistics
        for some in compute_statistics_by_pass(lm, layers, corpus, **options)
        for layer, statistics in some.items()
    }


@pytest.mark.parametrize("budget", [1, 1 << 30], ids=["a-pass-a-layer", "one-pass"])
@pytest.mark.parametrize("family", ["llama", "gpt2", "opt", "falcon_parallel", "bloom"])
def test_statistics_by_pass_each_layer_equals_its_own_pass_bit_for_bit(family: str, budget: int) -> None:
    lm = tiny_language_model(family)
    by_layer = statistics_of(lm, range(LAYERS), CORPUS, budget_bytes=budget)
    assert list(by_layer) == list(range(LAYERS))
    for layer, statistics in by_layer.items():
        expected = compute_statistics(lm, tiny_site(lm, layer), CORPUS)
        assert torch.equal(statistics.second_moment, expected.second_moment)
        assert statistics.provenance == expected.provenance
    assert not torch.equal(by_layer[0].second_moment, by_layer[1].second_moment)


def test_statistics_by_pass_budget_limits_layers_of_a_pass() -> None:
    lm, progress_steps = deep_llama(), []
    sums = 8 * 24 * 24
    with runs(find_site(lm.model, 0)) as first, runs(find_site(lm.model, 2)) as third:
        passes = [
            list(some) for some in compute_statistics_by_pass(lm, [3, 1, 0, 1], CORPUS, budget_bytes=2 * sums + 1)
        ]
    assert passes == [[0, 1], [3]], "the caller's order and what is named twice do not matter"
    assert len(first) == 2 * len(third) > 0, "the pass for layers 0 and 1 ends before layer 2"
    list(
        compute_statistics_by_pass(
            lm, range(5), CORPUS, budget_bytes=3 * sums, progress=lambda *step: progress_steps.append(step)
        )
    )
    assert progress_steps == [(32, 84), (42, 84), (74, 84), (84, 84)]


def test_statistics_by_pass_missing_layer_or_short_text_is_refused() -> None:
    lm = tiny_language_model("llama")
    with pytest.raises(ModelError, match="Layer 2 is not one of the 2"):
        statistics_of(lm, [0, 2], CORPUS)
    with pytest.raises(StatisticsError, match="holds 0 tokens"):
        statistics_of(lm, [0, 1], Corpus(("",), "nothing"))
    assert statistics_of(lm, [], CORPUS) == {}


def test_statistics_by_pass_broken_layer_is_named() -> None:
    lm = deep_llama()
    find_site(lm.model, 1).write(torch.full((16, 24), torch.nan))
    with pytest.raises(NotFinite, match=r"layers\.2\.mlp\.down_proj is NaN"):
        statistics_of(lm, range(5), CORPUS)


# Keys


@pytest.mark.parametrize("budget", [1, 7, 1024])
@pytest.mark.parametrize("family", FAMILIES)
def test_keys_at_layers_equal_keys_of_each_layer(family: str, budget: int) -> None:
    lm = tiny_language_model(family)
    # The deepest first: the order asked for is not that of the pass.
    sites = [tiny_site(lm, layer) for layer in reversed(range(LAYERS))]
    site_keys = compute_keys_at_layers(lm, sites, ROWS, budget)
    for site, keys in zip(sites, site_keys, strict=True):
        assert keys.shape == (len(ROWS), site.d_ff)
        assert keys.dtype == torch.float32
        same(keys, compute_activations(lm, site, ROWS).keys)


def test_keys_at_layers_encoder_runs_whole_rows() -> None:
    model = OTHERS["t5_encoder"]()
    enlarge(model)
    lm = LanguageModel(model, BYTE_LEVEL["bytes-trimmed"], "encoder")
    sites = [tiny_site(lm, layer) for layer in range(LAYERS)]
    for site, keys in zip(sites, compute_keys_at_layers(lm, sites, ROWS), strict=True):
        same(keys, compute_activations(lm, site, ROWS).keys)
    # Rows 0 and 2 differ behind the token alone.
    assert (keys[0] - keys[2]).norm() > 1e-3 * keys[0].norm()


def test_keys_at_layers_equal_rows_and_later_tokens_do_not_run() -> None:
    lm, given = tiny_language_model("llama"), []
    handle = lm.model.register_forward_pre_hook(
        lambda _, __, kwargs: given.append(kwargs["attention_mask"].sum(1).tolist()), with_kwargs=True
    )
    with runs(tiny_site(lm, 1)) as deeper:
        compute_keys_at_layers(lm, [tiny_site(lm, 0)], ROWS)
    handle.remove()
    assert given == [[5, 3, 2, 1]]
    assert deeper == []


@pytest.mark.parametrize("nothing", ["rows", "sites"])
def test_keys_at_layers_without_rows_or_sites_are_refused(nothing: str) -> None:
    lm = tiny_language_model("llama")
    with pytest.raises(InputError, match="give no keys"):
        compute_keys_at_layers(lm, [] if nothing == "sites" else [tiny_site(lm)], [] if nothing == "rows" else ROWS)


def test_request_keys_equal_single_requests_and_their_mean() -> None:
    lm = tiny_language_model("gpt2")
    sites = [tiny_site(lm, layer) for layer in range(LAYERS)]
    site_keys = compute_request_keys(lm, sites, [TWIN_REQUEST, PROMPT_START_REQUEST], KEY_TEXTS)
    for site, keys in zip(sites, site_keys, strict=True):
        for row, request in enumerate((TWIN_REQUEST, PROMPT_START_REQUEST)):
            expected = compute_subject_keys(lm, site, request, KEY_TEXTS)
            same(keys.no_prefix[row], expected.no_prefix_key)
            same(keys.mean[row], expected.mean_key)
    with pytest.raises(RequestError, match="no prefixes"):
        compute_request_keys(lm, sites, [TWIN_REQUEST], [])


# Denominators


@pytest.mark.parametrize("family", ["llama", "gpt2", "opt"])
def test_sweep_layers_agrees_with_evidence_at_every_layer(family: str) -> None:
    lm = tiny_language_model(family)
    gauges = {layer: tiny_meter(lm, layer) for layer in range(LAYERS)}
    statistics = {layer: meter.statistics for layer, meter in gauges.items()}
    requests = [TWIN_REQUEST, PROMPT_START_REQUEST] * 10
    shifts_by_layer = sweep_layers(lm, range(LAYERS), requests, KEY_TEXTS, statistics)
    assert list(shifts_by_layer) == list(range(LAYERS))
    for layer, shifts in shifts_by_layer.items():
        assert len(shifts) == len(requests)
        for shift, request in zip(shifts, requests, strict=True):
            evidence = gauges[layer].measure(request)
            assert shift == pytest.approx(
                (evidence.denominator, evidence.denominator_prefixed, evidence.cosine), rel=1e-4
            )
    assert shifts_by_layer[0][0] != shifts_by_layer[1][0]


def test_sweep_layers_without_prefix_nothing_shifts() -> None:
    lm = tiny_language_model("llama")
    statistics = statistics_of(lm, range(LAYERS), CORPUS)
    for shifts in sweep_layers(lm, range(LAYERS), [TWIN_REQUEST], [""], statistics).values():
        (shift,) = shifts
        assert shift == LayerShift(shift.denominator, pytest.approx(shift.denominator), pytest.approx(1.0))


def test_sweep_layers_statistics_of_another_layer_are_refused() -> None:
    lm = tiny_language_model("llama")
    statistics = statistics_of(lm, [0], CORPUS)
    for held, message in (({0: statistics[0]}, "are none"), ({0: statistics[0], 1: statistics[0]}, "are of layer 0")):
        with pytest.raises(StatisticsError, match=message):
            sweep_layers(lm, [0, 1], [TWIN_REQUEST], KEY_TEXTS, held)


def test_sweep_layers_missing_subject_is_refused() -> None:
    lm = tiny_language_model("llama")
    statistics = statistics_of(lm, [1], CORPUS)
    lost: EditRequest = replace(TWIN_REQUEST, subject="Ankara")
    with pytest.raises(RequestError, match="'Ankara' stands 0 times"):
        sweep_layers(lm, [1], [lost], KEY_TEXTS, statistics)
    assert sweep_layers(lm, [1], [], KEY_TEXTS, statistics) == {1: []}
    assert sweep_layers(lm, [], [TWIN_REQUEST], KEY_TEXTS, statistics) == {}


def test_sweep_layers_site_path_serves_every_layer() -> None:
    lm, path = tiny_language_model("llama"), "model.layers.{layer}.mlp.up_proj"
    by_layer = statistics_of(lm, range(LAYERS), CORPUS, site_path=path)
    for layer, statistics in by_layer.items():
        named = find_site(lm.model, layer, path)
        assert torch.equal(statistics.second_moment, compute_statistics(lm, named, CORPUS).second_moment)
    shifts = sweep_layers(lm, range(LAYERS), [TWIN_REQUEST], KEY_TEXTS, by_layer, site_path=path)
    keys = compute_subject_keys(lm, find_site(lm.model, 0, path), TWIN_REQUEST, KEY_TEXTS)
    assert shifts[0][0].cosine == pytest.approx(
        float(torch.nn.functional.cosine_similarity(keys.no_prefix_key, keys.mean_key, 0)), abs=1e-5
    )


# Stopping after several


def test_stop_after_all_records_each_module_once_and_removes_hooks() -> None:
    lm, records = deep_llama(), []
    sites = [find_site(lm.model, layer) for layer in (3, 1)]

    def see(index: int, given: Tensor, returned: Tensor) -> None:
        records.append((index, given.shape[-1], returned.shape[-1]))

    with torch.no_grad(), stop_after_all([site.module for site in sites], see):
        lm.model(torch.tensor([[5, 6]]))
    assert records == [(1, 24, 16), (0, 24, 16)]
    assert not any(site.module._forward_hooks for site in sites)


def test_stop_after_all_module_that_never_runs_raises() -> None:
    lm = deep_llama()
    modules: Sequence[nn.Module] = [find_site(lm.model, 1).module, nn.Identity()]
    with pytest.raises(ModelError, match="Identity never ran"), torch.no_grad():  # noqa: SIM117
        with stop_after_all(modules, lambda *_: None):
            lm.model(torch.tensor([[5, 6]]))
    assert not any(module._forward_hooks for module in modules)
