"""A delivery of cancellations that never were: found, held by the gate for what learned from it, released by a person.

Deliveries, dbt, labels, versions, the nightly check, the governor and the gate are the real ones; the windows are of
three nights, so that it takes eighty nights and not a hundred and twenty.
"""

import shutil
from collections.abc import Iterator
from datetime import datetime, timedelta
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest
import yaml

from tests.conftest import business_home
from tiltyard import clock
from tiltyard import rails as rails_module
from tiltyard.clock import night_closing
from tiltyard.edge import describe
from tiltyard.errors import BadInput
from tiltyard.govern import drift, grants, standing
from tiltyard.judge import promotion, scoring, shadow
from tiltyard.prepare import features
from tiltyard.prepare.simulator import Simulator
from tiltyard.rails import Rails
from tiltyard.records import Criterion, FeaturesSummary
from tiltyard.spec import Spec, find
from tiltyard.train import training

START = clock.parse_as_of("2025-01-01")
SIMULATED = Simulator(customers=4_000, days=88)
TRAINED, LAST = 44, 62
"""Days after which the first version was trained, and the last night of the newest window."""
FOUND = LAST + 21
"""A cancellation has three weeks to happen and to become known."""
POISONED = 0.2
"""Share of the newest window's customers whom somebody says to have left."""


def day(number: int) -> datetime:
    return START + timedelta(days=number)


@pytest.fixture(scope="module")
def played(
    tmp_path_factory: pytest.TempPathFactory, postgres_url: str, eager_models: Path
) -> Iterator[tuple[Rails, Spec]]:
    folder = tmp_path_factory.mktemp("poisoned")
    models, deliveries = folder / "models", folder / "deliveries"
    shutil.copytree(eager_models, models)
    content = yaml.safe_load((models / "churn" / "spec.yaml").read_text())
    content["drift"] |= {"window": "3d", "cooldown": "3d"}
    content["estimator"] |= {"window": "20d"}
    (models / "churn" / "spec.yaml").write_text(yaml.safe_dump(content))
    SIMULATED.land(deliveries)
    settings = business_home(folder, postgres_url, models, deliveries)
    cancellations = settings.landing / "subscription" / "cancellation"
    poison(cancellations / f"{day(LAST + 12).date()}.parquet")
    spec = find(models, "churn")
    with rails_module.opened(settings) as rails:
        features.ingest(rails, day(88))
        features.transform(rails, day(88))
        summary = FeaturesSummary(snapshot=rails.lake.snapshot())
        for number in (TRAINED, LAST, *range(FOUND, FOUND + 4)):
            rails.ledger.record_stage("subscription", night_closing(day(number)), "done", summary)
        assert training.train(rails, spec, day(TRAINED), requested_by="ada").version == 1
        for number in range(TRAINED + 1, LAST + 1):
            scoring.score_night(rails, spec, day(number))
        yield rails, spec


def poison(file: Path) -> None:
    """Add to a delivery that some of those who were reviewed in the newest window left ten days later. They stayed."""
    tables = SIMULATED.tables()
    signed_up = tables["customer"].groupby("customer_id")["signed_up_at"].min()
    since = (pd.Timestamp(day(LAST - 3)) - signed_up) / pd.Timedelta(days=7)
    review = signed_up + np.ceil(since) * pd.Timedelta(days=7)
    inside = (
        (since > 1) & (review < pd.Timestamp(day(LAST))) & ~signed_up.index.isin(tables["cancellation"]["customer_id"])
    )
    chosen = review[inside].sample(frac=POISONED, random_state=16)
    honest = pq.read_table(file)
    lies = pd.DataFrame(
        {
            "customer_id": chosen.index,
            "reason": "price",
            "cancelled_at": chosen + pd.Timedelta(days=10),
            "written_at": chosen + pd.Timedelta(days=11),
        }
    )
    rows = pd.concat([honest.to_pandas(), lies[honest.column_names]], ignore_index=True)
    pq.write_table(type(honest).from_pandas(rows, schema=honest.schema, preserve_index=False), file)


def test_it_is_found_held_and_released(played: tuple[Rails, Spec]) -> None:
    rails, spec = played
    found = shadow.shadow_night(rails, spec, day(FOUND)).labels
    assert found is not None
    assert found.suspect, found
    assert found.version == 1

    # whoever looks sees model, window, counts and what to do, and the governor trains nothing
    [incident] = standing.incidents(rails)
    assert (incident.node, incident.models) == ("lbl_churn", ("churn",))
    assert "suspect to churn" in incident.reason
    assert f"labels of {found.first} to {found.last}" in incident.reason
    assert "tiltyard incidents release lbl_churn" in describe.incidents([incident])
    drift.measure_night(rails, spec, day(FOUND))
    assert grants.govern_night(rails, day(FOUND), [spec]).decisions == {"incident": 1}

    # somebody trains by hand: the gate holds what learned from them
    trained = training.train(rails, spec, day(FOUND), requested_by="ada")
    assert trained.version == 2
    assert "The gate promotes it when a person has released them." in trained.warnings[-1]
    held = judged(rails, spec, FOUND + 1)
    assert (held[2].status, held[2].value) == ("fail", "suspect")
    assert str(found.first) in held[2].reason
    assert (held[1].status, held[1].value) == ("pass", "untested"), "nobody had spoken before the first version"
    assert rails.ledger.promotions(spec.name) == []

    # a person says that they are the world, and why
    with pytest.raises(BadInput, match="needs a reason"):
        grants.release(rails, "lbl_churn", by="grace", reason=" ")
    grants.release(rails, "lbl_churn", by="grace", reason="a competitor gave a year for nothing")
    again = judged(rails, spec, FOUND + 2)
    assert again[2].status == "pass"
    assert "released by grace: a competitor gave a year for nothing" in again[2].reason
    assert [one.node for one in standing.incidents(rails) if not one.closing] == []


def judged(rails: Rails, spec: Spec, number: int) -> dict[int, Criterion]:
    """Version → the gate's criterion `labels` on a night."""
    shadow.shadow_night(rails, spec, day(number))
    promotion.judge_night(rails, spec, day(number))
    night = night_closing(day(number))
    return {
        one.challenger: next(criterion for criterion in one.evidence.criteria if criterion.name == "labels")
        for one in rails.ledger.decisions(spec.name, until=night, since=night)
    }
