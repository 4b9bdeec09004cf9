"""The schema of ``reproduction.json``, the result of reproducing "The Fall of ROME". Page and tables are made from it.

An `Experiment` is a question of the paper (arXiv 2406.11263). It holds statements of the paper with the result here
(`Claim`), numbers (`Table`) and pictures. An experiment that could not be run is listed too, with the reason.
"""

from __future__ import annotations

from enum import StrEnum
from typing import TYPE_CHECKING, Annotated, Literal

from pydantic import Field, model_validator

from ..log.types import Count, Model, Scalar

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = [
    "Agreement",
    "CaseCount",
    "Claim",
    "Curves",
    "Experiment",
    "Group",
    "Heat",
    "Picture",
    "Reproduction",
    "Scatter",
    "Table",
    "describe_cases",
]

Cell = str | bool | int | float | None
Name = Annotated[str, Field(pattern=r"^[a-z0-9]+(-[a-z0-9]+)*$", max_length=100)]
"""The anchor on the page. A table's files have the same name."""


class Agreement(StrEnum):
    """Whether the result here agrees with the paper."""

    YES = "agrees"
    NO = "differs"
    OPEN = "cannot be compared"


class Claim(Model):
    """A statement of the paper, the result here, and whether they agree by the `rule`."""

    paper: str
    here: str
    agreement: Agreement
    rule: str = ""


class Table(Model):
    """Numbers with their counts. They are written as ``tables/<name>.csv`` and ``.parquet``."""

    name: Name
    title: str
    columns: list[str]
    rows: list[list[Cell]]
    note: str = ""

    @model_validator(mode="after")
    def _check_shape(self) -> Table:
        if any(len(row) != len(self.columns) for row in self.rows):
            raise ValueError(f"every row of table {self.name!r} must have {len(self.columns)} cells")
        if len(set(self.columns)) != len(self.columns):
            raise ValueError(f"table {self.name!r} names a column twice")
        return self


class Group(Model):
    """Points of one kind, or one curve. `labels` name the points, and may be left out."""

    name: str
    x: list[float]
    y: list[float]
    labels: list[str] = Field(default_factory=list)

    @model_validator(mode="after")
    def _check_shape(self) -> Group:
        if len(self.x) != len(self.y) or (self.labels and len(self.labels) != len(self.x)):
            raise ValueError(f"group {self.name!r} has {len(self.x)} x, {len(self.y)} y and {len(self.labels)} labels")
        return self


class _PictureBase(Model):
    name: Name
    title: str
    caption: str
    x_title: str = ""
    y_title: str = ""


class Scatter(_PictureBase):
    """Points of several groups. Without axis titles the axes have no unit, as in a projection."""

    kind: Literal["scatter"] = "scatter"
    groups: list[Group]
    log_x: bool = False
    log_y: bool = False


class Curves(_PictureBase):
    """Lines of several groups."""

    kind: Literal["curves"] = "curves"
    groups: list[Group]
    log_y: bool = False


class Heat(_PictureBase):
    """A grid `z` [len(y), len(x)], in which None means not measured.

    With `log` the colour follows the logarithm. The text under the pointer gives the value.
    """

    kind: Literal["heat"] = "heat"
    x: list[str]
    y: list[str]
    z: list[list[float | None]]
    z_title: str
    log: bool = False

    @model_validator(mode="after")
    def _check_shape(self) -> Heat:
        if len(self.z) != len(self.y) or any(len(row) != len(self.x) for row in self.z):
            raise ValueError(f"the grid of {self.name!r} must have {len(self.y)} rows of {len(self.x)}")
        return self


Picture = Annotated[Scatter | Curves | Heat, Field(discriminator="kind")]


class Experiment(Model):
    """A question of the paper with its answer.

    `skipped` gives the reason why it was not run. `broken` means that the reason is a fault of editguard.
    """

    number: Count
    name: Name
    title: str
    question: str
    source: str
    claims: list[Claim] = Field(default_factory=list)
    tables: list[Table] = Field(default_factory=list)
    pictures: list[Picture] = Field(default_factory=list)
    notes: list[str] = Field(default_factory=list)
    skipped: str | None = None
    broken: bool = False

    @property
    def standing(self) -> str:
        """The words for an experiment without a result: "not run", or "broken" by a fault of editguard."""
        return "broken" if self.broken else "not run"

    @model_validator(mode="after")
    def _check_content(self) -> Experiment:
        if self.skipped is None and not (self.claims or self.tables):
            raise ValueError(f"experiment {self.number} has neither a claim nor a table; give the reason in `skipped`")
        return self


class CaseCount(Model):
    """The number of requests of one kind that were edited, of all that the file holds. The seed chose them."""

    kind: str
    edited: Count
    found: Count


class Reproduction(Model):
    """All experiments, with the model, the requests and the settings of the run."""

    schema_version: Literal[1] = 1
    editguard_version: str
    created: str
    command: str
    model: str
    model_fingerprint: str
    layer: Count
    layers: Count
    seed: int
    source: str
    source_sha256: str
    requests: Count
    cases: list[CaseCount]
    """Counts of edited requests, by kind of case."""
    statistics: str
    editors: dict[str, dict[str, Scalar]] = Field(default_factory=dict)
    """Constants of the search for v*, by editor."""
    versions: dict[str, str] = Field(default_factory=dict)
    seconds: float
    experiments: list[Experiment]

    @model_validator(mode="after")
    def _check_anchors(self) -> Reproduction:
        taken = {"main", "experiments", "provenance"}
        taken |= {f"figure-{picture.name}" for experiment in self.experiments for picture in experiment.pictures}
        taken |= {f"table-{table.name}" for experiment in self.experiments for table in experiment.tables}
        clash = sorted(taken & {experiment.name for experiment in self.experiments})
        if clash:
            raise ValueError(
                f"the name {clash[0]!r} of an experiment is already an anchor of the page; choose another name"
            )
        return self

    @model_validator(mode="after")
    def _check_unique_names(self) -> Reproduction:
        names = [table.name for experiment in self.experiments for table in experiment.tables]
        names += [picture.name for experiment in self.experiments for picture in experiment.pictures]
        names += [experiment.name for experiment in self.experiments]
        duplicates = sorted({name for name in names if names.count(name) > 1})
        if duplicates:
            raise ValueError(
                f"names of experiments, tables and pictures must differ; rename the duplicates of {', '.join(duplicates)}"
            )
        return self


def describe_cases(cases: Sequence[CaseCount]) -> str:
    """Return the counts of edited requests in words: "18 of 20 (first token), 100 of 5020 (ordinary)"."""
    return ", ".join(f"{count.edited} of {count.found} ({count.kind})" for count in cases) or "nothing"
