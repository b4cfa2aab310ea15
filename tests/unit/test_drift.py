"""Drift: what moved is found, the rest is left alone, what cannot be tested is said; and the stage on a lake."""

import json
from collections.abc import Callable
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from tiltyard import drift, grants, outage, shadow, training
from tiltyard import frame as frames
from tiltyard.governor import Signal
from tiltyard.ledger import night_of
from tiltyard.rails import Rails
from tiltyard.simulator import Drift, Simulator
from tiltyard.spec import Spec

KINDS = {"tenure_days": "numeric", "amount_eur": "numeric", "plan": "categorical", "is_company": "boolean"}
NOTHING = pd.Series([], dtype="float64")


def customers(rows: int, seed: int, *, shift: float = 0.0, plans: str = "abcd") -> pd.DataFrame:
    random = np.random.default_rng(seed)
    return pd.DataFrame(
        {
            "tenure_days": random.gamma(2.0, 100.0, rows) * (1 + shift),
            "amount_eur": random.normal(30 + 10 * shift, 8, rows),
            "plan": random.choice(list(plans), rows),
            "is_company": random.random(rows) < 0.3,
        }
    )


def signals_of(reference: pd.DataFrame, current: pd.DataFrame, **scores: pd.Series) -> dict[str, Signal]:
    compared = drift.compare(
        KINDS,
        reference,
        current,
        reference_scores=scores.get("before", NOTHING),
        current_scores=scores.get("now", NOTHING),
    )
    return {signal.column: signal for signal in drift.judged(compared)}


# -- columns ----------------------------------------------------------------------------------


def test_what_did_not_move_is_left_alone() -> None:
    found = signals_of(customers(2000, 1), customers(1000, 2))
    assert [name for name, signal in found.items() if signal.drifted] == []
    assert {name for name, signal in found.items() if signal.value is not None} == set(KINDS)


def test_what_moved_is_found() -> None:
    found = signals_of(customers(2000, 1), customers(1000, 2, shift=1.0, plans="aaab"))
    assert {name for name, signal in found.items() if signal.drifted} == {"tenure_days", "amount_eur", "plan"}


def test_prediction_drift_is_a_kind_of_its_own() -> None:
    random = np.random.default_rng(0)
    before, now = pd.Series(random.beta(2, 8, 2000)), pd.Series(random.beta(5, 5, 600))
    found = signals_of(customers(2000, 1), customers(1000, 2), before=before, now=now)["prediction"]
    assert (found.kind, found.drifted) == ("prediction", True)


@pytest.mark.parametrize("rows", [40, 150, 600])
def test_thirty_categories_in_a_small_window_are_not_drift(rows: int) -> None:
    """By chance alone their Jensen-Shannon distance is above 0.1; the threshold knows."""
    random = np.random.default_rng(3)
    names = [f"category {number}" for number in range(30)]
    reference = customers(2000, 1).assign(plan=random.choice(names, 2000))
    alarms = [
        signals_of(reference, customers(rows, seed).assign(plan=random.choice(names, rows)))["plan"].drifted
        for seed in range(5)
    ]
    assert sum(alarms) == 0


def test_an_empty_window_is_untested() -> None:
    found = signals_of(customers(2000, 1), customers(0, 2))
    assert all(signal.value is None and not signal.drifted for signal in found.values())
    assert found["plan"].note == "no values in the window"


def test_an_all_null_column_is_untested_whatever_its_type() -> None:
    for nothing in (np.nan, None, pd.NA):
        current = customers(1000, 2).assign(amount_eur=nothing, plan=nothing, is_company=nothing)
        found = signals_of(customers(2000, 1), current)
        for column in ("amount_eur", "plan", "is_company"):
            assert (found[column].value, found[column].note) == (None, "no values in the window")
        assert found["tenure_days"].value is not None


def test_a_column_that_training_never_saw_is_untested() -> None:
    found = signals_of(customers(2000, 1).drop(columns="plan"), customers(1000, 2))["plan"]
    assert (found.value, found.note) == (None, "not in the training reference")


def test_a_column_that_is_gone_is_untested() -> None:
    found = signals_of(customers(2000, 1).assign(colour="red"), customers(1000, 2))["colour"]
    assert (found.value, found.note) == (None, "not in the feature views any more")


def test_constants() -> None:
    reference = customers(2000, 1).assign(amount_eur=5.0, plan="a")
    same = signals_of(reference, customers(1000, 2).assign(amount_eur=5.0, plan="a"))
    assert (same["amount_eur"].value, same["amount_eur"].drifted) == (0.0, False)
    assert (same["plan"].value, same["plan"].drifted) == (0.0, False)
    other = signals_of(reference, customers(1000, 2).assign(amount_eur=6.0, plan="b"))
    assert other["amount_eur"].drifted and other["plan"].drifted


def test_a_new_category_is_drift_and_named() -> None:
    found = signals_of(customers(2000, 1), customers(1000, 2, plans="abcdz"))["plan"]
    assert found.drifted
    assert "training never saw, like 'z'" in found.note


def test_missing_values_are_told_and_infinite_ones_are_missing() -> None:
    current = customers(1000, 2)
    current.loc[:499, "amount_eur"] = np.inf
    current.loc[:499, "plan"] = None
    found = signals_of(customers(2000, 1), current)
    assert not found["amount_eur"].drifted and not found["plan"].drifted
    assert found["plan"].note == "missing 0% → 50%"


@hypothesis_settings(max_examples=12, deadline=None)
@given(shift=st.floats(0, 0.6), rows=st.integers(60, 900), seed=st.integers(0, 1000))
def test_the_pre_screen_agrees_with_evidently(shift: float, rows: int, seed: int) -> None:
    """The pre-screen may pass over a column only because Evidently would find nothing there."""
    compared = drift.compare(
        KINDS,
        customers(1000, seed),
        customers(rows, seed + 1, shift=shift, plans="abcd" if shift < 0.3 else "abz"),
        reference_scores=NOTHING,
        current_scores=NOTHING,
    )
    over = {column for column in compared.tested if compared.value[column] >= compared.threshold[column]}
    assert drift.evidently_drifted(compared, compared.tested) == over


def test_evidently_computes_the_same_figures() -> None:
    from evidently import Report
    from evidently.metrics import ValueDrift

    compared = drift.compare(
        KINDS,
        customers(2000, 1),
        customers(700, 2, shift=0.3, plans="abz"),
        reference_scores=NOTHING,
        current_scores=NOTHING,
    )
    metrics = [ValueDrift(column=column, method=drift.STATISTIC[compared.kinds[column]]) for column in compared.tested]
    results = Report(metrics).run(*drift.datasets(compared, compared.tested)).dict()["metrics"]
    theirs = [float(result["value"]) for result in results]
    assert theirs == pytest.approx([compared.value[column] for column in compared.tested])


# -- the simulated business ---------------------------------------------------------------------

CHANGE = date(2025, 3, 1)


def simulated(kind: str) -> dict[str, bool]:
    """Payments and sign-ups of March 2025 against those of the two months before: column → drifted."""
    tables = Simulator(seed=7, customers=2000, days=90, drift=Drift(kind=kind, start=CHANGE)).tables()
    payments = tables["payment"].rename(columns={"attempted_at": "at"})
    signups = tables["customer"].drop_duplicates("customer_id").rename(columns={"signed_up_at": "at"})
    found = {}
    for table, kinds in (
        (payments, {"amount_eur": "numeric", "is_failed": "boolean"}),
        (signups, {"plan": "categorical", "country": "categorical", "channel": "categorical"}),
    ):
        before = table[(table["at"] >= "2025-01-01") & (table["at"] < "2025-03-01")]
        now = table[table["at"] >= "2025-03-01"]
        compared = drift.compare(kinds, before[list(kinds)], now, reference_scores=NOTHING, current_scores=NOTHING)
        found |= {signal.column: signal.drifted for signal in drift.judged(compared) if signal.value is not None}
    return found


def test_the_simulated_business_without_drift() -> None:
    assert simulated("none") == dict.fromkeys(("amount_eur", "is_failed", "plan", "country", "channel"), False)


@pytest.mark.parametrize(("kind", "column"), [("mix", "channel"), ("unit_change", "amount_eur")])
def test_the_simulated_business_with_drift(kind: str, column: str) -> None:
    found = simulated(kind)
    assert found[column]
    assert not found["country"]


# -- performance ------------------------------------------------------------------------------


def matured(
    rows: int, seed: int, rate: float, score: Callable[[np.ndarray, np.random.Generator], np.ndarray]
) -> pd.DataFrame:
    random = np.random.default_rng(seed)
    label = (random.random(rows) < rate).astype("int64")
    nights = [night_of(datetime(2016, 4, 2, tzinfo=UTC)) + timedelta(days=int(n)) for n in random.integers(0, 7, rows)]
    return pd.DataFrame({"score": score(label, random), "label": label, "night": nights})


def informed(label: np.ndarray, random: np.random.Generator) -> np.ndarray:
    return np.clip(0.3 + 0.4 * (label - 0.5) + random.normal(0, 0.1, len(label)), 0, 1)


def wrong(label: np.ndarray, random: np.random.Generator) -> np.ndarray:
    return np.clip(0.9 + random.normal(0, 0.05, len(label)), 0, 1)


@pytest.mark.parametrize(
    ("score", "training_high", "expected"),
    [
        (informed, 0.5, {"brier": False, "safe_default": False}),
        (informed, 0.05, {"brier": True, "safe_default": False}),  # worse than at training, better than nothing
        (wrong, 0.9, {"brier": False, "safe_default": True}),  # never was good, and a constant does better
        (wrong, 0.1, {"brier": True, "safe_default": True}),
    ],
)
def test_decay(score: Callable, training_high: float, expected: dict[str, bool]) -> None:
    rows = matured(1500, 5, 0.3, score)
    found = drift.decay(rows, training_high=training_high, safe_default=0.3, min_matured=500)
    assert {signal.column: signal.drifted for signal in found} == expected
    assert all(signal.kind == "performance" and signal.note for signal in found)


@pytest.mark.parametrize("rows", [0, 1, 499])
def test_too_few_matured_labels_are_no_decay(rows: int) -> None:
    found = drift.decay(matured(rows, 5, 0.3, wrong), training_high=0.1, safe_default=0.3, min_matured=500)
    assert [(signal.value, signal.drifted) for signal in found] == [(None, False), (None, False)]
    assert found[0].note == f"{rows} of 500 matured predictions in the window"


# -- the stage, on a lake -----------------------------------------------------------------------

START = datetime(2024, 3, 1, tzinfo=UTC)
DAYS = 45
MOVED = START + timedelta(days=32)
"""From here on the world of the drifting lake is another one."""
SPEC = Spec.model_validate(
    {
        "name": "stays",
        "entity": "customer",
        "owner": "tests",
        "tier": 2,
        "source": "test",
        "prediction": {"spine": "spn_customer_night", "features": ["ftr_customer__account"]},
        "label": {"table": "lbl_customer_stays", "horizon": "3d"},
        "estimator": {"class": "xgboost.XGBClassifier", "window": "20d", "tune": {"trials": 1}},
        "light": {"class": "sklearn.linear_model.LogisticRegression"},
        "gate": {"min_matured": 300},
        "drift": {"window": "7d", "cooldown": "7d", "on_drift": "retrain_always"},
        "fallback": {"safe_default": 0.5},
    }
)


def fill(rails: Rails, *, moves: bool) -> None:
    """Sixty predictions a day, features known the evening before, labels three days later."""
    tables: dict[str, list[pd.DataFrame]] = {"spine": [], "view": [], "label": []}
    for day in range(DAYS):
        midnight = START + timedelta(days=day)
        moved = moves and midnight >= MOVED
        rows = customers(60, day, shift=1.5 if moved else 0.0)
        chance = 1 / (1 + np.exp(-(rows["amount_eur"] - (45 if moved else 30)) / 4))
        label = np.random.default_rng(1000 + day).random(60) < (1 - chance if moved else chance)
        keys = pd.DataFrame({"customer_id": [f"{day}-{number}" for number in range(60)]})
        at = midnight + timedelta(hours=9)
        evening = midnight - timedelta(hours=3)
        tables["spine"].append(keys.assign(prediction_time=at, event_time=at, available_at=at))
        tables["view"].append(keys.assign(event_time=evening, available_at=evening).join(rows))
        known = at + timedelta(days=3)
        tables["label"].append(keys.assign(prediction_time=at, label=label, event_time=known, available_at=known))
    times = {"event_time": "timestamptz", "available_at": "timestamptz"}
    columns = {
        "spines.spn_customer_night": ("spine", {"prediction_time": "timestamptz"}),
        "features.ftr_customer__account": (
            "view",
            {"tenure_days": "double", "amount_eur": "double", "plan": "varchar", "is_company": "boolean"},
        ),
        "labels.lbl_customer_stays": ("label", {"prediction_time": "timestamptz", "label": "boolean"}),
    }
    for table, (part, more) in columns.items():
        rails.lake.ensure(table, {"customer_id": "varchar", **more, **times})
        rails.lake.replace(table, {}, pd.concat(tables[part], ignore_index=True), message="test")


def night(day: int) -> datetime:
    return START + timedelta(days=day)


def publish(rails: Rails, as_of: datetime) -> None:
    rails.ledger.record_stage("features", "", night_of(as_of), "done", {"snapshot": rails.lake.snapshot()})


def champion(rails: Rails, as_of: datetime) -> int:
    """Train as of a night and put the version in service at once."""
    claim = rails.ledger.claim("training/test")
    made = frames.training(rails, SPEC, as_of)
    trained = training.train_on(rails, SPEC, as_of, made, fence=claim, requested_by="test")
    rails.ledger.claim_promotion(
        model=SPEC.name, version=trained["version"], night=night_of(as_of), requested_by="test", approval={}
    )
    return trained["version"]


def live(rails: Rails, first: int, last: int) -> None:
    for day in range(first, last + 1):
        publish(rails, night(day))
        shadow.run(rails, SPEC, night(day))


def governed(rails: Rails, as_of: datetime) -> dict[str, Any]:
    return grants.run(rails, as_of, [SPEC])["actions"][SPEC.name]


def stored(rails: Rails, as_of: datetime) -> pd.DataFrame:
    sql = "select * from {ops.drift} where night = $night order by all"
    return rails.lake.query(sql, as_of, {"night": as_of.date()})


def test_without_a_model_training_is_asked_for_once_labels_suffice(rails: Rails) -> None:
    fill(rails, moves=False)
    answers = []
    for day in (3, 7, 12, 13, 19):
        publish(rails, night(day))
        assert drift.run(rails, SPEC, night(day), render=False)["verdict"] == "no_reference"
        answers.append(governed(rails, night(day)))
    assert [answer["decision"] for answer in answers] == ["steady", "steady", "retrain", "cooldown", "retrain"]
    assert [row["night"] for row in rails.ledger.retrains(SPEC.name)] == [night(12).date(), night(19).date()]
    assert answers[0]["reasons"] == ["no champion yet; 0 of 300 matured labels to train on"]


def test_a_stopped_batch_asks_for_nothing(rails: Rails) -> None:
    fill(rails, moves=False)
    publish(rails, night(12))
    rails.ledger.record_stage("features", "", night(13).date(), "stopped", {})
    answer = drift.run(rails, SPEC, night(13), render=False)
    assert answer["reasons"][0] == "the features stage of 2024-03-14 is stopped"
    assert governed(rails, night(13))["decision"] == "incident"


def test_the_whole_stage_when_the_world_moves_and_when_it_does_not(rails: Rails) -> None:
    fill(rails, moves=True)
    publish(rails, night(20))
    version = champion(rails, night(20))
    live(rails, 29, 30)
    live(rails, 33, 40)

    quiet = drift.run(rails, SPEC, night(30), render=False)
    assert (quiet["verdict"], quiet["version"], quiet["report"]) == ("steady", version, None)
    assert quiet["columns"]["amount_eur"]["drifted"] is False

    # the same rows, while the source has stopped saying anything: no drift, and nothing to learn from
    incident = {"source": "test", "table": "raw.account", "column": "", "what": "repeated_partition"}
    incident |= {"said": "its rows are those of yesterday", "since": "2024-04-06"}
    rails.ledger.add_event(outage.INCIDENT, "", night(36).date(), {**incident, "state": "open"})
    held = drift.run(rails, SPEC, night(37), render=False)
    assert (held["verdict"], governed(rails, night(37))["decision"]) == ("broken", "incident")
    assert held["reasons"][0].startswith("data incident since 2024-04-06, raw.account repeated partition")
    assert held["columns"]["amount_eur"]["drifted"] and rails.ledger.retrains(SPEC.name) == []
    rails.ledger.add_event(outage.INCIDENT, "", night(37).date(), {**incident, "state": "closed", "said": ""})

    moved = drift.run(rails, SPEC, night(37), render=True)
    assert (moved["verdict"], governed(rails, night(37))["decision"]) == ("alarm", "retrain")
    assert {"tenure_days", "amount_eur", "prediction"} <= {
        name for name, signal in moved["columns"].items() if signal["drifted"]
    }
    page = Path(moved["report"])
    assert page == rails.settings.reports / "drift" / "stays" / "2024-04-07.html"
    assert "tenure_days" in page.read_text() and "Dataset Drift" in page.read_text()
    assert json.loads(page.with_suffix(".json").read_text()) == moved
    assert not list(page.parent.glob(".*"))

    # twice is once, and the page has no say in the verdict
    before = stored(rails, night(37))
    again = drift.run(rails, SPEC, night(37), render=False)
    assert again == moved
    pd.testing.assert_frame_equal(stored(rails, night(37)), before)
    assert governed(rails, night(37))["decision"] == "retrain"
    assert len(rails.ledger.retrains(SPEC.name)) == 1
    assert rails.ledger.stage_runs("drift", SPEC.name)[night(37).date()]["summary"]["verdict"] == "alarm"

    # the cooldown holds; by now the labels have come, and the model is worse than the safe default
    later = drift.run(rails, SPEC, night(40), render=False)
    assert (governed(rails, night(40))["decision"], later["verdict"]) == ("cooldown", "alarm")
    assert later["columns"]["brier"]["drifted"]
    kinds = stored(rails, night(40)).set_index("column_name")["kind"].to_dict()
    assert {kinds["plan"], kinds["prediction"], kinds["brier"]} == {"feature", "prediction", "performance"}

    # a night on which nothing was scored is a broken night, not drift
    publish(rails, night(41))
    unscored = drift.run(rails, SPEC, night(41), render=False)
    assert (
        governed(rails, night(41))["decision"] == "incident"
        and "the shadow stage of 2024-04-11 is not done" in unscored["reasons"][0]
    )

    # the lake stops: nothing to look at is no reason either
    beyond = night(DAYS + 10)
    live(rails, DAYS + 10, DAYS + 10)
    empty = drift.run(rails, SPEC, beyond, render=False)
    assert governed(rails, beyond)["decision"] == "incident" and "nothing to predict on" in empty["reasons"][0]
    assert all(not signal["drifted"] for signal in empty["columns"].values() if signal["kind"] != "performance")
