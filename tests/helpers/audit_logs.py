"""Small audits to compare with one another, built record by record. A test names what differs."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterable
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

from editguard.reports.gate.baseline import Baseline, build_baseline
from editguard.reports.log.file import Log, LogWriter
from editguard.reports.log.schema import DecisionRecord, EditRecord, Footer, MeasurementRecord
from editguard.reports.log.types import Rate

from .log_updates import make_weights
from .synthetic_logs import HASH, make_keys, make_log, make_measurement, make_perplexity, make_update

Change = Callable[[EditRecord], EditRecord]


@cache
def make_audit(edits: int = 14, **header: Any) -> Log:
    """Return a passing audit in which every edit has all metrics. It is seeded, so always the same."""
    log = make_log(edits, **({"perplexity_corpus_sha256": "c0" * 32} | header))
    rng = random.Random(3)
    return replace(log, edits=tuple(_measure_all(edit, rng) for edit in log.edits))


def _measure_all(edit: EditRecord, rng: random.Random) -> EditRecord:
    own = random.Random(edit.index)
    values = edit.model_dump() | {
        "decision": DecisionRecord(action="allow", editor="rome"),
        "update": make_update(own, make_keys(own, False), "rome", needs_prefix=False),
        "weights": make_weights(before=HASH, edited="edited", restored=HASH, restored_ok=True),
        "measurements": [
            make_measurement("efficacy", "unprefixed", 1, 1),
            make_measurement("efficacy", "prefixed", 17, 17),
            make_measurement("efficacy", "prefixed", 17, 17, "token-match"),
            make_measurement("generalization", "unprefixed", rng.randrange(3), 2),
            make_measurement("locality", "unprefixed", rng.randrange(15, 19), 20, "token-match"),
            make_measurement("locality", "unprefixed", 2, 2, "exact"),
            make_perplexity(rng.uniform(0.99, 1.02)),
        ],
        "outcome": "committed",
        "verdict": "pass",
    }
    return EditRecord(**values)


def make_sequence(log: Log) -> Log:
    """Return `log` as if its edits had been made one after another, and each undone."""
    assert log.footer is not None
    none = Rate(passed=0, failed=0, not_judged=0, total=0)
    header = log.header.model_copy(update={"in_sequence": True})
    return replace(log, header=header, footer=log.footer.model_copy(update={"retained": none}))


def change_edits(log: Log, change: Change, which: Iterable[int]) -> Log:
    """Return `log` with `change` made to the edits at the places `which`."""
    chosen = {*which}
    edits = tuple(change(edit) if place in chosen else edit for place, edit in enumerate(log.edits))
    return replace(log, edits=edits)


def recount(log: Log) -> Log:
    """Return `log` with counts of its edits in header and footer."""
    footer = Footer(records=len(log.edits) + len(log.controls), seconds=1.0)
    return replace(log, header=log.header.model_copy(update={"requests": len(log.edits)}), footer=footer)


def change_measurement(check: str, condition: str, protocol: str | None, **changes: Any) -> Change:
    """Return a change of one measurement."""

    def change(edit: EditRecord) -> EditRecord:
        measurements = [
            MeasurementRecord(**(measurement.model_dump() | changes))
            if (measurement.check, measurement.condition, measurement.protocol) == (check, condition, protocol)
            else measurement
            for measurement in edit.measurements
        ]
        return EditRecord(**(edit.model_dump() | {"measurements": measurements}))

    return change


def drop_measurement(check: str, condition: str, protocol: str | None) -> Change:
    """Return a change that removes one measurement."""

    def change(edit: EditRecord) -> EditRecord:
        measurements = [
            measurement
            for measurement in edit.measurements
            if (measurement.check, measurement.condition, measurement.protocol) != (check, condition, protocol)
        ]
        return edit.model_copy(update={"measurements": measurements})

    return change


def fail_measurement(
    check: str = "efficacy", condition: str = "prefixed", protocol: str = "exact", total: int = 17
) -> Change:
    """Return a change after which every condition of one measurement fails."""
    return change_measurement(check, condition, protocol, passed=0, failed=total, value=0.0)


def add_served_efficacy(passes: bool) -> Change:
    """Return a change that adds the efficacy of the edit as it would be served."""
    measurement = make_measurement("efficacy", "served", int(passes), 1)
    return lambda edit: edit.model_copy(update={"measurements": [*edit.measurements, measurement]})


def add_check(check: str) -> Change:
    """Return a change that adds a passed check without a metric of its own."""
    measurement = MeasurementRecord(check=check, metric="share", value=0.0, threshold=0.1, verdict="pass")
    return lambda edit: edit.model_copy(update={"measurements": [*edit.measurements, measurement]})


def refuse(edit: EditRecord) -> EditRecord:
    """Return `edit` as if the guard had refused it."""
    values = {
        "decision": DecisionRecord(action="refuse", reasons=["it was refused"]),
        "measurements": [],
        "update": None,
        "weights": None,
        "outcome": "refused",
        "verdict": "refused",
    }
    return EditRecord(**(edit.model_dump() | values))


def set_ratio(value: float | None) -> Change:
    """Return a change of the perplexity ratio, with the outcome that follows from it."""

    def change(edit: EditRecord) -> EditRecord:
        measurements = [measurement for measurement in edit.measurements if measurement.check != "perplexity"]
        sound = value is not None and value <= 1.5
        end = {"outcome": "committed", "verdict": "pass"} if sound else {"outcome": "rolled-back", "verdict": "fail"}
        return EditRecord(**(edit.model_dump() | end | {"measurements": [*measurements, make_perplexity(value)]}))

    return change


def scale_ratio(factor: float) -> Change:
    """Return a change that multiplies the perplexity ratio."""

    def change(edit: EditRecord) -> EditRecord:
        (current,) = (measurement.value for measurement in edit.measurements if measurement.check == "perplexity")
        assert current is not None
        return set_ratio(current * factor)(edit)

    return change


def make_baseline(log: Log) -> Baseline:
    return build_baseline(log, None)


def write_log(log: Log, path: Path) -> Path:
    """Write `log` as an audit does, and return its path."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with LogWriter(path) as writer:
        for record in (log.header, *log.edits, *log.controls):
            writer.write(record)
        if log.footer is not None:
            writer.write(log.footer)
    return path
