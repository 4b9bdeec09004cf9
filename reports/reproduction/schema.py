"""What a reproduction of "The Fall of ROME" found: the schema of ``reproduction.json``, from which page and tables are made.

One `Experiment` is one question of the paper (arXiv 2406.11263): what it says and what was seen here (`Claim`), the
numbers (`Table`) and pictures of them. An experiment that could not be run is there too, and says why.
"""

from __future__ import annotations

from collections.abc import Sequence
from enum import StrEnum
from typing import Annotated, Literal

from pydantic import Field, model_validator

from ..log.types import SCHEMA_VERSION, Count, Model, Scalar

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
    "edited",
]

Cell = str | bool | int | float | None
Name = Annotated[str, Field(pattern=r"^[a-z0-9]+(-[a-z0-9]+)*$", max_length=100)]
"""An anchor of the page, and of a table the name of its files."""


class Agreement(StrEnum):
    """How what was seen here stands to what the paper says."""

    YES = "agrees"
    NO = "differs"
    OPEN = "cannot be compared"


class Claim(Model):
    """One statement of the paper, what was seen here, whether they agree, and the `rule` by which that is told."""

    paper: str
    here: str
    agreement: Agreement
    rule: str = ""


class Table(Model):
    """Numbers with their counts: one file ``tables/<name>.csv`` and ``.parquet``."""

    name: Name
    title: str
    columns: list[str]
    rows: list[list[Cell]]
    note: str = ""

    @model_validator(mode="after")
    def _fits(self) -> Table:
        if any(len(row) != len(self.columns) for row in self.rows):
            raise ValueError(f"every row of table {self.name!r} must have {len(self.columns)} cells")
        if len(set(self.columns)) != len(self.columns):
            raise ValueError(f"table {self.name!r} names a column twice")
        return self


class Group(Model):
    """Points of one kind, or one curve; `labels` say what each point is, and may be left out."""

    name: str
    x: list[float]
    y: list[float]
    labels: list[str] = Field(default_factory=list)

    @model_validator(mode="after")
    def _fits(self) -> Group:
        if len(self.x) != len(self.y) or (self.labels and len(self.labels) != len(self.x)):
            raise ValueError(f"group {self.name!r} has {len(self.x)} x, {len(self.y)} y and {len(self.labels)} labels")
        return self


class _Drawn(Model):
    name: Name
    title: str
    caption: str
    x_title: str = ""
    y_title: str = ""


class Scatter(_Drawn):
    """Points of several groups; without axis titles the axes have no meaning of their own (a projection)."""

    kind: Literal["scatter"] = "scatter"
    groups: list[Group]
    log_x: bool = False
    log_y: bool = False


class Curves(_Drawn):
    """Lines of several groups."""

    kind: Literal["curves"] = "curves"
    groups: list[Group]
    log_y: bool = False


class Heat(_Drawn):
    """A grid `z` [len(y), len(x)]; None is not measured. With `log` the colour follows the logarithm, the hover the value."""

    kind: Literal["heat"] = "heat"
    x: list[str]
    y: list[str]
    z: list[list[float | None]]
    z_title: str
    log: bool = False

    @model_validator(mode="after")
    def _fits(self) -> Heat:
        if len(self.z) != len(self.y) or any(len(row) != len(self.x) for row in self.z):
            raise ValueError(f"the grid of {self.name!r} must have {len(self.y)} rows of {len(self.x)}")
        return self


Picture = Annotated[Scatter | Curves | Heat, Field(discriminator="kind")]


class Experiment(Model):
    """One question with what answers it; `skipped` says why it was not run, and `broken` that this is editguard's own fault."""

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
        """What to call an experiment that gave nothing: "not run", or "broken" by a fault of editguard's own."""
        return "broken" if self.broken else "not run"

    @model_validator(mode="after")
    def _says(self) -> Experiment:
        if self.skipped is None and not (self.claims or self.tables):
            raise ValueError(f"experiment {self.number} has neither a claim nor a table, and does not say why")
        return self


class CaseCount(Model):
    """How many requests of one kind were edited, of how many that the file holds; which ones was drawn by the seed."""

    kind: str
    edited: Count
    found: Count


class Reproduction(Model):
    """All experiments, with what they were run on."""

    schema_version: Literal[1] = SCHEMA_VERSION
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
    """What was edited, by kind of case."""
    statistics: str
    editors: dict[str, dict[str, Scalar]] = Field(default_factory=dict)
    """Constants of the search for v*, by editor."""
    versions: dict[str, str] = Field(default_factory=dict)
    seconds: float
    experiments: list[Experiment]

    @model_validator(mode="after")
    def _has_its_own_anchor(self) -> Reproduction:
        taken = {"main", "experiments", "provenance"}
        taken |= {f"figure-{picture.name}" for one in self.experiments for picture in one.pictures}
        taken |= {f"table-{table.name}" for one in self.experiments for table in one.tables}
        clash = sorted(taken & {one.name for one in self.experiments})
        if clash:
            raise ValueError(f"an experiment's name is its anchor on the page, which has one {clash[0]!r} already")
        return self

    @model_validator(mode="after")
    def _once(self) -> Reproduction:
        names = [table.name for one in self.experiments for table in one.tables]
        names += [picture.name for one in self.experiments for picture in one.pictures]
        names += [one.name for one in self.experiments]
        twice = sorted({name for name in names if names.count(name) > 1})
        if twice:
            raise ValueError(
                f"names of experiments, tables and pictures must differ, and {', '.join(twice)} is there twice"
            )
        return self


def edited(cases: Sequence[CaseCount]) -> str:
    """Return what was edited in words: "18 of 20 (first token), 100 of 5020 (ordinary)"."""
    return ", ".join(f"{one.edited} of {one.found} ({one.kind})" for one in cases) or "nothing"
