"""How far are denominators under C from sampled text from those under C from real text?

    python benchmarks/statistics_source.py ME-PPL.json --documents 2000 --out statistics.json

Computes C twice at the default layer, from text sampled from the model (the default) and from the given corpus, and
compares |u.k_u|, |u.k_bar| and their ratio over the null sample and the suite's first-token subjects; C = identity is
the third column. docs/research/results.md quotes its output.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import torch
from editguard.audit.setup import NULL_SAMPLE, default_layer, make_null_sample
from editguard.probes.evidence import EvidenceMeter, compute_sink_key
from editguard.probes.keys.corpus_statistics import Corpus, compute_statistics, read_corpus, sample_corpus
from editguard.probes.keys.prefixes import make_prefixes
from editguard.probes.keys.statistics import make_identity_statistics
from editguard.probes.model.language_model import load_model
from editguard.probes.model.site import find_site
from editguard.suites.builtin import load_builtin_edits


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("corpus")
    parser.add_argument("--model", default="smollm2-135m")
    parser.add_argument("--layer", type=int, default=None)
    parser.add_argument("--documents", type=int, default=2000)
    parser.add_argument("--out", type=Path, required=True)
    options = parser.parse_args()
    lm = load_model(options.model)
    site = find_site(lm.model, default_layer(lm) if options.layer is None else options.layer)
    prefixes, null = make_prefixes(lm, 0), make_null_sample(lm, NULL_SAMPLE)
    first = [edit for edit in load_builtin_edits() if edit.group == "single-token-first"]
    sink, norm = compute_sink_key(lm, site, [request.prompt for request in null]), float(site.matrix().norm())
    real = read_corpus(options.corpus)
    sources = {
        "sampled": compute_statistics(lm, site, sample_corpus(lm, seed=0)),
        "sampled, another seed": compute_statistics(lm, site, sample_corpus(lm, seed=1)),
        "corpus": compute_statistics(lm, site, Corpus(real.documents[: options.documents], real.source)),
        "identity": make_identity_statistics(site.d_ff, lm.fingerprint, site.layer),
    }
    results = {}
    for name, statistics in sources.items():
        meter = EvidenceMeter(lm=lm, site=site, statistics=statistics, prefixes=prefixes, sink=sink, weight_norm=norm)
        results[name] = {
            group: [(e.denominator, e.denominator_prefixed, e.ratio) for e in map(meter.measure, requests)]
            for group, requests in (("ordinary", null), ("first-token", first))
        }
        print(
            f"{name}: {statistics.provenance.tokens} tokens, condition number {statistics.condition_number:.4g}",
            flush=True,
        )
    rows = [
        _row(name, group, results[name][group], results["corpus"][group]) for name in results for group in results[name]
    ]
    options.out.write_text(json.dumps(rows, indent=1))
    for row in rows:
        print(json.dumps(row))


def _row(name, group, values, reference):
    own, other = torch.tensor(values), torch.tensor(reference)
    relative = (own / other).log().abs().exp() - 1
    quantiles = {
        f"{what}, median / max relative difference": [
            round(float(relative[:, i].median()), 4),
            round(float(relative[:, i].max()), 4),
        ]
        for i, what in enumerate(("|u.k_u|", "|u.k_bar|", "ratio"))
    }
    spread = [round(float(x), 5) for x in (own[:, 2].min(), own[:, 2].median(), own[:, 2].max())]
    return {"C": name, "subjects": group, "count": len(values), **quantiles, "ratio min / median / max": spread}


if __name__ == "__main__":
    main()
