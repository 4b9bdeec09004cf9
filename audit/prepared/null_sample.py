"""The null sample: ordinary subjects, none of them a first token, on which thresholds are calibrated."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from ...probes.keys.subject_keys import locate
from ...suites.builtin import load_ordinary_requests

if TYPE_CHECKING:
    from ...probes.model.language_model import LanguageModel
    from ...probes.requests.request import EditRequest

__all__ = ["NULL_SAMPLE", "make_null_sample"]

NULL_SAMPLE = 64
"""Ordinary subjects that thresholds are calibrated on."""


def make_null_sample(lm: LanguageModel, size: int) -> tuple[EditRequest, ...]:
    """Return `size` requests about ordinary subjects: half in mid-prompt, half at its start, none a first token.

    Subjects at the start have more than one token. They are ordinary too, though fewer tokens stand before their last one.
    """
    requests = load_ordinary_requests()
    opening = [
        replace(request, id=f"{request.id}-first", prompt=f"{request.subject} is known for") for request in requests
    ]
    of_several_tokens = [request for request in opening if not locate(lm, request).is_first_token]
    half = min(size // 2, len(of_several_tokens))
    # Subjects at the start come from the end of the list, so that few subjects are in the sample twice.
    return (*requests[: size - half], *of_several_tokens[len(of_several_tokens) - half :])
