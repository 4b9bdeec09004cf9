"""How often does noise close the gate, and how often is damage caught? Measured on the edits of two real audits.

    python benchmarks/gate_power.py FIRST.jsonl SECOND.jsonl --trials 300

FIRST and SECOND audit the same edits and differ only by what counts as noise, such as another seed. For each trial edits
are drawn with replacement. The two values of each are swapped with probability one half, so that neither side is better.
Damage is then done to the second side. For each size the share of trials in which the gate closes is printed: by the rule
in force, by the difference only, and where the whole interval must lie beyond the allowance.
docs/explanation/gate-statistics.md quotes it.
"""

from __future__ import annotations

import argparse
import random
import sys
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

from editguard.reports.gate.baseline import BaselineEdit, build_baseline
from editguard.reports.gate.comparison import EditPair, MetricChange, compare_metric, pair_edits
from editguard.reports.gate.decision import regressed
from editguard.reports.gate.metrics import METRICS, Metric, MetricValue, Tally
from editguard.reports.log.file import read_log

RULES: dict[str, Callable[[MetricChange, float], bool]] = {
    "rule": regressed,
    "difference alone": lambda change, limit: change.worse is not None and change.worse > limit,
    "interval beyond": lambda change, limit: (
        change.worse is not None and (change.worse if change.low is None else change.low) > limit
    ),
}
RESAMPLES = 1000
"""A tenth of the gate's own, over hundreds of trials."""
JUDGED = tuple(metric for metric, spec in METRICS.items() if spec.allowed is not None)


class Scenario(NamedTuple):
    """What is done to the second side, and the metrics that are looked at."""

    name: str
    metrics: tuple[Metric, ...]
    damage: Callable[[MetricValue, random.Random], MetricValue]


def untouched(figure: MetricValue, rng: random.Random) -> MetricValue:
    return figure


def larger(factor: float, share: float = 1.0) -> Callable[[MetricValue, random.Random], MetricValue]:
    return lambda figure, rng: figure * factor if isinstance(figure, float) and rng.random() < share else figure


def prompts_lost(share: float) -> Callable[[MetricValue, random.Random], MetricValue]:
    def damage(figure: MetricValue, rng: random.Random) -> MetricValue:
        if not isinstance(figure, Tally):
            return figure
        lost = sum(rng.random() < share for _ in range(figure.passed))
        return figure.model_copy(update={"passed": figure.passed - lost, "failed": figure.failed + lost})

    return damage


def edits_lost(share: float) -> Callable[[MetricValue, random.Random], MetricValue]:
    def damage(figure: MetricValue, rng: random.Random) -> MetricValue:
        if not isinstance(figure, Tally) or rng.random() >= share:
            return figure
        return figure.model_copy(update={"passed": 0, "failed": figure.total})

    return damage


SCENARIOS = (
    Scenario("noise alone, all metrics", JUDGED, untouched),
    Scenario("perplexity of all edits 2 % higher", (Metric.PERPLEXITY_RATIO,), larger(1.02)),
    Scenario("perplexity of all edits 5 % higher", (Metric.PERPLEXITY_RATIO,), larger(1.05)),
    Scenario("perplexity of 1 edit in 10 30 % higher", (Metric.PERPLEXITY_RATIO,), larger(1.3, 0.1)),
    Scenario("1 edit in 20 no longer takes", (Metric.EFFICACY_PREFIXED,), edits_lost(0.05)),
    Scenario("1 edit in 10 no longer takes", (Metric.EFFICACY_PREFIXED,), edits_lost(0.1)),
    Scenario("1 prompt in 20 no longer gives the target", (Metric.EFFICACY_PREFIXED,), prompts_lost(0.05)),
    Scenario("1 more answer in 5 changes", (Metric.ANSWERS_UNPREFIXED,), prompts_lost(0.2)),
    Scenario("1 more answer in 3 changes", (Metric.ANSWERS_UNPREFIXED,), prompts_lost(1 / 3)),
    Scenario("1 neighbour's token in 10 changes", (Metric.LOCALITY_UNPREFIXED,), prompts_lost(0.1)),
)


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("first", type=Path)
    parser.add_argument("second", type=Path)
    parser.add_argument("--trials", type=int, default=300)
    parser.add_argument("--edits", type=int, nargs="+", default=[10, 20, 60, 200])
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    first, second = (build_baseline(read_log(path), None) for path in (options.first, options.second))
    pairs = [pair for pair in pair_edits(first, second) if pair.before.made and pair.after.made]
    print(f"{len(pairs)} edits made in both; {options.trials} trials; shares of trials that close, in per cent")
    print("| what happens | " + " | ".join(f"{rule}, {n} edits" for rule in RULES for n in options.edits) + " |")
    print("|---|" + "---|" * (len(RULES) * len(options.edits)))
    for scenario in SCENARIOS:
        closed = {n: closings(pairs, scenario, n, options.trials, options.seed) for n in options.edits}
        cells = [f"{100 * closed[n][rule] / options.trials:.0f}" for rule in RULES for n in options.edits]
        print(f"| {scenario.name} | " + " | ".join(cells) + " |")
        sys.stdout.flush()


def closings(pairs: list[EditPair], scenario: Scenario, edits: int, trials: int, seed: int) -> dict[str, int]:
    """Return in how many trials each rule closes the gate."""
    rng = random.Random(f"{seed} {scenario.name} {edits}")
    closings_by_rule = dict.fromkeys(RULES, 0)
    for _ in range(trials):
        drawn = [trial_pair(pair, scenario, rng) for pair in rng.choices(pairs, k=edits)]
        changes = [
            change for metric in scenario.metrics if (change := compare_metric(metric, drawn, RESAMPLES)) is not None
        ]
        for name, closes in RULES.items():
            closings_by_rule[name] += any(closes(change, METRICS[change.metric].allowed or 0.0) for change in changes)
    return closings_by_rule


def trial_pair(pair: EditPair, scenario: Scenario, rng: random.Random) -> EditPair:
    before, after = pair if rng.random() < 0.5 else (pair.after, pair.before)
    metrics = {
        metric: scenario.damage(figure, rng) if metric in scenario.metrics else figure
        for metric, figure in after.metrics.items()
    }
    return EditPair(before, after_damage(after, metrics))


def after_damage(edit: BaselineEdit, metrics: dict[Metric, MetricValue]) -> BaselineEdit:
    return edit.model_copy(update={"metrics": metrics})


if __name__ == "__main__":
    main()
