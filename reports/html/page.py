"""A page that is complete in itself: one HTML file that opens offline and asks no network for anything.

What comes from a model, a file or a user reaches it only through jinja's autoescaping, with hidden and
direction-changing characters spelled out, texts written from right to left kept apart from what stands beside them, and
very long ones cut with their length said; data for scripts travels in JSON islands that cannot close their element. A
content security policy allows the page's own scripts by their hash and nothing else. Templates extend ``base.html.j2``.
"""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Callable, Mapping, Sequence
from functools import cache, lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..numbers import format_counts, format_number, format_percent, format_ratio
from ..text import reads_from_right, shorten, split_hidden, visible
from ..text_differences import TextPart, find_differences
from ..verdict.prompt_views import highlight

if TYPE_CHECKING:
    from jinja2 import Environment
    from markupsafe import Markup

    from .plotting import Figure

__all__ = ["LONGEST", "render_page", "show", "show_breaks", "show_breaks_part", "show_part"]

LONGEST = 2000
"""Characters of a text that a page shows; the log has the rest."""

_TEMPLATES = Path(__file__).parent / "templates"


def render_page(
    template: str,
    figures: Sequence[Figure],
    scripts: Sequence[str] = (),
    filters: Mapping[str, Callable[..., Any]] | None = None,
    **context: Any,
) -> str:
    """Return `template` with its figures drawn, `scripts` run and `context` filled in."""
    library = _read_plotly() if figures else ""
    own = [(_TEMPLATES / name).read_text(encoding="utf-8") for name in ("figures.js", *scripts)]
    return (
        _make_environment(tuple((filters or {}).items()))
        .get_template(template)
        .render(
            figures=figures,
            policy=_write_security_policy([library, *own]),
            library=_mark_safe(library),
            scripts=[_mark_safe(text) for text in own],
            style=_mark_safe((_TEMPLATES / "report.css").read_text(encoding="utf-8")),
            **context,
        )
    )


@cache
def _read_plotly() -> str:
    from plotly.offline import get_plotlyjs

    text: str = get_plotlyjs()
    return text


def _write_security_policy(scripts: Sequence[str]) -> str:
    """Return the policy under which `scripts`, known by their SHA-256, run and nothing is fetched."""
    hashes = (base64.b64encode(hashlib.sha256(script.encode()).digest()).decode() for script in scripts)
    allowed = " ".join(f"'sha256-{digest}'" for digest in hashes)
    return (
        f"default-src 'none'; img-src data:; style-src 'unsafe-inline'; script-src {allowed}; "
        "base-uri 'none'; form-action 'none'"
    )


@lru_cache(maxsize=8)
def _make_environment(more: tuple[tuple[str, Callable[..., Any]], ...]) -> Environment:
    """Return the environment with the filters `more`; kept, because its templates take longer to compile than to fill."""
    from jinja2 import Environment, FileSystemLoader, StrictUndefined

    environment = Environment(
        loader=FileSystemLoader(_TEMPLATES),
        autoescape=True,
        undefined=StrictUndefined,
        finalize=_spell_out_hidden,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {
        "differences": _find_short_differences,
        "highlighted": highlight,
        "show": show,
        "show_breaks": show_breaks,
        "show_breaks_part": show_breaks_part,
        "show_part": show_part,
        "visible": visible,
        "number": format_number,
        "percent": format_percent,
        "ratio": format_ratio,
        "counts": format_counts,
        "raw_json": _mark_safe,
        "value": _format_value,
        "width": _format_width,
        "place": _format_place,
        **dict(more),
    }
    return environment


def _spell_out_hidden(value: object) -> object:
    """Spell out hidden characters also where a template forgot to `show` its text."""
    return visible(shorten(value, LONGEST)) if type(value) is str else value


def show(text: str, most: int = LONGEST) -> Markup:
    """Escape the first `most` characters of `text`, and spell out hidden ones in a box of their own.

    A text with letters that are written from right to left is isolated: it turns nothing that stands beside it.
    """
    from markupsafe import Markup

    shown = _box_hidden(shorten(text, most))
    return Markup("<bdi>{}</bdi>").format(shown) if reads_from_right(text[:most]) else shown


def show_part(text: str) -> Markup:
    """Like `show`, for a part of a text that is a block of its own: its parts must be laid out together."""
    return _box_hidden(shorten(text, LONGEST))


def show_breaks_part(text: str) -> Markup:
    """Like `show_part`, with a mark in the place of each line break: for answers that stand on one line."""
    from markupsafe import Markup

    mark = Markup('<span class="hidden-char" title="line break">↵</span>')
    return mark.join(_box_hidden(line) for line in shorten(text, LONGEST).split("\n"))


def show_breaks(text: str) -> Markup:
    """Like `show`, with line breaks marked, for texts that may be nothing but a line break."""
    from markupsafe import Markup

    mark = Markup('<span class="hidden-char" title="line break">↵</span>\n')
    return mark.join(show(line) for line in shorten(text, LONGEST).split("\n"))


def _box_hidden(text: str) -> Markup:
    from markupsafe import Markup, escape

    boxed = Markup('<span class="hidden-char">{}</span>').format
    return Markup("").join(boxed(piece.text) if piece.hidden else escape(piece.text) for piece in split_hidden(text))


def _find_short_differences(text: str, other: str) -> list[TextPart]:
    return find_differences(shorten(text, LONGEST), shorten(other, LONGEST))


def _format_value(value: object) -> str:
    if value is None:
        return "–"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        return format_number(value)
    if isinstance(value, Mapping):
        return ", ".join(f"{name}: {_format_value(item)}" for name, item in value.items()) or "–"
    if isinstance(value, list):
        return ", ".join(_format_value(item) for item in value) or "–"
    return str(value)


def _format_width(share: float | None) -> str:
    return f"{100 * min(1.0, max(0.0, share or 0.0)):.1f}%"


def _format_place(per_cent: float) -> str:
    return f"{per_cent:.1f}%"


def _mark_safe(text: str) -> Markup:
    from markupsafe import Markup

    return Markup(text)
