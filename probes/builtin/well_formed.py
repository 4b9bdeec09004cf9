"""Can this request be measured at all?"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from ..card import Card
from ..probe import ProbeInput, Finding, Level, Probe
from ..requests.prompt_subjects import misplaced
from ..requests.spacing import separator
from ..tokens import has_special, round_trips, target_ids
from ..words import cut_word

__all__ = ["WellFormed"]


class WellFormed(Probe):
    """Can the request be carried out and judged at all?"""

    name = "well-formed"
    card = Card(
        question="Are subject and target tokens that can be edited and judged, and is the target not already said?",
        source="faults of public implementations: BOS in target ids, merged tokens, targets re-tokenised with the prompt",
        needs="the tokenizer; one forward pass of the bare prompt",
        unit="faults",
        range="0 upwards",
        threshold="0 faults; notices, not faults, are a target that the model already says, white space at the prompt's end, "
        "and a paraphrase or neighbour in the wrong list",
        action="Correct the request: the message names the field.",
    )

    def examine(self, case: ProbeInput) -> Finding:
        """Count faults and name each; without one, name all notices."""
        faults = self._faults(case)
        if faults:
            return self.finding(True, "; ".join(faults), float(len(faults)), 0.0)
        seam = _seam(case)
        if notices := self._notices(case):
            return Finding(self.name, Level.NOTICE, "; ".join([*notices, *seam]), 0.0, 0.0, self.card.unit)
        return self.finding(False, "; ".join(["subject and target can be edited and judged", *seam]), 0.0, 0.0)

    @staticmethod
    def _faults(case: ProbeInput) -> list[str]:
        request, tokenizer = case.request, case.lm.tokenizer
        target = target_ids(tokenizer, request.prompt, request.target_new, request.space)
        faults = []
        if not round_trips(tokenizer, target, request.target_new):
            faults.append(f"target_new {request.target_new!r} does not survive tokenisation")
        if has_special(tokenizer, target):
            faults.append(f"target_new {request.target_new!r} holds a special token")
        position = case.evidence.keys.position
        if has_special(tokenizer, position.input_ids[position.first_content :]):
            faults.append("prompt holds a special token")
        start = request.prompt.find(request.subject)
        word = cut_word(request.prompt, start, start + len(request.subject)) if start >= 0 else None
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
    def _notices(case: ProbeInput) -> list[str]:
        request = case.request
        notices = list(misplaced(request))
        if request.prompt[-1:].isspace():
            notices.append(
                f"prompt {request.prompt!r} ends in white space, which most models read as a word of its own; leave it out"
            )
        if case.evidence.says_target:
            notices.append(f"the model already continues the prompt with {request.target_new!r}")
        return notices

    def known_bad(self, case: ProbeInput) -> Sequence[ProbeInput]:
        """A target that is the true one, a subject that ends inside a token, and one that is a part of a word."""
        keys = case.evidence.keys
        inside = replace(case.request, subject="art", prompt="Bart lives in the city of")
        return (
            replace(case, request=replace(case.request, target_true=case.request.target_new)),
            case.with_evidence(keys=replace(keys, position=replace(keys.position, merged_end=True))),
            replace(case, request=inside),
        )


def _seam(case: ProbeInput) -> list[str]:
    """Say how prompt and target are joined where that is no plain space."""
    request = case.request
    made = separator(request.prompt, request.target_new, request.space)
    if request.space is not None:
        return [f"the target follows {'after a space' if made else 'without a space'}, as the request asks"]
    if made or request.prompt[-1:].isspace():
        return []
    return ["the target follows without a space, as the characters on both sides ask"]
