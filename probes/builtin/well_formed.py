"""Can this request be measured at all?"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from ..card import Card
from ..probe import Finding, Level, Probe, ProbeInput
from ..requests.prompt_subjects import find_misplaced_prompts
from ..requests.spacing import choose_separator
from ..tokens import encode_target, has_special, round_trips
from ..word_boundaries import find_cut_word

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = ["WellFormed"]


class WellFormed(Probe):
    """Can the request be carried out and judged at all?"""

    name = "well-formed"
    card = Card(
        question="Can subject and target be edited and judged, and does the model not say the target already?",
        source="faults of public implementations: BOS in target ids, merged tokens, targets re-tokenised with the prompt",
        needs="the tokenizer; one forward pass of the prompt with no prefix",
        unit="faults",
        range="0 upwards",
        threshold="0 faults; notices, not faults, are a target that the model already says, white space at the prompt's end, "
        "and a paraphrase or neighbour in the wrong list",
        action="Correct the request: the message names the field.",
    )
    figures = frozenset({"keys.position"})

    def examine(self, probe_input: ProbeInput) -> Finding:
        """Count the faults and name each; where there is no fault, name all notices."""
        faults = self._faults(probe_input)
        if faults:
            return self.finding(True, "; ".join(faults), float(len(faults)), 0.0)
        seam = _seam(probe_input)
        notices = self._notices(probe_input)
        message = "; ".join([*(notices or ["subject and target can be edited and judged"]), *seam])
        finding = self.finding(False, message, 0.0, 0.0)
        return replace(finding, level=Level.NOTICE) if notices else finding

    @staticmethod
    def _faults(probe_input: ProbeInput) -> list[str]:
        request, tokenizer = probe_input.request, probe_input.lm.tokenizer
        target = encode_target(tokenizer, request.prompt, request.target_new, request.space)
        faults = []
        if not round_trips(tokenizer, target, request.target_new):
            faults.append(f"target_new {request.target_new!r} does not survive tokenisation")
        if has_special(tokenizer, target):
            faults.append(f"target_new {request.target_new!r} holds a special token")
        position = probe_input.evidence.keys.position
        if has_special(tokenizer, position.input_ids[position.first_content :]):
            faults.append("prompt holds a special token")
        start = request.prompt.find(request.subject)
        word = find_cut_word(request.prompt, start, start + len(request.subject)) if start >= 0 else None
        if word is not None:
            faults.append(
                f"subject {request.subject!r} is a part of {word!r}, so the edit would be about something else; give the "
                "whole word as the subject"
            )
        if position.merged_end:
            faults.append(f"subject {request.subject!r} ends inside a token, so its key is not its own")
        if request.target_new in (request.target_true, *request.true_aliases):
            faults.append(f"target_new {request.target_new!r} is also target_true")
        return faults

    @staticmethod
    def _notices(probe_input: ProbeInput) -> list[str]:
        request = probe_input.request
        notices = list(find_misplaced_prompts(request))
        if request.prompt[-1:].isspace():
            notices.append(
                f"prompt {request.prompt!r} ends in white space, which most models read as a word of its own; leave it out"
            )
        if probe_input.evidence.says_target:
            notices.append(f"the model already continues the prompt with {request.target_new!r}")
        return notices

    def known_bad(self, probe_input: ProbeInput) -> Sequence[ProbeInput]:
        """A target that is the true target, a subject that ends inside a token, and a subject that is a part of a word."""
        keys = probe_input.evidence.keys
        part_of_word = replace(probe_input.request, subject="art", prompt="Bart lives in the city of")
        return (
            replace(probe_input, request=replace(probe_input.request, target_true=probe_input.request.target_new)),
            probe_input.with_evidence(keys=replace(keys, position=replace(keys.position, merged_end=True))),
            replace(probe_input, request=part_of_word),
        )


def _seam(probe_input: ProbeInput) -> list[str]:
    """Return how prompt and target are joined, where that is not by one plain space."""
    request = probe_input.request
    space = choose_separator(request.prompt, request.target_new, request.space)
    if request.space is not None:
        return [f"the target follows {'after a space' if space else 'without a space'}, as the request asks"]
    if space or request.prompt[-1:].isspace():
        return []
    return ["the target follows without a space, as the characters on both sides ask"]
