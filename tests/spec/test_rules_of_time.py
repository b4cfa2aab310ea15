"""The rules of time, each with its tables. Read from the top: this is what a frame may and may not contain.

Times are days of February 2024. `event` is when it happened, `known` when we could first know it.
"""

from collections.abc import Callable
from datetime import datetime, timedelta
from pathlib import Path

import pandas as pd
import pytest

from tests.lakes import FEATURES, LABELS, SPINES, fill, instant, small_spec
from tiltyard.errors import BadInput
from tiltyard.prepare import frame
from tiltyard.rails import Rails

Sees = Callable[..., float | None]


def day(number: float | None) -> datetime | None:
    return None if number is None else instant("2024-02-01") + timedelta(days=number - 1)


def table(text: str) -> list[dict[str, float | None]]:
    """A drawn table: a header, a row per line, `-` for NULL."""
    header, *rows = [line.split() for line in text.strip().splitlines()]
    return [
        {name: None if cell == "-" else float(cell) for name, cell in zip(header, row, strict=True)} for row in rows
    ]


@pytest.fixture
def sees(rails: Rails, tmp_path: Path) -> Sees:
    """What a visit on day 10 sees of a shop whose states are drawn, read at the end of day 20."""

    def read(drawn: str, *, at: float = 10, as_of: float = 20, max_age: str = "null") -> float | None:
        states = [
            {"shop_id": "s", "event_time": day(row["event"]), "available_at": day(row["known"]), "size": row["size"]}
            for row in table(drawn)
        ]
        fill(rails, FEATURES, [])
        rails.lake.connection.execute(f"delete from lake.{FEATURES}")
        fill(rails, FEATURES, states)
        spine = [{"visit_id": f"v{at}", "shop_id": "s", "prediction_time": day(at)}]
        fill(rails, SPINES, spine)
        moment = day(at)
        assert moment is not None
        end, until = moment + timedelta(seconds=1), day(as_of)
        assert until is not None
        built = frame.build(rails, small_spec(tmp_path, max_feature_age=max_age), moment, end, until)
        size = built["size"].iloc[0]
        return None if pd.isna(size) else float(size)

    return read


def test_the_point_in_time_rule(sees: Sees) -> None:
    # a row may be used iff it had happened and was known at the prediction time; the latest event wins
    assert (
        sees(
            """
            event known size
            7     7     70
            8     8     80
            11    11    110
            """
        )
        == 80
    )
    # what had happened but was not known yet may not be used
    assert (
        sees(
            """
            event known size
            7     7     70
            9     11    90
            """
        )
        == 70
    )
    # what was known before it happened (an announcement) may not be used before it happens
    assert (
        sees(
            """
            event known size
            7     7     70
            12    9     120
            """
        )
        == 70
    )
    # at the very instant counts
    assert (
        sees(
            """
            event known size
            10    10    100
            """
        )
        == 100
    )
    # a correction is a new row: the one known latest wins for the same event
    assert (
        sees(
            """
            event known size
            8     8     80
            8     9     81
            8     11    82
            """
        )
        == 81
    )
    # a late correction of an old event does not replace a newer event
    assert (
        sees(
            """
            event known size
            9     9     90
            8     10    81
            """
        )
        == 90
    )
    # a NULL time fails closed
    assert (
        sees(
            """
            event known size
            7     7     70
            8     -     80
            -     9     90
            """
        )
        == 70
    )
    # a NULL value is a value: it is what was known
    assert (
        sees(
            """
            event known size
            7     7     70
            8     8     -
            """
        )
        is None
    )


def test_age_is_counted_from_the_event(sees: Sees) -> None:
    drawn = """
        event known size
        7     9     70
        """

    assert sees(drawn, max_age="3d") == 70
    assert sees(drawn, max_age="2d") is None


def test_reading_the_past_is_a_parameter_of_the_read(sees: Sees) -> None:
    drawn = """
        event known size
        7     7     70
        9     9     90
        """

    assert sees(drawn, at=10, as_of=10) == 90
    assert sees(drawn, at=8, as_of=20) == 70


def test_a_label_is_used_only_when_its_whole_cohort_has_matured(rails: Rails, tmp_path: Path) -> None:
    """Horizon 2 days, delay 1: what is predicted on day 5 matures on day 8, however early some truth is known."""
    spec = small_spec(tmp_path, horizon="2d", delay="1d")
    fill(rails, FEATURES, [])
    fill(rails, SPINES, [{"visit_id": f"v{n}", "shop_id": "s", "prediction_time": day(n)} for n in (3, 4, 5)])
    fill(
        rails,
        LABELS,
        [
            {"visit_id": "v3", "prediction_time": day(3), "label": False, "event_time": day(5), "available_at": day(6)},
            {"visit_id": "v4", "prediction_time": day(4), "label": True, "event_time": day(4.5)},  # known early
            {"visit_id": "v5", "prediction_time": day(5), "label": True, "event_time": day(5.5)},  # known early
        ],
    )

    def trained(as_of: float) -> list[str]:
        until = day(as_of)
        assert until is not None
        return list(frame.training(rails, spec, until).read()["visit_id"])

    with pytest.raises(BadInput, match="has matured"):
        trained(5.9)
    assert trained(6) == ["v3"]
    assert trained(7.9) == ["v3", "v4"]
    assert trained(8) == ["v3", "v4", "v5"]


def test_a_corrected_label_counts_from_when_the_correction_was_known(rails: Rails, tmp_path: Path) -> None:
    spec = small_spec(tmp_path, horizon="2d")
    fill(rails, FEATURES, [])
    fill(rails, SPINES, [{"visit_id": "v1", "shop_id": "s", "prediction_time": day(1)}])
    for label, known in ((False, 3), (True, 9)):
        fill(
            rails,
            LABELS,
            [{"visit_id": "v1", "prediction_time": day(1), "label": label, "event_time": day(2),
              "available_at": day(known)}],
        )  # fmt: skip

    def label(as_of: float) -> bool:
        until = day(as_of)
        assert until is not None
        return bool(frame.training(rails, spec, until).read()["label"].iloc[0])

    assert label(8) is False
    assert label(9) is True
