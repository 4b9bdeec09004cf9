"""Whose fact was edited? A change of low rank points back at the keys that it was made for.

An update of the ROME family is ``Delta ~ l r^T`` with ``r ~ C^-1 k``, so ``C r`` has the direction of the edited subject's
mean key, of unknown length and sign. A batch of n edits leaves rank n, and C times its row space is spanned by their n keys,
as ``(C + K K^T)^-1 K`` and ``C^-1 K`` have the same span. Each candidate's mean key under the run's prefixes is compared with
that; since all keys have much in common, only what stands off the mean over candidates counts. The answer is only as good as
the vocabulary: a subject that is not in it cannot be named, and another would take its place. So the best one is compared with
a null distribution: n candidates stand for subjects that were edited, and the likeness of the best other one is drawn.
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
from ...probes.research.tensor_change import MOST_VECTORS, Spectrum
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
    "STANDS_OUT",
    "Candidates",
    "Likeness",
    "build_subject_requests",
    "check_search_inputs",
    "compute_candidate_keys",
    "compute_null_likeness",
    "iter_sites",
    "rank_candidates",
    "search_subjects",
]

FEWEST_CANDIDATES = 20
"""Fewest candidates; with fewer the best one cannot be compared with the others."""


STANDS_OUT = 0.05
"""Largest p value of a candidate that is named."""
_SHOWN = 5
_DRAWS = 400
"""Draws of the null distribution of a rank over one."""


class Likeness(NamedTuple):
    """One candidate's score."""

    subject: str
    cosine: float
    """Between the parts of ``C r`` and of the candidate's mean key that are orthogonal to the mean over all candidates; of
    a rank over one between the key and its projection."""


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


def rank_candidates(rows: torch.Tensor, statistics: KeyStatistics, candidates: Candidates) -> list[Likeness]:
    """Return all candidates by their likeness to the keys that the row space ``rows`` [n, d_ff] was made for, best first.

    A candidate counts with the better of its roles. The sign of a single row is not known, and is chosen so that the key
    lies on the candidates' side; of several rows the span alone counts.
    """
    matrix = statistics.second_moment.double().cpu()
    shift = statistics.ridge * matrix.diagonal().mean()
    pointed = rows.double().cpu() @ matrix + shift * rows.double().cpu()
    scores = []
    for keys in candidates.keys.unbind(1):
        mean = keys.mean(0)
        # A key's length is lost in a singular vector, and so is how far it lies from the mean along the mean itself.
        directions = _remove_mean(pointed, mean)
        if len(pointed) > 1:
            scores.append(_project(_remove_mean(keys, mean), directions))
            continue
        sign = torch.sign(pointed[0] @ mean)
        scores.append(torch.nn.functional.cosine_similarity(_remove_mean(keys, mean), sign * directions))
    best = torch.stack(scores).amax(0)
    order = best.argsort(descending=True).tolist()
    return [Likeness(candidates.subjects[index], float(best[index])) for index in order]


def compute_null_likeness(candidates: Candidates, rank: int = 1) -> torch.Tensor:
    """Return the best likeness of a candidate that was not edited [draws], to `rank` others that stand for the edited ones.

    With rank one each candidate takes its turn, and the best likeness is that to the nearest other one.
    """
    if rank > 1:
        return _draw_null_likeness(candidates, rank)
    nearest = []
    for keys in candidates.keys.unbind(1):
        unit = torch.nn.functional.normalize(_remove_mean(keys, keys.mean(0)), dim=1)
        nearest.append((unit @ unit.T).fill_diagonal_(-1).amax(1))
    return torch.stack(nearest).amax(0)


def _draw_null_likeness(candidates: Candidates, rank: int) -> torch.Tensor:
    draw = torch.Generator().manual_seed(0)
    spread = [_remove_mean(keys, keys.mean(0)) for keys in candidates.keys.unbind(1)]
    best = []
    for _ in range(_DRAWS):
        order = torch.randperm(len(candidates.subjects), generator=draw)
        edited, others = order[:rank], order[rank:]
        best.append(max(float(_project(keys[others], keys[edited]).max()) for keys in spread))
    return torch.tensor(best, dtype=torch.float64)


def _project(keys: torch.Tensor, span: torch.Tensor) -> torch.Tensor:
    """Return the cosine of the angle between each of `keys` [m, d_ff] and the span of `span` [n, d_ff]."""
    basis, _ = torch.linalg.qr(span.T)
    cosines: torch.Tensor = torch.linalg.vector_norm(torch.nn.functional.normalize(keys, dim=1) @ basis, dim=1)
    return cosines


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
    """Return the likely subjects of every change of low rank at a down-projection of `lm`, the unedited base.

    `spectra` are by tensor; `statistics`, `corpus` and `seed` as in `editguard.audit.setup.prepare`. A search that
    cannot be made is recorded as not measured with its reason, since the rest of the comparison is worth a report.
    """

    def search_site(name: str, site: EditSite) -> Search:
        spectrum = spectra[name]
        rank = _require_searchable_rank(spectrum)
        rows = spectrum.row_space if site.orientation is Orientation.OUT_IN else spectrum.column_space
        c = load_or_compute_statistics(lm, site, statistics, corpus, seed=seed, progress=progress)
        candidates = compute_candidate_keys(lm, site, subjects, make_prefixes(lm, seed))
        if 2 * rank > len(candidates.subjects):
            raise InputError(
                f"the change has rank {rank}, and its search needs {2 * rank} candidates; give more subjects"
            )
        return _build_search(name, rank, rank_candidates(rows, c, candidates), compute_null_likeness(candidates, rank))

    searches = []
    for site in iter_sites(lm):
        name = f"{site.path}.weight"
        if name in spectra:
            try:
                searches.append(search_site(name, site))
            except EditguardError as error:
                rank = spectra[name].determined
                searches.append(Search(tensor=name, rank=rank, candidates=len(subjects), guesses=[], error=str(error)))
    return searches


def _require_searchable_rank(spectrum: Spectrum) -> int:
    if spectrum.determined is None or spectrum.determined > MOST_VECTORS:
        rank = "over" if spectrum.determined is None else f"{spectrum.determined}, which is over"
        raise InputError(f"the rank of the change is {rank} {MOST_VECTORS}, the largest that is searched")
    if spectrum.determined == 0:
        raise InputError("the change is within rounding, and has no direction of its own")
    return spectrum.determined


def iter_sites(lm: LanguageModel) -> Iterator[EditSite]:
    """Yield the edit site of each layer that has one."""
    for layer in range(count_layers(lm.model)):
        try:
            yield find_site(lm.model, layer)
        except ModelError:  # a layer without an edit site, such as a mixture of experts
            continue


def _build_search(name: str, rank: int, ranked: Sequence[Likeness], null: torch.Tensor) -> Search:
    guesses = []
    for candidate in ranked:
        as_alike = int((null >= candidate.cosine).sum())
        p_value = (as_alike + 1) / (len(null) + 1)
        guesses.append(Guess(subject=candidate.subject, cosine=candidate.cosine, p_value=p_value))
    return Search(
        tensor=name,
        rank=rank,
        candidates=len(ranked),
        margin=ranked[0].cosine - ranked[1].cosine,
        p_value=guesses[0].p_value,
        guesses=[guess for guess in guesses if guess.p_value <= STANDS_OUT][: max(_SHOWN, rank)],
    )
