"""Which probe tells before an edit that it will leak: the area under ROC of each probe's value, over an audit's log.

    python benchmarks/probe_roc.py build/audit/audit.jsonl [--editor NAME] [--flips]

An edit counts as a leak where at least one answer about another subject is a leak, with --flips also where one is a flip.
The interval of 95 % is DeLong's. Larger values stand for more danger, so the ratio and the cosine count with their sign
changed. Figures: docs/research/locality.md.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
from editguard.reports.log.file import read_log
from editguard.reports.log.schema import EditRecord


def _finding(probe: str) -> Callable[[EditRecord], float | None]:
    return lambda record: next((finding.value for finding in record.findings if finding.probe == probe), None)


def _negative(value: float | None) -> float | None:
    return None if value is None else -value


FIGURES: Mapping[str, Callable[[EditRecord], float | None]] = {
    "crowded-key": _finding("crowded-key"),
    "ratio of denominators": lambda record: _negative(record.keys and record.keys.denominator_ratio),
    "bound of the update": lambda record: record.keys and record.keys.predicted_relative_norm,
    "key-shift": lambda record: _negative(record.keys and record.keys.cosine),
    "sink-key": _finding("sink-key"),
}


def area(scores: np.ndarray, truth: np.ndarray) -> tuple[float, float, float]:
    """Return the area under ROC with the ends of DeLong's interval of 95 %; not a number for fewer than two of a kind."""
    bad, good = scores[truth], scores[~truth]
    if min(len(bad), len(good)) < 2:
        return (float("nan"),) * 3
    wins = (bad[:, None] > good) + 0.5 * (bad[:, None] == good)
    spread = 1.96 * np.sqrt(wins.mean(1).var(ddof=1) / len(bad) + wins.mean(0).var(ddof=1) / len(good))
    mean = wins.mean()
    return mean, max(mean - spread, 0.0), min(mean + spread, 1.0)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("log", type=Path)
    parser.add_argument("--editor", help="edits of this editor alone")
    parser.add_argument("--flips", action="store_true", help="a flip counts as well")
    options = parser.parse_args()
    bad = {"leak", "flip"} if options.flips else {"leak"}
    pairs = []
    for record in read_log(options.log).edits:
        results = [prompt.result for prompt in record.prompts if prompt.role in ("neighbour", "made-neighbour")]
        if results and record.update and options.editor in (None, record.update.editor):
            pairs.append((record, any(result in bad for result in results)))
    print(f"{sum(leaks for _, leaks in pairs)} of {len(pairs)} edits")
    for name, read in FIGURES.items():
        usable = [(value, leaks) for record, leaks in pairs if (value := read(record)) is not None]
        scores, truth = np.array([value for value, _ in usable]), np.array([leaks for _, leaks in usable], bool)
        print("{}: {:.2f} ({:.2f} to {:.2f})".format(name, *area(scores, truth)))


if __name__ == "__main__":
    main()
