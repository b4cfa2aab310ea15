"""A source by local clocks, and with rows that have no key: what `new source` and `new model` write goes on through the
nights of both changes of the clocks, and rows that are nobody's are left out and counted."""

import csv
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from zoneinfo import ZoneInfo

import pytest

from tests.flow.test_new import copied
from tiltyard import clock
from tiltyard import rails as rails_module
from tiltyard.prepare import features, project
from tiltyard.rails import Rails
from tiltyard.records import FeaturesSummary
from tiltyard.scaffold import cutting, new_model, new_source, source_texts, write
from tiltyard.scaffold.inferring import Said
from tiltyard.scaffold.new_source import SourceRequest
from tiltyard.scaffold.planned import ModelPlan, ModelRequest
from tiltyard.settings import ROOT, Settings

BERLIN = ZoneInfo("Europe/Berlin")
WRITTEN = "%d.%m.%Y %H:%M"
SPRING, AUTUMN = date(2025, 3, 30), date(2025, 10, 26)
"""The nights in which the clocks skip two to three, and show it twice."""
SAID = Said(
    event_time="taken_at",
    planned=("due_at",),
    written_later={"done_at": "done_at", "is_late": "done_at"},
    key="order_id",
)
ASKED = ModelRequest("late", "workshop", label="is_late", horizon_days=3)
STAGING = Path("models/staging/workshop/stg_workshop__job.sql")


@dataclass(frozen=True)
class Workshop:
    """A checkout with a source and a model, and what its rows were."""

    settings: Settings
    plan: ModelPlan
    jobs: Sequence[Mapping[str, str]]


def jobs(first: date, last: date) -> list[dict[str, str]]:
    """Jobs of a workshop that never closes, by its clocks: around two to three in the night as well. Every third takes
    half an hour, so that one of the doubled hour is done within it."""
    rows = []
    day = first
    while day <= last:
        for number in range(12):
            at = datetime(day.year, day.month, day.day, 2 * number, 5 + 4 * number)
            due = at + timedelta(hours=4)
            took = timedelta(minutes=35 if number % 3 == 1 else 90 + 60 * ((number + day.day) % 5))
            done = at + took
            rows.append(
                {
                    "order_id": f"J{len(rows):05d}",
                    "taken_at": at.strftime(WRITTEN),
                    "due_at": due.strftime(WRITTEN),
                    "kind": ("oil", "tyres", "brakes", "glass")[(number * 7 + day.day) % 4],
                    "done_at": done.strftime(WRITTEN),
                    "is_late": "yes" if done > due else "no",
                }
            )
        day += timedelta(days=1)
    return rows


@pytest.fixture(scope="module")
def workshop(tmp_path_factory: pytest.TempPathFactory, postgres_url: str) -> Workshop:
    folder = tmp_path_factory.mktemp("workshop")
    settings = copied(folder, postgres_url).model_copy(update={"sources": ("workshop",)})
    rows = [*jobs(SPRING - timedelta(days=25), SPRING + timedelta(days=4)),
            *jobs(AUTUMN - timedelta(days=25), AUTUMN + timedelta(days=4))]  # fmt: skip
    rows = [{**row, "order_id": f"J{number:05d}"} for number, row in enumerate(rows)]
    export = folder / "jobs.csv"
    with export.open("w", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]), delimiter=";")
        writer.writeheader()
        writer.writerows(rows)
    request = SourceRequest("workshop", export, table="job", zone="Europe/Berlin", said=SAID)
    write.files(settings, source_texts.texts(new_source.look(settings, request)))
    cutting.cut(settings, "workshop", export)
    plan = new_model.look(settings, ASKED)
    write.files(settings, plan.texts, plan.exposure)
    return Workshop(settings, plan, rows)


@pytest.fixture(scope="module")
def opened(workshop: Workshop) -> Iterator[Rails]:
    with rails_module.opened(workshop.settings) as rails:
        yield rails


def first_of(shown: str) -> datetime:
    """The first instant at which clocks of Berlin show it; of the hour that they skip the next one (PEP 495)."""
    return datetime.strptime(shown, WRITTEN).replace(tzinfo=BERLIN, fold=0).astimezone(UTC)


def night_of(day: date) -> date:
    """The night that closes when a day has ended, as the ledger calls it."""
    return clock.night_closing(clock.midnight(day + timedelta(days=1)))


def held(rails: Rails, day: date) -> dict[str, str | None]:
    """Table → why it is not published of the night that closes when a day has ended, once it is built and judged."""
    built = features.build_night(rails, clock.midnight(day + timedelta(days=1)), render=False)
    return {state.table: state.reason for state in built.unpublished}


def test_both_changes_of_the_clocks_hold_nothing_and_every_time_is_the_first(workshop: Workshop, opened: Rails) -> None:
    for change in (SPRING, AUTUMN):
        for day in (change, change + timedelta(days=1)):
            assert held(opened, day) == {}, day
    rows = opened.lake.connection.execute(
        "select order_id, event_time, due_at, done_at, available_at from lake.staging.stg_workshop__job "
        "where available_at < $until",
        {"until": clock.midnight(AUTUMN + timedelta(days=2))},
    ).fetchall()
    by_id = {row["order_id"]: row for row in workshop.jobs}
    doubled = 0
    for key, happened, due, done, known in rows:
        row = by_id[key]
        assert happened == first_of(row["taken_at"])
        assert due == first_of(row["due_at"])
        assert done in (None, first_of(row["done_at"]))
        doubled += done is not None and done.astimezone(BERLIN).replace(fold=1).astimezone(UTC) != done
        assert done is None or done <= known
    assert doubled, "no job was done in the hour that is shown twice"
    texts = project.read(workshop.settings)
    assert "kind" in workshop.plan.features
    assert texts.said.origins("stg_workshop__job", "done_at"), "what is written later is followed through the macro"


def test_a_staging_by_hand_that_takes_the_second_of_the_doubled_hour_is_not_accused(
    workshop: Workshop, opened: Rails
) -> None:
    """What was written before, or by hand, as the engine reads it: the instant may lie an hour after its row was known,
    and nobody knows which of the two hours it was. What lies later by more is told as ever."""
    path = workshop.settings.dbt / STAGING
    ours = path.read_text()
    [line] = [line for line in ours.splitlines() if line.endswith(" as done_at,")]
    read = f"try_strptime(done_at, '{WRITTEN}')"
    try:
        path.write_text(ours.replace(line, f"        timezone('Europe/Berlin', {read}) as done_at,"))
        assert held(opened, AUTUMN) == {}
        path.write_text(
            ours.replace(line, f"        timezone('Europe/Berlin', {read} + interval '61 minutes') as done_at,")
        )
        reasons = held(opened, AUTUMN)
        assert "no_timestamp_later_than_available_at" in str(reasons["stg_workshop__job"])
    finally:
        path.write_text(ours)
    assert held(opened, AUTUMN) == {}


def test_rows_without_a_key_are_left_out_and_counted(workshop: Workshop, opened: Rails) -> None:
    settings, day = workshop.settings, AUTUMN + timedelta(days=2)
    folder = settings.landing / "workshop" / "job"
    header = [*workshop.jobs[0], "written_at"]
    lines = [";".join(header)]
    for number in range(20):
        at = datetime(day.year, day.month, day.day, 10, number)
        row = {"order_id": "" if number < 3 else f"K{number:05d}", "taken_at": at.strftime(WRITTEN), "kind": "oil",
               "due_at": (at + timedelta(hours=2)).strftime(WRITTEN),
               "written_at": at.replace(tzinfo=BERLIN).isoformat()}  # fmt: skip
        lines.append(";".join(row.get(name, "") for name in header))
    (folder / f"{day}b.csv").write_text("\n".join(lines) + "\n")
    notes = new_model.look(settings, ModelRequest("again", "workshop", label="is_late", horizon_days=3)).notes
    assert any(
        note.startswith("Rows of the deliveries that have no order_id: 3. They can be nobody's") for note in notes
    )
    built = features.build_night(opened, clock.midnight(day + timedelta(days=1)), render=False)
    assert built.unpublished == (), "three rows without a key stop no night"
    landed = built.sources["workshop"].ingest
    assert landed is not None and landed.null_key == 3
    run = opened.ledger.stage_run(FeaturesSummary, "workshop", night_of(day))
    assert run is not None
    [warning] = [text for text in run.summary.warnings if "keyless_rows" in text]
    assert "raw.job" in warning and "nobody's prediction" in warning and ": 3, at most 0." in warning
    for table in ("staging.stg_workshop__job", "spines.spn_late"):
        count = opened.lake.connection.execute(
            f"select count(*) filter (order_id is null), count(*) filter (order_id like 'K%') from lake.{table}"
        ).fetchone()
        assert count == (0, 17), table


def test_what_is_written_for_a_zone_passes_the_linter(workshop: Workshop) -> None:
    path = workshop.settings.dbt / STAGING
    command = [sys.executable, "-m", "sqlfluff", "lint", "--disable-progress-bar", "--config", str(ROOT / ".sqlfluff")]
    done = subprocess.run([*command, str(path)], capture_output=True, text=True, cwd=ROOT, check=False)
    assert done.returncode == 0, done.stdout
