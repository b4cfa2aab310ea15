"""The rules of time within a night, with their tables: which run answers a row, and what it may read for that.

The night of 31 May 2025 closes over the day of 30 May, whose hours these are. `at` is the prediction time, `known` when
the row of the spine was known; 07:00 is the run at the end of the hour from six to seven, 24:00 the one that closes.
"""

from collections.abc import Callable, Iterable
from datetime import UTC, date, datetime, timedelta
from pathlib import Path

import pytest
import yaml

from tests.lakes import FEATURES, LABELS, SPINES, fill, instant, small_spec
from tiltyard import clock, spec
from tiltyard.errors import BadInput
from tiltyard.judge import shadow
from tiltyard.prepare import contracts
from tiltyard.rails import Rails
from tiltyard.records import FeaturesSummary
from tiltyard.spec import Spec

DAY, NIGHT = instant("2025-05-30"), date(2025, 5, 31)
Answered = Callable[..., dict[str, str]]


def moment(text: str) -> datetime:
    """`07:30` of 30 May; `24:00` is midnight at its end, `25:00` an hour later."""
    hours, minutes = text.split(":")
    return DAY + timedelta(hours=int(hours), minutes=int(minutes))


def shown(at: datetime) -> str:
    hours, minutes = divmod((at - DAY) // timedelta(minutes=1), 60)
    return f"{hours:02}:{minutes:02}"


def by_the_hour(folder: Path, every: str) -> Spec:
    small_spec(folder)
    path = folder / "models" / "small" / "spec.yaml"
    content = yaml.safe_load(path.read_text())
    content["prediction"]["every"] = every
    path.write_text(yaml.safe_dump(content))
    return spec.load(path.parent)


@pytest.fixture
def answered(rails: Rails, tmp_path: Path) -> Answered:
    """Which run answers the rows that are drawn, where these runs are made: row → the end of the run."""

    def play(drawn: str, runs: Iterable[str], every: str = "1h") -> dict[str, str]:
        hourly = by_the_hour(tmp_path, every)
        for table in (SPINES, FEATURES, LABELS):
            fill(rails, table, [])
        rows = [line.split() for line in drawn.strip().splitlines()[1:]]
        rails.lake.connection.execute(f"delete from lake.{SPINES}")
        visits = [
            {"visit_id": name, "shop_id": "s", "prediction_time": moment(at), "available_at": moment(known)}
            for name, at, known in rows
        ]
        fill(rails, SPINES, visits)
        rails.ledger.record_stage("shops", DAY.date(), "done", FeaturesSummary(snapshot=rails.lake.snapshot()))
        for run in map(moment, runs):
            if clock.is_hour(run):
                shadow.answer_hour(rails, hourly, run)
            else:
                shadow.shadow_night(rails, hourly, run)
        made = rails.lake.connection.execute(
            "select entity_id, available_at, night from lake.ops.prediction where tier <> 'shadow' order by 1"
        ).fetchall()
        assert all(night == clock.night_of(at.astimezone(UTC)) for _, at, night in made)
        found = {name: shown(at.astimezone(UTC)) for name, at, _ in made}
        assert len(found) == len(made), "a row was answered twice"
        return found

    return play


def test_which_run_answers_a_row(answered: Answered) -> None:
    drawn = """
        row at    known
        a   00:00 00:00
        b   06:15 06:15
        c   06:59 07:00
        d   07:00 07:00
        e   07:30 08:30
        f   09:30 09:30
        g   23:10 23:10
        h   24:00 24:00
        """
    # the hour [06:00, 07:00) is answered at 07:00, with the rows that are known by then
    assert answered(drawn, ["01:00", "07:00"]) == {"a": "01:00", "b": "07:00", "c": "07:00"}
    # the row of 07:00 is one of the next hour; the one that was known late, and the hour that never ran, wait
    assert answered(drawn, ["08:00", "09:00"]) == {"a": "01:00", "b": "07:00", "c": "07:00", "d": "08:00"}
    # an hour that is run again answers nothing again, and no other hour's rows
    assert answered(drawn, ["07:00", "08:00"]) == {"a": "01:00", "b": "07:00", "c": "07:00", "d": "08:00"}


def test_what_the_hours_have_left_is_the_nights(answered: Answered) -> None:
    drawn = """
        row at    known
        b   06:15 06:15
        e   07:30 08:30
        f   09:30 09:30
        g   23:10 23:10
        h   24:00 24:00
        i   12:00 25:00
        """
    whole = {"b": "07:00", "e": "24:00", "f": "24:00", "g": "24:00"}
    assert answered(drawn, ["07:00", "08:00", "24:00"]) == whole
    # a night that is run again leaves what the hours have answered, and so does an hour after the night
    assert answered(drawn, ["24:00", "07:00", "10:00"]) == whole


@pytest.mark.parametrize(
    ("every", "runs", "run"),
    [("1h", 23, "07:00"), ("2h", 11, "08:00"), ("6h", 3, "12:00"), ("12h", 1, "12:00"), ("1d", 0, "24:00")],
)
def test_a_night_has_as_many_hours_as_fit_before_it_closes(answered: Answered, every: str, runs: int, run: str) -> None:
    hours = [shown(hour) for hour in clock.hours(NIGHT, clock.parse_duration(every))]
    assert len(hours) == runs
    drawn = """
        row at    known
        b   06:15 06:15
        """
    assert answered(drawn, [*hours, "24:00"], every) == {"b": run}


@pytest.mark.parametrize(
    ("name", "due"),
    [
        ("2025-05-30.csv", "24:00"),
        ("2025-05-30-late.csv.gz", "24:00"),
        ("2025-05-30T00.csv", "01:00"),
        ("2025-05-30T06.parquet", "07:00"),
        ("2025-05-30T0645.csv", "07:00"),
        ("2025-05-30T06-2.csv", "07:00"),
        ("2025-05-30T23.csv", "24:00"),
        ("2025-05-30T24.csv", "24:00"),  # there is no such hour: it is of the day
    ],
)
def test_a_delivery_is_due_when_what_it_is_named_by_has_ended(name: str, due: str) -> None:
    assert shown(contracts.due(name)) == due
    assert contracts.day_of(name) == DAY.date()


def test_an_hour_is_one_of_the_models(rails: Rails, tmp_path: Path) -> None:
    nightly = small_spec(tmp_path)
    with pytest.raises(BadInput, match=r"small is answered as its night closes .* name a night, like 2025-05-31"):
        shadow.answer_hour(rails, nightly, moment("07:00"))
    with pytest.raises(BadInput, match=r"every 2h, and not at 07:00 UTC; name an hour like 2025-05-30T06:00Z"):
        shadow.answer_hour(rails, by_the_hour(tmp_path, "2h"), moment("07:00"))
    with pytest.raises(BadInput, match="7h is no night"):
        by_the_hour(tmp_path, "7h")
    for text in ("2025-05-30T07:30Z", "2025-05-30T07:00:01Z"):
        with pytest.raises(BadInput, match=r"is no night and no hour"):
            clock.parse_hour(text)
    assert clock.parse_hour("2025-05-30T07:00Z") == moment("07:00")
