"""Perplexity of ordinary sentences, before and after the edit: the sign of a collapsed model.

The paper's figure is the mean over sentences of each sentence's perplexity, logits in fp32, texts without a BOS (arXiv
2406.11263). Here the tokenizer adds its usual special tokens, since only the ratio to the unedited model is judged, never an
absolute or clipped value. One broken sentence dominates the mean, so the median, the maximum and exp of the mean negative
log-likelihood stand beside it.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, NamedTuple

import torch

from ...probes.card import Card
from ...probes.errors import InputError, NotFinite
from ...probes.forward.batches import split_batches
from ...probes.forward.partial import PlainRows, Row, Rows, Stem, get_first_logits
from ...probes.wording import compare_with_bound
from ..check import Bench, Check, CheckResult, EditUnderTest, Measurement, Outcome, judge

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from ...probes.forward.low_rank import LowRankUpdate
    from ...probes.model.language_model import LanguageModel
    from ...probes.model.site import EditSite
    from ...probes.requests.request import EditRequest

__all__ = ["CorpusPerplexity", "Perplexity", "PerplexityScores"]

_TOKENS_PER_PASS = 2048
"""Tokens of the corpus in one pass, padding included."""


class PerplexityScores(NamedTuple):
    """Perplexity of a corpus in four forms."""

    mean: float
    median: float
    max: float
    exp_mean_nll: float


class CorpusPerplexity:
    """A corpus run once through the unedited model; later runs start at the edited layer."""

    def __init__(self, lm: LanguageModel, site: EditSite, sentences: Sequence[str]) -> None:
        """Raises `InputError` where no sentence has two tokens, `NotFinite` where the unedited model is broken."""
        ids = [tuple(lm.tokenizer(sentence).input_ids) for sentence in sentences]
        self._ids = [row for row in ids if len(row) > 1]
        if not self._ids:
            raise InputError(
                f"None of the {len(ids)} sentences of the perplexity corpus has two tokens or more; give ordinary sentences."
            )
        longest = max(self._ids, key=len)
        if len(longest) > lm.context_length:
            raise InputError(
                f"A sentence of the perplexity corpus, {lm.tokenizer.decode(list(longest[:8]))!r}..., has {len(longest)} "
                f"tokens, and the model reads {lm.context_length:g}; cut it into sentences."
            )
        chunks = split_batches([len(row) for row in self._ids], _TOKENS_PER_PASS)
        self._chunks = list(chunks)
        self._stems: list[Rows] = []
        self.before = self._scores(self._first(lm, site))
        if not all(math.isfinite(value) for value in self.before):
            raise NotFinite(
                f"The unedited model's perplexity is {self.before.mean}, so no edit of it can be judged; check its weights."
            )

    def score_again(self) -> PerplexityScores:
        """Return the perplexity with the site's weights as they are now."""
        return self._scores(stem.logits() for stem in self._stems)

    def _first(self, lm: LanguageModel, site: EditSite) -> Iterator[torch.Tensor]:
        """Yield each chunk's logits and keep its stem alone: a large corpus's logits would fill the memory."""
        for chunk in self._chunks:
            rows = [self._row(index) for index in chunk]
            stem: Rows = PlainRows(lm, rows) if lm.plain else Stem(lm, site, rows, verify=not self._stems)
            self._stems.append(stem.part(range(len(chunk))))
            yield get_first_logits(stem)

    def _row(self, index: int) -> Row:
        ids = self._ids[index]
        return Row(ids, 0, tuple(range(len(ids) - 1)))

    def _scores(self, logits: Iterable[torch.Tensor]) -> PerplexityScores:
        losses: list[float] = []
        total = count = 0.0
        for chunk, places in zip(self._chunks, logits, strict=True):
            targets = torch.tensor([token for index in chunk for token in self._ids[index][1:]], device=places.device)
            each = torch.nn.functional.cross_entropy(places, targets, reduction="none").double().cpu()
            for part in each.split([len(self._ids[index]) - 1 for index in chunk]):
                losses.append(float(part.mean()))
                total, count = total + float(part.sum()), count + len(part)
        values = torch.tensor(losses, dtype=torch.float64).exp()
        return PerplexityScores(float(values.mean()), float(values.median()), float(values.max()), _exp(total / count))


def _exp(value: float) -> float:
    try:
        return math.exp(value)
    except OverflowError:
        return math.inf


class Perplexity(Check[CorpusPerplexity]):
    """Does the model still find ordinary sentences ordinary?"""

    name = "perplexity"
    of_model = True
    card = Card(
        question="Is the edited model's perplexity on ordinary sentences what it was?",
        source="ME-PPL protocol of arXiv 2402.09656 and 2406.11263: mean over sentences of exp(mean NLL)",
        needs="logits of the corpus, before and after",
        unit="ratio to the model without the edit",
        range="0 upwards, 1 for no change",
        threshold="max_perplexity_ratio of the policy, 1.05: sound edits were measured at 0.97 to 1.034",
        action="Do not ship the edit; see its update norm and its denominator.",
    )

    def prepare(
        self, bench: Bench, requests: Sequence[EditRequest], updates: Sequence[LowRankUpdate] = ()
    ) -> list[CorpusPerplexity]:
        """Run the corpus once a run."""
        return [self.baseline(bench)] * len(requests)

    def baseline(self, bench: Bench) -> CorpusPerplexity:
        """Return the corpus as the unedited model sees it."""
        if self.name not in bench.memo:
            bench.memo[self.name] = CorpusPerplexity(bench.lm, bench.lowest_site, bench.corpus)
        corpus: CorpusPerplexity = bench.memo[self.name]
        return corpus

    def measure(self, bench: Bench, edit: EditUnderTest[CorpusPerplexity]) -> CheckResult:
        """Judge the ratio of means; the other forms are shown."""
        base, now = edit.state.before, edit.state.score_again()
        forms = [
            self.measurement(
                name.replace("_", "-"),
                value,
                Outcome.INFO if math.isfinite(value) else Outcome.UNMEASURED,
                condition="corpus",
                baseline=old,
                unit="perplexity",
            )
            for name, value, old in zip(now._fields, now, base, strict=True)
        ]
        return CheckResult([self._judge(bench, base, now), *forms])

    def known_bad(self, bench: Bench, edit: EditUnderTest[CorpusPerplexity]) -> CheckResult:
        """A perplexity of a thousand times the unedited model's."""
        base = edit.state.before
        return CheckResult([self._judge(bench, base, PerplexityScores(*(1000 * value for value in base)))])

    def _judge(self, bench: Bench, base: PerplexityScores, now: PerplexityScores) -> Measurement:
        ratio, bound = now.mean / base.mean, bench.limits.perplexity_ratio
        text = f"{ratio:.4g} times that of the model without the edit"
        return self.measurement(
            "ratio",
            ratio,
            judge(ratio, ratio <= bound),
            condition="corpus",
            baseline=1.0,
            threshold=bound,
            unit="ratio",
            message=compare_with_bound(text, ratio <= bound, f"at most {bound:g}"),
        )
