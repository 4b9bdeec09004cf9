"""Does the edited model say the target as it would be served?

An edit that needs a prefix is served after the first of `PREFIXES` after which the model says its whole target; ids go
through `editguard.suites.serving`, as those of a user do. An edit that needs none is served as it stands, so that its bare
prompt has the answer already.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import NamedTuple

import torch

from ..probes.errors import InputError
from ..probes.forward.generation import continuations
from ..probes.model.language_model import LanguageModel
from ..probes.requests.request import EditRequest
from ..probes.tokens import target_ids
from .check import Bench, Measurement, Outcome
from .serving import Serving, serve_inputs, serve_prompt, special_texts

__all__ = [
    "PREFIXES",
    "SERVED",
    "ServedAnswer",
    "measure_served",
    "begin_of_text_token",
    "ask_as_served",
    "serving_prefix",
]

SERVED = "ask_as_served"
"""Name of the condition."""
PREFIXES = ("\n", "\n\n", "However, ", "Here is a fact. ")
"""Tried in this order before a prompt whose edit needs something there; the first that gives the target is served."""


class ServedAnswer(NamedTuple):
    """A prompt as it was served, and whether the model then said the target."""

    text: str
    says: bool


def ask_as_served(lm: LanguageModel, request: EditRequest, prefix: str | None) -> ServedAnswer:
    """Return whether the model writes the whole target greedily where the edit is served after `prefix`.

    Raises `InputError` for a prompt whose ids cannot be served.
    """
    (found,) = _served(lm, request, prefix, [""])
    return found


def _served(lm: LanguageModel, request: EditRequest, prefix: str | None, before: Sequence[str]) -> list[ServedAnswer]:
    """Return the same for the prompt after each special token of `before` (empty: none), in one batch."""
    edits, special = [Serving(request.subject, prefix)], special_texts(lm.tokenizer)
    texts = [token + request.prompt for token in before]
    rows = []
    for text in texts:
        ids = torch.tensor([lm.tokenizer(text).input_ids])
        rows.append(serve_inputs(lm.tokenizer, {"input_ids": ids}, edits)["input_ids"][0].tolist())
    wanted = list(target_ids(lm.tokenizer, request.prompt, request.target_new, request.space))
    written = continuations(lm, rows, len(wanted), None if lm.plain else [wanted] * len(rows))
    return [
        ServedAnswer(serve_prompt(text, edits, special), said == wanted)
        for text, said in zip(texts, written, strict=True)
    ]


def begin_of_text_token(lm: LanguageModel) -> str | None:
    """Return the begin-of-text token that may stand before a prompt and does not by itself; None where there is none."""
    return None if lm.adds_bos or not lm.tokenizer.bos_token else str(lm.tokenizer.bos_token)


def serving_prefix(lm: LanguageModel, request: EditRequest) -> str | None:
    """Return the prefix that the edit is served after; None where none of `PREFIXES` is, or none can be put in.

    It is the first after which the model says the target both bare and after a begin-of-text token, or else bare.
    """
    return _best(lm, request)[0]


def _best(lm: LanguageModel, request: EditRequest) -> tuple[str | None, list[bool]]:
    """Return that prefix, and whether the target is said after it: bare, and after a begin-of-text token where there is one."""
    token = begin_of_text_token(lm)
    before = ["", *([token] if token else [])]
    best: tuple[str | None, list[bool]] = None, [False] * len(before)
    for prefix in PREFIXES:
        try:
            found = _served(lm, request, prefix, before)
        except InputError:
            break
        said = [one.says for one in found]
        if all(said):
            return prefix, said
        if said[0] and best[0] is None:
            best = prefix, said
        if found[0].text == request.prompt:  # something stands before the subject, and no prefix would be put in
            break
    return best


def measure_served(
    bench: Bench, request: EditRequest, bare: Measurement, needs_prefix: bool, after_bos: Measurement | None = None
) -> Measurement:
    """Return efficacy under the condition `SERVED`, exact: the prompt as users write it, and after a begin-of-text token.

    `bare` and `after_bos` are the efficacy of these two without a prefix. Shown, and judged where the policy asks for it.
    One or two forward passes for an edit that needs a prefix, none for others.
    """
    if not needs_prefix or bare.value is None:
        both = [one for one in (bare, after_bos) if one is not None]
        passed, failed = sum(one.passed for one in both), sum(one.failed for one in both)
        value = None if any(one.value is None for one in both) else passed / (passed + failed)
        left = sum(one.not_judged for one in both)
        told = replace(
            bare, condition=SERVED, value=value, baseline=None, passed=passed, failed=failed, not_judged=left,
            outcome=Outcome.UNMEASURED if value is None else Outcome.INFO, message="no prefix is put before the prompt",
        )  # fmt: skip
        return _judged(bench, told)
    prefix, said = _best(bench.lm, request)
    shown = repr(prefix) if prefix is not None else f"none of {', '.join(map(repr, PREFIXES))}"
    places = ("", " and after a begin-of-text token") if len(said) > 1 else ("",)
    where = "".join(place for place, one in zip(places, said, strict=True) if one or place == "")
    return _judged(
        bench,
        Measurement(
            check=bare.check, metric=bare.metric, value=sum(said) / len(said), outcome=Outcome.INFO, condition=SERVED,
            protocol=bare.protocol, unit=bare.unit, passed=sum(said), failed=len(said) - sum(said),
            message=f"served after {shown}{where} the model says the target", prefix=prefix,
        ),
    )  # fmt: skip


def _judged(bench: Bench, found: Measurement) -> Measurement:
    if not bench.limits.served or found.value is None:
        return found
    return replace(found, outcome=Outcome.PASS if found.failed == 0 else Outcome.FAIL, threshold=1.0)
