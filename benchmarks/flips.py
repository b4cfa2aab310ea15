"""Single bits turned in the lake's files: who finds them, and what it costs.

    python benchmarks/flips.py [--flips 200] [--customers 1500] [--seed 20160229] [--repeats 3]

Homes of the same simulated business in turn, one with an encrypted lake and one with plain files: landed, built by dbt,
and frames read for a training, with the CPU seconds of each, of `--repeats` homes the least; one home before them pays
for the imports. Then one bit at a time is turned, in a file that is drawn by
size among those of raw tables, staging, spines, feature views and labels, and its table is read, as a stage reads it.

- encrypted: *named* is a read that stopped with the table and the file in its error; nothing was trained from it.
- plain: the read is made in a process of its own. It gave the same value, another one without a word, an error, or the
  process died. Then the scrub looks at the file, which it had looked at when that was written.
- frame, version: as many bits again in a training frame, and in the files of a version in MLflow's store; *named* is a
  read, or a load, that was refused with the file in its error.
"""

import argparse
import json
import random
import resource
import shutil
import sys
import tempfile
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager, suppress
from datetime import timedelta
from multiprocessing import get_context
from pathlib import Path

import duckdb

from tiltyard import clock, damage, lake, postgres
from tiltyard import rails as rails_module
from tiltyard.damage import LakeFile
from tiltyard.errors import TiltyardError
from tiltyard.lake import stored
from tiltyard.prepare import frame, ingest, transform
from tiltyard.prepare.simulator import Simulator
from tiltyard.rails import Rails, recording_its_end
from tiltyard.records import FeaturesSummary
from tiltyard.settings import ROOT, Settings
from tiltyard.spec import find
from tiltyard.train import registry, training
from tiltyard.train.scorer import FILES
from tiltyard.upkeep import scrub

START, DAYS = clock.parse_as_of("2025-01-01"), 40
AS_OF = START + timedelta(days=DAYS)
READ = ("raw", "staging", "spines", "features", "labels")
LOST = ("NOT FOUND", "MISNAMED")
"""How a count ends of what nobody has found."""
FRAMES = 10


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    arguments.add_argument("--flips", type=int, default=200)
    arguments.add_argument("--customers", type=int, default=1_500)
    arguments.add_argument("--seed", type=int, default=20160229)
    arguments.add_argument("--repeats", type=int, default=3)
    arguments.add_argument("--json", type=Path, help="file that gets the counts as well")
    asked = arguments.parse_args()
    print(f"{asked.flips} flips, seed {asked.seed}, {asked.customers} customers over {DAYS} days")
    lost = 0
    seconds: dict[bool, list[dict[str, float]]] = {True: [], False: []}
    with home(200, encrypted=False) as rails:
        worked(rails)
    for number, encrypted in enumerate([True, False] * asked.repeats):
        with home(asked.customers, encrypted) as rails:
            seconds[encrypted].append(worked(rails))
            if number < 2 * (asked.repeats - 1) or not asked.flips:
                continue
            scrub.scrub_all(rails, lambda label, share: None)
            found = (encrypted_reads if encrypted else plain_reads)(rails, asked.flips, asked.seed)
            lost += sum(count for what, count in found.items() if what.endswith(LOST))
            print(f"{'encrypted' if encrypted else 'plain'}: {found}", flush=True)
            if encrypted:
                for what, found in apart_from_the_lake(rails, asked.flips, asked.seed).items():
                    lost += sum(count for how, count in found.items() if how.endswith(LOST))
                    print(f"{what}: {dict(found)}", flush=True)
    parts = {
        kind: {what: min(run[what] for run in runs) for what in runs[0]} for kind, runs in seconds.items()
    }  # fmt: skip
    for encrypted in (True, False):
        parts[encrypted]["together"] = sum(parts[encrypted].values())
    for what, own in parts[True].items():
        plain = parts[False][what]
        print(f"{what}: {own:.2f} CPU s encrypted, {plain:.2f} plain: {100 * (own / plain - 1):+.1f} %")
    if asked.json:
        asked.json.write_text(json.dumps({"flips": asked.flips, "seed": asked.seed, "lost": lost}))
    sys.exit(1 if lost else 0)


@contextmanager
def home(customers: int, encrypted: bool) -> Iterator[Rails]:
    folder = Path(tempfile.mkdtemp(prefix="tiltyard-flips-"))
    folder.chmod(0o755)  # run as root, PostgreSQL drops to a user of its own
    settings = Settings(home=folder, database_url=None, sources=("subscription",), lake_encrypted=encrypted)
    try:
        Simulator(customers=customers, days=DAYS).land(settings.landing / "subscription")
        with rails_module.opened(settings) as rails:
            assert lake.is_encrypted(rails.lake.connection) == encrypted
            yield rails
    finally:
        postgres.stop(settings)
        shutil.rmtree(folder, ignore_errors=True)


def worked(rails: Rails) -> dict[str, float]:
    """CPU seconds of a night: landing and dbt, which write and read; and frames, which read."""
    began = cpu()
    ingest.land_night(rails, "subscription", AS_OF)
    transform.build(rails, ["subscription"], AS_OF)
    written = cpu()
    rails.ledger.record_stage("", AS_OF.date(), "done", FeaturesSummary(snapshot=rails.lake.snapshot()))
    spec = find(ROOT / "models", "churn")
    for _ in range(FRAMES):
        with suppress(FileNotFoundError):
            shutil.rmtree(rails.settings.frames)
        frame.training(rails, spec, AS_OF, rails.publication())
    return {"land and build": written - began, f"{FRAMES} training frames": cpu() - written}


def cpu() -> float:
    used = resource.getrusage(resource.RUSAGE_SELF)
    return used.ru_utime + used.ru_stime


def drawn(rails: Rails, flips: int, seed: int) -> Iterator[tuple[LakeFile, int]]:
    """File and bit, one after the other."""
    files = [file for file in damage.files(rails.lake) if file.table.split(".")[0] in READ and file.last is None]
    draw = random.Random(seed)
    for file in draw.choices(files, [file.bytes for file in files], k=flips):
        yield file, draw.randrange(file.bytes * 8)


@contextmanager
def turned(path: Path, bit: int) -> Iterator[None]:
    whole = path.read_bytes()
    other = bytearray(whole)
    other[bit // 8] ^= 1 << bit % 8
    path.write_bytes(bytes(other))
    try:
        yield
    finally:
        path.write_bytes(whole)


def apart_from_the_lake(rails: Rails, flips: int, seed: int) -> dict[str, Counter[str]]:
    """Turn bits in a training frame, which is then read, and in the files of a version in MLflow's store, which is then
    loaded with nothing in the cache. What is trained is trained once, on one trial."""
    spec, draw = find(ROOT / "models", "churn"), random.Random(seed)
    made = frame.training(rails, spec, AS_OF, rails.publication())
    fence = rails.ledger.claim(f"training/{spec.name}")
    training.train_on(rails, spec, AS_OF, made, fence=fence, requested_by="benchmark", trials=1)
    stored_files = [path for name in FILES for path in (Path(rails.settings.mlflow_path) / spec.name).rglob(name)]
    found: dict[str, Counter[str]] = {"frame": Counter(), "version": Counter()}

    def tried(what: str, path: Path, read: Callable[[], object], words: str) -> None:
        with turned(path, draw.randrange(8 * path.stat().st_size)):
            try:
                read()
                found[what]["NOT FOUND"] += 1
            except TiltyardError as error:
                found[what]["named" if words in str(error) else "MISNAMED"] += 1

    for _ in range(flips):
        tried("frame", made.path, made.read, "is damaged")
        path = draw.choice(stored_files)
        shutil.rmtree(rails.settings.home / "cache", ignore_errors=True)
        tried("version", path, lambda: registry.load(rails, spec.name, 1), f"version 1 is refused: {path.name}")
    return found


def value(rails: Rails, table: str) -> object:
    return rails.lake.connection.execute(f"select bit_xor(hash(*columns(*))) from {stored(table)}").fetchone()


def encrypted_reads(rails: Rails, flips: int, seed: int) -> dict[str, int]:
    found: Counter[str] = Counter()
    for file, bit in drawn(rails, flips, seed):
        with turned(Path(file.path), bit):
            try:
                with recording_its_end(rails, "shadow", AS_OF):
                    value(rails, file.table)
                found["in the four bytes that say Parquet" if bit < 32 else "NOT FOUND"] += 1
            except damage.Damaged as error:
                found["named" if file.name in str(error) and file.table in str(error) else "MISNAMED"] += 1
    return dict(found)


def plain_reads(rails: Rails, flips: int, seed: int) -> dict[str, int]:
    found: Counter[str] = Counter()
    sound = {file.table: value(rails, file.table) for file in damage.files(rails.lake) if file.table[:4] != "ops."}
    pool = None
    for file, bit in drawn(rails, flips, seed):
        with turned(Path(file.path), bit):
            pool = pool or ProcessPoolExecutor(1, mp_context=get_context("spawn"))
            try:
                said = pool.submit(read_apart, rails.settings, file.table).result()
                found[
                    "read: an error" if said is None
                    else "read: the same value" if said == sound[file.table] else "read: another value"
                ] += 1  # fmt: skip
            except BrokenProcessPool:
                found["read: the process died"] += 1
                pool = None
            looked = [look for look in damage.inspect(rails.lake, rails.ledger, [file]) if look.damage]
            found["scrub: found" if looked else "scrub: NOT FOUND"] += 1
    if pool:
        pool.shutdown()
    return dict(sorted(found.items()))


def read_apart(settings: Settings, table: str) -> object:
    """The value of a table; None where it gives an error."""
    with rails_module.opened(settings) as rails:
        try:
            return value(rails, table)
        except duckdb.Error:
            return None


if __name__ == "__main__":
    main()
