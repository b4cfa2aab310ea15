"""A night of many models through Airflow, features to promotion and drift, beside what it may cost.

    python benchmarks/portfolio.py --models 100 --nights 2

The models are clones of `churn` on the simulator. One is hindcast until it has a champion; the others get a copy of its
past, in the ledger and in the lake, so that a night does for each of them what it does for a model in service. The
first nights have a fifth of the models, the last ones all: the difference is what one more model costs. PostgreSQL and
Airflow are started in a home of their own on a free port, and stopped. Printed are, per night, the wall, the CPU
seconds of everything (PostgreSQL, Airflow and every task) and its memory at its highest; then how long the portfolio
page and a model's take to answer, and to load in a browser. Ends with exit code 1 where a limit is missed.
"""

import argparse
import json
import os
import shutil
import statistics
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from datetime import datetime, timedelta
from pathlib import Path

import psutil
import sqlalchemy as sa
import yaml
from night import parse
from playwright.sync_api import sync_playwright
from servers.process import free_port

from tiltyard import clock, lake, ledger_tables
from tiltyard import rails as rails_module
from tiltyard.edge import processes, quickstart, services
from tiltyard.edge.airflow_api import Airflow
from tiltyard.govern import grants
from tiltyard.prepare import releasing
from tiltyard.prepare.simulator import Simulator
from tiltyard.rails import Rails
from tiltyard.records import Promotion
from tiltyard.rewind import hindcast
from tiltyard.settings import ROOT, Settings
from tiltyard.spec import Spec, find, portfolio
from tiltyard.tables import DRIFT, DRIFT_DETECTOR, ESTIMATE, EVALUATION, PREDICTION, PROFILE, TIER_SHARE
from tiltyard.train import registry

FIRST = clock.parse_as_of("2025-02-03")
PAST = 4
"""Nights that are hindcast for the model that the others are copies of. It is trained on the first one; the same
version once more is its challenger."""
COPIED = (PREDICTION, PROFILE, EVALUATION, ESTIMATE, DRIFT, DRIFT_DETECTOR, TIER_SHARE)
KEPT = ("stage_run", "version", "decision", "promotion", "watch", "retrain", "finding", "default_task")
PAGES = 9
"""How often the portfolio page is asked for."""
STAGES = 3
"""Stages that a model adds to: shadow, promotion and drift."""
TICKS = os.sysconf("SC_CLK_TCK")


@dataclass(frozen=True)
class Limit:
    """What a figure may be, for a portfolio of 100 models; of another size its share where it grows with the models."""

    what: str
    most: float
    unit: str
    grows: bool = False


LIMITS = {
    "wall_s": Limit("night, wall", 480, "s", grows=True),
    "cpu_s": Limit("night, CPU of everything", 600, "s", grows=True),
    "marginal_s": Limit("CPU per model more and stage", 0.5, "s"),
    "dags": Limit("DAGs", 250, "", grows=True),
    "parse_s": Limit("parse of dags/", 1.0, "s"),
    "memory_gb": Limit("memory at its highest, everything", 6.0, "GB"),
    "page_ms": Limit("portfolio page, over HTTP", 300, "ms"),
    "page_kb": Limit("its size", 200, "kB"),
    "model_ms": Limit("a model's page, over HTTP", 300, "ms"),
    "browser_ms": Limit("portfolio page, in a browser", 300, "ms"),
    "browser_model_ms": Limit("a model's page, in a browser", 300, "ms"),
}


@dataclass(frozen=True)
class Night:
    models: int
    wall_s: float
    cpu_s: float
    memory_gb: float


class Meter:
    """CPU seconds and memory of everything that was started for a home, as /proc counts them."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._peak = 0.0
        self._stop = threading.Event()

    def processes(self) -> list[psutil.Process]:
        """Airflow's parts and PostgreSQL, with all that descends from them, and this process."""
        roots = processes.marked(self._settings)
        marker = self._settings.home / "postgres" / "postmaster.pid"
        for path in [marker, *self._settings.home.glob("*/postmaster.pid")]:
            if path.exists():
                roots.append(psutil.Process(int(path.read_text().splitlines()[0])))
        family = {process.pid: process for process in roots}
        for process in roots:
            try:
                family |= {child.pid: child for child in process.children(recursive=True)}
            except psutil.Error:
                continue
        return [*family.values(), psutil.Process()]

    def cpu_s(self) -> float:
        """Of those that live, and of their children that have ended."""
        total = 0
        for process in self.processes():
            try:
                fields = Path(f"/proc/{process.pid}/stat").read_text().rpartition(")")[2].split()
            except OSError:
                continue
            total += sum(map(int, fields[11:15]))  # utime, stime, and both of the children that were waited for
        return total / TICKS

    def memory_gb(self) -> float:
        """Shared pages counted once (PSS)."""
        kilobytes = 0
        for process in self.processes():
            try:
                text = Path(f"/proc/{process.pid}/smaps_rollup").read_text()
            except OSError:
                continue
            kilobytes += int(text.partition("Pss:")[2].split()[0]) if "Pss:" in text else 0
        return kilobytes / 1e6

    @contextmanager
    def peak(self) -> Iterator[None]:
        """Note the highest memory while it lasts; read it from `peak_gb`."""
        self.peak_gb = 0.0
        stop = threading.Event()

        def look() -> None:
            while not stop.wait(2.0):
                self.peak_gb = max(self.peak_gb, self.memory_gb())

        thread = threading.Thread(target=look, daemon=True)
        thread.start()
        try:
            yield
        finally:
            stop.set()
            thread.join()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--models", type=int, default=100)
    parser.add_argument("--nights", type=int, default=2, help="nights of each size")
    parser.add_argument("--json", type=Path, help="file that gets the figures as well")
    parser.add_argument("--keep", action="store_true", help="leave the home where it is")
    parser.add_argument("--screenshots", type=Path, metavar="FOLDER", help="keep there how the pages look")
    asked = parser.parse_args()
    folder = Path(tempfile.mkdtemp(prefix="tiltyard-portfolio-"))
    folder.chmod(0o755)  # run as root, PostgreSQL drops to a user of its own
    settings = Settings(
        home=folder / "home",
        models=folder / "models",
        sources=("subscription",),
        schedule="none",
        api_port=free_port(),
        database_url=None,
    )
    few = max(1, asked.models // 5)
    try:
        Simulator(customers=1_200, days=60).land(settings.landing / "subscription")
        write_specs(settings.models, 1)
        with rails_module.opened(settings) as rails:
            figures = measure(rails, few, asked.models, asked.nights, asked.screenshots)
    finally:
        services.stop(settings)
        if not asked.keep:
            shutil.rmtree(folder, ignore_errors=True)
    if asked.json:
        asked.json.write_text(json.dumps(figures, indent=1))
    sys.exit(0 if told(figures, asked.models) else 1)


def measure(rails: Rails, few: int, many: int, nights: int, screenshots: Path | None) -> dict[str, float]:
    """The figures of LIMITS."""
    settings, first = rails.settings, find(rails.settings.models, name(0))
    begun = time.perf_counter()
    last = FIRST + (PAST - 1) * timedelta(days=1)
    hindcast.hindcast(rails, [first], FIRST, last)
    [version] = rails.ledger.versions(first.name)
    rails.ledger.claim_promotion(  # a champion by decree: its truth would take weeks to mature
        Promotion(
            model=first.name, version=version.version, night=last.date(), replaced=None, requested_by="benchmark",
            approved_by=None, approval={"needed": False},
        )
    )  # fmt: skip
    rails.ledger.add_version(replace(version, version=version.version + 1, night=last.date(), inputs="the same again"))
    flow = registry.client(settings)
    [registered] = flow.search_model_versions(f"name='{first.name}'")
    flow.create_model_version(first.name, registered.source, run_id=registered.run_id)
    write_specs(settings.models, many)
    specs = portfolio(settings)
    copy(rails, first, [spec.name for spec in specs if spec.name != first.name])
    rails.ledger.accept_as_found("benchmark", "champions by decree")
    for number in range(PAST):  # or the first night here would decide on the copies' past, and train all of them
        grants.govern_night(rails, FIRST + number * timedelta(days=1), specs)
    write_specs(settings.models, few)
    champions = sum(
        rails.ledger.roles(spec.name, (FIRST + PAST * timedelta(days=1)).date()).champion is not None for spec in specs
    )
    print(f"{len(specs)} models, {champions} with a champion, after {time.perf_counter() - begun:.0f} s", flush=True)
    services.start(settings)
    meter, played = Meter(settings), []
    with Airflow(settings) as airflow:
        for number in range(2 * nights):
            if number == nights:
                write_specs(settings.models, many)
            if refused := releasing.accept(rails, clock.now(), by="benchmarks").refused:
                raise SystemExit(f"A copy was refused: {refused[0]}")
            present = portfolio(settings)
            airflow.wait_for_dags([f"{spec.name}__training" for spec in present], timeout_s=600)
            played.append(play(rails, airflow, meter, present, FIRST + (PAST + number) * timedelta(days=1)))
        times, of_model = [], []
        for _ in range(1 + PAGES):
            begun = time.perf_counter()
            page = airflow.page("/tiltyard/")
            times.append(time.perf_counter() - begun)
            begun = time.perf_counter()
            airflow.page(f"/tiltyard/models/{name(0)}")
            of_model.append(time.perf_counter() - begun)
        seen = in_browser(airflow, screenshots)
    parse_s, dags = parse(settings)
    small, large = played[nights - 1], played[-1]
    marginal = (large.cpu_s - small.cpu_s) / max(1, large.models - small.models) / STAGES
    return {
        "wall_s": large.wall_s,
        "cpu_s": large.cpu_s,
        "marginal_s": marginal,
        "dags": dags,
        "parse_s": parse_s,
        "memory_gb": max(night.memory_gb for night in played),
        "page_ms": 1000 * statistics.median(times[1:]),  # the first one imports what stands behind the page
        "page_kb": len(page.encode()) / 1000,
        "model_ms": 1000 * statistics.median(of_model[1:]),
        **seen,
        **{f"night_{number}": value for number, night in enumerate(played, 1) for value in [asdict(night)]},  # type: ignore[dict-item]
    }


def in_browser(airflow: Airflow, screenshots: Path | None) -> dict[str, float]:
    """Milliseconds until a page has loaded in the system's Chromium, the median of PAGES; nothing without one. Where a
    folder is given, how the pages look is kept there."""
    executable = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
    if executable is None:
        print("no Chromium is here: nothing was looked at in a browser", flush=True)
        return {}
    pages = {"browser_ms": "/tiltyard/", "browser_model_ms": f"/tiltyard/models/{name(0)}"}
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=executable, args=["--no-sandbox", "--disable-gpu"])
        page = browser.new_page(viewport={"width": 1280, "height": 900}, extra_http_headers=airflow.authorization())
        found = {}
        for key, path in pages.items():
            times = []
            for _ in range(1 + PAGES):
                page.goto(airflow.address + path, wait_until="load")
                times.append(page.evaluate("performance.getEntriesByType('navigation')[0].duration"))
            found[key] = statistics.median(times[1:])
        if screenshots:
            screenshots.mkdir(parents=True, exist_ok=True)
            for file, path in (("portfolio", "/tiltyard/"), ("model", pages["browser_model_ms"]),
                               ("night", f"/tiltyard/nights/{(FIRST + PAST * timedelta(days=1)):%Y-%m-%d}"),
                               ("costs", "/tiltyard/costs")):  # fmt: skip
                page.goto(airflow.address + path, wait_until="load")
                page.screenshot(path=screenshots / f"{file}.png")
        browser.close()
    return found


def play(rails: Rails, airflow: Airflow, meter: Meter, specs: tuple[Spec, ...], as_of: datetime) -> Night:
    before, begun = meter.cpu_s(), time.perf_counter()
    with meter.peak():
        quickstart.night_in_airflow(rails, airflow, specs, as_of)
    night = Night(len(specs), time.perf_counter() - begun, meter.cpu_s() - before, meter.peak_gb)
    print(
        f"night of {as_of:%Y-%m-%d}: {night.models} models, {night.wall_s:.0f} s wall, {night.cpu_s:.0f} s CPU, "
        f"{night.memory_gb:.1f} GB at its highest",
        flush=True,
    )
    for dag_id in quickstart.dag_ids(rails.settings, specs):
        if "__" not in dag_id and (runs := airflow.runs(dag_id)):
            tasks = airflow.tasks(dag_id, runs[0].dag_run_id)
            print(
                f"  {dag_id:12}" + ", ".join(f"{task.task_id} {task.duration:.1f}" for task in tasks if task.duration)
            )
    return night


def told(figures: dict[str, float], models: int) -> bool:
    """Print every figure beside its limit. Whether all of them are kept."""
    kept = True
    print(f"{models} models{'':24}{'':>10}{'limit':>12}")
    for key, limit in LIMITS.items():
        if key not in figures:
            continue
        most = limit.most * max(models, 100) / 100 if limit.grows else limit.most
        mark = "" if figures[key] <= most else "  MISSED"
        kept = kept and not mark
        print(f"{limit.what:36}{figures[key]:>8.2f} {limit.unit:2}{most:>8.1f} {limit.unit}{mark}")
    return kept


def name(number: int) -> str:
    return f"churn_{number:03}"


def write_specs(models: Path, count: int) -> None:
    """Clones of churn, `count` of them and no more: tried quickly, and with no retrain, which is another story."""
    content = yaml.safe_load((ROOT / "models" / "churn" / "spec.yaml").read_text())
    content["estimator"]["tune"] = {"trials": 2}
    content["gate"] |= {"min_matured": 100, "min_shadow": "1d"}
    models.mkdir(exist_ok=True)
    (models / "portfolio.yaml").write_text((ROOT / "models" / "portfolio.yaml").read_text())
    for number in range(count):
        folder = models / name(number)
        folder.mkdir(exist_ok=True)
        content["drift"]["on_drift"] = "report" if number or count > 1 else "retrain"
        (folder / "spec.yaml").write_text(yaml.safe_dump(content))
        shutil.copy(ROOT / "models" / "churn" / "card.md", folder)
    for folder in sorted(models.glob("churn_*"))[count:]:
        shutil.rmtree(folder)


def copy(rails: Rails, first: Spec, names: list[str]) -> None:
    """Give the other models the past of the first one: what the ledger knows, the lake's rows, MLflow's versions."""
    with rails.ledger.engine.begin() as connection:
        for table in (ledger_tables.metadata.tables[table] for table in KEPT):
            columns = [column for column in table.c if column.name != "model"]
            for other in names:
                values = [
                    sa.func.jsonb_set(column, "{model}", sa.func.to_jsonb(sa.cast(other, sa.Text)), False)
                    if column.name in ("body", "summary")
                    else column
                    for column in columns
                ]
                rows = sa.select(sa.literal(other), *values).where(table.c.model == first.name)
                connection.execute(table.insert().from_select(["model", *(column.key for column in columns)], rows))
    for table in COPIED:
        if rails.lake.has(table):
            stored = lake.identifier(table)
            rails.lake.commit(
                lambda connection, stored=stored: connection.execute(
                    f"insert into {stored} select rows.* replace (other.model as model)"
                    f" from {stored} rows cross join (select unnest($names) as model) other where rows.model = $first",
                    {"names": names, "first": first.name},
                ),
                message=f"copies of {table}",
            )
    flow = registry.client(rails.settings)
    versions = flow.search_model_versions(f"name='{first.name}'")
    aliases = registry.aliases(rails, first.name)
    for other in names:
        flow.create_registered_model(other)
        for version in sorted(versions, key=lambda version: int(version.version)):
            flow.create_model_version(other, version.source, run_id=version.run_id)
        for alias, number in aliases.items():
            flow.set_registered_model_alias(other, alias, str(number))


if __name__ == "__main__":
    main()
