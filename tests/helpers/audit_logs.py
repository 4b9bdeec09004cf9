"""Small audits to hold against one another: built record by record, so that a test says what differs."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterable
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

from editguard.reports.gate.baseline import Baseline, build_baseline
from editguard.reports.log.file import Log, LogWriter
from editguard.reports.log.schema import DecisionRecord, EditRecord, Footer, MeasurementRecord, Weights
from editguard.reports.log.types import Rate

from .synthetic_logs import HASH, keys, measurement, perplexity, synthetic_log, update

Change = Callable[[EditRecord], EditRecord]


@cache
def audit(edits: int = 14, **header: Any) -> Log:
    """Return a passing audit in which every edit is made and has all metrics; seeded, so always the same."""
    log = synthetic_log(edits, **({"perplexity_corpus_sha256": "c0" * 32} | header))
    rng = random.Random(3)
    return replace(log, edits=tuple(_measured(edit, rng) for edit in log.edits))


def _measured(edit: EditRecord, rng: random.Random) -> EditRecord:
    own = random.Random(edit.index)
    values = edit.model_dump() | {
        "decision": DecisionRecord(action="allow", editor="rome"),
        "update": update(own, keys(own, False), "rome", needs_prefix=False),
        "weights": Weights(before=HASH, edited="edited", restored=HASH, restored_ok=True),
        "measurements": [
            measurement("efficacy", "unprefixed", 1, 1),
            measurement("efficacy", "prefixed", 17, 17),
            measurement("efficacy", "prefixed", 17, 17, "token-match"),
            measurement("generalization", "unprefixed", rng.randrange(3), 2),
            measurement("locality", "unprefixed", rng.randrange(15, 19), 20, "token-match"),
            measurement("locality", "unprefixed", 2, 2, "exact"),
            perplexity(rng.uniform(0.99, 1.02)),
        ],
        "outcome": "committed",
        "verdict": "pass",
    }
    return EditRecord(**values)


def in_sequence(log: Log) -> Log:
    """Return `log` as if its edits had been made one after the other, and each undone."""
    assert log.footer is not None
    none = Rate(passed=0, failed=0, not_judged=0, total=0)
    header = log.header.model_copy(update={"in_sequence": True})
    return replace(log, header=header, footer=log.footer.model_copy(update={"retained": none}))


def with_edits(log: Log, change: Change, which: Iterable[int]) -> Log:
    """Return `log` with `change` made to the edits at the places `which`."""
    chosen = {*which}
    edits = tuple(change(edit) if place in chosen else edit for place, edit in enumerate(log.edits))
    return replace(log, edits=edits)


def counted(log: Log) -> Log:
    """Return `log` with header and footer that count the edits it has."""
    footer = Footer(records=len(log.edits) + len(log.controls), seconds=1.0)
    return replace(log, header=log.header.model_copy(update={"requests": len(log.edits)}), footer=footer)


def remeasured(check: str, condition: str, protocol: str | None, **changes: Any) -> Change:
    """Return a change of one measurement."""

    def change(edit: EditRecord) -> EditRecord:
        found = [
            MeasurementRecord(**(one.model_dump() | changes))
            if (one.check, one.condition, one.protocol) == (check, condition, protocol)
            else one
            for one in edit.measurements
        ]
        return EditRecord(**(edit.model_dump() | {"measurements": found}))

    return change


def without(check: str, condition: str, protocol: str | None) -> Change:
    """Return a change after which one measurement was not taken."""

    def change(edit: EditRecord) -> EditRecord:
        found = [
            one for one in edit.measurements if (one.check, one.condition, one.protocol) != (check, condition, protocol)
        ]
        return edit.model_copy(update={"measurements": found})

    return change


def lost(check: str = "efficacy", condition: str = "prefixed", protocol: str = "exact", total: int = 17) -> Change:
    """Return a change after which nothing of one measurement passes any more."""
    return remeasured(check, condition, protocol, passed=0, failed=total, value=0.0)


def served(passes: bool) -> Change:
    """Return a change after which it was measured whether the edit says its target as it would be served."""
    one = measurement("efficacy", "served", int(passes), 1)
    return lambda edit: edit.model_copy(update={"measurements": [*edit.measurements, one]})


def judged_by(check: str) -> Change:
    """Return a change after which a check that has no metric of its own passed the edit too."""
    one = MeasurementRecord(check=check, metric="share", value=0.0, threshold=0.1, verdict="pass")
    return lambda edit: edit.model_copy(update={"measurements": [*edit.measurements, one]})


def refused(edit: EditRecord) -> EditRecord:
    """Return `edit` as the guard would have refused it."""
    values = {
        "decision": DecisionRecord(action="refuse", reasons=["it was refused"]),
        "measurements": [],
        "update": None,
        "weights": None,
        "outcome": "refused",
        "verdict": "refused",
    }
    return EditRecord(**(edit.model_dump() | values))


def ratio(value: float | None) -> Change:
    """Return a change of the perplexity ratio, with the end that goes with it."""

    def change(edit: EditRecord) -> EditRecord:
        made = [one for one in edit.measurements if one.check != "perplexity"]
        sound = value is not None and value <= 1.5
        end = {"outcome": "committed", "verdict": "pass"} if sound else {"outcome": "rolled-back", "verdict": "fail"}
        return EditRecord(**(edit.model_dump() | end | {"measurements": [*made, perplexity(value)]}))

    return change


def times(factor: float) -> Change:
    """Return a change that multiplies the perplexity ratio."""

    def change(edit: EditRecord) -> EditRecord:
        (now,) = (one.value for one in edit.measurements if one.check == "perplexity")
        assert now is not None
        return ratio(now * factor)(edit)

    return change


def saved(log: Log) -> Baseline:
    return build_baseline(log, None)


def written(log: Log, path: Path) -> Path:
    """Write `log` as an audit would, and return its path."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with LogWriter(path) as writer:
        for record in (log.header, *log.edits, *log.controls):
            writer.write(record)
        if log.footer is not None:
            writer.write(log.footer)
    return path
