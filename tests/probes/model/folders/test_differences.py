"""Tokenizers and configurations are compared as they are parsed, and each difference is a sentence with both values."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from editguard.probes.errors import ModelError
from editguard.probes.model.folders.differences import FolderDifference, compare_folders

from ....helpers.tiny_models import save_tiny_checkpoint
from ....helpers.tokenizer_kinds import ALL, byte_level

pytestmark = pytest.mark.tiny


@pytest.fixture(scope="session")
def saved(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("checkpoint")
    save_tiny_checkpoint(folder)
    return folder


@pytest.fixture
def edited(saved: Path, tmp_path: Path) -> Path:
    """A copy, to be changed."""
    return Path(shutil.copytree(saved, tmp_path / "edited"))


def change_file(path: Path, change: Callable[[dict[str, Any]], object]) -> None:
    content = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
    change(content)
    path.write_text(json.dumps(content), encoding="utf-8")


def compare_after(saved: Path, edited: Path, file: str, change: Callable[[dict[str, Any]], object]) -> FolderDifference:
    change_file(edited / file, change)
    (difference,) = compare_folders(saved, edited)
    return difference


def test_compare_folders_copy_has_no_difference(saved: Path, edited: Path) -> None:
    assert compare_folders(saved, edited) == []


def test_compare_folders_bookkeeping_is_no_difference(saved: Path, edited: Path) -> None:
    change_file(
        edited / "config.json",
        lambda config: config.update(
            _name_or_path="elsewhere",
            transformers_version="4.0.0",
            dtype="bfloat16",
            use_cache=False,
            architectures=["Other"],
            attention_dropout=0.5,
            pad_token_id=1,
        ),
    )
    assert compare_folders(saved, edited) == []


def test_compare_folders_older_writing_is_no_difference(saved: Path, edited: Path) -> None:
    def write_as_before(state: dict[str, Any]) -> None:
        state["model"]["merges"] = [" ".join(merge) for merge in state["model"]["merges"]]
        pad = {"pad_id": 0, "pad_type_id": 0, "pad_token": "<s>", "pad_to_multiple_of": None}
        state["padding"] = {"strategy": {"Fixed": 8}, "direction": "Right", **pad}
        state["truncation"] = {"direction": "Right", "max_length": 4, "strategy": "LongestFirst", "stride": 0}

    change_file(edited / "tokenizer.json", write_as_before)
    change_file(
        edited / "config.json", lambda config: config.update(rope_theta=config.pop("rope_parameters")["rope_theta"])
    )
    assert compare_folders(saved, edited) == []


@pytest.mark.parametrize(
    ("field", "value", "sentence"),
    [
        ("rms_norm_eps", 1e-3, r"rms_norm_eps is 0\.001 in the edited configuration and 1e-06 in the base's"),
        ("hidden_act", "gelu", """hidden_act is "gelu" in the edited configuration and "silu" in the base's"""),
        (
            "tie_word_embeddings",
            True,
            "tie_word_embeddings is true in the edited configuration and false in the base's",
        ),
    ],
)
def test_compare_folders_configuration_field_is_named_with_both_values(
    saved: Path, edited: Path, field: str, value: object, sentence: str
) -> None:
    difference = compare_after(saved, edited, "config.json", lambda config: config.update({field: value}))
    assert (difference.file, difference.field) == ("config.json", field)
    assert difference.sentence == sentence.replace("\\", "")


def test_compare_folders_rope_theta_is_named_whatever_its_place(saved: Path, edited: Path) -> None:
    difference = compare_after(
        saved, edited, "config.json", lambda config: config["rope_parameters"].update(rope_theta=500000.0)
    )
    assert difference.field == "rope_parameters.rope_theta"
    assert difference.sentence == "rope_theta is 500000 in the edited configuration and 10000 in the base's"


def test_compare_folders_moved_ids_are_counted_and_the_first_named(saved: Path, edited: Path) -> None:
    def swap(state: dict[str, Any]) -> None:
        ids = state["model"]["vocab"]
        ids["Ġis"], ids["Ġcity"] = ids["Ġcity"], ids["Ġis"]

    before = json.loads((saved / "tokenizer.json").read_text(encoding="utf-8"))["model"]["vocab"]
    difference = compare_after(saved, edited, "tokenizer.json", swap)
    low, high = sorted((before["Ġis"], before["Ġcity"]))
    first = " city" if before["Ġis"] == low else " is"
    assert difference.sentence == f"2 tokens have other ids, first {first!r}: {low} instead of {high}"


def test_compare_folders_merge_is_named(saved: Path, edited: Path) -> None:
    def swap(state: dict[str, Any]) -> None:
        merges = state["model"]["merges"]
        merges[1], merges[2] = merges[2], merges[1]

    difference = compare_after(saved, edited, "tokenizer.json", swap)
    assert difference.field == "model.merges"
    assert "first number 1: " in difference.sentence


def test_compare_folders_begin_of_text_token_is_named(saved: Path, tmp_path: Path) -> None:
    save_tiny_checkpoint(tmp_path / "edited", byte_level(bos=True))
    save_tiny_checkpoint(tmp_path / "base", byte_level())
    (difference,) = compare_folders(tmp_path / "base", tmp_path / "edited")
    assert difference.field == "post_processor"
    assert difference.sentence == "The edited tokenizer reads a text as '<s>' text, and the base's as text"


def test_compare_folders_switch_that_is_not_written_is_off(saved: Path, edited: Path) -> None:
    change_file(edited / "tokenizer_config.json", lambda settings: settings.update(add_bos_token=False))
    assert compare_folders(saved, edited) == []
    difference = compare_after(
        saved, edited, "tokenizer_config.json", lambda settings: settings.update(add_bos_token=True)
    )
    assert difference.sentence == "add_bos_token is true in the edited tokenizer settings and false in the base's"


def test_compare_folders_special_token_is_the_same_as_text_or_as_record(saved: Path, edited: Path) -> None:
    change_file(saved / "tokenizer_config.json", lambda settings: settings.update(eos_token="<s>"))
    change_file(edited / "tokenizer_config.json", lambda settings: settings.update(eos_token={"content": "<s>"}))
    assert compare_folders(saved, edited) == []
    difference = compare_after(
        saved, edited, "tokenizer_config.json", lambda settings: settings.update(eos_token="</s>")
    )
    change_file(saved / "tokenizer_config.json", lambda settings: settings.pop("eos_token"))
    assert difference.sentence == """eos_token is "</s>" in the edited tokenizer settings and "<s>" in the base's"""


def test_compare_folders_chat_template_is_the_same_in_a_file_or_in_the_settings(saved: Path, edited: Path) -> None:
    text = "{% for message in messages %}{{ message }}{% endfor %}"
    other = Path(shutil.copytree(edited, edited.parent / "other"))
    change_file(other / "tokenizer_config.json", lambda settings: settings.update(chat_template=text))
    (edited / "chat_template.jinja").write_text(f"{text}\n", encoding="utf-8")
    assert compare_folders(other, edited) == []
    (difference,) = compare_folders(saved, edited)
    assert difference.sentence == "The edited model alone has a chat template"
    (edited / "chat_template.jinja").write_text(text.replace("message }}", "letter }}"), encoding="utf-8")
    (difference,) = compare_folders(other, edited)
    assert difference.sentence.startswith("The chat template differs from character 32 on: 'letter")


def test_compare_folders_added_token_and_its_flags_are_named(saved: Path, edited: Path) -> None:
    difference = compare_after(
        saved, edited, "tokenizer.json", lambda state: state["added_tokens"][1].update(lstrip=True)
    )
    assert (
        difference.sentence
        == "added_tokens.<|im_start|>.lstrip is true in the edited tokenizer and false in the base's"
    )


def test_compare_folders_name_with_a_line_break_stays_on_one_line(saved: Path, edited: Path) -> None:
    difference = compare_after(saved, edited, "config.json", lambda config: config.update({"two\nlines": 1}))
    assert difference.sentence == "two[U+000A]lines is 1 in the edited configuration and not set in the base's"


@pytest.mark.parametrize("kind", ALL)
def test_compare_folders_every_kind_of_tokenizer_equals_its_copy_and_no_other(
    saved: Path, tmp_path: Path, kind: str
) -> None:
    for name in ("base", "edited"):
        shutil.copytree(saved, tmp_path / name)
        ALL[kind].save_pretrained(tmp_path / name)
    assert compare_folders(tmp_path / "base", tmp_path / "edited") == []
    replace = {"type": "Replace", "pattern": {"String": "q"}, "content": "k"}
    change_file(tmp_path / "edited" / "tokenizer.json", lambda state: state.update(normalizer=replace))
    assert [difference.field for difference in compare_folders(tmp_path / "base", tmp_path / "edited")] == [
        "normalizer"
    ]


@pytest.mark.parametrize("file", ["tokenizer.json", "config.json", "tokenizer_config.json"])
def test_compare_folders_unreadable_file_is_one_sentence(saved: Path, edited: Path, file: str) -> None:
    (edited / file).write_text("{", encoding="utf-8")
    with pytest.raises(ModelError) as caught:
        compare_folders(saved, edited)
    assert "\n" not in str(caught.value)
