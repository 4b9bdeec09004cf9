"""Key statistics: C = E[k k^T], the uncentred second moment of keys over ordinary text, and its factor.

`KeyStatistics` computes ``C^-1 k`` in float64, whatever the weights' dtype.
C is regularised: ``ridge`` times its mean diagonal is added to its diagonal.
`save_statistics` and `load_statistics` keep it as safetensors with its provenance.
`import_rome_npz` reads the files of the original ROME code.
`corpus_statistics` computes C from text.

Source: ROME (arXiv 2202.05262), section 3.1 and appendix; the ridge of 1e-4 is this project's choice.
"""

from __future__ import annotations

import hashlib
import json
import tempfile
from dataclasses import asdict, dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Literal

import torch
from pydantic import BaseModel, ConfigDict, Field

from ..errors import NotFinite, StatisticsError

__all__ = [
    "RIDGE",
    "KeyStatistics",
    "StatisticsProvenance",
    "make_identity_statistics",
    "import_rome_npz",
    "load_statistics",
    "save_statistics",
    "write_tensors_atomically",
]

RIDGE = 1e-4
"""Share of C's mean diagonal that is added to its diagonal before the factorisation."""


@dataclass(frozen=True, kw_only=True)
class StatisticsProvenance:
    """The origin of a C: enough to compute it again, and to refuse it for another model."""

    method: Literal["corpus", "identity", "rome-npz"]
    source: str
    """The corpus in words: a file's name, a dataset, or how text was sampled."""
    model_fingerprint: str
    layer: int
    corpus_sha256: str = ""
    tokens: int = 0
    """Number of keys in the mean."""


@dataclass(frozen=True)
class KeyStatistics:
    """C [d_ff, d_ff] in float64 with its provenance."""

    second_moment: torch.Tensor
    provenance: StatisticsProvenance
    ridge: float = field(default=RIDGE)

    def __post_init__(self) -> None:
        """Raise `StatisticsError` or `NotFinite` unless C is square, finite and symmetric."""
        matrix = self.second_moment
        if matrix.ndim != 2 or matrix.shape[0] != matrix.shape[1]:
            raise StatisticsError(
                f"Key statistics have shape {tuple(matrix.shape)}; C must be square: compute it again."
            )
        if not bool(torch.isfinite(matrix).all()):
            raise NotFinite("Key statistics hold NaN or Inf, so no denominator can be trusted; compute them again.")
        skew = float((matrix - matrix.T).abs().max())
        if skew > 1e-3 * float(matrix.abs().max()):
            raise StatisticsError(
                f"Key statistics differ from their transpose by {skew:.3g}; C is symmetric: compute it again."
            )

    def add_moment(self, moment: torch.Tensor) -> KeyStatistics:
        """Return the statistics with C + `moment` [d_ff, d_ff] for C, of the same provenance."""
        return replace(self, second_moment=self.second_moment.double().cpu() + moment)

    @cached_property
    def _is_identity(self) -> bool:
        # What began as the identity may have had keys added.
        return self.provenance.method == "identity" and bool(
            torch.equal(self.second_moment, torch.eye(len(self.second_moment), dtype=self.second_moment.dtype))
        )

    @cached_property
    def _factor(self) -> torch.Tensor:
        size = self.second_moment.shape[0]
        matrix = self.second_moment.double().cpu()
        matrix = matrix + self.ridge * matrix.diagonal().mean() * torch.eye(size, dtype=torch.float64)
        factor: torch.Tensor
        factor, failed = torch.linalg.cholesky_ex(matrix)
        if int(failed):
            raise StatisticsError(
                f"C [{size}, {size}] from {self.provenance.tokens} tokens is not positive definite even with a ridge of "
                f"{self.ridge:g} of its mean diagonal; use more text, or --stats identity."
            )
        return factor

    @cached_property
    def condition_number(self) -> float:
        """The largest eigenvalue of C divided by the smallest, ridge included."""
        if self._is_identity:
            return 1.0
        values = torch.linalg.eigvalsh(self.second_moment.double().cpu())
        shift = self.ridge * float(values.mean())
        return float((values[-1] + shift) / (values[0].clamp(min=0) + shift))

    def solve(self, keys: torch.Tensor) -> torch.Tensor:
        """Return C^-1 k for keys [..., d_ff], in float64 on the CPU."""
        flat = keys.detach().double().cpu().reshape(-1, keys.shape[-1])
        if self._is_identity:
            return flat.reshape(keys.shape)
        return torch.cholesky_solve(flat.T, self._factor).T.reshape(keys.shape)

    def direction(self, key: torch.Tensor, rows: torch.Tensor | None = None) -> torch.Tensor:
        """Return u = M^-1 k / ||M^-1 k|| [d_ff], a unit vector in float64 on the CPU; raises `NotFinite`.

        M is C, or C + R^T R where `rows` R [n, d_ff] are keys with the root of a weight. Their rank is low, so that C's own
        factor solves it (Woodbury identity).
        """
        solved = self.solve(key)
        if rows is None or not len(rows):
            return normalize_direction(solved)
        rows = rows.detach().double().cpu()
        across = self.solve(rows)
        inner = torch.eye(len(rows), dtype=torch.float64) + rows @ across.T
        return normalize_direction(solved - across.T @ torch.linalg.solve(inner, rows @ solved))

    def distance(self, keys: torch.Tensor, origin: torch.Tensor) -> torch.Tensor:
        """Return the distance of keys [..., d_ff] from `origin` in the metric of C: sqrt((a - b)^T C^-1 (a - b))."""
        difference = keys.detach().double().cpu() - origin.detach().double().cpu()
        return (difference * self.solve(difference)).sum(-1).clamp(min=0).sqrt()

    @cached_property
    def sha256(self) -> str:
        """Hash of C's bytes."""
        return hashlib.sha256(self.second_moment.double().cpu().contiguous().numpy().tobytes()).hexdigest()


def normalize_direction(solved: torch.Tensor) -> torch.Tensor:
    """Return C^-1 k [d_ff] at unit length; raises `NotFinite`."""
    norm = solved.norm()
    if not bool(torch.isfinite(norm)) or float(norm) == 0.0:
        raise NotFinite(f"||C^-1 k|| is {float(norm)}, so the update has no direction; check the key statistics.")
    unit: torch.Tensor = solved / norm
    return unit


def make_identity_statistics(size: int, model_fingerprint: str, layer: int) -> KeyStatistics:
    """Return C = identity [size, size], which much published work under the name of ROME uses (``mom2_adjustment: false``)."""
    provenance = StatisticsProvenance(
        method="identity", source="identity matrix", model_fingerprint=model_fingerprint, layer=layer
    )
    return KeyStatistics(torch.eye(size, dtype=torch.float64), provenance, ridge=0.0)


def save_statistics(statistics: KeyStatistics, path: Path) -> None:
    """Write C as safetensors with its provenance in the header; the file appears whole or not at all.

    Raises `StatisticsError` where it cannot be written.
    """
    metadata = {"editguard": json.dumps({"provenance": asdict(statistics.provenance), "ridge": statistics.ridge})}
    write_tensors_atomically(path, {"second_moment": statistics.second_moment.double().cpu().contiguous()}, metadata)


def write_tensors_atomically(path: Path, tensors: dict[str, torch.Tensor], metadata: dict[str, str]) -> None:
    """Write tensors as safetensors: the file appears whole or not at all. Raises `StatisticsError` where it cannot be written."""
    from safetensors import SafetensorError
    from safetensors.torch import save_file

    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        # The folder has a name of its own: another run may write the same statistics into the same cache folder.
        with tempfile.TemporaryDirectory(dir=path.parent, prefix=".statistics-") as folder:
            temporary = Path(folder) / path.name
            save_file(tensors, temporary, metadata=metadata)
            temporary.chmod(0o600)
            temporary.replace(path)
    except (OSError, SafetensorError) as error:
        raise StatisticsError(
            f"The key statistics {str(path)!r} cannot be written ({error}); give a folder that has room and may be written to."
        ) from error


def load_statistics(path: Path, *, size: int, model_fingerprint: str, layer: int) -> KeyStatistics:
    """Read key statistics of this model and layer; raises `StatisticsError` for those of another.

    Shape and dtype are read from the header and compared before the matrix is read.
    """
    if path.suffix == ".npz":
        return import_rome_npz(path, size=size, model_fingerprint=model_fingerprint, layer=layer)
    header, matrix = _read_file(path, size)
    provenance = header.provenance
    if provenance.model_fingerprint != model_fingerprint or provenance.layer != layer:
        raise StatisticsError(
            f"{str(path)!r} holds statistics of model {provenance.model_fingerprint[:12]!r} at layer {provenance.layer}, not "
            f"of {model_fingerprint[:12]!r} at layer {layer}; make them for this model with 'editguard stats'."
        )
    if provenance.method == "identity" and not torch.equal(matrix, torch.eye(size, dtype=matrix.dtype)):
        raise StatisticsError(
            f"{str(path)!r} says that it is the identity, and is not; make the statistics again with 'editguard stats'."
        )
    return KeyStatistics(matrix, provenance, header.ridge)


class _Header(BaseModel):
    """The metadata that `save_statistics` writes."""

    model_config = ConfigDict(extra="forbid", strict=True, allow_inf_nan=False)

    provenance: StatisticsProvenance
    ridge: float = Field(ge=0)


def _read_file(path: Path, size: int) -> tuple[_Header, torch.Tensor]:
    from safetensors import SafetensorError, safe_open

    try:
        if not path.is_file():
            raise FileNotFoundError
        with safe_open(path, framework="pt") as file:
            header = _Header.model_validate_json((file.metadata() or {})["editguard"])
            matrix = file.get_slice("second_moment")
            if matrix.get_dtype() != "F64":
                raise TypeError
            _check_shape(path, tuple(matrix.get_shape()), size)
            return header, file.get_tensor("second_moment")
    except (OSError, SafetensorError, KeyError, TypeError, ValueError) as error:
        raise StatisticsError(
            f"{str(path)!r} holds no key statistics that editguard wrote ({type(error).__name__}); make them with "
            "'editguard stats', or give ROME's .npz."
        ) from error


def import_rome_npz(path: Path, *, size: int, model_fingerprint: str, layer: int) -> KeyStatistics:
    """Read a covariance file of the original ROME code: ``mom2.mom2`` is the sum, ``mom2.count`` the rows.

    Such a file does not name its model, so only its size can be checked. No pickle is read.
    Raises `StatisticsError` or `NotFinite`.
    """
    from .rome_archive import read_archive

    sums = read_archive(path, size)
    if sums.keys <= 0:
        raise StatisticsError(f"{str(path)!r} counts {sums.keys} rows; mom2.count must be positive: compute it again.")
    with path.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    provenance = StatisticsProvenance(
        method="rome-npz",
        source=path.name,
        model_fingerprint=model_fingerprint,
        layer=layer,
        corpus_sha256=digest,
        tokens=sums.keys,
    )
    return KeyStatistics(torch.from_numpy(sums.total) / sums.keys, provenance)


def _check_shape(path: Path, shape: tuple[int, ...], size: int) -> None:
    if shape != (size, size):
        raise StatisticsError(
            f"{str(path)!r} holds a matrix {list(shape)}, but keys at this site have {size} entries; use the "
            "statistics of this model's layer."
        )
