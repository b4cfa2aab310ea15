"""A model that is added later and hindcast: its nights come into being, and those of every other stay as they are."""

import shutil
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow.parquet as pq
import yaml

from tests.conftest import business_home
from tiltyard import clock
from tiltyard import rails as rails_module
from tiltyard.clock import night_closing
from tiltyard.edge import due
from tiltyard.judge import shadow
from tiltyard.prepare import features
from tiltyard.rails import Rails
from tiltyard.records import FeaturesSummary
from tiltyard.rewind import hindcast
from tiltyard.settings import ROOT
from tiltyard.spec import find

FIRST = clock.parse_as_of("2025-02-03")
NIGHT = timedelta(days=1)
LAST = FIRST + 2 * NIGHT
VIEW, OTHER, PAYMENTS = "ftr_customer__activity", "ftr_customer__habits", "ftr_customer__payments"


def test_a_hindcast_of_a_new_model_leaves_the_nights_of_the_others_as_they_are(
    tmp_path: Path, postgres_url: str, eager_models: Path, deliveries: Path
) -> None:
    models, dbt = tmp_path / "models", tmp_path / "dbt"
    shutil.copytree(eager_models / "churn", models / "churn")
    shutil.copytree(ROOT / "dbt", dbt, ignore=shutil.ignore_patterns("target", "logs"))
    settings = business_home(tmp_path, postgres_url, models, deliveries, dbt=dbt)
    with rails_module.opened(settings) as rails:
        churn = find(models, "churn")
        hindcast.hindcast(rails, [churn], FIRST, LAST)
        states, scores = published(rails), predictions(rails, "churn")
        assert len(scores), "churn has no scores"
        warned = warnings(rails)

        for kind in ("sql", "yml"):
            text = (dbt / "models" / "features" / f"{VIEW}.{kind}").read_text()
            (dbt / "models" / "features" / f"{OTHER}.{kind}").write_text(text.replace(VIEW, OTHER))
        content = yaml.safe_load((models / "churn" / "spec.yaml").read_text())
        content["prediction"]["features"] = [OTHER]
        content["gate"]["slices"] = []
        shutil.copytree(models / "churn", models / "habit")
        (models / "habit" / "spec.yaml").write_text(yaml.safe_dump(content))
        habit = find(models, "habit")
        build = features.transform(rails, LAST)
        more = features.check_more(rails, "subscription", LAST, build, habit.tables, render=False)
        assert more is not None and OTHER in more.published and set(more.kept) == {table for table, _ in states}
        done = rails.ledger.stage_run(FeaturesSummary, "subscription", night_closing(LAST))
        assert done is not None and (done.status, done.summary.kept) == ("done", ()), (
            "nobody takes the night for undone"
        )
        result = hindcast.hindcast(rails, [habit], FIRST, LAST)
        assert result.models["habit"].stopped == ()
        assert result.models["habit"].ended_early == ()
        assert set(predictions(rails, "habit")["night"].dt.date) == set(nights())

        now = published(rails)
        assert {key: now[key] for key in states} == states, "what was in service is published again"
        assert {key[0] for key in now.keys() - states.keys()} == {OTHER}
        pd.testing.assert_frame_equal(predictions(rails, "churn"), scores)
        assert due.lot(rails, "shadow", [churn]).models == {}
        for night in nights():
            run = rails.ledger.stage_run(FeaturesSummary, "subscription", night)
            assert run is not None and run.status == "done"
            assert {*run.summary.published} == {table for table, day in now if day == night}
            assert {*run.summary.kept} == {table for table, day in states if day == night}
            assert run.summary.states == {"published": len(run.summary.published)}
        assert {text for text in warnings(rails) if OTHER not in text} == warned

        before = published(rails)  # and a model that needs nothing new has nothing judged at all
        shutil.copytree(models / "habit", models / "wont")
        hindcast.hindcast(rails, [find(models, "wont")], FIRST, LAST)
        assert published(rails) == before

        # a night on which a table was held that the next new model does not read
        tomorrow = LAST + NIGHT
        delivery = settings.landing / "subscription" / "payment" / f"{LAST.date()}.parquet"
        rows = pq.read_table(delivery)
        names = ["eur" if name == "amount_eur" else name for name in rows.column_names]
        pq.write_table(rows.rename_columns(names), delivery)
        built = features.build_night(rails, tomorrow, render=False)
        reasons = {state.table: str(state.reason) for state in built.unpublished}
        cause = f"its delivery payment/{LAST.date()}.parquet lies in quarantine: column 'amount_eur' is missing"
        assert reasons["raw.payment"].startswith(cause), "and not only that there are too few rows"
        assert f"which is held: {cause}" in reasons[PAYMENTS]
        assert not {churn.prediction.spine, OTHER} & reasons.keys()
        shadow.shadow_night(rails, churn, tomorrow)
        held, scores = published(rails, tomorrow), predictions(rails, "churn", tomorrow)

        pq.write_table(rows, delivery)  # mended, and nobody has done the night again
        shutil.copytree(models / "habit", models / "late")
        result = hindcast.hindcast(rails, [find(models, "late")], tomorrow, tomorrow)
        assert result.models["late"].waiting == ()
        assert published(rails, tomorrow) == held, "what it does not read is not judged for it"
        assert due.lot(rails, "shadow", [churn]).models == {}
        pd.testing.assert_frame_equal(predictions(rails, "churn", tomorrow), scores)

        assert features.build_night(rails, tomorrow, render=False).unpublished == ()
        assert due.lot(rails, "shadow", [churn]).models == {"churn": (night_closing(tomorrow),)}


def nights() -> list[Any]:
    return [night_closing(FIRST + number * NIGHT) for number in range(3)]


def published(rails: Rails, *others: datetime) -> dict[tuple[str, Any], tuple[Any, ...]]:
    """(table, night) → where it stands, and since when it does, of the three nights or of others."""
    found: dict[tuple[str, Any], tuple[Any, ...]] = {}
    for night in map(night_closing, others) if others else nights():
        states = {state.table: state for state in rails.ledger.table_states(until=night) if state.night == night}
        at = rails.ledger.settled_at(states, 1, until=night)
        found |= {(name, night): (state.state, state.snapshot, at[name][night]) for name, state in states.items()}
    return found


def predictions(rails: Rails, model: str, until: datetime = LAST) -> pd.DataFrame:
    """With the snapshot that each was made from, and when."""
    rows = rails.lake.query("select * from {ops.prediction} where model = $model", until, {"model": model})
    return rows.sort_values(["night", "request_id", "tier"], ignore_index=True)


def warnings(rails: Rails) -> set[str]:
    runs = (rails.ledger.stage_run(FeaturesSummary, "subscription", night) for night in nights())
    return {text for run in runs if run is not None for text in run.summary.warnings}
