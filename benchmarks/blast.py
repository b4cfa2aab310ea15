"""Forty models over eight sources, and every kind of fault on a night of its own: who notices, and who must not.

    python benchmarks/blast.py --jobs 2
    python benchmarks/blast.py --kinds file_binary spec_yaml
    python benchmarks/blast.py --docs

A home is played first, in which forty models have been in service for a week, and one night more without a fault. Then
each kind is put into a copy of that home, the night is played through the tasks of the DAG
files, each a process of its own, and held against the undisturbed one: for every model that does not stand on what was
broken every row has to be the same, byte for byte (`faults/rows.py` says what is left out); every model that does has
an answer for every row of its spine, or its night waits and nothing of it is lost. Then the fault is mended, the night
is done again where a person would do so, and everything has to be as if nothing had happened.

Results are kept in the work folder and taken up again; `--docs` writes them to docs/reference/faults.md. Ends with exit
code 1 where there is collateral, a row without an answer, or something left after mending.
"""

import argparse
import json
import logging
import os
import sys
import time
import traceback
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from multiprocessing import get_context
from multiprocessing.queues import Queue
from pathlib import Path

from faults import player
from faults.kinds import KINDS
from faults.trial import Bench, Result

from tiltyard.settings import NO_TELEMETRY

_bench: Bench


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--kinds", nargs="+", metavar="NAME", help="only these")
    parser.add_argument("--list", action="store_true", help="say which kinds there are")
    parser.add_argument("--jobs", type=int, default=1, help="homes beside each other, each in a process")
    parser.add_argument("--work", type=Path, default=Path("/tmp/tiltyard-blast"), help="folder of homes and results")
    parser.add_argument("--again", action="store_true", help="try kinds again that have a result")
    parser.add_argument("--for", dest="minutes", type=float, help="begin no kind after so many minutes")
    parser.add_argument("--json", type=Path, help="file that gets the results as well")
    parser.add_argument("--docs", action="store_true", help="write the results to docs/reference/faults.md")
    asked = parser.parse_args()
    names = asked.kinds or list(KINDS)
    if unknown := sorted(set(names) - KINDS.keys()):
        parser.error(f"there is no kind '{unknown[0]}'; --list says which there are")
    if asked.list:
        for name in names:
            print(f"{name:32}{KINDS[name].group:12}{KINDS[name].what}")
        return
    results = asked.work / "results"
    results.mkdir(parents=True, exist_ok=True)
    asked.work.chmod(0o755)
    waiting = [name for name in names if asked.again or not (results / f"{name}.json").exists()]
    played(waiting, asked.work, asked.jobs, asked.minutes)
    there = [path for name in names if (path := results / f"{name}.json").exists()]
    every = [Result.from_json(json.loads(path.read_text())) for path in there]
    if asked.json:
        asked.json.write_text(json.dumps([result.to_json() for result in every], indent=1))
    if asked.docs:
        from faults import page

        page.write(every)
    bad = [result for result in every if not result.is_good]
    for result in bad:
        told(result)
    missing = len(names) - len(every)
    print(f"{len(every)} kinds, {len(bad)} not as they must be" + (f", {missing} without a result" if missing else ""))
    sys.exit(1 if bad or missing else 0)


def played(names: Sequence[str], work: Path, jobs: int, minutes: float | None) -> None:
    """Try kinds, each job in a home of its own, and keep the results."""
    if not names:
        return
    context = get_context("spawn")
    if not Bench(work).is_prepared:
        with ProcessPoolExecutor(1, context, initializer=_begin, initargs=(work, None)) as pool:
            pool.submit(_prepare, jobs).result()
    begun, free = time.monotonic(), context.Queue()
    for number in range(jobs):
        free.put(number)
    with ProcessPoolExecutor(jobs, context, initializer=_begin, initargs=(work, free if jobs > 1 else None)) as pool:
        running = {pool.submit(_try_out, name, begun, minutes): name for name in names}
        for number, future in enumerate(as_completed(running), 1):
            said = future.result()
            print(f"[{number:3}/{len(names)}, {time.monotonic() - begun:5.0f} s] {said}", flush=True)


def _begin(work: Path, free: "Queue[int] | None") -> None:
    """Make this process one that tries kinds: in a place of its own where `free` gives it a number."""
    global _bench
    logging.disable(logging.INFO)
    os.environ.update(NO_TELEMETRY | player.AIRFLOW | {"AIRFLOW_HOME": str(work / "airflow"), "OMP_NUM_THREADS": "1"})
    _bench = Bench(work)
    if free is not None:
        _bench.apart(free.get())
    player.preload()


def _prepare(jobs: int) -> None:
    _bench.prepare(jobs, lambda text: print(text, flush=True))


def _try_out(name: str, begun: float, minutes: float | None) -> str:
    if minutes is not None and time.monotonic() - begun > 60 * minutes:
        return f"{name}: not begun, the time is over"
    try:
        result = _bench.try_out(KINDS[name])
    except (Exception, SystemExit) as error:
        traceback.print_exc()
        return f"{name}: it could not be tried, {str(error)[:2000]}"
    (_bench.folder / "results" / f"{name}.json").write_text(json.dumps(result.to_json(), indent=1))
    word = "as it must be" if result.is_good else "NOT AS IT MUST BE"
    return f"{name}: {word}, {result.seconds:.0f} s"


def told(result: Result) -> None:
    """Print what is wrong with a result."""
    print(f"\n{result.kind}: {result.what}")
    for title in ("collateral", "unanswered", "left"):
        for model, what in getattr(result, title).items():
            print(f"  {title}: {model}: {what if isinstance(what, str) else '; '.join(what)[:1500]}")
    for table in result.collateral_tables:
        print(f"  collateral: {table}")
    if not result.seen:
        print("  nobody sees it")


if __name__ == "__main__":
    main()
