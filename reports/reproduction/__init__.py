"""A reproduction of the paper's experiments: schema, figures, page, text and tables."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ..._lazy import lazy_names

if TYPE_CHECKING:
    from .schema import Agreement as Agreement
    from .schema import CaseCount as CaseCount
    from .schema import Claim as Claim
    from .schema import Curves as Curves
    from .schema import Experiment as Experiment
    from .schema import Group as Group
    from .schema import Heat as Heat
    from .schema import Picture as Picture
    from .schema import Reproduction as Reproduction
    from .schema import Scatter as Scatter
    from .schema import Table as Table
    from .schema import describe_cases as describe_cases

__all__, __getattr__, __dir__ = lazy_names(
    __name__,
    {
        "Agreement": ".schema",
        "CaseCount": ".schema",
        "Claim": ".schema",
        "Curves": ".schema",
        "Experiment": ".schema",
        "Group": ".schema",
        "Heat": ".schema",
        "Picture": ".schema",
        "Reproduction": ".schema",
        "Scatter": ".schema",
        "Table": ".schema",
        "describe_cases": ".schema",
    },
)
