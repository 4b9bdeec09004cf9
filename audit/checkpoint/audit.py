"""The audit of an edited checkpoint, from start to end: header, controls, the model as a whole, every edit, footer.

The log, its verdict and all files beside it are those of any audit. Nothing is edited: the base and the edited model are
compared, and each edit of the file is looked for in the edited one.
"""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from ...probes.errors import EditguardError, InputError
from ...probes.requests.loader import LoadedRequests, load_requests
from ...reports.log.edited_checkpoint import ChangedTensorRecord, EditedCheckpoint, ModelRecord
from ...reports.log.file import LogWriter
from ...reports.log.schema import Footer
from ...reports.text import capitalise
from ...suites.check import CHECKS, EditUnderTest, Outcome
from ...suites.checks.degeneracy import Degeneracy
from ...suites.checks.perplexity import Perplexity
from ...suites.tasks.measure import measure_task
from ...suites.tasks.names import load_tasks
from ..device_failure import trusted_device
from ..edit_result import Proposal
from ..folders.file_names import AUDIT_FILES, LOG
from ..folders.output_folder import locked_folder
from ..guard import GuardedEditor
from ..progress import Progress, show_nothing
from ..run.execute import assess_each
from ..run.outputs import write_outputs
from ..run.to_log import edit_record, edit_record_of_error, generation_record, header, measurement_record, prompt_record
from ..saved_model.manifest import MODEL_MARKER
from ..serving import load_provenance
from .controls import CONTROLS, iter_checkpoint_controls
from .edited_weights import EditedWeights, check_checkpoint, read_edited_weights
from .measure import CheckpointBench, as_found
from .side_effects import SideEffects

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from ...probes.model.language_model import LanguageModel
    from ...probes.requests.request import EditRequest
    from ...reports.log.schema import EditRecord
    from ...reports.verdict.summary import Summary
    from ...suites.tasks.task import Task
    from ..policy import Policy
    from ..setup import Setup

__all__ = ["NO_EDITS", "audit_checkpoint", "run_checkpoint_audit"]

_EDITS_PER_BATCH = 20
_MOST_TENSORS = 64
"""Changed tensors that the log names; it counts all."""
NO_EDITS = LoadedRequests(requests=(), invalid=(), source="", sha256="")
"""Stands for the file of edits where there is none: the model as a whole is judged alone."""


def run_checkpoint_audit(
    setup: Setup,
    loaded: LoadedRequests,
    edited: str,
    out: Path,
    *,
    arguments: dict[str, Any] | None = None,
    allow_pickle: bool = False,
    tasks: Sequence[str | Task] = (),
    overwrite: bool = False,
    progress: Progress = show_nothing,
) -> Summary:
    """Audit the checkpoint `edited` against its base, which `setup` was prepared with, into the folder `out`.

    `loaded` are the edits that it should hold; with `NO_EDITS` the model as a whole is judged alone. `tasks` are asked of both
    models. Raises `ModelError` where `edited` cannot be read or was not made from the base, `InputError` for an unknown task.
    """
    started, guard, asked = time.monotonic(), GuardedEditor(setup), load_tasks(tasks)
    progress("comparing the weights", 0, 1)
    weights = read_edited_weights(setup.lm, edited, allow_pickle=allow_pickle)
    progress("comparing the weights", 1, 1)
    bench = CheckpointBench(setup=setup, weights=weights, needs_prefix=_list_prefixed(weights, loaded.requests))
    controls = CONTROLS if setup.policy.controls else ()
    head = header(setup, loaded, arguments or {}, list(controls), setup.baselines())
    head = head.model_copy(update={"edited": describe_weights(weights)})
    for name in AUDIT_FILES if overwrite else ():
        (out / name).unlink(missing_ok=True)
    with (
        trusted_device(setup.lm.device, "the audit", "audit again with --overwrite"),
        LogWriter(out / LOG) as log,
    ):
        log.write(head)
        progress("controls", 0, len(controls))
        for index, control in enumerate(iter_checkpoint_controls(guard, bench) if controls else ()):
            log.write(control)
            progress("controls", index + 1, len(controls))
        log.write(_judge_model(bench, loaded.requests, asked))
        for record in _iter_edit_records(guard, bench, loaded.requests, progress):
            log.write(record)
        setup.check_unedited()
        records = len(controls) + len(loaded.requests) + 1
        log.write(Footer(records=records, seconds=round(time.monotonic() - started, 3)))
    progress("writing files", 0, 1)
    summary = write_outputs(out)
    progress("writing files", 1, 1)
    return summary


def audit_checkpoint(
    base: str | Path | LanguageModel,
    edited: str | Path,
    edits: LoadedRequests | str | Path = NO_EDITS,
    *,
    out: Path | str,
    policy: Policy | None = None,
    layer: int | None = None,
    seed: int = 0,
    tasks: Sequence[str | Task] = (),
    overwrite: bool = False,
    progress: Progress = show_nothing,
) -> Summary:
    """Audit the checkpoint `edited` against its `base` into the folder `out`, and return the verdict.

    Args:
        base: Name or folder of the unedited model, or the model that is loaded already.
        edited: Name or folder of the checkpoint that another tool edited.
        edits: Edits that it should hold: a file, or what `load_requests` returns. Without them the model as a whole is judged.
        out: Folder for the log and all files beside it.
        policy: Rules and bounds, as `GuardedEditor.load` takes them.
        layer: Layer at which the probes look, from 0. None takes that of the base.
        seed: Seed of everything random, from 0.
        tasks: Tasks that both models are asked, by name or as objects of `editguard.suites.tasks.task.Task`.
        overwrite: Whether an audit that `out` holds is replaced.
        progress: Called with the name of the stage, the steps done and the number of steps.

    Raises:
        ModelError: A model cannot be loaded, or the checkpoint was not made from the base.
        InputError: The folder holds other results, or a task is unknown.
    """
    asked = load_tasks(tasks)
    loaded = edits if isinstance(edits, LoadedRequests) else load_requests(str(edits))
    check_checkpoint(str(edited))
    with locked_folder(Path(out), overwrite=overwrite):
        model = str(base) if isinstance(base, Path) else base
        guard = GuardedEditor.load(model, policy=policy, layer=layer, seed=seed, progress=progress)
        return run_checkpoint_audit(
            guard.setup,
            loaded,
            str(edited),
            Path(out),
            tasks=asked,
            overwrite=overwrite,
            progress=progress,
            arguments={"edited": str(edited), "tasks": ",".join(task.name for task in asked) or None},
        )


def _list_prefixed(weights: EditedWeights, requests: Sequence[EditRequest]) -> frozenset[str]:
    """Return the ids of the edits that act after a prefix only, as the checkpoint's own provenance says of these weights."""
    folder = Path(weights.ref).expanduser()
    if not (folder / MODEL_MARKER.name).is_file():
        return frozenset()
    provenance = load_provenance(folder)
    if provenance.fingerprint != weights.fingerprint:
        return frozenset()  # it is of other weights, such as those before a later edit
    after_prefix = {(edit.subject, edit.prompt, edit.target_new) for edit in provenance.edits if edit.needs_prefix}
    return frozenset(r.id for r in requests if (r.subject, r.prompt, r.target_new) in after_prefix)


def describe_weights(weights: EditedWeights) -> EditedCheckpoint:
    """Return what the log's header says of the edited checkpoint."""
    changes = sorted(weights.changes.items(), key=lambda item: -_size(item[1].relative))
    rounded = weights.rounded_away
    return EditedCheckpoint(
        ref=weights.ref,
        fingerprint=weights.fingerprint,
        tensors=weights.tensors,
        changed=len(weights.changes) - rounded,
        cast=weights.cast,
        rounded_away=rounded,
        kind=capitalise(f"{weights.kind}."),
        changes=[
            ChangedTensorRecord(
                name=name,
                shape=list(weights.values[name].shape),
                rank=None if change.spectrum is None else change.spectrum.determined,
                relative=_finite(change.relative),
            )
            for name, change in changes[:_MOST_TENSORS]
        ],
        differences=[
            *weights.differences,
            *(
                f"The tensor {name} holds NaN or Inf."
                for name, value in weights.values.items()
                if not bool(torch.isfinite(value).all())
            ),
        ],
    )


def _size(value: float) -> float:
    return value if value == value else float("inf")  # NaN first


def _finite(value: float) -> float | None:
    return value if abs(value) < float("inf") else None


def _judge_model(bench: CheckpointBench, requests: Sequence[EditRequest], tasks: Sequence[Task]) -> ModelRecord:
    """Return the record of the edited model as a whole: perplexity, generated text, facts that nobody edited, and tasks."""
    started = time.monotonic()
    try:
        return _measure_model(bench, requests, tasks, started)
    except torch.AcceleratorError:
        raise
    except (EditguardError, RuntimeError, ValueError, ArithmeticError) as error:
        seconds = round(time.monotonic() - started, 3)
        return ModelRecord(verdict="fail", error=f"{type(error).__name__}: {error}", seconds=seconds)


def _measure_model(
    bench: CheckpointBench, requests: Sequence[EditRequest], tasks: Sequence[Task], started: float
) -> ModelRecord:
    neutral, checks = SideEffects.list_requests(())[:1], [CHECKS.get(c.name)() for c in (Perplexity, Degeneracy)]
    with bench.bench.autocast():
        states = [check.prepare(bench.bench, neutral)[0] for check in checks]
    effects = SideEffects(bench.bench, requests)
    scores = _score_tasks(bench, tasks)
    with bench.weights.in_place():
        answers = []
        for check, state in zip(checks, states, strict=True):
            with bench.bench.autocast():
                answers.append(check.measure(bench.bench, EditUnderTest(request=neutral[0], state=state)))
        changed, prompts = effects.measure(bench.setup.policy.max_side_effects)
        scores_now = _score_tasks(bench, tasks)
    most = bench.setup.policy.max_task_loss
    measurements = [*(row for answer in answers for row in answer.measurements), changed]
    for task, before, after in zip(tasks, scores, scores_now, strict=True):
        measurements += measure_task(task, before, after, most, [request.subject for request in requests])
    judged = [row.outcome for row in measurements if row.outcome is not Outcome.INFO]
    return ModelRecord(
        measurements=[measurement_record(row) for row in measurements],
        prompts=[prompt_record(prompt) for prompt in prompts],
        generations=[generation_record(text) for answer in answers for text in answer.generations],
        verdict="pass" if judged and all(outcome is Outcome.PASS for outcome in judged) else "fail",
        seconds=round(time.monotonic() - started, 3),
    )


def _score_tasks(bench: CheckpointBench, tasks: Sequence[Task]) -> list[list[bool | None]]:
    """Return the scores of each task for the model as it is now."""
    with bench.bench.autocast():
        return [task.score(bench.bench.lm) for task in tasks]


def _iter_edit_records(
    guard: GuardedEditor, bench: CheckpointBench, requests: Sequence[EditRequest], progress: Progress
) -> Iterator[EditRecord]:
    """Yield the record of each edit, in order; the base is measured for some of them at a time."""
    progress("edits", 0, len(requests))
    for start in range(0, len(requests), _EDITS_PER_BATCH):
        batch = requests[start : start + _EDITS_PER_BATCH]
        assessments = [as_found(assessment) for assessment in assess_each(guard, batch)]
        pairs = zip(assessments, bench.judge(assessments), strict=True)
        for index, (assessment, judged) in enumerate(pairs, start):
            if judged.result is None:
                error = judged.error or InputError("it was not measured")
                yield edit_record_of_error(guard.setup, judged.request, index, error, Proposal(assessment=assessment))
            else:
                yield edit_record(guard.setup, judged.result, index, is_made=False)
            progress("edits", index + 1, len(requests))
