"""The store: numbers are given once, files are whole, and an override is a line that stays."""

from __future__ import annotations

import shutil
import stat
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from editguard.audit.gate.baseline_store import BaselineStore, git_state, sha256_of
from editguard.reports.errors import BaselineError
from editguard.reports.gate.baseline import Baseline
from editguard.reports.gate.result import Override

from ...helpers.audit_logs import make_audit, make_baseline

OVERRIDE = Override(
    time="2026-01-01T00:00:00+00:00",
    author="Ada",
    reason="one two three",
    baseline="main@1",
    baseline_sha256="b" * 64,
    log_sha256="a" * 64,
    closings=["audit-failed"],
)


@pytest.fixture
def store(tmp_path: Path) -> BaselineStore:
    return BaselineStore(tmp_path / "deep" / "store")


@pytest.fixture(scope="module")
def kept() -> Baseline:
    return make_baseline(make_audit(2))


def test_store_save_gives_the_next_number(store: BaselineStore, kept: Baseline) -> None:
    paths = [store.save("main", kept) for _ in range(3)]
    assert [path.name for path in paths] == ["0001.json", "0002.json", "0003.json"]
    paths[1].unlink()
    assert store.save("main", kept).name == "0004.json"
    assert sorted(path.name for path in paths[0].parent.iterdir()) == ["0001.json", "0003.json", "0004.json"]
    assert stat.S_IMODE(paths[0].stat().st_mode) == 0o600


def test_store_load_by_name_number_and_path(store: BaselineStore, kept: Baseline) -> None:
    first, second = store.save("main", kept), store.save("main", kept.model_copy(update={"seed": 9}))
    latest = store.load("main")
    assert (latest.name, latest.baseline.seed, latest.sha256) == ("main@2", 9, sha256_of(second.read_bytes()))
    assert store.load("main@1").baseline == kept
    assert store.load(str(first)).baseline == kept
    assert store.list_names() == ["main"]
    assert [store.exists(one) for one in ("main", "main@2", "main@3", "other", str(first))] == [
        True,
        True,
        False,
        False,
        True,
    ]


SAVER = """
import sys
from pathlib import Path
from editguard.audit.gate.baseline_store import BaselineStore
from editguard.reports.gate.baseline import parse_baseline
baseline = parse_baseline(Path(sys.argv[2]).read_bytes(), "given")
sys.stdin.readline()
for _ in range(20):
    BaselineStore(Path(sys.argv[1])).save("main", baseline.model_copy(update={"seed": int(sys.argv[3])}))
"""


def test_store_two_savers_at_once_lose_nothing(tmp_path: Path, kept: Baseline) -> None:
    given = tmp_path / "given.json"
    given.write_text(kept.to_json(), encoding="utf-8")
    savers = [
        subprocess.Popen(
            [sys.executable, "-c", SAVER, str(tmp_path / "s"), str(given), str(seed)], stdin=subprocess.PIPE
        )
        for seed in (1, 2)
    ]
    with ThreadPoolExecutor(2) as together:
        list(together.map(lambda saver: saver.communicate(b"go\n"), savers))
    assert [saver.returncode for saver in savers] == [0, 0]
    store = BaselineStore(tmp_path / "s")
    assert store.list_numbers("main") == list(range(1, 41))
    seeds = [store.load(f"main@{number}").baseline.seed for number in store.list_numbers("main")]
    assert (seeds.count(1), seeds.count(2)) == (20, 20)
    assert not list((tmp_path / "s" / "main").glob(".*"))


@pytest.mark.parametrize("name", ["", "../main", "a/b", ".hidden", "-x", "a b", "é", "x" * 65])
def test_store_invalid_name_is_an_error(store: BaselineStore, kept: Baseline, name: str) -> None:
    with pytest.raises(BaselineError, match="is not valid; use up to 64"):
        store.save(name, kept)


@pytest.mark.parametrize("reference", ["main@", "main@x", "main@0", "main@-1", "main@1.5"])
def test_store_invalid_number_is_an_error(store: BaselineStore, reference: str) -> None:
    with pytest.raises(BaselineError, match="no number after the @"):
        store.load(reference)


def test_store_missing_baseline_suggests_another(store: BaselineStore, kept: Baseline) -> None:
    with pytest.raises(BaselineError, match="editguard baseline save"):
        store.load("main")
    store.save("main", kept)
    with pytest.raises(BaselineError, match="did you mean 'main'\\?"):
        store.load("mian")
    with pytest.raises(BaselineError, match="there are main\\."):
        store.load("release")
    with pytest.raises(BaselineError, match="numbers 1 to 1"):
        store.load("main@7")


def test_store_unwritable_folder_is_an_error(tmp_path: Path, kept: Baseline) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(BaselineError, match="choose another --baselines"):
        BaselineStore(tmp_path / "file").save("main", kept)


def test_store_overrides_are_appended_and_torn_line_cut(store: BaselineStore, kept: Baseline) -> None:
    assert store.read_overrides() == []
    store.save("main", kept)
    store.append_override(OVERRIDE)
    path = store.folder / "overrides.jsonl"
    with path.open("a") as file:
        file.write('{"time": "20')
    assert store.read_overrides() == [OVERRIDE]
    second = OVERRIDE.model_copy(update={"author": "Grace"})
    store.append_override(second)
    assert store.read_overrides() == [OVERRIDE, second]
    assert len(path.read_text().splitlines()) == 2
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


def test_append_override_without_a_folder_creates_it_for_its_owner(store: BaselineStore) -> None:
    store.append_override(OVERRIDE)
    assert store.read_overrides() == [OVERRIDE]
    assert stat.S_IMODE(store.folder.stat().st_mode) == 0o700


@pytest.mark.parametrize("inside", ["", "overrides.jsonl"], ids=["folder-is-a-file", "file-is-a-folder"])
def test_append_override_unwritable_place_is_an_error(tmp_path: Path, inside: str) -> None:
    place = tmp_path / "store"
    if inside:
        (place / inside).mkdir(parents=True)
    else:
        place.write_text("")
    with pytest.raises(
        BaselineError, match=r"The overrides .* cannot be written \(.+\); choose another folder with --baselines\."
    ):
        BaselineStore(place).append_override(OVERRIDE)


def test_store_override_written_by_hand_is_an_error(store: BaselineStore, kept: Baseline) -> None:
    store.save("main", kept)
    store.append_override(OVERRIDE)
    path = store.folder / "overrides.jsonl"
    path.write_text('{"author": "me"}\n' + path.read_text())
    with pytest.raises(BaselineError, match=r"Line 1 of .* is not an override"):
        store.read_overrides()


def test_git_state_has_commit_and_dirty_flag(tmp_path: Path) -> None:
    assert shutil.which("git") is not None
    assert git_state(tmp_path) is None

    def git(*arguments: str) -> None:
        who = ["-c", "user.name=Ada", "-c", "user.email=ada@example.org", "-c", "commit.gpgsign=false"]
        subprocess.run(["git", *who, *arguments], cwd=tmp_path, check=True, capture_output=True)

    git("init")
    assert git_state(tmp_path) is None  # no commit yet
    (tmp_path / "kept").write_text("1")
    git("add", ".")
    git("commit", "-m", "first")
    (tmp_path / "untracked").write_text("1")
    state = git_state(tmp_path)
    assert state is not None
    assert (len(state.commit), state.dirty) == (40, False)
    (tmp_path / "kept").write_text("2")
    changed = git_state(tmp_path)
    assert changed is not None
    assert (changed.commit, changed.dirty) == (state.commit, True)


def test_git_state_without_git_is_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    assert git_state(tmp_path) is None


@pytest.mark.parametrize("number", ["9" * 5000, "0", "-1", "1.5", "²"])
def test_store_missing_number_is_one_sentence(tmp_path: Path, number: str) -> None:
    with pytest.raises(BaselineError, match="has no number after the @"):
        BaselineStore(tmp_path).load(f"main@{number}")
