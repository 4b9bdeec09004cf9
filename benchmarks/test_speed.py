"""The two engines side by side, one group a stage: ``tox -e bench``, or ``pytest benchmarks --benchmark-json speed.json``.

For regressions between two commits; ratios taken in one run, operations and memory come from ``performance.py``.
"""

from __future__ import annotations

import pytest
from editguard.audit.editors.value import Engine, ValueSettings
from editguard.audit.guard import GuardedEditor
from editguard.audit.setup import prepare
from editguard.probes.keys.corpus_statistics import Corpus, compute_statistics
from editguard.probes.model.language_model import load_model
from editguard.suites.builtin import load_builtin_corpus, load_builtin_edits

FIRST = [edit for edit in load_builtin_edits() if edit.group == "single-token-first"]
MIDDLE = [edit for edit in load_builtin_edits() if edit.group == "mid-prompt"]


@pytest.fixture(scope="session")
def lm():
    return load_model()


@pytest.fixture(scope="session")
def guards(lm):
    return {
        engine: GuardedEditor(prepare(lm, statistics="identity", settings=ValueSettings(engine=engine)))
        for engine in Engine
    }


@pytest.mark.parametrize(("engine", "screen"), [(Engine.REFERENCE, False), (Engine.LIVE, False), (Engine.LIVE, True)])
@pytest.mark.benchmark(group="probing, 4 requests")
def test_probing(benchmark, guards, engine, screen):
    requests = [*FIRST[:2], *MIDDLE[:2]]
    assessments = benchmark.pedantic(guards[engine].assess_all, (requests,), {"screen": screen}, rounds=3)
    assert all(assessment.evidence is not None for assessment in assessments)


@pytest.mark.parametrize("engine", [Engine.REFERENCE, Engine.LIVE])
@pytest.mark.benchmark(group="one guarded edit with its checks")
def test_a_guarded_edit(benchmark, guards, engine):
    guard = guards[engine]
    guard.setup.bench_perplexity()
    result = benchmark.pedantic(guard.try_edit, (FIRST[0],), {"editor": "prefixed"}, rounds=1)
    assert result.measurements


@pytest.mark.benchmark(group="key statistics")
def test_statistics(benchmark, lm, guards):
    corpus = Corpus(tuple(load_builtin_corpus() * 4), "benchmark")
    statistics = benchmark.pedantic(compute_statistics, (lm, guards[Engine.LIVE].setup.site, corpus), rounds=3)
    assert statistics.provenance.tokens
