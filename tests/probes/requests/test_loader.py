from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path

import pytest
from editguard.probes.errors import RequestError
from editguard.probes.requests.loader import InvalidRecord, load_requests

from ...helpers.layout_records import ZSRE, load_records

RECORD = {"subject": "Lyon", "prompt": "{} is in", "target_new": "Spain"}
WRONG = {"subject": "Lyon", "prompt": "Paris is in", "target_new": ""}
CSV = "id,subject,prompt,target_new\na,Lyon,{} is in,Spain\n"
YAML = 'edits:\n- {id: a, subject: Lyon, prompt: "{} is in", target_new: Spain}\n'


def write(folder: Path, name: str, content: object) -> Path:
    path = folder / name
    if isinstance(content, bytes):
        path.write_bytes(content)
    elif isinstance(content, str):
        path.write_text(content, encoding="utf-8", newline="")
    else:
        path.write_text(json.dumps(content), encoding="utf-8")
    return path


def refusal(source: str | Path, **options: bool) -> str:
    with pytest.raises(RequestError) as caught:
        load_requests(source, **options)
    return str(caught.value)


# ---------------------------------------------------------------------------------------------------------------------
# Good files


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("e.json", [{**RECORD, "id": "a"}]),
        ("e.JSON", {"edits": [{**RECORD, "id": "a"}]}),
        ("e.jsonl", json.dumps({**RECORD, "id": "a"}) + "\n"),
        ("e.ndjson", json.dumps({**RECORD, "id": "a"})),
        ("e.csv", CSV),
        ("e.csv", CSV.replace("\n", "\r\n")),
        ("e.yaml", YAML),
        ("e.yml", YAML),
        ("e.json", b"\xef\xbb\xbf" + json.dumps([{**RECORD, "id": "a"}]).encode()),
        ("e.csv", b"\xef\xbb\xbf" + CSV.encode()),
        ("e.jsonl", b"\xef\xbb\xbf" + json.dumps({**RECORD, "id": "a"}).encode()),
        ("e.yaml", b"\xef\xbb\xbf" + YAML.encode()),
    ],
)
def test_load_requests_every_format_gives_the_same_request(tmp_path: Path, name: str, content: object) -> None:
    path = write(tmp_path, name, content)
    loaded = load_requests(path)
    (request,) = loaded.requests
    assert (request.id, request.subject, request.prompt, request.target_new) == ("a", "Lyon", "Lyon is in", "Spain")
    assert loaded.invalid == ()
    assert loaded.source == str(path)
    assert loaded.sha256 == hashlib.sha256(path.read_bytes()).hexdigest()
    assert load_requests(str(path)) == loaded


def test_load_requests_mixed_layouts_take_missing_ids_from_places(tmp_path: Path) -> None:
    zsre = {"subject": "Lyon", "src": "Where is Lyon?", "alt": "Spain", "answers": ["France"]}
    flat = {"case_id": 9, "subject": "Lyon", "prompt": "Lyon is in", "target_new": "Spain", "ground_truth": "France"}
    loaded = load_requests(write(tmp_path, "e.json", [RECORD, zsre, flat]))
    assert [request.id for request in loaded.requests] == ["1", "2", "9"]


def test_load_requests_limit_reads_only_the_first_records(tmp_path: Path) -> None:
    path = write(tmp_path, "e.json", [RECORD, RECORD, WRONG])
    assert len(load_requests(path, limit=2).requests) == 2
    assert "1 of 3 records" in refusal(path)
    for limit in (0, -1):
        with pytest.raises(RequestError, match=f"limit of records is {limit}; it must be at least 1"):
            load_requests(path, limit=limit)


def test_loader_import_loads_nothing_heavy() -> None:
    code = (
        "import sys, editguard.probes.requests.loader\n"
        "heavy = {'torch', 'transformers', 'datasets', 'pandas', 'plotly'} & sys.modules.keys()\n"
        "assert not heavy, heavy"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


# ---------------------------------------------------------------------------------------------------------------------
# Wrong records


def test_load_requests_wrong_records_are_all_listed_line_by_line(tmp_path: Path) -> None:
    lines = [json.dumps(RECORD), "", json.dumps(WRONG), '{"subject": "Ly', json.dumps({**RECORD, "subjct": "x"})]
    path = write(tmp_path, "e.jsonl", "\n".join(lines))
    first, *listed = refusal(path).split("\n")
    assert first == (
        f"3 of 4 records in {str(path)!r} are wrong; correct them, or leave them out with --skip-invalid "
        "(in Python: skip_invalid=True)."
    )
    assert refusal(path, can_skip=False).split("\n")[0].endswith(" are wrong; correct them.")
    assert [line.split(" ")[0] for line in listed] == ["e.jsonl:3:", "e.jsonl:4:", "e.jsonl:5:"]
    assert "target_new must not be empty" in listed[0]
    assert "subject 'Lyon' does not stand in the prompt" in listed[0]
    assert "did you mean 'subject'?" in listed[2]


def test_load_requests_skip_invalid_returns_both_kinds(tmp_path: Path) -> None:
    path = write(tmp_path, "e.json", [WRONG, {**RECORD, "id": 7}, [1]])
    loaded = load_requests(path, skip_invalid=True)
    assert [request.id for request in loaded.requests] == ["7"]
    assert [(wrong.where, wrong.field) for wrong in loaded.invalid] == [
        ("e.json: record 1 (line 1)", "target_new, subject"),
        ("e.json: record 3 (line 1)", "record"),
    ]
    assert loaded.invalid[1] == InvalidRecord(
        "e.json: record 3 (line 1)", "record", "record is [1] (a list); it must be an object with keys."
    )


@pytest.mark.parametrize("skip_invalid", [False, True])
@pytest.mark.parametrize(("count", "start"), [(1, "1 of 1 record in"), (2, "2 of 2 records in")])
def test_load_requests_without_a_valid_record_offers_no_skipping(
    tmp_path: Path, skip_invalid: bool, count: int, start: str
) -> None:
    message = refusal(write(tmp_path, "e.json", [WRONG] * count), skip_invalid=skip_invalid)
    assert message.startswith(start)
    assert message.split("\n")[0].endswith("is wrong; correct it." if count == 1 else "are wrong; correct them.")
    assert "skip" not in message


def test_load_requests_with_a_valid_record_offers_skipping(tmp_path: Path) -> None:
    first = refusal(write(tmp_path, "e.json", [WRONG, RECORD])).split("\n")[0]
    assert first.startswith("1 of 2 records in")
    assert first.endswith("is wrong; correct it, or leave it out with --skip-invalid (in Python: skip_invalid=True).")


@pytest.mark.parametrize(("count", "more"), [(50, ""), (51, "and 1 more"), (73, "and 23 more")])
def test_load_requests_many_wrong_records_lists_fifty(tmp_path: Path, count: int, more: str) -> None:
    lines = refusal(write(tmp_path, "e.json", [WRONG] * count)).split("\n")
    assert lines[0].startswith(f"{count} of {count} records")
    assert len(lines) == 51 + bool(more)
    assert lines[-1] == more or not more


def test_load_requests_many_faults_make_no_long_message(tmp_path: Path) -> None:
    records = [{f"no such key {n}": 1 for n in range(20)}] * 30
    *lines, more = refusal(write(tmp_path, "e.json", records)).split("\n")
    listed_count = len(lines) - 1
    assert 1 <= listed_count < 30
    assert more == f"and {30 - listed_count} more"
    assert sum(map(len, lines)) < 17_000


def test_load_requests_repeated_id_of_a_wrong_record_is_a_fault(tmp_path: Path) -> None:
    records = [{**RECORD, "id": "x"}, {**RECORD, "case_id": "x"}, {**WRONG, "id": 4}, RECORD]
    lines = refusal(write(tmp_path, "e.json", records)).split("\n")[1:]
    assert len(lines) == 3
    assert "id 'x' is also the id of e.json: record 1 (id x, line 1)" in lines[0]
    assert "id '4' is also the id of e.json: record 3 (id 4, line 1)" in lines[2]  # 4 by its place


def test_load_requests_hostile_values_keep_a_record_on_one_line(tmp_path: Path) -> None:
    records = [{**RECORD, "a\nb\u2028": 1}, {**WRONG, "id": "\n"}, {"\ud800": 1}, {**WRONG, "subject": "x" * 10_000}]
    message = refusal(write(tmp_path, "e.json", records))
    assert len(message.splitlines()) == 5
    assert len(message) < 3000
    message.encode("utf-8")


def test_load_requests_field_with_a_fault_has_no_second_message(tmp_path: Path) -> None:
    path = write(tmp_path, "e.json", json.dumps([RECORD, {**RECORD, "target_new": float("nan")}]))
    (wrong,) = load_requests(path, skip_invalid=True).invalid
    assert wrong.field == "target_new"
    assert wrong.message.count("target_new") == 1


def test_load_requests_number_too_long_to_print_is_described(tmp_path: Path) -> None:
    message = refusal(write(tmp_path, "e.yaml", f"- {{id: 0x{'f' * 5000}, group: [0x{'f' * 5000}]}}\n"))
    assert "id must be text, and is a value too large to show (a number)" in message
    assert "group must be text, and is a value too large to show (a list)" in message


def test_load_requests_record_without_keys_is_wrong(tmp_path: Path) -> None:
    assert "record has no keys" in refusal(write(tmp_path, "e.json", [{}]))


# ---------------------------------------------------------------------------------------------------------------------
# Unused keys


def test_load_requests_unused_keys_are_counted_in_one_sentence(tmp_path: Path) -> None:
    plain = {key: value for key, value in ZSRE.items() if key not in ("portability", "pred")}
    loaded = load_records(
        tmp_path, ZSRE, plain, {**plain, "loc_ans": ""}, {"subject": "Oslo", "prompt": "{} is", "target_new": "x"}
    )
    assert loaded.unused == (
        "loc_ans of 2 records is not used: the old answers are asked of the model itself",
        "pred of 1 record is not used: what another model said is not asked",
        "cond of 3 records is not used: question and answers stand in other keys too",
        "portability of 1 record is not used: no check judges these prompts, which are kept and shown",
    )


# ---------------------------------------------------------------------------------------------------------------------
# Wrong files


@pytest.mark.parametrize(
    ("name", "content", "expected"),
    [
        ("e.json", "", "is empty"),
        ("e.jsonl", " \n\n", "is empty"),
        ("e.json", "[]", "There are no records in"),
        ("e.json", '{"edits": []}', "There are no records in"),
        ("e.csv", "subject,prompt,target_new\n", "There are no records in"),
        ("e.yaml", "# none\n", "There are no records in"),
        ("e.txt", "x", "has the suffix '.txt', which names no format that is read here; use one of .json,"),
        ("edits", "x", "has the suffix ''"),
        ("e.json", b'[{"subject": "L\xffyon"}]', "is not UTF-8: byte 0xff in line 1"),
        ("e.csv", "a\n".encode("utf-16"), "is written in UTF-16-LE; edits are read as UTF-8, so convert it"),
        ("e.json", json.dumps([RECORD])[:-5], "is not valid JSON"),
        ("e.json", '[{"id": NaN}]', "is or holds nan"),
        (
            "log.jsonl",
            '{"kind": "header", "schema_version": 1}\n{"kind": "edit"}\n',
            "is an audit's log and asks for no edit",
        ),
    ],
)
def test_load_requests_wrong_file_is_refused(tmp_path: Path, name: str, content: object, expected: str) -> None:
    message = refusal(write(tmp_path, name, content))
    assert expected in message
    assert name in message


def test_load_requests_path_without_a_file_is_refused(tmp_path: Path) -> None:
    assert "There is no file" in refusal(tmp_path / "none.json")
    (tmp_path / "folder.json").mkdir()
    assert "is a folder" in refusal(tmp_path / "folder.json")
    assert "There is no file" in refusal("a\0b.json")
    assert "cannot be read" in refusal("x" * 5000 + ".json")


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no pipes here")
def test_load_requests_pipe_is_refused_without_waiting(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.json")
    assert "is no ordinary file" in refusal(tmp_path / "pipe.json")


def test_load_requests_file_over_the_bound_is_refused_unread(tmp_path: Path) -> None:
    path = tmp_path / "big.json"
    with path.open("wb") as file:
        file.truncate(256 * 2**20 + 1)  # sparse: takes no space
    assert "has 256.0 MiB, more than the 256 that are read" in refusal(path)


# ---------------------------------------------------------------------------------------------------------------------
# Datasets: a local folder is read by the same library in the same way, without a connection


@pytest.fixture
def dataset(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """A dataset of two splits in a folder, and a cache that the test does not share."""
    import datasets

    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")
    monkeypatch.setattr(datasets.config, "HF_HUB_OFFLINE", True)
    folder = tmp_path / "data"
    folder.mkdir()
    train = [{**RECORD, "id": "a", "paraphrases": ["p"]}, {**RECORD, "id": "b", "group": "g"}, {**WRONG, "id": "é"}]
    write(folder, "train.jsonl", "\n".join(json.dumps(row) for row in train))
    write(folder, "test.jsonl", json.dumps({**RECORD, "id": "t"}))
    return f"hf://{folder}"


def test_load_requests_dataset_is_read_by_split(dataset: str) -> None:
    loaded = load_requests(f"{dataset}:train", skip_invalid=True)
    assert [(request.id, request.paraphrases, request.group) for request in loaded.requests] == [
        ("a", ("p",), ""),
        ("b", (), "g"),
    ]
    assert loaded.invalid[0].where == f"{dataset}:train: record 3 (id é)"
    assert loaded.source == f"{dataset}:train"
    rows = [
        {**RECORD, "id": "a", "paraphrases": ["p"], "group": None},
        {**RECORD, "id": "b", "paraphrases": None, "group": "g"},
        {**WRONG, "id": "é", "paraphrases": None, "group": None},
    ]
    canonical = json.dumps(rows, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    assert loaded.sha256 == hashlib.sha256(canonical.encode()).hexdigest()
    assert load_requests(f"{dataset}:train", limit=2).sha256 == loaded.sha256
    assert len(load_requests(f"{dataset}:train[:1]").requests) == 1


def test_load_requests_dataset_of_several_splits_needs_a_name(dataset: str) -> None:
    assert "has 2 splits (train, test); one must be named" in refusal(dataset)
    assert "cannot be loaded (Unknown split" in refusal(f"{dataset}:validation")


def test_load_requests_dataset_of_one_split_needs_no_name(dataset: str) -> None:
    (Path(dataset.removeprefix("hf://")) / "test.jsonl").unlink()
    assert len(load_requests(dataset, skip_invalid=True).requests) == 2


@pytest.mark.parametrize("name", ["hf://", "hf://:train"])
def test_load_requests_dataset_without_a_name_is_refused(name: str) -> None:
    assert "has no name" in refusal(name)


@pytest.mark.end_to_end
def test_load_requests_unknown_dataset_offline_is_one_sentence() -> None:
    code = (
        "from editguard.probes.requests.loader import load_requests\n"
        "from editguard.probes.errors import RequestError\n"
        "try:\n    load_requests('hf://nobody/nothing:train')\n"
        "except RequestError as error:\n    print(error)\n"
    )
    offline = {**os.environ, "HF_HUB_OFFLINE": "1"}
    expected = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, env=offline
    ).stdout
    assert "The dataset 'hf://nobody/nothing:train' cannot be loaded (" in expected
    assert expected.count("\n") == 1


def test_load_requests_missing_library_is_one_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "datasets", None)
    message = refusal("hf://some/edits:train")
    assert "needs the library 'datasets'" in message
    assert "install it or use a file" in message


def test_load_requests_dataset_beyond_json_is_refused(dataset: str) -> None:
    import datasets

    folder = Path(dataset.removeprefix("hf://")) / "dates"
    table = datasets.Dataset.from_dict({**{key: [value] for key, value in RECORD.items()}, "when": [datetime.now(UTC)]})
    table.to_parquet(folder / "train.parquet")
    dataset = f"hf://{folder}"
    assert "holds in record 1 what JSON cannot hold" in refusal(f"{dataset}:train")
