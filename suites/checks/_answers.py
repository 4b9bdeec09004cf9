"""Did the edit take, and does it hold in other words?

Three protocols, never mixed and each named where it is printed: *exact* (every target token is the greedy choice),
*token-match* (share of target tokens that are, under teacher forcing; the paper's), *probability* (P(new) > P(true);
the original ROME's). Each is measured without a prefix and under held-out prefixes, family by family; none of the
held-out prefixes was used in the edit.

Source: field definitions of arXiv 2202.05262 section 3.2 and 2406.11263 section 5.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import accumulate
from typing import NamedTuple

import torch

from ...probes.forward.partial import PlainRows, Row, Stem
from ...probes.keys.prefixes import Family, Role
from ...probes.requests.request import EditRequest
from ...probes.tokens import target_ids
from ...probes.wording import compare_with_bound
from ..check import Bench, Measurement, Outcome, judge

__all__ = ["SPECIAL", "judge_rate"]
SPECIAL = "special:"
"""Begins the name of the condition in which a special token alone stands before the prompt."""

FEW_FAMILIES = (Family.SENTENCE,)
"""Families under which paraphrases and neighbours are tested: these prompts are many, and the edit's own has all."""


class ConditionText(NamedTuple):
    condition: str
    text: str


@dataclass(frozen=True)
class TargetRows:
    """Texts with both targets' rows; `new` and `true` are indices into the stem's rows."""

    texts: tuple[ConditionText, ...]
    rows: tuple[Row, ...]
    new: tuple[int, ...]
    true: tuple[int, ...] | None
    targets: tuple[tuple[int, ...], ...]


def build_target_rows(bench: Bench, texts: Sequence[ConditionText], request: EditRequest) -> TargetRows:
    tokenizer = bench.lm.tokenizer
    rows: dict[Row, int] = {}

    def enter(target: tuple[int, ...], text: str) -> int:
        ids = tuple(tokenizer(text).input_ids)
        # For targets of one token both rows are the same, and are run once.
        row = Row(ids + target[:-1], 0, tuple(range(len(ids) - 1, len(ids) + len(target) - 1)))
        return rows.setdefault(row, len(rows))

    targets = [target_ids(tokenizer, request.prompt, request.target_new, request.space)]
    new = tuple(enter(targets[0], item.text) for item in texts)
    true = None
    if request.target_true:
        targets.append(target_ids(tokenizer, request.prompt, request.target_true, request.space))
        true = tuple(enter(targets[1], item.text) for item in texts)
    return TargetRows(tuple(texts), tuple(rows), new, true, tuple(targets))


def _stems(bench: Bench, rows: Sequence[Sequence[Row]]) -> list[tuple[Stem | PlainRows, torch.Tensor]]:
    """Run all `rows` together; return for each of their lists its own stem and the unedited model's logits."""
    whole = bench.stem([row for part in rows for row in part])
    ends = list(accumulate(len(part) for part in rows))
    parts = [whole.part(range(end - len(part), end)) for part, end in zip(rows, ends, strict=True)]
    logits = whole.first.split([sum(len(row.predict) for row in part) for part in rows])
    return list(zip(parts, logits, strict=True))


def score_unedited(bench: Bench, asked: Sequence[TargetRows | None]) -> list[UneditedScores | None]:
    """Ask the unedited model; None stays None."""
    made = [one for one in asked if one is not None]
    found = iter(_stems(bench, [one.rows for one in made]) if made else ())
    return [None if one is None else _first(one, *next(found)) for one in asked]


def _first(asked: TargetRows, stem: Stem | PlainRows, logits: torch.Tensor) -> UneditedScores:
    return UneditedScores(asked, stem, score_texts(asked, logits))


class TextScore(NamedTuple):
    exact: bool | None
    match: float | None
    preferred: bool | None


def score_texts(asked: TargetRows, logits: torch.Tensor) -> list[TextScore]:
    """Return the three protocols' answers for every text; None where the logits are not finite or no truth is given."""
    parts = logits.log_softmax(-1).split([len(row.predict) for row in asked.rows])
    found = []
    for index in range(len(asked.texts)):
        new, target = parts[asked.new[index]], torch.tensor(asked.targets[0], device=logits.device)
        if not bool(torch.isfinite(new).all()):
            found.append(TextScore(None, None, None))
            continue
        hits = new.argmax(-1) == target
        preferred = None
        if asked.true is not None and bool(torch.isfinite(parts[asked.true[index]]).all()):
            truth = torch.tensor(asked.targets[1], device=logits.device)
            of_true = parts[asked.true[index]].gather(1, truth[:, None]).mean()
            preferred = bool(new.gather(1, target[:, None]).mean() > of_true)
        found.append(TextScore(bool(hits.all()), float(hits.double().mean()), preferred))
    return found


def measure_rates(
    check: str, asked: TargetRows, scored: Sequence[TextScore], before: Sequence[TextScore]
) -> list[Measurement]:
    """Return one measurement for each condition and protocol, not yet judged; unprefixed first."""
    groups: dict[str, list[int]] = defaultdict(list)
    for index, item in enumerate(asked.texts):
        groups[item.condition].append(index)
        if item.condition.startswith("family:"):
            groups["prefixed"].append(index)
    order = sorted(groups, key=lambda name: (name != "unprefixed", name != "prefixed"))
    found = []
    for condition in order:
        now = [scored[index] for index in groups[condition]]
        old = [before[index] for index in groups[condition]]
        found.append(_count(check, condition, "exact", [s.exact for s in now], [s.exact for s in old]))
        found.append(_mean(check, condition, [s.match for s in now], [s.match for s in old]))
        # Without a true target nobody asked for this protocol, and what was not asked for is not unmeasured.
        if asked.true is not None:
            preferred = [s.preferred for s in now], [s.preferred for s in old]
            found.append(_count(check, condition, "probability", *preferred))
    return found


def _count(
    check: str, condition: str, protocol: str, now: Sequence[bool | None], old: Sequence[bool | None]
) -> Measurement:
    passed, failed = sum(answer is True for answer in now), sum(answer is False for answer in now)
    value = passed / (passed + failed) if passed + failed else None
    outcome = Outcome.INFO if value is not None else Outcome.UNMEASURED
    base = [answer for answer in old if answer is not None]
    return Measurement(
        check, check, value, outcome, condition, protocol, sum(base) / len(base) if base else None, unit="share",
        passed=passed, failed=failed, not_judged=len(now) - passed - failed,
    )  # fmt: skip


def _mean(check: str, condition: str, now: Sequence[float | None], old: Sequence[float | None]) -> Measurement:
    values, base = [v for v in now if v is not None], [v for v in old if v is not None]
    whole = sum(value == 1.0 for value in values)
    return Measurement(
        check, check, sum(values) / len(values) if values else None, Outcome.INFO if values else Outcome.UNMEASURED,
        condition, "token-match", sum(base) / len(base) if base else None, unit="share of tokens", passed=whole,
        failed=len(values) - whole, not_judged=len(now) - len(values),
    )  # fmt: skip


def add_held_out_prefixes(
    bench: Bench, prompts: Sequence[str], families: Sequence[Family] | None
) -> list[ConditionText]:
    """Return `prompts` bare and under held-out prefixes: all of them, or the first one of each of `families`."""
    held_out = bench.prefixes.of(Role.HELD_OUT)
    if families is not None:
        held_out = tuple(
            next(prefix for prefix in held_out if prefix.family is family)
            for family in families
            if any(prefix.family is family for prefix in held_out)
        )
    texts = [ConditionText("unprefixed", prompt) for prompt in prompts]
    return texts + [ConditionText(f"family:{p.family.value}", p.text + prompt) for p in held_out for prompt in prompts]


class UneditedScores(NamedTuple):
    asked: TargetRows
    stem: Stem | PlainRows
    before: list[TextScore]

    def now(self) -> list[TextScore]:
        """Ask the model as it is now."""
        return score_texts(self.asked, self.stem.logits())


def judge_rate(rate: Measurement, condition: str, least: float, what: str) -> Measurement:
    """Return `rate` judged by `least` where it is the exact one of `condition`; `what` names what was asked."""
    if rate.condition != condition or rate.protocol != "exact" or rate.value is None:
        return rate
    said = f"{what} {condition} that give the target: {rate.passed} of {rate.total}"
    message = compare_with_bound(said, rate.value >= least, f"at least {least:.0%}")
    if rate.not_judged:
        message = f"{said}, and {rate.not_judged} could not be judged"
    # A share of those that could be judged says nothing about the others.
    outcome = Outcome.UNMEASURED if rate.not_judged else judge(rate.value, rate.value >= least)
    return replace(rate, outcome=outcome, threshold=least, message=message)
