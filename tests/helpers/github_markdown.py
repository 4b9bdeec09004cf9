"""GitHub's own Markdown renderer, for tests of what a text becomes on a page."""

from __future__ import annotations

import cmarkgfm
from cmarkgfm.cmark import Options


def to_html(markdown: str) -> str:
    """Return the HTML that GitHub's renderer makes of `markdown`, raw HTML and bare links included."""
    return cmarkgfm.github_flavored_markdown_to_html(markdown, Options.CMARK_OPT_UNSAFE)
