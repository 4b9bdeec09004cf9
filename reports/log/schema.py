"""The log of an audit, version 2: one JSON object a line, told apart by `kind`.

Order in a file: one `Header`, then an `EditRecord` for each request and a `ControlRecord` for each control, in any
order, then one `Footer`. The audit of a checkpoint has one `ModelRecord` too. A log without a footer is unfinished, and an
unfinished audit never passes.

Three rules hold throughout. Unknown fields are errors. A float is finite or null: JSON has no NaN, so a writer puts null
for a quantity that could not be measured, and the verdict ``unmeasured`` beside it; null with the verdict ``pass`` is
refused. Counts come as passed / failed / not judged / total, and add up.

The digest looks for the names in `types`: `HeadlineCheck`, `PERPLEXITY`, `PERPLEXITY_RATIO`, `DENOMINATOR`, `Condition`.
Other checks, metrics and conditions are printed as they stand. Out of scope: reading and writing files (`file`), verdicts
over a log (`digest`), and logs of older versions (`upgrade`).
"""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, JsonValue, TypeAdapter, field_validator, model_validator

from .control_observations import ControlObservation
from .edited_checkpoint import EditedCheckpoint, ModelRecord
from .header import BaselineValue, CardRecord, ModelInfo, PrefixRecord, SkippedRequest, Statistics, ThresholdRecord
from .measurements import Generation, MeasurementRecord
from .prompt_outcomes import PromptOutcome
from .types import SCHEMA_VERSION, Count, Model, Point, Rate, Scalar, json_sha256

__all__ = [
    "RECORD",
    "ControlRecord",
    "DecisionRecord",
    "EditBody",
    "EditRecord",
    "FindingRecord",
    "Footer",
    "Generation",
    "Header",
    "Keys",
    "MeasurementRecord",
    "ModelRecord",
    "Record",
    "SiteHashes",
    "SiteUpdate",
    "Update",
    "Weights",
]

# ---------------------------------------------------------------------------------------------------------- header


class Header(Model):
    """Everything that the records below have in common, and all that is needed to run the audit again.

    `requests` counts the valid requests: a complete log has as many edit records. `controls` lists the ids of the expected
    control records; a missing one voids the audit. `policy` is the table that was in force; the digest reads ``controls``,
    ``collapse_ratio`` and ``allow_refused`` from it.
    """

    kind: Literal["header"] = "header"
    schema_version: Literal[2] = SCHEMA_VERSION
    editguard_version: str
    created: str
    seed: int
    arguments: dict[str, Scalar]
    model: ModelInfo
    layer: Count
    """Layer of the main site, where requests are probed and edits are made unless their editor names other layers."""
    site: str
    """Path of the main site."""
    source: str
    source_sha256: str
    requests: Count
    skipped_invalid: list[SkippedRequest] = Field(default_factory=list)
    unused: list[str] = Field(default_factory=list)
    """Parts of the source that the audit does not use, one sentence each."""
    statistics: Statistics
    prefixes: list[PrefixRecord] = Field(default_factory=list)
    settings: dict[str, Scalar] = Field(default_factory=dict)
    """Constants of the search for v* as the user set them; an editor may have its own."""
    perplexity_corpus_sha256: str = ""
    policy: dict[str, JsonValue]
    thresholds: list[ThresholdRecord] = Field(default_factory=list)
    cards: list[CardRecord] = Field(default_factory=list)
    """Of every probe and check that was registered, so that a reader needs neither them nor their packages."""
    baseline: list[BaselineValue] = Field(default_factory=list)
    controls: list[str] = Field(default_factory=list)
    in_sequence: bool = False
    """True: edits were kept one after the other. False: each was undone before the next."""
    edited: EditedCheckpoint | None = None
    """The checkpoint that holds the edits. Null: the audit made them itself."""
    versions: dict[str, str] = Field(default_factory=dict)

    @property
    def policy_sha256(self) -> str:
        """Hash of the policy that was in force, over its JSON with sorted keys."""
        return json_sha256(self.policy)

    @field_validator("policy")
    @classmethod
    def _known_types(cls, policy: dict[str, JsonValue]) -> dict[str, JsonValue]:
        ratio = policy.get("collapse_ratio")
        if "collapse_ratio" in policy and (isinstance(ratio, bool) or not isinstance(ratio, int | float) or ratio <= 0):
            raise ValueError(f"collapse_ratio is {ratio!r}, but must be a number over 0")
        for name in ("controls", "allow_refused"):
            if name in policy and not isinstance(policy[name], bool):
                raise ValueError(f"{name} is {policy[name]!r}, but must be true or false")
        return policy


# ----------------------------------------------------------------------------------------------------------- edits


class FindingRecord(Model):
    """The finding of one probe about one request, with the threshold that its value was compared with."""

    probe: str
    level: Literal["ok", "notice", "risk", "error"]
    value: float | None = None
    threshold: float | None = None
    unit: str = ""
    message: str
    details: dict[str, Scalar] = Field(default_factory=dict)


class DecisionRecord(Model):
    """The policy's decision before a weight was changed; `editor` is null for a refused edit."""

    action: Literal["allow", "rewrite", "refuse"]
    editor: str | None = None
    reasons: list[str] = Field(default_factory=list)

    @model_validator(mode="after")
    def _says_why(self) -> DecisionRecord:
        if self.action == "refuse" and not self.reasons:
            raise ValueError("a refused edit has no reason, but must give one")
        if self.action != "refuse" and self.editor is None:
            raise ValueError(f"action {self.action!r} names no editor, but must name the one that makes the edit")
        return self


class Keys(Model):
    """The subject's keys. `denominator` is |u . k_u|; the points are projections that a figure shows."""

    first_token: bool
    denominator: float | None
    denominator_prefixed: float | None
    denominator_ratio: float | None
    cosine: float | None
    norm_ratio: float | None
    predicted_relative_norm: float | None = None
    """Upper bound of ||Delta|| / ||W|| for the edit as published."""
    subject_point: Point | None = None
    prefixed_points: list[Point] = Field(default_factory=list)
    mean_point: Point | None = None


class SiteUpdate(Model):
    """The change of the weight at one site; `relative_norm` is ||Delta|| / ||W||.

    Figures of the value that was put in are null where no value explains the change.
    """

    layer: Count
    path: str
    """Path of the site in the model."""
    rank: Annotated[int, Field(ge=1)]
    """Rank of the change, as its factors have it."""
    numerator: float | None
    denominator: float | None
    update_norm: float | None
    relative_norm: float | None
    steps: Count | None
    final_loss: float | None
    engine: str = ""
    """The engine that the search for v* used in the end."""
    statistics_sha256: str | None = None
    """Hash of the key statistics of this site, which for the main site are those of the header. Null: none were used, or the log
    was written before this was recorded."""


class Update(Model):
    """Size of the update: the whole, and each site that it changes, from the lowest layer up."""

    editor: str
    update_norm: float | None
    """||Delta|| over all sites: the root of the sum of their squares."""
    relative_norm: float | None
    """The root of the sum of the squares of the sites' ||Delta|| / ||W||; the policy's bound is compared with it."""
    changes: Annotated[list[SiteUpdate], Field(min_length=1)]
    """Of each site, from the lowest layer up."""
    needs_prefix: bool
    prefix: str | None = None
    """Prefix of a text that begins with the subject when the edit is served. Null: none is needed, none of the tried prefixes
    serves it, or the log was written before this was measured."""

    @property
    def hardest_search(self) -> SiteUpdate | None:
        """The site whose search for v* ended with the largest loss; None where no loss is known."""
        searched = [change for change in self.changes if change.final_loss is not None]
        return max(searched, key=lambda change: change.final_loss or 0.0, default=None)


class SiteHashes(Model):
    """Hashes of the weight at one site: before, edited, and after the roll-back (null for a kept edit)."""

    before: str
    edited: str | None = None
    restored: str | None = None
    restored_ok: bool | None = None


class Weights(Model):
    """Hashes of the weights that an edit changed."""

    sites: Annotated[dict[str, SiteHashes], Field(min_length=1)]
    """By the path of the site."""
    kept: bool = False
    """True: the edit stayed in the model for the edits after it, in an audit in sequence."""

    @property
    def before(self) -> dict[str, str]:
        """The hash of each weight before the edit, by path."""
        return {path: hashes.before for path, hashes in self.sites.items()}

    @property
    def edited(self) -> dict[str, str | None]:
        """The hash of each weight with the edit, by path."""
        return {path: hashes.edited for path, hashes in self.sites.items()}

    @property
    def restored_ok(self) -> bool | None:
        """Whether every weight was proved to be restored: false where one was not, null where one is not known."""
        each = [hashes.restored_ok for hashes in self.sites.values()]
        return False if False in each else None if None in each else True

    @model_validator(mode="after")
    def _one_or_the_other(self) -> Weights:
        if self.kept and any(
            hashes.restored is not None or hashes.restored_ok is not None or hashes.edited is None
            for hashes in self.sites.values()
        ):
            raise ValueError("kept is true, but the weights were rolled back or no edit was in them")
        return self


class EditBody(Model):
    """The part that edit and control records share: request, findings, decision, measurements, outcome.

    `index` is the request's place in its source. `outcome` ``committed`` means that the edit passed the guard, whether
    or not the audit then undid it; ``judged`` that it was judged as a checkpoint holds it, and nothing was made. `seconds` of
    wall time.
    """

    kind: str
    id: Annotated[str, Field(min_length=1)]
    index: Count
    group: str = ""
    subject: str
    prompt: str
    target_new: str
    target_true: str | None = None
    paraphrases: list[str] = Field(default_factory=list)
    neighbourhood: list[str] = Field(default_factory=list)
    true_aliases: list[str] = Field(default_factory=list)
    other_facts: list[str] = Field(default_factory=list)
    question: str | None = None
    space: bool | None = None
    """Whether a space stands between prompt and target: as the file forces it, else as script and punctuation need it."""
    not_judged: list[str] = Field(default_factory=list)
    """Prompts of the file that no check judges."""
    prompts: list[PromptOutcome] = Field(default_factory=list)
    """Answers to each prompt that the edit must not change."""
    findings: list[FindingRecord] = Field(default_factory=list)
    decision: DecisionRecord
    keys: Keys | None = None
    update: Update | None = None
    measurements: list[MeasurementRecord] = Field(default_factory=list)
    generations: list[Generation] = Field(default_factory=list)
    outcome: Literal["committed", "rolled-back", "judged", "refused", "errored"]
    verdict: Literal["pass", "fail", "refused"]
    error: str | None = None
    weights: Weights | None = None
    seconds: float

    @model_validator(mode="after")
    def _coherent(self) -> EditBody:
        if (self.outcome == "refused") != (self.verdict == "refused"):
            raise ValueError(
                f"outcome {self.outcome!r} has verdict {self.verdict!r}, but 'refused' goes with 'refused'"
            )
        if self.verdict == "pass" and (self.outcome not in ("committed", "judged") or self.error is not None):
            raise ValueError(
                f"verdict 'pass' has outcome {self.outcome!r}, but only a committed or judged edit without an error passes"
            )
        failed = [m.metric for m in self.measurements if m.verdict in ("fail", "unmeasured")]
        if self.verdict == "pass" and failed:
            raise ValueError(f"verdict 'pass' has measurements that did not pass ({', '.join(failed)})")
        if self.weights is not None and self.weights.kept and self.verdict != "pass":
            raise ValueError(
                f"weights are kept with verdict {self.verdict!r}, but only an edit that passed stays in the model"
            )
        if self.outcome == "errored" and not self.error:
            raise ValueError("outcome 'errored' has no error text, but must have one")
        if self.outcome == "judged" and (self.update is not None or self.weights is not None):
            raise ValueError("outcome 'judged' has an update or weights, but nothing was made")
        if self.decision.action == "refuse" and self.outcome in ("committed", "rolled-back", "judged"):
            raise ValueError(f"decision 'refuse' has outcome {self.outcome!r}, but a refused edit is not made")
        return self


class EditRecord(EditBody):
    """One requested edit, guarded."""

    kind: Literal["edit"] = "edit"


class ControlRecord(EditBody):
    """A control: an edit whose result is known. `ok`: it had that result, and every probe and check behaved as it must."""

    kind: Literal["control"] = "control"
    expect: Literal["collapse", "sound", "unedited"]
    """``unedited``: the base itself, which must not say the target and must pass all else."""
    ok: bool
    sightings: list[ControlObservation] = Field(default_factory=list)
    """Control observations; empty in the first logs of version 1."""
    tried: list[str] = Field(default_factory=list)
    """Candidates that were tried before this one and did not have the known result."""

    @model_validator(mode="after")
    def _error_is_not_ok(self) -> ControlRecord:
        if self.ok and self.outcome == "errored":
            raise ValueError("ok is true with outcome 'errored', but an unmeasured control proves nothing")
        if self.weights is not None and self.weights.kept:
            raise ValueError("weights are kept, but a control is always undone")
        if self.ok and (failed := [observation.name for observation in self.sightings if observation.ok is False]):
            raise ValueError(f"ok is true, but {', '.join(failed)} did not behave as expected")
        return self


class Footer(Model):
    """Last line of a finished log; `records` counts its edit, control and model records."""

    kind: Literal["footer"] = "footer"
    status: Literal["finished"] = "finished"
    records: Count
    retained: Rate | None = None
    """Kept edits of a sequence whose target the model still says at the end, as they are served."""
    lost: list[str] = Field(default_factory=list)
    """Ids of kept edits whose target it no longer says."""
    seconds: float


Record = Annotated[Header | EditRecord | ControlRecord | ModelRecord | Footer, Field(discriminator="kind")]
"""Any line of a log."""

RECORD: TypeAdapter[Header | EditRecord | ControlRecord | ModelRecord | Footer] = TypeAdapter(Record)
"""Parser of one line; use it strictly: `RECORD.validate_json(line, strict=True)`."""
