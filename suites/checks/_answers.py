"""How often the model gives the target: efficacy for the edit's own prompt, generalization for its paraphrases.

Three protocols are counted, never pooled, and each is named where it is printed. *exact*: every target token is the greedy
choice. *token-match*: the share of target tokens that are, under teacher forcing, as in the paper. *probability*: P(new) >
P(true), as in the original ROME. Each is measured without a prefix and after held-out prefixes, family by family. No held-out
prefix was used in the edit.

Source: definitions of arXiv 2202.05262 section 3.2 and 2406.11263 section 5.
"""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass, replace
from itertools import accumulate
from typing import TYPE_CHECKING, Any, NamedTuple

import torch

from ...probes.forward.partial import Row, Rows, get_first_logits
from ...probes.keys.prefixes import Family, Role
from ...probes.tokens import encode_target
from ...probes.wording import compare_with_bound
from ..check import Bench, Check, Measurement, Outcome, judge

if TYPE_CHECKING:
    from collections.abc import Sequence

    from ...probes.requests.request import EditRequest

__all__ = [
    "FEW_FAMILIES",
    "SPECIAL",
    "ConditionText",
    "TargetRows",
    "TextScore",
    "UneditedScores",
    "add_held_out_prefixes",
    "build_target_rows",
    "judge_rate",
    "measure_rates",
    "score_texts",
    "score_unedited",
]

SPECIAL = "special:"
"""Begins the name of the condition in which a special token alone stands before the prompt."""

FEW_FAMILIES = (Family.SENTENCE,)
"""Families of prefixes for paraphrases. These prompts are many, and the edit's own prompt is tested after all families."""


class ConditionText(NamedTuple):
    """A text with the name of the condition that it belongs to."""

    condition: str
    text: str


@dataclass(frozen=True, kw_only=True)
class TargetRows:
    """Texts with the rows of token ids that score both targets after them."""

    texts: tuple[ConditionText, ...]
    rows: tuple[Row, ...]
    new: tuple[int, ...]
    """For each text, the index of the row with the new target."""
    true: tuple[int, ...] | None
    """For each text, the index of the row with the true target; None where the request gives none."""
    targets: tuple[tuple[int, ...], ...]
    """Token ids of the new target, and of the true one where there is one."""


def build_target_rows(bench: Bench, texts: Sequence[ConditionText], request: EditRequest) -> TargetRows:
    """Return the rows that score the targets of `request` after each of `texts`; equal rows are run once."""
    tokenizer = bench.lm.tokenizer
    rows: dict[Row, int] = {}

    def enter(target: tuple[int, ...], text: str) -> int:
        ids = tuple(tokenizer(text).input_ids)
        # For targets of one token both rows are the same, and are run once.
        row = Row(ids + target[:-1], 0, tuple(range(len(ids) - 1, len(ids) + len(target) - 1)))
        return rows.setdefault(row, len(rows))

    targets = [encode_target(tokenizer, request.prompt, request.target_new, request.space)]
    new = tuple(enter(targets[0], item.text) for item in texts)
    true = None
    if request.target_true:
        targets.append(encode_target(tokenizer, request.prompt, request.target_true, request.space))
        true = tuple(enter(targets[1], item.text) for item in texts)
    return TargetRows(texts=tuple(texts), rows=tuple(rows), new=new, true=true, targets=tuple(targets))


def _stems(bench: Bench, rows: Sequence[Sequence[Row]]) -> list[tuple[Rows, torch.Tensor]]:
    """Run all `rows` together; return for each of their lists its own stem and the unedited model's logits."""
    whole = bench.stem([row for part in rows for row in part])
    ends = list(accumulate(len(part) for part in rows))
    parts = [whole.part(range(end - len(part), end)) for part, end in zip(rows, ends, strict=True)]
    logits = get_first_logits(whole).split([sum(len(row.predict) for row in part) for part in rows])
    return list(zip(parts, logits, strict=True))


def score_unedited(bench: Bench, prompts: Sequence[TargetRows]) -> list[UneditedScores]:
    """Return the unedited model's scores for each item of `prompts`, all run together."""
    stems = _stems(bench, [item.rows for item in prompts]) if prompts else []
    return [
        UneditedScores(item, stem, score_texts(item, logits))
        for item, (stem, logits) in zip(prompts, stems, strict=True)
    ]


class TextScore(NamedTuple):
    """The three protocols' answers for one text; None where the logits are not finite or no truth is given."""

    exact: bool | None
    match: float | None
    preferred: bool | None


def score_texts(prompts: TargetRows, logits: torch.Tensor) -> list[TextScore]:
    """Return the score of every text; `logits` [places, vocabulary] are those of all rows, one after the other."""
    parts = logits.log_softmax(-1).split([len(row.predict) for row in prompts.rows])
    scores = []
    for index in range(len(prompts.texts)):
        new, target = parts[prompts.new[index]], torch.tensor(prompts.targets[0], device=logits.device)
        if not bool(torch.isfinite(new).all()):
            scores.append(TextScore(None, None, None))
            continue
        hits = new.argmax(-1) == target
        preferred = None
        if prompts.true is not None and bool(torch.isfinite(parts[prompts.true[index]]).all()):
            truth = torch.tensor(prompts.targets[1], device=logits.device)
            of_true = parts[prompts.true[index]].gather(1, truth[:, None]).mean()
            preferred = bool(new.gather(1, target[:, None]).mean() > of_true)
        scores.append(TextScore(bool(hits.all()), float(hits.double().mean()), preferred))
    return scores


class UneditedScores(NamedTuple):
    """What the unedited model says to all prompts of one request."""

    prompts: TargetRows
    stem: Rows
    before: list[TextScore]

    def score_again(self) -> list[TextScore]:
        """Return the scores of the model as it is now."""
        return score_texts(self.prompts, self.stem.logits())


def measure_rates(
    check: Check[Any], prompts: TargetRows, scores: Sequence[TextScore], before: Sequence[TextScore]
) -> list[Measurement]:
    """Return one measurement of `check` for each condition and protocol, not yet judged; unprefixed first."""
    groups: dict[str, list[int]] = defaultdict(list)
    for index, item in enumerate(prompts.texts):
        groups[item.condition].append(index)
        if item.condition.startswith("family:"):
            groups["prefixed"].append(index)
    order = sorted(groups, key=lambda name: (name != "unprefixed", name != "prefixed"))
    rates = []
    for condition in order:
        now = [scores[index] for index in groups[condition]]
        old = [before[index] for index in groups[condition]]
        rates.append(_count(check, condition, "exact", [s.exact for s in now], [s.exact for s in old]))
        rates.append(_mean(check, condition, [s.match for s in now], [s.match for s in old]))
        # Without a true target this protocol does not apply, which is not the same as unmeasured.
        if prompts.true is not None:
            preferred = [s.preferred for s in now], [s.preferred for s in old]
            rates.append(_count(check, condition, "probability", *preferred))
    return rates


def _count(
    check: Check[Any], condition: str, protocol: str, now: Sequence[bool | None], old: Sequence[bool | None]
) -> Measurement:
    passed, failed = sum(answer is True for answer in now), sum(answer is False for answer in now)
    value = passed / (passed + failed) if passed + failed else None
    base = [answer for answer in old if answer is not None]
    return check.measurement(
        check.name,
        value,
        Outcome.INFO if value is not None else Outcome.UNMEASURED,
        condition=condition,
        protocol=protocol,
        baseline=sum(base) / len(base) if base else None,
        unit="share",
        passed=passed,
        failed=failed,
        not_judged=len(now) - passed - failed,
    )


def _mean(check: Check[Any], condition: str, now: Sequence[float | None], old: Sequence[float | None]) -> Measurement:
    values, base = [v for v in now if v is not None], [v for v in old if v is not None]
    whole = sum(value == 1.0 for value in values)
    return check.measurement(
        check.name,
        sum(values) / len(values) if values else None,
        Outcome.INFO if values else Outcome.UNMEASURED,
        condition=condition,
        protocol="token-match",
        baseline=sum(base) / len(base) if base else None,
        unit="share of tokens",
        passed=whole,
        failed=len(values) - whole,
        not_judged=len(now) - len(values),
    )


def add_held_out_prefixes(
    bench: Bench, prompts: Sequence[str], families: Sequence[Family] | None
) -> list[ConditionText]:
    """Return `prompts` without a prefix and after held-out prefixes: all, or the first one of each of `families`."""
    held_out = bench.prefixes.of(Role.HELD_OUT)
    if families is not None:
        held_out = tuple(
            next(prefix for prefix in held_out if prefix.family is family)
            for family in families
            if any(prefix.family is family for prefix in held_out)
        )
    texts = [ConditionText("unprefixed", prompt) for prompt in prompts]
    return texts + [ConditionText(f"family:{p.family.value}", p.text + prompt) for p in held_out for prompt in prompts]


def judge_rate(rate: Measurement, condition: str, least: float, what: str) -> Measurement:
    """Return `rate` judged by `least` where it is the exact one of `condition`; `what` names the prompts in the message."""
    if rate.condition != condition or rate.protocol != "exact" or rate.value is None:
        return rate
    counts = f"{what} {condition} that give the target: {rate.passed} of {rate.total}"
    message = compare_with_bound(counts, rate.value >= least, f"at least {least:.0%}")
    if rate.not_judged:
        message = f"{counts}, and {rate.not_judged} could not be judged"
    # A share of those that could be judged says nothing about the others.
    outcome = Outcome.UNMEASURED if rate.not_judged else judge(rate.value, rate.value >= least)
    return replace(rate, outcome=outcome, threshold=least, message=message)
