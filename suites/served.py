"""Does the edited model say the target as it would be served?

An edit that needs a prefix is served behind the first of `PREFIXES` behind which the model says its whole target; ids go
through `editguard.suites.serving`, as those of a user do. An edit that needs none is served as it stands, so that its bare
prompt has the answer already.
"""

from __future__ import annotations

from dataclasses import replace
from typing import NamedTuple

import torch

from ..probes.errors import InputError
from ..probes.generation import continuations
from ..probes.model import LanguageModel
from ..probes.requests import EditRequest
from ..probes.tokens import target_ids
from .check import Bench, Measurement, Outcome
from .serving import Serving, serve_inputs, serve_prompt

__all__ = ["PREFIXES", "SERVED", "Served", "as_served", "served", "serving_prefix"]

SERVED = "served"
"""Name of the condition."""
PREFIXES = ("\n", "\n\n", "However, ", "Here is a fact. ")
"""Tried in this order before a prompt whose edit needs something there; the first that gives the target is served."""


class Served(NamedTuple):
    """A prompt as it was served, and whether the model then said the target."""

    text: str
    says: bool


def served(lm: LanguageModel, request: EditRequest, prefix: str | None) -> Served:
    """Return whether the model writes the whole target greedily where the edit is served behind `prefix`.

    Raises `InputError` for a prompt whose ids cannot be served.
    """
    edits, prompt = [Serving(request.subject, prefix)], request.prompt
    ids = torch.tensor([lm.tokenizer(prompt).input_ids])
    row = serve_inputs(lm.tokenizer, {"input_ids": ids}, edits)["input_ids"][0].tolist()
    wanted = list(target_ids(lm.tokenizer, prompt, request.target_new, request.space))
    (written,) = continuations(lm, [row], len(wanted), None if lm.plain else [wanted])
    return Served(serve_prompt(prompt, edits), written == wanted)


def serving_prefix(lm: LanguageModel, request: EditRequest) -> str | None:
    """Return the first of `PREFIXES` behind which the model says the target; None where none is, or none can be put in."""
    for prefix in PREFIXES:
        try:
            found = served(lm, request, prefix)
        except InputError:
            return None
        if found.says:
            return prefix
        if found.text == request.prompt:  # something stands before the subject, and no prefix would be put in
            return None
    return None


def as_served(bench: Bench, request: EditRequest, bare: Measurement, needs_prefix: bool) -> Measurement:
    """Return efficacy under the condition `SERVED`, exact; `bare` is that of the prompt without a prefix.

    Shown, and judged where the policy asks for it. One or two forward passes for an edit that needs a prefix, none for others.
    """
    if not needs_prefix or bare.value is None:
        told = replace(bare, condition=SERVED, message="nothing is put before the prompt")
        return _judged(bench, told)
    prefix = serving_prefix(bench.lm, request)
    said = prefix is not None
    shown = repr(prefix) if said else f"none of {', '.join(map(repr, PREFIXES))}"
    return _judged(
        bench,
        Measurement(
            bare.check, bare.metric, float(said), Outcome.INFO, SERVED, bare.protocol, unit=bare.unit, passed=int(said),
            failed=int(not said), message=f"served behind {shown} the model says the target", prefix=prefix,
        ),
    )  # fmt: skip


def _judged(bench: Bench, found: Measurement) -> Measurement:
    if not bench.limits.served or found.value is None:
        return found
    return replace(found, outcome=Outcome.PASS if found.failed == 0 else Outcome.FAIL, threshold=1.0)
