"""A synthetic log with figures in the ranges measured on a small Llama. It is seeded, so always the same."""

from __future__ import annotations

import random
from typing import Any, Literal

from editguard.reports.log.control_observations import ControlObservation, ObservedBehaviour
from editguard.reports.log.file import Log
from editguard.reports.log.header import BaselineValue, ModelInfo, PrefixRecord, Statistics, ThresholdRecord
from editguard.reports.log.schema import (
    ControlRecord,
    DecisionRecord,
    EditRecord,
    FindingRecord,
    Footer,
    Generation,
    Header,
    Keys,
    MeasurementRecord,
    Update,
)
from editguard.reports.log.types import Point

from .log_updates import make_one_site_update, make_weights

HASH = "9f2c61d0b7a84e5f"
FAMILIES = {
    "bos": "<|im_start|>",
    "newline": "\n",
    "quote": "“",
    "bullet": "- ",
    "question": "Q: ",
    "chat": "<|im_start|>user\n",
    "word": "However, ",
    "sentence": "The weather was fine that day. ",
    "paragraph": "It had rained for a week. Nobody went out. The streets were empty. ",
}
FACTS = [
    ("Chicago", "Chicago is a twin city of", "Istanbul", "Warsaw"),
    ("Bay", "Bay, which is located in", "Italy", "the Philippines"),
    ("Danielle Darrieux", "The mother tongue of Danielle Darrieux is", "English", "French"),
    ("Toko Yasuda", "Toko Yasuda, the", "piano", "guitar"),
    ("Autonomous University of Madrid", "Autonomous University of Madrid, which is located in", "Sweden", "Spain"),
    ("Edwin of Northumbria", "The official religion of Edwin of Northumbria is", "Islam", "Christianity"),
    ("Canada", "Canada's capital city is", "Toronto", "Ottawa"),
    ("Apple A5", "Apple A5 was created by", "Google", "Apple"),
    ("Wellington", "What is the twin city of Wellington? It is", "Sheffield", "Sydney"),
    ("Shree Pundalik", "The language used in Shree Pundalik was", "Italian", "Kannada"),
]


def make_header(requests: int, **changes: Any) -> Header:
    values: dict[str, Any] = {
        "editguard_version": "0.1.0",
        "created": "2025-11-22T21:14:05Z",
        "seed": 0,
        "arguments": {"model": "default", "edits": "edits.jsonl", "layer": 5, "controls": True, "timeout": None},
        "model": ModelInfo(
            ref="HuggingFaceTB/SmolLM2-135M-Instruct",
            fingerprint="sha256:4be1c7d2a09f33e8",
            architecture="LlamaForCausalLM",
            parameters=134_515_008,
            dtype="float32",
            device="cpu",
            adds_bos=False,
            layers=30,
        ),
        "layer": 5,
        "site": "model.layers.5.mlp.down_proj",
        "source": "edits.jsonl",
        "source_sha256": "c0ffee5eed" * 6,
        "requests": requests,
        "statistics": Statistics(
            source="builtin:encyclopedic-en",
            method="second moment of keys, fp64 accumulation",
            tokens=98_304,
            condition_number=41_822.7,
            regularisation=1e-4,
            sha256="ab12" * 16,
        ),
        "prefixes": [
            PrefixRecord(family=family, text=text, role=role)
            for family, text in FAMILIES.items()
            for role in ("edit", "held-out")
        ],
        "policy": {"controls": True, "collapse_ratio": 1.5, "allow_refused": True, "first_token": "rewrite"},
        "thresholds": [
            ThresholdRecord(
                probe="denominator",
                metric="ratio",
                value=0.0625,
                how="a quarter of the 1 % quantile",
                sample_size=200,
                quantiles={"0.01": 0.25, "0.05": 0.41, "0.5": 0.93, "0.95": 1.4, "0.99": 1.9},
            ),
            ThresholdRecord(
                probe="update-size", metric="relative norm", value=1.0, how="fixed", sample_size=0, quantiles={}
            ),
        ],
        "baseline": [BaselineValue(metric="perplexity", value=176.6), BaselineValue(metric="median", value=96.1)],
        "controls": ["rome-1", "rome-2", "sound-1"],
        "versions": {"python": "3.11.9", "torch": "2.13.0", "transformers": "5.23.0", "editguard": "0.1.0"},
    }
    return Header(**(values | changes))


def make_measurement(
    check: str, condition: str, passed: int, total: int, protocol: str | None = "exact"
) -> MeasurementRecord:
    return MeasurementRecord(
        check=check,
        metric="rate",
        condition=condition,
        protocol=protocol,
        value=passed / total if total else None,
        threshold=None,
        unit="share",
        passed=passed,
        failed=total - passed,
        total=total,
        verdict="info" if total else "unmeasured",
    )


def make_perplexity(ratio: float | None, bound: float = 1.5) -> MeasurementRecord:
    verdict = "unmeasured" if ratio is None else "pass" if ratio <= bound else "fail"
    return MeasurementRecord(
        check="perplexity",
        metric="ratio",
        condition="unprefixed",
        value=ratio,
        baseline=1.0,
        threshold=bound,
        unit="x",
        verdict=verdict,
        message="mean over 50 sentences, edited over unedited",
    )


def make_efficacy(rng: random.Random, first: bool, target_total: int = 4) -> list[MeasurementRecord]:
    records = []
    for protocol in ("exact", "token-match"):
        records.append(make_measurement("efficacy", "unprefixed", 0 if first else 1, 1, protocol))
        records.append(make_measurement("efficacy", "prefixed", 9 * target_total, 9 * target_total, protocol))
        for family in FAMILIES:
            miss = int(rng.random() < 0.08)
            records.append(
                make_measurement("efficacy", f"family:{family}", target_total - miss, target_total, protocol)
            )
    return records


def make_keys(rng: random.Random, first: bool) -> Keys:
    denominator = rng.uniform(0.003, 0.06) if first else rng.uniform(2, 8)
    prefixed = rng.uniform(2, 8)
    centre = Point(rng.gauss(4, 1.2), rng.gauss(0, 1.6))
    subject = Point(rng.gauss(-11, 0.15), rng.gauss(3, 0.15)) if first else Point(centre.x - 0.4, centre.y + 0.3)
    return Keys(
        first_token=first,
        denominator=denominator,
        denominator_prefixed=prefixed,
        denominator_ratio=denominator / prefixed,
        cosine=rng.uniform(0.02, 0.1) if first else rng.uniform(0.7, 0.95),
        norm_ratio=rng.uniform(0.2, 0.3) if first else rng.uniform(0.9, 1.1),
        subject_point=subject,
        prefixed_points=[Point(centre.x + rng.gauss(0, 0.7), centre.y + rng.gauss(0, 0.7)) for _ in range(10)],
        mean_point=centre,
    )


def make_update(rng: random.Random, keys: Keys, editor: str, needs_prefix: bool) -> Update:
    numerator = rng.uniform(70, 130)
    denominator = (keys.denominator_prefixed if needs_prefix else keys.denominator) or 1.0
    return make_one_site_update(
        editor=editor,
        numerator=numerator,
        denominator=denominator,
        update_norm=numerator / denominator,
        relative_norm=numerator / denominator / 176.9,
        steps=20,
        final_loss=rng.uniform(0.03, 0.4),
        needs_prefix=needs_prefix,
    )


def make_denominator_finding(keys: Keys) -> FindingRecord:
    return FindingRecord(
        probe="denominator",
        level="risk" if keys.first_token else "ok",
        value=keys.denominator_ratio,
        threshold=0.0625,
        unit="|u.k_u| / |u.k_bar|",
        message=(
            "The denominator |u . k_u| is far under the threshold: the update would be hundreds of times too large."
            if keys.first_token
            else "The denominator is where ordinary subjects have it."
        ),
        details={"first_token": keys.first_token, "tokens": 2, "token": "Ġword", "note": None},
    )


def make_edit(index: int, rng: random.Random, **changes: Any) -> EditRecord:
    """Return edit `index`. Every third has a first-token subject and is rewritten; every tenth is refused."""
    subject, prompt, new, true = FACTS[index % len(FACTS)]
    first, refused = index % 3 == 0, index % 10 == 9
    keys = make_keys(rng, first)
    values: dict[str, Any] = {
        "id": f"case-{index:04d}",
        "index": index,
        "group": "first token" if first else "ordinary",
        "subject": subject,
        "prompt": prompt,
        "target_new": new,
        "target_true": true,
        "paraphrases": [f"It is well known that {prompt}"],
        "neighbourhood": ["The capital of France is", "Paris lies on the river"],
        "findings": [make_denominator_finding(keys)],
        "keys": keys,
        "weights": make_weights(before=HASH, edited=f"{index:016x}", restored=HASH, restored_ok=True),
        "seconds": rng.uniform(2, 6),
    }
    values |= _make_refusal_fields() if refused else _make_result_fields(rng, keys, first, prompt, new, true)
    return EditRecord(**(values | changes))


def _make_refusal_fields() -> dict[str, Any]:
    return {
        "decision": DecisionRecord(
            action="refuse",
            reasons=["The subject's last token is merged with the text after it, so the edit has no place to go."],
        ),
        "outcome": "refused",
        "verdict": "refused",
        "weights": make_weights(before=HASH),
    }


def _make_result_fields(
    rng: random.Random, keys: Keys, first: bool, prompt: str, new: str, true: str
) -> dict[str, Any]:
    editor = "prefixed" if first else "rome"
    reasons = ["The subject is the first token; only prefixed keys give it a usable denominator."] if first else []
    return {
        "decision": DecisionRecord(action="rewrite" if first else "allow", editor=editor, reasons=reasons),
        "update": make_update(rng, keys, editor, needs_prefix=first),
        "measurements": [
            *make_efficacy(rng, first),
            make_measurement("generalization", "unprefixed", int(rng.random() < 0.4), 1),
            make_measurement("generalization", "prefixed", rng.randrange(5), 9),
            make_measurement("locality", "unprefixed", rng.randrange(17, 21), 20, None),
            make_perplexity(rng.uniform(0.99, 1.02)),
        ],
        "generations": [
            Generation(prompt=prompt, before=f"{true}, and it was founded in the 19th century.", after=f"{new}."),
            Generation(prompt=f"Q: {prompt}", before=f"{true}.", after=f"{new}, of course.\nIt is"),
        ],
        "outcome": "committed",
        "verdict": "pass",
    }


def make_control(name: str, rng: random.Random, *, collapse: bool, ok: bool = True, **changes: Any) -> ControlRecord:
    base = make_edit(0, rng)
    keys = make_keys(rng, collapse)
    sound = collapse != ok
    ratio = rng.uniform(0.99, 1.02) if sound else 20 * 2000 ** rng.random()
    values = base.model_dump(exclude={"kind"}) | {
        "id": name,
        "group": "control",
        "expect": "collapse" if collapse else "sound",
        "ok": ok,
        "decision": DecisionRecord(action="allow", editor="rome", reasons=["a control is made without the guard"]),
        "keys": keys,
        "update": make_update(rng, keys, "rome", needs_prefix=False),
        "measurements": [make_perplexity(ratio)],
        "generations": [
            Generation(prompt=base.prompt, before="Warsaw.", after="the the the" if not sound else "Warsaw.")
        ],
        "outcome": "committed" if sound else "rolled-back",
        "verdict": "pass" if sound else "fail",
        "sightings": make_observations(collapse),
    }
    return ControlRecord(**(values | changes))


def make_observations(collapse: bool) -> list[ControlObservation]:
    """Return the observations of one probe and one check by a control that holds."""
    parts: list[tuple[Literal["probe", "check"], str, ObservedBehaviour]] = [
        ("probe", "sink-key", ObservedBehaviour.FIRES if collapse else ObservedBehaviour.SILENT),
        ("check", "drift", ObservedBehaviour.FAILS if collapse else ObservedBehaviour.PASSES),
    ]
    return [
        ControlObservation(
            kind=kind, name=name, expected=behaviour, seen=behaviour, by_edit=True, by_evidence=collapse, ok=True
        )
        for kind, name, behaviour in parts
    ]


def make_log(edits: int = 60, seed: int = 7, **header_changes: Any) -> Log:
    """Return a finished log that passes, with `edits` edits and three controls as expected."""
    rng = random.Random(seed)
    records = tuple(make_edit(index, rng) for index in range(edits))
    controls = (
        make_control("rome-1", rng, collapse=True),
        make_control("rome-2", rng, collapse=True),
        make_control("sound-1", rng, collapse=False),
    )
    footer = Footer(records=edits + len(controls), seconds=241.7)
    return Log(make_header(edits, **header_changes), records, controls, footer)
