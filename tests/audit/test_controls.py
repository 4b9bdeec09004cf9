"""Controls: what is chosen for a model, and when a control has shown what it must."""

from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace
from typing import Any, cast

import pytest
from editguard.audit.controls import Control, control_guard, controls_for, propose_controls, run_control
from editguard.audit.editors.base import RankOneUpdate, compute_updates
from editguard.audit.guard import GuardedEditor, Proposal
from editguard.audit.policy import Policy
from editguard.audit.setup import Setup
from editguard.probes.fingerprint import tensor_hashes
from editguard.probes.keys import locate
from editguard.suites.check import Measurement, Outcome

from .tiny_lm import MIDDLE, REQUEST, lenient, tokenizer

pytestmark = pytest.mark.tiny


def test_the_bad_control_is_rome_on_a_first_token_and_the_good_one_an_ordinary_edit(setup: Setup) -> None:
    bad, good = controls_for(setup)
    assert (bad.editor, bad.expect) == ("rome", "collapse")
    assert locate(setup.lm, bad.request).is_first_token
    assert (good.editor, good.expect) == ("rome", "sound")
    assert not locate(setup.lm, good.request).is_first_token
    assert bad.request.id.startswith("control-bad-")
    assert good.request.id.startswith("control-good-")


def test_where_a_bos_stands_first_the_bad_control_is_blown_up(setup: Setup) -> None:
    with_bos = replace(setup, lm=replace(setup.lm, tokenizer=tokenizer(bos=True)))
    bad, good = controls_for(with_bos)
    assert [(control.editor, control.expect) for control in (bad, good)] == [
        ("exploded", "collapse"),
        ("rome", "sound"),
    ]
    assert bad.request.id != good.request.id


def test_the_exploded_update_is_the_published_one_300_times(setup: Setup) -> None:
    plain, blown = compute_updates(setup.editing, [("rome", MIDDLE), ("exploded", MIDDLE)])
    assert isinstance(plain, RankOneUpdate)
    assert isinstance(blown, RankOneUpdate)
    assert blown.norm == pytest.approx(300 * plain.norm)


def measured(value: float | None, outcome: Outcome, metric: str = "ratio") -> Measurement:
    return Measurement("perplexity", metric, value, outcome, "corpus")


RATIO = [
    ("collapse", [measured(1000.0, Outcome.FAIL)], False, True),
    ("collapse", [measured(1.4, Outcome.FAIL)], False, False),
    ("collapse", [measured(1000.0, Outcome.FAIL)], True, False),
    ("collapse", [measured(1.0, Outcome.PASS)], True, False),
    # The bound itself is no collapse, and another check's ratio none of the perplexity.
    ("collapse", [measured(1.5, Outcome.FAIL)], False, False),
    ("collapse", [replace(measured(1000.0, Outcome.FAIL), check="degeneracy")], False, False),
    # Not a number is a collapse too; a check that gives nothing else fails the known-good control.
    ("collapse", [measured(None, Outcome.UNMEASURED)], False, True),
    # Perplexity was not looked at, so nothing was seen.
    ("collapse", [], False, False),
    ("collapse", [measured(1000.0, Outcome.INFO, "max")], False, False),
    ("sound", [measured(1.0, Outcome.PASS)], True, True),
    ("sound", [measured(1.0, Outcome.PASS)], False, False),
    ("sound", [], False, False),
]


@pytest.mark.parametrize(("expect", "measurements", "sound", "ok"), RATIO)
def test_a_control_is_ok_only_if_what_it_must_show_was_measured(
    setup: Setup, expect: Any, measurements: list[Measurement], sound: bool, ok: bool
) -> None:
    strict = replace(setup, policy=lenient(collapse_ratio=1.5))
    result = SimpleNamespace(measurements=measurements, sound=sound)
    guard = SimpleNamespace(setup=strict, test=lambda proposal: result)
    made = cast("Proposal", None)
    assert run_control(cast("GuardedEditor", guard), Control(REQUEST, "rome", expect), made) == (result, ok)


def test_controls_are_judged_by_the_wider_of_the_policys_and_the_usual_bounds(setup: Setup) -> None:
    asked = Policy(min_locality=1.0, max_relative_update=0.01, max_perplexity_ratio=1.2, collapse_ratio=3.0)
    policy = control_guard(GuardedEditor(replace(setup, policy=asked))).setup.policy
    assert (policy.min_locality, policy.max_relative_update) == (Policy().min_locality, Policy().max_relative_update)
    assert (policy.max_perplexity_ratio, policy.collapse_ratio) == (1.2, 3.0)


def test_running_a_control_leaves_the_weights_alone(setup: Setup) -> None:
    before = tensor_hashes(setup.lm.model)
    guard, control = GuardedEditor(setup), Control(REQUEST, "exploded", "collapse")
    (made,) = propose_controls(guard, [control])
    result, _ = run_control(guard, control, made)
    assert result.update is not None
    assert result.measurements
    assert tensor_hashes(setup.lm.model) == before
