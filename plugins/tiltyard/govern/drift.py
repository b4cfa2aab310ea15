"""The drift stage: has the world moved away from what the model was trained on, and does the model feel it?

Nothing is read twice: the shadow stage counts every night's rows into the version's own histograms (profile.py), and
this stage reads those counts, the truth that has matured, and what it said the night before. change.py decides from
them, without touching anything: an alarm is evidence within the portfolio's budget of false alarms (detector.py), an
effect that shows in k of n windows, and Evidently's own verdict on the raw rows of the window. Kinds are kept apart:
feature, prediction, label, performance, missing.

Raw rows are read, and Evidently is imported, only where they are asked: when an alarm is about to be raised, and for
the page, which is drawn when somebody opens it (page.py). What is broken (a stage that did not
end, an open data incident, a column that went missing or came in another unit) is named with its place and raises
nothing.

What follows from it is the governor's.
"""

import json
from collections.abc import Sequence
from datetime import date, datetime
from pathlib import Path

import duckdb
import pandas as pd

from tiltyard import lake
from tiltyard.answered import skew
from tiltyard.clock import night_closing
from tiltyard.fence import Fence
from tiltyard.govern import page
from tiltyard.govern.change import DriftComparison
from tiltyard.govern.look import Look, since_training
from tiltyard.govern.raw import ordered
from tiltyard.pages import kit
from tiltyard.prepare import data_incidents, frame
from tiltyard.rails import Rails, drawing, records_its_end
from tiltyard.records import Broken, DriftSummary, Finding, JsonObject, Signal, SinceTraining, Skew
from tiltyard.spec import Spec
from tiltyard.stages import StageName, recorded_as
from tiltyard.succession import Roles
from tiltyard.tables import DRIFT, DRIFT_DETECTOR
from tiltyard.train import profile
from tiltyard.words import listed, strength

STAGE: StageName = "drift"


@records_its_end(STAGE)
def measure_night(rails: Rails, spec: Spec, as_of: datetime) -> DriftSummary:
    """Look at one model on one night, after its shadow stage, and tell the governor what there is to know.

    `report` of what it returns is where its page is drawn when somebody opens it (page.py). Raises BadInput when no
    features were ever published.
    """
    night = night_closing(as_of)
    claim = rails.ledger.claim(f"{STAGE}/{spec.name}/{night}")
    roles = rails.ledger.roles(spec.name, night)
    version = roles.champion if roles.champion is not None else max(roles.challengers, default=None)
    broken = _broken(rails, spec, as_of, ("features",) if version is None else ("features", "shadow"))
    comparison, matured = None, 0
    online: Skew | None = None
    signals: tuple[Signal, ...] = ()
    if version is None:
        matured = frame.matured(rails, spec, as_of, rails.publication())
    else:
        look = Look(rails, spec, as_of, version)
        comparison, signals = look.compared(trusted=not broken)
        online = skew.look(rails, spec, as_of, version, look.production)
        broken += look.empty
        if comparison is not None:
            broken += comparison.broken
    drawn = page.path(rails.settings, spec.name, night)
    passed = since_training(rails, spec, as_of, before=night)
    finding = _finding(spec, night, roles, comparison, signals, broken, matured, passed, drawn)
    summary = _summary(version, finding, comparison, online)
    with drawing(rails, str(drawn.relative_to(rails.settings.reports)), night):
        kit.save(json.dumps(_document(summary, finding), indent=1), drawn.with_suffix(".json"))
    _store(rails, spec, as_of, version, finding, comparison, claim)
    with claim.held():
        rails.ledger.add_finding(finding)
        if drawn.exists():  # of an earlier attempt; whoever opens it next gets this one's
            with drawing(rails, str(drawn.relative_to(rails.settings.reports)), night):
                drawn.unlink(missing_ok=True)
    rails.ledger.record_stage(spec.name, night, "done", summary)
    return summary


# -- in records and in words ----------------------------------------------------------------------


def _finding(
    spec: Spec,
    night: date,
    roles: Roles,
    comparison: DriftComparison | None,
    signals: Sequence[Signal],
    broken: tuple[Broken, ...],
    matured: int,
    passed: SinceTraining,
    drawn: Path,
) -> Finding:
    return Finding(
        model=spec.name,
        night=night,
        tier=spec.tier,
        owner=spec.owner,
        champion=roles.champion,
        challengers=roles.challengers,
        alarm=comparison.alarm if comparison else False,
        evidence=comparison.evidence if comparison else None,
        threshold=comparison.threshold if comparison else None,
        harm=comparison.harm if comparison else "unknown",
        harm_reason=comparison.harm_reason if comparison else "",
        signals=ordered(signals),
        broken=broken,
        since_training=passed,
        matured=matured,
        min_matured=spec.gate.min_matured,
        report=str(drawn) if comparison else None,
    )


def _summary(
    version: int | None, finding: Finding, comparison: DriftComparison | None, online: Skew | None
) -> DriftSummary:
    return DriftSummary(
        model=finding.model,
        night=finding.night,
        version=version,
        verdict=_verdict(version, finding),
        reasons=tuple(broken.reason for broken in finding.broken) or sentences(finding),
        report=finding.report,
        alarm=finding.alarm,
        raised=comparison.raised if comparison else False,
        evidence=finding.evidence,
        threshold=finding.threshold,
        harm=finding.harm,
        harm_reason=finding.harm_reason,
        broken=finding.broken,
        drifted=tuple(signal.column for signal in finding.signals if signal.drifted),
        untested={signal.column: signal.note for signal in finding.signals if signal.value is None},
        skew=online,
    )


def _document(summary: DriftSummary, finding: Finding) -> JsonObject:
    """What is kept as a file beside the page: the summary, and under `columns` every signal."""
    columns: JsonObject = {}
    for signal in finding.signals:
        body = signal.to_json()
        name = body.pop("column")
        columns[f"missing/{name}" if signal.kind == "missing" else str(name)] = body
    left_out = {"reason", "drifted", "untested"} | ({"skew"} if summary.skew is None else set())
    return {name: value for name, value in summary.to_json().items() if name not in left_out} | {"columns": columns}


def _verdict(version: int | None, finding: Finding) -> str:
    if version is None:
        return "no_reference"
    return "broken" if finding.broken else "alarm" if finding.alarm else "steady"


def sentences(finding: Finding) -> tuple[str, ...]:
    """The finding in sentences: what moved, of which kind, how strong the evidence is, and whether it is felt."""
    drifted = [signal for signal in finding.signals if signal.drifted]
    lines = []
    for kind in ("performance", "label", "prediction", "feature"):
        signals = [signal for signal in drifted if signal.kind == kind]
        if signals:
            what = listed([_measure(signal) for signal in signals], "; ")
            lines.append(f"{kind} drift: {what}" if kind != "performance" else f"performance: {what}")
    if finding.evidence is not None and finding.threshold is not None:
        verdict = ", an alarm" if finding.alarm else _lacking(finding)
        lines.append(f"evidence {strength(finding.evidence)} of {finding.threshold:,.0f}{verdict}")
    if finding.alarm or finding.harm == "felt":
        lines.append(f"{finding.harm.replace('_', ' ')}: {finding.harm_reason}")
    untested = {
        f"{signal.kind} not tested: {signal.note}"
        for signal in finding.signals
        if signal.value is None and signal.kind != "feature"
    }
    return (*lines, *sorted(untested)) or ("nothing could be tested",)


def _lacking(finding: Finding) -> str:
    """What evidence that has reached its limit still lacks for an alarm; nothing where it has not reached it."""
    limit = finding.threshold
    if finding.evidence is None or limit is None or finding.evidence < limit:
        return ""
    moved = [signal for signal in finding.signals if signal.drifted and signal.kind not in ("missing", "performance")]
    proven = [signal.column for signal in moved if (signal.evidence or 0.0) >= limit]
    if proven:
        return f", no alarm: Evidently does not find {listed(proven)} drifted in the raw rows"
    if moved:
        return f", no alarm: {listed([signal.column for signal in moved])} moved, without evidence of their own"
    measured = [signal for signal in finding.signals if signal.value is not None and signal.threshold]
    shifts = [signal for signal in measured if signal.kind not in ("missing", "performance")]
    nearest = max(shifts, key=lambda signal: (signal.value or 0.0) / (signal.threshold or 1.0), default=None)
    return f", no alarm: no column moved far enough, the nearest is {_measure(nearest)}" if nearest else ", no alarm"


def _measure(signal: Signal) -> str:
    if signal.kind == "performance" and signal.note and signal.column != profile.LOSS:
        return signal.note
    return f"{signal.statistic} of {signal.column} {signal.value:.3f} (limit {signal.threshold:.3f})"


def _broken(rails: Rails, spec: Spec, as_of: datetime, stages: Sequence[StageName]) -> tuple[Broken, ...]:
    """Why the night's rows are not what they should be: a stage that has not ended well, an open data incident, a table
    that is not good. A model with something broken is not retrained."""
    night = night_closing(as_of)
    broken = []
    for stage in stages:
        status = rails.ledger.stage_status(stage, recorded_as(stage, spec.name, spec.source), night)
        if status != "done":
            state = status or "not done"
            broken.append(Broken(stage, None, f"the {stage} stage of {night} is {state}"))
    broken += [
        Broken(incident.table, incident.column or None, str(incident))
        for incident in data_incidents.of_model(rails, spec, night)
    ]
    # not the spine: where it had no rows there is nothing to look at, and where it has them they are good by now
    read = {*spec.prediction.features, spec.label.table}
    states = [state for state in rails.ledger.table_states(until=night) if state.table in read]
    causes = {state.cause or state.table: state for state in states if not state.is_published}
    broken += [Broken(table, None, str(state)) for table, state in sorted(causes.items())]
    return tuple(broken)


# -- what is kept -------------------------------------------------------------------------------


def _store(
    rails: Rails,
    spec: Spec,
    as_of: datetime,
    version: int | None,
    finding: Finding,
    comparison: DriftComparison | None,
    claim: Fence,
) -> None:
    night = night_closing(as_of)
    rails.lake.ensure(DRIFT)
    rails.lake.ensure(DRIFT_DETECTOR)
    shared = {"model": spec.name, "night": night, "version": version, "available_at": as_of}
    rows = pd.DataFrame(
        [
            {
                **shared,
                "column_name": signal.column,
                "kind": signal.kind,
                "statistic": signal.statistic,
                "value": signal.value,
                "threshold": signal.threshold,
                "drifted": signal.drifted,
                "note": signal.note,
            }
            for signal in finding.signals
        ],
        columns=list(DRIFT.columns),
    )
    standing = comparison.standing if comparison else None
    columns = {
        signal.column: {"evidence": signal.evidence, "weight": signal.weight}
        for signal in finding.signals
        if signal.weight
    }
    state = pd.DataFrame(
        [
            {
                **shared,
                "start": date.fromordinal(standing.start) if standing else None,
                "since": date.fromordinal(standing.since) if standing and standing.since is not None else None,
                "evidence": finding.evidence,
                "threshold": finding.threshold,
                "trusted": not any(
                    broken.column is None or broken.node.startswith("raw.") for broken in finding.broken
                ),
                "harm": finding.harm,
                "harm_reason": finding.harm_reason,
                "columns": json.dumps(columns, sort_keys=True),
            }
        ],
        columns=list(DRIFT_DETECTOR.columns),
    ).astype({"version": "Int32", "evidence": "float64", "threshold": "float64"})
    partition = {"model": spec.name, "night": night}

    def write(connection: duckdb.DuckDBPyConnection) -> None:
        lake.put(connection, DRIFT, partition, rows)
        lake.put(connection, DRIFT_DETECTOR, partition, state)

    rails.lake.commit(write, message=f"drift of {spec.name}, {night}", fence=claim)
