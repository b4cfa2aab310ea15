"""A model that is added later and hindcast: its nights come into being, and those of every other stay as they are."""

import shutil
from datetime import timedelta
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
from tiltyard.prepare import features
from tiltyard.rails import Rails
from tiltyard.records import FeaturesSummary
from tiltyard.rewind import hindcast
from tiltyard.settings import ROOT
from tiltyard.spec import find

FIRST = clock.parse_as_of("2025-02-03")
NIGHT = timedelta(days=1)
LAST = FIRST + 2 * NIGHT
VIEW, OTHER = "ftr_customer__activity", "ftr_customer__habits"


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

        delivery = settings.landing / "subscription" / "login" / f"{LAST.date()}.parquet"
        rows = pq.read_table(delivery)
        pq.write_table(
            rows.rename_columns(["dev" if name == "device" else name for name in rows.column_names]), delivery
        )
        built = features.build_night(rails, LAST + NIGHT, render=False)
        reasons = {state.table: str(state.reason) for state in built.unpublished}
        cause = f"its delivery login/{LAST.date()}.parquet lies in quarantine: column 'device' is missing"
        assert reasons["raw.login"].startswith(cause), "and not only that there are too few rows"
        assert f"which is held: {cause}" in reasons[VIEW]
        assert churn.prediction.spine not in reasons


def nights() -> list[Any]:
    return [night_closing(FIRST + number * NIGHT) for number in range(3)]


def published(rails: Rails) -> dict[tuple[str, Any], tuple[Any, ...]]:
    """(table, night) → where it stands, and since when it does."""
    found: dict[tuple[str, Any], tuple[Any, ...]] = {}
    for night in nights():
        states = {state.table: state for state in rails.ledger.table_states(until=night) if state.night == night}
        at = rails.ledger.settled_at(states, 1, until=night)
        found |= {(name, night): (state.state, state.snapshot, at[name][night]) for name, state in states.items()}
    return found


def predictions(rails: Rails, model: str) -> pd.DataFrame:
    """With the snapshot that each was made from, and when."""
    rows = rails.lake.query("select * from {ops.prediction} where model = $model", LAST, {"model": model})
    return rows.sort_values(["night", "request_id", "tier"], ignore_index=True)


def warnings(rails: Rails) -> set[str]:
    runs = (rails.ledger.stage_run(FeaturesSummary, "subscription", night) for night in nights())
    return {text for run in runs if run is not None for text in run.summary.warnings}
