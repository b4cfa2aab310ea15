"""What was delivered is read as staging reads it, whatever is in it, when a model is made of it."""

from datetime import UTC, date, datetime, timedelta
from pathlib import Path

import pytest
import yaml

from tiltyard.errors import BadInput
from tiltyard.prepare import project
from tiltyard.scaffold import cutting, delivered, new_model, new_source, source_texts, write
from tiltyard.scaffold.inferring import Said
from tiltyard.scaffold.new_source import SourceRequest
from tiltyard.scaffold.planned import ModelPlan, ModelRequest
from tiltyard.settings import Settings
from tiltyard.spec import find


def source(folder: Path, *, is_month_first: bool = False) -> Settings:
    """Visits of which numbers are endless, none, huge, or in millions, and a day that may be read both ways."""
    (folder / "dbt" / "models" / "staging").mkdir(parents=True)
    settings = Settings(home=folder, dbt=folder / "dbt", models=folder / "models", expectations=folder / "expectations")
    lines = ["id,at,due,until,endless,none,huge,millions,amount,done"]
    for number in range(400):
        at = datetime(2025, 1, 1, tzinfo=UTC) + timedelta(hours=6 * number)
        first, second = 1 + number % 12, 1 + number % 7
        due = (at + timedelta(days=3)).date()
        numbers = [("inf", "-inf", "2.5")[number % 3], "nan", ("1e308", "-1e308")[number % 2], number % 4 * 1_000_000]
        outcome = [number % 3 * 1_000_000, ("Yes", "No")[number % 2]]
        row = [number, at.isoformat(), due, f"{first:02d}/{second:02d}/2026", *numbers, *outcome]
        lines.append(",".join(map(str, row)))
    (folder / "a.csv").write_text("\n".join(lines) + "\n", encoding="utf-8")
    said = Said(event_time="at", planned=("due", "until"), written_later={"done": "due", "amount": "due"})
    request = SourceRequest("shop", folder / "a.csv", table="visit", said=said, is_month_first=is_month_first)
    write.files(settings, source_texts.texts(new_source.look(settings, request)))
    cutting.cut(settings, "shop", folder / "a.csv")
    return settings


def suite_of(plan: ModelPlan) -> dict[str, list[object]]:
    """Column → its bounds."""
    [text] = [text for path, text in plan.texts.items() if path.name.endswith("_intake.yaml")]
    entries = [entry["kwargs"] for entry in yaml.safe_load(text)["expectations"]]
    return {
        each["column"]: [each["min_value"], each["max_value"]]
        for each in entries
        if "max_value" in each and "column" in each
    }


def test_numbers_without_an_end_stop_no_model_and_are_in_no_bounds(tmp_path: Path) -> None:
    settings = source(tmp_path)
    plan = new_model.look(settings, ModelRequest("done", "shop", label="done", horizon_days=7))
    assert {"endless", "huge", "millions"} <= {*plan.features}
    bounds = suite_of(plan)
    assert not {"none", "huge"} & bounds.keys()
    assert all(isinstance(bound, int | float) for pair in bounds.values() for bound in pair)
    assert bounds["endless"] == [0, 3.75]
    assert bounds["millions"] == [0, 4.5e6]


def test_bounds_and_the_default_of_an_amount_of_millions_are_numbers(tmp_path: Path) -> None:
    settings = source(tmp_path)
    plan = new_model.look(settings, ModelRequest("amount", "shop", label="amount", is_number=True, horizon_days=7))
    [spec] = [yaml.safe_load(text) for path, text in plan.texts.items() if path.name == "spec.yaml"]
    assert spec["fallback"]["safe_default"] == 1e6
    assert all(isinstance(bound, int | float) for bound in spec["label"]["bounds"])


def test_a_day_is_read_in_the_format_that_staging_reads_it_by(tmp_path: Path) -> None:
    found = {}
    for is_month_first in (False, True):
        settings = source(tmp_path / str(is_month_first), is_month_first=is_month_first)
        with delivered.opened(settings, "shop", None) as rows:
            found[is_month_first] = rows.connection.execute(
                "select until from first_known where visit_id = 8"  # written 09/02/2026
            ).fetchone()
    assert found == {False: (date(2026, 2, 9),), True: (date(2026, 9, 2),)}


def test_a_day_that_cannot_be_read_later_on_is_missing_and_stops_no_model(tmp_path: Path) -> None:
    settings = source(tmp_path)
    [staging] = [path.read_text() for path in settings.dbt.rglob("stg_shop__visit.sql")]
    assert "cast(try_strptime(until, '%d/%m/%Y') as date) as until" in staging
    late = "id,at,due,until,endless,none,huge,millions,amount,done,written_at\n"
    late += "900,2025-04-20T10:00:00Z,2025-04-22,to be told,1,1,1,1,,,2025-04-20T10:00:00Z\n"
    (settings.landing / "shop" / "visit" / "2025-04-20.csv").write_text(late)
    with delivered.opened(settings, "shop", None) as rows:
        found = rows.connection.execute("select until from first_known where visit_id = 900").fetchone()
    assert found == (None,)


def parcels(folder: Path) -> Settings:
    """Parcels whose columns are called like what a model makes of them: the key of a view, an hour, a count."""
    (folder / "dbt" / "models" / "staging").mkdir(parents=True)
    settings = Settings(home=folder, dbt=folder / "dbt", models=folder / "models", expectations=folder / "expectations")
    lines = ["parcel_id,at,sender_id,sender,parcel,event_hour,sender_rows_1d,done"]
    for number in range(400):
        at = datetime(2025, 1, 1, tzinfo=UTC) + timedelta(hours=6 * number)
        row = [
            f"P{number}",
            at.isoformat(),
            f"S{number % 40}",
            f"n{number % 30}",
            f"k{number % 5}",
            number % 7,
            number % 9,
        ]
        lines.append(",".join(map(str, [*row, ("Yes", "No")[number % 2]])))
    (folder / "a.csv").write_text("\n".join(lines) + "\n", encoding="utf-8")
    said = Said(event_time="at", key="parcel_id", written_later={"done": None}, planned=())
    request = SourceRequest("post", folder / "a.csv", table="parcel", said=said, written_after=timedelta(days=2))
    write.files(settings, source_texts.texts(new_source.look(settings, request)))
    cutting.cut(settings, "post", folder / "a.csv")
    return settings


@pytest.mark.parametrize("shared", [None, ("sender_id",), ("sender",)])
def test_no_feature_has_the_name_of_a_key_or_of_one_of_another_view(
    tmp_path: Path, shared: tuple[str, ...] | None
) -> None:
    settings = parcels(tmp_path)
    plan = new_model.look(settings, ModelRequest("late", "post", label="done", rates=shared, loads=shared))
    write.files(settings, plan.texts, plan.exposure)
    project.check_spec(project.read(settings), settings, find(settings.models, "late"))
    assert {"sender_id_value", "sender_rows_1d_value", "event_hour", "event_hour_2", "sender"} <= {*plan.features}


def test_columns_of_which_a_model_would_make_one_key_are_refused(tmp_path: Path) -> None:
    settings = parcels(tmp_path)
    for rates, loads in ((("sender",), ("sender_id",)), (("parcel",), ())):
        with pytest.raises(BadInput, match="would be one entity by their names"):
            new_model.look(settings, ModelRequest("late", "post", label="done", rates=rates, loads=loads))


def test_a_delivery_that_cannot_be_read_is_told_and_the_others_are_looked_at(tmp_path: Path) -> None:
    settings = source(tmp_path)
    asked = ModelRequest("done", "shop", label="done", horizon_days=7)
    before = new_model.look(settings, asked)
    table = settings.landing / "shop" / "visit"
    (table / "2025-01-20-b.csv").write_text("id,at\n1,2025-01-20\n")
    (table / "2025-01-21-b.csv").write_text("")
    plan = new_model.look(settings, asked)
    [note] = set(plan.notes) - set(before.notes)
    assert note.startswith("2 files that a night would put into quarantine left out, like 2025-01-20-b.csv: column")
    assert plan.base == before.base
    for path in table.iterdir():
        path.write_text("id,at\n1,2025-01-20\n")
    with pytest.raises(BadInput, match=r"No delivery in .*visit can be read, like 2025-\d\d-\d\d.parquet: it is no"):
        new_model.look(settings, asked)
