"""A page that is complete in itself: one HTML file that opens offline and asks no network for anything.

What comes from a model, a file or a user reaches it only through jinja's autoescaping, with hidden and
direction-changing characters spelled out; data for scripts travels in JSON islands that cannot close their element. A
content security policy allows the page's own scripts by their hash and nothing else. Templates extend ``base.html.j2``.
"""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .differences import differences
from .numbers import counts, number, percent, ratio
from .plotting import Figure
from .text import pieces, visible

if TYPE_CHECKING:
    from jinja2 import Environment
    from markupsafe import Markup

__all__ = ["render_page", "show", "show_breaks"]

_TEMPLATES = Path(__file__).parent / "templates"


def render_page(
    template: str,
    figures: Sequence[Figure],
    scripts: Sequence[str] = (),
    filters: Mapping[str, Callable[..., Any]] | None = None,
    **context: Any,
) -> str:
    """Return `template` with its figures drawn, `scripts` run and `context` filled in."""
    library = _plotly() if figures else ""
    own = [(_TEMPLATES / name).read_text(encoding="utf-8") for name in ("figures.js", *scripts)]
    return (
        _environment(filters or {})
        .get_template(template)
        .render(
            figures=figures,
            policy=_security_policy([library, *own]),
            library=_raw(library),
            scripts=[_raw(text) for text in own],
            style=_raw((_TEMPLATES / "report.css").read_text(encoding="utf-8")),
            **context,
        )
    )


def _plotly() -> str:
    from plotly.offline import get_plotlyjs

    text: str = get_plotlyjs()
    return text


def _security_policy(scripts: Sequence[str]) -> str:
    """Return the policy under which `scripts`, known by their SHA-256, run and nothing is fetched."""
    hashes = (base64.b64encode(hashlib.sha256(script.encode()).digest()).decode() for script in scripts)
    allowed = " ".join(f"'sha256-{one}'" for one in hashes)
    return (
        f"default-src 'none'; img-src data:; style-src 'unsafe-inline'; script-src {allowed}; "
        "base-uri 'none'; form-action 'none'"
    )


def _environment(more: Mapping[str, Callable[..., Any]]) -> Environment:
    from jinja2 import Environment, FileSystemLoader, StrictUndefined

    environment = Environment(
        loader=FileSystemLoader(_TEMPLATES),
        autoescape=True,
        undefined=StrictUndefined,
        finalize=_spelled_out,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {
        "differences": differences,
        "show": show,
        "show_breaks": show_breaks,
        "visible": visible,
        "number": number,
        "percent": percent,
        "ratio": ratio,
        "counts": counts,
        "raw_json": _raw,
        "value": _value,
        "width": _width,
        "place": _place,
        **more,
    }
    return environment


def _spelled_out(value: object) -> object:
    """Spell out hidden characters also where a template forgot to `show` its text."""
    return visible(value) if type(value) is str else value


def show(text: str) -> Markup:
    """Escape `text`, and spell out its hidden characters in a box of their own."""
    from markupsafe import Markup, escape

    boxed = Markup('<span class="hidden-char">{}</span>').format
    return Markup("").join(boxed(piece.text) if piece.hidden else escape(piece.text) for piece in pieces(text))


def show_breaks(text: str) -> Markup:
    """Like `show`, with line breaks marked, for texts that may be nothing but a line break."""
    from markupsafe import Markup

    mark = Markup('<span class="hidden-char" title="line break">↵</span>\n')
    return mark.join(show(line) for line in text.split("\n"))


def _value(value: object) -> str:
    if value is None:
        return "–"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        return number(value)
    if isinstance(value, Mapping):
        return ", ".join(f"{name}: {_value(one)}" for name, one in value.items()) or "–"
    if isinstance(value, list):
        return ", ".join(_value(one) for one in value) or "–"
    return str(value)


def _width(share: float | None) -> str:
    return f"{100 * min(1.0, max(0.0, share or 0.0)):.1f}%"


def _place(per_cent: float) -> str:
    return f"{per_cent:.1f}%"


def _raw(text: str) -> Markup:
    from markupsafe import Markup

    return Markup(text)
