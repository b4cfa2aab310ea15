"""Faults that follow the day which rows are about: total by that day, diluted by the day on which rows came."""

from collections.abc import Iterator
from datetime import UTC, date, datetime, timedelta
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from tests import stranger
from tests.conftest import make_settings
from tiltyard import clock
from tiltyard import rails as rails_module
from tiltyard.clock import night_closing
from tiltyard.prepare import data_incidents, features, observation
from tiltyard.rails import Rails
from tiltyard.scaffold import cutting, new_source, source_texts, write
from tiltyard.scaffold.inferring import Said
from tiltyard.scaffold.new_source import SourceRequest

SAID = Said(
    event_time="ScheduledDay",
    planned=("AppointmentDay",),
    written_later={"No-show": "AppointmentDay", "SMS_received": "AppointmentDay"},
    identifies=("PatientId",),
)
SILENT = [date(2016, 5, day) for day in (3, 4, 5)]
"""Days for whose appointments no message was sent."""
LAST = date(2016, 5, 29)
"""The last day on which an appointment was made; some lie up to three weeks later."""


@pytest.fixture(scope="module")
def rails(tmp_path_factory: pytest.TempPathFactory, postgres_url: str) -> Iterator[Rails]:
    folder = tmp_path_factory.mktemp("along")
    table = stranger.appointments(14_000, days=90)
    day = pd.to_datetime(table["AppointmentDay"]).dt.date
    sent = np.where(np.random.default_rng(4).random(len(table)) < 0.4, 1, 0)
    table["SMS_received"] = np.where(day.isin(SILENT), 0, sent)
    dbt = folder / "dbt"
    settings = make_settings(folder, postgres_url, sources=("clinic",), dbt=dbt, expectations=folder / "expectations")
    export = stranger.write(folder / "appointments.csv", table)
    plan = new_source.look(settings, SourceRequest("clinic", export, table="appointment", said=SAID))
    write.files(settings, source_texts.texts(plan))
    cutting.cut(settings, "clinic", export)
    with rails_module.opened(settings) as opened:
        features.ingest(opened, clock.midnight(date(2016, 4, 20)))
        yield opened


@pytest.fixture(scope="module")
def told(rails: Rails) -> dict[date, frozenset[str]]:
    """Day → what was open when it was over, of every day until three weeks after the last appointment was made."""
    found: dict[date, frozenset[str]] = {}
    day = date(2016, 4, 20)
    while day <= LAST + timedelta(days=21):
        as_of = datetime(day.year, day.month, day.day, tzinfo=UTC) + timedelta(days=1)
        features.ingest(rails, as_of)
        observation.store(rails, observation.observe(rails, "clinic", as_of), {}, as_of)
        incidents = data_incidents.of_source(rails, "clinic", night_closing(as_of))
        found[day] = frozenset(f"{incident.column}: {incident.what}" for incident in incidents)
        day += timedelta(days=1)
    return found


def test_a_fault_of_the_days_that_rows_are_about_is_seen_on_them_and_is_over_after_them(
    told: dict[date, frozenset[str]],
) -> None:
    what = "sms_received: went_zero_by_appointment_day"
    assert [day for day, found in told.items() if what in found] == SILENT


def test_that_rows_come_to_their_end_is_no_fault(told: dict[date, frozenset[str]]) -> None:
    """After the last appointment was made only those are left that were made long before: nobody accuses them."""
    others = {day: found for day, found in told.items() if any("_by_" in what for what in found)}
    assert list(others) == SILENT


def test_the_reason_says_along_what(rails: Rails, told: dict[date, frozenset[str]]) -> None:
    [opened] = [
        change for _, change in data_incidents.changes(rails, LAST)
        if change.state == "open" and change.what.startswith("went_zero_by")
    ]  # fmt: skip
    assert opened.reason.startswith("by appointment_day: ")
    assert "values are zero" in opened.reason
    assert opened.since == SILENT[0] + timedelta(days=1)
    assert told


def test_a_second_look_at_a_night_says_the_same(rails: Rails, told: dict[date, frozenset[str]]) -> None:
    as_of = clock.midnight(SILENT[1] + timedelta(days=1))
    before = rails.lake.query("select * from {ops.column_profile}", as_of)
    observation.store(rails, observation.observe(rails, "clinic", as_of), {}, as_of)
    after = rails.lake.query("select * from {ops.column_profile}", as_of)
    keys = ["night", "table_name", "column_name", "along"]
    pd.testing.assert_frame_equal(
        before.sort_values(keys).reset_index(drop=True), after.sort_values(keys).reset_index(drop=True)
    )
    assert set(after["along"].dropna()) == {"appointment_day"}
    assert len(told) > 40


def test_a_text_is_no_day(tmp_path: Path) -> None:
    """Only what the contract types as a day or an instant can be gone along."""
    from tiltyard.prepare.contracts import _planned

    meta = {"config": {"meta": {"tiltyard": {"planned": True}}}}
    entry = {"columns": [{"name": "due", **meta}, {"name": "room", **meta}, {"name": "made"}]}
    assert _planned(entry, {"due": "DATE", "room": "VARCHAR", "made": "DATE"}) == ("due",)
