"""Write the generated parts of docs/reference/ and the JSON Schemas from the code.

    python docs/generate.py            # write
    python docs/generate.py --check    # exit 1 where a file is not what the code says, and name it

A part of a page stands between `<!-- generated: NAME -->` and `<!-- end of generated part -->`; all else is written by hand.
What fields mean is written in docs/meanings.toml. Only editguard's own plug-ins are described.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent))  # also when a test runs this file by its path

from generators import cards, command_line, tables
from generators.fields import described
from generators.meanings import unused
from generators.pages import filled, parts_of
from generators.schemas import SCHEMAS, schema

__all__ = ["FOLDER", "PARTS", "contents", "main"]

FOLDER = Path(__file__).resolve().parent / "reference"

PARTS: Mapping[str, Callable[[], str]] = {
    "commands": command_line.commands,
    "probes": cards.probes,
    "checks": cards.checks,
    "editors": cards.editors,
    "policy-keys": tables.policy_keys,
    "gate-metrics": tables.gate_metrics,
    "gate-reasons": tables.gate_reasons,
    "gate-fields": lambda: described("gate", elsewhere=["override"]),
    "override-fields": lambda: described("override"),
    "log-fields": lambda: described("header", "edit", "control", "model", "footer"),
    "summary-fields": lambda: described("summary"),
    "diff-fields": lambda: described("diff"),
    "delta-fields": lambda: described("delta-manifest"),
    "provenance-fields": lambda: described("provenance", elsewhere=["delta-manifest"]),
    "edits-columns": tables.edits_columns,
    "measurements-columns": tables.measurements_columns,
    "pytest-options": tables.pytest_options,
    "exceptions": tables.exceptions,
}
"""Name of a part to the function that returns its text."""


def contents(folder: Path = FOLDER) -> dict[Path, str]:
    """Return what each file below `folder` must hold: pages with generated parts, and schemas."""
    pages = {path: path.read_text(encoding="utf-8") for path in sorted(folder.glob("*.md"))}
    found = {path: filled(text, PARTS) for path, text in pages.items() if parts_of(text)}
    return found | {folder / "schemas" / f"{name}.schema.json": schema(name) for name in SCHEMAS}


def main(arguments: Sequence[str]) -> int:
    """Write or check all files; return the exit code."""
    stale = [
        (path, text)
        for path, text in contents().items()
        if not path.is_file() or path.read_text(encoding="utf-8") != text
    ]
    for path, text in stale:
        if "--check" in arguments:
            sys.stderr.write(
                f"{path.relative_to(FOLDER.parents[1])} is not what the code says; run: python docs/generate.py\n"
            )
        else:
            path.parent.mkdir(exist_ok=True)
            path.write_text(text, encoding="utf-8")
    for name in (lost := unused()):
        sys.stderr.write(f"docs/meanings.toml: {name} is a field no longer; take its phrase out\n")
    return int(bool(lost or (stale and "--check" in arguments)))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
