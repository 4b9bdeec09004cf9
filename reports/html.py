"""From a log to one HTML file that opens offline and asks no network for anything.

Order: digest, figures, then the templates. What comes from a model, a file or a user reaches the page only through
jinja's autoescaping, with hidden and direction-changing characters spelled out; data for scripts travels in JSON
islands that cannot close their element. A content security policy allows the page's own scripts by their hash and
nothing else. Out of scope: what the figures mean (`digest`, `figures`) and writing the file (`log.write_atomic`).
"""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from . import numbers
from .digest import Digest, digest
from .figures import figures
from .log import Log
from .ranges import shape, told_as_one
from .rates import make_rate
from .schema import Condition, Measurement, Rate
from .story import Decided, Result, Story
from .text import pieces, visible

if TYPE_CHECKING:
    from jinja2 import Environment
    from markupsafe import Markup

__all__ = ["render_html"]

_TEMPLATES = Path(__file__).parent / "templates"


@dataclass(frozen=True)
class Answer:
    """A question's answer at a glance: `mood` is ``good``, ``bad`` or ``unknown``."""

    mood: str
    word: str
    why: str


@dataclass(frozen=True)
class Group:
    """Edits that met the same end for the same reason."""

    kind: str
    reason: str
    stories: tuple[Story, ...]


@dataclass(frozen=True)
class Line:
    """Measurements that share a line: one, or those of several prefix families that differ in their counts alone."""

    first: Measurement
    members: tuple[Measurement, ...]
    counts: Rate


def render_html(log: Log) -> str:
    """Return the report over `log` as one self-contained HTML page."""
    from plotly.offline import get_plotlyjs

    found = digest(log)
    scripts = [get_plotlyjs(), (_TEMPLATES / "report.js").read_text(encoding="utf-8")]
    page = _environment().get_template("report.html.j2")
    return page.render(
        d=found,
        s=found.summary,
        h=found.header,
        sound=soundness(found),
        groups=groups(found.stories),
        figures=figures(found),
        policy=content_security_policy(scripts),
        scripts=[_raw(script) for script in scripts],
        style=_raw((_TEMPLATES / "report.css").read_text(encoding="utf-8")),
    )


def content_security_policy(scripts: Sequence[str]) -> str:
    """Return the policy under which `scripts`, known by their SHA-256, run and nothing is fetched."""
    hashes = (base64.b64encode(hashlib.sha256(script.encode()).digest()).decode() for script in scripts)
    allowed = " ".join(f"'sha256-{one}'" for one in hashes)
    return (
        f"default-src 'none'; img-src data:; style-src 'unsafe-inline'; script-src {allowed}; "
        "base-uri 'none'; form-action 'none'"
    )


def soundness(found: Digest) -> Answer:
    """Answer whether the model is still sound, as far as it was measured."""
    summary = found.summary
    made = [story for story in found.stories if story.decided is not Decided.REFUSED]
    unknown = sum(story.ratio is None for story in made)
    bound = numbers.number(summary.collapse_ratio)
    if summary.collapsed:
        return Answer(
            "bad",
            "No",
            f"After {summary.collapsed} of {len(made)} edits, perplexity is over {bound} times the unedited model's.",
        )
    if summary.verdict == "void":
        return Answer("unknown", "Not known", "The controls did not prove that the checks see a collapse.")
    if unknown:
        return Answer("unknown", "Not known", f"After {unknown} of {len(made)} edits the perplexity was not measured.")
    if summary.worst_perplexity_ratio is None:
        return Answer("unknown", "Untouched", "No edit was made, so there was nothing to measure.")
    worst = numbers.ratio(summary.worst_perplexity_ratio)
    return Answer(
        "good",
        "Yes",
        f"At worst, perplexity was {worst} times the unedited model's; from {bound} on it would be called a collapse.",
    )


def groups(stories: Sequence[Story]) -> list[Group]:
    """Gather what failed, was refused or was rewritten by its reason, whatever the numbers in it; the gravest first."""
    found: dict[tuple[str, tuple[str, ...]], list[tuple[str, Story]]] = {}
    for story in stories:
        kind = Result.FAILED.value if story.result is Result.FAILED else story.decided.value
        if kind == Decided.ALLOWED.value:
            continue
        reasons = story.faults if kind == Result.FAILED.value else story.record.decision.reasons
        why = "; ".join(reasons) or story.record.error or "No reason was recorded."
        found.setdefault((kind, shape(why)), []).append((why[:1].upper() + why[1:], story))
    order = [Result.FAILED.value, Decided.REFUSED.value, Decided.REWRITTEN.value]
    gathered = [
        Group(kind, told_as_one([why for why, _ in members]), tuple(story for _, story in members))
        for (kind, _), members in found.items()
    ]
    return sorted(gathered, key=lambda group: (order.index(group.kind), -len(group.stories)))


def lines(measurements: Sequence[Measurement]) -> list[Line]:
    """Gather the families of one check, with one verdict and message, on one line; all else has a line of its own."""
    found: dict[object, list[Measurement]] = {}
    for place, one in enumerate(measurements):
        shared = one.condition.startswith(Condition.FAMILY.value) and one.total > 0
        alike = (one.check, one.metric, one.protocol, one.verdict, one.threshold, one.baseline, one.unit, one.message)
        found.setdefault(alike if shared else place, []).append(one)
    return [
        Line(
            members[0],
            tuple(members),
            make_rate(*(sum(getattr(m, field) for m in members) for field in ("passed", "failed", "not_judged"))),
        )
        for members in found.values()
    ]


# --------------------------------------------------------------------------------------------------------- filters


def _environment() -> Environment:
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
        "show": show,
        "show_breaks": show_breaks,
        "visible": visible,
        "number": numbers.number,
        "percent": numbers.percent,
        "ratio": numbers.ratio,
        "counts": numbers.counts,
        "raw_json": _raw,
        "value": _value,
        "lines": lines,
        "width": _width,
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
        return numbers.number(value)
    if isinstance(value, Mapping):
        return ", ".join(f"{name}: {_value(one)}" for name, one in value.items()) or "–"
    if isinstance(value, list):
        return ", ".join(_value(one) for one in value) or "–"
    return str(value)


def _width(share: float | None) -> str:
    return f"{100 * min(1.0, max(0.0, share or 0.0)):.1f}%"


def _raw(text: str) -> Markup:
    from markupsafe import Markup

    return Markup(text)
