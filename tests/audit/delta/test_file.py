"""A delta file is believed only whole and untouched."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from editguard.audit.delta.file import Delta, encode, read_delta
from editguard.probes.errors import InputError
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import save

from ...helpers.delta_files import change_left, make_delta
from ...helpers.examples import count_examples
from ...helpers.tiny_models import tiny_model

pytestmark = pytest.mark.tiny


@pytest.fixture(scope="module")
def delta() -> Delta:
    return make_delta(tiny_model("llama"))


@settings(max_examples=count_examples(60), deadline=None)
@given(data=st.data())
def test_read_delta_cut_or_changed_file_is_one_sentence(
    data: st.DataObject, delta: Delta, tmp_path_factory: pytest.TempPathFactory
) -> None:
    content = bytearray(encode(delta))
    if data.draw(st.booleans()):
        content = content[: data.draw(st.integers(0, len(content) - 1))]
    else:
        place = data.draw(st.integers(0, len(content) - 1))
        content[place] ^= 1 << data.draw(st.integers(0, 7))
    path = tmp_path_factory.getbasetemp() / "changed.delta.safetensors"
    path.write_bytes(content)
    with pytest.raises(InputError, match="cannot be applied"):
        read_delta(path)


def test_read_delta_wrong_factors_are_refused(delta: Delta, tmp_path: Path) -> None:
    path = tmp_path / "broken"
    for broken, why in (
        (change_left(delta, lambda left: left * float("nan")), "NaN"),
        (change_left(delta, lambda left: left.float()), "float32"),
        (change_left(delta, lambda left: left[None]), "must be float64 with 1 column"),
        (change_left(delta, lambda left: left.repeat(1, 2)), "must be float64 with 1 column"),
    ):
        path.write_bytes(encode(broken))
        with pytest.raises(InputError, match=why):
            read_delta(path)


def test_read_delta_other_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="cannot be applied"):
        read_delta(tmp_path / "nothing")
    with pytest.raises(InputError, match="cannot be applied"):
        read_delta(tmp_path)
    (tmp_path / "plain").write_bytes(save({"left": torch.ones(2)}))
    with pytest.raises(InputError, match="does not name the format"):
        read_delta(tmp_path / "plain")


def test_read_delta_manifest_without_needed_prefix_is_refused(delta: Delta) -> None:
    with pytest.raises(ValueError, match="prefix must be given"):
        make_delta(tiny_model("llama"), needs_prefix=True)
    assert make_delta(tiny_model("llama"), needs_prefix=True, prefix="\n").manifest.prefix == "\n"
