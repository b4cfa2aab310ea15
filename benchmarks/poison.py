"""Flipped labels of the newest window: how often they are found, and whether what learned from them is ever promoted.

    python benchmarks/poison.py [--seeds 100] [--json] [--cache FOLDER]

One simulated business of 20 × 3,000 customers, landed, built by dbt and read through the point-in-time join as always.
Every twentieth of its customers is a business of its own with a version of its own, trained by the project's own
training. A seed is one of these businesses on one of five nights, a week apart, with labels that are flipped by the
seed in its newest window of matured cohorts (a week, about 1,200 rows), or by nobody:

- clean: as they are
- 20 %, 5 %: so much of the window's labels, anywhere
- aimed: a fifth of the labels of one plan
- to yes, to no (nothing is asked of them): a no is made a yes in 5 % of the rows; a quarter of the yes is made a no

Found is what `judge/suspect.py` calls suspect, at the level of the default budget. The gate promotes nothing that
learned from suspect labels. Where flips are *not* found a challenger is trained on the flipped frame, scores the nights
to come beside the champion, and the gate looks at it every night for six weeks: `promoted` counts those that it ever
promotes. Exits with 1 when a limit is missed. With --cache the businesses are kept in a folder, and read from it.
"""

import argparse
import json
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import replace
from datetime import date, datetime, timedelta
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa

from tiltyard import clock, postgres
from tiltyard import rails as rails_module
from tiltyard.clock import night_closing
from tiltyard.judge import gate, label_check, pairs, suspect
from tiltyard.portfolio_rules import Budget
from tiltyard.prepare import frame, ingest, transform
from tiltyard.prepare.frame import TrainingFrame
from tiltyard.prepare.simulator import Simulator
from tiltyard.rails import Rails
from tiltyard.records import FeaturesSummary
from tiltyard.settings import ROOT, Settings
from tiltyard.spec import find
from tiltyard.train import candidate
from tiltyard.train.scorer import Scorer

SPEC = find(ROOT / "models", "churn")
BUSINESSES, CUSTOMERS = 20, 3_000
START, DAYS = clock.parse_as_of("2025-01-01"), 240
END = START + timedelta(days=DAYS)
TRAINED = START + timedelta(days=84)
NEWEST = [date(2025, 6, 9) - timedelta(days=7 * week) for week in range(5)]
"""The last matured cohort of a seed."""
LOOKS, TRIALS = 42, 3
KINDS = {"clean": 0.0, "20 %": 0.95, "5 %": 0.60, "aimed": 0.80, "to yes": None, "to no": None}
"""Kind → share of the seeds in which it has to be found; of none in clean ones."""
LEVEL = suspect.SHARE_OF_BUDGET / Budget().nights_between(1)


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, epilog="Example: python benchmarks/poison.py --seeds 100 --cache /tmp/poison",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )  # fmt: skip
    parser.add_argument("--seeds", type=int, default=100, help="seeds of every kind (default 100)")
    parser.add_argument("--json", action="store_true", help="print the counts as JSON")
    parser.add_argument("--cache", type=Path, help="folder in which the businesses are kept")
    asked = parser.parse_args()
    began = time.perf_counter()
    rows = made(asked.cache, min(asked.seeds, BUSINESSES))
    tried = {kind: {"seeds": 0, "found": 0, "promoted": 0} for kind in KINDS}
    with tempfile.TemporaryDirectory(prefix="tiltyard-poison-") as folder:
        settings = Settings(home=Path(folder), threads=1)
        for seed in range(asked.seeds):
            told(f"seed {seed + 1} of {asked.seeds}, {time.perf_counter() - began:.0f} s", always=seed % 10 == 0)
            own = rows[rows["business"] == seed % BUSINESSES]
            last = NEWEST[seed // BUSINESSES % len(NEWEST)]
            for kind, tally in tried.items():
                flipped = own.assign(label=poisoned(own, last, kind, np.random.default_rng([seed, 16])))
                found = is_found(flipped, last)
                tally["seeds"] += 1
                tally["found"] += found
                if not found and kind != "clean":
                    tally["promoted"] += is_promoted(settings, own, flipped, last)
    told("")
    met = all(
        tally["found"] == 0 if kind == "clean" else tally["promoted"] == 0 and tally["found"] >= limit * tally["seeds"]
        for kind, limit in KINDS.items()
        for tally in [tried[kind]]
        if limit is not None
    )
    if asked.json:
        print(json.dumps({"level": LEVEL, "kinds": tried, "met": met}))
        return 0 if met else 1
    print(f"{asked.seeds} seeds of every kind, level {LEVEL:.2g} a night, {time.perf_counter() - began:.0f} s\n")
    for kind, tally in tried.items():
        limit = KINDS[kind]
        asks = "none" if kind == "clean" else "–" if limit is None else f"at least {limit:.0%}"
        missed = "" if kind == "clean" else f", promoted all the same {tally['promoted']}"
        print(f"  {kind:8} found in {tally['found']:3} of {tally['seeds']:3} (asked for: {asks}){missed}")
    return 0 if met else 1


def told(line: str, *, always: bool = True) -> None:
    """How far it is: in place on a terminal, else as plain lines, of which not all are told."""
    if sys.stderr.isatty():
        print(f"\r{line:60}", end="" if line else "\r", file=sys.stderr, flush=True)
    elif line and always:
        print(line, file=sys.stderr, flush=True)


# -- the businesses -----------------------------------------------------------------------------


def made(cache: Path | None, businesses: int) -> pd.DataFrame:
    """One row per review of a customer: business, features, label, known, the night, and the score of its business's
    version where it was there."""
    kept = cache / "rows.parquet" if cache else None
    if kept is not None and kept.is_file():
        return pd.read_parquet(kept)
    with tempfile.TemporaryDirectory(prefix="tiltyard-poison-") as folder:
        Path(folder).chmod(0o755)  # run as root, PostgreSQL drops to a user of its own
        settings = Settings(home=Path(folder), database_url=None, sources=("subscription",), threads=1)
        try:
            told("simulating")
            Simulator(customers=BUSINESSES * CUSTOMERS, days=DAYS).land(settings.landing / "subscription")
            with rails_module.opened(settings) as rails:
                told("landing and building")
                ingest.land_night(rails, "subscription", END)
                transform.build(rails, ["subscription"], END)
                rails.ledger.record_stage("", END.date(), "done", FeaturesSummary(snapshot=rails.lake.snapshot()))
                rows = scored(settings, read(rails), businesses)
        finally:
            postgres.stop(settings)
    if kept is not None:
        kept.parent.mkdir(parents=True, exist_ok=True)
        rows.to_parquet(kept)
    return rows


def read(rails: Rails) -> pd.DataFrame:
    snapshot = rails.lake.snapshot()
    rows = frame.build(rails, SPEC, START, END, END, snapshot)
    labels = rails.lake.query(
        f"select {SPEC.key}, prediction_time, label::double as label, available_at as known_at "
        f"from {rails.lake.relation(SPEC.label.table, END, snapshot)}",
        END,
    )  # fmt: skip
    rows = rows.merge(labels, on=[SPEC.key, "prediction_time"], how="inner")
    days = rows["prediction_time"].dt.tz_convert("UTC").dt.floor("D") + pd.Timedelta(days=1)
    known = (rows["known_at"] - pd.Timedelta(microseconds=1)).dt.tz_convert("UTC").dt.floor("D") + pd.Timedelta(days=1)
    return rows.assign(
        business=rows[SPEC.key].map(lambda key: int("".join(filter(str.isdigit, str(key)))) % BUSINESSES),
        ordinal=[day.toordinal() for day in days.dt.date],
        known=[day.toordinal() for day in known.dt.date],
        slices=[json.dumps({"plan": plan}) for plan in rows["plan"]],
        score=np.nan,
    ).sort_values(["prediction_time", SPEC.key], ignore_index=True)


def scored(settings: Settings, rows: pd.DataFrame, businesses: int) -> pd.DataFrame:
    for business in range(businesses):
        told(f"training version {business + 1} of {businesses}")
        own = rows["business"] == business
        version = trained(settings, rows[own], TRAINED)
        later = own & (rows["ordinal"] > night_closing(TRAINED).toordinal())
        rows.loc[later, "score"] = version.score(rows[later])
    return rows


def trained(settings: Settings, rows: pd.DataFrame, as_of: datetime) -> Scorer:
    """A version of the project's own training on what of these rows had matured."""
    end = as_of - SPEC.label.lag
    start = end - SPEC.estimator.window
    learned = rows[(rows["prediction_time"] >= start) & (rows["prediction_time"] <= end)]
    views = {"ftr_customer__profile", "ftr_customer__activity", "ftr_customer__payments"}
    assert set(SPEC.prediction.features) == views
    own = {SPEC.key, "prediction_time", "label", "known_at", "business", "ordinal", "known", "slices", "score"}
    names = [name for name in rows.columns if name not in own and "__" not in name]
    kinds = {name: "numeric" if pd.api.types.is_numeric_dtype(rows[name]) else "categorical" for name in names}
    kinds |= {name: "boolean" for name in names if rows[name].map(type).eq(bool).any()}
    features = tuple(frame.Feature(name, SPEC.prediction.features[0], kinds[name]) for name in names)
    table = pa.Table.from_pandas(
        learned[[SPEC.key, "prediction_time", "label", *names]].astype({"label": bool}), preserve_index=False
    )
    path, digest = frame._write(table, settings.frames)
    taught = TrainingFrame(
        path=path, digest=digest, rows=len(learned), unlabelled=0, snapshot=0, start=start, end=end,
        features=features, at=0,
    )  # fmt: skip
    order = candidate.Order(as_of, digest, TRIALS, "benchmark")
    found = candidate.make(settings, SPEC, taught, order, draw=False)
    return Scorer.from_files(SPEC.name, 1, found.files)


# -- one seed -----------------------------------------------------------------------------------


def poisoned(rows: pd.DataFrame, last: date, kind: str, rng: np.random.Generator) -> np.ndarray:
    """The labels, with those of the newest window flipped."""
    label = rows["label"].to_numpy(copy=True)
    window = (rows["ordinal"] > last.toordinal() - 7) & (rows["ordinal"] <= last.toordinal())
    places = np.flatnonzero(window)
    plan = rng.choice(["basic", "standard", "premium"])
    aimed = np.flatnonzero(window & (rows["plan"] == plan))
    pools = {
        "clean": (places, 0.0),
        "20 %": (places, 0.2 * len(places)),
        "5 %": (places, 0.05 * len(places)),
        "aimed": (aimed, 0.2 * len(aimed)),
        "to yes": (places[label[places] == 0], 0.05 * len(places)),
        "to no": (places[label[places] == 1], 0.25 * (label[places] == 1).sum()),
    }
    pool, count = pools[kind]
    who = rng.choice(pool, round(count), replace=False)
    label[who] = 1 - label[who]
    return label


def is_found(rows: pd.DataFrame, last: date) -> bool:
    window = label_check.Window(last - timedelta(days=6), last)
    first = window.first - timedelta(days=7 * suspect.BLOCKS)
    seen = rows[rows["score"].notna() & rows["ordinal"].between(first.toordinal(), last.toordinal())]
    held = label_check.rows_of(SPEC, SPEC.target, seen, window)
    assert suspect.untested(held) is None
    return any(count.is_suspect for count in suspect.counts(held, label_check.classes(SPEC), LEVEL))


def is_promoted(settings: Settings, rows: pd.DataFrame, flipped: pd.DataFrame, last: date) -> bool:
    """Whether the gate ever promotes a challenger that learned from the flipped labels; later ones are as they are."""
    as_of = clock.midnight(last) + SPEC.label.lag
    night = night_closing(as_of)
    challenger = trained(settings, flipped, as_of)
    later = rows[rows["ordinal"] > night.toordinal()]
    later = later.assign(
        night=later["ordinal"], scored_on=later["ordinal"], v1=later["score"], v2=challenger.score(later),
        is_early=False, slice_plan=later["plan"].astype(str), truth=later["label"],
    )  # fmt: skip
    facts = pairs.ChallengerFacts(
        missing=gate.Missing("none", 0.0, 0.0), latency_ms=1.0, size_mb=1.0, replay=gate.Replayed("pass", ""),
        labels=gate.Labelled("sound", "They were not found."),
    )  # fmt: skip
    return any(
        gate.decide(evidence, SPEC.gate, SPEC.fallback.deadline_ms).verdict == "promote"
        for evidence in looks(later, night, facts)
    )


def looks(rows: pd.DataFrame, night: date, facts: pairs.ChallengerFacts) -> Iterator[gate.Evidence]:
    """The evidence of every night in which there is something new."""
    for ahead in range(1, LOOKS + 1):
        tonight = night + timedelta(days=ahead) + SPEC.label.lag
        known = rows[rows["night"] <= tonight.toordinal()]
        matured = known["night"] <= (night + timedelta(days=ahead)).toordinal()
        seen = known.assign(is_matured=matured, label=known["truth"].where(matured))
        yield replace(pairs.gather(SPEC, tonight, seen, 2, 1, facts)[0])


if __name__ == "__main__":
    sys.exit(main())
