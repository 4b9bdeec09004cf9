"""The same readers and the same rule, led by coverage: atheris keeps what reaches new code and changes it further.

    python -m tests.fuzz.guided                      # every reader, 10 000 files each
    python -m tests.fuzz.guided logs --runs 100000   # one of them, for longer

Hypothesis spoils valid files blindly; atheris observes which lines of editguard a file reaches.
A file that breaks the rule is kept in build/fuzz, and the exit code is 1. Needs atheris (Linux, macOS).
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from .harness import SECONDS

__all__ = ["READERS", "Reader"]

ROOT = Path(__file__).resolve().parents[2]
ARTEFACTS = ROOT / "build" / "fuzz"


class Reader(NamedTuple):
    """A reader, with the file that it reads and the valid files that are spoilt."""

    file: str
    seeds: Sequence[bytes]
    read: Callable[[Path], object]
    beside: Mapping[str, bytes] = {}
    """Files that stand in its folder."""


def _readers() -> dict[str, Reader]:
    """Return all readers; editguard is imported here, so that atheris can instrument it."""
    from editguard.audit.delta.file import read_delta
    from editguard.audit.gate.baseline_store import BaselineStore
    from editguard.audit.policy import load_policy
    from editguard.audit.research.reproduction.layer_shifts import load_kept_shifts
    from editguard.audit.research.reproduction.run import load_kept_result
    from editguard.probes.keys.corpus_statistics import read_corpus
    from editguard.probes.keys.statistics import load_statistics
    from editguard.probes.model.checkpoint import open_checkpoint
    from editguard.probes.requests.loader import load_requests
    from editguard.reports.log.file import read_log
    from editguard.reports.verdict.digest import summarise

    from .seeds import logs, policies, reproductions, requests, tensors

    def checkpoint(path: Path) -> None:
        checkpoint_files = open_checkpoint(str(path.parent))
        for name in checkpoint_files.files:
            checkpoint_files.tensor(name)

    def statistics(path: Path) -> object:
        return load_statistics(path, size=tensors.SIZE, model_fingerprint="model", layer=0)

    edits = {
        f"edits{suffix}": Reader(
            f"edits{suffix}",
            [seed.encode() for seed in requests.SEEDS[suffix]],
            lambda path: load_requests(path, skip_invalid=True).requests,
        )
        for suffix in (".json", ".jsonl", ".yaml", ".csv")
    }
    corpora = {
        f"corpus{suffix}": Reader(f"corpus{suffix}", [seed], lambda path: read_corpus(str(path)).sha256)
        for suffix, seed in requests.CORPORA.items()
    }
    return (
        edits
        | corpora
        | {
            "policy": Reader("policy.toml", policies.SEEDS["policy.toml"], load_policy),
            "log": Reader("audit.jsonl", logs.LOGS, lambda path: summarise(read_log(path))),
            "baseline": Reader(
                "baseline.json", [logs.BASELINE], lambda path: BaselineStore(path.parent).load(str(path))
            ),
            "overrides": Reader(
                "overrides.jsonl", [logs.OVERRIDES], lambda path: BaselineStore(path.parent).read_overrides()
            ),
            "cases": Reader("cases.json", reproductions.CHOICES, reproductions.read_choice),
            "layers": Reader("layers.json", reproductions.SHIFTS, load_kept_shifts),
            "reproduction": Reader("reproduction.json", reproductions.RESULTS, load_kept_result),
            "delta": Reader("a.delta.safetensors", [tensors.DELTA], read_delta),
            "statistics": Reader("c.safetensors", [tensors.STATISTICS], statistics),
            "statistics-of-rome": Reader("c.npz", tensors.NPZ, statistics),
            "weights": Reader("one.safetensors", [tensors.WEIGHTS], checkpoint),
            "index": Reader(
                "model.safetensors.index.json",
                [tensors.INDEX],
                checkpoint,
                {"one.safetensors": tensors.WEIGHTS},
            ),
        }
    )


READERS = (
    "edits.json",
    "edits.jsonl",
    "edits.yaml",
    "edits.csv",
    "corpus.txt",
    "corpus.json",
    "corpus.jsonl",
    "corpus.csv",
    "policy",
    "log",
    "baseline",
    "overrides",
    "cases",
    "layers",
    "reproduction",
    "delta",
    "statistics",
    "statistics-of-rome",
    "weights",
    "index",
)
"""Names of `_readers`, known before anything is imported."""


def _word(content: bytes) -> str:
    """Return an entry of libFuzzer's dictionary."""
    return '"' + "".join(f"\\x{byte:02x}" for byte in content) + '"'


def _fuzz(name: str, runs: int) -> None:
    """Fuzz one reader; libFuzzer ends the process."""
    import atheris

    with tempfile.TemporaryDirectory() as corpus, tempfile.TemporaryDirectory() as folder:
        with atheris.instrument_imports(include=["editguard"]):
            reader = _readers()[name]
            from .harness import HOSTILE, read_or_refuse

            path = Path(folder, reader.file)

            def fuzz_one(content: bytes) -> None:
                path.write_bytes(content)
                read_or_refuse(lambda: reader.read(path), Path(folder))

            for file, content in reader.beside.items():
                Path(folder, file).write_bytes(content)
            for number, seed in enumerate(reader.seeds):
                fuzz_one(seed)  # what a reader imports only when it runs is to be instrumented as well
                Path(corpus, str(number)).write_bytes(seed)
        ARTEFACTS.mkdir(parents=True, exist_ok=True)
        words = ARTEFACTS / "words"
        # libFuzzer takes words of 64 bytes at most.
        words.write_text("\n".join(_word(content) for content in HOSTILE if len(content) <= 64))
        # Its own limit of time rings an alarm that also ends a process which is done; `main` has one, and so has the rule.
        # What is longer is cut, a log's footer say.
        longest = max(1000, 2 * max(map(len, reader.seeds)))
        options = (
            f"-atheris_runs={runs}",
            "-len_control=0",
            f"-max_len={longest}",
            "-timeout=100000",
            "-rss_limit_mb=4096",
            f"-dict={words}",
            f"-artifact_prefix={ARTEFACTS}/{name}-",
        )
        atheris.Setup([sys.argv[0], *options, corpus], fuzz_one)
        atheris.Fuzz()


def main() -> int:
    """Run each reader in a process of its own, and return 1 where a file was found."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*", choices=[*READERS, []], metavar="NAME")
    parser.add_argument("--runs", type=int, default=10_000)
    parser.add_argument("--here", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.here:
        _fuzz(*options.names, options.runs)
    failed = []
    for name in options.names or READERS:
        command = [sys.executable, "-m", "tests.fuzz.guided", name, "--here", "--runs", str(options.runs)]
        limit = 300 + options.runs * SECONDS / 10
        try:
            process = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False, timeout=limit)
        except subprocess.TimeoutExpired:
            print(f"{name}: not done after {limit:.0f} s", flush=True)
            failed.append(name)
            continue
        lines = process.stderr.splitlines()
        coverage = [line.strip() for line in lines if "cov: " in line] or ["nothing was run"]
        done = f"Done {options.runs} in " in process.stderr
        print(f"{name}: {'done' if done else 'NOT done'}, exit code {process.returncode}; {coverage[-1]}", flush=True)
        if process.returncode or not done:
            print(process.stdout[-3000:], *(line for line in lines if line[:1] != "#" and "INFO" not in line), sep="\n")
            failed.append(name)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
