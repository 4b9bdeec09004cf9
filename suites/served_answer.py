"""Does the edited model say the target as it would be served?

An edit that needs a prefix is served after the first of `PREFIXES` after which the model says its whole target. Its ids go
through `editguard.suites.serving`, as a user's ids do. An edit that needs none is served as it stands, so that its prompt
without a prefix has the answer already.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any, NamedTuple

import torch

from ..probes.errors import InputError
from ..probes.forward.generation import continue_greedily
from ..probes.tokens import encode_target
from .check import Bench, EditUnderTest, Measurement, Outcome
from .serving import Serving, serve_inputs, serve_prompt, special_texts

if TYPE_CHECKING:
    from collections.abc import Sequence

    from ..probes.model.language_model import LanguageModel
    from ..probes.requests.request import EditRequest

__all__ = [
    "PREFIXES",
    "SERVED",
    "ServedAnswer",
    "ServingPrefix",
    "ask_as_served",
    "begin_of_text_token",
    "find_serving_prefix",
    "measure_served",
]

SERVED = "served"
"""Name of the condition."""
PREFIXES = ("\n", "\n\n", "However, ", "Here is a fact. ")
"""Tried in this order before a prompt whose edit needs a prefix; the first that gives the target is served."""


class ServedAnswer(NamedTuple):
    """A prompt as it was served, and whether the model then said the target."""

    text: str
    says: bool


class ServingPrefix(NamedTuple):
    """The prefix that an edit is served after, and whether the model says the target there."""

    prefix: str | None
    """None where the model says the target after none of `PREFIXES`, or where no prefix can stand before the prompt."""
    says: list[bool]
    """For the prefix alone, and for the prefix after a begin-of-text token where the tokenizer has one."""


def ask_as_served(lm: LanguageModel, request: EditRequest, prefix: str | None) -> ServedAnswer:
    """Return whether the model writes the whole target greedily where the edit is served after `prefix`.

    Raises `InputError` for a prompt whose ids cannot be served.
    """
    return _ask_after_tokens(lm, request, prefix, [""])[0]


def _ask_after_tokens(
    lm: LanguageModel, request: EditRequest, prefix: str | None, tokens: Sequence[str]
) -> list[ServedAnswer]:
    """Return the answer to the prompt after each special token of `tokens` (empty: none), in one batch."""
    edits, special = [Serving(request.subject, prefix)], special_texts(lm.tokenizer)
    texts = [token + request.prompt for token in tokens]
    rows = []
    for text in texts:
        ids = torch.tensor([lm.tokenizer(text).input_ids])
        rows.append(serve_inputs(lm.tokenizer, {"input_ids": ids}, edits)["input_ids"][0].tolist())
    target = list(encode_target(lm.tokenizer, request.prompt, request.target_new, request.space))
    written = continue_greedily(lm, rows, len(target), None if lm.plain else [target] * len(rows))
    return [
        ServedAnswer(serve_prompt(text, edits, special), ids == target)
        for text, ids in zip(texts, written, strict=True)
    ]


def begin_of_text_token(lm: LanguageModel) -> str | None:
    """Return the begin-of-text token that may stand before a prompt; None where there is none or the tokenizer adds it."""
    return None if lm.adds_bos or not lm.tokenizer.bos_token else str(lm.tokenizer.bos_token)


def find_serving_prefix(lm: LanguageModel, request: EditRequest) -> ServingPrefix:
    """Return the first prefix after which the model says the target, with and without a begin-of-text token before it.

    Where there is none, the first after which the model says it without that token.
    """
    token = begin_of_text_token(lm)
    tokens = ["", *([token] if token else [])]
    best = ServingPrefix(None, [False] * len(tokens))
    for prefix in PREFIXES:
        try:
            answers = _ask_after_tokens(lm, request, prefix, tokens)
        except InputError:
            break
        says = [answer.says for answer in answers]
        if all(says):
            return ServingPrefix(prefix, says)
        if says[0] and best.prefix is None:
            best = ServingPrefix(prefix, says)
        # Where text stands before the subject, serving puts no prefix in, and the other prefixes change nothing.
        if answers[0].text == request.prompt:
            break
    return best


def measure_served(
    bench: Bench, edit: EditUnderTest[Any], unprefixed: Measurement, after_token: Measurement | None = None
) -> Measurement:
    """Return efficacy under the condition `SERVED`, exact: the prompt as users write it, and after a begin-of-text token.

    `unprefixed` and `after_token` are the efficacy of these two without a prefix. The result is shown, and judged where the
    policy asks for it. It takes one or two forward passes for an edit that needs a prefix, and none for others.
    """
    if not edit.needs_prefix or unprefixed.value is None:
        return _judge_served(bench, _served_without_prefix(unprefixed, after_token))
    prefix, says = find_serving_prefix(bench.lm, edit.request)
    text = repr(prefix) if prefix is not None else f"none of {', '.join(map(repr, PREFIXES))}"
    places = ("", " and after a begin-of-text token") if len(says) > 1 else ("",)
    where = "".join(place for place, hit in zip(places, says, strict=True) if hit or place == "")
    measurement = Measurement(
        check=unprefixed.check,
        metric=unprefixed.metric,
        value=sum(says) / len(says),
        outcome=Outcome.INFO,
        condition=SERVED,
        protocol=unprefixed.protocol,
        unit=unprefixed.unit,
        passed=sum(says),
        failed=len(says) - sum(says),
        message=f"served after {text}{where} the model says the target",
        prefix=prefix,
    )
    return _judge_served(bench, measurement)


def _served_without_prefix(unprefixed: Measurement, after_token: Measurement | None) -> Measurement:
    rates = [rate for rate in (unprefixed, after_token) if rate is not None]
    passed, failed = sum(rate.passed for rate in rates), sum(rate.failed for rate in rates)
    value = None if any(rate.value is None for rate in rates) else passed / (passed + failed)
    return replace(
        unprefixed,
        condition=SERVED,
        value=value,
        baseline=None,
        passed=passed,
        failed=failed,
        not_judged=sum(rate.not_judged for rate in rates),
        outcome=Outcome.UNMEASURED if value is None else Outcome.INFO,
        message="no prefix is put before the prompt",
    )


def _judge_served(bench: Bench, measurement: Measurement) -> Measurement:
    if not bench.limits.served or measurement.value is None:
        return measurement
    return replace(measurement, outcome=Outcome.PASS if measurement.failed == 0 else Outcome.FAIL, threshold=1.0)
