"""The millisecond test on many businesses: with the Cancel trigger it must be found, without it nothing may be.

    python benchmarks/replay.py --seeds 200

Every seed is a business of its own. To spare 400 lakes, many of them lie in one, under customer numbers that do not
meet: the real ingest, the real dbt project (with tests/naive/subscription laid over it, so that a feature uses what
the trigger blanks), predictions with their real snapshots. The differences are then counted and decided on for each
seed by itself, by the functions that `tiltyard leakage replay` calls. What is left out: the checks of the nightly
batch, and the models (the predictions are the safe default's).
"""

import argparse
import shutil
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path

import duckdb

from tiltyard import clock, postgres, suites
from tiltyard import rails as rails_module
from tiltyard.judge import scoring
from tiltyard.leak.suspicion import LeakVerdict
from tiltyard.prepare import features
from tiltyard.prepare.simulator import Simulator
from tiltyard.rails import Rails
from tiltyard.records import FeaturesSummary
from tiltyard.settings import ROOT, Settings
from tiltyard.spec import Spec, find
from tiltyard.train import replay
from tiltyard.train.comparison import ReplayComparison
from tiltyard.train.history import LakeHistory
from tiltyard.train.reach import reachable

START = clock.parse_as_of("2025-01-01")
NIGHTS = [9, 10, 16, 17]
"""Day of January on which a night closes that is predicted: just after the CRM's weekly writing."""
END = 40
"""Days until the labels of the last night have matured, and a little more."""
APART = 1_000_000
KEYS = {
    "customer": ("customer_id",),
    "login": ("customer_id", "login_id"),
    "payment": ("customer_id", "payment_id"),
    "cancellation": ("customer_id",),
}


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    arguments.add_argument("--seeds", type=int, default=200)
    arguments.add_argument("--at-once", type=int, default=50, help="seeds in one lake")
    arguments.add_argument("--customers", type=int, default=1_000)
    asked = arguments.parse_args()
    home = Path(tempfile.mkdtemp(prefix="tiltyard-replay-"))
    home.chmod(0o755)  # run as root, PostgreSQL drops to a user of its own
    server = Settings(home=home, database_url=None)
    found, rows, began = {True: 0, False: 0}, {True: 0, False: 0}, time.monotonic()
    try:
        url = postgres.server_url(server).render_as_string(hide_password=False)
        for first in range(1, asked.seeds + 1, asked.at_once):
            seeds = range(first, min(first + asked.at_once, asked.seeds + 1))
            for trigger in (True, False):
                verdicts, compared, seconds = one_lake(home, url, seeds, asked.customers, trigger)
                found[trigger] += sum(verdict in ("fail", "warn") for verdict in verdicts.values())
                rows[trigger] += compared
                missed = [seed for seed, verdict in verdicts.items() if (verdict == "fail") is not trigger]
                print(
                    f"seeds {seeds[0]}-{seeds[-1]}, trigger {'on ' if trigger else 'off'}: "
                    f"{sum(verdict == 'fail' for verdict in verdicts.values())} of {len(seeds)} fail, "
                    f"{sum(verdict == 'warn' for verdict in verdicts.values())} warn, "
                    f"{compared} predictions, replay {seconds:.1f} s"
                    + (f"; otherwise than expected: {missed}" if missed else ""),
                    flush=True,
                )
    finally:
        postgres.stop(server)
        shutil.rmtree(home, ignore_errors=True)
    print(
        f"{asked.seeds} seeds of {asked.customers} customers: found {found[True]} with the trigger on "
        f"({rows[True]} predictions), {found[False]} false alarms with it off ({rows[False]}); "
        f"{time.monotonic() - began:.0f} s"
    )


def one_lake(
    home: Path, url: str, seeds: range, customers: int, trigger: bool
) -> tuple[dict[int, LeakVerdict], int, float]:
    """Seed → verdict, the predictions compared in all of them, and the seconds that comparing took."""
    with lake(home / f"{seeds[0]}-{trigger}", url, f"r{seeds[0]}{'on' if trigger else 'off'}_") as (rails, spec):
        deliver(rails.settings, seeds, customers, trigger)
        last = START + timedelta(days=END)
        nights = [clock.parse_as_of(f"2025-01-{day:02d}") for day in NIGHTS]
        for as_of in (*nights, last):
            features.ingest(rails, as_of)
            features.transform(rails, as_of)
            snapshot = rails.lake.snapshot()
            rails.ledger.record_stage("", as_of.date(), "done", FeaturesSummary(snapshot=snapshot))
            if as_of != last:
                scoring.score_night(rails, spec, as_of)
        began = time.monotonic()
        record = LakeHistory.of(rails, (spec.prediction.spine, *spec.prediction.features), spec.source)
        batches, untested = reachable(rails, spec, [(nights[0], nights[-1])], record, snapshot)
        assert not untested, untested
        verdicts, rows = {}, 0
        with suites.one_view(rails):
            compared = ReplayComparison(rails, spec, last, snapshot, batches, record)
            for seed in seeds:
                mine = f"entity_id::bigint // {APART} = {seed}"
                counts = compared.counts(mine)
                changes = replay.decide(compared.tallies(mine), spec.leakage.max_changed)
                verdicts[seed] = replay.verdict(changes, counts.tested)
                rows += counts.rows
        return verdicts, rows, time.monotonic() - began


@contextmanager
def lake(folder: Path, url: str, prefix: str) -> Iterator[tuple[Rails, Spec]]:
    shutil.copytree(ROOT / "dbt", folder / "dbt")
    shutil.copytree(ROOT / "tests" / "naive" / "subscription", folder / "dbt", dirs_exist_ok=True)
    settings = Settings(
        home=folder, dbt=folder / "dbt", database_url=url, database_prefix=prefix, sources=("subscription",)
    )
    with rails_module.opened(settings) as rails:
        yield rails, find(settings.models, "churn")
    shutil.rmtree(folder)


def deliver(settings: Settings, seeds: range, customers: int, trigger: bool) -> None:
    """Land the businesses side by side: the first day by itself, then one delivery up to each night."""
    scratch = settings.home / "businesses"
    for seed in seeds:
        business = Simulator(seed=seed, customers=customers, days=END, logins_per_week=1.0, cancel_trigger=trigger)
        business.land(scratch / str(seed))
    ends = [1, *(day - 1 for day in NIGHTS), END]
    for table, keys in KEYS.items():
        (settings.landing / "subscription" / table).mkdir(parents=True)
        for begin, end in zip([0, *ends], ends, strict=False):
            if begin == end:
                continue
            days = [START.date() + timedelta(days=day) for day in range(begin, end)]
            files = [str(scratch / str(seed) / table / f"{day}.parquet") for seed in seeds for day in days]
            apart = ", ".join(f"{key} + {APART} * seed as {key}" for key in keys)
            target = settings.landing / "subscription" / table / f"{days[-1]}.parquet"
            duckdb.sql(
                f"""
                copy (
                    select * exclude (seed, filename) replace ({apart})
                    from (
                        select *, split_part(replace(filename, '{scratch}/', ''), '/', 1)::bigint as seed
                        from read_parquet({files}, filename = true)
                    )
                ) to '{target}'
                """
            )
    shutil.rmtree(scratch)


if __name__ == "__main__":
    main()
