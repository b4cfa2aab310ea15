"""The cohort rule: evaluation uses whole cohorts whose labels have all had time to mature.

A subscription is predicted to be cancelled. A cancellation is known the day it comes, a stay only when the horizon of
ten days is over: the labels that are known early are nearly all cancellations. A cohort is a night.
"""

from datetime import UTC, datetime, timedelta

import pandas as pd
import pytest

from tiltyard import rails as rails_module
from tiltyard.clock import night_closing
from tiltyard.prepare import truth
from tiltyard.records import FeaturesSummary, LabelCounts
from tiltyard.settings import Settings
from tiltyard.spec import Spec
from tiltyard.tables import PREDICTION, Table

SPEC = Spec(
    name="stay",
    entity="customer",
    owner="subscriptions",
    tier=2,
    source="subscription",
    prediction={"spine": "spn_customer_day", "features": ["ftr_customer__usage"]},
    label={"table": "lbl_stay", "horizon": "10d", "delay": "1d"},
    estimator={"class": "xgboost.XGBClassifier"},
    light={"class": "sklearn.linear_model.LogisticRegression"},
    fallback={"safe_default": 0.3},
)

PREDICTIONS = """
customer  predicted at
anna      1 March 00:00
bert      1 March 23:59
cleo      2 March 00:00
dora      2 March 12:00
"""

LABELS = """
customer  predicted at      cancelled  known at
anna      1 March 00:00     yes        3 March 09:00
bert      1 March 23:59     no         12 March 23:59
cleo      2 March 00:00     yes        4 March 10:00
"""

# matured | of these labelled | labelled early | what is looked at
NIGHTS = """
4 March 00:00    0  0  1  -
5 March 00:00    0  0  2  -
12 March 23:00   0  0  2  -
13 March 00:00   2  2  1  anna bert
13 March 12:00   2  2  1  anna bert
14 March 00:00   4  3  0  anna bert cleo
"""


def at(day: str, month: str, time: str) -> datetime:
    return datetime.strptime(f"2016 {day} {month} {time}", "%Y %d %B %H:%M").replace(tzinfo=UTC)


@pytest.fixture(scope="module")
def drawn(tmp_path_factory, postgres_url):
    """The tables above, in a lake."""
    home = tmp_path_factory.mktemp("drawn")
    settings = Settings(home=home / "home", database_url=postgres_url, database_prefix="cohort_rule_")
    with rails_module.opened(settings) as rails:
        draw(rails)
        yield rails


def draw(rails):
    rows = [line.split() for line in PREDICTIONS.strip().splitlines()[1:]]
    times = [at(*row[1:4]) for row in rows]
    predictions = pd.DataFrame(
        {
            "request_id": [row[0] for row in rows],
            "model": "stay",
            "version": pd.array([1] * len(rows), dtype="Int32"),
            "role": "challenger",
            "entity_id": [row[0] for row in rows],
            "prediction_time": times,
            "score": 0.4,
            "tier": "shadow",
            "slices": "{}",
            "snapshot": 1,
            "night": [night_closing(time) + timedelta(days=1) for time in times],
            "available_at": [datetime(2016, 3, night_closing(time).day + 1, tzinfo=UTC) for time in times],
        }
    )
    rows = [line.split() for line in LABELS.strip().splitlines()[1:]]
    labels = pd.DataFrame(
        {
            "customer_id": [row[0] for row in rows],
            "prediction_time": [at(*row[1:4]) for row in rows],
            "label": [row[4] == "yes" for row in rows],
            "event_time": [at(*row[5:8]) for row in rows],
            "available_at": [at(*row[5:8]) for row in rows],
        }
    )
    rails.lake.ensure(PREDICTION)
    columns = {
        "customer_id": "varchar",
        "prediction_time": "timestamptz",
        "label": "boolean",
        "event_time": "timestamptz",
        "available_at": "timestamptz",
    }
    rails.lake.ensure(Table("labels.lbl_stay", columns))
    rails.lake.replace(PREDICTION, {}, predictions, message="drawn")
    snapshot = rails.lake.replace("labels.lbl_stay", {}, labels, message="drawn")
    rails.ledger.record_stage("", night_closing(at("14", "March", "00:00")), "done", FeaturesSummary(snapshot=snapshot))


def test_labels_that_come_early_are_counted_and_not_looked_at(drawn):
    for line in NIGHTS.strip().splitlines():
        day, month, time, cohort, labelled, early, *names = line.split()
        counts = truth.counts(drawn, SPEC, at(day, month, time))
        looked_at = list(truth.matured(drawn, SPEC, at(day, month, time))["entity_id"])
        assert looked_at == [name for name in names if name != "-"], line
        assert counts.matured == int(labelled), line
        assert counts.matured + counts.missing == int(cohort), line
        assert counts.early == int(early), line


def test_early_labels_would_have_told_another_story(drawn):
    """On 5 March every label that is known says cancelled; the whole first cohort says one in two."""
    when = at("14", "March", "00:00")
    rows = truth.matured(drawn, SPEC, when)
    cohort = rows[rows["prediction_time"] < at("2", "March", "00:00")]
    assert cohort["label"].mean() == 0.5
    known = [
        truth.truth_of(drawn, SPEC, name, at(day, "March", time), at("5", "March", "00:00"))
        for name, day, time in (("anna", "1", "00:00"), ("bert", "1", "23:59"), ("cleo", "2", "00:00"))
    ]
    assert [label and label.label for label in known] == [True, None, True]


def test_a_label_that_never_comes_is_missing_and_not_negative(drawn):
    when = at("14", "March", "00:00")
    assert truth.counts(drawn, SPEC, when) == LabelCounts(matured=3, missing=1)
    assert "dora" not in set(truth.matured(drawn, SPEC, when)["entity_id"])


def test_a_cohort_is_matured_as_a_whole_or_not_at_all(drawn):
    """Anna's own time is over on 12 March 00:00, but Bert's, of the same night, is not."""
    assert truth.matured(drawn, SPEC, at("12", "March", "12:00")).empty
