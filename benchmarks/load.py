"""Does one run hold many requests? Peak memory and size of what is written, on a tiny random model.

    python benchmarks/load.py --requests 20000 --out build/load

Every request is probed, edited (three steps of the search), checked, undone, logged and reported, as in any audit; with random
weights of two small layers that takes a fraction of a second, and what grows with the requests is the memory of their records.
"""

from __future__ import annotations

import argparse
import json
import resource
import sys
import time
from pathlib import Path

from editguard.audit.folders.file_names import AUDIT_FILES
from editguard.audit.folders.output_folder import locked_folder
from editguard.audit.freed_memory import keep_freed_memory
from editguard.audit.run.audit import run_audit
from editguard.probes.model.language_model import load_model
from editguard.probes.requests.loader import load_requests

sys.path.insert(0, str(Path(__file__).parent.parent))

from tests.helpers.tiny_models import save_checkpoint
from tests.helpers.tiny_setups import tiny_setup

SUBJECTS = ("Chicago", "France", "Paris", "Lyon", "Istanbul", "the capital of France")
FORMS = (
    "{} is a twin city of",
    "It is {} that is a twin city of",
    "The capital of {} is",
    "In 2024 the twin of {} was",
)
TARGETS = ("Istanbul", "Paris", "Lyon", "a city", "2024")


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--requests", type=int, default=20_000)
    parser.add_argument("--out", type=Path, required=True)
    options = parser.parse_args()
    keep_freed_memory()  # as the command does
    options.out.mkdir(parents=True, exist_ok=True)
    edits = options.out / "edits.jsonl"
    edits.write_text("".join(json.dumps(_request(index)) + "\n" for index in range(options.requests)))
    lm = load_model(str(save_checkpoint(options.out / "model")), device="cpu", dtype="float32")
    setup = tiny_setup(lm)
    started, audit = time.monotonic(), options.out / "audit"
    with locked_folder(audit, overwrite=True):
        summary = run_audit(
            setup, load_requests(edits), audit, overwrite=True, progress=_report_tenths(options.requests, started)
        )
    _print_memory("the outputs", started)
    for name in AUDIT_FILES:
        if (audit / name).is_file():
            print(f"{name}: {(audit / name).stat().st_size / 2**20:.1f} MiB")
    print(f"{summary.verdict}: {summary.edits} edits, {summary.failed} failed")


def _request(index: int) -> dict[str, object]:
    subject, form = SUBJECTS[index % len(SUBJECTS)], FORMS[index // len(SUBJECTS) % len(FORMS)]
    target = TARGETS[index // (len(SUBJECTS) * len(FORMS)) % len(TARGETS)]
    # Texts of many lengths, no two alike but those without a word more.
    more = index % 39
    prompt = " ".join([*["so"] * more, *[str(index)] * (more > 0), form.format(subject)])
    return {
        "id": f"edit-{index}",
        "subject": subject,
        "prompt": prompt,
        "target_new": target,
        "target_true": "Berlin",
        "paraphrases": [f"Today {prompt}"],
        "neighbourhood": ["The capital of Lyon is", f"Not {prompt}"],
        "group": form,
    }


def _report_tenths(total: int, started: float):
    marks = {total * part // 10 for part in range(1, 11)}

    def progress(what: str, done: int, _: int) -> None:
        if what == "edits" and done in marks:
            _print_memory(f"{done} edits", started)

    return progress


def _print_memory(what: str, started: float) -> None:
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    print(f"{what}: peak memory {peak:.0f} MiB, {time.monotonic() - started:.0f} s", flush=True)


if __name__ == "__main__":
    main()
