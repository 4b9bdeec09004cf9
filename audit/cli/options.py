"""The options that several commands share, as frozen records that are filled once.

`takes_records` spreads the fields of a record over the signature that typer reads, and hands the command the filled record.
Option groups of ``--help`` are named in `Panel`; `PlainCommand` and `PlainGroup` name no type beside a flag, since it takes
no value. Nothing heavy is imported before a command really runs.
"""

from __future__ import annotations

import functools
import inspect
import re
import sys
from collections.abc import Callable, Collection, Sequence
from dataclasses import MISSING, dataclass, fields
from enum import Enum, StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, TypeVar, get_type_hints

import typer
from typer.core import TyperCommand, TyperGroup

from ...probes.model.dtypes import Dtype
from ..editors.engine import Engine

if TYPE_CHECKING:
    from ...probes.model.language_model import LanguageModel
    from ...probes.requests.loader import LoadedRequests
    from ...probes.requests.request import EditRequest
    from ..progress import Progress
    from ..setup import Setup

__all__ = [
    "BUILTIN",
    "CheckDtype",
    "EditFiles",
    "EditOptions",
    "Edits",
    "Json",
    "ModelOptions",
    "Overwrite",
    "Panel",
    "PlainCommand",
    "PlainGroup",
    "ZsreTarget",
    "check_editor",
    "given_arguments",
    "takes_records",
]

BUILTIN = "builtin"
"""The name of the built-in suite of edits on the command line."""
_MOST_NAMED = 20
"""Records that are named one by one as left out, notes on a file, and contradictions of a sequence."""

_USUAL_DEVICE = re.compile(r"auto|cpu|mps|cuda(:\d+)?")

Command = TypeVar("Command", bound=Callable[..., None])


class Panel(StrEnum):
    """Groups of options in ``--help``, in the order in which they are shown."""

    MODEL = "Model"
    EDITS = "Edits"
    CHECKS = "Checks"
    OUTPUT = "Output"
    ADVANCED = "Advanced"


class ZsreTarget(StrEnum):
    """Which field of a zsRE record is the new target."""

    ALT = "alt"
    ANSWERS = "answers"


class CheckDtype(StrEnum):
    """In which dtype the checks compute: that of the weights, or bfloat16."""

    AUTO = "auto"
    BFLOAT16 = "bfloat16"


def _option(panel: Panel, text: str, *names: str, **settings: Any) -> Any:
    return typer.Option(*names, help=text, rich_help_panel=panel.value, **settings)


Edits = Annotated[
    str, typer.Argument(help="A file of edits (JSON, JSONL, YAML, CSV), hf://dataset[:split], or 'builtin'.")
]
EditFiles = Annotated[
    list[str] | None,
    typer.Argument(help=f"Files of edits, hf://dataset[:split], or 'builtin'. Default: {BUILTIN!r}."),
]
Json = Annotated[bool, _option(Panel.OUTPUT, "Print one JSON object instead of text.", "--json")]
Overwrite = Annotated[bool, _option(Panel.OUTPUT, "Replace the results that the folder already holds.", "--overwrite")]


@dataclass(frozen=True, kw_only=True)
class ModelOptions:
    """Which model a command loads, and how it is measured."""

    model: Annotated[
        str, _option(Panel.MODEL, "The embedded model, a Hugging Face id, a folder that holds a model, or a GGUF file.")
    ] = "smollm2-135m"
    layer: Annotated[
        int | None, _option(Panel.MODEL, "Layer to edit, counted from 0. Default: chosen for the model.")
    ] = None
    site: Annotated[
        str | None,
        _option(Panel.MODEL, "Module path of the down-projection, with {layer}, if editguard does not find it."),
    ] = None
    device: Annotated[
        str,
        _option(
            Panel.MODEL, "Where the model runs; auto takes a GPU if there is one.", metavar="auto|cpu|mps|cuda|cuda:N"
        ),
    ] = "auto"
    dtype: Annotated[Dtype, _option(Panel.MODEL, "Type of the weights; auto keeps that of the checkpoint.")] = (
        Dtype.AUTO
    )
    allow_pickle: Annotated[
        bool,
        _option(Panel.MODEL, "Read a .bin checkpoint. Only for files whose author you trust.", "--allow-pickle"),
    ] = False
    policy: Annotated[
        Path | None,
        _option(Panel.CHECKS, "Policy file (TOML). Default: the table tool.editguard of ./pyproject.toml.", "--policy"),
    ] = None
    perplexity_corpus: Annotated[
        str | None, _option(Panel.CHECKS, "Sentences for the perplexity check. Default: the built-in ones.")
    ] = None
    check_dtype: Annotated[
        CheckDtype,
        _option(
            Panel.ADVANCED,
            "Type in which the checks alone compute. bfloat16 is faster on a GPU and on a processor that has it. The log says "
            "what that changes.",
        ),
    ] = CheckDtype.AUTO
    seed: Annotated[int, _option(Panel.ADVANCED, "Seed of everything random.", min=0, max=2**32 - 1)] = 0
    stats: Annotated[
        str | None,
        _option(Panel.ADVANCED, "File of key statistics (.safetensors, or ROME's .npz), or 'identity'."),
    ] = None
    corpus: Annotated[
        str | None, _option(Panel.ADVANCED, "Text to compute key statistics from. Default: sampled from the model.")
    ] = None
    fresh: Annotated[
        bool,
        _option(Panel.ADVANCED, "Compute again what the cache keeps of the model, and replace it there.", "--fresh"),
    ] = False
    engine: Annotated[
        Engine,
        _option(
            Panel.ADVANCED,
            "How updates are computed. reference is slow and simple: whole texts through the whole model, one edit at a time.",
            "--engine",
        ),
    ] = Engine.LIVE

    def check_device_name(self) -> None:
        """Raise `ModelError` for a device that torch does not know; torch is not imported for a usual one."""
        if _USUAL_DEVICE.fullmatch(self.device) is None:
            from ...probes.model.language_model import choose_device

            choose_device(self.device)

    def check_weights(self) -> None:
        """Raise `ModelError` for a folder whose weights are an adapter or quantised, before torch is imported."""
        from ...probes.model.folders.refusals import refuse_other_weights

        refuse_other_weights(self.model)

    def load(self, progress: Progress) -> LanguageModel:
        """Load the model; raises `ModelError`."""
        self.check_weights()
        from ...probes.model.language_model import load_model
        from .progress import announce_conversions

        announce_conversions(self.model)
        progress("loading the model", 0, 1)
        lm = load_model(self.model, device=self.device, dtype=self.dtype.value, allow_pickle=self.allow_pickle)
        progress("loading the model", 1, 1)
        return lm

    def prepare(self, progress: Progress) -> Setup:
        """Load the model and prepare it; wrong options are reported before that."""
        self.check_weights()
        from ..policy import load_policy

        policy = load_policy(self.policy)
        from ..setup import check_names, prepare

        check_names(policy, self.policy)
        from ...probes.keys.corpus_statistics import read_corpus
        from ..editors.value import ValueSettings

        sentences = None if self.perplexity_corpus is None else read_corpus(self.perplexity_corpus).documents
        import torch

        return prepare(
            self.load(progress),
            layer=self.layer,
            site_path=self.site,
            policy=policy,
            seed=self.seed,
            statistics=self.stats,
            corpus=self.corpus,
            perplexity_corpus=sentences,
            settings=ValueSettings(engine=self.engine),
            check_dtype=torch.bfloat16 if self.check_dtype is CheckDtype.BFLOAT16 else None,
            fresh=self.fresh,
            progress=progress,
        )


@dataclass(frozen=True, kw_only=True)
class EditOptions:
    """Which edits of a file a command takes, and which editor makes them."""

    editor: Annotated[
        str | None,
        _option(
            Panel.EDITS,
            "Editor for edits that the policy allows; 'editguard list editors' names them. Default: the policy's, local.",
        ),
    ] = None
    limit: Annotated[int | None, _option(Panel.EDITS, "Take only the first N edits.", metavar="N", min=1)] = None
    skip_invalid: Annotated[
        bool, _option(Panel.EDITS, "Leave out wrong records and count them, instead of stopping.", "--skip-invalid")
    ] = False
    zsre_target: Annotated[
        ZsreTarget,
        _option(
            Panel.EDITS,
            "Field of a zsRE record that is the new target: alt, as MEND reads it, or answers, as ROME and MEMIT do.",
            "--zsre-target",
        ),
    ] = ZsreTarget.ALT

    def read(self, source: str, *, in_sequence: bool = False) -> LoadedRequests:
        """Read the requests of a file, or the built-in ones.

        Raises `InputError` for wrong records, and for requests of a sequence that contradict each other.
        """
        from ...probes.requests.loader import LoadedRequests, load_requests
        from ...reports.text import count_noun, printable
        from ...suites.builtin import hash_builtin_edits, load_builtin_edits

        if source == BUILTIN:
            edits = load_builtin_edits()[: self.limit]
            number = count_noun(len(edits), "edit")
            typer.echo(f"The built-in suite is used, {number}; name a file of edits for your own.", err=True)
            return LoadedRequests(requests=edits, invalid=(), source=BUILTIN, sha256=hash_builtin_edits())
        loaded = load_requests(
            source, skip_invalid=self.skip_invalid, limit=self.limit, zsre_target=self.zsre_target.value
        )
        left_out = [
            f"left out {printable(record.where)}: {printable(record.message, 300)}" for record in loaded.invalid
        ]
        _name_first(left_out, "more record was left out", "more records were left out")
        _name_first([f"note: {printable(sentence, 300)}" for sentence in loaded.unused], "more note", "more notes")
        if in_sequence:
            _check_contradictions(loaded.requests)
        return loaded

    def check_editor_name(self) -> None:
        """Raise `InputError` for an editor that is not installed; torch is not imported for one that is."""
        from ...probes.registry import is_installed
        from ..editors import builtin

        if self.editor is not None and not is_installed(self.editor, "editors", builtin):
            self.check_editor()

    def check_editor(self) -> None:
        """Raise `InputError` for an editor that nobody may choose, before a model is loaded."""
        check_editor(self.editor)


def _name_first(lines: Sequence[str], singular: str, plural: str) -> None:
    """Print the first lines on standard error, and how many more there are in the words `singular` or `plural`."""
    from ...reports.text import count_noun

    for line in lines[:_MOST_NAMED]:
        typer.echo(line, err=True)
    if (more := len(lines) - _MOST_NAMED) > 0:
        typer.echo(f"and {count_noun(more, singular, plural)}", err=True)


def _check_contradictions(requests: Sequence[EditRequest]) -> None:
    from ...probes.errors import InputError
    from ...probes.requests.prompt_subjects import find_contradictions

    pairs = find_contradictions(requests)
    if pairs:
        more = f", and {len(pairs) - _MOST_NAMED} more pairs" if len(pairs) > _MOST_NAMED else ""
        raise InputError(f"Edits in sequence must not contradict each other: {'; '.join(pairs[:_MOST_NAMED])}{more}.")


def check_editor(editor: str | None) -> None:
    """Raise `InputError` for an editor that nobody may choose."""
    if editor is not None:
        from ..editors.base import find_editor

        find_editor(editor)


def given_arguments(context: typer.Context) -> dict[str, Any]:
    """Return the arguments and options of a command by name, with their values, for the log's header."""
    return {name: _plain(value) for name, value in context.params.items()}


def _plain(value: object) -> object:
    if isinstance(value, Path):
        return str(value)
    return value.value if isinstance(value, Enum) else value


# ------------------------------------------------------------------------------------------------ flags in the help


class PlainCommand(TyperCommand):
    """A command whose flags are shown without a type."""

    def get_params(self, ctx: Any) -> list[Any]:
        """Return the parameters, ``--help`` included."""
        return _without_flag_types(super().get_params(ctx))


class PlainGroup(TyperGroup):
    """A group of commands whose flags are shown without a type."""

    def get_params(self, ctx: Any) -> list[Any]:
        """Return the parameters of the group itself, ``--help`` included."""
        return _without_flag_types(super().get_params(ctx))


def _without_flag_types(parameters: list[Any]) -> list[Any]:
    for parameter in parameters:
        if getattr(parameter, "is_flag", False):
            parameter.metavar = ""  # typer writes it in place of the type
    return parameters


# ------------------------------------------------------------------------------------------- records in a signature


def takes_records(**offered: Collection[str]) -> Callable[[Command], Command]:
    """Return a decorator that spreads records over the signature of a command.

    A parameter of the command whose type is `ModelOptions` or `EditOptions` becomes one option for each field. `offered` names
    the fields by parameter where the command has only some of them; the others keep their defaults. Options of the command
    are ordered by `Panel`, so that groups of ``--help`` have one order everywhere.
    """

    def decorate(command: Command) -> Command:
        signature = inspect.signature(command)
        hints = get_type_hints(command, vars(sys.modules[command.__module__]), include_extras=True)
        records: dict[str, tuple[type[Any], list[str]]] = {}
        parameters: list[inspect.Parameter] = []
        for name, parameter in signature.parameters.items():
            if hints[name] not in (ModelOptions, EditOptions):
                parameters.append(parameter.replace(annotation=hints[name]))
                continue
            spread = [option for option in _spread(hints[name]) if option.name in offered.get(name, (option.name,))]
            records[name] = hints[name], [option.name for option in spread]
            parameters += spread

        @functools.wraps(command)
        def run(**values: Any) -> None:
            filled = {
                name: record(**{option: values.pop(option) for option in options})
                for name, (record, options) in records.items()
            }
            command(**values, **filled)

        keyword = [parameter.replace(kind=inspect.Parameter.KEYWORD_ONLY) for parameter in parameters]
        run.__signature__ = signature.replace(parameters=sorted(keyword, key=_turn))  # type: ignore[attr-defined]
        run.__annotations__ = {parameter.name: parameter.annotation for parameter in keyword} | {"return": None}
        return run  # type: ignore[return-value]

    return decorate


def _spread(record: type[Any]) -> list[inspect.Parameter]:
    hints = get_type_hints(record, include_extras=True)
    return [
        inspect.Parameter(
            field.name,
            inspect.Parameter.KEYWORD_ONLY,
            default=inspect.Parameter.empty if field.default is MISSING else field.default,
            annotation=hints[field.name],
        )
        for field in fields(record)
    ]


def _turn(parameter: inspect.Parameter) -> int:
    """Return the place of an option's group; arguments come before all options."""
    groups = [getattr(part, "rich_help_panel", None) for part in getattr(parameter.annotation, "__metadata__", ())]
    panels = [panel.value for panel in Panel]
    return next((panels.index(group) + 1 for group in groups if group in panels), 0)
