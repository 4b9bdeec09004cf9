"""How do perplexity and task scores go together on a model? One weight is damaged in graded steps, and both are measured.

    python benchmarks/task_scores.py --out tasks.json --figure docs/research/tasks.svg

Each step adds a multiple of the weight's norm to the down-projection of one layer: a fixed matrix of rank one, or fixed noise of
full rank. For every step: the perplexity ratio on the built-in corpus, and the share of right answers of each task. At the end
stands Spearman's correlation of perplexity and score over the steps, and a table in Markdown. docs/research/tasks.md holds it.
"""

from __future__ import annotations

import argparse
import json
import math
from collections.abc import Iterator, Sequence
from html import escape
from pathlib import Path
from typing import NamedTuple

import torch
from editguard.probes.model.language_model import LanguageModel, load_model
from editguard.probes.model.site import EditSite, find_site
from editguard.suites.builtin import load_builtin_corpus
from editguard.suites.checks.perplexity import CorpusPerplexity
from editguard.suites.tasks.comparison import bound_change, compute_p_value, pair_answers
from editguard.suites.tasks.names import load_tasks, split_names
from editguard.suites.tasks.task import Task
from scipy.stats import spearmanr

_COLOURS = ("#3f51b5", "#c2410c", "#047857", "#7c3aed")


class Step(NamedTuple):
    """One damaged model: the kind and size of the damage, and what was measured of it."""

    kind: str
    scale: float
    ratio: float
    scores: dict[str, float]
    lost: dict[str, int]
    gained: dict[str, int]
    low: dict[str, float]
    p_value: dict[str, float]


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--model", default="smollm2-135m")
    parser.add_argument("--layer", type=int, default=9)
    parser.add_argument("--tasks", default="cloze,endings")
    parser.add_argument("--scales", type=float, nargs="+", default=[0.125, 0.25, 0.5, 1, 2, 4, 8, 16])
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--figure", type=Path)
    options = parser.parse_args()
    lm = load_model(options.model)
    site = find_site(lm.model, options.layer)
    tasks = load_tasks(split_names(options.tasks))
    steps = []
    for step in measure_steps(lm, site, tasks, options.scales, options.seed):
        steps.append(step)
        print(json.dumps(step._asdict()), flush=True)
        options.out.write_text(json.dumps([step._asdict() for step in steps], indent=1))
    print(format_table(steps))
    for task in steps[0].scores:
        print(f"{task}: Spearman {correlate(steps, task):.2f} over {len(steps)} models")
    if options.figure is not None:
        options.figure.write_text(draw(steps), encoding="utf-8")


def measure_steps(
    lm: LanguageModel, site: EditSite, tasks: Sequence[Task], scales: Sequence[float], seed: int
) -> Iterator[Step]:
    """Yield the model as it is, and then each damaged one; the weight is as it was at the end."""
    corpus = CorpusPerplexity(lm, site, load_builtin_corpus())
    before = {task.name: task.score(lm) for task in tasks}
    own = site.weight.detach().clone()
    damages = [("none", 0.0)] + [(kind, scale) for kind in ("rank one", "noise") for scale in scales]
    for kind, scale in damages:
        try:
            with torch.no_grad():
                site.weight.copy_(own + scale * own.norm() * _damage(kind, own, seed))
            pairs = {task.name: pair_answers(before[task.name], task.score(lm)) for task in tasks}
            ratio = corpus.score_again().mean / corpus.before.mean
        finally:
            with torch.no_grad():
                site.weight.copy_(own)
        yield Step(
            kind,
            scale,
            ratio,
            {name: pair.after / pair.measured for name, pair in pairs.items()},
            {name: len(pair.lost) for name, pair in pairs.items()},
            {name: len(pair.gained) for name, pair in pairs.items()},
            {name: bound_change(pair).low for name, pair in pairs.items()},
            {name: compute_p_value(len(pair.lost), len(pair.gained)) for name, pair in pairs.items()},
        )


def _damage(kind: str, weight: torch.Tensor, seed: int) -> torch.Tensor:
    """Return a fixed matrix of norm 1."""
    draw = torch.Generator().manual_seed(seed)
    if kind == "rank one":
        left, right = (torch.randn(size, generator=draw) for size in weight.shape)
        noise = torch.outer(left, right)
    else:
        noise = torch.randn(weight.shape, generator=draw)
    return (noise / noise.norm()).to(weight)


def correlate(steps: Sequence[Step], task: str) -> float:
    """Return Spearman's correlation of the perplexity ratio and the score of `task`."""
    return float(spearmanr([step.ratio for step in steps], [step.scores[task] for step in steps]).statistic)


def format_table(steps: Sequence[Step]) -> str:
    """Return the steps as a Markdown table, by rising perplexity."""
    tasks = list(steps[0].scores)
    names = [
        "damage",
        "size over the weight's norm",
        "perplexity ratio",
        *tasks,
        *(f"{name}: lost, gained" for name in tasks),
    ]
    lines = [f"| {' | '.join(names)} |", "|---" * len(names) + "|"]
    for step in sorted(steps, key=lambda step: step.ratio):
        scores = [f"{step.scores[task]:.2f}" for task in tasks]
        counts = [f"{step.lost[task]}, {step.gained[task]}" for task in tasks]
        lines.append(f"| {' | '.join([step.kind, f'{step.scale:g}', f'{step.ratio:.4g}', *scores, *counts])} |")
    return "\n".join(lines)


def draw(steps: Sequence[Step], width: int = 640, height: int = 360) -> str:
    """Return the figure as SVG: the score of each task (upwards) over the perplexity ratio (logarithmic)."""
    ordered = sorted((step for step in steps if math.isfinite(step.ratio)), key=lambda step: step.ratio)
    logs = [math.log10(step.ratio) for step in ordered]
    least, most = min(0.0, math.floor(10 * logs[0]) / 10), max(1, math.ceil(logs[-1]))
    left, right, top, bottom = 56, width - 32, 16, height - 56

    def place(log: float, score: float) -> tuple[float, float]:
        return left + (log - least) / (most - least) * (right - left), bottom - score * (bottom - top)

    parts = [f'<rect width="{width}" height="{height}" fill="#ffffff"/>']
    for tenth in range(0, 11, 2):
        x, y = place(least, tenth / 10)
        parts.append(f'<path d="M{x:.1f} {y:.1f}H{right}" stroke="#e5e7eb"/>')
        parts.append(f'<text x="{x - 8:.1f}" y="{y + 4:.1f}" text-anchor="end">{tenth * 10} %</text>')
    decades = range(math.ceil(least), most + 1)
    for power in decades[:: max(1, len(decades) // 6)]:
        x, y = place(power, 0)
        parts.append(f'<path d="M{x:.1f} {y:.1f}V{top}" stroke="#e5e7eb"/>')
        parts.append(f'<text x="{x:.1f}" y="{y + 18:.1f}" text-anchor="middle">{10**power:g}</text>')
    middle = (left + right) / 2
    parts.append(
        f'<text x="{middle:.1f}" y="{height - 14}" text-anchor="middle">perplexity over that of the model undamaged</text>'
    )
    for index, task in enumerate(ordered[0].scores):
        colour = _COLOURS[index % len(_COLOURS)]
        points = [place(log, step.scores[task]) for log, step in zip(logs, ordered, strict=True)]
        line = " ".join(f"{x:.1f},{y:.1f}" for x, y in points)
        parts.append(f'<polyline points="{line}" fill="none" stroke="{colour}" stroke-width="1.5"/>')
        for (x, y), step in zip(points, ordered, strict=True):
            filled = colour if step.kind != "noise" else "#ffffff"
            parts.append(
                f'<circle cx="{x:.1f}" cy="{y:.1f}" r="4" fill="{filled}" stroke="{colour}" stroke-width="1.5"/>'
            )
        label = top + 16 + 20 * index
        parts.append(f'<circle cx="{right - 92}" cy="{label - 4}" r="4" fill="{colour}"/>')
        parts.append(f'<text x="{right - 82}" y="{label}">{escape(task)}</text>')
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" role="img" '
        'font-family="system-ui, sans-serif" font-size="12" fill="#111827">\n'
        "<title>Share of right answers over the perplexity ratio</title>\n" + "\n".join(parts) + "\n</svg>\n"
    )


if __name__ == "__main__":
    main()
