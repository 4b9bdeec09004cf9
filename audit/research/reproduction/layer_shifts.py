"""Shifts of the keys of all layers after prefixes, measured once and stored beside the logs: the numbers of experiment 8."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pydantic import BaseModel, ConfigDict, ValidationError

from ....probes.keys.corpus_statistics import Corpus, read_corpus, sample_corpus
from ....probes.keys.prefixes import Role
from ....probes.keys.statistics import KeyStatistics, make_identity_statistics
from ....probes.model.site import find_site
from ....probes.research.layer_sweep import LayerShift, compute_statistics_by_pass, sweep_layers
from ....reports.log.bounded_read import LARGEST_BASELINE, bounded_bytes
from ....reports.log.file import write_atomic
from ...key_statistics import KEYS_PER_FEATURE
from .clouds import KINDS, drop_repeated_subjects

if TYPE_CHECKING:
    from pathlib import Path

    from ...progress import Progress
    from ...setup import Setup
    from .cases import Cases
    from .stamp import Stamp

__all__ = ["LAYERS_FILE", "LayerShifts", "load_kept_shifts", "load_or_measure_shifts"]

LAYERS_FILE = "layers.json"
_SAMPLED = "sampled from the model"


class LayerShifts(BaseModel):
    """The sweep as it is stored between runs; `stamp` names what it depends on."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    stamp: dict[str, str]
    source: str
    """Where C of the layers that are not edited comes from, in words."""
    ids: list[str]
    """One request of each subject, in the order of each layer's figures."""
    layers: dict[int, list[LayerShift]]


def load_or_measure_shifts(
    setup: Setup, cases: Cases, corpus: str | None, *, path: Path, stamp: Stamp, progress: Progress
) -> LayerShifts:
    """Return the shifts in the file `path` where stamp and text are the same, or measure them and store them there.

    `corpus` is the text that C of each layer is taken from, None for text sampled from the model. Raises what
    `editguard.probes.research.layer_sweep` raises.
    """
    identity = setup.statistics.provenance.method == "identity"
    text = None if identity or corpus is None else read_corpus(corpus)
    ids = [case.request.id for kind in KINDS for case in drop_repeated_subjects(cases.select(kind))]
    full = {**stamp, "text": "none" if identity else _SAMPLED if text is None else text.sha256}
    stored = load_kept_shifts(path)
    if stored is not None and (stored.stamp, stored.ids) == (full, ids):
        return stored
    if not identity and text is None:
        text = sample_corpus(
            setup.lm,
            seed=setup.seed,
            least=KEYS_PER_FEATURE * setup.site.d_ff,
            progress=lambda done, total: progress("sampling text for key statistics", done, total),
        )
    shifts = LayerShifts(
        stamp=full,
        source="the identity" if text is None else text.source,
        ids=ids,
        layers=_measure_layers(setup, cases, text, progress),
    )
    write_atomic(path, shifts.model_dump_json() + "\n")
    return shifts


def load_kept_shifts(path: Path) -> LayerShifts | None:
    """Return the stored shifts; None where no file can be read, since the sweep takes minutes."""
    try:
        return LayerShifts.model_validate_json(bounded_bytes(path, LARGEST_BASELINE))
    except (OSError, ValidationError):
        return None


def _measure_layers(setup: Setup, cases: Cases, text: Corpus | None, progress: Progress) -> dict[int, list[LayerShift]]:
    layers = range(len(setup.site.blocks))
    passes = (
        [_make_identities(setup, layers)]
        if text is None
        else compute_statistics_by_pass(
            setup.lm,
            layers,
            text,
            site_path=setup.site_path,
            progress=lambda done, of: progress("key statistics of all layers", done, of),
        )
    )
    requests = [case.request for kind in KINDS for case in drop_repeated_subjects(cases.select(kind))]
    shifts_by_layer: dict[int, list[LayerShift]] = {}
    for pass_statistics in passes:
        # At the edited layer C is the one that the edits were made with.
        statistics_by_layer = {
            layer: setup.statistics if layer == setup.site.layer else layer_statistics
            for layer, layer_statistics in pass_statistics.items()
        }
        prefixes = setup.prefixes.texts(Role.KEY)
        shifts_by_layer |= sweep_layers(
            setup.lm, list(statistics_by_layer), requests, prefixes, statistics_by_layer, site_path=setup.site_path
        )
    return shifts_by_layer


def _make_identities(setup: Setup, layers: range) -> dict[int, KeyStatistics]:
    sizes = {layer: find_site(setup.lm.model, layer, setup.site_path).d_ff for layer in layers}
    return {layer: make_identity_statistics(size, setup.lm.fingerprint, layer) for layer, size in sizes.items()}
