"""Question of each experiment, and its source in the paper; the only list of all thirteen."""

from __future__ import annotations

from typing import Any, NamedTuple

from .....reports.reproduction.schema import Agreement, Claim, Experiment

__all__ = ["HEADINGS", "Heading", "build_claim", "build_experiment"]


class Heading(NamedTuple):
    """Name (the page's anchor), title, question, and source in the paper."""

    name: str
    title: str
    question: str
    source: str


HEADINGS = {
    1: Heading(
        "update-size",
        "Numerator and denominator of the published update",
        "Is the update of collapse cases large because its numerator is large, or because its denominator is small?",
        "numerators and denominators of the paper",
    ),
    2: Heading(
        "perplexity",
        "Perplexity after one edit",
        "Does one edit destroy the model, and does a consistent key prevent it?",
        "perplexities of the paper",
    ),
    3: Heading(
        "c-rome-without-prefix",
        "C-ROME on collapse cases, no prefix at test",
        "Does an edit made with prefixed keys act on the prompt without a prefix?",
        "efficacy of C-ROME in the paper",
    ),
    4: Heading(
        "c-rome-with-prefix",
        "C-ROME with a prefix at test",
        "Does it act after a prefix?",
        "efficacy of C-ROME in the paper",
    ),
    5: Heading(
        "prefixed",
        "The guard's own editor, prefixed",
        "Do keys and values that are both taken under prefixes of every family give edits that take and do no harm?",
        "not in the paper",
    ),
    6: Heading(
        "key-distributions",
        "Where keys lie",
        "Do the key without a prefix and the mean prefixed key of a subject lie in one cloud?",
        "the paper's pictures of keys",
    ),
    7: Heading(
        "first-tokens",
        "First tokens of any subject",
        "Do first tokens of ordinary prompts lie with the abnormal keys, and do collapse subjects leave them after a prefix?",
        "the paper's pictures of keys",
    ),
    8: Heading(
        "layers",
        "All layers",
        "At which layers do denominators of first-token subjects vanish?",
        "the paper at one layer; over the layers it is ours",
    ),
    9: Heading(
        "position",
        "The first token at the second position",
        "Is it the position that makes the key abnormal?",
        "the paper's experiment with the position",
    ),
    10: Heading(
        "bos",
        "With and without a beginning-of-sequence token",
        "Does a token before the text take the anomaly away?",
        "the paper on Llama2-7b with and without <s>",
    ),
    11: Heading(
        "encoder",
        "A bidirectional encoder",
        "Is the anomaly one of causal attention?",
        "the paper on T5-3B's encoder",
    ),
    12: Heading(
        "other-cases",
        "Collapse without a first token",
        "Which subjects that are no first tokens have a small denominator, and do they collapse the model?",
        "the paper on Llama2-7b: names that end in a period",
    ),
    13: Heading(
        "prediction",
        "What each probe predicts",
        "How well does each probe predict, before the edit, that it collapses the model?",
        "not in the paper: the evidence for the default policy",
    ),
}


def build_experiment(number: int, **fields: Any) -> Experiment:
    """Return an experiment with its heading."""
    return Experiment(number=number, **HEADINGS[number]._asdict(), **fields)


def build_claim(paper: str, here: str, agrees: bool | None, rule: str = "") -> Claim:
    """Return a statement of the paper beside the result here; `rule` says when the two count as the same."""
    agreement = Agreement.OPEN if agrees is None else Agreement.YES if agrees else Agreement.NO
    return Claim(paper=paper, here=here, agreement=agreement, rule=rule)
