"""The maintenance of the lake: what it takes, what it leaves, and that no reader is told anything else afterwards.

    python benchmarks/maintenance.py --nights 16 --models 100
    python benchmarks/maintenance.py --nights 365 --every 7 --build-every 7

A simulated business of which every night is landed, built by dbt, published and predicted (by the safe default; the
checks of the batch are left out). With `--build-every` the nights between two builds are shortened: they predict what
is there, and nothing is landed or built. Beside it, every night writes one small commit of `ops.profile` for each of
many models, as stages of models of their own do. Then everything is taken for older than the grace, and the lake is put
in order. Frames, a replay and explained predictions are compared before and after.
"""

import argparse
import hashlib
import resource
import shutil
import statistics
import tempfile
import time
from datetime import timedelta
from pathlib import Path

import pandas as pd

from tiltyard import clock, postgres
from tiltyard import rails as rails_module
from tiltyard.edge import status
from tiltyard.judge import scoring
from tiltyard.lake import stored
from tiltyard.prepare import features, frame
from tiltyard.prepare.simulator import Simulator
from tiltyard.rails import Rails
from tiltyard.records import FeaturesSummary, LakeMaintenanceSummary, LakeSize, ShadowSummary
from tiltyard.settings import ROOT, Settings
from tiltyard.spec import Spec, find
from tiltyard.tables import PREDICTION, PROFILE
from tiltyard.train import replay
from tiltyard.upkeep import maintenance

START = clock.parse_as_of("2025-01-01")
FIRST = 9
"""Day of January on which the first night closes."""
READS = 7


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    arguments.add_argument("--nights", type=int, default=16)
    arguments.add_argument("--models", type=int, default=100)
    arguments.add_argument("--customers", type=int, default=1_000)
    arguments.add_argument("--build-every", type=int, default=1, help="nights from one build by dbt to the next")
    arguments.add_argument("--every", type=int, help="nights between two maintenances; default: one after the last")
    asked = arguments.parse_args()
    home = Path(tempfile.mkdtemp(prefix="tiltyard-maintenance-"))
    home.chmod(0o755)  # run as root, PostgreSQL drops to a user of its own
    settings = Settings(home=home, database_url=None, sources=("subscription",))
    try:
        Simulator(customers=asked.customers, days=FIRST + asked.nights, cancel_trigger=True).land(
            settings.landing / "subscription"
        )
        with rails_module.opened(settings) as rails:
            measure(rails, find(ROOT / "models", "churn"), asked)
    finally:
        postgres.stop(settings)
        shutil.rmtree(home, ignore_errors=True)


def measure(rails: Rails, spec: Spec, asked: argparse.Namespace) -> None:
    nights, models, every = asked.nights, asked.models, asked.every
    began = time.monotonic()
    for number in range(nights):
        night(rails, spec, number, models, is_built=number % asked.build_every == 0)
        if every and (number + 1) % every == 0:
            done = maintain(rails, number)
            print(
                f"after {number + 1} nights: {done.after.stored:,} files stored, {done.after.snapshots:,} snapshots",
                flush=True,
            )
    print(f"{nights} nights of {models} models written in {time.monotonic() - began:.0f} s")
    before, scans = answers(rails, spec, nights), scan(rails)
    began, cpu = time.monotonic(), cpu_seconds()
    done = maintain(rails, nights - 1)
    seconds, cpu = time.monotonic() - began, cpu_seconds() - cpu
    after = answers(rails, spec, nights)
    print(f"{'':<12} {'files':>8} {'stored':>8} {'MB stored':>10} {'snapshots':>10} {'full scan of ops.profile':>26}")
    report("before", done.before, scans)
    report("after", done.after, scan(rails))
    print(f"{seconds:.1f} s, {cpu:.1f} CPU s of this process; expired {done.expired:,}, kept {dict(done.kept)}")
    print(
        f"merged {sum(done.merged.values()):,} files, rewrote {sum(done.rewritten.values()):,}, "
        f"removed {done.removed:,}"
    )
    began = time.monotonic()
    again = maintain(rails, nights)
    print(f"once more: {time.monotonic() - began:.1f} s, expired {again.expired}, merged {again.merged or 'nothing'}")
    for what, digest in before.items():
        print(f"{what:<22} {'the same' if after[what] == digest else 'ANOTHER'} ({digest[:12]})")
    if after != before:
        raise SystemExit(1)


def maintain(rails: Rails, number: int) -> LakeMaintenanceSummary:
    """The maintenance after a night, for which everything before is older than the grace."""
    as_of = START + timedelta(days=FIRST + number)
    return maintenance.maintain(rails, as_of, now=clock.now() + timedelta(days=3))


def night(rails: Rails, spec: Spec, number: int, models: int, *, is_built: bool) -> None:
    """Land, build, publish and predict a night; write what every model would."""
    as_of = START + timedelta(days=FIRST + number)
    if is_built:
        features.ingest(rails, as_of)
        features.transform(rails, as_of)
    snapshot = rails.lake.snapshot()
    rails.ledger.record_stage("", as_of.date(), "done", FeaturesSummary(snapshot=snapshot))
    scoring.score_night(rails, spec, as_of)
    rails.ledger.record_stage(spec.name, as_of.date(), "done", ShadowSummary(snapshot=snapshot))
    rails.lake.ensure(PROFILE)
    for model in range(models):
        rows = pd.DataFrame(
            {
                "model": f"model_{model}",
                "version": 1,
                "night": as_of.date(),
                "column_name": [f"column_{column}" for column in range(30)],
                "rows": range(30),
                "available_at": as_of,
            }
        )
        partition = {"model": f"model_{model}", "night": as_of.date()}
        rails.lake.replace(PROFILE, partition, rows, message=f"profile model_{model}")


def answers(rails: Rails, spec: Spec, nights: int) -> dict[str, str]:
    """What is asked → SHA-256 of what readers are told."""
    predictions = rails.lake.connection.execute(
        f"select request_id, snapshot, available_at from {stored(PREDICTION)} order by all"
    ).fetchall()
    frames = [
        frame.build(rails, spec, as_of - spec.prediction.every, as_of, as_of, snapshot).sort_values(spec.key).to_csv()
        for snapshot, as_of in sorted({row[1:] for row in predictions})
    ]
    first, last = START + timedelta(days=FIRST), START + timedelta(days=FIRST + nights - 1)
    replayed = replay.replay_nights(rails, spec, [(first, last)])
    explained = [status.explain(rails, spec, row[0]).to_json() for row in predictions[:: max(1, len(predictions) // 5)]]
    texts = {f"{len(frames)} frames": repr(frames), "explained": repr(explained)}
    texts[f"replay: {replayed.verdict}"] = repr(replayed)
    return {what: hashlib.sha256(text.encode()).hexdigest() for what, text in texts.items()}


def scan(rails: Rails) -> float:
    """Median milliseconds of reading all of ops.profile."""
    times = []
    for _ in range(READS):
        began = time.monotonic()
        rails.lake.connection.execute(f"select count(*), sum(hash(columns(*))) from {stored(PROFILE)}").fetchall()
        times.append((time.monotonic() - began) * 1000)
    return statistics.median(times)


def cpu_seconds() -> float:
    usage = resource.getrusage(resource.RUSAGE_SELF)
    return usage.ru_utime + usage.ru_stime


def report(when: str, size: LakeSize, scan_ms: float) -> None:
    print(
        f"{when:<12} {size.files:>8,} {size.stored:>8,} {size.stored_bytes / 1e6:>10.1f} {size.snapshots:>10,} "
        f"{scan_ms:>23.0f} ms"
    )


if __name__ == "__main__":
    main()
