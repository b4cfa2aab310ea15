"""docs/how-to/use-the-library.md, example by example, and what its functions do at their edges."""

import doctest
import re
from datetime import date, datetime, timedelta

import numpy as np
import pandas as pd
import pytest

from tiltyard import rails as rails_module
from tiltyard.errors import BadInput
from tiltyard.govern.detector import monitor
from tiltyard.judge import gate
from tiltyard.leak.frames import audit_frame
from tiltyard.prepare.point_in_time import point_in_time_join
from tiltyard.records import Decision, EvidenceRecord
from tiltyard.settings import ROOT, Settings

PAGE = ROOT / "docs" / "how-to" / "use-the-library.md"
SECTIONS = dict(re.findall(r"^## (.+?)\n(.*?)(?=^## |\Z)", PAGE.read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL))


@pytest.fixture
def decided(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    """An environment of a home in which the gate has decided twice."""
    with rails_module.opened(settings) as rails:
        for night, verdict in ((date(2016, 5, 12), "hold"), (date(2016, 5, 13), "promote")):
            decision = Decision(
                model="sla_breach",
                night=night,
                challenger=3,
                champion=None,
                verdict=verdict,
                reasons=("Better than the safe default.",),
                evidence=EvidenceRecord(model="sla_breach", night=night),
            )
            rails.ledger.add_decision(decision)
    monkeypatch.setenv("TILTYARD_HOME", str(settings.home))
    monkeypatch.setenv("TILTYARD_DATABASE_URL", str(settings.database_url))
    monkeypatch.setenv("TILTYARD_DATABASE_PREFIX", settings.database_prefix)


@pytest.mark.parametrize("heading", SECTIONS)
def test_an_example_runs(heading: str, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    if "rails.opened" in SECTIONS[heading]:
        request.getfixturevalue("decided")
    code = "\n".join(re.findall(r"^```python\n(.*?)^```", SECTIONS[heading], re.MULTILINE | re.DOTALL))
    test = doctest.DocTestParser().get_doctest(code, {}, heading, str(PAGE), 0)
    assert test.examples
    complaints: list[str] = []
    result = doctest.DocTestRunner().run(test, out=complaints.append)
    assert result.failed == 0, "".join(complaints)


# -- the point-in-time join ---------------------------------------------------------------------------------


def instants(*days: int | None) -> pd.Series:
    return pd.Series([pd.NaT if day is None else pd.Timestamp(2024, 1, day, tz="UTC") for day in days])


def history(**columns: object) -> pd.DataFrame:
    return pd.DataFrame({"id": ["a"] * len(columns["event_time"]), **columns})


def test_every_prediction_comes_back_once_in_its_order_and_under_its_index() -> None:
    predictions = pd.DataFrame({"id": ["b", None, "a", "a"], "prediction_time": instants(9, 9, 9, 1)})
    predictions.index = pd.Index([7, 7, 3, 1])
    joined = point_in_time_join(
        predictions, history(event_time=instants(1, 2), available_at=instants(1, 2), size=[1, 2]), on="id"
    )
    assert joined.index.tolist() == [7, 7, 3, 1]
    assert joined["size"].astype("Float64").fillna(-1).tolist() == [-1, -1, 2, 1]


def test_the_join_knows_nothing_too_early_and_takes_the_last_correction() -> None:
    view = history(
        event_time=instants(1, 1, 3, 2, None),
        available_at=instants(1, 2, 6, None, 1),
        size=[1, 2, 3, 4, 5],
    )
    predictions = pd.DataFrame({"id": "a", "prediction_time": instants(1, 5, 6)})
    assert point_in_time_join(predictions, view, on="id")["size"].tolist() == [1, 2, 3]


def test_a_row_that_is_too_old_counts_as_missing() -> None:
    predictions = pd.DataFrame({"id": "a", "prediction_time": instants(2, 9)})
    view = history(event_time=instants(1), available_at=instants(1), size=[1.0])
    joined = point_in_time_join(predictions, view, on="id", max_age=timedelta(days=2))
    assert joined["size"].fillna(-1).tolist() == [1.0, -1.0]
    assert joined["event_time"].isna().tolist() == [False, True]


def test_columns_may_be_called_anything() -> None:
    predictions = pd.DataFrame({'the "id"': ["a"], "when": instants(2), "place": [1], "entity": ["x"]})
    view = pd.DataFrame({'the "id"': ["a"], "happened": instants(1), "known at": instants(1), "select": [3]})
    joined = point_in_time_join(
        predictions, view, on='the "id"', prediction_time="when", event_time="happened", available_at="known at"
    )
    assert joined.columns.tolist() == ['the "id"', "when", "place", "entity", "select", "happened", "known at"]
    assert joined["select"].tolist() == [3]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"prediction_time": ["2024-01-02"]}, "no instant"),
        ({"prediction_time": [datetime(2024, 1, 2)]}, "time zone"),
        ({"size": [1]}, "Both frames have a column 'size'"),
        ({"id": [1]}, "another type"),
    ],
)
def test_frames_that_do_not_fit_are_refused(change: dict[str, object], message: str) -> None:
    predictions = pd.DataFrame({"id": ["a"], "prediction_time": instants(2)}).assign(**change)
    view = history(event_time=instants(1), available_at=instants(1), size=[1])
    with pytest.raises(BadInput, match=message):
        point_in_time_join(predictions, view, on="id")


def test_a_missing_column_is_named() -> None:
    predictions = pd.DataFrame({"id": ["a"], "prediction_time": instants(2)})
    with pytest.raises(BadInput, match="features has no column 'available_at'"):
        point_in_time_join(predictions, history(event_time=instants(1)), on="id")


# -- the gate on two columns --------------------------------------------------------------------------------


def losses(lead: float) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    draw = np.random.default_rng(7)
    champion = draw.beta(2, 5, 2_000)
    return champion, np.clip(champion - lead + draw.normal(0, 0.05, 2_000), 0, 1), np.repeat(np.arange(40), 50)


@pytest.mark.parametrize(("lead", "verdict"), [(0.03, "promote"), (0.0, "hold"), (-0.03, "reject")])
def test_two_columns_of_losses_are_told_apart(lead: float, verdict: str) -> None:
    assert gate.compare(*losses(lead)).verdict == verdict


def test_the_order_of_rows_and_the_kind_of_night_do_not_matter() -> None:
    champion, challenger, nights = losses(0.01)
    order = np.random.default_rng(1).permutation(len(nights))
    dates = pd.Timestamp("2024-01-01") + pd.to_timedelta(nights, unit="D")
    sorted_ = gate.compare(champion, challenger, nights)
    shuffled = gate.compare(champion[order], challenger[order], dates[order])
    assert shuffled.low == pytest.approx(sorted_.low)
    assert shuffled.criteria[2].value == pytest.approx(sorted_.criteria[2].value)


@pytest.mark.parametrize("broken", [np.nan, 3.0])
def test_losses_that_are_none_hold(broken: float) -> None:
    champion, challenger, nights = losses(0.03)
    challenger[5] = broken
    verdict = gate.compare(champion, challenger, nights)
    assert (verdict.verdict, verdict.criteria[0].status) == ("hold", "fail")


def test_columns_of_different_lengths_hold() -> None:
    champion, challenger, nights = losses(0.03)
    assert gate.compare(champion[1:], challenger, nights).verdict == "hold"


# -- the drift detector on a stream -------------------------------------------------------------------------


def test_categories_are_watched_as_well() -> None:
    draw = np.random.default_rng(3)
    nights = pd.date_range("2024-01-01", periods=120).repeat(60)
    values = pd.Series(draw.choice(["calm", "busy"], len(nights)), index=nights)
    values["2024-04-15":] = "new"
    evidence = monitor(values[:"2024-03-31"], values["2024-04-01":])
    assert evidence[:"2024-04-14"].max() < 365 < evidence.iloc[-1]


def test_a_stream_that_overlaps_its_reference_is_refused() -> None:
    values = pd.Series(1.0, index=pd.date_range("2024-01-01", periods=20))
    with pytest.raises(BadInput, match="begins before the reference ends"):
        monitor(values, values)


# -- the auditor --------------------------------------------------------------------------------------------


def test_a_frame_is_audited_with_its_log() -> None:
    draw = np.random.default_rng(1)
    entity = np.arange(300)
    at = pd.Timestamp("2024-02-01", tz="UTC") + pd.to_timedelta(entity, unit="h")
    events = draw.integers(1, 9, 300)
    written_at = at.repeat(events) + pd.to_timedelta(draw.integers(-90, 90, events.sum()), "D")
    log = pd.DataFrame({"id": entity.repeat(events), "written_at": written_at})
    frame = pd.DataFrame({"id": entity, "at": at, "label": draw.random(300) < 0.5})
    frame["events"] = events
    audit = audit_frame(
        frame, label="label", prediction_time="at", entity="id", history=log, history_as_of="written_at"
    )
    assert audit.path.name == "frame.parquet"
    assert [(suspicion.feature, suspicion.kind) for suspicion in audit.suspicions] == [
        ("events", "future_in_aggregate")
    ]
