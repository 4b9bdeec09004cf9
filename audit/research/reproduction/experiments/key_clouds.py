"""Experiments 6 and 7: where the keys of collapse and ordinary cases lie.

Pictures show two projections; what is claimed rests on distances in all dimensions, with a permutation test. Points are
compared by direction, since C^-1 k_bar and k_u have no common scale.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from .....probes.requests.request import EditRequest
from .....probes.research.geometry import Projection, Separation, directions, flat, nearest_share
from .....probes.research.interventions import first_token_keys
from .....reports.reproduction.schema import Claim, Experiment, Scatter, Table
from ....setup import Setup
from ..cases import FEW, Case, Cases, Kind
from ..clouds import (
    KINDS,
    SUBSTANTIAL,
    SURE,
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

__all__ = ["clusters", "distributions"]

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

Clouds = Mapping[str, Mapping[Kind, Pair]]


def distributions(setup: Setup, cases: Cases) -> Experiment:
    """Experiment 6: C^-1 k_bar against k_u, and k_bar against k_u, for both kinds of case."""
    chosen = {kind: one_each(cases.of(kind)) for kind in KINDS}
    clouds: dict[str, dict[Kind, Pair]] = {_WHITENED: {}, _PLAIN: {}}
    for kind, some in chosen.items():
        bare, mean = bare_and_mean([subject_keys_of(case) for case in some])
        clouds[_WHITENED][kind] = Pair(directions(setup.statistics.solve(mean)), directions(bare))
        clouds[_PLAIN][kind] = Pair(directions(mean), directions(bare))
    if setup.statistics.provenance.method == "identity":
        # C^-1 changes nothing then.
        del clouds[_WHITENED]
    found = {(what, kind): compared(pair, setup.seed) for what, kinds in clouds.items() for kind, pair in kinds.items()}
    return experiment(
        6,
        claims=[_apart(what, found) for what in clouds],
        tables=[separation_table("key-separation", found), _likeness(clouds[_PLAIN])],
        pictures=[
            _picture(what, method, clouds[what], chosen, setup.seed)
            for what in clouds
            for method in (Projection.TSNE, Projection.PCA)
        ],
        notes=["One point a subject. C⁻¹ turns a key, so that C⁻¹k̄ and k_u need not lie together in any kind of case."],
    )


def _apart(what: str, found: Mapping[tuple[str, Kind], Separation]) -> Claim:
    first, ordinary = found[what, Kind.FIRST], found[what, Kind.ORDINARY]
    return claim(
        f"{what} lie apart in collapse cases, and not in ordinary ones.",
        f"Silhouette {first.silhouette:.3f} (p = {first.p_value:.3g}, {first.first} cases) against "
        f"{ordinary.silhouette:.3f} (p = {ordinary.p_value:.3g}, {ordinary.first} cases).",
        apart(first, ordinary),
        f"Collapse cases apart with p ≤ {SURE:g} and a silhouette over {SUBSTANTIAL}, ordinary ones with none over it.",
    )


def _likeness(clouds: Mapping[Kind, Pair]) -> Table:
    return Table(
        name="key-likeness",
        title="How like one another keys are",
        columns=["cases", "requests", "k_u of two requests: mean cosine", "k̄ of two requests: mean cosine",
                 "k_u and k̄ of one request: mean cosine"],
        rows=[
            [kind.value, len(pair.first), mutual(pair.second), mutual(pair.first), float(cosines(pair).mean())]
            for kind, pair in clouds.items()
        ],
    )  # fmt: skip


def _picture(
    what: str, method: Projection, clouds: Mapping[Kind, Pair], cases: Mapping[Kind, Sequence[Case]], seed: int
) -> Scatter:
    parts = [
        (kind, name, cloud)
        for kind, pair in clouds.items()
        for name, cloud in zip(what.split(" and "), pair, strict=True)
    ]
    points = flat(torch.cat([cloud for _, _, cloud in parts]), method=method, seed=seed)
    split = points.split([len(cloud) for _, _, cloud in parts])
    return Scatter(
        name=f"keys-{_SLUGS[what]}-{_SLUGS[method]}",
        title=f"{what}, {'t-SNE' if method is Projection.TSNE else 'PCA'}",
        caption=_CAPTIONS[method],
        groups=[
            group(f"{kind.value}: {name}", some, [case.request.subject for case in cases[kind]])
            for (kind, name, _), some in zip(parts, split, strict=True)
        ],
    )


def clusters(setup: Setup, cases: Cases) -> Experiment:
    """Experiment 7: first tokens of ordinary prompts, and collapse subjects behind a prefix, between the two clouds."""
    chosen = {kind: one_each(cases.of(kind)) for kind in KINDS}
    abnormal, ordinary = (bare_and_mean([subject_keys_of(case) for case in chosen[kind]]).first for kind in KINDS)
    firsts = first_token_keys(setup.lm, setup.site, _one_each_beginning(setup, chosen[Kind.ORDINARY]))
    # The first context is the empty one.
    behind = torch.cat([subject_keys_of(case).keys[1:] for case in chosen[Kind.FIRST]])
    clouds = {
        "collapse subjects, bare": abnormal,
        "ordinary subjects, bare": ordinary,
        "first tokens of ordinary prompts": firsts.double().cpu(),
        "collapse subjects behind a prefix": behind.double().cpu(),
    }
    nearer = {name: nearest_share(cloud, abnormal, ordinary) for name, cloud in clouds.items()}
    joined, stayed = "first tokens of ordinary prompts", "collapse subjects behind a prefix"
    left = len(behind) - nearer[stayed]
    return experiment(
        7,
        claims=[
            _share("First tokens of ordinary prompts lie with the abnormal keys.", nearer[joined], len(firsts)),
            _share("Behind a prefix, the keys of collapse subjects lie with the ordinary ones.", left, len(behind)),
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
        pictures=[_clusters_picture(clouds, setup.seed)],
    )


def _one_each_beginning(setup: Setup, cases: Sequence[Case]) -> list[EditRequest]:
    """Return a request for each first token: in a causal model its key depends on nothing else."""
    begins = {tuple(setup.lm.tokenizer(case.request.prompt).input_ids[:1]): case.request for case in reversed(cases)}
    return [*begins.values()][::-1]


def _share(paper: str, passed: int, total: int) -> Claim:
    agrees = passed >= _MOST * total if total >= FEW else None
    return claim(paper, f"{passed} of {total} do.", agrees, f"At least {_MOST:.0%}, of {FEW} keys or more.")


def _clusters_picture(clouds: Mapping[str, Tensor], seed: int) -> Scatter:
    drawn = {name: cloud[:: -(-len(cloud) // _DRAWN)] for name, cloud in clouds.items()}
    points = flat(directions(torch.cat(list(drawn.values()))), method=Projection.PCA, seed=seed)
    split = points.split([len(cloud) for cloud in drawn.values()])
    return Scatter(
        name="first-token-keys",
        title="First tokens and prefixed subjects, PCA",
        caption="Keys at length 1, at most a hundred of each kind. Tokens at the start of a text share nearly one key.",
        groups=[group(name, some) for name, some in zip(drawn, split, strict=True)],
    )
