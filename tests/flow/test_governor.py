"""Eighty models on one source, one night on which a column of it goes null: one incident, nobody retrains.

The deliveries, dbt, the freshness rules, drift and the governor are the real ones; the models are the churn model
under eighty names. None of them has a version yet, so that on a good night all of them ask for their first training.
"""

import shutil
from collections.abc import Iterator
from datetime import datetime, timedelta
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tests.conftest import business_home
from tiltyard import clock
from tiltyard import rails as rails_module
from tiltyard.clock import night_closing
from tiltyard.govern import drift, grants, standing
from tiltyard.portfolio_rules import load_portfolio
from tiltyard.prepare import data_incidents, features, observation
from tiltyard.rails import Rails
from tiltyard.records import FeaturesSummary, PortfolioNight
from tiltyard.spec import Spec, portfolio

GOOD = clock.parse_as_of("2025-02-03")
BROKEN = GOOD + timedelta(days=1)
MODELS = 80


@pytest.fixture(scope="module")
def rails(
    tmp_path_factory: pytest.TempPathFactory, postgres_url: str, eager_models: Path, deliveries: Path
) -> Iterator[Rails]:
    """A home in which both nights have landed and are built; of the second every `login.device` is missing."""
    folder = tmp_path_factory.mktemp("portfolio")
    for place in range(MODELS):
        shutil.copytree(eager_models / "churn", folder / "models" / f"churn_{place:02}")
    settings = business_home(folder, postgres_url, folder / "models", deliveries)
    login = settings.landing / "subscription" / "login" / f"{GOOD.date()}.parquet"  # the day that the night closes
    table = pq.read_table(login)
    pq.write_table(
        table.set_column(table.schema.get_field_index("device"), "device", pa.nulls(len(table), pa.string())), login
    )
    with rails_module.opened(settings) as opened:
        for as_of in (GOOD, BROKEN):
            features.ingest(opened, as_of)
            observation.store(opened, observation.observe(opened, "subscription", as_of), {}, as_of)
            features.transform(opened, as_of)
            summary = FeaturesSummary(snapshot=opened.lake.snapshot())
            opened.ledger.record_stage("", night_closing(as_of), "done", summary)
        yield opened


def test_the_source_has_one_open_incident_after_the_broken_night(rails: Rails) -> None:
    open_now = {
        as_of: data_incidents.of_source(rails, "subscription", night_closing(as_of)) for as_of in (GOOD, BROKEN)
    }
    assert open_now[GOOD] == ()
    assert [(one.table, one.column, one.what) for one in open_now[BROKEN]] == [("raw.login", "device", "went_null")]


def test_on_a_good_night_as_many_train_as_the_portfolio_affords(rails: Rails) -> None:
    chosen = portfolio(rails.settings)[:12]
    outcome = looked_at(rails, chosen, GOOD)
    allowed = load_portfolio(rails.settings.models).trainings.per_night
    assert outcome.decisions == {"retrain": allowed, "queued": 12 - allowed}
    assert list(outcome.granted) == [spec.name for spec in chosen[:allowed]]
    assert outcome.incidents == ()


def test_one_break_over_eighty_models_is_one_incident_and_no_retrain(rails: Rails) -> None:
    before = rails.ledger.retrains()
    outcome = looked_at(rails, portfolio(rails.settings), BROKEN)
    assert outcome.decisions == {"incident": MODELS}
    assert outcome.granted == {}
    assert rails.ledger.retrains() == before
    [incident] = outcome.incidents
    assert (incident.node, incident.kind, incident.columns) == ("raw.login", "broken", ("device",))
    assert incident.models == tuple(spec.name for spec in portfolio(rails.settings))
    assert "device went null" in incident.reason
    assert outcome.actions["churn_79"].reasons[-1] == "broken data is no reason to retrain"
    assert [incident.node for incident in standing.incidents(rails)] == ["raw.login"]


def test_a_column_that_no_model_is_made_of_holds_nobody_up(rails: Rails) -> None:
    """`reason` of a cancellation: staged, and read by no feature, spine or label."""
    night = BROKEN + timedelta(days=1)
    detail = {"source": "subscription", "table": "raw.cancellation", "column": "reason", "what": "went_null"}
    detail |= {"said": "all missing", "since": str(night.date())}
    closed = {
        **data_incidents.of_source(rails, "subscription", night_closing(BROKEN))[0].to_json(),
        "source": "subscription",
        "state": "closed",
    }
    rails.ledger.add_event(data_incidents.EVENT, "", night_closing(night), closed)
    rails.ledger.add_event(data_incidents.EVENT, "", night_closing(night), {**detail, "state": "open"})
    rails.ledger.record_stage("", night_closing(night), "done", FeaturesSummary(snapshot=rails.lake.snapshot()))
    chosen = portfolio(rails.settings)[-2:]
    outcome = looked_at(rails, chosen, night)
    assert [finding.broken for finding in rails.ledger.findings(night_closing(night))] == [(), ()]
    (shown,) = data_incidents.of_source(rails, "subscription", night_closing(night))
    assert shown.column == "reason", "it is told all the same"
    assert (outcome.decisions, outcome.incidents) == ({"retrain": 2}, ())


def looked_at(rails: Rails, specs: tuple[Spec, ...], as_of: datetime) -> PortfolioNight:
    for spec in specs:
        drift.measure_night(rails, spec, as_of)
    return grants.govern_night(rails, as_of, specs)
