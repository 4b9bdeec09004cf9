"""Pages: one HTML file each, complete offline."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ..._lazy import lazy_names

if TYPE_CHECKING:
    from .report_page import FIRST_ROWS as FIRST_ROWS
    from .report_page import MOST_UNPACKED as MOST_UNPACKED
    from .report_page import PACK_SIZE as PACK_SIZE
    from .report_page import render_html as render_html

__all__, __getattr__, __dir__ = lazy_names(
    __name__,
    {
        "PACK_SIZE": ".report_page",
        "FIRST_ROWS": ".report_page",
        "MOST_UNPACKED": ".report_page",
        "render_html": ".report_page",
    },
)
