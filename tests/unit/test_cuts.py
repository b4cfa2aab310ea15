"""Cuts: what each source system would have delivered, drawn small; and the real files, whole."""

from pathlib import Path

from tiltyard import cuts, datasets
from tiltyard.settings import Settings

BOOKINGS = b"""\
hotel,lead_time,arrival_date_year,arrival_date_month,arrival_date_day_of_month,country,reservation_status,reservation_status_date
Resort Hotel,1,2016,March,1,PRT,Canceled,2016-02-29
City Hotel,0,2016,February,29,NULL,Check-Out,2016-03-02
Resort Hotel,1,2016,March,1,PRT,Canceled,2016-02-29
City Hotel,367,2017,March,2,DEU,No-Show,2017-03-02
"""


def test_a_booking_arrives_on_its_day_and_its_outcome_on_the_day_it_was_settled():
    files, rows = cuts.hotels([BOOKINGS])
    assert rows == 8
    header, first, second, third, fourth = BOOKINGS.splitlines()
    header += b",booking_number,booked_at"
    outcome = b"booking_number,reservation_status,reservation_status_date,settled_at"
    assert {path: data.splitlines() for path, data in files.items()} == {
        "hotel_booking/2016-02-29.csv": [
            header,
            first + b",1,2016-02-29 23:59",
            second + b",2,2016-02-29 23:59",
            third + b",3,2016-02-29 23:59",
            fourth + b",4,2016-02-29 23:59",
        ],
        "hotel_outcome/2016-02-29.csv": [
            outcome,
            b"1,Canceled,2016-02-29,2016-03-01 00:00",
            b"3,Canceled,2016-02-29,2016-03-01 00:00",
        ],
        "hotel_outcome/2016-03-02.csv": [outcome, b"2,Check-Out,2016-03-02,2016-03-03 00:00"],
        "hotel_outcome/2017-03-02.csv": [outcome, b"4,No-Show,2017-03-02,2017-03-03 00:00"],
    }
    assert all(data.endswith(b"\n") for data in files.values())  # ingest refuses a last line that is cut off


def test_the_real_bookings(tmp_path: Path, data_mirror: Path):
    settings = Settings(home=tmp_path, data_mirror=data_mirror)
    result = datasets.fetch(settings, "hotels")
    assert (result["files"], result["rows"]) == (984 + 926, 2 * 119_390)
    assert datasets.fetch(settings, "hotels")["unchanged"]
