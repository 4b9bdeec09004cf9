"""Partial forward passes give what an ordinary one gives, in every family, and leave the model as they found it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import pytest
import torch
from editguard.probes.errors import EditguardError, ModelError
from editguard.probes.forward.hooks import select_logits
from editguard.probes.forward.live_rows import LiveRows
from editguard.probes.forward.partial import PlainRows, Row, Stem, compute_full_logits, get_first_logits
from editguard.probes.model.language_model import LanguageModel
from editguard.probes.model.site import EditSite
from torch import Tensor, nn

from ...helpers.families import FAMILIES, LAYERS
from ...helpers.tiny_models import tiny_language_model, tiny_site

pytestmark = pytest.mark.tiny

each_family = pytest.mark.parametrize("family", FAMILIES)
each_layer = pytest.mark.parametrize("layer", range(LAYERS))

ROWS = (
    Row((11, 42, 7, 99, 23, 250, 77, 31, 200, 5), 4, (4, 6, 9)),
    Row((301, 12, 45, 19, 88, 21), 0, (0, 5)),
    Row((42, 7, 99, 23, 250, 77, 31, 200), 6, (7,)),
    Row((8, 9, 10, 60, 61, 62, 63), 6, (6,)),
)
"""Rows of different lengths, edited at their first, a middle and their last token."""


def brute_force(lm: LanguageModel, rows: Sequence[Row]) -> Tensor:
    """The logits of each row run alone, whole and unpadded, by an ordinary call of the model."""
    pieces = []
    for row in rows:
        logits = lm.model(input_ids=torch.tensor([row.ids]), use_cache=False).logits[0]
        pieces.append(logits[list(row.predict)])
    return torch.cat(pieces).float()


@contextmanager
def added(site: EditSite, delta: Tensor, places: Sequence[int]) -> Iterator[None]:
    """Add `delta` to the site's output at flat places, without writing in place."""

    def add(_: nn.Module, __: Any, output: Tensor) -> Tensor:
        flat = output.reshape(-1, output.shape[-1])
        chosen = torch.zeros(len(flat), 1)
        chosen[list(places)] = 1.0
        return (flat + chosen * delta).reshape(output.shape)

    handle = site.module.register_forward_hook(add)
    try:
        yield
    finally:
        handle.remove()


def edit(site: EditSite, seed: int = 5) -> None:
    noise = torch.randn(site.d_model, site.d_ff, generator=torch.Generator().manual_seed(seed))
    site.write(site.matrix() + 0.5 * noise)


def state(lm: LanguageModel) -> list[tuple[int, int, bool]]:
    """Hooks and own forwards of every module."""
    return [
        (len(module._forward_hooks), len(module._forward_pre_hooks), "forward" in vars(module))
        for module in lm.model.modules()
    ]


def close(actual: Tensor, expected: Tensor, tolerance: float = 1e-4) -> bool:
    # The scale of the logits differs by family (Cohere divides them by 16), so the bound is relative to it.
    return float((actual - expected).abs().max()) < tolerance * float(expected.std())


@each_family
def test_tiny_models_wrong_pass_would_show(family: str) -> None:
    lm = tiny_language_model(family)
    whole = compute_full_logits(lm, ROWS)
    for index in range(LAYERS):
        lm = tiny_language_model(family)
        edit(tiny_site(lm, index))
        assert not close(compute_full_logits(lm, ROWS), whole, 0.05), "a changed weight does not reach the logits"
    other = tuple(row._replace(ids=(row.ids[0] + 1, *row.ids[1:])) for row in ROWS)
    assert not close(compute_full_logits(tiny_language_model(family), other), whole, 0.01), "tokens are not mixed"


@each_family
def test_full_logits_batch_equals_single_rows(family: str) -> None:
    lm = tiny_language_model(family)
    with torch.no_grad():
        assert close(compute_full_logits(lm, ROWS), brute_force(lm, ROWS))


@each_layer
@each_family
def test_partial_passes_unchanged_model_give_full_logits(family: str, layer: int) -> None:
    lm = tiny_language_model(family)
    site = tiny_site(lm, layer)
    live, stem = LiveRows(lm, site, ROWS), Stem(lm, site, ROWS)
    with torch.no_grad():
        expected = compute_full_logits(lm, ROWS)
        for logits in (live.first, live.logits(), stem.first, stem.logits()):
            assert logits.dtype == torch.float32
            assert close(logits, expected)


@each_layer
@each_family
def test_stem_changed_weight_changes_logits(family: str, layer: int) -> None:
    lm = tiny_language_model(family)
    site = tiny_site(lm, layer)
    stem = Stem(lm, site, ROWS)
    original = site.matrix()
    edit(site)
    with torch.no_grad():
        assert close(stem.logits(), brute_force(lm, ROWS))
        assert not close(stem.logits(), stem.first, 0.05)
        site.write(original)
        assert close(stem.logits(), stem.first)


@each_layer
@each_family
def test_live_rows_delta_and_gradient_equal_full_pass(family: str, layer: int) -> None:
    lm = tiny_language_model(family)
    site = tiny_site(lm, layer)
    width = max(len(row.ids) for row in ROWS)
    live = LiveRows(lm, site, ROWS)
    start = torch.randn(site.d_model, generator=torch.Generator().manual_seed(9))
    actual = []
    for places in ([n * live.width for n in range(len(ROWS))], [n * width + row.at for n, row in enumerate(ROWS)]):
        delta = start.clone().requires_grad_()
        with added(site, delta, places):
            logits = live.logits() if not actual else compute_full_logits(lm, ROWS)
        (gradient,) = torch.autograd.grad(logits.log_softmax(-1)[:, 17].sum(), [delta])
        actual.append((logits.detach(), gradient))
    (logits, gradient), (expected, slope) = actual
    assert not close(logits, live.first, 0.01)
    assert close(logits, expected)
    assert float(slope.norm()) > 0
    torch.testing.assert_close(gradient, slope, rtol=1e-3, atol=1e-4 * float(slope.abs().max()))


@each_family
def test_partial_passes_repeated_runs_agree(family: str) -> None:
    lm = tiny_language_model(family)
    site = tiny_site(lm)
    live, stem = LiveRows(lm, site, ROWS), Stem(lm, site, ROWS)
    with torch.no_grad():
        for run in (live, stem):
            first = run.logits()
            assert torch.equal(run.logits(), first)


@each_family
def test_partial_passes_restore_blocks_and_hooks_after_error(family: str) -> None:
    lm = tiny_language_model(family)
    site = tiny_site(lm)
    before = state(lm)
    live, stem = LiveRows(lm, site, ROWS), Stem(lm, site, ROWS)
    assert state(lm) == before

    def fail(*_: Any) -> None:
        raise RuntimeError("in the middle")

    handle = site.module.register_forward_hook(fail)
    for run in (live.logits, stem.logits, lambda: Stem(lm, site, ROWS), lambda: LiveRows(lm, site, ROWS)):
        with pytest.raises(RuntimeError, match="in the middle"):
            run()
    handle.remove()
    assert state(lm) == before
    with torch.no_grad():
        assert close(compute_full_logits(lm, ROWS), stem.first)


def test_run_from_foreign_forward_is_restored() -> None:
    lm = tiny_language_model("llama")
    site, block = tiny_site(lm), tiny_site(lm).blocks[0]
    calls: list[int] = []
    original = block.forward

    def wrapped(*args: Any, **kwargs: Any) -> Any:
        calls.append(1)
        return original(*args, **kwargs)

    block.forward = wrapped
    stem, ran = Stem(lm, site, ROWS), len(calls)
    stem.logits()
    assert block.forward is wrapped
    assert len(calls) == ran > 0, "the block below the site ran again"


@each_layer
def test_partial_passes_skip_layers_below_and_tokens_before(layer: int) -> None:
    lm = tiny_language_model("llama")
    site = tiny_site(lm, layer)
    live, stem = LiveRows(lm, site, ROWS), Stem(lm, site, ROWS)
    calls: list[tuple[int, torch.Size]] = []
    for index, block in enumerate(site.blocks):
        block.mlp.register_forward_hook(lambda _, args, __, index=index: calls.append((index, args[0].shape[:2])))
    stem.logits()
    assert {index for index, _ in calls} == set(range(layer, LAYERS))
    assert sum(shape[0] for index, shape in calls if index == LAYERS - 1) == len(ROWS), "a row is run more than once"
    calls.clear()
    live.logits()
    assert calls == [(index, (len(ROWS), live.width)) for index in range(layer, LAYERS)]


@pytest.mark.parametrize("window", [2, 3, 5])
@each_layer
def test_partial_passes_short_sliding_window_equals_full_pass(layer: int, window: int) -> None:
    lm = tiny_language_model("mistral")
    whole = compute_full_logits(lm, ROWS)
    lm.model.config.sliding_window = window
    site = tiny_site(lm, layer)
    live, stem = LiveRows(lm, site, ROWS), Stem(lm, site, ROWS)
    with torch.no_grad():
        expected = compute_full_logits(lm, ROWS)
        assert not close(expected, whole, 0.01)
        assert close(live.logits(), expected)
        assert close(stem.logits(), expected)


@each_layer
def test_live_rows_single_token_row_equals_full_pass(layer: int) -> None:
    lm = tiny_language_model("gpt2")
    rows = (Row((17,), 0, (0,)),)
    with torch.no_grad():
        assert close(LiveRows(lm, tiny_site(lm, layer), rows).logits(), brute_force(lm, rows))


def test_partial_passes_bfloat16_stay_near_and_return_fp32() -> None:
    lm = tiny_language_model("llama")
    lm.model.to(torch.bfloat16)
    live, stem = LiveRows(lm, tiny_site(lm), ROWS), Stem(lm, tiny_site(lm), ROWS)
    with torch.no_grad():
        for logits in (live.logits(), stem.logits()):
            assert logits.dtype == torch.float32
            assert close(logits, live.first, 0.1)


@pytest.mark.parametrize(
    "row",
    [
        pytest.param(Row((3, 4, 5, 6), 0, (4,)), id="behind"),
        pytest.param(Row((3, 4, 5, 6), 0, (-1,)), id="negative"),
    ],
)
def test_flat_places_outside_the_row_are_refused(row: Row) -> None:
    lm = tiny_language_model("llama")
    rows = (ROWS[0], row)
    for run in (lambda: compute_full_logits(lm, rows), lambda: Stem(lm, tiny_site(lm), rows)):
        with pytest.raises(EditguardError, match="must lie in that range"):
            run()


def test_live_rows_place_before_edited_token_is_refused() -> None:
    lm = tiny_language_model("llama")
    with pytest.raises(EditguardError, match="run from token 2"):
        LiveRows(lm, tiny_site(lm), (ROWS[0], Row((3, 4, 5, 6), 2, (1, 3))))


def test_stem_broken_weight_gives_nan() -> None:
    lm = tiny_language_model("llama")
    site = tiny_site(lm)
    stem = Stem(lm, site, ROWS)
    site.write(torch.full((site.d_model, site.d_ff), torch.nan))
    assert torch.isnan(stem.logits()).all()


def test_stem_upper_layers_with_other_inputs_are_refused() -> None:
    lm = tiny_language_model("llama")
    site = tiny_site(lm)
    left: list[Tensor] = []
    # What the lower layer leaves behind is used up by the upper one, as no family of ours does.
    site.blocks[0].mlp.register_forward_hook(lambda _, __, output: left.append(output.mean()))
    site.blocks[1].mlp.register_forward_hook(lambda _, __, output: output + (50 * left.pop() if left else 0))
    with pytest.raises(ModelError, match=r"LlamaForCausalLM .* cannot be measured"):
        Stem(lm, site, ROWS)


def test_select_logits_head_gets_only_selected_places() -> None:
    lm = tiny_language_model("llama")
    ids = torch.tensor([[5, 6, 7], [8, 9, 10]])
    with torch.no_grad():
        whole = lm.model(ids).logits
        with select_logits(lm, torch.tensor([4, 0])):
            chosen = lm.model(ids).logits
    assert chosen.shape[:2] == (1, 2)
    assert close(chosen[0], torch.stack([whole[1, 1], whole[0, 0]]))


@pytest.mark.parametrize("indices", [(2,), (3, 0), (1, 2, 3)])
def test_part_of_rows_gives_the_logits_of_these_rows(indices: Sequence[int]) -> None:
    lm = tiny_language_model("llama")
    site = tiny_site(lm)
    stem, live, plain = Stem(lm, site, ROWS), LiveRows(lm, site, ROWS), PlainRows(lm, ROWS)
    edit(site)
    chosen = [ROWS[index] for index in indices]
    with torch.no_grad():
        expected = brute_force(lm, chosen)
        for rows in (stem, live, plain):
            part = rows.part(indices)
            assert list(part.rows) == chosen
            assert close(part.logits(), expected)


def test_part_of_live_rows_retains_the_first_logits_of_these_rows() -> None:
    lm = tiny_language_model("llama")
    live = LiveRows(lm, tiny_site(lm), ROWS)
    pieces = live.first.split([len(row.predict) for row in ROWS])
    assert torch.equal(live.part([3, 0]).first, torch.cat([pieces[3], pieces[0]]))


def test_part_of_stem_or_plain_rows_has_no_first_logits() -> None:
    lm = tiny_language_model("llama")
    for rows in (Stem(lm, tiny_site(lm), ROWS), PlainRows(lm, ROWS)):
        assert get_first_logits(rows) is rows.first
        assert rows.part([0]).first is None
        with pytest.raises(EditguardError, match="first run of 1 rows were not retained"):
            get_first_logits(rows.part([0]))
