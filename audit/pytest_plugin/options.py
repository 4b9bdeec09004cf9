"""Options of the pytest plugin and their ini equivalents, parsed where they come in.

Every session of pytest loads this module, so that it imports nothing heavy. The command line goes before the ini file;
its paths are relative to where pytest was called, those of the ini file to the file.
"""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from ...probes.model.dtypes import DTYPES
from ...probes.requests.request import SUFFIXES

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["BUILTIN_EDITS", "OPTIONS", "Settings", "add_options", "is_edits_file", "read_settings"]

BUILTIN_EDITS = "builtin"
_EDITS_FILES = tuple(f".edits{suffix}" for suffix in SUFFIXES)
_DEVICE = re.compile(r"auto|cpu|mps|cuda(:\d+)?")


class _IllegalValue(Exception):
    """The rule that a value breaks, in words."""


def _parse_natural(text: str, _: Path) -> int:
    if not re.fullmatch(r"[0-9]{1,10}", text) or int(text) >= 2**32:
        raise _IllegalValue("must be a whole number from 0 upwards, under 2^32")
    return int(text)


def _parse_dtype(text: str, _: Path) -> str:
    if text not in DTYPES:
        raise _IllegalValue(f"must be one of {', '.join(DTYPES)}")
    return text


def _parse_device(text: str, _: Path) -> str:
    if not _DEVICE.fullmatch(text):
        raise _IllegalValue("must be one of auto, cpu, mps, cuda, cuda:N")
    return text


def _parse_file(text: str, base: Path) -> Path:
    path = base / Path(text).expanduser()
    if not path.is_file():
        raise _IllegalValue("must be a file that is there")
    return path


def _parse_edits(text: str, base: Path) -> Path | None:
    try:
        return None if text == BUILTIN_EDITS else _parse_file(text, base).resolve()
    except _IllegalValue as wrong:
        raise _IllegalValue(f"{wrong}, or {BUILTIN_EDITS!r}") from None


def _parse_statistics(text: str, base: Path) -> str:
    try:
        return text if text == "identity" else str(_parse_file(text, base))
    except _IllegalValue as wrong:
        raise _IllegalValue(f"{wrong}, or 'identity'") from None


def _parse_folder(text: str, base: Path) -> Path:
    path = base / Path(text).expanduser()
    # Checked now, since a long session writes its log at its end; the folder is made with the log.
    nearest = next(place for place in (path, *path.absolute().parents) if place.exists())
    if not nearest.is_dir():
        raise _IllegalValue("must be a folder, or not be there yet and lie in one")
    if not os.access(nearest, os.W_OK | os.X_OK):
        raise _IllegalValue("must be a folder that can be written to")
    return path


def _parse_model(text: str, base: Path) -> str:
    """A folder of that name, or else whatever the model's loader makes of it."""
    folder = base / Path(text).expanduser()
    return str(folder) if folder.is_dir() else text


@dataclass(frozen=True, kw_only=True)
class Option:
    """One option: ``--editguard-NAME`` and ``editguard_NAME``."""

    name: str
    metavar: str
    help: str
    parse: Callable[[str, Path], Any]
    default: Any = None

    @property
    def flag(self) -> str:
        """Its name on the command line."""
        return f"--editguard-{self.name}"

    @property
    def ini(self) -> str:
        """Its name in the ini file."""
        return f"editguard_{self.name}"


EDITS = Option(
    name="edits",
    metavar="FILE",
    help="File of edits to test, whatever its name, or 'builtin'; may be given more than once.",
    parse=_parse_edits,
)
OPTIONS = (
    Option(
        name="model",
        metavar="REF",
        help="Embedded default, local folder or Hugging Face id.",
        parse=_parse_model,
        default="smollm2-135m",
    ),
    Option(
        name="policy",
        metavar="FILE",
        help="TOML file; else the table tool.editguard of the root's pyproject.toml.",
        parse=_parse_file,
    ),
    Option(
        name="layer",
        metavar="N",
        help="Layer to edit, from 0; chosen for the model unless given.",
        parse=_parse_natural,
    ),
    Option(
        name="editor",
        metavar="NAME",
        help="Editor for edits allowed as asked; default: the policy's.",
        parse=lambda text, _: text,
    ),
    Option(name="seed", metavar="N", help="The one seed of everything random.", parse=_parse_natural, default=0),
    Option(name="device", metavar="NAME", help="auto, cpu, mps, cuda, cuda:N.", parse=_parse_device, default="auto"),
    Option(
        name="dtype",
        metavar="NAME",
        help="auto, float32, bfloat16, float16.",
        parse=_parse_dtype,
        default="auto",
    ),
    Option(
        name="stats",
        metavar="FILE",
        help="Key statistics, or 'identity'; default: computed once and kept in the cache.",
        parse=_parse_statistics,
    ),
    Option(
        name="out",
        metavar="DIR",
        help="Folder for the log of the tested edits; without it nothing is written.",
        parse=_parse_folder,
    ),
)
"""All options with one value."""


@dataclass(frozen=True, kw_only=True)
class Settings:
    """The options as parsed; a file of edits that is None is the built-in suite."""

    edits: tuple[Path | None, ...]
    model: str
    policy: Path | None
    layer: int | None
    editor: str | None
    seed: int
    device: str
    dtype: str
    stats: str | None
    out: Path | None
    root: Path
    """pytest's root folder, in whose pyproject.toml a policy is looked for."""


def is_edits_file(path: Path) -> bool:
    """Whether the name says that the file holds edits."""
    return path.name.endswith(_EDITS_FILES)


def add_options(parser: pytest.Parser) -> None:
    """Declare all options, each with its ini equivalent."""
    group = parser.getgroup("editguard", "tests of model edits")
    group.addoption(EDITS.flag, action="append", default=[], metavar=EDITS.metavar, help=EDITS.help)
    parser.addini(EDITS.ini, f"{EDITS.help} One a line; used when no test is named.", type="linelist", default=[])
    for option in OPTIONS:
        group.addoption(option.flag, default=None, metavar=option.metavar, help=option.help)
        parser.addini(option.ini, option.help, default=None)


def read_settings(config: pytest.Config) -> Settings:
    """Return the options as parsed; raises `pytest.UsageError` that names the value and the legal ones."""
    values = {option.name: _read_value(config, option) for option in OPTIONS}
    return Settings(edits=_read_edits(config), root=config.rootpath, **values)


def _read_value(config: pytest.Config, option: Option) -> Any:
    given = config.getoption(option.flag)
    if given is not None:
        return _parse(option, option.flag, given, config.invocation_params.dir)
    written = config.getini(option.ini)
    return _parse(option, option.ini, str(written).strip(), _ini_folder(config)) if written else option.default


def _read_edits(config: pytest.Config) -> tuple[Path | None, ...]:
    given = [_parse(EDITS, EDITS.flag, text, config.invocation_params.dir) for text in config.getoption(EDITS.flag)]
    # As with testpaths: who names what to run wants that, and not what the project usually runs.
    if not given and config.args_source is not pytest.Config.ArgsSource.ARGS:
        given = [_parse(EDITS, EDITS.ini, text, _ini_folder(config)) for text in config.getini(EDITS.ini)]
    return tuple(dict.fromkeys(given))


def _ini_folder(config: pytest.Config) -> Path:
    return config.inipath.parent if config.inipath is not None else config.rootpath


def _parse(option: Option, name: str, text: str, base: Path) -> Any:
    try:
        return option.parse(text, base)
    except _IllegalValue as wrong:
        raise pytest.UsageError(f"editguard: {name} = {text!r} {wrong}; correct it.") from None
