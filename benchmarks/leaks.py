"""What passes, and whether it leaks: the verdict of the checks beside an independent count on the plain model.

    python benchmarks/leaks.py [--edits FILE] [--model M] [--editor NAME] [--limit N] [--updates FILE] [--out FILE]

Every edit is made as the guard makes it (or by --editor, unguarded), judged by all checks under the default policy, and
written into the plain model, whose greedy words after each neighbour are then read: bare, after a newline and after a
sentence that no check uses. A leak by this count: the first token of the target where it was not before, or the target's
words. --updates keeps the updates, which take most of the time, for another run. Figures: docs/research/results.md.
"""

from __future__ import annotations

import argparse
import json
import random
import time
from collections import Counter
from dataclasses import asdict, replace
from pathlib import Path

import torch
from editguard.audit.edit_result import Assessment, Proposal
from editguard.audit.editors.update import InsertionFigures, WeightUpdate
from editguard.audit.guard import GuardedEditor
from editguard.audit.policy import Action, Decision, Policy
from editguard.audit.transaction import Transaction
from editguard.probes.model.site_change import SiteChange
from editguard.probes.requests.loader import load_requests
from editguard.suites.builtin import BUILTIN, load_builtin_edits

TOGETHER = 20
PREFIXES = ("", "\n", "Here is something to read. ")
WORDS = 6


def iter_updates(guard, requests, editor):
    """Yield for each request its decision and its update, or the reason of its refusal."""
    for start in range(0, len(requests), TOGETHER):
        begun, chunk = time.monotonic(), requests[start : start + TOGETHER]
        unchecked = replace(guard, checks=())
        proposals = (
            unchecked.propose_unguarded([(request, editor) for request in chunk])
            if editor
            else unchecked.propose(unchecked.assess_all(chunk))
        )
        for request, proposal in zip(chunk, proposals, strict=True):
            decision = proposal.assessment.decision
            yield {
                "id": request.id,
                "action": decision.action.value,
                "editor": decision.editor,
                "reasons": list(decision.reasons),
                "refusal": proposal.refusal,
                "relative": dict(proposal.relative_norms),
                "update": None if proposal.update is None else update_to_plain(proposal.update),
            }
        print(f"{start + len(chunk)} of {len(requests)} updates, {time.monotonic() - begun:.0f} s", flush=True)


def update_to_plain(update):
    """Return an update as a file holds it, its sites by their layers."""
    return {
        "editor": update.editor,
        "needs_prefix": update.needs_prefix,
        "changes": [(change.site.layer, change.left, change.right) for change in update.changes],
        "figures": [asdict(figures) for figures in update.figures],
    }


def update_from_plain(guard, plain):
    """Return the update that `update_to_plain` was given."""
    return WeightUpdate(
        editor=plain["editor"],
        needs_prefix=plain["needs_prefix"],
        changes=tuple(
            SiteChange(site=guard.setup.state_at(layer).site, left=left, right=right)
            for layer, left, right in plain["changes"]
        ),
        figures=tuple(InsertionFigures(**figures) for figures in plain["figures"]),
    )


def load_or_compute_updates(guard, requests, editor, path):
    """Return the updates, from the file where it has them all."""
    if path is not None and path.is_file():
        rows = torch.load(path, weights_only=True)
        if [row["id"] for row in rows] == [request.id for request in requests]:
            return rows
    rows = list(iter_updates(guard, requests, editor))
    if path is not None:
        torch.save(rows, path)
    return rows


def iter_results(guard, requests, rows_of_updates):
    """Yield each made edit's result by all checks."""
    rows = [(request, row) for request, row in zip(requests, rows_of_updates, strict=True) if row["refusal"] is None]
    for start in range(0, len(rows), TOGETHER):
        proposals = [
            Proposal(
                assessment=Assessment(
                    request=request,
                    evidence=None,
                    findings=(),
                    decision=Decision(Action(row["action"]), row["editor"], tuple(row["reasons"])),
                ),
                update=update_from_plain(guard, row["update"]),
                relative_norms=row["relative"],
            )
            for request, row in rows[start : start + TOGETHER]
        ]
        for proposal in guard._prepare_checks(proposals):
            yield proposal, guard.try_proposal(proposal)
        print(f"{min(start + TOGETHER, len(rows))} of {len(rows)} judged", flush=True)


@torch.no_grad()
def read_plain_words(lm, texts):
    """Return for each text the next token, its lead in log-probability, and the greedy words, by ordinary calls."""
    answers = []
    for text in texts:
        ids = lm.tokenizer(text, return_tensors="pt").input_ids
        top = lm.model(ids).logits[0, -1].log_softmax(-1).topk(2)
        out = lm.model.generate(
            ids, attention_mask=torch.ones_like(ids), max_new_tokens=WORDS, do_sample=False, pad_token_id=0
        )
        answers.append(
            (int(top.indices[0]), float(top.values[0] - top.values[1]), lm.tokenizer.decode(out[0, len(ids[0]) :]))
        )
    return answers


def count_changes(lm, request, update):
    """Return what became of each neighbour in the plain model with the update in its weights."""
    texts = [prefix + prompt for prefix in PREFIXES for prompt in request.neighbourhood]
    before = read_plain_words(lm, texts)
    with Transaction(update):
        after = read_plain_words(lm, texts)
    first, target = (
        lm.tokenizer(f" {request.target_new}", add_special_tokens=False).input_ids[0],
        request.target_new.strip(),
    )
    return [
        {
            "text": text,
            "before": old[2],
            "after": new[2],
            "margin": old[1],
            "changed": new[0] != old[0],
            "leak": (new[0] == first != old[0])
            or (new[2].strip().startswith(target) and not old[2].strip().startswith(target)),
        }
        for text, old, new in zip(texts, before, after, strict=True)
    ]


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--edits", default=BUILTIN)
    parser.add_argument("--model", default="smollm2-135m")
    parser.add_argument("--editor")
    parser.add_argument("--limit", type=int)
    parser.add_argument("--group", help="only edits whose group begins so")
    parser.add_argument("--seed", type=int, default=0, help="of the draw where there is a limit")
    parser.add_argument("--updates", type=Path)
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    requests = list(load_builtin_edits() if options.edits == BUILTIN else load_requests(options.edits).requests)
    requests = [request for request in requests if request.group.startswith(options.group or "")]
    if options.limit:
        random.Random(options.seed).shuffle(requests)
        requests = requests[: options.limit]
    guard = GuardedEditor.load(options.model, policy=Policy())
    update_rows = load_or_compute_updates(guard, requests, options.editor, options.updates)
    rows = []
    for proposal, result in iter_results(guard, requests, update_rows):
        request = proposal.assessment.request
        rows.append(
            {
                "request": asdict(request),
                "action": proposal.assessment.decision.action.value,
                "editor": proposal.assessment.decision.editor,
                "relative": proposal.relative_norm,
                "sound": result.sound,
                "prompts": [asdict(part) for part in result.prompts],
                "measurements": [{**asdict(part), "outcome": part.outcome.value} for part in result.measurements],
                "generations": [part._asdict() for part in result.generations],
                "plain": count_changes(guard.setup.lm, request, proposal.update),
            }
        )
        if options.out is not None:
            options.out.write_text(json.dumps(rows))
    print_table(update_rows, rows)


def print_table(update_rows, rows):
    """Print the counts."""
    actions = Counter(row["action"] for row in update_rows)
    refused = sum(row["refusal"] is not None for row in update_rows)
    print(f"{len(update_rows)} edits: {actions}, {refused} refused")
    print("made    edits  leak  prompts  leaks  changed  near ties")
    for name, group_rows in (("all", rows), ("passed", [row for row in rows if row["sound"]])):
        neighbours = [answer for row in group_rows for answer in row["plain"]]
        leaking = sum(any(answer["leak"] for answer in row["plain"]) for row in group_rows)
        ties = sum(answer["changed"] and answer["margin"] < 0.35 for answer in neighbours)
        print(
            f"{name:7} {len(group_rows):5} {leaking:5} {len(neighbours):8} {sum(answer['leak'] for answer in neighbours):6} "
            f"{sum(answer['changed'] for answer in neighbours):8} {ties:10}"
        )
    causes = Counter()
    for row in rows:
        failed = {f"{m['check']}/{m['metric']}" for m in row["measurements"] if m["outcome"] in ("fail", "unmeasured")}
        causes.update(failed)
    print("failed by:", ", ".join(f"{name} {count}" for name, count in causes.most_common()) or "nothing")


if __name__ == "__main__":
    main()
