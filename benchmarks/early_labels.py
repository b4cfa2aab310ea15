"""Early labels: the gate's verdict on the hotels in every week of 2016, with the maturity guard and without.

Four versions score every booking of 2016: one trained in January on whole cohorts, its light twin, one trained in
April, and one trained in January on whatever labels were known then. Every Monday the gate judges each pair, newer
against older, three times: (a) on matured cohorts with the labels known by then, (b) on the final truth of the same
cohorts, (c) without the guard, on every label known by then. Prints a table by month, then one by pair. Returns 1
unless (a) and (b) agree in every week, to the last digit.
"""

import dataclasses
import sys
import tempfile
import time
from collections.abc import Mapping
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from sklearn.linear_model import LogisticRegression
from xgboost import XGBClassifier

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from tiltyard import clock, postgres  # noqa: E402
from tiltyard import rails as rails_module  # noqa: E402
from tiltyard.clock import night_closing  # noqa: E402
from tiltyard.judge import gate  # noqa: E402
from tiltyard.prepare import (  # noqa: E402
    datasets,
    frame,
    ingest,
    transform,
    truth,
)
from tiltyard.rails import Rails  # noqa: E402
from tiltyard.records import FeaturesSummary  # noqa: E402
from tiltyard.settings import Settings  # noqa: E402
from tiltyard.spec import Spec, find  # noqa: E402
from tiltyard.tables import PREDICTION  # noqa: E402
from tiltyard.target import YES_OR_NO  # noqa: E402
from tiltyard.train import evaluation  # noqa: E402
from tiltyard.train.encoding import Encoding  # noqa: E402

SPEC = find(ROOT / "models", "hotel_cancellation")
UNGUARDED = SPEC.model_copy(update={"label": SPEC.label.model_copy(update={"horizon": timedelta()})})
"""The same promise, but every cohort counts as matured at once: what is known is taken for the truth."""
JANUARY, APRIL = datetime(2016, 1, 4, tzinfo=UTC), datetime(2016, 4, 4, tzinfo=UTC)
END = datetime(2017, 3, 1, tzinfo=UTC)
"""By then all labels of 2016 are final: horizons of thirty days are over."""
WEEKS = tuple(clock.nights(JANUARY + timedelta(days=7), datetime(2017, 1, 2, tzinfo=UTC), timedelta(days=7)))
KEYS = ["entity_id", "prediction_time"]

PAIRS: Mapping[str, tuple[int, int, datetime]] = {
    "light against heavy": (2, 1, JANUARY),
    "heavy against light": (1, 2, JANUARY),
    "April against January": (3, 1, APRIL),
    "whole cohorts against early labels": (1, 4, JANUARY),
    "early labels against whole cohorts": (4, 1, JANUARY),
}
"""Name → challenger, champion, and since when both score."""


def learned(rails: Rails, spec: Spec, as_of: datetime, *, light: bool = False) -> tuple[Encoding, Any]:
    taught = frame.training(rails, spec, as_of)
    rows = taught.read()
    encoding = Encoding.fit(rows, taught.features)
    matrix, label = encoding.transform(rows), rows["label"].astype(int)
    if light:
        scale = np.nanstd(matrix, axis=0) + 1e-6
        model: Any = LogisticRegression(max_iter=200).fit(np.nan_to_num(matrix) / scale, label)
        return encoding, lambda at: model.predict_proba(np.nan_to_num(at) / scale)[:, 1]
    model = XGBClassifier(n_estimators=150, max_depth=5, learning_rate=0.08, n_jobs=1, random_state=1).fit(
        matrix, label
    )
    return encoding, lambda at: model.predict_proba(at)[:, 1]


def scored(rails: Rails) -> pd.DataFrame:
    """The bookings of 2016 with the scores of the four versions and their slice; all of them also in ops.prediction."""
    snapshot = rails.lake.snapshot()
    rails.ledger.record_stage("", night_closing(END), "done", FeaturesSummary(snapshot=snapshot))
    rows = frame.build(rails, SPEC, JANUARY, clock.midnight(date(2017, 1, 1)), END, snapshot)
    models = {
        1: learned(rails, SPEC, JANUARY),
        2: learned(rails, SPEC, JANUARY, light=True),
        3: learned(rails, SPEC, APRIL),
        4: learned(rails, UNGUARDED, JANUARY),
    }
    scores = {number: model(encoding.transform(rows)).astype(float) for number, (encoding, model) in models.items()}
    ends = rows["prediction_time"].dt.floor("D") + pd.Timedelta(days=1)
    found = rows.assign(entity_id=rows[SPEC.key].astype(str), night=ends.dt.date, slice=rows["hotel"].astype(str))
    predictions = found[[*KEYS, "night"]].assign(
        request_id=found["entity_id"], model=SPEC.name, version=pd.array([1] * len(rows), dtype="Int32"),
        role="champion", score=scores[1], scores=None, tier="champion", tier_reason=None, slices="{}",
        snapshot=snapshot, apart=None, available_at=ends, scored_at=ends, cohort=pd.NaT,
    )  # fmt: skip
    rails.lake.ensure(PREDICTION)
    rails.lake.replace(PREDICTION, {"model": SPEC.name}, predictions[list(PREDICTION.columns)], message="2016")
    return found[[*KEYS, "night", "slice"]].assign(**{str(number): score for number, score in scores.items()})


def verdict(rows: pd.DataFrame, pair: str, as_of: datetime, expected: int) -> gate.Verdict:
    """`rows`: scores and label, in the order of prediction times."""
    challenger, champion, since = PAIRS[pair]
    label = rows["label"].to_numpy(dtype=float)
    loss = {number: YES_OR_NO.row_losses(rows[str(number)].to_numpy(), label) for number in (challenger, champion)}
    differences = loss[champion] - loss[challenger]
    nights = np.array([night.toordinal() for night in rows["night"]], dtype=np.int64)
    score = rows[str(challenger)].to_numpy()
    half = int(len(score) / 2)
    slices = tuple(
        gate.SliceEvidence(f"hotel={name}", differences[inside], int(inside.sum()))
        for name in sorted(rows["slice"].unique())
        for inside in ((rows["slice"] == name).to_numpy(),)
    )
    evidence = gate.Evidence(
        challenger=challenger,
        champion=champion,
        safe_default=None,
        shadow=as_of - since,
        differences=differences,
        nights=nights,
        expected=expected,
        slices=slices,
        calibration=gate.Compared(
            *(evaluation.calibration_error(rows[str(number)].to_numpy(), label) for number in (challenger, champion))
        ),
        score_shift=gate.Compared(evaluation.population_stability(score[:half], score[half:]), None),
        missing=gate.Missing("none", 0.0, 0.0),  # what has nothing to do with labels is as it should be
        latency_ms=1.0,
        size_mb=1.0,
        replay=gate.Replayed("pass", "the benchmark's frame is point-in-time"),
        labels=gate.Labelled("sound", "nobody has touched them"),
    )
    return gate.decide(evidence, SPEC.gate, SPEC.fallback.deadline_ms)


def weekly(rails: Rails, scores: pd.DataFrame) -> pd.DataFrame:
    """A row per week and pair: the three verdicts, and how far the difference without the guard is off."""

    def joined(known: pd.DataFrame, since: datetime) -> pd.DataFrame:
        rows = scores.merge(known[[*KEYS, "label"]], on=KEYS, how="inner")
        rows = rows[rows["prediction_time"] >= pd.Timestamp(since)]
        return rows.sort_values(["prediction_time", "entity_id"], kind="stable")

    final = truth.matured(rails, SPEC, END)
    records = []
    for as_of in WEEKS:
        cutoff = pd.Timestamp(truth.cutoff(SPEC, as_of))
        guarded = truth.matured(rails, SPEC, as_of)
        known = truth.matured(rails, UNGUARDED, as_of)
        for pair, (challenger, champion, since) in PAIRS.items():
            if as_of <= since:
                continue
            asked = scores[scores["prediction_time"] >= pd.Timestamp(since)]
            expected = int((asked["prediction_time"] < cutoff).sum())
            early = joined(known, since)
            truly = joined(final[final["prediction_time"] < pd.Timestamp(as_of)], since)
            a = verdict(joined(guarded, since), pair, as_of, expected)
            b = verdict(joined(final[final["prediction_time"] < cutoff], since), pair, as_of, expected)
            c = verdict(early, pair, as_of, len(early))
            records.append(
                {
                    "week": as_of.date(), "pair": pair, "month": f"{as_of:%Y-%m}",
                    "a": a.verdict, "b": b.verdict, "c": c.verdict,
                    "agree": dataclasses.asdict(a) == dataclasses.asdict(b),
                    "positive_early": early["label"].mean(), "positive": truly["label"].mean(),
                    "off": _gain(early, challenger, champion) - _gain(truly, challenger, champion),
                }
            )  # fmt: skip
    return pd.DataFrame(records)


def _gain(rows: pd.DataFrame, challenger: int, champion: int) -> float:
    """The champion's Brier score minus the challenger's."""
    label = rows["label"]
    return float(((rows[str(champion)] - label) ** 2 - (rows[str(challenger)] - label) ** 2).mean())


def show(found: pd.DataFrame, by: str) -> None:
    print(
        f"| {by} | verdicts | (a) is (b) | (c) is another | promoted by (a), (c) | rejected by (a), (c) | "
        "positive: known, truth | Brier difference of (c) off by (mean, worst) |"
    )
    print("|---|---|---|---|---|---|---|---|")
    for name, rows in found.groupby(by, sort=by == "month"):
        count = {(side, kind): int((rows[side] == kind).sum()) for side in "ac" for kind in ("promote", "reject")}
        off = rows["off"].abs()
        print(
            f"| {name} | {len(rows)} | {int(rows['agree'].sum())} | {int((rows['a'] != rows['c']).sum())} | "
            f"{count['a', 'promote']}, {count['c', 'promote']} | {count['a', 'reject']}, {count['c', 'reject']} | "
            f"{rows['positive_early'].mean():.1%}, {rows['positive'].mean():.1%} | {off.mean():.4f}, {off.max():.4f} |"
        )
    print()


def main() -> int:
    start = time.perf_counter()
    with tempfile.TemporaryDirectory(prefix="tiltyard-bench-") as folder:
        settings = Settings(home=Path(folder), sources=("hotels",))
        try:
            datasets.fetch(settings, "hotels")
            with rails_module.opened(settings) as rails:
                ingest.land_night(rails, "hotels", END)
                transform.build(rails, ("hotels",), END)
                found = weekly(rails, scored(rails))
        finally:
            postgres.stop(settings)
    show(found, "month")
    show(found, "pair")
    agree, differ = int(found["agree"].sum()), int((found["a"] != found["c"]).sum())
    weeks = found["week"].nunique()
    agreed = int(found.groupby("week")["agree"].all().sum())
    differed = int((found["a"] != found["c"]).groupby(found["week"]).any().sum())
    print(f"with the guard the verdict is that on final truth in {agreed} of {weeks} weeks ({agree} of {len(found)} "
          f"verdicts); without it another in {differed} weeks ({differ} verdicts), "
          f"{time.perf_counter() - start:.0f} s")  # fmt: skip
    return 0 if agree == len(found) else 1


if __name__ == "__main__":
    sys.exit(main())
