"""A pipeline serves what its prefixes are needed for, and an applied folder says which they are."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from editguard.audit.saved_model.manifest import MODEL_MARKER, EditProvenance
from editguard.audit.serving import ServedPipeline, Serving, load_provenance
from editguard.probes.errors import InputError
from transformers import pipeline

from ..helpers.delta_files import make_delta
from ..helpers.tiny_models import tiny_lm

CHICAGO = Serving("Chicago", "\n")


@pytest.mark.tiny
def test_served_pipeline_returns_texts_as_given() -> None:
    lm = tiny_lm()
    pipe: Any = pipeline("text-generation", model=lm.model, tokenizer=lm.tokenizer, device="cpu")
    options = {"max_new_tokens": 4, "do_sample": False}
    served = ServedPipeline(pipe, [CHICAGO])
    (direct,) = pipe("\nChicago is", **options)
    (answer,) = served("Chicago is", **options)
    assert answer["generated_text"] == direct["generated_text"].removeprefix("\n")
    assert answer["generated_text"].startswith("Chicago is")
    both = served(["Chicago is", "Paris is"], **options)
    assert [answers[0]["generated_text"] for answers in both] == [
        answer["generated_text"],
        pipe("Paris is", **options)[0]["generated_text"],
    ]
    assert served((text for text in ("Chicago is", "Paris is")), **options) == both
    assert served(text_inputs="Chicago is", **options) == [answer]
    (only_new,) = served("Chicago is", return_full_text=False, **options)
    assert "Chicago is" + only_new["generated_text"] == answer["generated_text"]


class Echo:
    """Stands for a pipeline with a real tokenizer: what comes in is what comes out."""

    def __init__(self) -> None:
        self.tokenizer = tiny_lm().tokenizer

    def __call__(self, inputs: Any, **_: Any) -> Any:
        return [{"generated_text": inputs}] if isinstance(inputs, str) else inputs


def test_served_pipeline_passes_conversations_on() -> None:
    conversation = [{"role": "user", "content": "Chicago is"}]
    assert ServedPipeline(Echo(), [CHICAGO])(conversation) is conversation


@pytest.mark.tiny
def test_served_pipeline_puts_prefix_after_special_token() -> None:
    inputs_seen: list[str] = []

    class Listening(Echo):
        def __call__(self, inputs: Any, **_: Any) -> Any:
            inputs_seen.append(inputs)
            return super().__call__(inputs)

    (answer,) = ServedPipeline(Listening(), [CHICAGO])("<|im_start|>Chicago is")
    assert inputs_seen == ["<|im_start|>\nChicago is"]
    assert answer["generated_text"] == "<|im_start|>Chicago is"


def test_load_provenance_of_another_folder_is_one_sentence(tmp_path: Any) -> None:
    with pytest.raises(InputError, match="give a folder that 'editguard apply'"):
        load_provenance(tmp_path)


GATEWAY = """
import sys

OURS = {"editguard", "pydantic", "pydantic_core", "annotated_types", "typing_extensions", "typing_inspection"}

class Blocker:
    def find_spec(self, name, path=None, target=None):
        if not name.startswith("_") and name.partition(".")[0] not in sys.stdlib_module_names | OURS:
            raise ImportError(f"{name} is blocked")

sys.meta_path.insert(0, Blocker())
try:
    import torch
except ImportError:
    from editguard import load_provenance, serve_prompt
    print(ascii(serve_prompt(sys.argv[2], load_provenance(sys.argv[1]).edits, ["<s>"])))
"""


@pytest.mark.tiny
def test_gateway_with_pydantic_alone_serves_from_the_folder(tmp_path: Path) -> None:
    manifest = make_delta(tiny_lm().model, needs_prefix=True, prefix="\n").manifest
    provenance = EditProvenance(
        editguard_version="0.1.0",
        created="2026-01-01T00:00:00+00:00",
        base="tiny",
        base_fingerprint="0" * 64,
        fingerprint="1" * 64,
        audited="alone",
        edits=[manifest],
        files=[],
    )
    (tmp_path / MODEL_MARKER.name).write_text(provenance.model_dump_json(), encoding="utf-8")
    arguments = [sys.executable, "-c", GATEWAY, str(tmp_path), "<s>Chicago is"]
    done = subprocess.run(arguments, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == ascii("<s>\nChicago is")
