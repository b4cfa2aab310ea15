"""Two models of two sources, and nights on which something breaks: it holds what is made of it, and nobody else.

The second source is the simulated business under other names. Beside the home in which things break lies one in which
nothing does: there everything has landed and was built at once, as in a hindcast, and only the models go night by
night. The deliveries, dbt, the suites and the stages are the real ones.
"""

import shutil
from collections.abc import Callable, Iterator
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path

import pandas as pd
import pyarrow.parquet as pq
import pytest
import sqlalchemy as sa
import yaml

from tests.conftest import know_project, make_settings
from tiltyard import clock, release
from tiltyard import rails as rails_module
from tiltyard.clock import night_closing
from tiltyard.edge import describe_nights, due, nights, status
from tiltyard.edge.document import ModelStatus
from tiltyard.errors import BadInput, CheckFailed
from tiltyard.govern import drift, grants
from tiltyard.judge import shadow
from tiltyard.online import fill
from tiltyard.prepare import features, releasing
from tiltyard.prepare.transform import BuildSummary
from tiltyard.rails import Rails
from tiltyard.records import FeaturesSummary, Publication, ShadowSummary, TrainingSummary
from tiltyard.rewind import hindcast
from tiltyard.settings import ROOT, Settings
from tiltyard.spec import find, portfolio
from tiltyard.train import training
from tiltyard.upkeep import claims

FIRST = clock.parse_as_of("2025-02-03")
NIGHT = timedelta(days=1)
LAST = FIRST + 12 * NIGHT
"""The last night of which something was delivered."""
WORDS = {
    "subscription": "twin",
    "customer": "patron",
    "churn": "lapse",
    "login": "entry",
    "payment": "fee",
    "cancellation": "quit",
}
"""The simulated business → the same under other names."""
AUDIT = ["snapshot", "scored_at"]
VIEW, SPINE = "ftr_customer__activity", "spn_customer_reviewed"


def renamed(text: str) -> str:
    for word, other in WORDS.items():
        text = text.replace(word, other)
    return text


@pytest.fixture(scope="module")
def business(tmp_path_factory: pytest.TempPathFactory, eager_models: Path, deliveries: Path) -> Path:
    """A folder with dbt project, suites, models and deliveries of both sources."""
    folder = tmp_path_factory.mktemp("business")
    shutil.copytree(ROOT / "dbt", folder / "dbt", ignore=shutil.ignore_patterns("target", "logs"))
    shutil.copytree(ROOT / "expectations", folder / "expectations")
    shutil.copytree(eager_models / "churn", folder / "models" / "churn")
    shutil.copytree(eager_models / "churn", folder / "models" / "lapse")
    spec = folder / "models" / "lapse" / "spec.yaml"
    spec.write_text(renamed(spec.read_text()))
    models = folder / "dbt" / "models"
    own = [*(models / "staging" / "subscription").iterdir()]
    own += [path for name in (SPINE, "ftr_customer__*", "lbl_churn") for path in models.glob(f"*/{name}.*")]
    for path in own:
        copy = models / renamed(str(path.relative_to(models)))
        copy.parent.mkdir(exist_ok=True)
        copy.write_text(renamed(path.read_text()))
    project = folder / "dbt" / "dbt_project.yml"
    lines = project.read_text().splitlines()
    project.write_text("\n".join(renamed(line) + "\n" + line if "churn" in line else line for line in lines) + "\n")
    for path in deliveries.rglob("*.parquet"):
        table, name = pq.read_table(path), path.relative_to(deliveries)
        twin = table.rename_columns([renamed(column) for column in table.column_names])
        for target, rows in (("subscription", table), ("twin", twin)):
            place = folder / "landing" / target / (renamed(str(name)) if target == "twin" else name)
            place.parent.mkdir(parents=True, exist_ok=True)
            pq.write_table(rows, place)
    return folder


def home(folder: Path, postgres_url: str, business: Path) -> Settings:
    """A fresh home with project, suites and models of its own, in which a test may break something."""
    for name in ("dbt", "expectations", "models"):
        shutil.copytree(business / name, folder / name)
    settings = make_settings(
        folder,
        postgres_url,
        models=folder / "models",
        dbt=folder / "dbt",
        expectations=folder / "expectations",
        sources=("subscription", "twin"),
    )
    shutil.copytree(business / "landing", settings.landing)
    know_project(settings, postgres_url)
    return settings


def a_night(rails: Rails, as_of: datetime) -> features.FeaturesNight:
    """The features, and both models scored, each on its own as its DAG would. On the first night both are trained."""
    built = features.build_night(rails, as_of, render=False)
    score(rails, as_of)
    return built


def score(rails: Rails, as_of: datetime) -> None:
    for name in ("churn", "lapse"):
        spec = find(rails.settings.models, name)
        with suppress(CheckFailed):  # is in the records
            shadow.shadow_night(rails, spec, as_of)
        if as_of == FIRST:
            assert training.train(rails, spec, as_of, requested_by="somebody").version == 1


def predictions(rails: Rails, model: str, as_of: datetime) -> pd.DataFrame:
    rows = rails.lake.query(
        "select * from {ops.prediction} where model = $model and night = $night",
        as_of,
        {"model": model, "night": night_closing(as_of)},
    ).drop(columns=AUDIT)
    return rows.sort_values(["request_id", "tier"], ignore_index=True)


@dataclass
class Break:
    """Something in the home that is broken, and mended again."""

    path: Path
    content: str | None

    @classmethod
    def text(cls, path: Path, change: Callable[[str], str]) -> "Break":
        before = path.read_text() if path.exists() else None
        path.write_text(change(before or ""))
        return cls(path, before)

    def mend(self) -> None:
        if self.content is None:
            self.path.unlink()
        else:
            self.path.write_text(self.content)


NEVER_MET = """expectations:
  - type: expect_table_row_count_to_be_between
    kwargs: {min_value: 1000000000}
    severity: critical
    meta: {why: "So many customers there are not."}
"""


@dataclass
class Homes:
    """The home in which nothing breaks, and the one in which something does."""

    calm: Rails
    broken: Rails
    nights: int = 1
    """Nights on which the models of the calm one were scored."""

    def same(self, model: str, as_of: datetime) -> None:
        """The model's rows of a night are those of the calm home, byte for byte."""
        rows = predictions(self.broken, model, as_of)
        assert set(rows["role"]) == {"safe_default", "challenger"}
        pd.testing.assert_frame_equal(rows, self.undisturbed(model, as_of))

    def undisturbed(self, model: str, as_of: datetime) -> pd.DataFrame:
        while FIRST + (self.nights - 1) * NIGHT < as_of:
            score(self.calm, FIRST + self.nights * NIGHT)
            self.nights += 1
        return predictions(self.calm, model, as_of)


@pytest.fixture(scope="module")
def homes(tmp_path_factory: pytest.TempPathFactory, postgres_url: str, business: Path) -> Iterator[Homes]:
    """Both homes, with their first night; all nights have been built in the calm one."""
    with ExitStack() as stack:
        calm, broken = (
            stack.enter_context(rails_module.opened(home(tmp_path_factory.mktemp(name), postgres_url, business)))
            for name in ("calm", "broken")
        )
        assert features.build_night(calm, LAST, render=False).unpublished == ()
        score(calm, FIRST)
        assert a_night(broken, FIRST).unpublished == ()
        yield Homes(calm, broken)


def test_a_critical_check_on_a_view_holds_its_model_and_no_other(homes: Homes) -> None:
    rails = homes.broken
    as_of, churn = FIRST + NIGHT, find(rails.settings.models, "churn")
    before = rails.publication()
    check = Break.text(rails.settings.expectations / "features" / f"{VIEW}.yaml", lambda _: NEVER_MET)
    built = a_night(rails, as_of)
    (held,) = built.unpublished
    assert (held.table, held.state, held.good_night) == (VIEW, "held", FIRST.date())
    assert held.snapshot == before.of(VIEW)
    assert "So many customers there are not" in str(held)
    assert {
        name: of_source.checks.states.get("held") for name, of_source in built.sources.items() if of_source.checks
    } == {
        "subscription": 1,
        "twin": None,
    }
    homes.same("lapse", as_of)

    rows = predictions(rails, "churn", as_of)
    assert set(rows["entity_id"]) == set(homes.undisturbed("churn", as_of)["entity_id"]), "an answer for every row"
    assert rows["apart"].notna().all()
    summary = rails.ledger.stage_run(ShadowSummary, "churn", as_of.date())
    assert summary is not None
    assert [state.table for state in summary.summary.unpublished] == [VIEW]
    drift.measure_night(rails, churn, as_of)
    document = status.status(rails, churn)
    assert isinstance(document, ModelStatus)
    assert [(state.table, state.since) for state in document.unpublished] == [(VIEW, as_of.date())]
    assert document.drift is not None
    assert document.drift.verdict == "broken"
    explained = status.explain(rails, churn, str(rows["request_id"].iloc[0]))
    assert explained.apart == {VIEW: before.of(VIEW)}
    assert all(
        value.available_at is None or value.available_at <= FIRST for value in explained.features if value.view == VIEW
    )

    with pytest.raises(CheckFailed, match=f"no version was trained on {as_of.date()}, {VIEW} is held"):
        training.train(rails, churn, as_of, requested_by="somebody")
    run = rails.ledger.stage_run(TrainingSummary, "churn", as_of.date())
    assert run is not None
    assert run.status == "stopped"

    check.mend()
    assert a_night(rails, as_of).unpublished == (), "done again, it is published"
    for model in ("churn", "lapse"):
        homes.same(model, as_of)
    assert not rails.publication().unpublished(churn.tables)


def test_a_suite_that_cannot_be_read_and_a_node_that_fails_are_their_tables_fault(homes: Homes) -> None:
    rails = homes.broken
    as_of = FIRST + 2 * NIGHT
    suite = Break.text(rails.settings.expectations / "features" / f"{VIEW}.yaml", lambda _: "expectations: [")
    node = Break.text(
        rails.settings.dbt / "models" / "features" / "ftr_customer__payments.sql",
        lambda sql: sql.rstrip() + " where cast(customer_id || 'x' as integer) = 1\n",
    )
    built = a_night(rails, as_of)
    states = {state.table: state for state in built.unpublished}
    assert {table: state.state for table, state in states.items()} == {VIEW: "held", "ftr_customer__payments": "failed"}
    assert f"{VIEW}.yaml:1" in str(states[VIEW])
    assert "Could not convert" in str(states["ftr_customer__payments"])
    homes.same("lapse", as_of)
    assert len(predictions(rails, "churn", as_of))
    suite.mend()
    node.mend()


def test_a_spine_that_is_mended_nights_later_is_caught_up_with_and_nothing_is_scored_twice(
    homes: Homes,
) -> None:
    rails = homes.broken
    churn = find(rails.settings.models, "churn")
    node = Break.text(
        rails.settings.dbt / "models" / "spines" / f"{SPINE}.sql",
        lambda sql: sql.rstrip() + " where cast(customer_id || 'x' as integer) = 1\n",
    )
    for position in (3, 4, 5):
        as_of = FIRST + position * NIGHT
        built = a_night(rails, as_of)
        states = {state.table: state.state for state in built.unpublished}
        assert states[SPINE] == "failed"
        assert states[VIEW] == states["lbl_churn"] == "blocked"
        assert next(state.since for state in built.unpublished if state.table == SPINE) == (FIRST + 3 * NIGHT).date()
        homes.same("lapse", as_of)
        assert predictions(rails, "churn", as_of).empty
        assert rails.ledger.stage_status("shadow", "churn", as_of.date()) == "stopped"
        assert due.waiting_nights(rails.publication(), churn, rails.ledger.published_nights()).keys() == {
            (FIRST + late * NIGHT).date() for late in range(3, position + 1)
        }
    assert grants.waiting(rails, [churn], (FIRST + 5 * NIGHT).date(), FIRST + 5 * NIGHT) == [], "nobody waits for it"
    document = status.status(rails, churn)
    assert isinstance(document, ModelStatus)
    assert {state.table: state.since for state in document.unpublished}[SPINE] == (FIRST + 3 * NIGHT).date()
    assert document.checks is not None
    assert document.checks.night == (FIRST + 5 * NIGHT).date()
    before = status.status(rails, churn, FIRST + 2 * NIGHT)
    assert isinstance(before, ModelStatus)
    assert SPINE not in {state.table for state in before.unpublished}, "what is asked as of a night is as of it"
    node.mend()
    as_of = FIRST + 6 * NIGHT
    built = features.build_night(rails, as_of, render=False)
    assert built.unpublished == ()
    finished, closed = rails.ledger.published_nights(), nights.closed_nights(rails, "shadow", churn)
    assert due.waiting_nights(rails.publication(), churn, finished) == {}
    late = (finished - closed) & rails.ledger.unpublished({SPINE})[SPINE]
    assert late == {(FIRST + position * NIGHT).date() for position in (3, 4, 5)}
    for position in (3, 4, 5, 6):
        shadow.shadow_night(rails, churn, FIRST + position * NIGHT)
        homes.same("churn", FIRST + position * NIGHT)


def test_a_night_that_is_killed_between_checks_and_publish_leaves_what_is_in_service(
    homes: Homes,
) -> None:
    rails = homes.broken
    as_of, before = FIRST + 7 * NIGHT, rails.publication()
    check = Break.text(rails.settings.expectations / "features" / f"{VIEW}.yaml", lambda _: NEVER_MET)
    features.ingest(rails, as_of, ["subscription"])
    build = BuildSummary.from_json(features.transform(rails, as_of, ["subscription"]).to_json())
    features.check(rails, "subscription", as_of, build, render=False)
    with rails_module.opened(rails.settings) as later:
        assert later.publication() == before
        assert [state.table for state in features.publish(later, "subscription", as_of).unpublished] == [VIEW]
        after = later.publication()
        assert after.snapshot > before.snapshot
        assert after.of(VIEW) == before.of(VIEW)
        assert after.of("ftr_patron__activity") == before.of("ftr_patron__activity"), "the other source's stay"
        assert features.publish(later, "subscription", as_of).snapshot == after.snapshot, "twice is once"
        assert later.publication() == after
        assert claims.references(later, as_of).named["in_service"] == before.snapshots | after.snapshots
    check.mend()


def test_a_home_from_before_tables_had_states_holds_a_table_where_it_was(homes: Homes) -> None:
    rails = homes.broken
    features.build_night(rails, FIRST + 7 * NIGHT, render=False)
    newest = rails.ledger.newest_published()
    assert newest is not None
    with rails.ledger.engine.begin() as connection:
        connection.execute(sa.text("delete from publication"))
        connection.execute(sa.text("delete from stage_run where stage = 'features'"))
    rails.ledger.record_stage("", newest.night, "done", FeaturesSummary(snapshot=newest.summary.snapshot))
    assert rails.publication() == Publication(snapshot=newest.summary.snapshot)
    as_of = FIRST + 8 * NIGHT
    check = Break.text(rails.settings.expectations / "features" / f"{VIEW}.yaml", lambda _: NEVER_MET)
    (held,) = features.build_night(rails, as_of, render=False).unpublished
    check.mend()
    assert (held.table, held.snapshot, held.good_night) == (VIEW, newest.summary.snapshot, newest.night)


def test_a_release_that_is_accepted_in_mid_night_loses_and_doubles_no_row(homes: Homes) -> None:
    """One source is built under the old texts and judged under the new ones, which rename the other source's model."""
    checkout, as_of = homes.broken, FIRST + 9 * NIGHT
    features.build_night(checkout, as_of - NIGHT, render=False)
    before, first = releasing.in_force(checkout, as_of, by="tests")
    features.ingest(before, as_of, ["subscription"])
    build = features.transform(before, as_of, ["subscription"])

    features_folder, models = checkout.settings.dbt / "models" / "features", checkout.settings.models
    Break.text(
        features_folder / "ftr_customer__payments.sql",
        lambda sql: sql.replace("        amount_eur as last", "        2.5 as fee_rate,\n        amount_eur as last"),
    )
    Break.text(
        features_folder / "ftr_customer__payments.yml",
        lambda text: text.replace(
            "      - name: last_amount_eur\n",
            "      - name: fee_rate\n        data_type: decimal(2,1)\n        description: Share of the fee.\n"
            "      - name: last_amount_eur\n",
        ),
    )
    (models / "lapse").rename(models / "forfeit")
    after, second = releasing.in_force(checkout, as_of, by="tests")
    assert (first.refused, second.refused) == ((), ())
    assert second.digest != first.digest

    assert features.check(after, "subscription", as_of, build, render=False).unpublished == ()
    assert features.end(after, "subscription", as_of).published
    assert features.build_night(after, as_of, ["twin"], render=False).unpublished == ()
    assert [spec.name for spec in portfolio(after.settings)] == ["churn", "forfeit"]
    for spec in portfolio(after.settings):
        for _ in range(2):  # twice is once
            shadow.shadow_night(after, spec, as_of)
    homes.same("churn", as_of)
    run = after.ledger.features_run("subscription", as_of.date())
    assert run is not None
    assert run.summary.release == release.name(after.settings)

    renamed_rows, own = predictions(after, "forfeit", as_of), homes.undisturbed("lapse", as_of)
    assert sorted(renamed_rows["entity_id"]) == sorted(own.loc[own["role"] == "safe_default", "entity_id"])
    assert set(renamed_rows["role"]) == {"safe_default"}, "a model of a new name has no past"
    assert predictions(after, "lapse", as_of).empty, "and the old name no more nights"
    assert after.ledger.version("lapse", 1) is not None, "but its past stays"
    assert len(predictions(after, "lapse", FIRST)), "with its answers"
    drift.measure_night(after, find(after.settings.models, "churn"), as_of)
    assert grants.waiting(after, portfolio(after.settings), as_of.date(), as_of) == ["forfeit"]

    features.build_night(after, as_of + NIGHT, render=False)
    shadow.shadow_night(after, find(after.settings.models, "churn"), as_of + NIGHT)
    homes.same("churn", as_of + NIGHT)


def test_a_view_that_is_not_built_yet_stops_no_version_that_was_trained_without_it(homes: Homes) -> None:
    """The release that names it comes when the features of the night are built. On its first night a check holds it."""
    checkout, as_of, new = homes.broken, FIRST + 10 * NIGHT, "ftr_customer__fees"
    before, _ = releasing.in_force(checkout, as_of, by="tests")
    assert features.build_night(before, as_of, render=False).unpublished == ()

    folder, spec_file = checkout.settings.dbt / "models" / "features", checkout.settings.models / "churn" / "spec.yaml"
    for suffix in ("sql", "yml"):
        text = (folder / f"ftr_customer__payments.{suffix}").read_text()
        for word, other in (
            ("ftr_customer__payments", new),
            ("payment_count", "fee_count"),
            ("failed_payments", "failed_fees"),
            ("unpaid_payments", "unpaid_fees"),
            ("last_amount_eur", "last_fee_eur"),
            ("fee_rate", "fee_share"),
        ):
            text = text.replace(word, other)
        (folder / f"{new}.{suffix}").write_text(text)
    body = yaml.safe_load(spec_file.read_text())
    body["prediction"]["features"].append(new)
    spec_file.write_text(yaml.safe_dump(body))
    check = Break.text(checkout.settings.expectations / "features" / f"{new}.yaml", lambda _: NEVER_MET)
    after, accepted = releasing.in_force(checkout, as_of, by="tests")
    assert accepted.refused == ()
    churn = find(after.settings.models, "churn")
    assert new in churn.prediction.features

    def scored(night: datetime, state: str) -> None:
        summary = shadow.shadow_night(after, churn, night)
        assert [(table.table, table.state) for table in summary.unpublished] == [(new, state)]
        rows, usual = predictions(after, "churn", night), homes.undisturbed("churn", night)
        assert set(rows["apart"]) == {f'{{"{new}": [null, null]}}'}
        pd.testing.assert_frame_equal(rows.drop(columns="apart"), usual.drop(columns="apart"))
        drift.measure_night(after, churn, night)
        explained = status.explain(after, churn, str(rows["request_id"].iloc[0]))
        assert {value.view for value in explained.features} == {*churn.prediction.features} - {new}
        filled = fill.fill_night(after, night)
        assert filled.waiting == {}, "the views that there is something of are in the store of online features"

    scored(as_of, "blocked")
    with pytest.raises(BadInput, match=f"no table 'features.{new}'"):
        training.train(after, churn, as_of, requested_by="somebody")

    (held,) = features.build_night(after, as_of + NIGHT, render=False).unpublished
    assert (held.table, held.state, held.snapshot) == (new, "held", None)
    scored(as_of + NIGHT, "held")

    check.mend()
    mended, _ = releasing.in_force(checkout, as_of, by="tests")
    assert features.build_night(mended, as_of + 2 * NIGHT, render=False).unpublished == ()
    assert shadow.shadow_night(mended, churn, as_of + 2 * NIGHT).unpublished == ()
    homes.same("churn", as_of + 2 * NIGHT)


def test_a_hindcast_goes_on_beside_a_source_that_was_silent_and_catches_up(
    tmp_path: Path, postgres_url: str, business: Path
) -> None:
    """Of the second night the first source has delivered no customers: what is made of them waits a night."""
    settings = home(tmp_path, postgres_url, business)
    first = FIRST + 2 * NIGHT  # on whose day the CRM writes every customer
    silent, last = first + NIGHT, first + 2 * NIGHT
    (settings.landing / "subscription" / "customer" / f"{first.date()}.parquet").unlink()
    (settings.landing / "twin" / "entry" / "notes.csv").write_text("nothing", encoding="utf-8")
    with rails_module.opened(settings) as rails:
        specs = [find(settings.models, name) for name in ("churn", "lapse")]
        result = hindcast.hindcast(rails, specs, first, last, jobs=1)  # two processes: test_hindcast.py
        assert {model.waiting for model in result.models.values()} == {()}, "the silent night was caught up with"
        held = {table.table: table for table in result.tables}
        assert (result.tables[0].table, held["raw.customer"].states) == ("raw.customer", {"held": 1})
        assert held["raw.customer"].first == held["raw.customer"].last == silent.date()
        assert held[SPINE].states == {"blocked": 1}
        assert "raw.entry" not in held
        assert [(file.source, file.file) for file in result.quarantined] == [("twin", "entry/notes.csv")]
        told = describe_nights.held_back(result, settings.quarantine)
        assert f"tables       {len(held)} tables not good on some of these nights; tiltyard status says" in told
        assert f"  raw.customer held on 1 night ({silent.date()}): " in told
        assert (
            f"quarantine   1 file that these nights did without, each with its reason beside it in {settings.home}"
            in told
        )
        assert "  twin/entry/notes.csv on " in told
        assert hindcast.hindcast(rails, specs, first, last).tables == result.tables, "also where nothing is left to do"
        earlier = hindcast.hindcast(rails, specs, first, first)
        assert (earlier.tables, earlier.quarantined) == ((), ())
        assert describe_nights.held_back(earlier, settings.quarantine).splitlines() == [
            "tables       all good on every night", "quarantine   no file",
        ]  # fmt: skip
        states = {state.table: state.state for state in rails.ledger.table_states(until=silent.date())}
        assert (states["raw.customer"], states[SPINE], states["raw.entry"]) == ("held", "blocked", "published")
        assert {state.state for state in rails.ledger.table_states()} == {"published"}
        for model in ("churn", "lapse"):
            assert result.models[model].stopped == ()
            assert result.models[model].ended_early == ()
        for as_of in (first, silent, last):
            for model in ("churn", "lapse"):
                rows = predictions(rails, model, as_of)
                assert len(rows)
                assert rows["request_id"].is_unique
                assert rows["apart"].isna().all()
        assert hindcast.complete(rails, specs[0], silent.date())
