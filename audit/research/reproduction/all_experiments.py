"""All thirteen experiments in their order; what breaks one, or keeps it from being run, is told in its place."""

from __future__ import annotations

import traceback
from collections.abc import Callable
from pathlib import Path

import torch

from ....probes.errors import EditguardError, EditRefused, InputError
from ....probes.model.language_model import LanguageModel
from ....reports.reproduction.schema import Experiment
from ...setup import Progress, Setup
from .cases import FEW, Cases, Kind
from .edits import Edits
from .experiments import collapse_prediction as prediction
from .experiments import edit_success as shares
from .experiments import first_token_position as readings
from .experiments import key_clouds as keys
from .experiments import update_size as tables
from .experiments.encoder_keys import encoder
from .experiments.headings import experiment
from .experiments.layer_denominators import all_layers
from .layer_shifts import layer_shifts
from .stamp import Stamp

__all__ = ["all_experiments", "missing_kinds"]


def all_experiments(
    setup: Setup,
    cases: Cases,
    edits: Edits,
    *,
    corpus: str | None,
    layers_file: Path,
    stamp: Stamp,
    compared: LanguageModel | None,
    progress: Progress,
) -> list[Experiment]:
    """Return experiments 1 to 13; raises `ReportError` where what is to be kept of them cannot be written."""
    bound, few = setup.policy.collapse_ratio, missing_kinds(setup, cases)
    about_edits: dict[int, Callable[[], Experiment]] = {
        1: lambda: tables.update_sizes(cases, edits),
        2: lambda: tables.perplexities(cases, edits, bound),
        3: lambda: shares.without_prefix(cases, edits),
        4: lambda: shares.with_prefix(cases, edits),
        5: lambda: shares.own_editor(cases, edits, bound),
        12: lambda: prediction.other_cases(cases, edits, bound),
        13: lambda: prediction.prediction(cases, edits, bound),
    }
    about_keys: dict[int, Callable[[], Experiment]] = {
        6: lambda: keys.distributions(setup, cases),
        7: lambda: keys.clusters(setup, cases),
        8: lambda: all_layers(setup, cases, layer_shifts(setup, cases, corpus, layers_file, stamp, progress)),
        9: lambda: readings.shifted_position(setup, cases, bound),
        11: lambda: encoder(setup, cases, compared),
    }
    # Experiment 10 says itself what it lacks: where a BOS is taken away, other cases are first tokens.
    runs = about_edits | {
        number: run if few is None else _not_run(number, few) for number, run in about_keys.items()
    } | {10: lambda: readings.behind_bos(setup, cases)}  # fmt: skip
    found = []
    for done, number in enumerate(sorted(runs)):
        progress("experiments", done, len(runs))
        found.append(_survived(number, runs[number]))
    progress("experiments", len(runs), len(runs))
    return found


def missing_kinds(setup: Setup, cases: Cases) -> str | None:
    """Return in a sentence why keys of first tokens cannot be held against ordinary ones, None where they can."""
    first, ordinary = len(cases.of(Kind.FIRST)), len(cases.of(Kind.ORDINARY))
    if min(first, ordinary) >= FEW:
        return None
    counts = f"first tokens: {first}, ordinary requests: {ordinary}; at least {FEW} of each are needed"
    if first < FEW and setup.lm.adds_bos:
        return (
            f"The tokenizer puts a BOS before every text, so that no subject is a first token, whatever the file holds "
            f"({counts}); experiment 10 takes the BOS away."
        )
    wanted = "that begin with a subject of one token" if first < FEW else "whose subject does not come first"
    return f"The file holds too few requests of one kind ({counts}); give one with more prompts {wanted}."


def _not_run(number: int, why: str) -> Callable[[], Experiment]:
    return lambda: experiment(number, skipped=why)


def _survived(number: int, run: Callable[[], Experiment]) -> Experiment:
    """Run one experiment; whatever breaks it is told in its place, since edits of hours stand beside it.

    A failing device and a weight that did not come back end the run: nothing that the model gives afterwards can be trusted.
    """
    try:
        return run()
    except (InputError, EditRefused) as error:
        return experiment(number, skipped=str(error))
    except (EditguardError, torch.AcceleratorError):
        raise
    except Exception as error:  # a fault of one experiment is no reason to lose the page of the others
        last = traceback.extract_tb(error.__traceback__)[-1]
        where = f"{Path(last.filename).name}, line {last.lineno}"
        return experiment(number, skipped=f"{type(error).__name__}: {error} ({where})", broken=True)
