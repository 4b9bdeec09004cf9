"""A page as a browser has it: its elements after the scripts ran, and what would come out of a printer."""

from __future__ import annotations

import re
import shutil
import subprocess
import zlib
from pathlib import Path

import pytest

BROWSER = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)

needs_browser = pytest.mark.skipif(BROWSER is None, reason="no Chromium is installed")

_QUIET = ("--headless", "--no-sandbox", "--disable-gpu", "--no-first-run", "--disable-background-networking")
_ALONE = ("--disable-component-update", "--disable-sync", "--host-resolver-rules=MAP * ~NOTFOUND")
_POLICY = re.compile(r'<meta http-equiv="Content-Security-Policy"[^>]*>')


def browsed(address: str, folder: Path, *arguments: str) -> str:
    """Return what the browser prints at `address`; nothing may have been said on its console."""
    assert BROWSER is not None
    done = subprocess.run(
        [
            BROWSER,
            *_QUIET,
            *_ALONE,
            f"--user-data-dir={folder / 'profile'}",
            "--enable-logging=stderr",
            *arguments,
            address,
        ],
        capture_output=True,
        text=True,
        timeout=240,
        check=True,
    )
    assert "CONSOLE" not in done.stderr
    return done.stdout


def dumped(address: str, folder: Path, *arguments: str, wait: int = 8000) -> str:
    """Return the page at `address` after its scripts ran for `wait` ms of the browser's own time; 0: until it has loaded."""
    budget = [f"--virtual-time-budget={wait}"] if wait else []
    return browsed(address, folder, *budget, "--dump-dom", *arguments)


def printed(address: str, folder: Path) -> bytes:
    """Return what the page at `address` draws on paper: the content of the PDF's streams."""
    file = folder / "printed.pdf"
    browsed(address, folder, f"--print-to-pdf={file}")
    packed = re.findall(rb"/FlateDecode[^>]*>>\s*stream\r?\n(.*?)endstream", file.read_bytes(), re.DOTALL)
    return b"".join(zlib.decompressobj().decompress(one) for one in packed)


def with_script(source: str, script: str) -> str:
    """Return a copy of a page that runs `script` after its own; only a copy may, the page's policy forbids it."""
    head, body, end = _POLICY.sub("", source, count=1).rpartition("</body>")
    return f"{head}<script>{script}</script>{body}{end}"


def root(shown: str) -> str:
    """Return the tag of the page's root element."""
    return shown[shown.index("<html") :].split(">", 1)[0]
