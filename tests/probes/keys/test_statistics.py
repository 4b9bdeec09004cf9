"""Key statistics: the algebra against numpy, files that come back bit by bit, and everything foreign refused."""

from __future__ import annotations

import json
import pickle
import signal
import stat
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from editguard.probes.errors import NotFinite, StatisticsError
from editguard.probes.keys.statistics import (
    RIDGE,
    KeyStatistics,
    StatisticsProvenance,
    import_rome_npz,
    load_statistics,
    make_identity_statistics,
    save_statistics,
)
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import save_file
from torch import Tensor

from ...helpers.examples import count_examples

SIZE, PRINT, LAYER = 12, "ab" * 32, 3
ORIGIN = StatisticsProvenance(
    method="corpus", source="a file", model_fingerprint=PRINT, layer=LAYER, corpus_sha256="cd" * 32, tokens=200
)


def moment(seed: int = 0, rows: int = 200, size: int = SIZE) -> Tensor:
    keys = torch.randn(rows, size, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    keys = keys * torch.logspace(0, -2, size, dtype=torch.float64)
    return keys.T @ keys / rows


def used(matrix: Tensor, ridge: float = RIDGE) -> np.ndarray:
    """C as it is used: the ridge added to its diagonal."""
    plain = matrix.numpy()
    return plain + ridge * np.diag(plain).mean() * np.eye(len(plain))


def random_keys(*shape: int, seed: int = 1) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def load(path: Path, **other: object) -> KeyStatistics:
    options = {"size": SIZE, "model_fingerprint": PRINT, "layer": LAYER} | other
    return load_statistics(path, **options)  # type: ignore[arg-type]


# The algebra


@pytest.mark.parametrize("rows", [1, 5, 40])
def test_direction_with_avoided_keys_equals_the_dense_solution(rows: int) -> None:
    key, avoided, weight = random_keys(SIZE), random_keys(rows, SIZE, seed=2), 7.0
    matrix = used(moment()) + weight * (avoided.T @ avoided / rows).numpy()
    dense = np.linalg.solve(matrix, key.numpy())
    direction = KeyStatistics(moment(), ORIGIN).direction(key, avoided * (weight / rows) ** 0.5)
    np.testing.assert_allclose(direction.numpy(), dense / np.linalg.norm(dense), atol=1e-9)


def test_direction_with_more_weight_gives_avoided_keys_a_smaller_share() -> None:
    statistics, key = KeyStatistics(moment(), ORIGIN), random_keys(SIZE)
    near = key + 0.3 * random_keys(4, SIZE, seed=2)

    def share(weight: float) -> float:
        direction = statistics.direction(key, near * weight**0.5)
        return float((near @ direction / (key @ direction)).abs().mean())

    shares = [share(weight) for weight in (0.0, 1.0, 1e4)]
    assert shares == sorted(shares, reverse=True)
    assert shares[-1] < 0.5 * shares[0]


@pytest.mark.parametrize("shape", [(SIZE,), (5, SIZE), (2, 3, SIZE)])
def test_solve_equals_numpy(shape: tuple[int, ...]) -> None:
    keys = random_keys(*shape)
    result = KeyStatistics(moment(), ORIGIN).solve(keys.float())
    expected = np.linalg.solve(used(moment()), keys.float().double().numpy().reshape(-1, SIZE).T).T.reshape(shape)
    assert result.dtype == torch.float64
    np.testing.assert_allclose(result.numpy(), expected, rtol=1e-9, atol=1e-9 * np.abs(expected).max())


@settings(max_examples=count_examples(40), deadline=None)
@given(st.integers(0, 2**31), st.floats(1e-6, 1e6))
def test_direction_is_a_unit_vector_along_the_solution(seed: int, scale: float) -> None:
    key = random_keys(SIZE, seed=seed) * scale
    result = KeyStatistics(moment(), ORIGIN).direction(key).numpy()
    expected = np.linalg.solve(used(moment()), key.numpy())
    np.testing.assert_allclose(result, expected / np.linalg.norm(expected), rtol=1e-8, atol=1e-8)
    assert np.linalg.norm(result) == pytest.approx(1.0)


def test_distance_equals_mahalanobis() -> None:
    keys, origin = random_keys(4, SIZE), random_keys(SIZE, seed=2)
    result = KeyStatistics(moment(), ORIGIN).distance(keys, origin)
    inverse = np.linalg.inv(used(moment()))
    for row, value in zip((keys - origin).numpy(), result.tolist(), strict=True):
        assert value == pytest.approx(float(np.sqrt(row @ inverse @ row)), rel=1e-8)
    assert float(KeyStatistics(moment(), ORIGIN).distance(origin, origin)) == 0.0


def test_condition_number_includes_the_ridge() -> None:
    assert KeyStatistics(moment(), ORIGIN).condition_number == pytest.approx(np.linalg.cond(used(moment())), rel=1e-6)


def test_identity_statistics_change_nothing() -> None:
    statistics = make_identity_statistics(SIZE, PRINT, LAYER)
    keys = random_keys(3, SIZE)
    assert torch.equal(statistics.solve(keys), keys)
    torch.testing.assert_close(statistics.direction(keys[0]), keys[0] / keys[0].norm())
    assert statistics.condition_number == 1.0
    assert statistics.provenance.method == "identity"
    assert torch.equal(statistics.second_moment, torch.eye(SIZE, dtype=torch.float64))


def test_statistics_hash_depends_only_on_the_matrix() -> None:
    first = KeyStatistics(moment(), ORIGIN)
    assert first.sha256 == KeyStatistics(moment(), replace(ORIGIN, source="another")).sha256
    changed = moment()
    changed[0, 0] = torch.nextafter(changed[0, 0], torch.tensor(9.0, dtype=torch.float64))
    assert first.sha256 != KeyStatistics(changed, ORIGIN).sha256


# What is refused


@pytest.mark.parametrize("shape", [(SIZE, SIZE + 1), (SIZE,), (1, SIZE, SIZE)])
def test_key_statistics_other_than_square_are_refused(shape: tuple[int, ...]) -> None:
    with pytest.raises(StatisticsError, match="square"):
        KeyStatistics(torch.ones(shape, dtype=torch.float64), ORIGIN)


def test_key_statistics_other_than_symmetric_are_refused() -> None:
    matrix = moment()
    matrix[2, 5] += 0.1 * matrix.abs().max()
    with pytest.raises(StatisticsError, match="symmetric"):
        KeyStatistics(matrix, ORIGIN)


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_key_statistics_other_than_finite_are_refused(bad: float) -> None:
    matrix = moment()
    matrix[2, 5] = bad
    with pytest.raises(NotFinite, match="NaN or Inf"):
        KeyStatistics(matrix, ORIGIN)


def test_solve_indefinite_matrix_is_refused_with_a_way_out() -> None:
    with pytest.raises(StatisticsError, match=r"not positive definite .* use more text"):
        KeyStatistics(-moment(), ORIGIN).solve(random_keys(SIZE))


def test_direction_of_too_few_keys_uses_the_ridge() -> None:
    statistics = KeyStatistics(moment(rows=3), ORIGIN)
    assert torch.isfinite(statistics.direction(random_keys(SIZE))).all()


@pytest.mark.parametrize("key", [torch.zeros(SIZE), torch.full((SIZE,), torch.nan)], ids=["zero", "nan"])
def test_direction_of_a_key_without_one_is_refused(key: Tensor) -> None:
    for statistics in (KeyStatistics(moment(), ORIGIN), make_identity_statistics(SIZE, PRINT, LAYER)):
        with pytest.raises(NotFinite, match="no direction"):
            statistics.direction(key)


# Files


def test_load_statistics_equals_the_saved_bits_and_provenance(tmp_path: Path) -> None:
    path = tmp_path / "new" / "c.safetensors"
    statistics = KeyStatistics(moment(), ORIGIN, ridge=1e-3)
    save_statistics(statistics, path)
    again = load(path)
    assert torch.equal(again.second_moment, statistics.second_moment)
    assert (again.provenance, again.ridge, again.sha256) == (ORIGIN, 1e-3, statistics.sha256)
    assert [item.name for item in path.parent.iterdir()] == ["c.safetensors"]


def test_save_statistics_failed_write_leaves_the_old_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "c.safetensors"
    save_statistics(KeyStatistics(moment(), ORIGIN), path)

    def full(*_: object, **__: object) -> None:
        raise OSError("no space left")

    monkeypatch.setattr("safetensors.torch.save_file", full)
    with pytest.raises(StatisticsError, match="no space"):
        save_statistics(KeyStatistics(moment(seed=1), ORIGIN), path)
    assert torch.equal(load(path).second_moment, moment())
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize(
    ("other", "message"),
    [
        ({"model_fingerprint": "ef" * 32}, "of model .abab.* not of .efef"),
        ({"layer": 4}, "at layer 3, not .* at layer 4"),
        ({"size": 13}, "have 13 entries"),
    ],
    ids=["model", "layer", "size"],
)
def test_load_statistics_of_another_model_are_refused(tmp_path: Path, other: dict[str, object], message: str) -> None:
    path = tmp_path / "c.safetensors"
    save_statistics(KeyStatistics(moment(), ORIGIN), path)
    with pytest.raises(StatisticsError, match=message):
        load(path, **other)


def test_load_statistics_with_nan_are_refused(tmp_path: Path) -> None:
    from dataclasses import asdict

    path, matrix = tmp_path / "c.safetensors", moment()
    matrix[0, 0] = torch.nan
    metadata = {"editguard": json.dumps({"provenance": asdict(ORIGIN), "ridge": RIDGE})}
    save_file({"second_moment": matrix}, path, metadata=metadata)
    with pytest.raises(NotFinite):
        load(path)


def _weights(path: Path) -> None:
    save_file({"weight": torch.ones(2)}, path)


def _half_a_header(path: Path) -> None:
    save_file({"second_moment": moment()}, path, metadata={"editguard": json.dumps({"ridge": 1.0})})


def _unknown_field(path: Path) -> None:
    written = json.dumps({"ridge": 1.0, "provenance": {"method": "corpus", "colour": "red"}})
    save_file({"second_moment": moment()}, path, metadata={"editguard": written})


@pytest.mark.parametrize(
    "write",
    [
        pytest.param(lambda path: path.write_text("not a tensor"), id="text"),
        pytest.param(lambda path: path.write_bytes(b""), id="empty"),
        pytest.param(lambda path: None, id="missing"),
        pytest.param(lambda path: path.mkdir(), id="folder"),
        _weights,
        _half_a_header,
        _unknown_field,
    ],
)
def test_load_statistics_foreign_file_is_refused(tmp_path: Path, write: Callable[[Path], object]) -> None:
    path = tmp_path / "c.safetensors"
    write(path)
    with pytest.raises(StatisticsError, match="no key statistics that editguard wrote"):
        load(path)


# ROME's own files


def test_import_rome_npz_divides_the_sum_by_its_count(tmp_path: Path) -> None:
    path = tmp_path / "rome.npz"
    np.savez(path, **{"mom2.mom2": (moment() * 200).numpy().astype(np.float32), "mom2.count": 200})
    for result in (
        import_rome_npz(path, size=SIZE, model_fingerprint=PRINT, layer=LAYER),
        load(path),
    ):
        np.testing.assert_allclose(result.second_moment.numpy(), moment().numpy(), rtol=1e-5, atol=1e-6)
        origin = result.provenance
        assert (origin.method, origin.source, origin.tokens) == ("rome-npz", "rome.npz", 200)
        assert len(origin.corpus_sha256) == 64


@pytest.mark.parametrize("count", [0, -3])
def test_import_rome_npz_count_below_one_is_refused(tmp_path: Path, count: int) -> None:
    path = tmp_path / "rome.npz"
    np.savez(path, **{"mom2.mom2": moment().numpy(), "mom2.count": count})
    with pytest.raises(StatisticsError, match=f"counts {count} rows"):
        load(path)


def test_import_rome_npz_other_width_or_nan_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "rome.npz"
    np.savez(path, **{"mom2.mom2": moment(size=8).numpy(), "mom2.count": 5})
    with pytest.raises(StatisticsError, match="have 12 entries"):
        load(path)
    np.savez(path, **{"mom2.mom2": np.full((SIZE, SIZE), np.nan), "mom2.count": 5})
    with pytest.raises(NotFinite):
        load(path)


class _Trap:
    """Leaves a file behind when it is unpickled."""

    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self) -> tuple[Callable[..., object], tuple[object, ...]]:
        return (Path.touch, (self.mark,))


@pytest.mark.parametrize("kind", ["object-array", "bare-pickle"])
def test_import_rome_npz_pickle_is_refused_and_never_run(tmp_path: Path, kind: str) -> None:
    path, mark = tmp_path / "rome.npz", tmp_path / "ran"
    if kind == "bare-pickle":
        path.write_bytes(pickle.dumps(_Trap(mark)))
    else:
        np.savez(path, **{"mom2.mom2": np.array([_Trap(mark)], dtype=object), "mom2.count": 5})
    with pytest.raises(StatisticsError, match="no covariance file of ROME"):
        load(path)
    assert not mark.exists()


@pytest.mark.parametrize("content", [b"", b"PK\x03\x04 broken", b"text"])
def test_import_rome_npz_broken_file_is_refused(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "rome.npz"
    path.write_bytes(content)
    with pytest.raises(StatisticsError, match="no covariance file of ROME"):
        load(path)


def test_import_rome_npz_without_the_sums_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "rome.npz"
    np.savez(path, mean=np.ones(3))
    with pytest.raises(StatisticsError, match="KeyError"):
        load(path)
    with pytest.raises(StatisticsError):
        load(tmp_path / "missing.npz")


def test_save_statistics_full_disk_leaves_nothing(tmp_path: Path) -> None:
    resource = pytest.importorskip("resource")
    before, ignored = resource.getrlimit(resource.RLIMIT_FSIZE), signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    try:
        # A bound on the size of files stands for a full disk: the system refuses the write.
        resource.setrlimit(resource.RLIMIT_FSIZE, (4096, before[1]))
        with pytest.raises(
            StatisticsError, match=r"c\.safetensors' cannot be written \(.*; give a folder that has room"
        ):
            save_statistics(make_identity_statistics(64, "model", 0), tmp_path / "c.safetensors")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
        signal.signal(signal.SIGXFSZ, ignored)
    assert list(tmp_path.iterdir()) == []


def test_save_statistics_only_the_owner_may_read(tmp_path: Path) -> None:
    save_statistics(make_identity_statistics(4, "model", 0), tmp_path / "c.safetensors")
    assert stat.S_IMODE((tmp_path / "c.safetensors").stat().st_mode) == 0o600


GOOD = {"method": "corpus", "source": "text", "model_fingerprint": "abab", "layer": 3, "corpus_sha256": "", "tokens": 9}


@pytest.mark.parametrize(
    "header",
    [
        "[" * 5000,
        json.dumps({"provenance": GOOD | {"model_fingerprint": 3}, "ridge": 1e-4}),
        json.dumps({"provenance": GOOD | {"method": "guess"}, "ridge": 1e-4}),
        json.dumps({"provenance": GOOD | {"more": 1}, "ridge": 1e-4}),
        *(json.dumps({"provenance": GOOD, "ridge": ridge}) for ridge in (float("nan"), -1.0, 10**400, "1e-4", None)),
    ],
)
def test_load_statistics_foreign_header_is_one_sentence(tmp_path: Path, header: str) -> None:
    path = tmp_path / "c.safetensors"
    save_file({"second_moment": torch.eye(SIZE, dtype=torch.float64)}, path, metadata={"editguard": header})
    with pytest.raises(StatisticsError, match="holds no key statistics that editguard wrote"):
        load_statistics(path, size=SIZE, model_fingerprint="abab", layer=3)


@pytest.mark.parametrize("dtype", [torch.bool, torch.int64, torch.float8_e4m3fn, torch.complex64])
def test_load_statistics_other_dtype_is_refused_unread(tmp_path: Path, dtype: torch.dtype) -> None:
    path = tmp_path / "c.safetensors"
    header = json.dumps({"provenance": GOOD, "ridge": 1e-4})
    save_file({"second_moment": torch.zeros(SIZE, SIZE).to(dtype)}, path, metadata={"editguard": header})
    with pytest.raises(StatisticsError, match="holds no key statistics"):
        load_statistics(path, size=SIZE, model_fingerprint="abab", layer=3)


def test_load_statistics_false_identity_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "c.safetensors"
    header = json.dumps({"provenance": GOOD | {"method": "identity"}, "ridge": 0.0})
    save_file({"second_moment": 2 * torch.eye(SIZE, dtype=torch.float64)}, path, metadata={"editguard": header})
    with pytest.raises(StatisticsError, match="says that it is the identity, and is not"):
        load_statistics(path, size=SIZE, model_fingerprint="abab", layer=3)


def test_add_moment_to_the_identity_is_no_identity_any_more() -> None:
    rows = torch.randn(9, 6, generator=torch.Generator().manual_seed(3), dtype=torch.float64)
    key = torch.randn(6, generator=torch.Generator().manual_seed(4), dtype=torch.float64)
    identity = make_identity_statistics(6, "ab" * 32, 0)
    summed = identity.add_moment(rows.T @ rows)
    expected = torch.linalg.solve(torch.eye(6, dtype=torch.float64) + rows.T @ rows, key)
    assert torch.allclose(summed.solve(key), expected)
    assert summed.condition_number > 1
    assert torch.equal(identity.solve(key), key)
