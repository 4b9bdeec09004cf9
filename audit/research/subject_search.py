"""Whose fact was edited? A rank-one change points back at the key that it was made for.

An update of the ROME family is ``Delta ~ l r^T`` with ``r ~ C^-1 k``, so ``C r`` has the direction of the edited subject's
mean key, of unknown length and sign. Each candidate's mean key under the run's prefixes is compared with it; since all
keys have much in common, only what stands off the mean over candidates counts. The answer is only as good as the
vocabulary: a subject that is not in it cannot be named, and another takes its place. So the best one is compared with a
null distribution: the likeness of each candidate to the nearest other one, which is the best likeness without itself.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import torch

from ...probes.errors import EditguardError, InputError, ModelError
from ...probes.keys.corpus_statistics import read_corpus
from ...probes.keys.prefixes import ContextPrefixes, Role, make_prefixes
from ...probes.keys.subject_keys import SubjectKeys, compute_all_subject_keys
from ...probes.model.site import EditSite, Orientation, count_layers, find_site
from ...probes.requests.request import EditRequest
from ...probes.research.tensor_change import Rank, Spectrum
from ...reports.html.diff_page import Guess, Search
from ..key_statistics import check_statistics, load_or_compute_statistics

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from ...probes.forward.prefix_cache import PrefixCache
    from ...probes.keys.statistics import KeyStatistics
    from ...probes.model.language_model import LanguageModel
    from ..progress import Progress

__all__ = [
    "FEWEST_CANDIDATES",
    "Candidates",
    "Likeness",
    "build_subject_requests",
    "check_search_inputs",
    "compute_candidate_keys",
    "compute_null_likeness",
    "rank_candidates",
    "search_subjects",
]

FEWEST_CANDIDATES = 20
"""Fewest candidates; with fewer the best one cannot be compared with the others."""


_SHOWN = 5


class Likeness(NamedTuple):
    """One candidate's score."""

    subject: str
    cosine: float
    """Between the parts of ``C r`` and of the candidate's mean key that are orthogonal to the mean over all candidates."""


class Candidates(NamedTuple):
    """Subjects with their mean keys [n, roles, d_ff] under each role's prefixes, float64 on the CPU."""

    subjects: tuple[str, ...]
    keys: torch.Tensor


def check_search_inputs(subjects: Sequence[EditRequest], statistics: str | None, corpus: str | None) -> None:
    """Raise `InputError` for inputs that no search can use, before any model is loaded."""
    different = len({request.subject for request in subjects})
    if different < FEWEST_CANDIDATES:
        raise InputError(
            f"A search for the edited subject needs at least {FEWEST_CANDIDATES} different subjects, "
            f"to compare the best with the others, and {different} were given; give more, such as other subjects of the "
            "kind that may have been edited."
        )
    if statistics is not None:
        check_statistics(statistics)
    elif corpus is not None:
        read_corpus(corpus)


def build_subject_requests(subjects: Sequence[str]) -> list[EditRequest]:
    """Return a request for each subject that is given by name only; the words after a subject do not change its key."""
    return [
        EditRequest(id=str(index), subject=subject, prompt=f"{subject} is", target_new="")
        for index, subject in enumerate(subjects)
    ]


def compute_candidate_keys(
    lm: LanguageModel,
    site: EditSite,
    requests: Sequence[EditRequest],
    prefixes: ContextPrefixes,
    prefix_cache: PrefixCache | None = None,
) -> Candidates:
    """Return the mean key of each subject; those that cannot be located are left out, and a subject comes once.

    Raises `InputError` where fewer than `FEWEST_CANDIDATES` are left.
    """
    unique_requests = list({request.subject: request for request in requests}.values())
    key_rows = [
        compute_all_subject_keys(lm, site, unique_requests, prefixes.texts(role), prefix_cache=prefix_cache)
        for role in (Role.KEY, Role.EDIT)
    ]
    keys_by_subject = {
        request.subject: torch.stack(
            [subject_keys.mean_key.double().cpu() for subject_keys in row if isinstance(subject_keys, SubjectKeys)]
        )
        for request, *row in zip(unique_requests, *key_rows, strict=True)
        if all(isinstance(subject_keys, SubjectKeys) for subject_keys in row)
    }
    if len(keys_by_subject) < FEWEST_CANDIDATES:
        raise InputError(
            f"Of the candidates {len(keys_by_subject)} can be located, and with fewer than {FEWEST_CANDIDATES} "
            "the best cannot be compared with the others; give more subjects."
        )
    return Candidates(tuple(keys_by_subject), torch.stack([*keys_by_subject.values()]))


def rank_candidates(right: torch.Tensor, statistics: KeyStatistics, candidates: Candidates) -> list[Likeness]:
    """Return all candidates by their likeness to the key that ``right`` [d_ff] was made for, most alike first.

    A candidate counts with the better of its roles. The sign of ``right`` is not known, and is chosen so that the key
    lies on the candidates' side.
    """
    matrix = statistics.second_moment.double().cpu()
    shift = statistics.ridge * matrix.diagonal().mean()
    pointed = matrix @ right.double().cpu() + shift * right.double().cpu()
    scores = []
    for keys in candidates.keys.unbind(1):
        mean = keys.mean(0)
        sign = torch.sign(pointed @ mean)
        # The key's length is lost in a singular vector, and so is how far it lies from the mean along the mean itself.
        direction = sign * _remove_mean(pointed[None], mean)
        scores.append(torch.nn.functional.cosine_similarity(_remove_mean(keys, mean), direction))
    best = torch.stack(scores).amax(0)
    order = best.argsort(descending=True).tolist()
    return [Likeness(candidates.subjects[index], float(best[index])) for index in order]


def compute_null_likeness(candidates: Candidates) -> torch.Tensor:
    """Return for each candidate its likeness to the nearest other one [n]: the best likeness without itself."""
    nearest = []
    for keys in candidates.keys.unbind(1):
        unit = torch.nn.functional.normalize(_remove_mean(keys, keys.mean(0)), dim=1)
        nearest.append((unit @ unit.T).fill_diagonal_(-1).amax(1))
    return torch.stack(nearest).amax(0)


def _remove_mean(keys: torch.Tensor, mean: torch.Tensor) -> torch.Tensor:
    """Return the part of `keys` [n, d_ff] that is orthogonal to `mean` [d_ff]."""
    return keys - torch.outer(keys @ mean / (mean @ mean), mean)


def search_subjects(
    lm: LanguageModel,
    spectra: Mapping[str, Spectrum],
    subjects: Sequence[EditRequest],
    *,
    statistics: str | None,
    corpus: str | None,
    seed: int,
    progress: Progress,
) -> list[Search]:
    """Return the likely subjects of every change of rank one at a down-projection of `lm`, the unedited base.

    `spectra` are by tensor; `statistics`, `corpus` and `seed` as in `editguard.audit.setup.prepare`. A search that
    cannot be made is recorded as not measured with its reason, since the rest of the comparison is worth a report.
    """

    def search_site(name: str, site: EditSite) -> Search:
        spectrum = spectra[name]
        right = spectrum.right if site.orientation is Orientation.OUT_IN else spectrum.left
        c = load_or_compute_statistics(lm, site, statistics, corpus, seed=seed, progress=progress)
        candidates = compute_candidate_keys(lm, site, subjects, make_prefixes(lm, seed))
        return _build_search(name, rank_candidates(right, c, candidates), compute_null_likeness(candidates))

    searches = []
    for site in _iter_sites(lm):
        name = f"{site.path}.weight"
        if name in spectra and spectra[name].rank is Rank.ONE:
            try:
                searches.append(search_site(name, site))
            except EditguardError as error:
                searches.append(Search(tensor=name, candidates=len(subjects), guesses=[], error=str(error)))
    return searches


def _iter_sites(lm: LanguageModel) -> Iterator[EditSite]:
    for layer in range(count_layers(lm.model)):
        try:
            yield find_site(lm.model, layer)
        except ModelError:  # a layer without an edit site, such as a mixture of experts
            continue


def _build_search(name: str, ranked: Sequence[Likeness], null: torch.Tensor) -> Search:
    as_alike = int((null >= ranked[0].cosine).sum())
    return Search(
        tensor=name,
        candidates=len(ranked),
        margin=ranked[0].cosine - ranked[1].cosine,
        p_value=(as_alike + 1) / (len(null) + 1),
        guesses=[Guess(subject=candidate.subject, cosine=candidate.cosine) for candidate in ranked[:_SHOWN]],
    )
