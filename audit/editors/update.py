"""What an editor computes: changes of the weights at one or more sites, with the figures that explain each."""

from __future__ import annotations

from dataclasses import dataclass, replace
from itertools import pairwise
from typing import TYPE_CHECKING

from ...probes.errors import InputError
from ...probes.model.site_change import SiteChange, combine_norms

if TYPE_CHECKING:
    from collections.abc import Sequence

    from ...probes.model.site import EditSite

__all__ = ["InsertionFigures", "WeightUpdate", "join_updates"]


@dataclass(frozen=True, kw_only=True)
class InsertionFigures:
    """The figures of one site whose change puts a value v* in at a key k."""

    numerator: float
    """||v* - W k||."""
    denominator: float
    """|u . k|, u of unit length."""
    start_norm: float
    """||v|| before the optimisation."""
    target_norm: float
    """||v*||."""
    steps: int
    """Evaluations of the search for v*."""
    loss: float
    engine: str
    """The engine that the search used in the end."""


@dataclass(frozen=True, kw_only=True, eq=False)
class WeightUpdate:
    """Changes of the weights at one or more sites, which are made together or not at all.

    Raises `InputError` without a change, for two changes of one site, for changes that are not sorted by layer, and for
    sites of different stacks.
    """

    changes: tuple[SiteChange, ...]
    """The change of each site, from the lowest layer up."""
    editor: str
    needs_prefix: bool
    """Whether the edit was made under prefixes only, so that it is not expected to act without one."""
    figures: tuple[InsertionFigures | None, ...] = ()
    """Figures of each change, in the order of `changes`; None for a change that no value explains, empty for none at all."""

    def __post_init__(self) -> None:
        """Refuse changes that are not those of one edit."""
        places = [(site.layer, site.path) for site in self.sites]
        if not places:
            raise InputError(
                f"The update of editor {self.editor!r} changes nothing, and an edit changes one site or more; give a change."
            )
        if any(first >= second for first, second in pairwise(places)):
            raise InputError(
                f"The update of editor {self.editor!r} changes {', '.join(path for _, path in places)}, and its sites must be "
                "distinct and sorted by layer; join_updates sorts them."
            )
        if len({site.blocks_path for site in self.sites}) > 1:
            raise InputError(
                f"The update of editor {self.editor!r} changes {', '.join(path for _, path in places)}, which are layers of "
                "different stacks; change layers of one stack."
            )
        if self.figures and len(self.figures) != len(self.changes):
            raise InputError(
                f"The update of editor {self.editor!r} has {len(self.figures)} figures for {len(self.changes)} changes; give one "
                "for each change, or None in its place."
            )

    @property
    def sites(self) -> tuple[EditSite, ...]:
        """The sites that are changed, from the lowest layer up."""
        return tuple(change.site for change in self.changes)

    @property
    def norm(self) -> float:
        """The norm of all changes together: the root of the sum of their squares, from the factors alone."""
        return combine_norms(change.norm for change in self.changes)

    def get_figures(self, index: int) -> InsertionFigures | None:
        """Return the figures of the change number `index`; None where it has none."""
        return self.figures[index] if self.figures else None

    def scale(self, factor: float) -> WeightUpdate:
        """Return the update `factor` times as large."""
        return replace(self, changes=tuple(replace(change, left=change.left * factor) for change in self.changes))


def join_updates(updates: Sequence[WeightUpdate]) -> WeightUpdate:
    """Return `updates` of one editor at different sites as one; raises `InputError` where two change the same site."""
    pairs = [(change, update.get_figures(index)) for update in updates for index, change in enumerate(update.changes)]
    pairs.sort(key=lambda pair: (pair[0].site.layer, pair[0].site.path))
    return WeightUpdate(
        changes=tuple(change for change, _ in pairs),
        editor=updates[0].editor,
        needs_prefix=any(update.needs_prefix for update in updates),
        figures=tuple(figures for _, figures in pairs),
    )
