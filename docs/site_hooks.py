"""Hooks of mkdocs: pages of the repository's root appear in the site, and links out of docs/ lead where the site has a page.

The same Markdown is read in the repository and in the site.
A link to a page of the root becomes a link to its copy in the site.
A link to any other file of the repository keeps its words and loses its address, since the site does not hold that file.
Links within docs/ are left alone, so that mkdocs checks them.
"""

from __future__ import annotations

import posixpath
import re
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from mkdocs.config.defaults import MkDocsConfig
    from mkdocs.structure.files import Files
    from mkdocs.structure.pages import Page

ROOT = Path(__file__).resolve().parents[1]
COPIES = {
    "CONTRIBUTING.md": "maintainers/contributing.md",
    "CHANGELOG.md": "maintainers/changelog.md",
    "SECURITY.md": "maintainers/vulnerabilities.md",
}
"""Files of the root that appear in the site, and as which page."""
PAGES = {**COPIES, "README.md": "index.md"}
ORIGINS = {page: name for name, page in COPIES.items()}

# A fenced block is matched first and left as it is; then [words](address).
LINK = re.compile(
    r"(?P<code>^( *)```.*?^\2```)|(?<!!)\[(?P<words>[^\]]*)\]\((?P<address>[^)\s]+)\)", re.DOTALL | re.MULTILINE
)


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the pages of the root that exist."""
    from mkdocs.structure.files import File

    for name, page in COPIES.items():
        if (path := ROOT / name).is_file():
            files.append(File.generated(config, page, content=path.read_text(encoding="utf-8")))
    return files


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Point the links of one page at pages of the site."""
    return rewrite(markdown, page.file.src_uri)


def rewrite(markdown: str, page: str) -> str:
    """Return a page's Markdown with the links out of docs/ changed; `page` is its path below docs/."""
    origin = ORIGINS.get(page, f"docs/{page}")

    def replaced(match: re.Match[str]) -> str:
        address = match["address"]
        if match["code"] or re.match(r"[a-z]+:|#", address):
            return match[0]
        path, mark, anchor = address.partition("#")
        target = posixpath.normpath(posixpath.join(posixpath.dirname(origin), path))
        if target.startswith("docs/"):
            target = target.removeprefix("docs/")
        elif target in PAGES:
            target = PAGES[target]
        else:
            return match["words"]
        return f"[{match['words']}]({posixpath.relpath(target, posixpath.dirname(page) or '.')}{mark}{anchor})"

    return LINK.sub(replaced, markdown)
