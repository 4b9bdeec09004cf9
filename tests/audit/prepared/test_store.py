"""What was prepared comes from the cache as it was computed, or is computed again."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from editguard.audit.editors.value import Engine, ValueSettings
from editguard.audit.guard import GuardedEditor
from editguard.audit.policy import Policy
from editguard.audit.prepared import stages, store
from editguard.audit.prepared.entry import Entry, read_entry, write_entry
from editguard.audit.setup import Setup, prepare
from editguard.probes.model.language_model import LanguageModel
from editguard.probes.probe import PROBES

from ...helpers.command_line import RunCommand
from ...helpers.foreign_probes import KeyNorm, install_probe
from ...helpers.tiny_models import tiny_lm
from ...helpers.tiny_setups import FIRST_TOKEN_REQUEST, MID_PROMPT_REQUEST, SENTENCES


def ready(lm: LanguageModel | None = None, **options: object) -> Setup:
    given = {"layer": 0, "statistics": "identity", "perplexity_corpus": SENTENCES} | options
    return prepare(lm or tiny_lm(), **given)  # type: ignore[arg-type]


def bits(setup: Setup) -> object:
    """Return all that was prepared, in a form in which a difference of one bit shows."""
    calibration = setup.calibration
    states = setup.prefix_cache and setup.prefix_cache.all_states
    tensors = [setup.meter.sink, calibration.plane.mean, calibration.plane.axes]
    tensors += [] if states is None else [states.hidden, *(tensor for pair in states.layers for tensor in pair)]
    return (
        setup.prefixes,
        list(calibration.thresholds.items()),
        calibration.margins,
        [(t.dtype, t.shape, t.stride(), t.device, t.contiguous().numpy().tobytes()) for t in tensors],
        setup.base_fingerprint,
        setup.statistics.sha256,
    )


@pytest.fixture
def counts(monkeypatch: pytest.MonkeyPatch) -> dict[str, int]:
    """How often each stage was computed."""
    computed = {"sample_prefix_texts": 0, "build_prefix_cache": 0, "calibrate": 0}

    def counted(name: str, function: Callable[..., object]) -> Callable[..., object]:
        def call(*arguments: object) -> object:
            computed[name] += 1
            return function(*arguments)

        return call

    for name in computed:
        monkeypatch.setattr(stages, name, counted(name, getattr(stages, name)))
    return computed


@pytest.mark.tiny
@pytest.mark.usefixtures("kept")
@pytest.mark.parametrize("family", ["llama", "gpt2", "opt"])
def test_prepare_from_the_cache_equals_a_computation_to_the_bit(family: str, counts: dict[str, int]) -> None:
    computed = ready(tiny_lm(family))
    cached = ready(tiny_lm(family))
    assert counts == {"sample_prefix_texts": 1, "build_prefix_cache": 1, "calibrate": 1}
    fresh = ready(tiny_lm(family), fresh=True)
    assert counts == {"sample_prefix_texts": 2, "build_prefix_cache": 2, "calibrate": 2}
    assert bits(computed) == bits(cached) == bits(fresh)
    requests = [FIRST_TOKEN_REQUEST, MID_PROMPT_REQUEST]
    findings = [[a.findings for a in GuardedEditor(setup).assess_all(requests)] for setup in (computed, cached)]
    assert findings[0] == findings[1]


@pytest.mark.real
@pytest.mark.slow
def test_prepare_smollm2_from_the_cache_equals_a_computation_to_the_bit(
    kept: Path, counts: dict[str, int], smollm2: LanguageModel
) -> None:
    computed, cached = (prepare(smollm2, statistics="identity") for _ in range(2))
    assert counts == {"sample_prefix_texts": 1, "build_prefix_cache": 1, "calibrate": 1}
    assert len(list(kept.iterdir())) == 3
    assert bits(computed) == bits(cached)


@pytest.mark.tiny
@pytest.mark.usefixtures("kept")
@pytest.mark.parametrize(
    ("options", "sampled", "continued"),
    [
        ({"seed": 1}, 2, 2),
        ({"layer": 1}, 1, 2),
        ({"settings": ValueSettings(clamp=3.0)}, 1, 1),
        ({"lm": tiny_lm(seed=1)}, 2, 2),
        ({"statistics": None, "corpus": "corpus.txt"}, 1, 1),
    ],
    ids=["seed", "layer", "clamp", "model", "statistics"],
)
def test_prepare_of_something_else_is_computed(
    options: dict[str, object],
    sampled: int,
    continued: int,
    counts: dict[str, int],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("corpus.txt").write_text("\n".join(SENTENCES * 20), encoding="utf-8")
    ready()
    ready(**options)
    assert counts == {"sample_prefix_texts": sampled, "build_prefix_cache": continued, "calibrate": 2}


@pytest.mark.tiny
@pytest.mark.usefixtures("kept")
def test_prepare_under_another_policy_takes_the_cache(counts: dict[str, int]) -> None:
    for policy in (Policy(), Policy(max_leaks=1)):
        assert ready(policy=policy).policy == policy
    assert counts == {"sample_prefix_texts": 1, "build_prefix_cache": 1, "calibrate": 1}


@pytest.mark.tiny
def test_prepare_damaged_entries_are_computed_again_and_replaced(kept: Path, counts: dict[str, int]) -> None:
    before = bits(ready())
    for path in kept.iterdir():
        content = path.read_bytes()
        path.write_bytes(content[: len(content) // 2])
    assert bits(ready()) == before
    assert bits(ready()) == before
    assert counts == {"sample_prefix_texts": 2, "build_prefix_cache": 2, "calibrate": 2}


@pytest.mark.tiny
def test_prepare_whole_entries_of_other_content_are_computed_again(
    kept: Path, counts: dict[str, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    stamps: list[str] = []

    def keep(stamp: str, entry: Entry) -> None:
        stamps.append(stamp)
        write_entry(stamp, entry)

    monkeypatch.setattr(store, "write_entry", keep)
    before = bits(ready())
    texts, states, calibration = stamps[:3]
    whole, whole_states = read_entry(calibration), read_entry(states)
    assert whole is not None
    assert whole_states is not None
    cut = {name: tensor[..., :-1, :].clone() for name, tensor in whole_states.tensors.items()}
    sink = whole.tensors["sink"]
    others = [
        Entry("{}", whole.tensors),
        Entry("[" * 10_000, whole.tensors),
        Entry(whole.text.replace('"sample_size":64', '"sample_size":"64"'), whole.tensors),
        Entry(whole.text, {**whole.tensors, "sink": sink[:-1]}),
        Entry(whole.text, {**whole.tensors, "sink": sink.double()}),
        Entry(whole.text, {"sink": sink}),
    ]
    for number, entry in enumerate(others, start=2):
        write_entry(calibration, entry)
        write_entry(states, Entry("", cut if number % 2 else {"keys-0": cut["keys-0"]}))
        write_entry(texts, Entry('{"sentences": [1], "paragraphs": []}', {}))
        assert bits(ready()) == before
        assert counts == {"sample_prefix_texts": number, "build_prefix_cache": number, "calibrate": number}


@pytest.mark.tiny
@pytest.mark.usefixtures("kept")
def test_prepare_fresh_replaces_an_entry(monkeypatch: pytest.MonkeyPatch) -> None:
    before = bits(ready())
    with monkeypatch.context() as patch:
        # A wrong entry that is whole: what a fault of the machine may leave.
        sampled = stages.sample_prefix_texts
        patch.setattr(stages, "sample_prefix_texts", lambda *given: sampled(*given)._replace(paragraphs=("A. ",) * 3))
        assert bits(ready(fresh=True)) != before
    assert bits(ready()) != before, "the cache was not used"
    assert bits(ready(fresh=True)) == before
    assert bits(ready()) == before, "the entry was not replaced"


@pytest.mark.tiny
@pytest.mark.usefixtures("kept")
@pytest.mark.parametrize(
    "change", [{"threshold": lambda quantiles: 0.5}, {"description": "another rule"}], ids=["threshold", "description"]
)
def test_prepare_changed_rule_of_a_probe_is_calibrated_again(
    change: dict[str, object], counts: dict[str, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    ready()
    name, probe = next((name, probe) for name, probe in PROBES if probe.calibrated)
    metric, rule = next(iter(probe.calibrated.items()))
    monkeypatch.setattr(probe, "calibrated", {**probe.calibrated, metric: replace(rule, **change)})  # type: ignore[arg-type]
    threshold = ready().calibration.thresholds[f"{name}/{metric}"]
    assert counts["calibrate"] == 2
    assert threshold.value == float(probe.calibrated[metric].threshold(threshold.quantiles))
    assert threshold.rule == probe.calibrated[metric].description


@pytest.mark.tiny
@pytest.mark.usefixtures("kept")
def test_prepare_new_probe_of_another_package_is_calibrated(
    counts: dict[str, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    ready()
    install_probe(monkeypatch, KeyNorm)
    assert "key-norm/norm" in ready().calibration.thresholds
    assert "key-norm/norm" in ready().calibration.thresholds
    assert counts == {"sample_prefix_texts": 2, "build_prefix_cache": 2, "calibrate": 2}


@pytest.mark.tiny
def test_prepare_by_the_reference_engine_keeps_nothing(kept: Path, counts: dict[str, int]) -> None:
    for _ in range(2):
        ready(settings=ValueSettings(engine=Engine.REFERENCE))
    assert counts == {"sample_prefix_texts": 2, "build_prefix_cache": 0, "calibrate": 2}
    assert not kept.exists()


@pytest.mark.tiny
@pytest.mark.usefixtures("kept")
def test_guarded_editor_load_fresh_computes_again(counts: dict[str, int]) -> None:
    lm = tiny_lm()
    for fresh in (False, False, True):
        GuardedEditor.load(lm, policy=Policy(), layer=0, statistics="identity", fresh=fresh)
    assert counts == {"sample_prefix_texts": 2, "build_prefix_cache": 2, "calibrate": 2}


@pytest.mark.tiny
@pytest.mark.usefixtures("kept")
def test_probe_fresh_computes_again_and_prints_the_same(
    counts: dict[str, int], checkpoint: Path, place: Path, command: RunCommand
) -> None:
    arguments = ("probe", place / "edits.json", "--model", checkpoint, "--layer", "0", "--stats", "identity", "--json")
    results = [command(*arguments, *more) for more in ((), (), ("--fresh",))]
    assert results[0].out == results[1].out == results[2].out
    assert {result.code for result in results} == {0}
    assert counts == {"sample_prefix_texts": 2, "build_prefix_cache": 2, "calibrate": 2}
