"""Whatever happens inside, everything is as it was found: tensors, modules, hooks, modes, random states, tokenizer, torch.

Errors and interrupts are raised in each probe and check, in the search for v*, in generation, and at seeded random
layers of the model's own passes, which is anywhere.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from editguard.audit.editors.base import EDITORS
from editguard.audit.guard import GuardedEditor
from editguard.audit.run.audit import run_audit
from editguard.audit.setup import Setup, prepare
from editguard.audit.transaction import Transaction
from editguard.probes.errors import InputError, ModelError
from editguard.probes.model.fingerprint import hash_tensors
from editguard.probes.model.language_model import LanguageModel
from editguard.probes.model.site import EditSite, find_site
from editguard.probes.probe import PROBES
from editguard.suites.check import CHECKS
from editguard.suites.checks import degeneracy
from torch import nn

from ..helpers.families import FAMILIES
from ..helpers.tiny_audits import load_edits
from ..helpers.tiny_models import tiny_lm, tiny_model
from ..helpers.tiny_setups import FIRST_TOKEN_REQUEST, MID_PROMPT_REQUEST, MISSING_SUBJECT_REQUEST, lenient, tiny_setup
from ..helpers.weight_updates import DTYPES, Stopped, get_only_hashes, rank_one

pytestmark = pytest.mark.tiny

_HOOKS = (
    "_forward_hooks",
    "_forward_pre_hooks",
    "_forward_hooks_with_kwargs",
    "_forward_pre_hooks_with_kwargs",
    "_forward_hooks_always_called",
    "_backward_hooks",
    "_backward_pre_hooks",
    "_non_full_backward_hooks",
    "_state_dict_hooks",
    "_state_dict_pre_hooks",
    "_load_state_dict_pre_hooks",
    "_load_state_dict_post_hooks",
)
_GLOBAL_HOOKS = ("_global_forward_hooks", "_global_forward_pre_hooks", "_global_backward_hooks")
_ERRORS = (RuntimeError, KeyboardInterrupt, Stopped)


def of_model(model: nn.Module) -> dict[str, Any]:
    """Return everything about a model that an edit might leave behind, to compare."""
    tensors = [*model.named_parameters(remove_duplicate=False), *model.named_buffers(remove_duplicate=False)]
    modules = [*model.named_modules(remove_duplicate=False)]
    return {
        "hashes": hash_tensors(model),
        "places": [(name, id(tensor), tensor.data_ptr()) for name, tensor in tensors],
        "gradients": [(name, tensor.requires_grad, tensor.grad is None) for name, tensor in tensors],
        "training": [(name, module.training) for name, module in modules],
        "modules": [(name, id(module), sorted(vars(module))) for name, module in modules],
        "hooks": [(name, kind, [*getattr(module, kind, ())]) for name, module in modules for kind in _HOOKS],
        "config": getattr(model, "config", nn.Identity()).__dict__.copy(),
        "generation": repr(getattr(model, "generation_config", None)),
    }


def of_tokenizer(tokenizer: Any) -> dict[str, Any]:
    inside = tokenizer.backend_tokenizer
    return {
        "sides": (tokenizer.padding_side, tokenizer.truncation_side, tokenizer.model_max_length),
        "settings": (inside.truncation, inside.padding, inside.encode_special_tokens),
        "special": dict(tokenizer.special_tokens_map),
        "tokens": len(tokenizer),
    }


def of_process() -> dict[str, Any]:
    numpy_state = np.random.get_state()
    return {
        "python": random.getstate(),
        "numpy": [part.tolist() if isinstance(part, np.ndarray) else part for part in numpy_state],
        "torch": torch.get_rng_state().tolist(),
        "dtype": torch.get_default_dtype(),
        "threads": (torch.get_num_threads(), torch.get_num_interop_threads()),
        "grad": (torch.is_grad_enabled(), torch.is_inference_mode_enabled(), torch.is_anomaly_enabled()),
        "autocast": (torch.is_autocast_enabled("cpu"), torch.get_autocast_dtype("cpu")),
        "deterministic": (torch.are_deterministic_algorithms_enabled(), torch.get_float32_matmul_precision()),
        "hooks": [[*getattr(nn.modules.module, kind)] for kind in _GLOBAL_HOOKS],
    }


def record_state(lm: LanguageModel) -> dict[str, Any]:
    return {"model": of_model(lm.model), "tokenizer": of_tokenizer(lm.tokenizer), "process": of_process()}


@pytest.fixture
def guard(setup: Setup) -> Iterator[GuardedEditor]:
    """The guard of the shared tiny model; its state when the test ends is that when it began."""
    # States that a fresh process does not have, so that resetting to the usual ones is noticed.
    random.seed(11)
    np.random.seed(12)
    torch.manual_seed(13)
    tokenizer = setup.lm.tokenizer
    sides = tokenizer.padding_side, tokenizer.truncation_side
    tokenizer.padding_side, tokenizer.truncation_side = "left", "left"
    # Who trains a model hands it over with some parameters that want gradients.
    for index, parameter in enumerate(setup.lm.model.parameters()):
        parameter.requires_grad_(index % 2 == 0)
    setup.site.weight.requires_grad_(True)
    before = record_state(setup.lm)
    try:
        yield GuardedEditor(setup)
        after = record_state(setup.lm)
        assert {key for part in before for key in before[part] if before[part][key] != after[part][key]} == set()
    finally:
        tokenizer.padding_side, tokenizer.truncation_side = sides
        setup.lm.model.requires_grad_(False)


def under(guard: GuardedEditor, **changes: object) -> GuardedEditor:
    return replace(guard, setup=replace(guard.setup, policy=lenient(**changes)))


def test_rollback_comparison_notices_changes() -> None:
    lm = tiny_lm(seed=3)
    before, linear = record_state(lm), lm.model.get_submodule("model.layers.0.mlp.down_proj")
    changes: list[tuple[str, str, Callable[[], object]]] = [
        ("model", "hooks", lambda: linear.register_forward_hook(lambda *_: None)),
        ("model", "modules", lambda: setattr(linear, "forward", linear.forward)),
        ("model", "training", lambda: linear.train()),
        ("model", "gradients", lambda: linear.requires_grad_(True)),
        ("model", "hashes", lambda: linear.weight.data.mul_(1.5)),
        ("process", "torch", lambda: torch.rand(1)),
        ("process", "python", random.random),
        ("process", "numpy", lambda: np.random.rand()),
    ]
    for part, key, change in changes:
        change()
        assert record_state(lm)[part][key] != before[part][key], key


# ------------------------------------------------------------------------------------------- editors, families, dtypes


@pytest.mark.parametrize("editor", EDITORS.names())
@pytest.mark.parametrize("request_", [FIRST_TOKEN_REQUEST, MID_PROMPT_REQUEST], ids=lambda request: request.id)
def test_rollback_every_editor_is_undone(guard: GuardedEditor, editor: str, request_: Any) -> None:
    result = guard.try_unguarded(request_, editor)
    if (instead := EDITORS.get(editor)().find_alternative(guard.setup.edit_context)) is not None:
        # An editor of an early site makes no edit where the main site is one; nothing is written.
        assert result.refusal is not None
        assert instead.reason in result.refusal
        assert result.hashes is None
        return
    hashes = get_only_hashes(result)
    assert hashes.before == hashes.restored != hashes.edited


@pytest.mark.parametrize("dtype", DTYPES, ids=lambda dtype: str(dtype)[6:])
@pytest.mark.parametrize("family", sorted(FAMILIES))
def test_rollback_every_family_dtype_and_layer(family: str, dtype: torch.dtype) -> None:
    model = tiny_model(family).to(dtype)
    before = of_model(model)
    for layer in range(2):
        site = find_site(model, layer)
        with Transaction(rank_one(site)) as edited:
            assert edited.edited != edited.before
            with torch.no_grad():
                model(input_ids=torch.tensor([[5, 6, 7]]))
        with pytest.raises(KeyboardInterrupt):
            commit_and_interrupt(site)
    after = of_model(model)
    assert {key for key in before if before[key] != after[key]} == set()


def commit_and_interrupt(site: EditSite) -> None:
    with Transaction(rank_one(site)) as edited:
        edited.commit()
        raise KeyboardInterrupt


@pytest.mark.slow
@pytest.mark.parametrize("dtype", DTYPES, ids=lambda dtype: str(dtype)[6:])
@pytest.mark.parametrize("family", sorted(FAMILIES))
def test_rollback_guarded_edit_of_every_family_and_dtype(family: str, dtype: torch.dtype) -> None:
    lm = tiny_lm(family, dtype=dtype)
    before = record_state(lm)
    setup = tiny_setup(lm, steps=2)
    GuardedEditor(setup).try_edit(MID_PROMPT_REQUEST)
    GuardedEditor(setup).try_unguarded(FIRST_TOKEN_REQUEST, "exploded")
    after = record_state(lm)
    assert {key for part in before for key in before[part] if before[part][key] != after[part][key]} == set()


def test_rollback_tied_weights_stay_tied() -> None:
    model = tiny_model("gpt2")
    model.transformer.h[1].ln_1 = model.transformer.h[0].ln_1
    model.register_buffer("mark", torch.arange(3.0), persistent=False)
    model.transformer.register_buffer("mark", model.mark)
    before, site = of_model(model), find_site(model, 0)
    for raised in (None, ValueError):
        try:
            with Transaction(rank_one(site)):
                if raised is not None:
                    raise raised
        except ValueError:
            pass
    after = of_model(model)
    assert {key for key in before if before[key] != after[key]} == set()
    assert model.lm_head.weight is model.transformer.wte.weight
    assert model.mark is model.transformer.mark


def test_rollback_site_shared_by_layers_is_not_edited() -> None:
    model = tiny_model("llama")
    model.model.layers[1].mlp = model.model.layers[0].mlp
    before = of_model(model)
    with pytest.raises(ModelError, match="shares its memory"):
        find_site(model, 0)
    assert {key for key, value in of_model(model).items() if before[key] != value} == set()


# ------------------------------------------------------------------------------------------------------ training mode


@pytest.mark.parametrize("part", ["", "model.layers.1.mlp"])
def test_rollback_model_in_training_mode_stays_in_it(guard: GuardedEditor, part: str) -> None:
    model = guard.setup.lm.model
    (proposal,) = guard.propose([guard.assess(MID_PROMPT_REQUEST)])
    model.get_submodule(part).train()
    try:
        before = of_model(model)
        for act in (
            lambda: guard.edit(MID_PROMPT_REQUEST),
            lambda: guard.try_proposal(proposal),
            lambda: guard.try_edit(MID_PROMPT_REQUEST),
        ):
            with pytest.raises(InputError, match="training mode"):
                act()
        with pytest.raises(ModelError, match="training mode"):
            prepare(guard.setup.lm, layer=0, policy=lenient(), statistics="identity")
        assert {key for key, value in of_model(model).items() if before[key] != value} == set()
    finally:
        model.eval()


# ------------------------------------------------------------------------------------------------ errors and interrupts


def failing(error: type[BaseException]) -> Callable[..., Any]:
    def fail(*_: Any, **__: Any) -> Any:
        raise error("inside")

    return fail


def ends(act: Callable[[], Any], error: type[BaseException]) -> None:
    """Run `act`, which ends in `error`: no test of a roll-back holds where nothing was raised."""
    with pytest.raises(error, match="inside"):
        act()


@pytest.mark.parametrize("error", _ERRORS)
@pytest.mark.parametrize("method", ["prepare", "measure"])
@pytest.mark.parametrize("check", CHECKS.names())
def test_rollback_error_in_a_check(
    guard: GuardedEditor, monkeypatch: pytest.MonkeyPatch, check: str, method: str, error: type[BaseException]
) -> None:
    monkeypatch.setattr(CHECKS.get(check), method, failing(error))
    few = replace(guard, checks=("drift", check) if check != "drift" else (check,))
    ends(lambda: few.edit(MID_PROMPT_REQUEST), error)


@pytest.mark.parametrize("error", _ERRORS)
@pytest.mark.parametrize("probe", PROBES.names())
def test_rollback_error_in_a_probe(
    guard: GuardedEditor, monkeypatch: pytest.MonkeyPatch, probe: str, error: type[BaseException]
) -> None:
    monkeypatch.setattr(PROBES.get(probe), "examine", failing(error))
    ends(lambda: guard.assess(MID_PROMPT_REQUEST), error)
    ends(lambda: guard.edit(MID_PROMPT_REQUEST), error)


@pytest.mark.parametrize("error", _ERRORS)
def test_rollback_error_in_generation(
    guard: GuardedEditor, monkeypatch: pytest.MonkeyPatch, error: type[BaseException]
) -> None:
    (proposal,) = guard.propose([guard.assess(MID_PROMPT_REQUEST)])
    monkeypatch.setattr(degeneracy, "continue_greedily", failing(error))
    ends(lambda: guard.try_proposal(proposal), error)
    ends(lambda: guard.edit(MID_PROMPT_REQUEST), error)


@pytest.mark.parametrize("error", _ERRORS)
def test_rollback_error_in_the_search(
    guard: GuardedEditor, monkeypatch: pytest.MonkeyPatch, error: type[BaseException]
) -> None:
    grad, steps = torch.autograd.grad, []

    def second(*given: Any, **named: Any) -> Any:
        steps.append(1)
        if len(steps) == 2:
            raise error("inside")
        return grad(*given, **named)

    monkeypatch.setattr(torch.autograd, "grad", second)
    ends(lambda: guard.edit(MID_PROMPT_REQUEST), error)


class Counting:
    """`nn.Linear.forward` that raises after so many calls."""

    def __init__(self, last: float, error: type[BaseException] = ValueError) -> None:
        self.calls, self._last, self._error, self._real = 0, last, error, nn.Linear.forward

    def forward(self, module: nn.Linear, given: torch.Tensor) -> torch.Tensor:
        self.calls += 1
        if self.calls > self._last:
            raise self._error("inside")
        return self._real(module, given)


def counting(monkeypatch: pytest.MonkeyPatch, counter: Counting) -> None:
    monkeypatch.setattr(nn.Linear, "forward", lambda module, given: counter.forward(module, given))


@pytest.mark.parametrize("error", [KeyboardInterrupt, ValueError])
def test_rollback_error_at_a_random_pass(guard: GuardedEditor, error: type[BaseException]) -> None:
    with pytest.MonkeyPatch.context() as patch:
        whole = Counting(float("inf"))
        counting(patch, whole)
        guard.try_edit(FIRST_TOKEN_REQUEST)
    places = random.Random(5)
    before = of_model(guard.setup.lm.model)
    for _ in range(6):
        with pytest.MonkeyPatch.context() as patch:
            counting(patch, Counting(places.randrange(whole.calls), error))
            ends(lambda: guard.try_edit(FIRST_TOKEN_REQUEST), error)
        assert {key for key, value in of_model(guard.setup.lm.model).items() if before[key] != value} == set()


# -------------------------------------------------------------------------------------------- refusals and whole audits


def test_rollback_refusal_at_each_stage(guard: GuardedEditor) -> None:
    assert guard.edit(MISSING_SUBJECT_REQUEST).refusal
    assert under(guard, rules={"first-token": "refuse"}).edit(FIRST_TOKEN_REQUEST).refusal
    assert under(guard, max_relative_update=1e-6).edit(MID_PROMPT_REQUEST).refusal
    failed = under(guard, min_efficacy=1).edit(MID_PROMPT_REQUEST)
    assert not failed.sound
    assert not failed.kept
    broken = replace(guard, setup=replace(guard.setup, meter=replace(guard.setup.meter, weight_norm=0.0)))
    assert broken.edit(MID_PROMPT_REQUEST).refusal


def test_rollback_whole_audit(guard: GuardedEditor, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    policy = lenient(controls=True)
    setup = replace(guard.setup, policy=policy)
    for name in ("whole", "half"):
        (tmp_path / name).mkdir()
    run_audit(setup, load_edits(FIRST_TOKEN_REQUEST, MID_PROMPT_REQUEST, MISSING_SUBJECT_REQUEST), tmp_path / "whole")
    measure, calls = CHECKS.get("locality").measure, []

    def interrupted(*given: Any, **named: Any) -> Any:
        calls.append(1)
        if len(calls) == 4:
            raise KeyboardInterrupt("inside")
        return measure(*given, **named)

    monkeypatch.setattr(CHECKS.get("locality"), "measure", interrupted)
    ends(
        lambda: run_audit(setup, load_edits(FIRST_TOKEN_REQUEST, MID_PROMPT_REQUEST), tmp_path / "half"),
        KeyboardInterrupt,
    )
