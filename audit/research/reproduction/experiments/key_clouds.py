"""Experiments 6 and 7: where the keys of collapse and ordinary cases lie.

Pictures show two projections; the claims rest on distances in all dimensions, with a permutation test. Points are
compared by direction, since C^-1 k_bar and k_u have no common scale.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from .....probes.research.geometry import Projection, Separation, count_nearer, normalize_rows, project_to_plane
from .....probes.research.interventions import compute_first_token_keys
from .....reports.reproduction.schema import Claim, Experiment, Scatter, Table
from ..cases import FEW, CaseKind, Cases, ReproductionCase
from ..clouds import (
    KINDS,
    SIGNIFICANCE,
    SUBSTANTIAL_SILHOUETTE,
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
    from .....probes.requests.request import EditRequest
    from ....setup import Setup

__all__ = ["compare_distributions", "place_first_tokens"]

_MOST = 0.9
"""Share from which "they join" or "they leave" counts as seen."""
_DRAWN = 100
"""Prefixed keys in the picture."""
_WHITENED, _PLAIN = "C⁻¹k̄ and k_u", "k̄ and k_u"
_SLUGS = {_WHITENED: "whitened", _PLAIN: "plain", Projection.TSNE: "tsne", Projection.PCA: "pca"}
_CAPTIONS = {
    Projection.TSNE: "Each mark is one request. Neighbours are alike; how far groups lie apart means nothing here.",
    Projection.PCA: "Each mark is one request, in the two directions of largest variance.",
}

Clouds = Mapping[str, Mapping[CaseKind, CloudPair]]


def compare_distributions(setup: Setup, cases: Cases) -> Experiment:
    """Experiment 6: C^-1 k_bar against k_u, and k_bar against k_u, for both kinds of case."""
    chosen = {kind: drop_repeated_subjects(cases.select(kind)) for kind in KINDS}
    clouds: dict[str, dict[CaseKind, CloudPair]] = {_WHITENED: {}, _PLAIN: {}}
    for kind, kind_cases in chosen.items():
        no_prefix, mean = stack_key_pairs([get_subject_keys(case) for case in kind_cases])
        clouds[_WHITENED][kind] = CloudPair(normalize_rows(setup.statistics.solve(mean)), normalize_rows(no_prefix))
        clouds[_PLAIN][kind] = CloudPair(normalize_rows(mean), normalize_rows(no_prefix))
    if setup.statistics.provenance.method == "identity":
        # C^-1 changes nothing then.
        del clouds[_WHITENED]
    separations = {
        (what, kind): compare_clouds(pair, setup.seed) for what, kinds in clouds.items() for kind, pair in kinds.items()
    }
    return build_experiment(
        6,
        claims=[_judge_apart(what, separations) for what in clouds],
        tables=[build_separation_table("key-separation", separations), _build_likeness_table(clouds[_PLAIN])],
        pictures=[
            _draw_clouds(what, method, clouds[what], chosen, setup.seed)
            for what in clouds
            for method in (Projection.TSNE, Projection.PCA)
        ],
        notes=["One point a subject. C⁻¹ turns a key, so that C⁻¹k̄ and k_u need not lie together in any kind of case."],
    )


def _judge_apart(what: str, separations: Mapping[tuple[str, CaseKind], Separation]) -> Claim:
    first, ordinary = separations[what, CaseKind.FIRST], separations[what, CaseKind.ORDINARY]
    return build_claim(
        f"{what} lie apart in collapse cases, and not in ordinary ones.",
        f"Silhouette {first.silhouette:.3f} (p = {first.p_value:.3g}, {first.first} cases) against "
        f"{ordinary.silhouette:.3f} (p = {ordinary.p_value:.3g}, {ordinary.first} cases).",
        lie_apart(first, ordinary),
        f"Collapse cases apart with p ≤ {SIGNIFICANCE:g} and a silhouette over {SUBSTANTIAL_SILHOUETTE}, "
        "ordinary ones with none over it.",
    )


def _build_likeness_table(clouds: Mapping[CaseKind, CloudPair]) -> Table:
    return Table(
        name="key-likeness",
        title="How like one another keys are",
        columns=[
            "cases",
            "requests",
            "k_u of two requests: mean cosine",
            "k̄ of two requests: mean cosine",
            "k_u and k̄ of one request: mean cosine",
        ],
        rows=[
            [
                kind.value,
                len(pair.first),
                compute_mutual_cosine(pair.second),
                compute_mutual_cosine(pair.first),
                float(compute_cosines(pair).mean()),
            ]
            for kind, pair in clouds.items()
        ],
    )


def _draw_clouds(
    what: str,
    method: Projection,
    clouds: Mapping[CaseKind, CloudPair],
    cases: Mapping[CaseKind, Sequence[ReproductionCase]],
    seed: int,
) -> Scatter:
    parts = [
        (kind, name, cloud)
        for kind, pair in clouds.items()
        for name, cloud in zip(what.split(" and "), pair, strict=True)
    ]
    points = project_to_plane(torch.cat([cloud for _, _, cloud in parts]), method=method, seed=seed)
    split = points.split([len(cloud) for _, _, cloud in parts])
    return Scatter(
        name=f"keys-{_SLUGS[what]}-{_SLUGS[method]}",
        title=f"{what}, {'t-SNE' if method is Projection.TSNE else 'PCA'}",
        caption=_CAPTIONS[method],
        groups=[
            build_group(f"{kind.value}: {name}", some, [case.request.subject for case in cases[kind]])
            for (kind, name, _), some in zip(parts, split, strict=True)
        ],
    )


def place_first_tokens(setup: Setup, cases: Cases) -> Experiment:
    """Experiment 7: first tokens of ordinary prompts, and collapse subjects after a prefix, between the two clouds."""
    chosen = {kind: drop_repeated_subjects(cases.select(kind)) for kind in KINDS}
    abnormal, ordinary = (stack_key_pairs([get_subject_keys(case) for case in chosen[kind]]).first for kind in KINDS)
    firsts = compute_first_token_keys(setup.lm, setup.site, _drop_repeated_beginnings(setup, chosen[CaseKind.ORDINARY]))
    # The first context is the empty one.
    after_prefix = torch.cat([get_subject_keys(case).keys[1:] for case in chosen[CaseKind.FIRST]])
    clouds = {
        "collapse subjects, bare": abnormal,
        "ordinary subjects, bare": ordinary,
        "first tokens of ordinary prompts": firsts.double().cpu(),
        "collapse subjects after a prefix": after_prefix.double().cpu(),
    }
    nearer = {name: count_nearer(cloud, abnormal, ordinary) for name, cloud in clouds.items()}
    joined, stayed = "first tokens of ordinary prompts", "collapse subjects after a prefix"
    left = len(after_prefix) - nearer[stayed]
    return build_experiment(
        7,
        claims=[
            _judge_share("First tokens of ordinary prompts lie with the abnormal keys.", nearer[joined], len(firsts)),
            _judge_share(
                "After a prefix, the keys of collapse subjects lie with the ordinary ones.", left, len(after_prefix)
            ),
        ],
        tables=[
            Table(
                name="first-token-clusters",
                title="Keys nearer to the mean of collapse subjects' bare keys than to that of ordinary ones'",
                columns=["keys", "nearer", "of"],
                rows=[[name, nearer[name], len(cloud)] for name, cloud in clouds.items()],
                note="By cosine. A subject counts once, and so does a token that several ordinary prompts begin with.",
            )
        ],
        pictures=[_draw_first_tokens(clouds, setup.seed)],
    )


def _drop_repeated_beginnings(setup: Setup, cases: Sequence[ReproductionCase]) -> list[EditRequest]:
    """Return a request for each first token: in a causal model its key depends on nothing else."""
    begins = {tuple(setup.lm.tokenizer(case.request.prompt).input_ids[:1]): case.request for case in reversed(cases)}
    return [*begins.values()][::-1]


def _judge_share(paper: str, passed: int, total: int) -> Claim:
    agrees = passed >= _MOST * total if total >= FEW else None
    return build_claim(paper, f"{passed} of {total} do.", agrees, f"At least {_MOST:.0%}, of {FEW} keys or more.")


def _draw_first_tokens(clouds: Mapping[str, Tensor], seed: int) -> Scatter:
    drawn = {name: cloud[:: -(-len(cloud) // _DRAWN)] for name, cloud in clouds.items()}
    points = project_to_plane(normalize_rows(torch.cat(list(drawn.values()))), method=Projection.PCA, seed=seed)
    split = points.split([len(cloud) for cloud in drawn.values()])
    return Scatter(
        name="first-token-keys",
        title="First tokens and prefixed subjects, PCA",
        caption="Keys at length 1, at most a hundred of each kind. Tokens at the start of a text share nearly one key.",
        groups=[build_group(name, some) for name, some in zip(drawn, split, strict=True)],
    )
