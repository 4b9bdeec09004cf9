"""Run the tutorial as a reader would: every command of every page, in order, in a fresh folder.

    python docs/run_tutorial.py              # all pages, some ten minutes on two cores
    python docs/run_tutorial.py --list       # what would be run; runs nothing

A fenced block marked `sh` or `python` is run, each in a process of its own.
An HTML comment on the line before it changes the rule:

    <!-- exit 1 -->          the exit code that the block must end with; 0 without a comment
    <!-- not run: why -->    the block is shown only

A block marked `text` right after it is its output.
Each shown line must be a line of the real output, in the same order; lines may be left out.
`...` in a line stands for anything; white space and figures with decimals are not compared.
A wrong exit code ends the run, since later commands need the earlier ones; a wrong line does not.
Either way all differences are printed at the end, and the exit code is 1.

Out of scope: the screenshots, and whether the prose around the blocks is true.
"""

from __future__ import annotations

import argparse
import os
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

FOLDER = Path(__file__).resolve().parent / "tutorial"
PAGES = ("first-audit.md", "rewritten-edits.md", "gate-in-ci.md")
"""In reading order: a page uses files that the pages before it wrote."""

BLOCK = re.compile(
    r"^(?:<!-- (?P<rule>[^\n]*?) -->\n+)?```(?P<language>\w+)[^\n]*\n(?P<text>.*?)^```$", re.DOTALL | re.MULTILINE
)
DECIMAL = re.compile(r"[-+]?\d+\.\d+(?:e[-+]?\d+)?")


class TutorialError(Exception):
    """A page is written wrongly, or what it shows is not what happens."""


@dataclass(frozen=True)
class Step:
    """One block to run, with what the page promises about it."""

    page: str
    line: int
    language: str
    text: str
    exit_code: int
    shown: tuple[str, ...]

    @property
    def place(self) -> str:
        """Return where the block stands, as `page:line`."""
        return f"docs/tutorial/{self.page}:{self.line}"


def steps_of(page: str, markdown: str) -> Iterator[Step]:
    """Yield the blocks of one page that are to be run.

    Raises TutorialError for a comment that is neither of the two rules.
    """
    blocks = list(BLOCK.finditer(markdown))
    for number, block in enumerate(blocks):
        if block["language"] not in ("sh", "python"):
            continue
        line = markdown.count("\n", 0, block.start("language")) + 1
        rule = block["rule"] or "exit 0"
        if re.fullmatch(r"not run: .+", rule):
            continue
        if not (match := re.fullmatch(r"exit (\d+)", rule)):
            raise TutorialError(f"{page}:{line}: '{rule}' is neither 'exit N' nor 'not run: why'")
        shown: tuple[str, ...] = ()
        if number + 1 < len(blocks) and blocks[number + 1]["language"] == "text":
            shown = tuple(row for row in blocks[number + 1]["text"].splitlines() if row.strip(" ."))
        yield Step(page, line, block["language"], block["text"], int(match[1]), shown)


def missing_line(shown: Sequence[str], output: str) -> str | None:
    """Return the first shown line that the output does not have after the lines before it, or None."""
    rows = iter([_plain(row) for row in output.splitlines()])
    for row in shown:
        pattern = re.compile(r"\s*.*\s*".join(re.escape(part.strip()) for part in _plain(row).split("...")))
        if not any(pattern.fullmatch(found) for found in rows):
            return row
    return None


def _plain(row: str) -> str:
    """Return a line without what differs between machines: figures with decimals, and runs of white space."""
    return " ".join(DECIMAL.sub("#", row).split())


def run(step: Step, folder: Path) -> str | None:
    """Run one block in a folder; return how its output differs from the page, or None.

    Raises TutorialError where the exit code is not the one that the page states.
    """
    shell = ["bash", "-e", "-o", "pipefail", "-c", step.text]
    command = [sys.executable, "-c", step.text] if step.language == "python" else shell
    variables = {name: value for name, value in os.environ.items() if name != "COLUMNS"}
    variables["PATH"] = os.pathsep.join([str(Path(sys.executable).parent), variables.get("PATH", "")])
    done = subprocess.run(
        command,
        cwd=folder,
        env=variables,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        encoding="utf-8",
        check=False,
    )
    if done.returncode != step.exit_code:
        raise TutorialError(
            f"{step.place}: exit code {done.returncode}, and the page says {step.exit_code}\n{step.text}\n{done.stdout}"
        )
    if (lost := missing_line(step.shown, done.stdout)) is not None:
        return f"{step.place}: the page shows a line that is not in the output:\n  {lost}\n\n{done.stdout}"
    return None


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the pages; return 0 where everything is as they say, else 1."""
    parser = argparse.ArgumentParser(description="Run the commands of docs/tutorial/ and compare their output.")
    parser.add_argument("--list", action="store_true", help="show the blocks, and run none")
    parser.add_argument("--keep", type=Path, help="a new folder to run in, which stays; otherwise a temporary one")
    options = parser.parse_args(arguments)
    differences: list[str] = []
    try:
        steps = [step for page in PAGES for step in steps_of(page, (FOLDER / page).read_text(encoding="utf-8"))]
        if options.list:
            sys.stdout.write("".join(f"{step.place} {step.language}, exit {step.exit_code}\n" for step in steps))
            return 0
        with tempfile.TemporaryDirectory() as temporary:
            folder = options.keep or Path(temporary, "tutorial")
            folder.mkdir(parents=True)
            for step in steps:
                begun = time.monotonic()
                if (difference := run(step, folder)) is not None:
                    differences.append(difference)
                outcome = "as shown" if difference is None else "DIFFERS"
                sys.stdout.write(f"{step.place}: {outcome}, {time.monotonic() - begun:.0f} s\n")
                sys.stdout.flush()
    except TutorialError as error:
        differences.append(str(error))
    sys.stderr.write("".join(f"\n{difference}\n" for difference in differences))
    return 1 if differences else 0


if __name__ == "__main__":
    sys.exit(main())
