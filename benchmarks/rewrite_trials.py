"""Cost and gain of a better rewrite of first-token edits: other searches and other directions, on the same requests.

    python benchmarks/rewrite_trials.py counterfact-dev.json --out trials.json
    python benchmarks/rewrite_trials.py counterfact-dev.json --only "Adam, rate 1.0" --layer 5 --out layer5.json

Each trial is an editor that differs from `prefixed` in one thing. Trials with the same search share its v*, so that directions
are compared for one delta. Every edit is written, checked under the held-out prefixes of every family, and undone. Prints one row
for each trial: prompts that gave the target after a prefix and without one, paraphrases after a sentence and without one,
tokens and answers of neighbours, the perplexity ratio and the size of the update. docs/research/reproduction.md quotes it.
"""

from __future__ import annotations

import argparse
import json
import random
import statistics
from dataclasses import replace
from pathlib import Path
from typing import ClassVar

import torch
from editguard.audit.editors.base import EDITORS
from editguard.audit.editors.builtin.prefixed import Prefixed
from editguard.audit.editors.builtin.reworded import Reworded
from editguard.audit.editors.value import Descent
from editguard.audit.guard import GuardedEditor
from editguard.audit.policy import Action, Decision
from editguard.probes.keys.subject_keys import SubjectKeys, compute_all_subject_keys
from editguard.probes.requests.loader import load_requests
from editguard.probes.requests.request import EditRequest
from guard_evidence import split

OTHERS, OTHER_PREFIXES, TOGETHER = 200, 6, 6
COUNTS = {
    "efficacy": ("efficacy", "prefixed", "exact"),
    "efficacy, bare": ("efficacy", "unprefixed", "exact"),
    "paraphrases": ("generalization", "prefixed", "exact"),
    "paraphrases, bare": ("generalization", "unprefixed", "exact"),
    "neighbours' tokens, bare": ("locality", "unprefixed", "token-match"),
    "neighbours' tokens": ("locality", "prefixed", "token-match"),
    "neighbours' answers, bare": ("answers", "unprefixed", "exact"),
    "neighbours' answers": ("answers", "prefixed", "exact"),
}
"""Metric, condition and protocol of what is counted; without a condition, after the prefixes of the check."""
SUBJECTS: list[str] = []
"""Subjects whose keys are left alone: they stand in no prompt that is tested."""
MOMENTS: dict[tuple[str, str], torch.Tensor] = {}


class Searched(Prefixed):
    """Another search for v*."""

    other: ClassVar[dict[str, object]] = {}

    def settings(self, requested):
        return replace(super().settings(requested), **self.other)


class LeftAlone(Prefixed):
    """The direction from C + `weight` G, G being the second moment of other subjects' keys in the same template."""

    weight: ClassVar[float] = 1.0
    longer: ClassVar[float] = 1.0

    def plan(self, context, request, keys, reworded=()):
        self._moment = _moment(context, request)
        return super().plan(context, request, keys, reworded)

    def finish(self, plan, value, statistics):
        both = replace(statistics, second_moment=statistics.second_moment + self.weight * self._moment)
        return super().finish(plan, replace(value, delta=self.longer * value.delta), both)


class EachHeld(Prefixed):
    """``w = C^-1 K (K^T C^-1 K + lambda I)^-1 1``: every context's key is held near 1, not their mean; lambda is `ridge` times
    the mean diagonal. Without a ridge it is the equality of EMMET (arXiv 2403.14236)."""

    ridge: ClassVar[float] = 0.1

    def finish(self, plan, value, statistics):
        keys = plan.keys.keys.double().cpu()
        solved = statistics.solve(keys)
        inner = keys @ solved.T
        inner += self.ridge * inner.diagonal().mean() * torch.eye(len(keys), dtype=inner.dtype)
        along = solved.T @ torch.linalg.solve(inner, torch.ones(len(keys), dtype=inner.dtype))
        update, size = super().finish(plan, value, statistics), along.norm()
        (change,), (figures,) = update.changes, update.figures
        delta = change.left * float(change.right[:, 0] @ plan.insertion.key.double().cpu())
        return replace(
            update,
            changes=(replace(change, left=delta * size, right=(along / size)[:, None]),),
            figures=(replace(figures, denominator=float(1 / size)),),
        )


def _made(base, **others):
    return type("Trial", (base,), others)


TRIALS = {
    "prefixed": Prefixed,
    "C + G": _made(LeftAlone),
    "C + 10 G": _made(LeftAlone, weight=10.0),
    "C + G, delta 1.15 times as long": _made(LeftAlone, longer=1.15),
    "C + G, delta 0.9 times as long": _made(LeftAlone, longer=0.9),
    "each key held, ridge 0.1": _made(EachHeld),
    "each key held, ridge 0.001": _made(EachHeld, ridge=1e-3),
    "steps of 0.2": _made(Searched, other={"learning_rate": 0.2}),
    "steps of 0.15, ending under 0.2": _made(Searched, other={"learning_rate": 0.15, "stop_loss": 0.2}),
    "Adam, rate 1.0": _made(Searched, other={"learning_rate": 1.0, "descent": Descent.ADAM}),
    "divergence under six prefixes too": _made(Searched, other={"essences": 6}),
    "eight rewordings": _made(Searched, other={"rewordings": 8}),
    "reworded": Reworded,
}


def _moment(context, request):
    """Return G [d_ff, d_ff]: keys of other subjects in the prompt's place, without a prefix and after a few."""
    place = (request.subject, request.prompt)
    if place not in MOMENTS:
        texts = ["", *Prefixed().contexts(context.prefixes)[:OTHER_PREFIXES]]
        requests = [
            EditRequest(subject, subject, request.prompt.replace(request.subject, subject, 1), request.target_new)
            for subject in SUBJECTS
            if subject != request.subject
        ]
        all_keys = compute_all_subject_keys(
            context.lm, context.site, requests, texts, prefix_cache=context.prefix_cache
        )
        rows = torch.cat([keys.keys for keys in all_keys if isinstance(keys, SubjectKeys)]).double().cpu()
        MOMENTS[place] = rows.T @ rows / len(rows)
    return MOMENTS[place]


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("edits")
    parser.add_argument("--model", default="smollm2-135m")
    parser.add_argument("--layer", type=int, default=None)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--only", nargs="*", choices=TRIALS, help="names of trials; all of them where none is given")
    parser.add_argument("--every", type=int, default=1, help="take every so manieth request")
    parser.add_argument("--out", type=Path, required=True)
    options = parser.parse_args()
    names = [name for name in TRIALS if not options.only or name in options.only]
    for name in names:
        if name not in ("prefixed", "reworded"):
            EDITORS.register(name)(TRIALS[name])
    guard = GuardedEditor.load(options.model, layer=options.layer, seed=options.seed)
    requests = load_requests(options.edits).requests
    chosen = split(guard, requests)[0][:: options.every]
    SUBJECTS.extend(_others(requests, chosen, options.seed))
    print(f"layer {guard.setup.site.layer}, {len(chosen)} first-token requests, {len(names)} trials", flush=True)
    rows = {name: [] for name in names}
    for start in range(0, len(chosen), TOGETHER):
        part = guard.assess_all(chosen[start : start + TOGETHER])
        jobs = [
            (name, replace(assessment, decision=Decision(Action.ALLOW, name, ())))
            for name in names
            for assessment in part
        ]
        proposals = guard.propose([assessment for _, assessment in jobs], bound=float("inf"))
        for (name, _), proposal in zip(jobs, proposals, strict=True):
            rows[name].append(_row(guard.try_proposal(proposal)))
        options.out.write_text(json.dumps(rows, indent=1))
        print(f"{min(start + TOGETHER, len(chosen))} of {len(chosen)} requests", flush=True)
    for name in names:
        print(_line(name, rows[name]), flush=True)


def _others(requests, chosen, seed):
    """Return subjects of the file that stand in no prompt that will be tested."""
    tested = [text for request in chosen for text in (request.prompt, *request.paraphrases, *request.neighbourhood)]
    free = sorted({request.subject for request in requests if not any(request.subject in text for text in tested)})
    return random.Random(seed).sample(free, min(OTHERS, len(free)))


def _row(result):
    return {
        "id": result.assessment.request.id,
        "refusal": result.refusal,
        "relative norm": result.relative_norm,
        "ratio": next((m.value for m in result.measurements if m.check == "perplexity" and m.metric == "ratio"), None),
        **{name: _counted(result, *where) for name, where in COUNTS.items()},
    }


def _counted(result, metric, condition, protocol):
    return next(
        (
            [m.passed, m.total]
            for m in result.measurements
            if (m.metric, m.condition, m.protocol) == (metric, condition, protocol)
        ),
        [0, 0],
    )


def _line(name, rows):
    measured_rows = [row for row in rows if row["ratio"] is not None]
    counts = {
        which: " of ".join(str(sum(row[which][place] for row in measured_rows)) for place in (0, 1)) for which in COUNTS
    }
    ratios = [row["ratio"] for row in measured_rows] or [float("nan")]
    norms = [row["relative norm"] for row in measured_rows] or [float("nan")]
    return json.dumps(
        {
            "trial": name,
            "made": f"{len(measured_rows)} of {len(rows)}",
            **counts,
            "ratio, mean": round(statistics.fmean(ratios), 4),
            "ratio, worst": round(max(ratios), 4),
            "relative norm": round(statistics.fmean(norms), 3),
        }
    )


if __name__ == "__main__":
    main()
