"""The numbers of a request against numpy, from keys of ordinary forward passes."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from editguard.probes.errors import NotFinite, RequestError
from editguard.probes.evidence import Evidence, EvidenceMeter, compute_sink_key, says_targets
from editguard.probes.keys.prefixes import Role
from editguard.probes.keys.statistics import make_identity_statistics
from editguard.probes.keys.subject_keys import compute_subject_keys
from editguard.probes.model.language_model import load_model
from editguard.probes.requests.request import EditRequest
from editguard.probes.tokens import encode_target

from ..helpers.capture import capture
from ..helpers.tiny_models import PREFIXES, PROMPT_START_REQUEST, TWIN_REQUEST, tiny_language_model, tiny_meter

pytestmark = pytest.mark.tiny


@pytest.fixture(scope="module", params=["llama", "gpt2"])
def meter(request: pytest.FixtureRequest) -> EvidenceMeter:
    return tiny_meter(tiny_language_model(request.param))


@pytest.mark.parametrize("edit_request", [TWIN_REQUEST, PROMPT_START_REQUEST], ids=["mid-prompt", "first"])
def test_measure_gives_every_number_by_its_formula(meter: EvidenceMeter, edit_request: EditRequest) -> None:
    keys = compute_subject_keys(meter.lm, meter.site, edit_request, PREFIXES.texts(Role.KEY))
    key, every = keys.no_prefix_key.double().numpy(), keys.keys.double().numpy()
    mean = keys.keys.mean(0).double().numpy()
    c = meter.statistics.second_moment.numpy()
    c = c + meter.statistics.ridge * np.diag(c).mean() * np.eye(len(c))
    u = np.linalg.solve(c, mean)
    u = u / np.linalg.norm(u)

    def distance(key: np.ndarray) -> float:
        return float(np.sqrt((key - mean) @ np.linalg.solve(c, key - mean)))

    def cosine(first: np.ndarray, second: np.ndarray) -> float:
        return float(first @ second / np.linalg.norm(first) / np.linalg.norm(second))

    evidence = meter.measure(edit_request)
    about = {"rel": 1e-5}
    assert evidence.denominator == pytest.approx(abs(u @ key), **about)
    assert evidence.denominator_prefixed == pytest.approx(abs(u @ mean), **about)
    assert evidence.ratio == pytest.approx(abs(u @ key) / abs(u @ mean), **about)
    assert evidence.cosine == pytest.approx(cosine(key, mean), **about)
    assert evidence.norm_ratio == pytest.approx(np.linalg.norm(key) / np.linalg.norm(mean), **about)
    # The first context is the empty one: it is not among the prefixed keys; the median is the middle one of three.
    usual = sorted(distance(row) for row in every[1:])[1]
    assert evidence.distance_ratio == pytest.approx(distance(key) / usual, **about)
    assert evidence.sink_similarity == pytest.approx(cosine(key, meter.sink.double().numpy()), **about)
    weight = meter.site.matrix(torch.float64).numpy()
    bound = 4.0 * float(keys.no_prefix_value.double().norm()) / abs(u @ key) / np.linalg.norm(weight)
    assert evidence.predicted_relative_norm == pytest.approx(bound, **about)


def test_measure_all_equals_measure_and_returns_the_error_of_a_bad_request(meter: EvidenceMeter) -> None:
    bad = replace(TWIN_REQUEST, subject="Nowhere")
    measurements = meter.measure_all([TWIN_REQUEST, bad, PROMPT_START_REQUEST])
    assert isinstance(measurements[1], RequestError)
    for together, request in ((measurements[0], TWIN_REQUEST), (measurements[2], PROMPT_START_REQUEST)):
        assert isinstance(together, Evidence)
        single = meter.measure(request)
        assert together.keys.position == single.keys.position
        for name in ("denominator", "denominator_prefixed", "cosine", "distance_ratio", "predicted_relative_norm"):
            assert getattr(together, name) == pytest.approx(getattr(single, name), rel=1e-4)
        assert together.says_target is single.says_target is False
    assert meter.measure_all([]) == []


def test_says_target_is_true_where_the_model_says_the_target_already(meter: EvidenceMeter) -> None:
    tokenizer = meter.lm.tokenizer
    ids = tokenizer(TWIN_REQUEST.prompt).input_ids
    with torch.no_grad():
        answer = tokenizer.decode(meter.lm.model(torch.tensor([ids])).logits[0, -1].argmax())
    request = replace(TWIN_REQUEST, target_new=str(answer))
    if encode_target(tokenizer, request.prompt, request.target_new) == (int(tokenizer(str(answer)).input_ids[-1]),):
        assert meter.measure(request).says_target is True
    assert meter.measure(replace(TWIN_REQUEST, target_new="")).says_target is None


@pytest.mark.real
def test_says_targets_after_a_quote_or_in_chinese_asks_without_a_space() -> None:
    lm = load_model("smollm2-135m")
    quoted = EditRequest("quote", "France", 'The capital of France is called "', "Paris")
    plain = EditRequest("plain", "France", "The capital of France is", "Paris")
    requests = [quoted, replace(quoted, prompt='The capital of France is "'), plain, replace(quoted, space=True)]
    assert says_targets(lm, requests) == [True, True, True, False]
    # Its own continuation, "a person", is no fact; it matches only without a space.
    chinese = EditRequest("cjk", "法国", "法国的首都是", "一位人")
    assert says_targets(lm, [chinese, replace(chinese, space=True)]) == [True, False]


def test_bound_follows_the_clamp_and_holds_for_every_value_within_it(meter: EvidenceMeter) -> None:
    evidence = meter.measure(TWIN_REQUEST)
    twice = replace(meter, clamp=8.0).measure(TWIN_REQUEST)
    assert twice.predicted_relative_norm == pytest.approx(2 * evidence.predicted_relative_norm)
    u = meter.statistics.direction(evidence.keys.mean_key)
    length = 4.0 * evidence.keys.no_prefix_value.double().norm()
    for seed in range(5):
        residual = torch.randn(meter.site.d_model, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
        update = torch.outer(residual / residual.norm() * length, u) / (u @ evidence.keys.no_prefix_key.double())
        assert float(update.norm()) / meter.weight_norm == pytest.approx(evidence.predicted_relative_norm, rel=1e-5)


def test_sink_key_is_the_mean_key_of_different_first_tokens(meter: EvidenceMeter) -> None:
    texts = ["Paris is", "Paris was", "It is", "The city"]
    first = {meter.lm.tokenizer(text).input_ids[0] for text in texts}
    assert len(first) == 3
    keys = []
    for token in first:
        with capture(meter.site) as captured, torch.no_grad():
            meter.lm.model(torch.tensor([[token]]))
        keys.append(captured.input[0, 0])
    torch.testing.assert_close(compute_sink_key(meter.lm, meter.site, texts), torch.stack(keys).mean(0))


def test_ratio_over_a_denominator_of_zero_is_nan(meter: EvidenceMeter) -> None:
    evidence = replace(meter.measure(TWIN_REQUEST), denominator_prefixed=0.0)
    assert np.isnan(evidence.ratio)


def test_measure_of_a_broken_model_is_refused() -> None:
    meter = tiny_meter(tiny_language_model("llama"))
    with torch.no_grad():
        meter.site.blocks[0].mlp.down_proj.weight.fill_(torch.nan)
    statistics = make_identity_statistics(meter.site.d_ff, "", 1)
    for broken in (meter, replace(meter, statistics=statistics)):
        with pytest.raises(NotFinite):
            broken.measure(TWIN_REQUEST)


def test_measure_of_a_subject_that_cannot_be_located_is_refused(meter: EvidenceMeter) -> None:
    with pytest.raises(RequestError):
        meter.measure(replace(TWIN_REQUEST, subject="Ankara"))
