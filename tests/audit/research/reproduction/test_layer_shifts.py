"""The sweep over all layers: kept under a stamp, made again under another, and read at the site that was named."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from editguard.audit.guard import GuardedEditor
from editguard.audit.research.reproduction import layer_shifts as module
from editguard.audit.research.reproduction.cases import CaseKind, Cases, CaseSelection, ReproductionCase
from editguard.audit.research.reproduction.layer_shifts import LayerShifts, load_or_measure_shifts
from editguard.audit.setup import Setup, prepare
from editguard.probes.keys.corpus_statistics import compute_statistics, read_corpus
from editguard.probes.keys.prefixes import Role
from editguard.probes.keys.subject_keys import compute_subject_keys
from editguard.probes.model.site import find_site
from editguard.probes.research.layer_sweep import LayerShift
from torch.nn.functional import cosine_similarity

from ....helpers.tiny_models import tiny_lm
from ....helpers.tiny_setups import FIRST_TOKEN_REQUEST, MID_PROMPT_REQUEST, SENTENCES, lenient

pytestmark = pytest.mark.tiny

STAMP = {"seed": "0"}


def build_cases(setup: Setup) -> Cases:
    kinds = {FIRST_TOKEN_REQUEST: CaseKind.FIRST, MID_PROMPT_REQUEST: CaseKind.ORDINARY}
    chosen = CaseSelection(
        stamp=STAMP, probed=2, unusable=0, found={}, kinds={request.id: kind for request, kind in kinds.items()}
    )
    return Cases(
        tuple(
            ReproductionCase(assessment.request, kinds[assessment.request], assessment)
            for assessment in GuardedEditor(setup).assess_all(list(kinds))
        ),
        chosen,
    )


def measure_shifts(
    setup: Setup, path: Path, corpus: str | None = None, stamp: dict[str, str] | None = None
) -> LayerShifts:
    return load_or_measure_shifts(
        setup, build_cases(setup), corpus, path=path, stamp=STAMP if stamp is None else stamp, progress=lambda *_: None
    )


def test_layer_shifts_are_reused_under_the_same_stamp_and_text(
    setup: Setup, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    text, path = tmp_path / "text.txt", tmp_path / "layers.json"
    text.write_text("\n".join(SENTENCES * 40), encoding="utf-8")
    own = replace(setup, statistics=compute_statistics(setup.lm, setup.site, read_corpus(str(text))))
    first = measure_shifts(own, path, str(text))
    assert set(first.layers) == set(range(len(setup.site.blocks)))
    runs: list[int] = []
    real = module.sweep_layers

    def count_sweeps(*arguments: Any, **options: Any) -> dict[int, list[LayerShift]]:
        runs.append(1)
        return real(*arguments, **options)

    monkeypatch.setattr(module, "sweep_layers", count_sweeps)
    assert measure_shifts(own, path, str(text)) == first
    assert not runs
    assert measure_shifts(own, path, str(text), {"seed": "1"}).layers == first.layers
    assert len(runs) == 1
    text.write_text("\n".join(SENTENCES * 41), encoding="utf-8")
    assert measure_shifts(own, path, str(text), {"seed": "1"}).layers != first.layers
    assert len(runs) == 2
    path.write_text("{", encoding="utf-8")
    measure_shifts(own, path, str(text))
    assert len(runs) == 3


def test_layer_shifts_named_site_is_read_at_every_layer(tmp_path: Path) -> None:
    named = "model.layers.{layer}.mlp.up_proj"
    lm = tiny_lm()
    setup = prepare(lm, layer=0, site_path=named, policy=lenient(), statistics="identity", perplexity_corpus=SENTENCES)
    shift_file = measure_shifts(setup, tmp_path / "layers.json")
    for layer, figures in shift_file.layers.items():
        keys = compute_subject_keys(
            lm, find_site(lm.model, layer, named), FIRST_TOKEN_REQUEST, setup.prefixes.texts(Role.KEY)
        )
        assert figures[0].cosine == pytest.approx(
            float(cosine_similarity(keys.no_prefix_key, keys.mean_key, 0)), abs=1e-4
        )
