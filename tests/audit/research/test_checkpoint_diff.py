"""A comparison finds what changed, says what it does, and holds one tensor of each side at a time."""

from __future__ import annotations

import html
import json
import shutil
from pathlib import Path

import pytest
import torch
from editguard.audit.cli.research import print_diff
from editguard.audit.delta.apply import apply_delta
from editguard.audit.research.checkpoint_diff import DIFF, PAGE, run_diff
from editguard.audit.research.subject_search import FEWEST_CANDIDATES
from editguard.probes.model.language_model import load_model
from editguard.probes.requests.request import EditRequest
from editguard.reports.html.diff_page import DiffFile

from ...helpers.command_line import RunCommand, assert_one_sentence, messages
from ...helpers.delta_files import make_delta
from ...helpers.gguf_files import write_llama
from ...helpers.tiny_models import save_tiny_checkpoint, tiny_lm
from ...helpers.tiny_setups import lenient

pytestmark = pytest.mark.tiny


@pytest.fixture
def edited(tmp_path: Path) -> Path:
    """The checkpoint of `saved`, with one edit."""
    lm = tiny_lm()
    with apply_delta(lm.model, make_delta(lm.model)) as applied:
        applied.commit()
    lm.model.save_pretrained(tmp_path / "edited")
    lm.tokenizer.save_pretrained(tmp_path / "edited")
    return tmp_path / "edited"


def test_run_diff_one_edit_is_one_change_of_rank_one(checkpoint: Path, edited: Path, tmp_path: Path) -> None:
    comparison = run_diff(str(checkpoint), str(edited), tmp_path, policy=lenient(), device="cpu")
    (change,) = comparison.changes
    assert change.name == "model.layers.0.mlp.down_proj.weight"
    assert (change.status, change.rank, change.finite) == ("changed", "one", True)
    assert change.effective_rank == pytest.approx(1, abs=0.01)
    assert comparison.unchanged == comparison.tensors - 1
    assert comparison.behaviour.ratio is not None
    assert DiffFile.model_validate_json((tmp_path / DIFF).read_text()) == comparison
    assert "model.layers.0.mlp.down_proj.weight" in (tmp_path / PAGE).read_text()
    same = run_diff(str(checkpoint), str(checkpoint), tmp_path, policy=lenient(), device="cpu")
    assert (same.changes, same.behaviour.ratio) == ([], 1.0)
    assert (same.not_searched, same.objects_not_searched) == ("No down-projection changed.",) * 2


def test_diff_broken_model_fails_and_says_why(place: Path, checkpoint: Path, edited: Path, command: RunCommand) -> None:
    ran = command("diff", checkpoint, edited, "--policy", "policy.toml", "--out", "fine", "--json")
    comparison = json.loads(ran.out)
    assert (ran.code, comparison["verdict"]) == (
        1 if comparison["reasons"] else 0,
        "fail" if comparison["reasons"] else "pass",
    )
    lm = tiny_lm()
    lm.model.model.layers[0].mlp.down_proj.weight.data[0, 0] = float("nan")
    lm.model.save_pretrained(edited)
    ran = command("diff", checkpoint, edited, "--policy", "policy.toml", "--out", "broken")
    assert ran.code == 1
    assert "holds NaN or Inf" in ran.out
    assert "perplexity could not be measured" in ran.out
    assert_one_sentence(command("diff", checkpoint, edited, "--out", "broken"), "already holds a comparison")
    assert_one_sentence(command("diff", checkpoint, place, "--out", "other"), "has no weights")
    assert_one_sentence(
        command("diff", checkpoint, edited, "--out", "other", "--subjects", "lost.txt"), "'lost.txt' cannot be read"
    )


def test_diff_unusable_search_is_refused_before_a_model_is_loaded(place: Path, command: RunCommand) -> None:
    names = [f"City{number}" for number in range(FEWEST_CANDIDATES - 1)]
    (place / "few.txt").write_text("\n".join([*names, *names]), encoding="utf-8")
    (place / "none.txt").write_text("\n", encoding="utf-8")
    (place / "enough.txt").write_text("\n".join([*names, "Town"]), encoding="utf-8")
    for subjects, more, message in (
        ("few.txt", (), f"at least {FEWEST_CANDIDATES} different subjects"),
        ("none.txt", (), "0 were given"),
        ("enough.txt", ("--stats", "lost.safetensors"), "no file of key statistics"),
        ("enough.txt", ("--corpus", "lost.txt"), "'lost.txt' cannot be read"),
        ("enough.txt", (), "The checkpoint './no'"),
    ):
        assert_one_sentence(command("diff", "./no", "./no", "--out", "out", "--subjects", subjects, *more), message)
        assert not list(place.glob("out/*"))
    assert f"At least {FEWEST_CANDIDATES}" in " ".join(command("diff", "--help").out.split())


@pytest.mark.parametrize("inside", [True, False], ids=["measured", "not located"])
def test_run_diff_failed_search_is_reported_and_judges_nothing(
    checkpoint: Path, edited: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], inside: bool
) -> None:
    names = [f"Lyon{number}" for number in range(FEWEST_CANDIDATES)]
    requests = [EditRequest(name, name, f"{name} is" if inside else "Paris is", "") for name in names]
    comparison = run_diff(
        str(checkpoint), str(edited), tmp_path, policy=lenient(), device="cpu", subjects=requests, statistics="identity"
    )
    (search,) = comparison.searches
    assert (search.error is None, search.p_value is not None, comparison.not_searched) == (inside, inside, None)
    plain = run_diff(str(checkpoint), str(edited), tmp_path, policy=lenient(), device="cpu")
    assert (comparison.verdict, comparison.reasons) == (plain.verdict, plain.reasons)
    print_diff(comparison, tmp_path / PAGE)
    shown = capsys.readouterr().out
    assert ("no candidate of 20 stands out" in shown, "Of the candidates 0 can be located" in shown) == (
        inside,
        not inside,
    )
    assert f"subjects not searched: {plain.not_searched}" not in shown
    print_diff(plain, tmp_path / PAGE)
    assert "subjects not searched: No candidates were given; add --subjects." in capsys.readouterr().out
    assert plain.objects_not_searched is None


# What is no change is said first


def cast_copy(checkpoint: Path, folder: Path, dtype: torch.dtype) -> Path:
    """Save the model of `checkpoint` in `dtype`, as a tool does that loads and saves it."""
    lm = tiny_lm(dtype=dtype)
    lm.model.save_pretrained(folder)
    lm.tokenizer.save_pretrained(folder)
    return folder


def saved_with_edit(folder: Path, dtype: torch.dtype, scale: float = 1.0) -> Path:
    """Save the model of `checkpoint` in `dtype`, after an edit of rank one in float32 whose size is `scale`."""
    lm = tiny_lm()
    weight = lm.model.model.layers[0].mlp.down_proj.weight.data
    draw = torch.Generator().manual_seed(0)
    update = torch.outer(torch.randn(len(weight), generator=draw), torch.randn(weight.shape[1], generator=draw))
    weight += update * scale * weight.norm() / update.norm()
    lm.model.to(dtype).save_pretrained(folder)
    lm.tokenizer.save_pretrained(folder)
    return folder


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_diff_own_cast_of_the_base_is_no_change(
    place: Path, checkpoint: Path, command: RunCommand, dtype: torch.dtype
) -> None:
    cast = cast_copy(checkpoint, place / "cast", dtype)
    ran = command("diff", checkpoint, cast, "--policy", "policy.toml", "--out", "out")
    comparison = DiffFile.model_validate_json((place / "out" / DIFF).read_text())
    name = str(dtype).removeprefix("torch.")
    first, counts, *rest = ran.out.splitlines()
    assert first == f"This is the base, and no tensor differs but for a cast to {name}."
    assert f"0 changed, {comparison.tensors} cast, of {comparison.tensors} tensors" in counts
    assert not [line for line in rest if "down_proj" in line]
    assert comparison.state == "cast"
    assert "down_proj" not in (place / "out" / PAGE).read_text()
    required = command("diff", checkpoint, cast, "--policy", "policy.toml", "--out", "again", "--require-change")
    assert (required.code, first in required.out) == (1, True)


def test_run_diff_edit_in_a_cast_save_stands_out(checkpoint: Path, tmp_path: Path) -> None:
    folder = saved_with_edit(tmp_path / "cast", torch.bfloat16)
    comparison = run_diff(str(checkpoint), str(folder), tmp_path, policy=lenient(), device="cpu", require_change=True)
    assert [change.name for change in comparison.list_shown()] == ["model.layers.0.mlp.down_proj.weight"]
    assert (comparison.changed, comparison.cast) == (1, comparison.tensors - 1)
    assert (comparison.kind, comparison.kind_sentence) == (
        "rank one",
        "one change of rank one in layer 0's down-projection (ROME-like)",
    )
    assert comparison.summary not in comparison.reasons


def test_diff_unchanged_copy_is_said_first_and_fails_on_demand(
    place: Path, checkpoint: Path, command: RunCommand
) -> None:
    copy = shutil.copytree(checkpoint, place / "copy")
    ran = command("diff", checkpoint, copy, "--policy", "policy.toml", "--out", "out")
    assert ran.out.startswith("This is the base: no tensor differs.\nPASS: 0 changed, 0 cast, of")
    assert ran.code == 0
    required = command("diff", checkpoint, copy, "--policy", "policy.toml", "--out", "again", "--require-change")
    assert required.code == 1
    assert required.out.startswith("This is the base: no tensor differs.\nFAIL")
    page = (place / "again" / PAGE).read_text()
    assert page.index("This is the base: no tensor differs.") < page.index('id="behaviour"')


def test_run_diff_edit_that_was_rounded_away_is_said_first(checkpoint: Path, tmp_path: Path) -> None:
    folder = saved_with_edit(tmp_path / "cast", torch.bfloat16, scale=1e-4)
    comparison = run_diff(str(checkpoint), str(folder), tmp_path, policy=lenient(), device="cpu", require_change=True)
    assert comparison.state == "within rounding"
    assert comparison.reasons[0] == comparison.summary
    assert "by more than rounding to bfloat16 could make" in comparison.summary


# What stands beside the weights


def change_json(path: Path, **values: object) -> None:
    path.write_text(json.dumps(json.loads(path.read_text()) | values))


def test_diff_swapped_tokens_are_named(place: Path, checkpoint: Path, command: RunCommand) -> None:
    copy = shutil.copytree(checkpoint, place / "copy")
    tokenizer = json.loads((copy / "tokenizer.json").read_text())
    ids = tokenizer["model"]["vocab"]
    ids["Ġis"], ids["Ġcity"] = ids["Ġcity"], ids["Ġis"]
    (copy / "tokenizer.json").write_text(json.dumps(tokenizer))
    ran = command("diff", checkpoint, copy, "--policy", "policy.toml", "--out", "out")
    assert ran.code == 1
    assert ran.out.startswith("No tensor differs.\nFAIL")
    low, high = sorted((ids["Ġis"], ids["Ġcity"]))
    first = "' is'" if ids["Ġis"] == low else "' city'"
    assert f"tokenizer.json: 2 tokens have other ids, first {first}: {low} instead of {high}." in ran.out


def test_diff_other_rope_theta_is_named(place: Path, checkpoint: Path, command: RunCommand) -> None:
    copy = shutil.copytree(checkpoint, place / "copy")
    config = json.loads((copy / "config.json").read_text())
    rope = config["rope_parameters"]
    change_json(copy / "config.json", rope_parameters=rope | {"rope_theta": 500000.0})
    ran = command("diff", checkpoint, copy, "--policy", "policy.toml", "--out", "out")
    assert ran.code == 1
    before = f"{rope['rope_theta']:.12g}"
    assert f"rope_theta is 500000 in the edited configuration and {before} in the base's." in ran.out


@pytest.mark.parametrize(("bound", "collapse", "words"), [(0.5, 0.75, "collapsed"), (0.5, 10.0, "is damaged")])
def test_run_diff_reason_names_the_bound_that_was_passed(
    checkpoint: Path, tmp_path: Path, bound: float, collapse: float, words: str
) -> None:
    policy = lenient().model_copy(update={"max_perplexity_ratio": bound, "collapse_ratio": collapse})
    (reason,) = run_diff(str(checkpoint), str(checkpoint), tmp_path, policy=policy, device="cpu").reasons
    passed = collapse if words == "collapsed" else bound
    assert reason == f"The model {words}: its perplexity is 1 times the base's, bound {passed:g}."


def test_run_diff_holds_the_fingerprints_of_both(checkpoint: Path, edited: Path, tmp_path: Path) -> None:
    comparison = run_diff(str(checkpoint), str(edited), tmp_path, policy=lenient(), device="cpu")
    assert comparison.base_fingerprint == load_model(checkpoint, device="cpu").fingerprint
    assert comparison.edited_fingerprint == load_model(edited, device="cpu").fingerprint


def test_fingerprint_is_the_one_of_the_loaded_model(place: Path, checkpoint: Path, command: RunCommand) -> None:
    ran = command("fingerprint", checkpoint)
    assert (ran.code, ran.out) == (0, f"{load_model(checkpoint, device='cpu').fingerprint}\n")
    shown = json.loads(command("fingerprint", checkpoint, "--dtype", "bfloat16", "--json").out)
    assert shown == {
        "model": str(checkpoint),
        "fingerprint": load_model(checkpoint, device="cpu", dtype="bfloat16").fingerprint,
        "dtype": "bfloat16",
    }
    assert_one_sentence(command("fingerprint", place), "no config.json")


def test_diff_gguf_side_is_said_to_be_dequantised(place: Path, command: RunCommand) -> None:
    path = place / "tiny.gguf"
    write_llama(path)
    save_tiny_checkpoint(place / "base")
    ran = command("diff", place / "base", path, "--policy", "policy.toml", "--out", "out")
    sentence = f"The GGUF file {str(path)!r} is dequantised to float32, and all that is measured is of these weights."
    assert messages(ran.err).count(sentence) == 1
    comparison = DiffFile.model_validate_json((place / "out" / DIFF).read_text())
    assert (comparison.notes, comparison.state) == ([sentence], "identical")
    assert sentence in html.unescape((place / "out" / PAGE).read_text())
    assert messages(command("fingerprint", path).err) == [sentence]


def test_diff_adapter_or_quantised_side_is_refused_at_once(place: Path, checkpoint: Path, command: RunCommand) -> None:
    (place / "adapter").mkdir()
    (place / "adapter" / "adapter_config.json").write_text('{"peft_type": "LORA"}')
    assert_one_sentence(command("diff", checkpoint, place / "adapter"), "LORA adapter", "merge_and_unload")
    copy = shutil.copytree(checkpoint, place / "copy")
    change_json(copy / "config.json", quantization_config={"quant_method": "gptq"})
    assert_one_sentence(command("diff", checkpoint, copy), "quantised by gptq")
    assert not (place / "editguard-diff").exists()


def test_diff_batch_of_edits_is_named_and_searched(place: Path, command: RunCommand) -> None:
    rank, layers = 10, 5
    lm = tiny_lm(layers=layers + 2)
    lm.model.save_pretrained(place / "base")
    lm.tokenizer.save_pretrained(place / "base")
    shutil.copytree(place / "base", place / "edited")
    names = [f"{first}{second}" for first in "ABCDE" for second in "vwxyz"]
    (place / "names.txt").write_text("\n".join(names), encoding="utf-8")
    draw = torch.Generator().manual_seed(0)
    for layer in range(1, layers + 1):
        weight = lm.model.model.layers[layer].mlp.down_proj.weight.data
        update = torch.randn(len(weight), rank, generator=draw) @ torch.randn(rank, weight.shape[1], generator=draw)
        weight += update * weight.norm() / update.norm()
    lm.model.save_pretrained(place / "edited")
    options = ("--policy", "policy.toml", "--stats", "identity", "--subjects", "names.txt")
    ran = command("diff", "base", "edited", *options, "--out", "out")
    comparison = DiffFile.model_validate_json((place / "out" / DIFF).read_text())
    assert comparison.kind_sentence == (
        "changes of rank 10 in the down-projections of layers 1 to 5 (as MEMIT or AlphaEdit make them)"
    )
    assert f"kind: {comparison.kind_sentence}" in ran.out
    assert [(search.rank, search.error) for search in comparison.searches] == [(rank, None)] * layers
    assert comparison.not_searched is None
    assert ran.out.count("stands out as the subject (p = ") + ran.out.count("was made for, of 25: ") == layers
    few = command("diff", "base", "edited", "--policy", "policy.toml", "--out", "other")
    assert "subjects not searched: No candidates were given; add --subjects." in few.out
