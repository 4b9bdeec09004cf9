"""Tracing gives what hooks on whole passes give, changes nothing, and knows a fact that sits in one layer."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest
import torch
from editguard.probes.errors import InputError, ModelError, NotFinite, OutOfMemory, RequestError
from editguard.probes.model.fingerprint import compute_checksum
from editguard.probes.model.language_model import LanguageModel
from editguard.probes.requests.request import EditRequest
from editguard.probes.research import tracing
from editguard.probes.research.tracing import Trace, Tracer, list_considered_layers, suggest_layer

from ...helpers.families import FAMILIES, LAYERS, OTHERS
from ...helpers.tiny_models import TWIN_REQUEST, enlarge, tiny_language_model, tiny_site

pytestmark = pytest.mark.tiny

DRAWS = 3


def brute_force(lm: LanguageModel, tracer: Tracer, trace: Trace, layer: int, token: int) -> float:
    """The answer's probability with one block's output of a clean run put back, whole runs one draw at a time."""
    ids = torch.tensor([lm.tokenizer(trace.request.prompt).input_ids])
    first, last = trace.subject
    block: Any = tiny_site(lm, layer).block
    clean_states: list[torch.Tensor] = []

    def states(output: Any) -> torch.Tensor:
        return output[0] if isinstance(output, tuple) else output

    with torch.no_grad():
        handle = block.register_forward_hook(lambda _, __, output: clean_states.append(states(output).clone()))
        answer = int(lm.model(ids).logits[0, -1].argmax())
        handle.remove()
        noise, probabilities = tracer._draw_noise(last + 1 - first), []
        for draw in noise:

            def corrupt(_: Any, __: Any, output: torch.Tensor, draw: torch.Tensor = draw) -> torch.Tensor:
                changed = output.clone()
                changed[0, first : last + 1] += draw
                return changed

            def restore(_: Any, __: Any, output: Any) -> Any:
                states(output)[:, token] = clean_states[0][:, token]
                return output

            handles = [
                lm.model.get_input_embeddings().register_forward_hook(corrupt),
                block.register_forward_hook(restore),
            ]
            probabilities.append(float(lm.model(ids).logits[0, -1].float().softmax(-1)[answer]))
            for handle in handles:
                handle.remove()
    return sum(probabilities) / len(probabilities)


@pytest.mark.parametrize("family", FAMILIES)
def test_trace_every_state_equals_hooks_on_whole_passes(family: str) -> None:
    lm = tiny_language_model(family)
    tracer = Tracer(lm, draws=DRAWS)
    trace = tracer.trace(TWIN_REQUEST)
    assert trace.states.shape == (LAYERS, len(trace.tokens))
    for layer in range(LAYERS):
        for token in range(len(trace.tokens)):
            expected = brute_force(lm, tracer, trace, layer, token)
            assert float(trace.states[layer, token]) == pytest.approx(expected, rel=1e-3, abs=1e-6)


@pytest.mark.parametrize("family", ["llama", "gpt2", "opt", "bloom", "falcon_sequential", "gptj"])
def test_trace_without_noise_keeps_the_answer(family: str) -> None:
    trace = Tracer(tiny_language_model(family), noise=0.0, draws=2).trace(TWIN_REQUEST)
    for values in (torch.tensor(trace.corrupted), trace.states, trace.windows):
        torch.testing.assert_close(values, torch.full_like(values, trace.clean), rtol=1e-3, atol=1e-6)


def test_trace_restored_one_token_subject_undoes_the_last_noise() -> None:
    lm = tiny_language_model("llama")
    tracer = Tracer(lm, draws=DRAWS)
    tracer.window = LAYERS * 2
    trace = tracer.trace(TWIN_REQUEST)
    # A window that holds all layers is the same around each of them.
    torch.testing.assert_close(trace.windows, trace.windows[:1].expand(LAYERS), rtol=1e-4, atol=1e-6)
    tracer.window = 1
    trace = tracer.trace(TWIN_REQUEST)
    assert not torch.allclose(trace.windows[0], trace.windows[1], rtol=1e-4)


def test_trace_number_of_simultaneous_runs_changes_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    lm = tiny_language_model("llama")
    tracer = Tracer(lm, draws=DRAWS)
    tracer.window = 1
    together = tracer.trace(TWIN_REQUEST)
    monkeypatch.setattr(tracing, "_ROWS", DRAWS)
    apart = tracer.trace(TWIN_REQUEST)
    torch.testing.assert_close(apart.states, together.states, rtol=1e-4, atol=1e-6)
    torch.testing.assert_close(apart.windows, together.windows, rtol=1e-4, atol=1e-6)


def test_trace_pass_never_exceeds_the_bound_of_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    lm, rows = tiny_language_model("llama"), []
    monkeypatch.setattr(tracing, "_ROWS", 2 * DRAWS)
    handle = lm.model.register_forward_pre_hook(
        lambda _, __, given: rows.append(len(given["input_ids"])), with_kwargs=True
    )
    Tracer(lm, draws=DRAWS).trace(TWIN_REQUEST)
    handle.remove()
    assert max(rows) == 2 * DRAWS


def test_suggest_layer_single_layer_fact_is_traced_to_it() -> None:
    lm = tiny_language_model("llama")
    enlarge(tiny_site(lm, 1).module, 40.0)
    enlarge(tiny_site(lm, 0).module, 0.01)
    tracer = Tracer(lm, draws=DRAWS, noise=20.0)
    tracer.window = 1
    # Where the subject ends the prompt, its own MLP output decides.
    trace = tracer.trace(EditRequest("end", "Istanbul", "The twin city is Istanbul", "Paris"))
    assert suggest_layer([trace]) == 1


@pytest.mark.parametrize(
    ("layers", "window", "considered"),
    [(30, 6, [*range(4, 28)]), (2, 1, [1]), (12, 2, [*range(2, 12)]), (2, 5, [0, 1])],
)
def test_list_considered_layers_excludes_cut_windows_and_block_0(
    layers: int, window: int, considered: list[int]
) -> None:
    assert list_considered_layers(layers, window) == considered


def test_trace_same_seed_agrees_and_leaves_the_model_unchanged() -> None:
    lm = tiny_language_model("llama")
    before = compute_checksum(lm.model)
    first, again = (Tracer(lm, draws=DRAWS, seed=3).trace(TWIN_REQUEST) for _ in range(2))
    assert torch.equal(first.states, again.states)
    assert torch.equal(first.windows, again.windows)
    assert not torch.equal(Tracer(lm, draws=DRAWS, seed=4).trace(TWIN_REQUEST).states, first.states)
    assert compute_checksum(lm.model) == before
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in lm.model.modules())
    assert not any("forward" in vars(module) for module in lm.model.modules())


def test_trace_untraceable_request_is_refused() -> None:
    lm = tiny_language_model("llama")
    with pytest.raises(RequestError, match="attention sink"):
        Tracer(lm, draws=1).trace(EditRequest("x", "Chicago", "Chicago is", "Paris"))
    with pytest.raises(RequestError, match="stands 0 times"):
        Tracer(lm, draws=1).trace(EditRequest("x", "Nowhere", "Istanbul is", "Paris"))
    with torch.no_grad():
        lm.model.get_parameter("model.norm.weight")[0] = torch.nan
    with pytest.raises(NotFinite, match="NaN or Inf"):
        Tracer(lm, draws=1).trace(TWIN_REQUEST)


@pytest.mark.parametrize("draws", [0, 65])
def test_tracer_too_many_draws_are_refused(draws: int) -> None:
    with pytest.raises(InputError, match=f"{draws} draws of noise cannot be run at once; give a number from 1 to 64"):
        Tracer(tiny_language_model("llama"), draws=draws)


def test_tracer_noise_scale_uses_embedding_outputs() -> None:
    for family in ("llama", "gemma3"):
        lm = tiny_language_model(family)
        embedding = lm.model.get_input_embeddings()
        given = embedding(torch.arange(embedding.weight.shape[0]))
        tracer = Tracer(lm, draws=DRAWS, noise=2.0)
        assert tracer._scale == pytest.approx(2.0 * float(given.double().std()), rel=1e-6)
    # Gemma 3 scales its table, so that the table alone would give far too little.
    assert tracer._scale > 3 * 2.0 * float(embedding.weight.std())


def test_trace_runs_that_do_not_fit_run_in_halves(monkeypatch: pytest.MonkeyPatch) -> None:
    lm = tiny_language_model("llama")
    whole = Tracer(lm, draws=DRAWS).trace(TWIN_REQUEST)
    run = Tracer._run

    def small(self: Tracer, ids: Sequence[int], rows: int) -> torch.Tensor:
        if rows > DRAWS:
            raise torch.OutOfMemoryError("out of memory")
        return run(self, ids, rows)

    monkeypatch.setattr(Tracer, "_run", small)
    halved = Tracer(lm, draws=DRAWS).trace(TWIN_REQUEST)
    torch.testing.assert_close(halved.windows, whole.windows, rtol=1e-4, atol=1e-6)
    torch.testing.assert_close(halved.states, whole.states, rtol=1e-4, atol=1e-6)

    def never(*_: object) -> torch.Tensor:
        raise torch.OutOfMemoryError("out of memory")

    monkeypatch.setattr(Tracer, "_run", lambda self, ids, rows: run(self, ids, rows) if rows == 1 else never())
    with pytest.raises(OutOfMemory, match="does not fit into memory"):
        Tracer(lm, draws=DRAWS).trace(TWIN_REQUEST)


def test_tracer_encoder_is_refused() -> None:
    model = OTHERS["t5_encoder"]()
    with pytest.raises(ModelError, match="writes no text"):
        Tracer(LanguageModel(model, tiny_language_model("llama").tokenizer, "t5"))
