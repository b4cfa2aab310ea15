"""Whose nights do not start by themselves: that of a source of which all that lies there is of the past."""

from datetime import date, timedelta
from pathlib import Path

import pytest

from tests.conftest import make_settings
from tiltyard import clock
from tiltyard.edge import orchestration, resting
from tiltyard.prepare import contracts
from tiltyard.settings import Settings

TODAY = clock.now().date()
OLD, RECENT, AHEAD = date(2016, 5, 31), TODAY - timedelta(days=3), TODAY + timedelta(days=200)


def lies(settings: Settings, source: str, *names: str) -> None:
    for name in names:
        path = settings.landing / source / "update" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("a\n")


@pytest.mark.parametrize(
    ("names", "rests"),
    [
        ((), False),  # it may be new
        (("README.txt",), False),
        ((f"{OLD}.csv",), True),
        ((f"{OLD}.csv", f"{RECENT}-b.parquet"), False),
        ((f"{OLD}.csv", f"{AHEAD}.csv"), True),  # a mistyped year keeps nobody awake
        ((f".{RECENT}.csv", f"{OLD}.csv"), True),
    ],
)
def test_a_source_rests_whose_deliveries_are_all_of_the_past(
    tmp_path: Path, postgres_url: str, names: tuple[str, ...], rests: bool
) -> None:
    settings = make_settings(tmp_path, postgres_url, sources=("incident", "retail"))
    lies(settings, "incident", *names)
    assert resting.rests(settings, "incident", clock.now()) is rests
    noted = resting.noted(settings)
    assert noted.unscheduled == (("incident",) if rests else ())
    assert contracts.schedule(noted, "retail") is not None
    assert (orchestration.timetable(settings, "incident") is None) is rests


def test_one_that_came_while_airflow_runs_wakes_with_its_first_file(tmp_path: Path, postgres_url: str) -> None:
    """Airflow was started before there was such a source: nobody has told it that the source rests."""
    settings = make_settings(tmp_path, postgres_url, sources=("incident",))
    lies(settings, "incident", f"{OLD}.csv")
    assert orchestration.timetable(settings, "incident") is None
    lies(settings, "incident", f"{RECENT}.csv")
    assert orchestration.timetable(settings, "incident") is not None
