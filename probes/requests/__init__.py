"""Edit requests: one request, and the readers of files and data sets of requests."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ..._lazy import lazy_names

if TYPE_CHECKING:
    from .loader import InvalidRecord as InvalidRecord
    from .loader import LoadedRequests as LoadedRequests
    from .loader import load_requests as load_requests
    from .request import SUFFIXES as SUFFIXES
    from .request import EditRequest as EditRequest

__all__, __getattr__, __dir__ = lazy_names(
    __name__,
    {
        "EditRequest": ".request",
        "InvalidRecord": ".loader",
        "LoadedRequests": ".loader",
        "SUFFIXES": ".request",
        "load_requests": ".loader",
    },
)
