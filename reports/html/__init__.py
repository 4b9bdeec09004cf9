"""Pages: one HTML file each, complete offline."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ..._lazy import lazy_names

if TYPE_CHECKING:
    from .report_page import PACK as PACK
    from .report_page import SHOWN as SHOWN
    from .report_page import TOLD as TOLD
    from .report_page import render_html as render_html

__all__, __getattr__, __dir__ = lazy_names(
    __name__,
    {
        "PACK": ".report_page",
        "SHOWN": ".report_page",
        "TOLD": ".report_page",
        "render_html": ".report_page",
    },
)
