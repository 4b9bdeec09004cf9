"""Experiment 8: denominator and key shift at every layer."""

from __future__ import annotations

import statistics
from typing import TYPE_CHECKING

from .....reports.reproduction.schema import Claim, Experiment, Heat, Table
from ..clouds import KINDS, drop_repeated_subjects
from .headings import build_claim, build_experiment

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from .....probes.research.layer_sweep import LayerShift
    from ....setup import Setup
    from ..cases import CaseKind, Cases
    from ..layer_shifts import LayerShifts

__all__ = ["compare_layers"]

_SMALL = 10.0
"""How many times smaller than the ordinary ones' the median denominator must be to count as the anomaly."""


def compare_layers(setup: Setup, cases: Cases, shifts: LayerShifts) -> Experiment:
    """Experiment 8, from the keys of all layers."""
    shifts_by_layer = shifts.layers
    first, ordinary = (len(drop_repeated_subjects(cases.select(kind))) for kind in KINDS)
    kinds = {
        kind: {
            layer: layer_shifts[:first] if kind is KINDS[0] else layer_shifts[first:]
            for layer, layer_shifts in shifts_by_layer.items()
        }
        for kind in KINDS
    }
    denominators = {
        kind: [_compute_median(layer_shifts, 0) for layer_shifts in by.values()] for kind, by in kinds.items()
    }
    cosines = {kind: [_compute_median(layer_shifts, 2) for layer_shifts in by.values()] for kind, by in kinds.items()}
    names = [kind.value for kind in KINDS]
    layers = [str(layer) for layer in shifts_by_layer]
    times = [high / low if low else None for low, high in zip(*denominators.values(), strict=True)]
    rows: list[list[str | bool | int | float | None]] = [
        [int(layer), *(denominators[kind][n] for kind in KINDS), times[n], *(cosines[kind][n] for kind in KINDS)]
        for n, layer in enumerate(layers)
    ]
    return build_experiment(
        8,
        claims=[_judge_layers(setup.site.layer, times)],
        tables=[
            Table(
                name="layer-medians",
                title="Medians by layer",
                columns=[
                    "layer",
                    *(f"|u·k_u|, {name}" for name in names),
                    "times smaller",
                    *(f"cos(k_u, k̄), {name}" for name in names),
                ],
                rows=rows,
                note=f"Over {first} first-token and {ordinary} ordinary subjects.",
            )
        ],
        pictures=_draw_layers(layers, names, denominators, cosines),
        notes=[
            f"C of layer {setup.site.layer} from {setup.statistics.provenance.source}, of the others from "
            f"{shifts.source}."
        ],
    )


def _draw_layers(
    layers: list[str],
    names: list[str],
    denominators: Mapping[CaseKind, Sequence[float]],
    cosines: Mapping[CaseKind, Sequence[float]],
) -> list[Heat]:
    return [
        Heat(
            name="layer-denominators",
            title="Median |u·k_u| by layer",
            x=layers,
            y=names,
            x_title="layer",
            z=[list(values) for values in denominators.values()],
            z_title="|u·k_u|",
            log=True,
            caption="Where the upper row is far paler or darker than the lower one, published edits explode.",
        ),
        Heat(
            name="layer-shift",
            title="Median cos(k_u, k̄) by layer",
            x=layers,
            y=names,
            x_title="layer",
            z=[list(values) for values in cosines.values()],
            z_title="cosine",
            caption="How much of the key without a prefix is left after one.",
        ),
    ]


def _compute_median(layer_shifts: Sequence[LayerShift], field: int) -> float:
    return statistics.median(shift[field] for shift in layer_shifts)


def _judge_layers(edited: int, times: Sequence[float | None]) -> Claim:
    far = [layer for layer, value in enumerate(times) if value is None or value >= _SMALL]
    at = times[edited]
    return build_claim(
        "At the edited layer (17, 5, 5) the denominators of collapse cases are far smaller: 240 to 320 times.",
        f"At layer {edited} {'infinitely' if at is None else f'{at:.3g} times'} smaller in the median; at least {_SMALL:g} times "
        f"at {len(far)} of {len(times)} layers ({_format_ranges(far) or 'none'}).",
        edited in far,
        f"At least {_SMALL:g} times smaller at the edited layer.",
    )


def _format_ranges(layers: Sequence[int]) -> str:
    """Write 3, 4, 5, 9 as "3 to 5, 9"."""
    runs: list[list[int]] = []
    for layer in layers:
        if runs and layer == runs[-1][-1] + 1:
            runs[-1].append(layer)
        else:
            runs.append([layer])
    return ", ".join(str(run[0]) if len(run) == 1 else f"{run[0]} to {run[-1]}" for run in runs)
