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
import re
import signal
import subprocess
import sys
import tempfile
import time
import xml.etree.ElementTree as ET
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table

ROOT = Path(__file__).resolve().parents[1]
SEED = 20160229
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


@dataclass(frozen=True)
class Tests:
    """A choice of the tests, as a part's work."""

    places: tuple[str, ...]
    """Files and folders."""
    words: str = ""
    """What the names of those that are chosen hold."""
    cases: tuple[int, int] | None = None
    """How many texts they try in all, and in short."""

    def __call__(self, run: Run) -> Tally:
        report = run.work / "junit.xml"
        own = {} if self.cases is None else {"FUZZ_CASES": str(self.cases[run.is_short])}
        choice = ["-k", self.words] if self.words else []
        command = [sys.executable, "-m", "pytest", "-q", "-n", "0", f"--junitxml={report}"]
        said = called([*command, *self.places, *choice], run, own)
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
            failed = min(count, int(told[1])) if told else 1
            seed = re.search(r"FUZZ_SEED=\d+ ", text)
            place = f"{case.get('classname', '').replace('.', '/')}.py::{case.get('name')}"
            tally.lost.append(f"{seed[0] if seed else ''}python -m pytest -n 0 '{place}'")
        tally.tried += count
        tally.held += count - failed
    return tally


def blast(run: Run) -> Tally:
    """A sample of the kinds of `blast.py`, one of each group after the other, as many as the time allows."""
    import random

    from faults.kinds import KINDS
    from faults.trial import Result

    groups: dict[str, list[str]] = {}
    for name in random.Random(run.seed).sample(sorted(KINDS), len(KINDS)):
        if KINDS[name].group != "nothing":
            groups.setdefault(KINDS[name].group, []).append(name)
    rounds = [
        own[place] for place in range(max(map(len, groups.values()))) for own in groups.values() if place < len(own)
    ]
    names, results = rounds[: 2 if run.is_short else 24], run.work / "results.json"
    minutes = str(0.7 * run.limit_s / 60)
    command = [sys.executable, "benchmarks/blast.py", "--kinds", *names, "--jobs", "2", "--for", minutes]
    said = called([*command, "--work", str(run.work / "homes"), "--json", str(results)], run)
    if not results.exists():
        return Tally(lost=[f"blast.py wrote no results: {said[-300:]}"])
    every = json.loads(results.read_text())
    bad = [result.kind for result in map(Result.from_json, every) if not result.is_good]
    lost = [f"python benchmarks/blast.py --again --kinds {name}" for name in bad]
    return Tally(len(every), len(every) - len(lost), len(names) - len(every), lost)


def flips(run: Run) -> Tally:
    """Single bits of the lake's files."""
    results, count = run.work / "flips.json", 20 if run.is_short else 200
    asked = ["--flips", str(count), "--seed", str(run.seed), "--repeats", "1", "--customers", "600"]
    said = called([sys.executable, "benchmarks/flips.py", *asked, "--json", str(results)], run)
    if not results.exists():
        return Tally(lost=[f"flips.py wrote no results: {said[-300:]}"])
    lost = int(json.loads(results.read_text())["lost"])
    again = [f"python benchmarks/flips.py {' '.join(asked)}: {lost}"] if lost else []
    return Tally(2 * count, 2 * count - lost, 0, again)


KILLS = "kill"
PARTS = (
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
    ),
    Part(
        "blast",
        "a fault on a night of forty models: deliveries (NaN, infinite, a hundred times as many rows, none), "
        "dbt, suites, processes that die or hang, files of versions, full disks, the ledger",
        "models that do not stand on it have the same night, byte for byte; the others answer; mended, it is as before",
        780,
        blast,
    ),
    Part("flips", "single bits in files of the lake, encrypted and plain", "each is found and named", 240, flips),
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
                "tests/unit/test_ledger.py",
                "tests/unit/test_chain.py",
                "tests/unit/answered/test_request_log.py",
                "tests/unit/online",
                "tests/unit/prepare/test_ingest.py",
                "tests/unit/prepare/test_releasing.py",
                "tests/unit/rewind/test_crew.py",
                "tests/unit/train/test_registry.py",
                "tests/unit/serve/test_spool.py",
                "tests/unit/upkeep/test_files.py",
                "tests/unit/test_files.py",
                "tests/dags/test_chunks.py",
            ),
            words=KILLS,
        ),
    ),
    Part(
        "forged",
        "approvals by whoever caused it, by strangers, twice, or written into the record; rows of the ledger "
        "that were changed, taken out or put in",
        "nothing is promoted, and the chain names what was changed",
        300,
        Tests(
            (
                "tests/unit/test_chain.py",
                "tests/unit/judge/test_operate.py",
                "tests/unit/judge/test_promotion.py",
            ),
            words="chain or approv or forged or answer",
        ),
    ),
    Part(
        "callers",
        "half-open and slow connections, heads and bodies without end, wrong keys, budgets over workers",
        "nobody else waits, memory stays, the budget is exact",
        240,
        Tests(("tests/flow/test_serving_door.py",)),
    ),
)


def called(command: Sequence[str], run: Run, environment: dict[str, str] | None = None) -> str:
    """What a command printed. Past the limit it is killed with all that it has started, and TimeoutExpired raised."""
    out = run.work / "output.txt"
    own = {**os.environ, "TMPDIR": str(run.work), "PYTHONPATH": f"{ROOT / 'plugins'}:{ROOT}:{ROOT / 'benchmarks'}"}
    with out.open("w") as file:
        process = subprocess.Popen(
            command, cwd=ROOT, env=own | (environment or {}), stdout=file, stderr=subprocess.STDOUT,
            start_new_session=True,
        )  # fmt: skip
        try:
            process.wait(run.limit_s)
        except BaseException:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()
            raise
    return out.read_text(errors="replace")


@dataclass(frozen=True)
class Outcome:
    """A part that was tried."""

    part: str
    kind: str
    seed: int
    tally: Tally
    seconds: float
    cpu_s: float


def tried(part: Part, *, is_short: bool, seed: int) -> Outcome:
    """Try a part; what breaks it is a loss."""
    began, before = time.monotonic(), os.times()
    with tempfile.TemporaryDirectory(prefix="tiltyard-faults-", ignore_cleanup_errors=True) as folder:
        Path(folder).chmod(0o755)  # run as root, PostgreSQL drops to a user of its own
        run = Run(is_short, seed, Path(folder), part.limit_s)
        try:
            tally = part.work(run)
        except subprocess.TimeoutExpired:
            tally = Tally(lost=[f"it was not at its end after {part.limit_s:.0f} s: --only {part.name}"])
        except Exception as error:
            tally = Tally(lost=[f"it could not be tried ({type(error).__name__}: {error}): --only {part.name}"])
    after = os.times()
    cpu_s = after.children_user + after.children_system - before.children_user - before.children_system
    return Outcome(part.name, part.kind, seed, tally, round(time.monotonic() - began, 1), round(cpu_s, 1))


def told(outcomes: Sequence[Outcome], console: Console) -> None:
    """The table, and each loss."""
    table = Table("part", *(column for column in ("tried", "held", "lost", "not tried", "seed", "wall s", "CPU s")))
    for column in table.columns[1:]:
        column.justify = "right"
    for one in outcomes:
        own = one.tally
        table.add_row(
            one.part, f"{own.tried:,}", f"{own.held:,}", f"{max(own.tried - own.held, len(own.lost)):,}",
            f"{own.untried:,}", str(one.seed), f"{one.seconds:.0f}", f"{one.cpu_s:.0f}",
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
    parser.add_argument("--list", action="store_true", help="say what the parts are")
    parser.add_argument("--json", type=Path, help="file that gets the results as well")
    asked = parser.parse_args()
    chosen = [part for part in PARTS if not asked.only or part.name in asked.only]
    console = Console(width=None if sys.stdout.isatty() else 120)
    if asked.list:
        for part in chosen:
            console.print(f"{part.name}: {part.kind}. Held: {part.held}.", markup=False, soft_wrap=True)
        return
    outcomes = []
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
            outcomes.append(tried(part, is_short=asked.short, seed=asked.seed))
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
