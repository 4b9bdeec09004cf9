"""Check the prose of the documentation by the rules of `.vale.ini` and `styles/`.

    python docs/check_prose.py [FILE ...]

The rules are written for vale, whose program comes from GitHub and no package registry carries it. This script reads the
very same files, so that a machine without vale gives the same answer. It knows the three kinds of rules in use
(`existence`, `substitution`, `occurrence`), the scopes `text` and `sentence`, and the comments `<!-- vale off -->` and
`<!-- vale on -->`; any other rule is an error. Code, tables, links' addresses and HTML are left out.

One difference: vale looks for sentences in paragraphs alone, this script in list items and quotations as well.

Without arguments it reads README.md, CONTRIBUTING.md and the pages below docs/. Exit code 1 where a rule was broken.
"""

from __future__ import annotations

import re
import sys
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from configparser import ConfigParser
from fnmatch import fnmatch
from pathlib import Path
from typing import Any, NamedTuple

import yaml

__all__ = ["Alert", "Rule", "alerts", "blocks", "check", "main", "pages", "rules", "sentences", "styles_of"]

ROOT = Path(__file__).resolve().parents[1]

_ABBREVIATION = re.compile(r"\b(?:e\.g|i\.e|etc|vs|cf|al|Fig|Eq|Sec|No|approx|resp|St)\.$")
_END = re.compile(r"(?<!\.\.)[.!?][\"'”’)\]]*\s+(?=\S)")
_LIST = re.compile(r"\s*(?:[-*+]|\d+[.)])\s+(?:\[[ xX]\]\s+)?")
_HEADING = re.compile(r"#{1,6}\s")
_FENCE = re.compile(r"\s*(`{3,}|~{3,})")
_CONTAINER = re.compile(r"\s*(?:!!!|\?\?\?\+?|===)\s")
_SWITCH = re.compile(r"<!--\s*vale\s+(on|off)\s*-->")
_CODE = re.compile(r"(`+)(?!`)(.+?)(?<!`)\1(?!`)")
_HIDDEN = "\ue000"
_LINK = re.compile(r"!?\[(?P<label>[^\[\]]*)\](?:\((?:[^()]|\([^()]*\))*\)|\[[^\[\]]*\])")
_ADDRESS = re.compile(r"<https?:[^>]*>|</?[a-zA-Z][^>]*>|\{[:#.][^}]*\}|^#+\s+")
_MARK = re.compile(r"\*+|\\(?=[^\w\s])|(?<!\w)_+(?=\S)|(?<=\S)_+(?!\w)")


class Block(NamedTuple):
    """A heading, paragraph, list item or quotation: its text without markup, and the line that each character is from."""

    text: str
    lines: tuple[int, ...]
    heading: bool = False

    def replaced(self, pattern: re.Pattern[str], by: Callable[[re.Match[str]], str]) -> Block:
        """Replace what a pattern matches; the new text counts as from the line in which the old one began."""
        text, lines, last = "", self.lines[:0], 0
        for match in pattern.finditer(self.text):
            new = by(match)
            text += self.text[last : match.start()] + new
            lines += self.lines[last : match.start()] + (self.lines[match.start()],) * len(new)
            last = match.end()
        return Block(text + self.text[last:], lines + self.lines[last:], self.heading)


class Rule(NamedTuple):
    """One file of a style."""

    name: str
    scope: str
    level: str
    message: str
    pattern: re.Pattern[str]
    swaps: tuple[tuple[re.Pattern[str], str], ...] = ()
    most: int | None = None


class Alert(NamedTuple):
    """A rule that is broken, and where."""

    path: str
    line: int
    rule: str
    message: str
    level: str

    def __str__(self) -> str:
        return f"{self.path}:{self.line}:{self.rule}: {self.message}"


# ------------------------------------------------------------------------------------------------------------ the rules


def rules(folder: Path) -> list[Rule]:
    """Read the rules of a style.

    Raises:
        ValueError: a rule is of a kind or has a scope that this script does not know, so that vale alone would judge by it.
    """
    return [_rule(path) for path in sorted(folder.glob("*.yml"))]


def _rule(path: Path) -> Rule:
    raw: Mapping[str, Any] = yaml.safe_load(path.read_text(encoding="utf-8"))
    name = f"{path.parent.name}.{path.stem}"
    kind, scope = raw["extends"], raw.get("scope", "text")
    known = {"extends", "message", "level", "scope", "ignorecase", "nonword", "link"}
    own = {"existence": {"tokens"}, "substitution": {"swap"}, "occurrence": {"max", "token"}}
    if kind not in own or scope not in ("text", "sentence") or not set(raw) <= known | own[kind]:
        raise ValueError(f"{path}: docs/check_prose.py does not know this kind of rule, its scope or one of its keys")
    flags = re.IGNORECASE if raw.get("ignorecase") else 0
    head = (name, scope, raw["level"], raw["message"])
    if kind == "occurrence":
        return Rule(*head, re.compile(raw["token"], flags), most=raw["max"])
    if kind == "existence":
        return Rule(*head, re.compile(_whole(raw["tokens"], raw.get("nonword", False)), flags))
    swaps = tuple((re.compile(_whole([key], False), flags), value) for key, value in raw["swap"].items())
    return Rule(*head, re.compile(_whole([*raw["swap"]], False), flags), swaps)


def _whole(tokens: Iterable[str], nonword: bool) -> str:
    """Join tokens as vale does: as whole words, unless the rule says that they are none."""
    joined = "|".join(f"(?:{token})" for token in tokens)
    return joined if nonword else rf"\b(?:{joined})\b"


def _broken(rule: Rule, text: str) -> Iterator[tuple[int, str]]:
    """Yield (offset, message) of each place of a text that breaks a rule."""
    if rule.most is not None:
        if (count := len(rule.pattern.findall(text))) > rule.most:
            yield 0, rule.message.replace("%s", str(count))
        return
    for match in rule.pattern.finditer(text):
        shown = match[0]
        if rule.swaps:
            better = next(value for pattern, value in rule.swaps if pattern.fullmatch(shown))
            yield match.start(), rule.message.replace("%s", better, 1).replace("%s", shown, 1)
        else:
            yield match.start(), rule.message.replace("%s", shown, 1)


# ------------------------------------------------------------------------------------------------------------ Markdown


def blocks(markdown: str) -> Iterator[Block]:
    """Yield the prose of a page, block by block."""
    pending: list[tuple[int, str]] = []
    heading = False
    for number, text, starts in _prose(markdown):
        if (starts or not text or heading) and pending:
            yield _block(pending, heading)
            pending, heading = [], False
        heading = heading or bool(_HEADING.match(text))
        if text:
            pending.append((number, text))
    if pending:
        yield _block(pending, heading)


def _prose(markdown: str) -> Iterator[tuple[int, str, bool]]:
    """Yield (number, text, begins a block) of each line; lines that are no prose are empty."""
    fence, off, comment, nested, blank = "", False, False, False, True
    for number, line in enumerate(_without_front_matter(markdown.splitlines()), 1):
        stripped = line.strip()
        if fence:
            fence = "" if stripped.startswith(fence) and not stripped.strip(fence[0]) else fence
        elif comment:
            comment = "-->" not in line
        elif found := _SWITCH.fullmatch(stripped):
            off = found[1] == "off"
        elif not off and (opened := _FENCE.match(line)):
            fence = opened[1]
        elif stripped.startswith("<!--"):
            comment = "-->" not in line
        elif not off and stripped and not _skipped(line, nested, blank):
            item = _LIST.match(line)
            nested = bool(item) or (nested and (line[0] == " " or not blank))
            text = re.sub(r"^(?:>\s*)+", "", line[item.end() :].strip() if item else stripped)
            yield number, text, bool(item or _HEADING.match(text))
            blank = False
            continue
        if _CONTAINER.match(line):
            nested = True
        blank = True
        yield number, "", True


def _without_front_matter(lines: list[str]) -> list[str]:
    """Return `lines` with those of a leading block between two ``---`` emptied."""
    if not lines or lines[0].strip() != "---":
        return lines
    end = next((number for number, line in enumerate(lines[1:], 1) if line.strip() == "---"), len(lines) - 1)
    return [""] * (end + 1) + lines[end + 1 :]


def _skipped(line: str, nested: bool, blank: bool) -> bool:
    """Whether a line is a table's, code by its indentation, a container's head, a directive, or a rule between parts."""
    stripped = line.strip()
    if line.startswith("    ") and blank and not nested:
        return True
    return stripped.startswith(("|", ":::")) or bool(_CONTAINER.match(line)) or not stripped.strip("-=*_ ")


def _block(lines: Sequence[tuple[int, str]], heading: bool) -> Block:
    """Join the lines of a block, and take the markup out."""
    text = "".join(f"{line} " for _, line in lines)
    block = Block(text, tuple(number for number, line in lines for _ in f"{line} "), heading)
    # Code first, since what looks like markup in it is none; a span counts as one word.
    block = block.replaced(_CODE, lambda match: _HIDDEN * len(match[0]))
    for pattern in (_LINK, _ADDRESS, _MARK):
        block = block.replaced(pattern, lambda match: match.groupdict().get("label") or "")
    return block.replaced(re.compile(_HIDDEN), lambda _: "*")


def sentences(block: Block) -> Iterator[tuple[int, str]]:
    """Yield (offset, text) of each sentence of a block."""
    start = 0
    for match in _END.finditer(block.text):
        if not _ABBREVIATION.search(block.text[start : match.start() + 1]):
            yield start, block.text[start : match.end()].rstrip()
            start = match.end()
    if block.text[start:].strip():
        yield start, block.text[start:].rstrip()


# ------------------------------------------------------------------------------------------------------------ the check


def alerts(markdown: str, judged_by: Sequence[Rule], path: str = "") -> list[Alert]:
    """Return what breaks the rules in a page, from top to bottom."""
    broken = []
    for block in blocks(markdown):
        for rule in judged_by:
            parts = [(0, block.text)]
            if rule.scope == "sentence":
                parts = [] if block.heading else [*sentences(block)]
            for start, part in parts:
                broken += [
                    Alert(path, block.lines[start + offset], rule.name, message, rule.level)
                    for offset, message in _broken(rule, part)
                ]
    return sorted(broken, key=lambda alert: alert.line)


def _configuration(root: Path) -> ConfigParser:
    parser = ConfigParser(interpolation=None)
    parser.read_string("[top]\n" + (root / ".vale.ini").read_text(encoding="utf-8"))
    return parser


def styles_of(path: str, configuration: ConfigParser) -> list[str]:
    """Return the styles that a page is judged by: those of the last section that fits its path."""
    styles: list[str] = []
    for glob in configuration.sections():
        if glob != "top" and (fnmatch(path, glob) or fnmatch(Path(path).name, glob)):
            styles = [name.strip() for name in configuration[glob]["BasedOnStyles"].split(",") if name.strip()]
    return styles


def pages(root: Path) -> list[Path]:
    """Return the pages that are checked when none is named."""
    return [root / "README.md", root / "CONTRIBUTING.md", *sorted((root / "docs").rglob("*.md"))]


def check(root: Path, paths: Iterable[Path]) -> list[Alert]:
    """Judge each page by the styles that `.vale.ini` gives it."""
    configuration = _configuration(root)
    home = root / configuration["top"]["StylesPath"]
    broken = []
    for path in paths:
        name = path.resolve().relative_to(root).as_posix()
        judged_by = [rule for style in styles_of(name, configuration) for rule in rules(home / style)]
        broken += alerts(path.read_text(encoding="utf-8"), judged_by, name)
    return broken


def main(arguments: Sequence[str]) -> int:
    """Print what breaks the rules, and return the exit code."""
    broken = check(ROOT, [Path(name) for name in arguments] or pages(ROOT))
    sys.stdout.writelines(f"{alert}\n" for alert in broken)
    counts = Counter(alert.rule for alert in broken)
    sys.stdout.write(", ".join(f"{count} {name}" for name, count in sorted(counts.items())) + "\n" if broken else "")
    return int(any(alert.level == "error" for alert in broken))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
