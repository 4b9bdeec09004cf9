"""Logs of every outcome of an audit, for properties that hold for every log."""

from __future__ import annotations

import random
from typing import Any

from editguard.reports.log.file import Log
from editguard.reports.log.header import CardRecord, SkippedRequest
from editguard.reports.log.schema import (
    ControlRecord,
    DecisionRecord,
    EditRecord,
    Footer,
    Generation,
    MeasurementRecord,
)
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st

from .examples import count_examples
from .leak_logs import count_prompts, make_prompt_outcome
from .log_updates import make_weights
from .synthetic_logs import HASH, make_control, make_edit, make_header, make_perplexity

HOSTILE = [
    "</script><img src=x onerror=alert(1)>",
    "]]> <![CDATA[ &amp; &#x0;",
    "\x00\x08\x1b[31m\x7f\ufffe\uffff",
    "user\u202egnp.exe\u2066",
    "a|b\\|c`d`` *e* _f_ ~~g~~ $h$ ^i^",
    "[click](https://evil.example/?a=b&c=d) ![x](http://e.example/i.png)",
    "see https://evil.example/x, www.evil.example/y and mallory@evil.example",
    "@octocat closes #1, !2, %3, GH-4 :tada:",
    "# head\n- item\n1. one\n> quote\n---\n```sh\nrm -rf /\n```",
    "<!-- hidden --> <details open> &lt;b&gt;",
    "{0} {{1}} %s ${HOME} $(id)",
    "long" * 2000,
]
"""Texts that imitate markup, commands or escapes."""

over_logs = settings(deadline=None, max_examples=count_examples(60), suppress_health_check=[HealthCheck.too_slow])
"""Without a deadline, because a log takes long to make and to render on a busy machine."""

texts = st.one_of(st.sampled_from(HOSTILE), st.text(min_size=1, max_size=30))

ENDS: dict[str, dict[str, Any]] = {
    "sound": {},
    "collapsed": {"outcome": "rolled-back", "verdict": "fail", "measurements": [make_perplexity(4000.0)]},
    "over a stricter bound": {
        "outcome": "rolled-back",
        "verdict": "fail",
        "measurements": [make_perplexity(1.2, bound=1.05)],
    },
    "collapsed, and called sound": {"measurements": [make_perplexity(4000.0, bound=5000.0)]},
    "collapsed, and failed elsewhere": {
        "outcome": "rolled-back",
        "verdict": "fail",
        "measurements": [
            make_perplexity(4000.0, bound=5000.0),
            MeasurementRecord(check="drift", metric="kl", value=9.0, verdict="fail"),
        ],
    },
    "not measured": {"outcome": "rolled-back", "verdict": "fail", "measurements": [make_perplexity(None)]},
    "nothing measured": {"measurements": []},
    "failed without a reason": {"outcome": "rolled-back", "verdict": "fail", "measurements": [make_perplexity(1.0)]},
    "errored": {"outcome": "errored", "verdict": "fail", "error": "RuntimeError: out of memory", "measurements": []},
    "not restored": {
        "measurements": [make_perplexity(1.0)],
        "weights": make_weights(before=HASH, edited="0" * 16, restored="1" * 16, restored_ok=False),
    },
    "refused": {
        "decision": DecisionRecord(action="refuse", reasons=["its subject is not in the prompt"]),
        "outcome": "refused",
        "verdict": "refused",
        "measurements": [],
        "update": None,
    },
    "refused when its update was seen": {
        "decision": DecisionRecord(action="refuse", reasons=["the update is over the bound"]),
        "outcome": "refused",
        "verdict": "refused",
        "measurements": [],
        "findings": [],
    },
    "leaked": {
        "outcome": "rolled-back",
        "verdict": "fail",
        "measurements": [
            make_perplexity(1.0),
            count_prompts("locality", "leaks", 1, 2),
            count_prompts("locality", "flips", 2, 2),
        ],
        "prompts": [
            make_prompt_outcome("Warsaw is in", "leak", after="Istanbul"),
            make_prompt_outcome("Paris is in", "flip", after="Asia"),
        ],
    },
    "leaked, and only counts are known": {
        "outcome": "rolled-back",
        "verdict": "fail",
        "measurements": [make_perplexity(1.0), count_prompts("other-facts", "leaks", 1, 2)],
    },
}
"""Fields of an edit by its outcome, beside those of `synthetic_logs.make_edit`."""

CARD = CardRecord(
    kind="probe",
    name="denominator",
    question="Is it small?",
    source="a paper",
    needs="keys",
    unit="none",
    range="0 to 1",
    threshold="0.1",
    action="Refuse it.",
)


def make_ended_edit(how: str, index: int = 1, **changes: Any) -> EditRecord:
    """Return an edit with one of the outcomes of `ENDS`."""
    # The first nine synthetic edits are all made. The tenth would be refused.
    record = make_edit(index % 9, random.Random(index), **(ENDS[how] | changes))
    return record.model_copy(update={"index": index})


def make_controls(how: str) -> tuple[ControlRecord, ...]:
    """Return the three controls: ``ok``, ``wrong``, ``errored``, with one ``missing``, or ``none``."""
    rng = random.Random(5)
    first = make_control("rome-1", rng, collapse=True, ok=how != "wrong")
    if how == "errored":
        first = make_control(
            "rome-1", rng, collapse=True, ok=False, outcome="errored", verdict="fail", error="it broke"
        )
    records = (first, make_control("rome-2", rng, collapse=True), make_control("sound-1", rng, collapse=False))
    return {"missing": records[1:], "none": ()}.get(how, records)


@st.composite
def draw_logs(draw: st.DrawFn) -> Log:
    """Draw a log of up to four edits, whole or not, with or without sound controls, under any policy."""
    fields = draw(st.fixed_dictionaries({"subject": texts, "prompt": texts, "target_new": texts, "group": texts}))
    ends = draw(st.lists(st.sampled_from(sorted(ENDS)), max_size=4))
    names = draw(st.lists(texts, min_size=len(ends), max_size=len(ends), unique=True))
    edits = tuple(
        make_ended_edit(how, index, id=name, **fields)
        for index, (how, name) in enumerate(zip(ends, names, strict=True))
    )
    shown = make_controls(draw(st.sampled_from(["ok", "ok", "ok", "wrong", "errored", "missing", "none"])))
    policy = draw(st.fixed_dictionaries({}, optional={"allow_refused": st.booleans(), "controls": st.booleans()}))
    record_count = len(edits) + len(shown) + draw(st.sampled_from([0, 0, 0, 1]))
    skipped = [SkippedRequest(where=draw(texts), field="subject", message="it is empty")] * draw(st.integers(0, 7))
    head = make_header(
        len(edits) + draw(st.sampled_from([0, 0, 0, 1])),
        policy={"collapse_ratio": 1.5, **policy},
        source=draw(texts),
        created=draw(st.one_of(st.just("2025-11-22T21:14:05+00:00"), texts)),
        skipped_invalid=skipped,
        controls=[] if not shown and draw(st.booleans()) else ["rome-1", "rome-2", "sound-1"],
        cards=draw(st.sampled_from([[], [CARD]])),
    )
    footer = Footer(records=record_count, seconds=1.0) if draw(st.sampled_from([True, True, True, False])) else None
    return Log(head, edits, shown, footer, torn=footer is None and draw(st.booleans()))


def make_hostile_log(text: str, edits: int = 60) -> Log:
    """Return a log with `text` as every free text, and edits of every outcome."""
    how = sorted(ENDS)
    fields: dict[str, Any] = {
        "subject": text,
        "prompt": text,
        "target_new": text,
        "target_true": text,
        "group": text,
        "generations": [Generation(prompt=text, before=text, after=text)],
        "not_judged": [text],
        "other_facts": [text],
        "prompts": [
            make_prompt_outcome(text, "leak", after=f"{text}!"),
            make_prompt_outcome(text, role="made-other-fact", before=text),
        ],
    }
    records = tuple(make_ended_edit(how[n % len(how)], n, id=f"{text}{n}", **fields) for n in range(edits))
    return Log(
        make_header(edits, source=text, created=text, site=text, unused=[text]), records, make_controls("wrong"), None
    )
