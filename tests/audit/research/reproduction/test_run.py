"""The whole reproduction: all files of it, what is gone on with, what is refused, and what a broken experiment leaves."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from editguard.audit.research.reproduction import all_experiments as experiments
from editguard.audit.research.reproduction import edits, layer_shifts, run, stamp
from editguard.audit.research.reproduction.experiments import key_clouds
from editguard.audit.research.reproduction.experiments.headings import HEADINGS
from editguard.audit.research.reproduction.run import PAGE, RESULT, TABLES, TEXT, reproduce
from editguard.audit.setup import Setup
from editguard.probes.errors import DeviceFailed, EditguardError, InputError
from editguard.reports.errors import OutputError
from editguard.reports.reproduction.page import render_reproduction
from editguard.reports.reproduction.schema import Experiment, Reproduction
from editguard.reports.reproduction.text import render_markdown

from ....helpers.reproduction_logs import FIRST, ORDINARY
from ....helpers.tiny_audits import load_edits
from ....helpers.tiny_models import tiny_lm
from ....helpers.tiny_setups import tiny_setup

pytestmark = pytest.mark.tiny

NOT_FIRST = (1, 2, 3, 4, 5, 10, 12, 13)


def index_experiments(reproduction: Reproduction) -> dict[int, Experiment]:
    return {experiment.number: experiment for experiment in reproduction.experiments}


@pytest.fixture(scope="module")
def whole(setup: Setup, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished reproduction, that tests read and go on with, and leave as it was."""
    out = tmp_path_factory.mktemp("whole")
    reproduce(setup, load_edits(*FIRST, *ORDINARY), out, ordinary=4, command="editguard reproduce edits.json")
    return out


def read_result(out: Path) -> Reproduction:
    return Reproduction.model_validate_json((out / RESULT).read_bytes())


def test_reproduce_writes_page_text_and_tables_from_one_file(whole: Path) -> None:
    reproduction = read_result(whole)
    assert [experiment.number for experiment in reproduction.experiments] == sorted(HEADINGS)
    assert (whole / PAGE).read_text(encoding="utf-8") == render_reproduction(reproduction)
    assert (whole / TEXT).read_text(encoding="utf-8") == render_markdown(reproduction)
    names = {table.name for experiment in reproduction.experiments for table in experiment.tables}
    assert {path.name for path in (whole / TABLES).iterdir()} == {
        f"{name}.{kind}" for name in names for kind in ("csv", "parquet")
    }


def test_reproduce_provenance_holds_counts_and_editor_settings(whole: Path) -> None:
    reproduction = read_result(whole)
    first = reproduction.cases[0]
    assert (first.kind, first.edited, first.found) == ("first token", 5, 5)
    assert sum(case_count.found for case_count in reproduction.cases) == len(FIRST) + len(ORDINARY)
    assert reproduction.editors["rome"]["descent"] == "adam"
    assert reproduction.editors["prefixed"]["descent"] == "steepest"
    assert {"torch", "transformers"} <= set(reproduction.versions)
    page = (whole / PAGE).read_text(encoding="utf-8")
    assert "Search of prefixed" in page
    assert "descent: steepest" in page


def test_reproduce_second_run_reuses_logs_and_layers(
    setup: Setup, whole: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def again(*_: object, **__: object) -> None:
        raise AssertionError("the layers are kept")

    monkeypatch.setattr(layer_shifts, "sweep_layers", again)
    before, logs = read_result(whole), {path: path.read_bytes() for path in (whole / "logs").iterdir()}
    reproduction = reproduce(
        setup, load_edits(*FIRST, *ORDINARY), whole, ordinary=4, command="editguard reproduce edits.json"
    )
    assert {path: path.read_bytes() for path in logs} == logs
    assert [experiment.claims for experiment in reproduction.experiments] == [
        experiment.claims for experiment in before.experiments
    ]
    assert index_experiments(reproduction)[8].skipped is None


def test_reproduce_removes_unfinished_files_of_a_killed_run(setup: Setup, whole: Path) -> None:
    left = [
        whole / f".{PAGE}.x1.tmp",
        whole / "logs" / ".rome.jsonl.x2.tmp",
        whole / TABLES / ".key-separation.csv.x3.tmp",
    ]
    for path in (*left, whole / ".mine.x4.tmp"):
        path.touch()
    reproduce(setup, load_edits(*FIRST, *ORDINARY), whole, ordinary=4, command="editguard reproduce edits.json")
    assert not [path for path in left if path.exists()]
    (whole / ".mine.x4.tmp").unlink()


def test_reproduce_folder_of_another_run_is_refused_by_difference(
    setup: Setup, whole: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    other = replace(setup, seed=1, policy=setup.policy.model_copy(update={"min_efficacy": 0.25}))
    monkeypatch.setattr(stamp, "version", lambda name: "9.9" if name == "torch" else "1")
    with pytest.raises(InputError) as caught:
        reproduce(other, load_edits(*FIRST, *ORDINARY[:5]), whole, ordinary=5, most_cases=50)
    message = str(caught.value)
    for part in (
        repr(str(whole)),
        ", now 9.9)",
        "seed (0, now 1)",
        "policy min_efficacy (0.0, now 0.25)",
        "most cases (100, now 50)",
        "number of ordinary cases (4, now 5)",
        "requests (11 with ids ",
        ", now 10 with ids ",
        "another --out",
    ):
        assert part in message
    assert "key statistics" not in message
    assert message.count(". ") == 0


def test_reproduce_other_requests_of_one_file_are_refused(setup: Setup, whole: Path) -> None:
    with pytest.raises(InputError, match=r"another requests \(11 with ids \w+, now 11 with ids \w+\)"):
        reproduce(setup, load_edits(*ORDINARY, *FIRST), whole, ordinary=4)


def test_reproduce_unreadable_cases_file_is_refused(setup: Setup, tmp_path: Path) -> None:
    (tmp_path / "cases.json").write_text(json.dumps({"stamp": "1"}), encoding="utf-8")
    with pytest.raises(InputError, match="holds no choice of cases that this editguard reads"):
        reproduce(setup, load_edits(*FIRST, *ORDINARY), tmp_path, ordinary=4)


def test_reproduce_removes_tables_of_experiments_not_run(
    setup: Setup, whole: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (whole / TABLES / "mine.csv").touch()
    assert (whole / TABLES / "key-separation.csv").is_file()
    with monkeypatch.context() as patch:
        patch.setattr(experiments.key_clouds, "compare_distributions", broken)
        reproduce(setup, load_edits(*FIRST, *ORDINARY), whole, ordinary=4)
    assert not (whole / TABLES / "key-separation.csv").exists()
    assert not (whole / TABLES / "key-separation.parquet").exists()
    assert (whole / TABLES / "mine.csv").is_file()
    (whole / TABLES / "mine.csv").unlink()
    reproduce(setup, load_edits(*FIRST, *ORDINARY), whole, ordinary=4, command="editguard reproduce edits.json")


def broken(*_: object, **__: object) -> Experiment:
    raise ZeroDivisionError("float division by zero")


@pytest.mark.parametrize(
    ("number", "module", "name"),
    [
        (1, experiments.update_size, "compare_update_sizes"),
        (2, experiments.perplexity_after, "compare_perplexities"),
        (3, experiments.edit_success, "measure_without_prefix"),
        (4, experiments.edit_success, "measure_with_prefix"),
        (5, experiments.edit_success, "measure_own_editor"),
        (7, experiments.key_clouds, "place_first_tokens"),
        (10, experiments.bos_token, "compare_bos"),
        (12, experiments.other_denominators, "list_other_cases"),
        (13, experiments.collapse_prediction, "measure_prediction"),
    ],
)
def test_reproduce_broken_experiment_is_reported_in_its_place(
    setup: Setup, whole: Path, monkeypatch: pytest.MonkeyPatch, number: int, module: object, name: str
) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(module, name, broken)
        experiments_by_number = index_experiments(reproduce(setup, load_edits(*FIRST, *ORDINARY), whole, ordinary=4))
    assert experiments_by_number[number].skipped is not None
    assert experiments_by_number[number].skipped.startswith(
        "ZeroDivisionError: float division by zero (test_run.py, line "
    )
    assert [other for other, experiment in experiments_by_number.items() if experiment.broken] == [number]
    others = {
        other: experiment.skipped
        for other, experiment in experiments_by_number.items()
        if other not in (number, 10, 11, 13)
    }
    assert set(others.values()) == {None}
    assert "float division by zero" in (whole / PAGE).read_text(encoding="utf-8")


@pytest.mark.parametrize(
    ("error", "ends"),
    [
        (EditguardError("The weight was not put back; load the model again."), EditguardError),
        (torch.AcceleratorError("CUDA error: unspecified launch failure"), DeviceFailed),
    ],
)
def test_reproduce_untrusted_model_ends_the_run(
    setup: Setup, whole: Path, monkeypatch: pytest.MonkeyPatch, error: Exception, ends: type[Exception]
) -> None:
    def failing(*_: object, **__: object) -> Experiment:
        raise error

    monkeypatch.setattr(experiments.collapse_prediction, "measure_prediction", failing)
    with pytest.raises(ends):
        reproduce(setup, load_edits(*FIRST, *ORDINARY), whole, ordinary=4)


@pytest.mark.parametrize(
    "where", [(edits, "edit_record_for"), (run, "select_cases"), (key_clouds, "place_first_tokens")]
)
def test_reproduce_failing_device_is_named(
    setup: Setup, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, where: tuple[object, str]
) -> None:
    def failing(*_: object, **__: object) -> None:
        raise torch.AcceleratorError("CUDA error: unspecified launch failure\nmore")

    monkeypatch.setattr(*where, failing)
    with pytest.raises(
        DeviceFailed, match=r"The device cpu failed \(CUDA error: unspecified launch failure\), .* which resumes"
    ):
        reproduce(setup, load_edits(*FIRST, *ORDINARY), tmp_path, ordinary=4)


def test_reproduce_experiment_that_does_not_apply_is_skipped(
    setup: Setup, whole: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refusing(*_: object, **__: object) -> Experiment:
        raise InputError("This model has no such thing; take another.")

    with monkeypatch.context() as patch:
        patch.setattr(experiments.collapse_prediction, "measure_prediction", refusing)
        experiment = index_experiments(reproduce(setup, load_edits(*FIRST, *ORDINARY), whole, ordinary=4))[13]
    assert (experiment.skipped, experiment.broken) == ("This model has no such thing; take another.", False)


def test_reproduce_full_disk_ends_the_run(setup: Setup, whole: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(path: Path, content: object) -> None:
        raise OutputError(f"The file {path} cannot be written (No space left on device); give a folder that has room.")

    (whole / layer_shifts.LAYERS_FILE).unlink()
    with monkeypatch.context() as patch:
        patch.setattr(layer_shifts, "write_atomic", full)
        with pytest.raises(OutputError, match=r"layers\.json"):
            reproduce(setup, load_edits(*FIRST, *ORDINARY), whole, ordinary=4)
    reproduce(setup, load_edits(*FIRST, *ORDINARY), whole, ordinary=4)


def test_reproduce_tokenizer_with_bos_is_named_as_the_reason(tmp_path: Path) -> None:
    setup = tiny_setup(tiny_lm(bos=True), steps=2)
    notices: list[str] = []
    experiments_by_number = index_experiments(
        reproduce(setup, load_edits(*FIRST, *ORDINARY), tmp_path, ordinary=4, notice=notices.append)
    )
    assert "puts a BOS before every text" in str(experiments_by_number[6].skipped)
    assert "The file" not in str(experiments_by_number[6].skipped)
    assert [notice for notice in notices if "Experiments 6 to 9 and 11 will not be run" in notice] == notices != []
    # What can be asked is asked: without the BOS the subjects behind it are first tokens.
    assert experiments_by_number[10].skipped is None or "ordinary: " in experiments_by_number[10].skipped
    sizes = next(table for table in experiments_by_number[1].tables if table.name == "update-sizes")
    assert ["rome", "first token behind the BOS", 5] in [row[:3] for row in sizes.rows]


def test_reproduce_file_without_first_tokens_is_noticed_before_edits(
    setup: Setup, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def stop(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    notices: list[str] = []
    monkeypatch.setattr(run, "make_edits", stop)
    with pytest.raises(KeyboardInterrupt):
        reproduce(setup, load_edits(*ORDINARY), tmp_path, ordinary=4, notice=notices.append)
    assert len(notices) == 1
    assert "first tokens: 0" in notices[0]
    assert "prompts that begin with a subject of one token" in notices[0]
