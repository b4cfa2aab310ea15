"""What columns are taken for, where nobody said it; and that what somebody said stands."""

from datetime import date, timedelta
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from tests import stranger
from tiltyard.errors import BadInput
from tiltyard.scaffold import inferring, sample
from tiltyard.scaffold.found import Findings
from tiltyard.scaffold.inferring import Said
from tiltyard.scaffold.new_source import SourceRequest, find


def found(path: Path, table: pd.DataFrame, **said: object) -> Findings:
    stranger.write(path / "a.csv", table)
    with sample.opened(path / "a.csv") as opened:
        return find(opened, SourceRequest("clinic", path / "a.csv", said=Said(**said)))  # type: ignore[arg-type]


def test_the_roles_of_appointments(tmp_path: Path) -> None:
    findings = found(tmp_path, stranger.appointments(4_000))
    assert findings.roles.event_time == "scheduled_day"
    assert findings.roles.planned == ("appointment_day",)
    assert findings.roles.written_later == {"sms_received": "appointment_day", "no_show": "appointment_day"}
    assert findings.roles.identifies == ("patient_id",)
    assert findings.roles.key == "appointment_id"
    assert findings.rhythm.closed == ("sunday",)
    assert findings.cohorts is None
    assert [note for note in findings.notes if "written later" in note] == [
        "Taken to be written later: sms_received, no_show, by name. Where one is not, name those that are with "
        "--written-later."
    ]


def test_what_somebody_said_stands(tmp_path: Path) -> None:
    findings = found(
        tmp_path, stranger.appointments(1_000), written_later={"No-show": "AppointmentDay"}, planned=("AppointmentDay",)
    )
    assert findings.roles.written_later == {"no_show": "appointment_day"}
    assert not findings.notes


def test_a_time_that_is_over_is_written_later_and_one_that_was_set_is_planned(tmp_path: Path) -> None:
    """Both lie after their row, and no row lacks one: only a name says which was known ahead, and none is no plan."""
    table = stranger.appointments(1_000)
    made = pd.to_datetime(table["ScheduledDay"])
    for name, hours in (("due_at", 50), ("arrived_at", 53), ("seen_on", 54)):
        table[name] = (made + pd.Timedelta(hours=hours)).dt.strftime("%Y-%m-%dT%H:%M:%SZ")
    roles = found(tmp_path, table, written_later={"No-show": "arrived_at"}).roles
    assert roles.planned == ("appointment_day", "due_at")
    assert roles.written_later == {"no_show": "arrived_at", "arrived_at": "arrived_at", "seen_on": "seen_on"}
    assert "arrived_at" in found(tmp_path, table, planned=("arrived_at",)).roles.planned, "a person's word stands"


def test_what_is_missing_where_an_outcome_is_is_written_with_it(tmp_path: Path) -> None:
    """Minutes and a doctor's name are there of those who came: nobody knew them before. A remark that few rows have, or
    a phone that other rows lack, is another thing."""
    table = stranger.appointments(3_000)
    rng = np.random.default_rng(1)
    came, remarked = rng.random(len(table)) < 0.9, rng.random(len(table)) < 0.05
    table["No-show"] = table["No-show"].where(came, "NA")
    table["Minutes"] = np.where(came, rng.integers(5, 60, len(table)).astype(str), "NA")
    table["Doctor"] = np.where(came & (rng.random(len(table)) < 0.98), "A", "NA")
    table["Remark"] = np.where(came & remarked, "B", "NA")
    table["Fax"] = np.where(rng.random(len(table)) < 0.9, "1", "NA")
    findings = found(tmp_path, table)
    assert findings.roles.missing_with == {"minutes": "no_show", "doctor": "no_show"}
    assert findings.roles.written_later["minutes"] == "appointment_day"
    assert any("minutes, doctor, missing where these are" in note for note in findings.notes)
    said = found(tmp_path, table, written_later={"No-show": "AppointmentDay", "SMS_received": None})
    assert "minutes" not in said.roles.written_later, "a person's word stands"
    assert any(note.startswith("minutes and doctor are missing in the rows in which no_show is") for note in said.notes)


def test_a_word_among_numbers_is_taken_for_missing_and_told(tmp_path: Path) -> None:
    """`k.A.` stands where all else are numbers; in a text two words are two values."""
    table = stranger.appointments(1_000)
    table["Ct-Wert"] = np.where(np.arange(1_000) % 40 == 0, "k.A.", (np.arange(1_000) % 37 + 0.5).astype(str))
    table["Room"] = np.where(np.arange(1_000) % 2 == 0, "north", "south")
    findings = found(tmp_path, table)
    ct = findings.table.column("Ct-Wert")
    assert ct is not None and (ct.kind, ct.missing) == ("number", 25)
    assert "k.A." in findings.table.form.null_values and "north" not in findings.table.form.null_values
    assert any(note.startswith("'k.A.' stands among numbers") for note in findings.notes)


def test_holidays_on_which_there_are_rows_are_no_closed_days(tmp_path: Path) -> None:
    stranger.write(tmp_path / "a.csv", stranger.appointments(4_000))
    with sample.opened(tmp_path / "a.csv") as opened:
        findings = find(opened, SourceRequest("clinic", tmp_path / "a.csv", country="BR"))
    assert findings.rhythm.closed == ("sunday",)
    assert any("is not closed on the holidays of BR" in note for note in findings.notes)


def test_a_table_without_a_key_says_which_column_could_be_one(tmp_path: Path) -> None:
    table = stranger.appointments(2_000).rename(columns={"AppointmentID": "Booking"})
    findings = found(tmp_path, table)
    assert findings.roles.key is None
    assert any("say --key Booking where it stays theirs" in note for note in findings.notes)
    notes = found(tmp_path, pd.concat([table, table.head(10)])).notes
    assert any(
        "No column has another value in every row (Booking has 2,000 different values in 2,010 rows)" in note
        for note in notes
    )


def test_rows_that_were_sampled_by_another_day_are_told(tmp_path: Path) -> None:
    table = stranger.appointments(12_000, days=120)
    table["AppointmentDay"] = table["AppointmentDay"].str[:10]
    ahead = pd.to_datetime(table["AppointmentDay"]) - pd.to_datetime(table["ScheduledDay"].str[:10])
    assert ahead.max() > timedelta(days=15)
    findings = found(tmp_path, table[table["AppointmentDay"].between("2016-05-01", "2016-06-10")])
    assert findings.cohorts is not None
    assert findings.cohorts.sampled_by == "appointment_day"
    assert findings.cohorts.first in (date(2016, 5, 1), date(2016, 5, 2))
    assert findings.cohorts.last < date(2016, 6, 10)
    assert any("sampled by appointment_day" in note for note in findings.notes)


def test_closed_days_are_weekdays_and_dates() -> None:
    days = [date(2016, 1, 1) + timedelta(days=number) for number in range(60)]
    rows = [(day, 40 + day.day) for day in days if day.weekday() < 5 and day != date(2016, 2, 9)]
    rhythm = inferring.rhythm(rows)
    assert rhythm.closed == ("saturday", "sunday", "2016-02-09")
    rows = [(day, count) for day, count in rows if day != date(2016, 1, 1)]
    assert inferring.rhythm(rows, "BR").closed == ("saturday", "sunday", "holidays: BR", "2016-02-09")
    assert rhythm.warn_below <= 0.4
    assert rhythm.warn_above >= 2.2


@pytest.mark.parametrize(
    ("said", "message"),
    [
        ({"event_time": "Age"}, "'Age' holds numbers, and no times"),
        ({"event_time": "ScheduleDay"}, "has no column 'ScheduleDay'; did you mean ScheduledDay?"),
        ({"key": "PatientId"}, "'PatientId' does not name a row"),
        ({"planned": ("No-show",), "written_later": {"No-show": None}}, "say one of both"),
        ({"planned": ("ScheduledDay",)}, "tells when a row happened"),
    ],
)
def test_what_somebody_said_and_cannot_be(tmp_path: Path, said: dict[str, object], message: str) -> None:
    with pytest.raises(BadInput) as raised:
        found(tmp_path, stranger.appointments(300), **said)
    assert message in str(raised.value)


def test_a_table_without_times(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match="No column tells when a row happened"):
        found(tmp_path, stranger.appointments(300)[["PatientId", "Gender", "Age"]])
