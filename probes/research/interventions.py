"""Keys of the same prompt read in another way: at other positions, after a BOS or without one, at its first token.

Each function takes the prompts of requests and changes one thing about how the model reads them.
The difference to the keys of `keys.compute_subject_keys` is the effect of that change.
Weights and texts stay as they are.

Source: "The Fall of ROME" (arXiv 2406.11263): the first token with the second token's position, and Llama2-7b without
``<s>``.
"""

from __future__ import annotations

import inspect
from typing import TYPE_CHECKING, NamedTuple

import torch

from ..errors import ModelError, RequestError
from ..forward.batches import pad, run_fitting, split_batches
from ..forward.hooks import get_pad_id, stop_after
from ..keys.subject_keys import Activations, compute_activations, locate, trim_rows

if TYPE_CHECKING:
    from collections.abc import Sequence

    from ..model.language_model import LanguageModel
    from ..model.site import EditSite
    from ..requests.request import EditRequest
    from ..tokens import SubjectPosition

__all__ = ["OtherStart", "compute_first_token_keys", "compute_keys_after_bos", "compute_shifted_keys"]

_BUDGET = 1024
"""Tokens of one pass, padding included, as for unchanged keys."""

_AGREEMENT = 1e-2
"""Largest relative difference of a key that is read twice alike, in half precision too."""


class OtherStart(NamedTuple):
    """Keys and values of prompts that start with a BOS where the tokenizer adds none, or without what it adds."""

    activations: Activations
    with_bos: bool
    """True: a BOS stands before the ids, because the tokenizer adds none; False: what it adds was removed."""


def compute_shifted_keys(
    lm: LanguageModel, site: EditSite, requests: Sequence[EditRequest], shift: int = 1
) -> Activations:
    """Return key and value at each subject's last token, with no prefix and every position raised by `shift`.

    With a shift of 1 the first token gets the second token's position.
    Positions from a table (GPT-2, OPT) change the keys; rotary positions are relative and change only the rounding.
    Raises `ModelError` for a model that takes no position_ids or does not count them from 0.
    Raises `RequestError` where a subject cannot be located or a prompt would pass the model's last position.
    """
    if "position_ids" not in inspect.signature(lm.model.forward).parameters:
        raise ModelError(
            f"{lm.architecture} takes no position_ids, so its tokens cannot have other positions; leave this experiment "
            "out for it."
        )
    rows = trim_rows(lm, [(place.input_ids, place.last) for place in _locate_all(lm, requests)])
    _check_room(lm, max(len(ids) for ids, _ in rows), shift)
    _check_counting(lm, site, rows[0])
    return _read_shifted(lm, site, rows, shift)


def compute_keys_after_bos(lm: LanguageModel, site: EditSite, requests: Sequence[EditRequest]) -> OtherStart:
    """Return key and value at each subject's last token, with no prefix, after a BOS that the tokenizer does not add.

    Where the tokenizer adds special tokens before a text, they are removed instead.
    Raises `ModelError` where the
    tokenizer adds none and has no BOS, `RequestError` where a subject cannot be located.
    """
    positions = _locate_all(lm, requests)
    if lm.adds_bos:
        rows = [(place.input_ids[place.first_content :], place.last - place.first_content) for place in positions]
        return OtherStart(compute_activations(lm, site, rows), with_bos=False)
    bos = lm.tokenizer.bos_token_id
    if bos is None:
        raise ModelError(
            f"The tokenizer of {lm.ref!r} has no BOS token to put before a prompt; leave this experiment out for it."
        )
    rows = [((int(bos), *place.input_ids), place.last + 1) for place in positions]
    return OtherStart(compute_activations(lm, site, rows), with_bos=True)


def compute_first_token_keys(lm: LanguageModel, site: EditSite, requests: Sequence[EditRequest]) -> torch.Tensor:
    """Return the key at the first token of each request's prompt [requests, d_ff], whatever the subject is.

    That is token 0, which is a special token where the tokenizer adds one.
    Raises `RequestError` where a subject cannot be located.
    """
    rows = [(place.input_ids, 0) for place in _locate_all(lm, requests)]
    return compute_activations(lm, site, rows).keys


def _locate_all(lm: LanguageModel, requests: Sequence[EditRequest]) -> list[SubjectPosition]:
    if not requests:
        raise RequestError("0 requests have no keys; give one at least.")
    return [locate(lm, request) for request in requests]


def _read_shifted(
    lm: LanguageModel, site: EditSite, rows: Sequence[tuple[Sequence[int], int]], shift: int
) -> Activations:
    keys: dict[int, torch.Tensor] = {}
    values: dict[int, torch.Tensor] = {}

    def run(members: Sequence[int]) -> list[list[torch.Tensor]]:
        batch = pad([rows[place][0] for place in members], get_pad_id(lm), lm.device)
        width = batch.input_ids.shape[1]
        places = torch.arange(shift, shift + width, device=lm.device).expand(len(members), -1)
        with torch.no_grad(), stop_after(site.module) as records:
            lm.run(**batch._asdict(), position_ids=places, **({"use_cache": False} if lm.causal else {}))
        flat = [n * width + rows[place][1] for n, place in enumerate(members)]
        return [[*tensor.flatten(0, -2)[flat].float()] for tensor in records[0]]

    for members, (given, returned) in run_fitting(split_batches([len(ids) for ids, _ in rows], _BUDGET), run):
        keys.update(zip(members, given, strict=True))
        values.update(zip(members, returned, strict=True))
    order = range(len(rows))
    return Activations(torch.stack([keys[place] for place in order]), torch.stack([values[place] for place in order]))


def _check_room(lm: LanguageModel, longest: int, shift: int) -> None:
    if shift < 0 or longest + shift > lm.context_length:
        raise RequestError(
            f"A prompt of {longest} tokens cannot be shifted by {shift}: positions go from 0 to {lm.context_length - 1:g} in "
            f"{lm.architecture}; take a smaller shift or shorter prompts."
        )


def _check_counting(lm: LanguageModel, site: EditSite, row: tuple[Sequence[int], int]) -> None:
    """Refuse a model for which positions from 0 are not the ordinary ones: RoBERTa counts from the pad id on."""
    usual, counted = compute_activations(lm, site, [row]).keys, _read_shifted(lm, site, [row], 0).keys
    # NaN is no agreement.
    if not float((counted - usual).norm()) <= _AGREEMENT * float(usual.norm()):
        raise ModelError(
            f"{lm.architecture} does not read a prompt alike when its positions are given as 0, 1, 2, ..., so a shift of "
            "them means something else there; leave this experiment out for it."
        )
