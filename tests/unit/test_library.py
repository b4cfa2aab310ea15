"""docs/how-to/use-the-library.md, example by example, and what its functions do at their edges."""

import doctest
import re
from datetime import date, datetime, timedelta
from decimal import Decimal
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from tiltyard import rails as rails_module
from tiltyard import spec
from tiltyard.errors import BadInput
from tiltyard.govern.detector import monitor
from tiltyard.judge import gate
from tiltyard.leak.audit import audit as audit_file
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


def test_several_columns_may_join_two_frames_and_a_row_that_lacks_one_has_no_answer() -> None:
    predictions = pd.DataFrame(
        {"shop": ["a", "a", None, "b"], "item": [1, 2, 1, 1], "prediction_time": instants(5, 5, 5, 5)}
    )
    view = pd.DataFrame(
        {
            "shop": ["a", "a", None, "b", "a"],
            "item": [1, 2, 1, 2, 1],
            "event_time": instants(1, 1, 1, 1, 2),
            "available_at": instants(1, 2, 1, 1, 6),
            "size": [1, 2, 3, 4, 5],
        }
    )
    joined = point_in_time_join(predictions, view, on=["shop", "item"])
    assert joined.columns.tolist() == ["shop", "item", "prediction_time", "size", "event_time", "available_at"]
    assert joined["size"].astype("Float64").fillna(-1).tolist() == [1, 2, -1, -1]
    single = point_in_time_join(predictions.drop(columns="item"), view.drop(columns="item"), on=["shop"])
    assert single["size"].astype("Float64").fillna(-1).tolist() == [2, 2, -1, 4]
    with pytest.raises(BadInput, match="'item' is of another type"):
        point_in_time_join(predictions, view.astype({"item": str}), on=["shop", "item"])


FRAME = pd.DataFrame({"id": ["a"], "prediction_time": instants(2)})
VIEW = pd.DataFrame({"id": ["a"], "event_time": instants(1), "available_at": instants(1), "size": [1]})


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"predictions": "orders.csv"}, "predictions is a pandas DataFrame, not a value of type str"),
        ({"features": [1]}, "features is a pandas DataFrame, not a value of type list"),
        ({"features": pd.concat([VIEW, VIEW["size"]], axis=1)}, "Two columns of features are called 'size'"),
        ({"features": VIEW.rename(columns={"size": 0})}, "A column of features is called 0, which is no text"),
        (
            {"features": VIEW.assign(size=[{"a": 1}]).loc[[0, 0]].assign(size=[1, "x"])},
            "'size' of features holds values",
        ),
        ({"on": "ID"}, "predictions has no column 'ID'; did you mean 'id'"),
        ({"on": []}, "on names no column"),
        ({"on": 3}, "on is a list of names"),
        ({"on": ["id", "id"]}, "'id' of predictions is named twice"),
        ({"event_time": "available_at"}, "'available_at' of features is named twice"),
        ({"event_time": None}, "is a name, as text, not None"),
        ({"max_age": 2}, r"max_age is a length of time, like datetime\.timedelta\(days=2\), not 2"),
        ({"max_age": timedelta(days=-1)}, "max_age is a length of time"),
    ],
)
def test_the_join_names_the_argument_that_it_cannot_use(arguments: dict[str, object], message: str) -> None:
    with pytest.raises(BadInput, match=message):
        point_in_time_join(**{"predictions": FRAME, "features": VIEW, "on": "id", **arguments})


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
    assert gate.compare([], [], []).verdict == "hold"
    assert gate.compare([[0.5]], [[0.1]], [[1]]).criteria[0].status == "fail"


def test_losses_of_another_scale_hold_however_near_they_lie() -> None:
    champion, challenger, nights = losses(0.03)
    verdict = gate.compare(champion + 2, challenger + 2, nights)
    assert verdict.verdict == "hold"
    assert verdict.criteria[0].reason == "The evidence is unsound: 4000 losses lie outside [0, 1]."


@pytest.mark.parametrize("alpha", [5, 2, 1, 0.5, 0, -1, np.nan, np.inf, True, "0.05", None])
def test_alpha_has_the_bounds_of_a_spec(alpha: object) -> None:
    """At 5 a challenger that is no better would be promoted."""
    with pytest.raises(BadInput, match=r"alpha is a number above 0 and below 0\.5, not"):
        gate.compare(*losses(0.0), alpha=alpha)


@pytest.mark.parametrize(
    ("columns", "message"),
    [
        ((["a"], [0.1], [1]), "champion is a column of numbers"),
        (([0.1], ["b"], [1]), "challenger is a column of numbers"),
        (([0.1], [0.2 + 0.3j], [1]), "challenger is a column of numbers"),
        (([10**400], [0.2], [1]), "champion is a column of numbers"),
        (([0.1], [0.2], ["tonight"]), "nights holds what is no date"),
        (([0.1], [0.2], [1.5]), r"nights holds numbers \(1\.5, …\) and no dates"),
        (([0.1], [0.2], [pd.NaT]), "nights has rows without a date"),
        (([0.1], [0.2], None), "nights is a column of dates, not None"),
    ],
)
def test_columns_that_hold_no_losses_or_nights_are_named(columns: tuple[object, ...], message: str) -> None:
    with pytest.raises(BadInput, match=message):
        gate.compare(*columns)


def test_a_night_is_the_same_as_a_date_a_text_and_an_instant_of_any_zone() -> None:
    champion, challenger, numbers = losses(0.01)
    dates = pd.Timestamp("2024-01-01") + pd.to_timedelta(numbers, unit="D")
    expected = gate.compare(champion, challenger, numbers)
    for nights in (
        dates.date,
        dates.strftime("%Y-%m-%d"),
        pd.Series(dates.tz_localize("Asia/Tokyo")),
        dates.to_period("D"),
    ):
        assert gate.compare(champion, challenger, nights) == expected


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


DATED = pd.Series(np.arange(20.0), index=pd.date_range("2024-01-01", periods=20))
LATER = DATED.set_axis(DATED.index + timedelta(days=30))


@pytest.mark.parametrize(
    ("reference", "stream", "message"),
    [
        (DATED.to_numpy(), LATER, "reference is a pandas Series .* not a value of type ndarray"),
        (DATED, LATER.to_frame(), "stream is a pandas Series .* not a value of type DataFrame"),
        (DATED.reset_index(drop=True), LATER, r"The index of reference holds numbers \(0, …\) and no dates"),
        (DATED, LATER.reset_index(drop=True), r"The index of stream holds numbers \(0, …\) and no dates"),
        (DATED, LATER.set_axis(["x"] * 20), "The index of stream holds what is no date"),
        (DATED.set_axis([pd.NaT, *DATED.index[1:]]), LATER, "The index of reference has rows without a date"),
        (DATED.iloc[:0], LATER, "reference has no values"),
        (DATED, LATER.map(lambda value: f"{value} EUR"), "reference holds numbers and stream"),
        (DATED.map(lambda value: [value]), LATER.map(lambda value: [value]), "reference holds lists"),
    ],
)
def test_a_stream_that_cannot_be_watched_is_refused(reference: object, stream: object, message: str) -> None:
    with pytest.raises(BadInput, match=message):
        monitor(reference, stream)


def test_the_order_of_the_values_does_not_matter_to_a_stream() -> None:
    pd.testing.assert_series_equal(
        monitor(DATED, LATER), monitor(DATED.iloc[::-1], LATER.sample(frac=1, random_state=1))
    )
    assert monitor(DATED, LATER.iloc[:0]).empty


# -- specs and the ledger -----------------------------------------------------------------------------------


def test_a_spec_is_found_in_a_folder_that_is_named_by_a_text_and_a_missing_folder_is_named() -> None:
    assert spec.find(str(ROOT / "models"), "sla_breach") == spec.find(ROOT / "models", "sla_breach")
    assert spec.load_all(str(ROOT / "models")) == spec.load_all(ROOT / "models")
    for read in (lambda folder: spec.find(folder, "sla_breach"), spec.load_all, spec.read_all):
        with pytest.raises(BadInput, match="There is no models folder at wrong"):
            read("wrong")
    with pytest.raises(BadInput, match="There is no model 'None'; the models are: churn"):
        spec.find(ROOT / "models", None)


def test_the_decisions_of_a_model_that_nobody_knows_are_no_empty_list(decided: None) -> None:
    with rails_module.opened() as rails:
        assert [decision.verdict for decision in rails.decisions("sla_breach")] == ["hold", "promote"]
        assert rails.decisions("sla_breach", date(2016, 5, 12))[-1].verdict == "hold"
        assert rails.decisions("churn") == [], "it has a spec, and was never judged"
        with pytest.raises(BadInput, match=r"There is no model 'chrun' .* did you mean churn\?"):
            rails.decisions("chrun")
        with pytest.raises(BadInput, match=r"There is no model 'zzz' .* there are: churn, customer_repurchase"):
            rails.decisions("zzz")


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
    assert audit.path.name == "frame"
    assert [(suspicion.feature, suspicion.kind) for suspicion in audit.suspicions] == [
        ("events", "future_in_aggregate")
    ]


ORDERS = pd.DataFrame({"at": instants(*range(1, 29)), "late": [True, False] * 14, "size": range(28), "price": 1.5})


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"frame": "orders.csv"}, "frame is a pandas DataFrame, not a value of type str"),
        ({"frame": pd.concat([ORDERS, ORDERS["size"]], axis=1)}, "Two columns of frame are called 'size'"),
        ({"frame": ORDERS.rename(columns={"size": 3})}, "A column of frame is called 3, which is no text"),
        ({"frame": ORDERS.rename(columns={"size": ""})}, "A column of frame is called '', which no database takes"),
        ({"frame": ORDERS.rename(columns={"size": "a\0b"})}, "which no database takes for a name; rename it"),
        ({"frame": ORDERS.iloc[:0]}, r"^frame has no rows\.$"),
        ({"frame": pd.DataFrame()}, r"^frame has no columns\.$"),
        ({"label": "lat"}, r"^label: the frame has no column 'lat'; did you mean 'late'\?$"),
        ({"label": None}, r"^label is a name, as text, not None\.$"),
        ({"prediction_time": "late"}, "^prediction_time and label both|^label and prediction_time both"),
        ({"prediction_time": "size"}, "^prediction_time: column 'size' of the frame is BIGINT, which is no time"),
        ({"planned": "due"}, r"^planned is a list of names, like \['due'\], not a value of type str\.$"),
        ({"planned": ["due"]}, "^planned: the frame has no column 'due'"),
        ({"ignore": "size"}, "^ignore is a list of names"),
        ({"ignore": [3]}, "^Every part of ignore is a name, as text"),
        ({"available_at": "at"}, "^available_at is a mapping"),
        ({"available_at": {"size": "when"}}, "^available_at: the frame has no column 'when'"),
        ({"entity": "id"}, "^entity: the frame has no column 'id'"),
        ({"label_time": 3}, "^label_time is a name, as text, not a value of type int"),
        ({"history": ORDERS}, "^history and history_as_of belong together"),
        ({"history": ORDERS, "history_as_of": "at"}, "^history needs entity"),
        ({"history": "log.csv", "history_as_of": "at", "entity": "size"}, "^history is a pandas DataFrame"),
        (
            {"history": ORDERS, "history_as_of": "when", "entity": "size"},
            "^history_as_of: the history has no column 'when'",
        ),
        (
            {"history": ORDERS.assign(size=-1), "history_as_of": "at", "entity": "size"},
            "^history: the history and the frame have no 'size' in common",
        ),
    ],
)
def test_the_auditor_names_its_own_arguments_and_no_file_that_nobody_gave(
    arguments: dict[str, object], message: str
) -> None:
    with pytest.raises(BadInput, match=message) as caught:
        audit_frame(**{"frame": ORDERS, "label": "late", "prediction_time": "at", **arguments})
    assert "--" not in str(caught.value) and "/" not in str(caught.value)


def test_columns_that_no_file_has_a_type_for_are_read_as_text_and_it_is_said() -> None:
    frame = ORDERS.assign(mixed=[1, "x"] * 14, odd=[complex(row, 1) for row in range(28)], huge=[2**70, 1] * 14)
    frame["half"] = pd.Series(["\ud800", "x"] * 14, dtype=object)
    audit = audit_frame(frame, label="late", prediction_time="at")
    said = "its values are of several kinds, or of one that no file has; read as text."
    assert audit.notes[:4] == tuple(f"{name}: {said}" for name in ("mixed", "odd", "huge", "half"))
    assert frame["mixed"].tolist() == [1, "x"] * 14, "the caller's frame stays as it was"


def test_a_file_is_audited_by_its_path_and_a_frame_is_sent_to_its_own_function() -> None:
    with pytest.raises(
        BadInput, match="path is a Parquet or CSV file, not a value of type DataFrame; audit_frame takes"
    ):
        audit_file(ORDERS, label="late", prediction_time="at")
    with pytest.raises(BadInput, match=r"There is no file nowhere\.csv"):
        audit_file("nowhere.csv", label="late", prediction_time="at")


@pytest.mark.parametrize(
    ("limits", "message"),
    [
        ({"threads": 0}, "threads is a whole number from 1 on, not 0"),
        ({"threads": 1.5}, "threads is a whole number from 1 on, not 1.5"),
        ({"memory": "lots"}, "memory is an amount like '2GB', not 'lots'"),
        ({"memory": None}, "memory is an amount like '2GB', not None"),
        ({"memory": "0GB"}, "The engine's memory, 0GB, is too little to judge"),
        ({"memory": "1MB"}, "The engine's memory, 1MB, is too little to judge"),
    ],
)
def test_limits_that_are_none_are_refused(tmp_path: Path, limits: dict[str, object], message: str) -> None:
    ORDERS.to_parquet(tmp_path / "orders.parquet")
    with pytest.raises(BadInput, match=message):
        audit_file(tmp_path / "orders.parquet", label="late", prediction_time="at", **limits)


def test_the_join_gives_back_values_as_they_were_under_whatever_name() -> None:
    """Names of ours, names that differ by case alone, and values that no database holds."""
    at = pd.to_datetime(["2024-01-02", "2024-01-02"], utc=True)
    predictions = pd.DataFrame({"place": [7, 8], "prediction_time": at})
    values = [Decimal("1.10"), 2**70 + 1]
    features = pd.DataFrame(
        {"place": [8, 7], "x": values, "X": [1, 2], "row": pd.period_range("2024-01", periods=2, freq="M")}
    )
    features = features.assign(event_time=at - timedelta(days=1), available_at=at - timedelta(days=1))
    joined = point_in_time_join(predictions, features, on="place")
    assert list(joined["place"]) == [7, 8]
    assert list(joined["x"]) == values[::-1]
    assert list(joined["X"]) == [2, 1]
    assert [str(period) for period in joined["row"]] == ["2024-02", "2024-01"]


@pytest.mark.parametrize(
    "values",
    [
        pd.period_range("2024-01", periods=2, freq="M"),
        pd.interval_range(0, 2),
        pd.arrays.SparseArray([1, 2]),
        np.array([1j, 2j]),
        pd.Series([True, 3], dtype=object),
        pd.Series(["\ud800", "x"], dtype=object),
    ],
)
def test_a_key_of_which_the_engine_knows_no_type_is_named(values: object) -> None:
    at = pd.to_datetime(["2024-01-02", "2024-01-02"], utc=True)
    predictions = pd.DataFrame({"k": values, "prediction_time": at})
    features = pd.DataFrame({"k": values, "x": [1, 2], "event_time": at, "available_at": at})
    with pytest.raises(BadInput, match=r"Rows of predictions cannot be found by 'k' \(.*\): .*; cast it, say to text"):
        point_in_time_join(predictions, features, on="k")


def test_a_whole_number_is_no_key_of_a_float() -> None:
    at = pd.to_datetime(["2024-01-02"], utc=True)
    predictions = pd.DataFrame({"k": [2**53 + 1], "prediction_time": at})
    features = pd.DataFrame({"k": [2.0**53], "x": [1], "event_time": at, "available_at": at})
    with pytest.raises(BadInput, match="of another type in one frame"):
        point_in_time_join(predictions, features, on="k")


@pytest.mark.parametrize("kind", [float, Decimal], ids=["float", "Decimal"])
def test_numbers_are_numbers_whatever_their_type(kind: type) -> None:
    values = pd.Series(
        np.round(np.random.default_rng(1).normal(size=4_000), 3),
        index=pd.date_range("2024-01-01", periods=80).repeat(50),
    )
    objects = pd.Series([kind(str(value)) for value in values], index=values.index, dtype=object)
    cut = "2024-02-29"
    plain = monitor(values[:cut], values["2024-03-01":])
    pd.testing.assert_series_equal(monitor(objects[:cut], objects["2024-03-01":]), plain)
    pd.testing.assert_series_equal(monitor(values[:cut], objects["2024-03-01":]), plain)


@pytest.mark.parametrize("other", ["bool", "text", "timedelta"])
def test_two_kinds_of_values_are_not_compared(other: str) -> None:
    days = pd.date_range("2024-01-01", periods=60)
    numbers = pd.Series(np.arange(60.0) % 2, index=days)
    made = {"bool": numbers == 1, "text": numbers.astype(str), "timedelta": pd.to_timedelta(numbers, unit="s")}[other]
    for reference, stream in ((numbers, made), (made, numbers)):
        with pytest.raises(BadInput, match="give"):
            monitor(reference[:40], stream[40:])


@pytest.mark.parametrize("kind", ["parquet", "csv"])
def test_a_folder_called_x_is_y_changes_no_value(tmp_path: Path, kind: str) -> None:
    """DuckDB takes such a folder for a column, unless it is told not to."""
    times = pd.date_range("2024-01-01", periods=400, freq="h", tz="UTC")
    label = pd.Series(np.random.default_rng(3).random(400) < 0.4)
    frame = pd.DataFrame({"at": times, "label": label, "leak": label.astype(float)})
    verdicts = []
    for folder in (tmp_path / "plain", tmp_path / "leak=2020-01-01"):
        folder.mkdir()
        path = folder / f"frame.{kind}"
        frame.to_parquet(path) if kind == "parquet" else frame.to_csv(path, index=False)
        verdicts.append(audit_file(path, label="label", prediction_time="at").verdict)
    assert verdicts == ["warn", "warn"]
