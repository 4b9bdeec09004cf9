"""Does the screen decide as the exact measurement does, how many requests does it settle, and how much faster is it?

    python benchmarks/screen_decisions.py counterfact-dev.json --out screen.json [--limit 1000]

docs/research/performance.md quotes its output.
"""

from __future__ import annotations

import argparse
import json
import random
import time
from pathlib import Path

from editguard.audit.guard import GuardedEditor
from editguard.probes.requests.loader import load_requests


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("edits")
    parser.add_argument("--limit", type=int, default=None, help="so many, drawn with seed 0; default: all")
    parser.add_argument("--out", type=Path, required=True)
    options = parser.parse_args()
    guard, requests = GuardedEditor.load(), list(load_requests(options.edits).requests)
    if options.limit is not None:
        requests = random.Random(0).sample(requests, options.limit)
    result = {"requests": 0, "settled": 0, "disagree": [], "changed": 0, "exact_seconds": 0.0, "screen_seconds": 0.0}
    for start in range(0, len(requests), 64):
        chunk = requests[start : start + 64]
        exact, seconds = _timed(lambda part=chunk: guard.assess_all(part))
        screened, less = _timed(lambda part=chunk: guard.assess_all(part, screen=True))
        for full, few in zip(exact, screened, strict=True):
            result["settled"] += few.evidence is None or len(few.evidence.keys.keys) < len(full.evidence.keys.keys)
            result["changed"] += full.decision.action.value != "allow"
            if few.decision.action is not full.decision.action:
                result["disagree"].append([full.request.id, full.decision.action.value, few.decision.action.value])
        result["requests"] += len(chunk)
        result["exact_seconds"] += seconds
        result["screen_seconds"] += less
        options.out.write_text(json.dumps(result, indent=1))
    print(json.dumps(result, indent=1))


def _timed(run):
    started = time.perf_counter()
    outcome = run()
    return outcome, time.perf_counter() - started


if __name__ == "__main__":
    main()
