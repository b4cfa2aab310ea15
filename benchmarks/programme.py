"""The programme of faults: everything that is broken on purpose, one part after the other, and what held.

    python benchmarks/programme.py                  all parts, under half an hour on two cores
    python benchmarks/programme.py --short          fewer cases of each, some minutes
    python benchmarks/programme.py --only kills forged --seed 7

A part is a benchmark or a choice of the tests, which it runs in a process of its own with a limit of its own; one that
breaks, or takes too long, stops none of the others. Of tests a case is a test; texts and requests are counted one by
one. At the end stands, part by part, how much was tried, held, lost and not tried, and with each loss how to see it
again. Exit 1 where anything was lost, or a part did not come to its end.
"""

import argparse
import json
import os
import random
import re
import signal
import subprocess
import sys
import tempfile
import time
import xml.etree.ElementTree as ET
from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from pathlib import Path

import psutil
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table

ROOT = Path(__file__).resolve().parents[1]
SEED = 20160229
LEAST_S = 30.0
"""What a part needs at least, in seconds."""
OUTPUT = "output.txt"
LOSSES = 20
"""How many losses of a part are told."""


@dataclass
class Tally:
    """What came of a part."""

    tried: int = 0
    held: int = 0
    untried: int = 0
    """Cases that this machine cannot try, or that the time did not reach."""
    lost: list[str] = field(default_factory=list)
    """How to see each loss again; it may stand for several."""


@dataclass(frozen=True)
class Run:
    """One run of the programme."""

    is_short: bool
    seed: int
    work: Path
    """An empty folder."""
    limit_s: float


@dataclass(frozen=True)
class Part:
    """What is tried together."""

    name: str
    kind: str
    """What is broken, in words."""
    held: str
    """When a case has held."""
    limit_s: float
    """After which it is stopped, in seconds."""
    work: Callable[[Run], Tally]
    is_drawn: bool = False
    """Whether a seed draws its cases; otherwise they are the same each time."""


@dataclass(frozen=True)
class Tests:
    """A choice of the tests, as a part's work."""

    places: tuple[str, ...]
    """Files and folders."""
    words: str = ""
    """What the names of those that are chosen hold."""
    cases: tuple[int, int] | None = None
    """How many cases they try in all, and in short."""
    counted_by: str = "FUZZ_CASES"
    """The variable that tells them."""

    def __call__(self, run: Run) -> Tally:
        report = run.work / "junit.xml"
        own = {}
        if self.cases is not None:
            own = {self.counted_by: str(self.cases[run.is_short]), "FUZZ_FROM": str(run.seed)}
        choice = ["-k", self.words] if self.words else []
        command = [sys.executable, "-m", "pytest", "-v", "-n", "0", f"--junitxml={report}"]
        try:
            said = called([*command, *self.places, *choice], run, own)
        except subprocess.TimeoutExpired:
            said = output(run)
            ends = Counter(re.findall(r" (PASSED|FAILED|ERROR|SKIPPED) +\[", said))
            lost = [f"not at its end after {run.limit_s:.0f} s, and {ends['FAILED'] + ends['ERROR']} had failed"]
            return Tally(ends["PASSED"] + ends["FAILED"] + ends["ERROR"], ends["PASSED"], ends["SKIPPED"], lost)
        if not report.exists():
            return Tally(lost=[f"pytest wrote no report: {said[-300:]}"])
        tally = of_tests(report.read_text())
        if not tally.tried + tally.untried:
            tally.lost.append(f"no test was found: {said[-300:]}")
        return tally


def of_tests(report: str) -> Tally:
    """What a report of pytest's says. A test that tries many cases says how many (`cases`), and how many failed."""
    tally = Tally()
    for case in ET.fromstring(report).iter("testcase"):
        if case.find("skipped") is not None:
            tally.untried += 1
            continue
        own = [int(each.get("value", "1")) for each in case.iter("property") if each.get("name") == "cases"]
        count, failed = max([1, *own]), 0
        for wrong in (*case.iter("failure"), *case.iter("error")):
            text = f"{wrong.get('message')} {wrong.text}"
            told = re.search(r"(\d+) of \d+:", text)
            failed = max(failed, min(count, int(told[1])) if told else 1)
            seed = re.search(r"FUZZ_(?:SEED|FROM)=\d+", text)
            place = f"{case.get('classname', '').replace('.', '/')}.py::{case.get('name')}"
            tally.lost.append(f"{seed[0] + ' ' if seed else ''}python -m pytest -n 0 '{place}'")
        tally.tried += count
        tally.held += count - failed
    return tally


def blast(run: Run) -> Tally:
    """Kinds of `blast.py`: those of FIRST, and of the others one of each group after the other, as many as the time
    allows."""
    from faults.kinds import KINDS
    from faults.trial import Result

    groups: dict[str, list[str]] = {}
    for name in random.Random(run.seed).sample(sorted(KINDS), len(KINDS)):
        if KINDS[name].group != "nothing" and name not in FIRST:
            groups.setdefault(KINDS[name].group, []).append(name)
    deepest = max(map(len, groups.values()))
    rounds = [own[place] for place in range(deepest) for own in groups.values() if place < len(own)]
    names, homes = [*FIRST, *rounds][: 2 if run.is_short else 24], run.work / "homes"
    command = [sys.executable, "benchmarks/blast.py", "--kinds", *names, "--jobs", "2"]
    lost = []
    try:
        called([*command, "--for", str(0.6 * run.limit_s / 60), "--work", str(homes)], run)
    except subprocess.TimeoutExpired:
        lost.append(f"blast.py was not at its end after {run.limit_s:.0f} s")
    every = [Result.from_json(json.loads(path.read_text())) for path in (homes / "results").glob("*.json")]
    if not every:
        return Tally(lost=[*lost, f"blast.py has no results: {output(run)[-300:]}"])
    bad = [result.kind for result in every if not result.is_good]
    lost += [f"python benchmarks/blast.py --again --kinds {name}" for name in bad]
    return Tally(len(every), len(every) - len(bad), len(names) - len(every), lost)


def flips(run: Run) -> Tally:
    """Single bits of the lake's files, of a training frame, and of a version's files."""
    results, count = run.work / "flips.json", 20 if run.is_short else 200
    asked = ["--flips", str(count), "--seed", str(run.seed), "--repeats", "1", "--customers", "600"]
    said = called([sys.executable, "benchmarks/flips.py", *asked, "--json", str(results)], run)
    if not results.exists():
        return Tally(lost=[f"flips.py wrote no results: {said[-300:]}"])
    lost = int(json.loads(results.read_text())["lost"])
    again = [f"python benchmarks/flips.py {' '.join(asked)}: {lost}"] if lost else []
    return Tally(4 * count, 4 * count - lost, 0, again)


FIRST = (
    "file_nan", "file_infinite", "file_flood", "disk_of_the_lake", "disk_of_predictions", "disk_of_frames",
    "disk_of_mlflow", "killed_training",
)  # fmt: skip
"""Kinds of `blast.py` that are tried each time."""
KILLS = "kill"
PARTS = (
    Part(
        "forged",
        "approvals by whoever caused it, by strangers, twice, or written into the record; rows of the ledger "
        "that were changed, taken out or put in, past its triggers or as the project does",
        "nothing is promoted, and the chain names what was changed",
        300,
        Tests(
            (
                "tests/unit/test_chain.py",
                "tests/unit/judge/test_operate.py",
                "tests/unit/judge/test_promotion.py",
            ),
            words="chain or approv or forged or answer or written",
        ),
    ),
    Part(
        "callers",
        "half-open and slow connections, heads and bodies without end, wrong keys, budgets over workers",
        "nobody else waits, memory stays, the budget is exact",
        240,
        Tests(("tests/flow/test_serving_door.py",)),
    ),
    Part(
        "disk",
        "trainings whose frames, or whose files in MLflow's store, lie on a disk without room",
        "the record names the disk, no version is there, and the training that has room is what it always was",
        240,
        Tests(("tests/flow/test_full_disk.py",)),
    ),
    Part(
        "flips",
        "single bits in files of the lake, encrypted and plain, of a training frame, and of a version",
        "each is found and named",
        240,
        flips,
        is_drawn=True,
    ),
    Part(
        "kills",
        "SIGKILL in stages, promotions, commits, deliveries of answers, maintenance, erasing",
        "the rerun ends as the undisturbed one, nothing is lost or doubled",
        600,
        Tests(
            (
                "tests/flow/test_hindcast.py",
                "tests/flow/test_lake_maintenance.py",
                "tests/flow/test_erasing.py",
                "tests/flow/test_replacing.py",
                "tests/flow/test_withdrawing.py",
                "tests/flow/test_served_log.py",
                "tests/unit/test_postgres.py",
                "tests/unit/test_chain.py",
                "tests/unit/answered/test_request_log.py",
                "tests/unit/online",
                "tests/unit/prepare/test_ingest.py",
                "tests/unit/prepare/test_releasing.py",
                "tests/unit/rewind/test_crew.py",
                "tests/unit/serve/test_spool.py",
                "tests/unit/upkeep/test_files.py",
                "tests/unit/test_files.py",
                "tests/dags/test_chunks.py",
                "tests/flow/test_backtest.py",
                "tests/flow/test_changed_view.py",
                "tests/flow/test_publication.py",
                "tests/flow/test_removing.py",
                "tests/unit/edge/test_told.py",
                "tests/unit/edge/test_services.py",
                "tests/unit/prepare/fetch/test_database.py",
                "tests/unit/test_fence.py",
            ),
            words=KILLS,
        ),
    ),
    Part(
        "late",
        "labels that come late, with corrections, in any order",
        "every look at the truth, the counts and the evaluations are the same",
        300,
        Tests(("tests/unit/judge/test_late_labels.py",), cases=(200, 5), counted_by="LATE_LABEL_ORDERS"),
        is_drawn=True,
    ),
    Part(
        "texts",
        "specs, suites, dbt files, arguments and requests as they ought not to be",
        "each is answered with a sentence, and nobody else is touched",
        420,
        Tests(
            (
                "tests/flow/test_fuzz.py",
                "tests/flow/test_serving_fuzz.py",
            ),
            cases=(10_000, 200),
        ),
        is_drawn=True,
    ),
    Part(
        "blast",
        "a fault on a night of forty models: deliveries (NaN, infinite, a hundred times as many rows, none), "
        "dbt, suites, processes that die or hang, files of versions, full disks, the ledger",
        "models that do not stand on it have the same night, byte for byte; the others answer; mended, it is as before",
        780,
        blast,
        is_drawn=True,
    ),
)


def called(command: Sequence[str], run: Run, environment: dict[str, str] | None = None) -> str:
    """What a command printed. Past the limit it is killed with all that it has started, and TimeoutExpired raised."""
    own = {**os.environ, "TMPDIR": str(run.work), "PYTHONPATH": f"{ROOT / 'plugins'}:{ROOT}:{ROOT / 'benchmarks'}"}
    with (run.work / OUTPUT).open("w") as file:
        process = subprocess.Popen(
            command, cwd=ROOT, env=own | (environment or {}), stdout=file, stderr=subprocess.STDOUT,
            start_new_session=True,
        )  # fmt: skip
        try:
            process.wait(run.limit_s)
        except BaseException:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()
            stop_all(run.work)
            raise
    return output(run)


def output(run: Run) -> str:
    """What the command that was called last has printed so far."""
    return (run.work / OUTPUT).read_text(errors="replace")


def stop_all(folder: Path) -> None:
    """Kill what works in a folder: databases are in sessions of their own."""
    for process in psutil.process_iter():
        with suppress(psutil.Error):
            if Path(process.cwd()).is_relative_to(folder):
                process.kill()


@dataclass(frozen=True)
class Outcome:
    """A part that was tried."""

    part: str
    kind: str
    seed: int | None
    """What has drawn its cases; None where they are the same each time."""
    tally: Tally
    seconds: float
    cpu_s: float


def tried(part: Part, *, is_short: bool, seed: int, left_s: float = 1e9) -> Outcome:
    """Try a part in what is left of the time; what breaks it is a loss, and that it is not begun another."""
    began, before, limit_s = time.monotonic(), os.times(), min(part.limit_s, left_s)
    drawn_by = seed if part.is_drawn else None
    if limit_s < LEAST_S and limit_s < part.limit_s:
        return Outcome(
            part.name, part.kind, drawn_by, Tally(lost=[f"not begun, the time is over: --only {part.name}"]), 0, 0
        )
    with tempfile.TemporaryDirectory(prefix="tiltyard-faults-", ignore_cleanup_errors=True) as folder:
        Path(folder).chmod(0o755)  # run as root, PostgreSQL drops to a user of its own
        run = Run(is_short, seed, Path(folder), limit_s)
        try:
            tally = part.work(run)
        except subprocess.TimeoutExpired:
            tally = Tally(lost=[f"it was not at its end after {limit_s:.0f} s: --only {part.name}"])
        except Exception as error:
            tally = Tally(lost=[f"it could not be tried ({type(error).__name__}: {error}): --only {part.name}"])
    after = os.times()
    cpu_s = after.children_user + after.children_system - before.children_user - before.children_system
    return Outcome(part.name, part.kind, drawn_by, tally, round(time.monotonic() - began, 1), round(cpu_s, 1))


def told(outcomes: Sequence[Outcome], console: Console) -> None:
    """The table, and each loss."""
    table = Table("part", "tried", "held", "lost", "not tried", "seed", "wall s", "CPU s")
    for column in table.columns[1:]:
        column.justify = "right"
    for one in outcomes:
        own = one.tally
        table.add_row(
            one.part, f"{own.tried:,}", f"{own.held:,}", f"{max(own.tried - own.held, len(own.lost)):,}",
            f"{own.untried:,}", "–" if one.seed is None else str(one.seed), f"{one.seconds:.0f}", f"{one.cpu_s:.0f}",
        )  # fmt: skip
    console.print(table)
    for one in outcomes:
        for again in one.tally.lost[:LOSSES]:
            console.print(f"lost, {one.part}: {again}", markup=False, soft_wrap=True)
        if len(one.tally.lost) > LOSSES:
            console.print(f"lost, {one.part}: {len(one.tally.lost) - LOSSES} more", markup=False)


def main() -> None:
    names = [part.name for part in PARTS]
    parser = argparse.ArgumentParser(
        description=__doc__.splitlines()[0],
        epilog="Example: python benchmarks/programme.py --short --only forged callers --json faults.json",
    )
    parser.add_argument("--only", nargs="+", choices=names, metavar="PART", help=f"of {', '.join(names)}")
    parser.add_argument("--short", action="store_true", help="fewer cases of each")
    parser.add_argument("--seed", type=int, default=SEED, help="what is drawn is drawn from it")
    parser.add_argument("--minutes", type=float, default=29.0, help="after which no part begins, and none goes on")
    parser.add_argument("--list", action="store_true", help="say what the parts are")
    parser.add_argument("--json", type=Path, help="file that gets the results as well")
    asked = parser.parse_args()
    chosen = [part for part in PARTS if not asked.only or part.name in asked.only]
    console = Console(width=None if sys.stdout.isatty() else 120)
    if asked.list:
        for part in chosen:
            console.print(f"{part.name}: {part.kind}. Held: {part.held}.", markup=False, soft_wrap=True)
        return
    outcomes: list[Outcome] = []
    until = time.monotonic() + 60 * asked.minutes
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        TextColumn("{task.completed}/{task.total}"),
        TimeElapsedColumn(),
    )
    with Progress(*columns, console=console, disable=not sys.stdout.isatty()) as progress:
        bar = progress.add_task("", total=len(chosen))
        for part in chosen:
            progress.update(bar, description=part.name)
            left_s = until - time.monotonic()
            outcomes.append(tried(part, is_short=asked.short, seed=asked.seed, left_s=left_s))
            own = outcomes[-1].tally
            progress.console.print(
                f"{part.name}: {own.held:,} of {own.tried:,} held, {outcomes[-1].seconds:.0f} s", highlight=False
            )
            progress.advance(bar)
    told(outcomes, console)
    if asked.json:
        asked.json.write_text(json.dumps([asdict(one) for one in outcomes], indent=1))
    sys.exit(1 if any(one.tally.lost for one in outcomes) else 0)


if __name__ == "__main__":
    main()
