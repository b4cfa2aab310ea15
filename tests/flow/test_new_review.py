"""A model of whoever rows are of: `new model --entity` writes it; its tables hold what came, and nothing too early."""

import subprocess
import sys
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pandas as pd
import pytest

from tests import stranger
from tests.flow.test_new import copied
from tiltyard import lake
from tiltyard import rails as rails_module
from tiltyard.errors import BadInput
from tiltyard.prepare import features, project, transform
from tiltyard.rails import Rails
from tiltyard.scaffold import cutting, new_model, new_source, source_texts, write
from tiltyard.scaffold.inferring import Said
from tiltyard.scaffold.new_source import SourceRequest
from tiltyard.scaffold.planned import ModelRequest
from tiltyard.settings import ROOT, Settings
from tiltyard.spec import find

TABLE = stranger.purchases()
AT = pd.to_datetime(TABLE["At"], utc=True)
AGAIN = ModelRequest("again", "shop", entity="customer=CustomerNo", horizon_days=10)
TAKINGS = ModelRequest("takings", "shop", entity="branch=Shop,Town", label="Amount", is_number=True, horizon_days=3)
NIGHT = datetime(2016, 5, 20, tzinfo=UTC)


@pytest.fixture(scope="module")
def settings(tmp_path_factory: pytest.TempPathFactory, postgres_url: str) -> Settings:
    folder = tmp_path_factory.mktemp("purchases")
    settings = copied(folder, postgres_url).model_copy(update={"sources": ("shop",)})
    export = stranger.write(folder / "receipts.csv", TABLE)
    said = Said("At", None, None, (), {}, ())
    write.files(
        settings,
        source_texts.texts(new_source.look(settings, SourceRequest("shop", export, table="receipt", said=said))),
    )
    cutting.cut(settings, "shop", export)
    for request in (AGAIN, TAKINGS):
        plan = new_model.look(settings, request)
        write.files(settings, plan.texts, plan.exposure)
    return settings


@pytest.fixture(scope="module")
def built(settings: Settings) -> Iterator[Rails]:
    """Two nights, the second on top of the first."""
    with rails_module.opened(settings) as rails:
        for night in (NIGHT, NIGHT + timedelta(days=1)):
            assert features.build_night(rails, night, render=False).unpublished == ()
        yield rails


def test_what_is_written_passes_validate_and_the_linter(settings: Settings) -> None:
    described = project.read(settings)
    for name in ("again", "takings"):
        project.check_spec(described, settings, find(settings.models, name))
    paths = [
        path for path in settings.dbt.rglob("*.sql") if not (ROOT / "dbt" / path.relative_to(settings.dbt)).exists()
    ]
    assert len(paths) == 7
    command = [sys.executable, "-m", "sqlfluff", "lint", "--disable-progress-bar", "--config", str(ROOT / ".sqlfluff")]
    done = subprocess.run([*command, *map(str, paths)], capture_output=True, text=True, cwd=ROOT, check=False)
    assert done.returncode == 0, done.stdout


def key(row: "pd.Series[str]") -> str:
    """The key of two columns, by hand."""
    return "|".join(text.replace("\\", "\\\\").replace("|", r"\|") for text in (row["Shop"], row["Town"]))


def test_the_tables_say_of_a_customer_what_came_before_and_after_a_review(built: Rails) -> None:
    spine = read(built, "spn_again")
    past, label = (read(built, name).set_index(KEYS["again"]) for name in ("ftr_customer__again_past", "lbl_again"))
    assert len(spine) > 1_000 and spine["prediction_time"].max() < pd.Timestamp(NIGHT + timedelta(days=1))
    assert spine["prediction_time"].dt.date.nunique() > 60
    first = AT.groupby(TABLE["CustomerNo"]).min()
    seen = 0
    for customer, due in spine[["customer_id", "prediction_time"]].sample(400, random_state=1).itertuples(index=False):
        own = AT[TABLE["CustomerNo"] == int(customer)]
        assert (due - first[int(customer)]).total_seconds() % (7 * 86_400) == 0
        before = own[own <= due]
        row = past.loc[(customer, due)]
        assert row["customer_rows_28d"] == (before > due - pd.Timedelta(days=28)).sum()
        assert row["customer_last_payment"] in set(TABLE.loc[before[before == before.max()].index, "Payment"])
        assert row["customer_amount_28d"] == pytest.approx(
            TABLE.loc[before[before > due - pd.Timedelta(days=28)].index, "Amount"].sum(), abs=1e-6
        )
        after = own[(own > due) & (own <= due + pd.Timedelta(days=10))]
        landed = pd.Timestamp(NIGHT + timedelta(days=1))
        known = after[after <= landed]
        if len(known):
            assert label.loc[(customer, due), "label"] and label.loc[(customer, due), "available_at"] == known.min()
            seen += 1
        elif due + pd.Timedelta(days=10) <= landed:
            assert not label.loc[(customer, due), "label"]
            assert label.loc[(customer, due), "available_at"] == due + pd.Timedelta(days=10)
        else:
            assert (customer, due) not in label.index
    assert 50 < seen < 350


def test_a_key_of_two_columns_is_one_branch_and_no_other(built: Rails) -> None:
    branch = TABLE.apply(key, axis=1)
    spine, label = read(built, "spn_takings"), read(built, "lbl_takings").set_index(KEYS["takings"])
    assert set(spine["branch_id"]) == set(branch) and branch.nunique() == 6
    per_day = spine.groupby(spine["prediction_time"].dt.date)["branch_id"].nunique()
    assert per_day.iloc[1:].eq(6).all(), "there are few, and each is reviewed every day"
    landed = pd.Timestamp(NIGHT + timedelta(days=1))
    for name, due in spine[["branch_id", "prediction_time"]].sample(200, random_state=2).itertuples(index=False):
        until = due + pd.Timedelta(days=3)
        if until > landed:
            assert (name, due) not in label.index
            continue
        amounts = TABLE["Amount"][(branch == name) & (due < AT) & (until >= AT)]
        assert label.loc[(name, due), "label"] == pytest.approx(amounts.sum(), abs=1e-6)
        assert label.loc[(name, due), "available_at"] == until


def test_a_night_on_top_of_another_is_what_a_build_of_all_gives(built: Rails) -> None:
    names = (
        "spn_again",
        "lbl_again",
        "ftr_customer__again_past",
        "spn_takings",
        "lbl_takings",
        "ftr_branch__takings_past",
    )
    before = {name: read(built, name) for name in names}
    transform.build(built, ("shop",), NIGHT + timedelta(days=1), full_refresh=True)
    for name in names:
        pd.testing.assert_frame_equal(read(built, name), before[name], obj=name)


KEYS = {"again": ["customer_id", "prediction_time"], "takings": ["branch_id", "prediction_time"]}


def read(rails: Rails, table: str) -> pd.DataFrame:
    """A table as it is, but for when it was built; a feature view's event time is the review that it is of."""
    frame = rails.lake.connection.execute(f"select * from lake.{lake.qualified(table)} order by all").df()
    frame = frame.rename(columns={"event_time": "prediction_time"} if table.startswith("ftr_") else {})
    return frame.drop(columns="built_at")


@pytest.mark.parametrize(
    ("request_", "message"),
    [
        (ModelRequest("m", "shop", entity="CustomerNr"), "did you mean customer_no?"),
        (ModelRequest("m", "shop", entity="customer=CustomerNo,Amount,Items"), "hardly anybody comes twice"),
        (ModelRequest("m", "shop", entity="Big Shop=Shop"), "is no plain name; say who it is with NAME=COLUMN"),
        (ModelRequest("m", "shop", entity="Shop", label="Payment"), "say which is meant with --positive, or --number"),
        (ModelRequest("m", "shop", entity="Shop", label="Payment", positive="cheque"), "is never 'cheque'"),
        (ModelRequest("m", "shop", entity="Shop", label="Payment", is_number=True), "holds no numbers"),
        (ModelRequest("m", "shop", entity="Shop", rates=("Town",)), "are of a question about a row"),
    ],
)
def test_a_question_that_cannot_be_answered(settings: Settings, request_: ModelRequest, message: str) -> None:
    with pytest.raises(BadInput) as raised:
        new_model.look(settings, request_)
    assert message in str(raised.value)


def test_rows_that_count_are_those_that_were_asked_for(settings: Settings, tmp_path: Path) -> None:
    every = new_model.look(settings, ModelRequest("m", "shop", entity="customer=CustomerNo", horizon_days=10))
    some = new_model.look(
        settings,
        ModelRequest("m", "shop", label="Payment", positive="cash", entity="customer=CustomerNo", horizon_days=10),
    )
    assert 0 < some.base < every.base < 1
    sql = next(text for path, text in some.texts.items() if path.name == "lbl_m.sql")
    assert "payment = 'cash' as counts" in sql and "from happened where counts" in sql
