"""The built-in probes: first token, key shift, denominator, sink key, well-formed."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace

from .about import misplaced
from .bounds import against
from .card import Card
from .probe import PROBES, Case, Finding, Level, Probe
from .spacing import separator
from .tokens import has_special, round_trips, target_ids
from .words import cut_word

__all__ = ["Denominator", "FirstToken", "KeyShift", "SinkKey", "WellFormed"]

_SPOILED = 1000.0
"""Factor by which known-bad evidence is off: far beyond any ordinary subject's, and no rounding."""
_FALL = '"The Fall of ROME" (arXiv 2406.11263)'


@PROBES.register("first-token")
class FirstToken(Probe):
    """Is the subject's last token the first token of the input?"""

    name = "first-token"
    card = Card(
        question="Is the subject's last token the very first token of the input, after special tokens are counted?",
        source=f"{_FALL}, section 4.2",
        needs="the tokenizer's ids of the prompt",
        unit="token index",
        range="0 to the prompt's length",
        threshold="index 0; no calibration, since the first token sees nothing but itself in causal attention",
        action="Let the edit be made under prefixes, and serve it with one; or word the prompt so that something precedes.",
    )

    def look(self, case: Case) -> Finding:
        """Ask the ids, not the text: with a BOS the index is never 0."""
        position = case.evidence.keys.position
        message = (
            "the subject is the first token of the input: its key is the attention sink's"
            if position.is_first_token
            else f"the subject's last token is token {position.last} of the input"
        )
        return self.found(position.is_first_token, message, float(position.last), 0.0)

    def known_bad(self, case: Case) -> Sequence[Case]:
        """The subject as the first token."""
        keys = case.evidence.keys
        return (case.with_evidence(keys=replace(keys, position=replace(keys.position, first=0, last=0))),)


@PROBES.register("key-shift")
class KeyShift(Probe):
    """How far is the bare key from the prefixed ones?"""

    name = "key-shift"
    card = Card(
        question="Does the subject's key in the bare prompt point where its keys under prefixes point?",
        source=f"{_FALL}, section 4.1 and figure 3",
        needs="keys, bare and under ROME's contexts; key statistics for the distance",
        unit="cosine",
        range="-1 to 1",
        threshold=(
            "calibrated: the ordinary subjects' 1 % quantile, lowered by half its distance from their median, but to -0.9 at "
            "most, so that it can fire"
        ),
        action="Make the edit with keys from one side only (prefixed), or reword the prompt.",
    )

    def look(self, case: Case) -> Finding:
        """Compare directions; norms and the distance in the metric of C stand in the details."""
        seen, threshold = case.evidence, case.threshold(self.name, "cosine")
        fires = seen.cosine < threshold
        message = against(f"cos(k_u, k_bar) is {seen.cosine:.3f}", not fires, f"at least {threshold:.3f}")
        return self.found(
            fires, message, seen.cosine, threshold, norm_ratio=seen.norm_ratio, distance_ratio=seen.distance_ratio
        )

    def known_bad(self, case: Case) -> Sequence[Case]:
        """A bare key that points away from the prefixed ones."""
        return (case.with_evidence(cosine=-1.0),)

    def known_good(self, case: Case) -> Sequence[Case]:
        """The median ordinary subject's cosine."""
        return (case.with_evidence(cosine=case.ordinary(self.name, "cosine")),)


@PROBES.register("denominator")
class Denominator(Probe):
    """How large would the published update be?"""

    name = "denominator"
    card = Card(
        question="Is the denominator of the published update large enough, so that the update stays small?",
        source=f"{_FALL}, equation 4 and table 1",
        needs="keys, bare and under ROME's contexts; key statistics",
        unit="|u.k_u| / |u.k_bar|",
        range="0 upwards, near 1 for ordinary subjects",
        threshold=(
            "calibrated: a quarter of the ordinary subjects' 1 % quantile; and the update's upper bound may be at most "
            "twice their 99 % quantile"
        ),
        action="Never make this edit as published; let the guard rewrite it with prefixed keys.",
    )

    def look(self, case: Case) -> Finding:
        """Fire where the denominator almost vanishes or the update's bound leaves the ordinary range."""
        seen = case.evidence
        least, most = case.threshold(self.name, "ratio"), case.threshold(self.name, "predicted_relative_norm")
        for part in (seen.denominator, seen.denominator_prefixed, seen.predicted_relative_norm):
            if not math.isfinite(part):
                return self.found(True, "", part, least)
        small, large = seen.ratio < least, seen.predicted_relative_norm > most
        of_ratio = against(
            f"the denominator ratio |u.k_u| / |u.k_bar| = {seen.denominator:.4g} / {seen.denominator_prefixed:.4g} is "
            f"{seen.ratio:.4g}",
            not small,
            f"at least {least:.3g}",
        )
        of_bound = against(
            f"the published update could reach {seen.predicted_relative_norm:.3g} times ||W||",
            not large,
            f"at most {most:.3g}",
        )
        # The rule that fired is told first.
        message = f"{of_bound}; {of_ratio}" if large and not small else f"{of_ratio}; {of_bound}"
        found = self.found(
            small or large,
            message,
            seen.ratio,
            least,
            denominator=seen.denominator,
            denominator_prefixed=seen.denominator_prefixed,
            predicted_relative_norm=seen.predicted_relative_norm,
            predicted_relative_norm_threshold=most,
        )
        # Value and threshold are those of the rule that fired.
        of_size = replace(found, value=seen.predicted_relative_norm, threshold=most, unit="bound of ||Delta|| / ||W||")
        return of_size if large and not small else found

    def known_bad(self, case: Case) -> Sequence[Case]:
        """The median ordinary subject with its denominator, and then with its bound, off by a factor of a thousand."""
        (ordinary,) = self.known_good(case)
        seen = ordinary.evidence
        return (
            ordinary.with_evidence(denominator=seen.denominator / _SPOILED),
            ordinary.with_evidence(predicted_relative_norm=seen.predicted_relative_norm * _SPOILED),
        )

    def known_good(self, case: Case) -> Sequence[Case]:
        """The median ordinary subject's figures."""
        ratio, size = (case.ordinary(self.name, metric) for metric in ("ratio", "predicted_relative_norm"))
        return (case.with_evidence(denominator=ratio, denominator_prefixed=1.0, predicted_relative_norm=size),)


@PROBES.register("sink-key")
class SinkKey(Probe):
    """Is the bare key the attention sink's?"""

    name = "sink-key"
    card = Card(
        question="Is the subject's bare key like the keys of other first tokens, so that no edit there can be specific?",
        source=f"{_FALL}, section 4.2; attention sinks: arXiv 2309.17453",
        needs="the bare key; the mean key of first tokens of other prompts",
        unit="cosine",
        range="-1 to 1",
        threshold="calibrated: half-way from the ordinary subjects' 99 % quantile to 1",
        action="Do not edit this key: every other first token shares it. Let the guard rewrite the edit under prefixes.",
    )

    def look(self, case: Case) -> Finding:
        """Compare with the mean key of first tokens."""
        seen, threshold = case.evidence.sink_similarity, case.threshold(self.name, "cosine")
        fires = seen > threshold
        message = against(f"cos(k_u, sink) is {seen:.3f}", not fires, f"at most {threshold:.3f}")
        return self.found(fires, message, seen, threshold)

    def known_bad(self, case: Case) -> Sequence[Case]:
        """The sink's own key."""
        return (case.with_evidence(sink_similarity=1.0),)

    def known_good(self, case: Case) -> Sequence[Case]:
        """The median ordinary subject's cosine."""
        return (case.with_evidence(sink_similarity=case.ordinary(self.name, "cosine")),)


@PROBES.register("well-formed")
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

    def look(self, case: Case) -> Finding:
        """Count faults and name each; without one, name all notices."""
        faults = self._faults(case)
        if faults:
            return self.found(True, "; ".join(faults), float(len(faults)), 0.0)
        seam = _seam(case)
        if notices := self._notices(case):
            return Finding(self.name, Level.NOTICE, "; ".join([*notices, *seam]), 0.0, 0.0, self.card.unit)
        return self.found(False, "; ".join(["subject and target can be edited and judged", *seam]), 0.0, 0.0)

    @staticmethod
    def _faults(case: Case) -> list[str]:
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
    def _notices(case: Case) -> list[str]:
        request = case.request
        notices = list(misplaced(request))
        if request.prompt[-1:].isspace():
            notices.append(
                f"prompt {request.prompt!r} ends in white space, which most models read as a word of its own; leave it out"
            )
        if case.evidence.says_target:
            notices.append(f"the model already continues the prompt with {request.target_new!r}")
        return notices

    def known_bad(self, case: Case) -> Sequence[Case]:
        """A target that is the true one, a subject that ends inside a token, and one that is a part of a word."""
        keys = case.evidence.keys
        inside = replace(case.request, subject="art", prompt="Bart lives in the city of")
        return (
            replace(case, request=replace(case.request, target_true=case.request.target_new)),
            case.with_evidence(keys=replace(keys, position=replace(keys.position, merged_end=True))),
            replace(case, request=inside),
        )


def _seam(case: Case) -> list[str]:
    """Say how prompt and target are joined where that is no plain space."""
    request = case.request
    made = separator(request.prompt, request.target_new, request.space)
    if request.space is not None:
        return [f"the target follows {'after a space' if made else 'without a space'}, as the request asks"]
    if made or request.prompt[-1:].isspace():
        return []
    return ["the target follows without a space, as the characters on both sides ask"]
