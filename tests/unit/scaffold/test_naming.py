"""Headers become plain names."""

import duckdb
import pytest
from sqlfluff.core.dialects import dialect_selector

from tiltyard.scaffold import naming


@pytest.mark.parametrize(
    ("header", "name"),
    [
        ("PatientId", "patient_id"),
        ("AppointmentID", "appointment_id"),
        ("No-show", "no_show"),
        ("SMS_received", "sms_received"),
        ("HTTPStatus", "http_status"),
        ("Straße Nr.", "strasse_nr"),
        ("Données arrivée", "donnees_arrivee"),
        ("order", "order_value"),
        ("event_time", "source_event_time"),
        ("label", "source_label"),
        ("2nd visit", "n_2nd_visit"),
        ("日付", "column_1"),
        ("x" * 90, "x" * 40),
    ],
)
def test_a_header_becomes_a_plain_name(header: str, name: str) -> None:
    assert naming.aliases([header]) == (name,)


@pytest.mark.parametrize(
    ("table", "row"),
    [("stops", "stop"), ("entries", "entry"), ("boxes", "box"), ("addresses", "address"), ("matches", "match"),
     ("purchases", "purchase"), ("status", "status"), ("analysis", "analysis"), ("appointment", "appointment"),
     ("gas", "gas"), ("line_items", "line_item"), ("series", "series")],
)  # fmt: skip
def test_a_row_of_a_table_is_called_by_its_singular(table: str, row: str) -> None:
    assert naming.one_of(table) == row


def test_two_headers_that_would_be_one_name_are_told_apart() -> None:
    assert naming.aliases(["No-show", "no show", "NoShow"]) == ("no_show", "no_show_2", "no_show_3")


def test_no_name_is_a_word_that_duckdb_or_the_linter_takes_for_its_own() -> None:
    rows = duckdb.execute("select keyword_name from duckdb_keywords() where keyword_category = 'reserved'").fetchall()
    linter = {word.lower() for word in dialect_selector("duckdb").sets("reserved_keywords")}
    assert {word for (word,) in rows} | linter <= naming.RESERVED
