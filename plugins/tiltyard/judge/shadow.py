"""The shadow stage: score the night, attach the truth that has matured, evaluate every version on it.

Challengers score the same rows as the champion, unseen. What the night's evaluation stands on is the last
`drift.window` of matured cohorts; how many rows wait for their cohort is written beside it, and how good their scores
are *estimated* to be, which nothing decides on. Whether the truth still comes is judged here as well.
"""

from collections.abc import Mapping
from dataclasses import asdict
from datetime import datetime
from typing import Any

import pandas as pd

from tiltyard import lake
from tiltyard.answered import arm, request_log
from tiltyard.clock import night_closing
from tiltyard.judge import arrival, estimate, scoring
from tiltyard.online import check
from tiltyard.prepare import truth
from tiltyard.rails import Rails, records_its_end
from tiltyard.spec import Spec
from tiltyard.stages import StageName
from tiltyard.tables import ESTIMATE, EVALUATION, Table
from tiltyard.train import evaluation

STAGE: StageName = "shadow"
SAFE_DEFAULT = "safe_default"
TEACHES = 4
"""The map is learned from so many drift.windows of matured cohorts, the newest."""


def run(rails: Rails, spec: Spec, as_of: datetime) -> dict[str, Any]:
    """Score and evaluate one night; twice is once."""
    summary = {"night": str(night_closing(as_of)), **score(rails, spec, as_of), **evaluate(rails, spec, as_of)}
    rails.ledger.record_stage(STAGE, spec.name, night_closing(as_of), "done", summary)
    return summary


@records_its_end(STAGE)
def score(rails: Rails, spec: Spec, as_of: datetime) -> dict[str, Any]:
    """Score the night with every version that has a role. See scoring.score_night."""
    return scoring.score_night(rails, spec, as_of)


@records_its_end(STAGE)
def evaluate(rails: Rails, spec: Spec, as_of: datetime) -> dict[str, Any]:
    """Write the night's evaluation of every version that has a role in it, and of the safe default."""
    night = night_closing(as_of)
    fence = rails.ledger.claim(f"evaluation/{spec.name}/{night}")
    rails.lake.ensure(EVALUATION)
    roles = rails.ledger.roles(spec.name, night)
    since = night_closing(truth.cutoff(spec, as_of) - spec.drift.window + spec.prediction.every)
    counted = {(count.version, count.slice): count for count in truth.by_version(rails, spec, as_of)}
    wanted: dict[int | None, str] = {None: SAFE_DEFAULT, **roles.scored}
    taught = truth.matured(rails, spec, as_of, versions=tuple(wanted), since=since - (TEACHES - 1) * spec.drift.window)
    matured = taught[taught["night"] >= since]
    records = []
    for version, role in wanted.items():
        rows = matured[matured["version"].isna() if version is None else matured["version"] == version]
        if version is None and (None, evaluation.ALL) not in counted:
            continue
        for found in evaluation.evaluate(truth.with_slices(rows, spec), spec.gate.slices, target=spec.target):
            count = counted.get((version, found.slice))
            measured = {**asdict(found), **found.figures}
            figures = {name: value for name, value in measured.items() if name in EVALUATION.columns}
            records.append(
                figures
                | {
                    "model": spec.name,
                    "night": night,
                    "version": version,
                    "role": role,
                    "missing": count.missing if count else 0,
                    "immature": count.immature if count else 0,
                    "early": count.early if count else 0,
                    "available_at": as_of,
                }
            )
    table = _typed(records, EVALUATION)
    estimated = estimates(spec, as_of, wanted, taught, truth.immature(rails, spec, as_of, versions=tuple(wanted)))
    rails.lake.ensure(ESTIMATE)

    def write(connection: Any) -> None:
        for written, rows in ((EVALUATION, table), (ESTIMATE, _typed(estimated, ESTIMATE))):
            lake.put(connection, written, {"model": spec.name, "night": night}, rows)

    rails.lake.commit(write, message=f"evaluation {spec.name} {night}", fence=fence)
    shown = (*spec.target.interval, *spec.target.headline)
    whole = {record["version"]: record for record in records if record["slice"] == evaluation.ALL}
    request_log.deliver(rails)
    lookups = check.check_lookups(rails, spec, as_of)
    asked = {"online": arm.as_json(arm.record(rails, spec, as_of)), "lookups": lookups and lookups.to_json()}
    return {
        "counts": truth.counts(rails, spec, as_of).to_json(),
        "metrics": {
            SAFE_DEFAULT if version is None else str(version): {
                name: record[name] for name in ("role", "matured", "immature", "early", *shown)
            }
            for version, record in whole.items()
        },
        "arrival": arrival.record(rails, spec, as_of),
        **{name: found for name, found in asked.items() if found},
    }


def estimates(
    spec: Spec,
    as_of: datetime,
    wanted: Mapping[int | None, str],
    taught: pd.DataFrame,
    immature: pd.DataFrame,
) -> list[dict[str, Any]]:
    """Rows of ops.estimate: version → role, `taught` from truth.matured, `immature` from truth.immature.

    None of a label whose performance no score can tell (target.inestimable).
    """
    records: list[dict[str, Any]] = []
    if spec.target.inestimable:
        return records
    for version, role in wanted.items():
        rows, known = (
            frame[frame["version"].isna() if version is None else frame["version"] == version]
            for frame in (immature, taught)
        )
        if rows.empty:
            continue
        found = asdict(estimate.performance(*_numbers(rows["score"], known["score"], known["label"])))
        records.append(
            {
                "model": spec.name,
                "night": night_closing(as_of),
                "version": version,
                "role": role,
                "is_calibrated": found.pop("calibrated"),
                "brier_low": found.pop("low"),
                "brier_high": found.pop("high"),
                **found,
                "cohort_from": rows["prediction_time"].min(),
                "cohort_to": rows["prediction_time"].max(),
                "available_at": as_of,
            }
        )
    return records


def _numbers(*columns: "pd.Series[Any]") -> tuple[Any, ...]:
    return tuple(column.to_numpy(dtype="float64") for column in columns)


def _typed(records: list[dict[str, Any]], table: Table) -> pd.DataFrame:
    rows = pd.DataFrame(records, columns=list(table.columns)).astype({"version": "Int32"})
    for column, kind in table.columns.items():
        if kind == "double":
            rows[column] = rows[column].astype("float64")
        elif kind == "timestamptz":
            rows[column] = pd.to_datetime(rows[column], utc=True)
    return rows
