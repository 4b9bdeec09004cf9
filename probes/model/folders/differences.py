"""What two models' folders say differently beside the weights: the tokenizer, the chat template and the configuration.

A model with the weights of another is not that model where its tokens have other ids, or its positions another base.
Order: the tokenizer by its parts, the settings that act on it, the chat template, then the configuration field by field.
Both are compared as they are parsed, so that another program's way to write the same thing is no difference.
Bookkeeping is left out: names, versions, dtypes, and what acts in training or on padding alone.
Out of scope: the weights (`checkpoint`, `research.tensor_change`), and settings of generation.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from functools import partial
from itertools import groupby
from typing import TYPE_CHECKING, Any

from ...errors import ModelError
from ...wording import first_line

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence
    from pathlib import Path

    from tokenizers import Tokenizer

__all__ = ["FolderDifference", "compare_folders"]

_CONFIG, _TOKENIZER, _SETTINGS, _TEMPLATE = (
    "config.json",
    "tokenizer.json",
    "tokenizer_config.json",
    "chat_template.jinja",
)

_IGNORED = frozenset(
    {
        "_attn_implementation",
        "_commit_hash",
        "_name_or_path",
        "architectures",
        "attn_implementation",
        "dtype",
        "gradient_checkpointing",
        "id2label",
        "initializer_range",
        "label2id",
        "name_or_path",
        "pad_token_id",
        "pretraining_tp",
        "problem_type",
        "torch_dtype",
        "torchscript",
        "transformers_version",
        "use_cache",
    }
)
_IGNORED_PREFIXES = ("output_", "return_", "chunk_size_", "_")
_IGNORED_SUFFIXES = ("dropout", "_pdrop", "_dropout_prob", "layerdrop")
_SWITCHES = ("add_bos_token", "add_eos_token", "add_prefix_space")
_SPECIAL_TOKENS = ("bos_token", "eos_token", "unk_token")
_COMPONENTS = ("normalizer", "pre_tokenizer", "decoder")
_LONGEST = 80
"""Characters of a value that a sentence shows."""


@dataclass(frozen=True, kw_only=True)
class FolderDifference:
    """One thing that differs between two models' folders."""

    file: str
    """Where it stands, such as ``tokenizer.json``."""
    field: str
    """Its name there; nested ones with dots."""
    base: str
    """Its value in the base, in short."""
    edited: str
    sentence: str
    """What differs, with both values; without a full stop."""


def compare_folders(base: Path, edited: Path) -> list[FolderDifference]:
    """Return each difference of tokenizer and configuration between two folders of models; empty where both are alike.

    Nothing is downloaded, and no code of a folder runs. Raises `ModelError` where a part cannot be read.
    """
    return [
        *_compare_tokenizers(base, edited),
        *_compare_settings(base, edited),
        *_compare_configurations(base, edited),
    ]


# --------------------------------------------------------------------------------------------------------- tokenizer


def _compare_tokenizers(base: Path, edited: Path) -> Iterator[FolderDifference]:
    read = partial(_read_tokenizer, as_loaded=not all((folder / _TOKENIZER).is_file() for folder in (base, edited)))
    old, new = read(base), read(edited)
    old_state, new_state = (json.loads(tokenizer.to_str()) for tokenizer in (old, new))
    if old_state == new_state:
        return
    old_ids, new_ids = (tokenizer.get_vocab(with_added_tokens=True) for tokenizer in (old, new))
    show = partial(_show_token, decoder=new_state["decoder"])
    yield from _compare_ids(old_ids, new_ids, show)
    yield from _compare_merges(*(_list_merges(state) for state in (old_state, new_state)))
    yield from _compare_scores(old_state["model"], new_state["model"])
    yield from _compare_added_tokens(old_state["added_tokens"], new_state["added_tokens"])
    yield from _compare_special_frame(old, new)
    rest = {name: (old_state[name], new_state[name]) for name in _COMPONENTS}
    for name in sorted((old_state["model"].keys() | new_state["model"].keys()) - {"vocab", "merges"}):
        rest[f"model.{name}"] = old_state["model"].get(name), new_state["model"].get(name)
    for name, (before, after) in rest.items():
        if before != after:
            yield _differ(_TOKENIZER, name, before, after, "tokenizer")


def _read_tokenizer(folder: Path, *, as_loaded: bool) -> Tokenizer:
    """Return the parsed ``tokenizer.json``; `as_loaded`, what transformers makes of the files there."""
    from tokenizers import Tokenizer

    try:
        if as_loaded:
            from transformers import AutoTokenizer

            loaded = AutoTokenizer.from_pretrained(folder, trust_remote_code=False, local_files_only=True)
            tokenizer: Tokenizer = loaded.backend_tokenizer
        else:
            tokenizer = Tokenizer.from_str((folder / _TOKENIZER).read_text(encoding="utf-8"))
    except Exception as error:  # the parser's own errors are of no narrower class, and only a file's text is parsed
        raise ModelError(
            f"The tokenizer in {str(folder)!r} cannot be read ({first_line(error)}); save it again with save_pretrained."
        ) from error
    # A setting of batches, which would stand around a single text as special tokens do.
    tokenizer.no_padding()
    return tokenizer


def _show_token(piece: str, decoder: Mapping[str, Any] | None) -> str:
    """Return a piece of the vocabulary as a text has it, as far as that can be told of a piece alone."""
    from tokenizers import decoders

    if "ByteLevel" in json.dumps(decoder):
        return repr(decoders.ByteLevel().decode([piece]))
    return repr(piece.replace("▁", " "))


def _compare_ids(
    base: Mapping[str, int], edited: Mapping[str, int], show: Callable[[str], str]
) -> Iterator[FolderDifference]:
    moved = sorted((edited[piece], piece) for piece in base.keys() & edited.keys() if base[piece] != edited[piece])
    if moved:
        index, piece = moved[0]
        before = base[piece]
        what = "token has another id" if len(moved) == 1 else "tokens have other ids"
        yield FolderDifference(
            file=_TOKENIZER,
            field="model.vocab",
            base=f"{show(piece)}: {before}",
            edited=f"{show(piece)}: {index}",
            sentence=f"{len(moved)} {what}, first {show(piece)}: {index} instead of {before}",
        )
    for lost, here, there in (
        (base.keys() - edited.keys(), "in the base's tokenizer alone", base),
        (edited.keys() - base.keys(), "in the edited tokenizer alone", edited),
    ):
        if lost:
            first = min(lost, key=lambda piece: there[piece])
            shown = f"{show(first)}: {there[first]}"
            yield FolderDifference(
                file=_TOKENIZER,
                field="model.vocab",
                base=shown if there is base else "none",
                edited=shown if there is edited else "none",
                sentence=f"{_count(len(lost), 'token')} {'is' if len(lost) == 1 else 'are'} {here}, first {shown}",
            )


def _list_merges(state: Mapping[str, Any]) -> list[str]:
    # Older programs write a merge as one text with a space.
    return [merge if isinstance(merge, str) else " ".join(merge) for merge in state["model"].get("merges") or []]


def _compare_merges(base: Sequence[str], edited: Sequence[str]) -> Iterator[FolderDifference]:
    if base == edited:
        return
    places = (index for index, pair in enumerate(zip(base, edited, strict=False)) if pair[0] != pair[1])
    place = next(places, min(len(base), len(edited)))
    before, after = (repr(merges[place]) if place < len(merges) else "none" for merges in (base, edited))
    yield FolderDifference(
        file=_TOKENIZER,
        field="model.merges",
        base=before,
        edited=after,
        sentence=f"{len(edited)} merges differ from the base's {len(base)}, first number {place}: {after} instead of {before}",
    )


def _compare_scores(base: Mapping[str, Any], edited: Mapping[str, Any]) -> Iterator[FolderDifference]:
    """Compare the scores of a unigram vocabulary; its ids are compared with all others."""
    if not (isinstance(base.get("vocab"), list) and isinstance(edited.get("vocab"), list)):
        return
    old, new = ({str(piece): score for piece, score in model["vocab"]} for model in (base, edited))
    other = [piece for piece in new if piece in old and old[piece] != new[piece]]
    if other:
        first = other[0]
        yield FolderDifference(
            file=_TOKENIZER,
            field="model.vocab",
            base=f"{first!r}: {old[first]:.12g}",
            edited=f"{first!r}: {new[first]:.12g}",
            sentence=f"{_count(len(other), 'token')} with another score, first {first!r}: "
            f"{new[first]:.12g} instead of {old[first]:.12g}",
        )


def _compare_added_tokens(
    base: Sequence[Mapping[str, Any]], edited: Sequence[Mapping[str, Any]]
) -> Iterator[FolderDifference]:
    """Compare how added tokens are found in a text; their ids are compared with all others."""
    old, new = (
        {str(token["content"]): {key: token[key] for key in sorted(token) if key != "id"} for token in tokens}
        for tokens in (base, edited)
    )
    for piece in sorted(old.keys() | new.keys()):
        before, after = old.get(piece), new.get(piece)
        if before is None or after is None:
            first, second = ("no" if token is None else "an" for token in (before, after))
            yield FolderDifference(
                file=_TOKENIZER,
                field=f"added_tokens.{piece}",
                base=f"{first} added token",
                edited=f"{second} added token",
                sentence=f"{_shorten(repr(piece))} is {second} added token of the edited tokenizer and {first} one of the base's",
            )
            continue
        for key in before:
            if before[key] != after.get(key):
                yield _differ(_TOKENIZER, f"added_tokens.{piece}.{key}", before[key], after.get(key), "tokenizer")


def _compare_special_frame(base: Tokenizer, edited: Tokenizer) -> Iterator[FolderDifference]:
    """Compare the special tokens that are put around every text."""
    before, after = map(_read_frame, (base, edited))
    if before == after:
        return
    yield FolderDifference(
        file=_TOKENIZER,
        field="post_processor",
        base=before,
        edited=after,
        sentence=f"The edited tokenizer reads a text as {after}, and the base's as {before}",
    )


def _read_frame(tokenizer: Tokenizer) -> str:
    """Return special tokens in quotes where they are put, and ``text`` for what stands between."""
    encoded = tokenizer.encode("a")
    pairs = zip(encoded.tokens, encoded.special_tokens_mask, strict=True)
    return _shorten(" ".join(piece for piece, _ in groupby(repr(token) if mask else "text" for token, mask in pairs)))


# ------------------------------------------------------------------------------------------- settings and template


def _compare_settings(base: Path, edited: Path) -> Iterator[FolderDifference]:
    old, new = (_read_object(folder / _SETTINGS) for folder in (base, edited))
    for name in _SWITCHES:
        # A switch that is not written is off.
        before, after = bool(old.get(name)), bool(new.get(name))
        if before != after:
            yield _differ(_SETTINGS, name, before, after, "tokenizer settings")
    for name in _SPECIAL_TOKENS:
        first, second = (_read_token(settings.get(name)) for settings in (old, new))
        if first != second:
            yield _differ(_SETTINGS, name, first, second, "tokenizer settings")
    yield from _compare_templates(*(_read_template(*pair) for pair in ((base, old), (edited, new))))


def _read_token(value: object) -> object:
    return value.get("content") if isinstance(value, dict) else value


def _read_template(folder: Path, settings: Mapping[str, Any]) -> str:
    path = folder / _TEMPLATE
    if path.is_file():
        try:
            return path.read_text(encoding="utf-8").rstrip("\n")
        except (OSError, UnicodeDecodeError) as error:
            raise _unreadable(path, error) from error
    template = settings.get("chat_template") or ""
    return (template if isinstance(template, str) else json.dumps(template, sort_keys=True)).rstrip("\n")


def _compare_templates(base: str, edited: str) -> Iterator[FolderDifference]:
    if base == edited:
        return
    if not (base and edited):
        before, after = ("a" if text else "none" for text in (base, edited))
        owner = "base" if base else "edited model"
        sentence = f"The {owner} alone has a chat template"
    else:
        place = next((i for i, pair in enumerate(zip(base, edited, strict=False)) if pair[0] != pair[1]), None)
        place = min(len(base), len(edited)) if place is None else place
        before, after = (_shorten(repr(text[place : place + 40])) for text in (base, edited))
        sentence = f"The chat template differs from character {place} on: {after} instead of {before}"
    yield FolderDifference(file=_TEMPLATE, field="chat_template", base=before, edited=after, sentence=sentence)


# ----------------------------------------------------------------------------------------------------- configuration


def _compare_configurations(base: Path, edited: Path) -> Iterator[FolderDifference]:
    old, new = (dict(_flatten(_read_configuration(folder))) for folder in (base, edited))
    for name in sorted(old.keys() | new.keys()):
        before, after = old.get(name), new.get(name)
        # 1.0 in one file and 1 in the other are the same number, and True is not 1.
        if before != after or isinstance(before, bool) != isinstance(after, bool):
            yield _differ(_CONFIG, name, before, after, "configuration")


def _read_configuration(folder: Path) -> dict[str, Any]:
    """Return the configuration as transformers reads it, so that a default is the same whether it is written or not."""
    from transformers import AutoConfig

    try:
        config: dict[str, Any] = AutoConfig.from_pretrained(
            folder, trust_remote_code=False, local_files_only=True
        ).to_dict()
    except Exception as error:  # a spoilt file raises anything, and nothing but transformers runs here
        raise ModelError(
            f"The model in {str(folder)!r} cannot be loaded ({first_line(error)}); save it again with save_pretrained."
        ) from error
    return config


def _flatten(values: Mapping[str, Any], path: str = "") -> Iterator[tuple[str, object]]:
    for name, value in values.items():
        if name in _IGNORED or name.startswith(_IGNORED_PREFIXES) or name.endswith(_IGNORED_SUFFIXES):
            continue
        if isinstance(value, dict):
            yield from _flatten(value, f"{path}{name}.")
        else:
            yield f"{path}{name}", value


# ------------------------------------------------------------------------------------------------------------- words


def _read_object(path: Path) -> dict[str, Any]:
    if not path.is_file():
        return {}
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise _unreadable(path, error) from error
    return content if isinstance(content, dict) else {}


def _unreadable(path: Path, error: Exception) -> ModelError:
    return ModelError(f"The file {str(path)!r} cannot be read ({first_line(error)}); save the model again.")


def _differ(file: str, field: str, base: object, edited: object, where: str) -> FolderDifference:
    """Return a difference of two values; the group that all rotary settings stand in is not named in the sentence."""
    before, after = _show_value(base), _show_value(edited)
    name = field.removeprefix("rope_parameters.")
    return FolderDifference(
        file=file,
        field=field,
        base=before,
        edited=after,
        sentence=f"{_shorten(name)} is {after} in the edited {where} and {before} in the base's",
    )


def _show_value(value: object) -> str:
    if isinstance(value, float):
        return f"{value:.12g}"
    if value is None:
        return "not set"
    return _shorten(json.dumps(value, ensure_ascii=False, sort_keys=True, default=str))


def _shorten(text: str) -> str:
    """Return the beginning of `text` on one line; a name out of a file may hold anything."""
    line = "".join(
        character if character.isprintable() else f"[U+{ord(character):04X}]" for character in text[:_LONGEST]
    )
    return line if len(text) <= _LONGEST else f"{line[: _LONGEST - 3]}..."


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}{'' if number == 1 else 's'}"
