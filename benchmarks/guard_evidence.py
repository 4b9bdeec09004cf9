"""Does the guard keep what it promises? All single-token-first requests of a file, unguarded and guarded, and the
decisions on ordinary ones.

    python benchmarks/guard_evidence.py counterfact-dev.json --ordinary 200 --out evidence.json

Prints, for each first-token request, the perplexity ratio after the unguarded published editor and after the guard,
and whether every held-out prefix of each family gives the target; then how many of the ordinary requests `probe` would
change, with the reason in numbers. docs/research/results.md quotes its output.
"""

from __future__ import annotations

import argparse
import json
import random
import sys
from collections import Counter
from pathlib import Path

from editguard.audit.guard import GuardedEditor
from editguard.audit.policy import Action, Policy
from editguard.probes.errors import RequestError
from editguard.probes.keys.subject_keys import locate
from editguard.probes.requests.loader import load_requests


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("edits")
    parser.add_argument("--model", default="smollm2-135m")
    parser.add_argument("--layer", type=int, default=None)
    parser.add_argument("--ordinary", type=int, default=200)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--guarded-only", action="store_true", help="leave the unguarded edits out")
    parser.add_argument("--rewriter", default="everywhere", help="the editor that unsafe edits are rewritten with")
    parser.add_argument("--out", type=Path, required=True)
    options = parser.parse_args()
    guard = GuardedEditor.load(
        options.model, layer=options.layer, seed=options.seed, policy=Policy(rewrite_editor=options.rewriter)
    )
    first, ordinary = split(guard, load_requests(options.edits).requests)
    print(f"layer {guard.setup.site.layer}: {len(first)} first-token, {len(ordinary)} ordinary requests", flush=True)
    decisions = _ordinary(guard, random.Random(options.seed).sample(ordinary, options.ordinary))
    result = {"layer": guard.setup.site.layer, "ordinary": decisions, "first": []}
    proposals = guard.propose(guard.assess_all(first))
    for request, proposal in zip(first, proposals, strict=True):
        unguarded = None if options.guarded_only else guard.try_unguarded(request, "rome")
        result["first"].append(_one(request, unguarded, guard.try_proposal(proposal)))
        print(json.dumps(result["first"][-1]), flush=True)
        options.out.write_text(json.dumps(result, indent=1))
    print(json.dumps(_total(result["first"]), indent=1))


def split(guard, requests):
    first, ordinary = [], []
    for request in requests:
        try:
            position = locate(guard.setup.lm, request)
        except RequestError as error:
            print(f"left out {request.id}: {error}", file=sys.stderr)
            continue
        (first if position.is_first_token else ordinary).append(request)
    return first, ordinary


def _ordinary(guard, requests):
    changed = []
    for start in range(0, len(requests), 50):
        for assessment in guard.assess_all(requests[start : start + 50]):
            request, decision = assessment.request, assessment.decision
            if decision.action is not Action.ALLOW:
                changed.append([request.id, request.subject, decision.action.value, decision.reasons])
                print(changed[-1], flush=True)
    print(f"{len(changed)} of {len(requests)} ordinary requests refused or rewritten", flush=True)
    return {"asked": len(requests), "changed": changed}


def _one(request, unguarded, guarded):
    families = {
        m.condition.removeprefix("family:"): [m.passed, m.total]
        for m in guarded.measurements
        if m.check == "efficacy" and m.protocol == "exact" and m.condition.startswith("family:")
    }
    return {
        "id": request.id,
        "subject": request.subject,
        "rome": None if unguarded is None else _ratio(unguarded),
        "decision": guarded.decision.action.value,
        "guarded": _ratio(guarded),
        "sound": guarded.sound,
        "refusal": guarded.refusal,
        "families": families,
        "unprefixed": _share(guarded, "efficacy", "unprefixed"),
        "generalization": _share(guarded, "generalization", "prefixed"),
        "locality": _share(guarded, "locality", "unprefixed"),
        "neighbours' answers": _answers(guarded),
        "seconds": round(guarded.seconds, 1),
    }


def _ratio(result):
    return next((m.value for m in result.measurements if m.check == "perplexity" and m.metric == "ratio"), None)


def _share(result, check, condition):
    protocols = {"token-match"} if check == "locality" else {"exact"}
    return next(
        (
            [m.passed, m.total]
            for m in result.measurements
            if m.check == check and m.condition == condition and m.protocol in protocols
        ),
        None,
    )


def _answers(result):
    return next(
        ([m.passed, m.total] for m in result.measurements if m.metric == "answers" and m.condition == "unprefixed"),
        None,
    )


def _total(rows):
    families: dict[str, Counter[str]] = {}
    refused, rows = [row["id"] for row in rows if row["refusal"]], [row for row in rows if not row["refusal"]]
    for row in rows:
        for name, (passed, total) in row["families"].items():
            families.setdefault(name, Counter()).update(passed=passed, total=total)
    return {
        "collapsed by rome": sum(row["rome"] is not None and row["rome"] > 1.5 for row in rows),
        "requests": len(rows) + len(refused),
        "refused": refused,
        "worst guarded ratio": max((row["guarded"] or float("inf") for row in rows), default=None),
        "efficacy by family": {name: [count["passed"], count["total"]] for name, count in families.items()},
        "unprefixed": [sum(row["unprefixed"][0] for row in rows), sum(row["unprefixed"][1] for row in rows)],
        "sound": sum(row["sound"] for row in rows),
    }


if __name__ == "__main__":
    main()
