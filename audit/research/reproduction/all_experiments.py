"""All thirteen experiments in their order; an experiment that breaks or does not apply says so in its place."""

from __future__ import annotations

import traceback
from pathlib import Path
from typing import TYPE_CHECKING

import torch

from ....probes.errors import EditguardError, EditRefused, InputError
from .cases import FEW, CaseKind, Cases
from .experiments import (
    bos_token,
    collapse_prediction,
    edit_success,
    encoder_keys,
    first_token_position,
    key_clouds,
    layer_denominators,
    other_denominators,
    perplexity_after,
    update_size,
)
from .experiments.headings import build_experiment
from .layer_shifts import load_or_measure_shifts

if TYPE_CHECKING:
    from collections.abc import Callable

    from ....probes.model.language_model import LanguageModel
    from ....reports.reproduction.schema import Experiment
    from ...progress import Progress
    from ...setup import Setup
    from .edits import Edits
    from .stamp import Stamp

__all__ = ["explain_missing_kinds", "run_all_experiments"]


def run_all_experiments(
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
    """Return experiments 1 to 13; raises `ReportError` where a file of theirs cannot be written."""
    bound, few = setup.policy.collapse_ratio, explain_missing_kinds(setup, cases)
    about_edits: dict[int, Callable[[], Experiment]] = {
        1: lambda: update_size.compare_update_sizes(cases, edits),
        2: lambda: perplexity_after.compare_perplexities(cases, edits, bound),
        3: lambda: edit_success.measure_without_prefix(cases, edits),
        4: lambda: edit_success.measure_with_prefix(cases, edits),
        5: lambda: edit_success.measure_own_editor(cases, edits, bound),
        12: lambda: other_denominators.list_other_cases(cases, edits, bound),
        13: lambda: collapse_prediction.measure_prediction(cases, edits, bound),
    }
    about_keys: dict[int, Callable[[], Experiment]] = {
        6: lambda: key_clouds.compare_distributions(setup, cases),
        7: lambda: key_clouds.place_first_tokens(setup, cases),
        8: lambda: layer_denominators.compare_layers(
            setup, cases, load_or_measure_shifts(setup, cases, corpus, path=layers_file, stamp=stamp, progress=progress)
        ),
        9: lambda: first_token_position.shift_first_token(setup, cases, bound),
        11: lambda: encoder_keys.compare_encoder(setup, cases, compared),
    }
    # Experiment 10 checks its own cases: without a BOS other cases are first tokens.
    runs = (
        about_edits
        | {number: run if few is None else _skip_experiment(number, few) for number, run in about_keys.items()}
        | {10: lambda: bos_token.compare_bos(setup, cases)}
    )
    experiments = []
    for done, number in enumerate(sorted(runs)):
        progress("experiments", done, len(runs))
        experiments.append(_run_contained(number, runs[number]))
    progress("experiments", len(runs), len(runs))
    return experiments


def explain_missing_kinds(setup: Setup, cases: Cases) -> str | None:
    """Return in a sentence why keys of first tokens cannot be compared with ordinary ones, None where they can."""
    first, ordinary = len(cases.select(CaseKind.FIRST)), len(cases.select(CaseKind.ORDINARY))
    if min(first, ordinary) >= FEW:
        return None
    counts = f"first tokens: {first}, ordinary requests: {ordinary}; at least {FEW} of each are needed"
    if first < FEW and setup.lm.adds_bos:
        return (
            f"The tokenizer puts a BOS before every text, so that no subject is a first token for any file "
            f"({counts}); experiment 10 takes the BOS away."
        )
    missing_prompts = "that begin with a subject of one token" if first < FEW else "whose subject does not come first"
    return f"The file holds too few requests of one kind ({counts}); give one with more prompts {missing_prompts}."


def _skip_experiment(number: int, why: str) -> Callable[[], Experiment]:
    return lambda: build_experiment(number, skipped=why)


def _run_contained(number: int, run: Callable[[], Experiment]) -> Experiment:
    """Run one experiment; an error is reported in its place, since the page also holds the results of hours of edits.

    A failing device and a weight that did not come back end the run, since no later result of the model can be trusted.
    """
    try:
        return run()
    except (InputError, EditRefused) as error:
        return build_experiment(number, skipped=str(error))
    except (EditguardError, torch.AcceleratorError):
        raise
    except Exception as error:  # a fault of one experiment is no reason to lose the page of the others
        last = traceback.extract_tb(error.__traceback__)[-1]
        where = f"{Path(last.filename).name}, line {last.lineno}"
        return build_experiment(number, skipped=f"{type(error).__name__}: {error} ({where})", broken=True)
