"""The training stage: from what had matured to a registered challenger, or the reason why there is none.

frame → leakage gate → replay → `candidate` (tune, fit, measure, convert) → registered. The same frame, spec, seed and
number of trials are the same version: training a night twice gives the version that is already there.
"""

import hashlib
import json
import logging
from collections.abc import Sequence
from dataclasses import replace
from datetime import date, datetime

from tiltyard import clock, operating
from tiltyard.clock import night_closing
from tiltyard.errors import Stopped
from tiltyard.fence import Fence
from tiltyard.prepare import data_incidents, frame
from tiltyard.prepare.frame import TrainingFrame
from tiltyard.rails import Rails, records_its_end
from tiltyard.records import ReplaySummary, ShadowSummary, TrainingSummary, VersionFacts
from tiltyard.spec import Spec
from tiltyard.train import candidate, leakage_gate, registry, replay
from tiltyard.train.blocks import Untrainable
from tiltyard.train.candidate import Order
from tiltyard.words import counted, listed

log = logging.getLogger(__name__)

MANY_OUTSIDE = 0.05
"""Share of labels beyond the bounds from which on a training warns."""
SCHEME = 3
"""Part of a version's inputs: raise it when the same frame would give another model."""


@records_its_end("training")
def train(
    rails: Rails,
    spec: Spec,
    as_of: datetime,
    *,
    requested_by: str,
    reasons: Sequence[str] = (),
    trials: int | None = None,
) -> TrainingSummary:
    """Train a challenger on what had matured at `as_of`, and register it.

    A frame that cannot carry a model (too few rows, one class only) gives no version, and the reason. Raises
    CheckFailed when the leakage gate stops the frame, or the replay finds that the past it would learn from was written
    over, and records it, or a table of the model is not published; Fenced when a newer attempt took over.
    """
    night = night_closing(as_of)
    fence = rails.ledger.claim(f"training/{spec.name}/{night}")
    held = rails.ledger.operations.standing(spec.name, night)
    if hold := held.retired or held.frozen:
        return _untrained(rails, spec, night, f"{spec.name} is {operating.in_words(hold)}: nothing is trained")
    publication = rails.publication()
    if unpublished := publication.unpublished(spec.tables):
        raise Stopped(
            f"{spec.name}: no version was trained on {night}, {'; '.join(map(str, unpublished))}. It trains again when "
            "its tables are published.",
            trained=False,
            version=None,
        )
    if not frame.matured(rails, spec, as_of, publication):
        reason = (
            f"no label of the last {clock.format_duration(spec.estimator.window)} has matured, labels take "
            f"{spec.label.wait}"
        )
        return _untrained(rails, spec, night, reason)
    training_frame = frame.training(rails, spec, as_of, publication)
    log.info("%s: training frame %s, %d rows", spec.name, training_frame.digest[:12], training_frame.rows)
    report = leakage_gate.check_frame(rails, spec, training_frame, as_of)
    if report.critical_failures:
        failures = listed([str(failure) for failure in report.critical_failures], "; ")
        raise Stopped(
            f"{spec.name}: the training frame of {night} is stopped by its leakage gate ({failures}); "
            "no version was trained. Mend the feature view and train again.",
            trained=False,
            version=None,
            frame=training_frame.digest,
            rows=training_frame.rows,
        )
    replayed = replay.check(rails, spec, as_of, publication)
    if replayed.critical:
        worst = replayed.critical[0]
        first, last = replayed.ranges[0][0], replayed.ranges[-1][1]
        raise Stopped(
            f"{spec.name}: no version was trained, the replay of {first} to {last} does not agree. "
            f"{worst.tally.feature}: {worst.reason} ({replayed.shown(worst)}). See the rows with tiltyard leakage "
            f"replay --model {spec.name} --from {first} --to {last} --report replay.html; then take the column out of "
            "its feature view, or mend the source.",
            trained=False,
            version=None,
            frame=training_frame.digest,
            rows=training_frame.rows,
            replay=replayed.summary(),
        )
    reasons = (*reasons, *data_incidents.during(rails, spec.source, night_closing(training_frame.start), night))
    return train_on(
        rails,
        spec,
        as_of,
        training_frame,
        fence=fence,
        requested_by=requested_by,
        reasons=reasons,
        trials=trials,
        replayed=replayed.summary(),
    )


def train_on(
    rails: Rails,
    spec: Spec,
    as_of: datetime,
    training_frame: TrainingFrame,
    *,
    fence: Fence,
    requested_by: str,
    reasons: Sequence[str] = (),
    trials: int | None = None,
    replayed: ReplaySummary | None = None,
) -> TrainingSummary:
    """`train` from a frame that has passed the leakage gate on; `fence` is the claim on this training."""
    night = night_closing(as_of)
    trials = trials or spec.estimator.tune.trials
    inputs = inputs_digest(training_frame.digest, spec, rails.settings.seed, trials)
    version, reused = rails.ledger.version_of_inputs(spec.name, inputs), True
    if version is None:
        try:
            began, order = clock.now(), Order(as_of, inputs, trials, requested_by, tuple(reasons))
            made = replace(candidate.make(rails.settings, spec, training_frame, order), began=began)
        except Untrainable as error:
            return _untrained(rails, spec, night, str(error), training_frame)
        version, reused = registry.register(rails, spec, made, fence)
    registry.name_challenger(rails, spec.name)
    log.info("%s: version %d %s", spec.name, version.version, "was there already" if reused else "registered")
    warnings = (*_warnings(version.facts), *_of_labels(rails, spec, night))
    for warning in warnings:
        log.warning("%s: version %d: %s", spec.name, version.version, warning)
    summary = TrainingSummary(
        night=night,
        model=spec.name,
        trained=True,
        reused=reused,
        version=version.version,
        frame=training_frame.digest,
        rows=training_frame.rows,
        metrics=version.facts.metrics,
        run_id=version.run_id,
        reasons=tuple(reasons),
        requested_by=requested_by,
        replay=replayed,
        warnings=warnings,
    )
    rails.ledger.record_stage(spec.name, night, "done", summary)
    return summary


def _warnings(facts: VersionFacts) -> tuple[str, ...]:
    """What a person should know of how a version was made, a sentence each."""
    warnings: tuple[str, ...] = ()
    if facts.device_reason:
        warnings += (f"It was to be fitted on another device: {facts.device_reason}.",)
    outside, rows = facts.labels_outside_bounds or 0, facts.rows or 0
    if outside > MANY_OUTSIDE * rows:
        learned = "the bounds that were learned" if facts.bounds else "label.bounds"
        warnings += (
            f"{outside:,} of {rows:,} labels lie beyond {learned} and count as the nearer one; write label.bounds that "
            "hold them.",
        )
    dead = [feature for feature in facts.filled if feature.is_dead]
    if not dead:
        return warnings
    names = ", ".join(map(str, dead))
    return (
        *warnings,
        f"{len(dead)} of {counted(len(facts.filled), 'feature')} had at most one value at training: {names}. Mend "
        "their feature views, or take them out.",
    )


def _of_labels(rails: Rails, spec: Spec, night: date) -> tuple[str, ...]:
    """What the night has found of the labels, where it is no good."""
    run = rails.ledger.stage_run(ShadowSummary, spec.name, night)
    found = run.summary.labels if run else None
    if found is None or not (found.suspect or found.untested):
        return ()
    if found.untested:
        return (f"Its newest labels are untested: {found.untested}.",)
    return (f"Its newest {found.reason}. The gate promotes it when a person has released them.",)


def _untrained(
    rails: Rails, spec: Spec, night: date, reason: str, training_frame: TrainingFrame | None = None
) -> TrainingSummary:
    log.info("%s: no version, %s", spec.name, reason)
    summary = TrainingSummary(
        night=night,
        model=spec.name,
        reason=reason,
        frame=training_frame.digest if training_frame else None,
        rows=training_frame.rows if training_frame else 0,
    )
    rails.ledger.record_stage(spec.name, night, "done", summary)
    return summary


def inputs_digest(frame: str, spec: Spec, seed: int, trials: int) -> str:
    """What makes a version: two trainings with the same digest would give the same model."""
    parts = {"frame": frame, "spec": spec.recipe, "seed": seed, "trials": trials, "scheme": SCHEME}
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()
