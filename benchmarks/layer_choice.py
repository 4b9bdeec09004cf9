"""Which layer should be edited? The guard's two editors over layers of one model, on edits of the built-in suite.

    python benchmarks/layer_choice.py --layers 5 9 13 17 21 --edits 6 --out layers.json

For every layer: first-token edits by `prefixed`, the others by `rome`; efficacy (exact, under held-out prefixes and
without one), generalization, locality (share of unchanged tokens), perplexity ratio, relative norm, seconds.
docs/research/layer.md holds the table that decided the default of the embedded model.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from pathlib import Path

from editguard.audit.editors.base import EditContext, compute_updates
from editguard.audit.editors.update import WeightUpdate
from editguard.audit.editors.value import ValueSettings
from editguard.audit.transaction import Transaction
from editguard.probes.forward.prefix_cache import build_prefix_cache
from editguard.probes.keys.corpus_statistics import compute_statistics, sample_corpus
from editguard.probes.keys.prefixes import make_prefixes
from editguard.probes.model.language_model import load_model
from editguard.probes.model.site import find_site
from editguard.probes.model.stored_weight import store_weight
from editguard.suites.builtin import load_builtin_corpus, load_builtin_edits
from editguard.suites.check import CHECKS, Bench, EditUnderTest, Limits

_CHECKS = ("efficacy", "generalization", "locality", "perplexity")
_GROUPS = {"prefixed": "single-token-first", "rome": "mid-prompt"}
_LIMITS = Limits(
    perplexity_ratio=1.05,
    efficacy=0.5,
    locality=0.5,
    entropy_ratio=0.5,
    relative_update=0.75,
    accumulated_ratio=1.1,
    accumulated_update=1.5,
)


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--model", default="smollm2-135m")
    parser.add_argument("--layers", type=int, nargs="+", required=True)
    parser.add_argument("--edits", type=int, default=6, help="edits of each of the two kinds")
    parser.add_argument("--editors", nargs="+", choices=tuple(_GROUPS), default=list(_GROUPS))
    parser.add_argument("--out", type=Path, required=True)
    options = parser.parse_args()
    lm = load_model(options.model)
    prefixes, corpus = make_prefixes(lm, 0), sample_corpus(lm, seed=0)
    rows = []
    for layer in options.layers:
        site = find_site(lm.model, layer)
        cache = build_prefix_cache(lm, site, [prefix.text for prefix in prefixes.prefixes])
        context = EditContext(
            lm=lm,
            site=site,
            statistics=compute_statistics(lm, site, corpus),
            prefixes=prefixes,
            settings=ValueSettings(),
            prefix_cache=cache,
        )
        bench = Bench(
            lm=lm,
            prefixes=prefixes,
            corpus=load_builtin_corpus(),
            limits=_LIMITS,
            weights=(store_weight(site),),
            prefix_cache=cache,
        )
        for editor in options.editors:
            group = _GROUPS[editor]
            edits = [edit for edit in load_builtin_edits() if edit.group == group]
            chosen = edits[:: max(1, len(edits) // options.edits)][: options.edits]
            rows.append({"layer": layer, "editor": editor, **_measure(context, bench, editor, chosen)})
            print(json.dumps(rows[-1]), flush=True)
    options.out.write_text(json.dumps(rows, indent=1))


def _measure(context, bench, editor, edits):
    values_by_name: dict[str, list[float]] = {}
    started = time.monotonic()
    updates = compute_updates(context, [(editor, edit) for edit in edits])
    seconds = (time.monotonic() - started) / len(edits)
    for edit, update in zip(edits, updates, strict=True):
        if not isinstance(update, WeightUpdate):
            raise update
        values_by_name.setdefault("relative_norm", []).append(update.norm / float(bench.weights[0].matrix().norm()))
        values_by_name.setdefault("loss", []).append(update.figures[0].loss)
        checks = [CHECKS.get(name)() for name in _CHECKS]
        before = [check.prepare(bench, [edit])[0] for check in checks]
        with Transaction(update):
            for check, state in zip(checks, before, strict=True):
                under_test = EditUnderTest(request=edit, state=state, needs_prefix=update.needs_prefix)
                for measurement in check.measure(bench, under_test).measurements:
                    is_measured = (
                        measurement.protocol == "exact" or check.name == "locality" or measurement.metric == "ratio"
                    )
                    if (
                        is_measured
                        and not measurement.condition.startswith("family:")
                        and measurement.value is not None
                    ):
                        values_by_name.setdefault(f"{check.name}_{measurement.condition}", []).append(measurement.value)
    means = {name: round(statistics.fmean(values), 4) for name, values in values_by_name.items()}
    worst = round(max(values_by_name["perplexity_corpus"]), 4)
    return {"edits": len(edits), "seconds_update": round(seconds, 2), **means, "perplexity_worst": worst}


if __name__ == "__main__":
    main()
