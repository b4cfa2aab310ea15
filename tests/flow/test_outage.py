"""A simulated business whose deliveries break in silence: an incident opens, nothing is retrained, it closes.

The landing zone is a month of good nights; each test lets one night's files be broken and goes on night by night.
Only ingest and the freshness suite run, and drift where it is asked: dbt has nothing to do with it.
"""

import shutil
from collections.abc import Callable, Iterator
from datetime import date, datetime, timedelta
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest

from tests.conftest import business_home
from tiltyard import clock
from tiltyard import rails as rails_module
from tiltyard.clock import night_closing
from tiltyard.govern import drift, grants
from tiltyard.prepare import checks, data_incidents, embargo, features, latency, observation
from tiltyard.rails import Rails
from tiltyard.records import Finding
from tiltyard.settings import ROOT
from tiltyard.spec import Spec, find

DAY = timedelta(days=1)
START = date(2025, 1, 1)
GOOD = 28
"""Nights that land at once: what is usual."""
NIGHTS = 12
"""Nights after them, one by one."""
SUITED = (29, 30, 32, 34)
"""On these nights the whole suite runs."""

Nights = Callable[[int], datetime]
Break = Callable[[pa.Table], pa.Table]


def as_of(number: int) -> datetime:
    """The night that closes after day `number`, counted from 1."""
    return clock.midnight(START + number * DAY)


@pytest.fixture(scope="module")
def rails(
    tmp_path_factory: pytest.TempPathFactory, postgres_url: str, eager_models: Path, deliveries: Path
) -> Iterator[Rails]:
    """The good nights have landed; what follows waits outside the landing zone."""
    folder = tmp_path_factory.mktemp("outage")
    settings = business_home(folder, postgres_url, eager_models, deliveries)
    for path in sorted((settings.landing / "subscription").glob("*/*.parquet")):
        if date.fromisoformat(path.stem) >= START + GOOD * DAY:
            waiting = folder / "waiting" / path.parent.name
            waiting.mkdir(parents=True, exist_ok=True)
            path.replace(waiting / path.name)
    with rails_module.opened(settings) as opened:
        features.ingest(opened, as_of(GOOD))
        yield opened


@pytest.fixture(scope="module")
def told(rails: Rails) -> dict[int, dict[str, Any]]:
    """Every night after the good ones, in order: what is broken on it is in `BROKEN`. Night → what it showed."""
    waiting = rails.settings.home.parent / "waiting"
    found: dict[int, dict[str, Any]] = {}
    for number in range(GOOD + 1, GOOD + NIGHTS + 1):
        day = START + (number - 1) * DAY
        for name, files in LANDING.get(number, {}).items():
            for source, broken in files.items():
                _land(rails, waiting, name, START + (source - 1) * DAY, broken, day)
        for table in ("customer", "login", "payment", "cancellation"):
            if table not in LANDING.get(number, {}):
                _land(rails, waiting, table, day, None, day)
        features.ingest(rails, as_of(number))
        warnings: set[tuple[str, str]] = set()
        if number in SUITED:
            report = checks.check_batch(rails, "freshness", as_of(number), source="subscription")
            warnings = {(one.table, one.name) for one in report.warnings}
        else:  # what the suite does as well, without the suite
            observation.store(rails, observation.observe(rails, "subscription", as_of(number)), {}, as_of(number))
        findings = latency.backfill_results(rails, "subscription", as_of(number), None)
        found[number] = {
            "open": data_incidents.of_source(rails, "subscription", night_closing(as_of(number))),
            "warnings": warnings,
            "backfills": {one.table: one.violations for one in findings if one.rule == "backfill" and one.violations},
        }
    return found


def _land(rails: Rails, waiting: Path, table: str, day: date, broken: Break | None, named: date) -> None:
    source = waiting / table / f"{day}.parquet"
    target = rails.settings.landing / "subscription" / table / f"{day if broken is not shifted else named}.parquet"
    if broken is None or broken is late:
        shutil.copy(source, target)
    else:
        pq.write_table(broken(pq.read_table(source)), target)


def nulled(table: pa.Table) -> pa.Table:
    place = table.schema.get_field_index("device")
    return table.set_column(place, "device", pa.nulls(len(table), pa.string()))


def renamed(table: pa.Table) -> pa.Table:
    """`web` is spelled otherwise."""
    place = table.schema.get_field_index("device")
    return table.set_column(place, "device", pc.replace_substring(table["device"], "web", "browser"))


def shifted(table: pa.Table) -> pa.Table:
    """The same rows a day later."""
    for name in ("logged_in_at", "written_at"):
        moved = pc.add(table[name], pa.scalar(DAY, pa.duration("us")))
        table = table.set_column(table.schema.get_field_index(name), name, moved)
    return table


def late(table: pa.Table) -> pa.Table:
    return table


LANDING: dict[int, dict[str, dict[int, Break | None]]] = {
    30: {"login": {30: nulled}},
    32: {"login": {32: renamed}},
    34: {"login": {33: shifted}},  # the file of day 34 holds the rows of day 33
    36: {"login": {}},  # nothing comes …
    38: {"login": {36: late, 38: None}},  # … until two nights later
}
"""Night → table → day of the rows → how they are broken."""


def what(told: dict[int, dict[str, Any]], number: int) -> list[tuple[str, str, str]]:
    return [(one.table, one.column, one.what) for one in told[number]["open"]]


def test_clean_nights_open_nothing(told: dict[int, dict[str, Any]]) -> None:
    for number in (29, 31, 33, 35, 37, 39, 40):
        assert what(told, number) == [], number
        assert told[number]["backfills"] == {}, number
        assert told[number]["warnings"] == set(), number


@pytest.mark.parametrize(
    ("number", "incident", "warning"),
    [
        (30, ("raw.login", "device", "went_null"), "no_column_to_go_null"),
        (32, ("raw.login", "device", "category_vanished"), "no_category_to_vanish"),
        (34, ("raw.login", "", "repeated_partition"), "no_partition_to_repeat"),
    ],
)
def test_each_kind_of_silence_is_an_incident_for_its_night(
    told: dict[int, dict[str, Any]], number: int, incident: tuple[str, str, str], warning: str
) -> None:
    assert what(told, number) == [incident]
    assert ("raw.login", warning) in told[number]["warnings"]
    assert told[number]["open"][0].since == night_closing(as_of(number))


def test_a_day_that_comes_late_is_an_incident_and_a_backfill(told: dict[int, dict[str, Any]]) -> None:
    assert what(told, 38) == [("raw.login", "", "arrived_late")]
    assert "2025-02-05.parquet" in told[38]["open"][0].reason
    assert set(told[38]["backfills"]) == {"raw.login"}


def test_the_ledger_tells_when_each_opened_and_closed(rails: Rails, told: dict[int, dict[str, Any]]) -> None:
    assert told
    events = [
        ((event.night - START).days, event.detail["what"], event.detail["state"])
        for event in rails.ledger.events(kind=data_incidents.EVENT)
    ]
    assert events == [
        (30, "went_null", "open"),
        (31, "went_null", "closed"),
        (32, "category_vanished", "open"),
        (33, "category_vanished", "closed"),
        (34, "repeated_partition", "open"),
        (35, "repeated_partition", "closed"),
        (38, "arrived_late", "open"),
        (39, "arrived_late", "closed"),
    ]
    observation.store(rails, observation.observe(rails, "subscription", as_of(30)), {}, as_of(30))
    assert len(rails.ledger.events(kind=data_incidents.EVENT)) == len(events), "a night done again says nothing new"


def test_drift_reports_an_open_incident_and_nobody_retrains(
    rails: Rails, told: dict[int, dict[str, Any]], spec: Spec
) -> None:
    broken = {number: drift._broken(rails, spec, as_of(number), stages=()) for number in told}
    assert {number for number, said in broken.items() if said} == {30, 32, 34, 38}
    night = night_closing(as_of(30))
    for number in range(80):
        model = spec.model_copy(update={"name": f"{spec.name}_{number}"})
        rails.ledger.add_finding(
            Finding(
                model=model.name, night=night, tier=model.tier, owner=model.owner, champion=1, challengers=(),
                alarm=True, harm="felt", broken=drift._broken(rails, model, as_of(30), stages=()),
            )
        )  # fmt: skip
    copies = [spec.model_copy(update={"name": f"{spec.name}_{n}"}) for n in range(80)]
    outcome = grants.govern_night(rails, as_of(30), copies)
    assert (outcome.decisions, outcome.granted) == ({"incident": 80}, {})
    [incident] = outcome.incidents
    assert (incident.node, incident.kind, len(incident.models)) == ("raw.login", "broken", 80)
    assert "device went null" in incident.reason


def test_a_training_says_which_incidents_its_window_holds(rails: Rails, told: dict[int, dict[str, Any]]) -> None:
    assert told
    first, last = night_closing(as_of(29)), night_closing(as_of(33))
    said = data_incidents.during(rails, "subscription", first, last)
    assert len(said) == 2
    assert "since 2025-01-31, raw.login.device went null: " in said[0]
    assert data_incidents.during(rails, "subscription", night_closing(as_of(39)), night_closing(as_of(40))) == ()


def test_the_late_day_is_an_embargo_that_a_person_sees(
    rails: Rails, told: dict[int, dict[str, Any]], spec: Spec
) -> None:
    assert told
    learned = embargo.embargoes(rails, as_of(40), ["raw.login", "raw.payment"], nights=14)
    assert (learned["raw.login"].verdict, learned["raw.login"].missed_nights) == ("late", 2)
    assert learned["raw.payment"].verdict == "kept"
    assert learned["raw.login"].observed_rows == learned["raw.login"].rows > 0
    seen = embargo.look(rails, model=spec, source=None, as_of=None, nights=14)
    assert seen.as_of == as_of(GOOD + NIGHTS)
    assert {table.table: table.verdict for table in seen.tables}["raw.login"] == "late"
    assert seen.plot is not None and seen.plot.is_file()


@pytest.fixture(scope="module")
def spec() -> Spec:
    return find(ROOT / "models", "churn")
