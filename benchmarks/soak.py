"""Drift and memory of hundreds of guarded edits when each sound one is kept.

    python benchmarks/soak.py counterfact-dev.json --edits 300 --out build/soak

An audit in sequence of edits drawn from the file. With --wide the accumulated drift has no bound, so that the sequence never
closes and all edits are tried; each is still compared with the policy's other bounds. Every ten edits a line is printed, and
the place where the default bounds would have closed. With --tell only these lines are printed, of a run that may have been
killed. The folder holds the audit, whose report draws the drift. docs/research/reliability.md quotes it.
"""

from __future__ import annotations

import argparse
import random
import time
from collections import Counter
from pathlib import Path

from editguard.audit.folders.file_names import LOG
from editguard.audit.folders.output_folder import locked_folder
from editguard.audit.freed_memory import keep_freed_memory
from editguard.audit.policy import Policy
from editguard.audit.run.audit import run_audit
from editguard.audit.setup import prepare
from editguard.probes.model.language_model import load_model
from editguard.probes.requests.loader import LoadedRequests, load_requests
from editguard.reports.log.file import read_log

NO_BOUND = {"max_accumulated_ratio": 1e9, "max_accumulated_update": 1e9, "min_retained": 0.0}


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("file")
    parser.add_argument("--model", default="smollm2-135m")
    parser.add_argument("--edits", type=int, default=300)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--wide", action="store_true", help="put no bound on the accumulated drift")
    parser.add_argument("--resume", action="store_true")
    parser.add_argument(
        "--tell", action="store_true", help="only tell of the log that the folder holds, finished or not"
    )
    parser.add_argument("--out", type=Path, required=True)
    options = parser.parse_args()
    keep_freed_memory()  # as the command does
    if not options.tell:
        _run(options)
    _tell(options.out / LOG)


def _run(options: argparse.Namespace) -> None:
    loaded = load_requests(options.file)
    drawn = random.Random(options.seed).sample(loaded.requests, min(options.edits, len(loaded.requests)))
    setup = prepare(load_model(options.model), policy=Policy(**(NO_BOUND if options.wide else {})), seed=options.seed)
    with locked_folder(options.out, overwrite=False, resume=options.resume):
        drawn_requests = LoadedRequests(requests=tuple(drawn), invalid=(), source=loaded.source, sha256=loaded.sha256)
        run_audit(
            setup,
            drawn_requests,
            options.out,
            in_sequence=True,
            resume=options.resume,
            progress=_memory(time.monotonic()),
        )


def _memory(started: float):
    def progress(what: str, done: int, _: int) -> None:
        if what == "edits" and done % 10 == 0:
            pages = int(Path("/proc/self/statm").read_text().split()[1])
            print(f"{done} edits: {pages * 4096 / 2**20:.0f} MiB, {time.monotonic() - started:.0f} s", flush=True)

    return progress


def _tell(path: Path) -> None:
    """Print the drift at every tenth edit, where a default bound is first left, and at the last one, and what became of all."""
    log, bounds, kept_edits = read_log(path), Policy(), 0
    waiting = {"perplexity-ratio": bounds.max_accumulated_ratio, "relative-norm": bounds.max_accumulated_update}
    for record in log.edits:
        drift = {
            measurement.metric: measurement.value
            for measurement in record.measurements
            if measurement.check == "accumulated-drift"
        }
        kept_edits += record.weights is not None and record.weights.kept
        left = [name for name, bound in waiting.items() if not (drift.get(name, 0.0) or 0.0) <= bound]
        if left or record.index % 10 == 0 or record is log.edits[-1]:
            figures = "  ".join(
                "not measured" if value is None else f"{name} {value:.4f}" for name, value in drift.items()
            )
            beyond = f"  leaves the default bound of {', '.join(left)}" if left else ""
            print(
                f"{record.index + 1:>4} tried {kept_edits:>4} kept  {figures or 'not measured'}  {record.outcome}{beyond}"
            )
        for name in left:
            del waiting[name]
    outcomes = Counter(record.outcome for record in log.edits)
    ending = "unfinished" if log.footer is None else f"said at the end: {log.footer.retained}"
    print(f"{kept_edits} of {len(log.edits)} kept; {dict(outcomes)}; {ending}")


if __name__ == "__main__":
    main()
