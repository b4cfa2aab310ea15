"""Every page and its JSON, of a portfolio in every kind of trouble: they answer, without the lake, and nothing of the
data acts on them."""

import importlib.util
import re
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from html.parser import HTMLParser
from pathlib import Path
from types import ModuleType

import pytest
import sqlalchemy as sa
from fastapi.testclient import TestClient

from tests import troubled
from tests.troubled import EVIL, LONG, NIGHT
from tiltyard import ledger_tables, postgres
from tiltyard import rails as rails_module
from tiltyard.edge import airflow_settings, overview
from tiltyard.edge.source_page import SourcePage, SourceTable
from tiltyard.records import Embargo, Freshness, TableState
from tiltyard.settings import ROOT, Settings

PARTS = [f"/models/{name}?part={part}" for name in ("index", LONG) for part in overview.PARTS]
PAGES = [
    "/", "/models/index", *PARTS, "/models/churn?part=versions&compare=1&compare=3&compare=9",
    f"/models/churn?night={NIGHT - timedelta(days=3)}", "/models/churn?night=2020-01-01", "/models/churn?night=<b>",
    f"/models/churn?part=decisions&on={NIGHT}", "/models/churn?part=decisions&page=99999",
    "/models/churn?part=<script>", "/models/churn?part=nights&until=2019-01-01",
    "/sources/subscription", "/incidents/", "/incidents/raw.payment", "/costs",
    f"/nights/{NIGHT}", f"/nights/{NIGHT}?page=<x>", "/reports/",
]  # fmt: skip
DOCUMENTS = [
    "/api/v1/models", "/api/v1/models/index", "/api/v1/models/churn/decisions", "/api/v1/models/churn/decisions?page=2",
    "/api/v1/models/churn/versions", "/api/v1/models/churn/versions?compare=1,2", "/api/v1/sources",
    "/api/v1/sources/subscription", "/api/v1/incidents", "/api/v1/incidents/raw.payment", "/api/v1/costs",
    f"/api/v1/nights/{NIGHT}", "/api/v1/inbox",
]  # fmt: skip


@pytest.fixture(scope="module")
def settings(tmp_path_factory: pytest.TempPathFactory, postgres_url: str) -> Settings:
    """The troubled portfolio; of its lake there is not even a database."""
    settings = troubled.settings_of(tmp_path_factory.mktemp("troubled"), postgres_url)
    settings.reports.mkdir(parents=True)
    with rails_module.opened(settings, lake_at_once=False) as rails:
        troubled.fill(rails)
        assert not rails.lake.is_open
    return settings


@pytest.fixture(scope="module")
def view(settings: Settings) -> Iterator[ModuleType]:
    """The plugin as Airflow executes it, on these settings."""
    with pytest.MonkeyPatch.context() as patch:
        for name, value in airflow_settings.tiltyard_env(settings).items():
            patch.setenv(name, value)
        patch.setenv("TILTYARD_SOURCES", "subscription")
        source = importlib.util.spec_from_file_location("portfolio_view", ROOT / "plugins" / "portfolio_view.py")
        assert source
        assert source.loader
        module = importlib.util.module_from_spec(source)
        source.loader.exec_module(module)
        yield module


@pytest.fixture(scope="module")
def client(view: ModuleType) -> TestClient:
    app = view._app()
    app.dependency_overrides[app.router.dependencies[0].dependency] = lambda: None
    return TestClient(app)


class Page(HTMLParser):
    """The elements of a page, its ids, and where its links and forms lead."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.ids: list[str] = []
        self.links: list[str] = []
        self.handlers: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        for name, value in attrs:
            self.ids += [value or ""] if name == "id" else []
            self.links += [value or ""] if name in ("href", "src", "action") else []
            self.handlers += [name] if name.startswith("on") else []


@pytest.mark.parametrize("path", PAGES)
def test_every_page_answers_and_nothing_of_the_data_acts_on_it(client: TestClient, path: str) -> None:
    answer = client.get(path)
    page = Page(answer.text)
    assert answer.status_code == 200
    assert page.tags.count("script") == 1 and not page.handlers, "the page's own script, and no other"
    assert "x" not in page.links
    assert "49" not in re.findall(r"onerror=alert\(1\)&gt;(\d+)", answer.text), "no text is a template"
    assert len(page.ids) == len(set(page.ids))
    assert not [link for link in page.links if link.startswith(("javascript:", "http:", "https:", "//"))]
    assert len(answer.content) < 200_000
    assert "script-src 'sha256-" in answer.headers["content-security-policy"]


def test_the_texts_are_there_as_texts(client: TestClient) -> None:
    """A test of escaping that shows none of the texts would pass for ever."""
    shown = EVIL.replace('"', "&#34;").replace("<", "&lt;").replace(">", "&gt;").replace("'", "&#39;")
    for path in ("/models/churn", *PARTS[1:7], "/sources/subscription", "/incidents/raw.payment", f"/nights/{NIGHT}"):
        assert shown in client.get(path).text, path


@pytest.mark.parametrize("path", DOCUMENTS)
def test_every_document_answers(client: TestClient, path: str) -> None:
    answer = client.get(path)
    assert answer.status_code == 200 and answer.headers["content-type"] == "application/json"
    assert answer.json()


@pytest.mark.parametrize(
    "path",
    ["/models/nobody", "/sources/nobody", "/incidents/nobody", "/nights/2019-01-01", "/nights/today"],
)
def test_what_there_is_not_is_said(client: TestClient, path: str) -> None:
    for prefix in ("", "/api/v1"):
        answer = client.get(prefix + path)
        assert answer.status_code == 404 and path.rpartition("/")[2] in answer.text
    page = client.get(path + "<b>", headers={"accept": "text/html"})
    assert page.status_code == 404 and 'href="/tiltyard/"' in page.text and "&lt;b&gt;" in page.text


def test_no_page_opens_the_lake(client: TestClient, settings: Settings) -> None:
    """Whoever opens it, makes its database."""
    for path in (*PAGES, *DOCUMENTS, "/metrics"):
        client.get(path)
    engine = sa.create_engine(postgres.url(settings, "ledger"), poolclass=sa.NullPool)
    with engine.connect() as connection:
        names = connection.scalars(sa.text("select datname from pg_database")).all()
    assert f"{settings.database_prefix}ledger" in names
    assert f"{settings.database_prefix}lake" not in names


def test_the_script_of_the_pages_is_the_one_that_their_policy_lets_run(view: ModuleType, client: TestClient) -> None:
    answer = client.get("/")
    script = re.search(r"<script>(.*?)</script>", answer.text, re.DOTALL)
    assert script
    assert f"'sha256-{view._digest(script[1])}'" in answer.headers["content-security-policy"]


def test_links_between_the_pages_lead_somewhere(client: TestClient) -> None:
    followed: set[str] = set()
    waiting = ["/"]
    while waiting and len(followed) < 60:
        path = waiting.pop(0)
        if path in followed:
            continue
        followed.add(path)
        answer = client.get(path)
        assert answer.status_code == 200, path
        for link in Page(answer.text).links if "text/html" in answer.headers["content-type"] else ():
            if link.startswith("/tiltyard/") and "/reports/" not in link:
                waiting.append(link.removeprefix("/tiltyard").partition("#")[0])
    assert {f"/nights/{NIGHT}", "/sources/subscription", "/incidents/raw.payment", "/models/index"} <= followed


def test_a_night_of_a_model_is_shown_as_it_was(client: TestClient) -> None:
    then = client.get(f"/models/churn?night={NIGHT - timedelta(days=4)}").text
    assert "steady</span> on 2025-05-26" in then and "alarm</span> on 2025-05-30" in client.get("/models/churn").text
    document = client.get(f"/api/v1/models/churn?night={NIGHT - timedelta(days=4)}").json()
    assert (document["as_of"][:10], document["drift"]["verdict"]) == ("2025-05-26", "steady")
    assert client.get("/api/v1/models/churn?night=2020-01-01").status_code == 404
    gone = client.get("/models/churn?night=2020-01-01").text
    assert "Nothing was done for churn on the night of 2020-01-01: its newest night is that of 2025-05-30." in gone
    assert "&#39;&lt;b&gt;&#39; is no day; write it like 2025-05-30." in client.get("/models/churn?night=<b>").text


def test_who_was_in_service_is_answered_with_who_approved_it(client: TestClient) -> None:
    promoted = NIGHT - timedelta(days=15)
    page = client.get(f"/models/churn?part=decisions&on={promoted}").text
    assert f"On {promoted} version 1 answered: in service by the promotion of {promoted}, approved by ann" in page
    back = client.get(f"/models/churn?part=decisions&on={promoted + timedelta(days=2)}").text
    assert "version 1 answered: in service by the rollback of 2025-05-17" in back
    before = client.get("/models/churn?part=decisions&on=2025-01-01").text
    assert "On 2025-01-01 the safe default answered: no version had been promoted yet" in before


def test_versions_are_held_against_each_other_with_what_differs_marked(client: TestClient) -> None:
    page = client.get("/models/churn?part=versions&compare=1&compare=3&compare=9").text
    assert "There is no version 9 of churn." in page
    body = client.get("/api/v1/models/churn/versions?compare=1,3").json()
    lines = {line["name"]: line["cells"] for line in body["lines"]}
    assert lines["rows"] == ["1,000", "3,000"] and lines["depth"] == ["3", "3"]
    assert lines["feature_39"] == ["90.0% filled, now 50.0%", "not a feature"]
    assert lines["Brier"][0] == "0.0800 (0.0700 to 0.0900)" or "0.0900" in lines["Brier"][0]
    assert lines["millisecond test"] == ["pass, 80 of 90 predictions can acquit"] * 2


def test_a_night_without_any_model_and_a_portfolio_without_any(
    tmp_path: Path, postgres_url: str, view: ModuleType
) -> None:
    empty = troubled.settings_of(tmp_path, postgres_url)
    for folder in empty.models.iterdir():
        if folder.is_dir():
            for file in folder.iterdir():
                file.unlink()
            folder.rmdir()
    found = overview.glance(empty)
    assert found.head is None
    assert "No model's source is active" in view.board_page(found.board, {}, found.head)
    with rails_module.opened(empty, lake_at_once=False) as rails:
        troubled._source(rails, NIGHT)
    night = overview.night(empty, str(NIGHT))
    assert night is not None and not night.models
    assert "No model has a record of this night." in view.night_page(night)


def test_a_record_that_cannot_be_read_breaks_no_page(tmp_path: Path, postgres_url: str, view: ModuleType) -> None:
    broken = troubled.settings_of(tmp_path, postgres_url)
    with rails_module.opened(broken, lake_at_once=False) as rails:
        troubled.fill(rails)
        runs = ledger_tables.stage_run
        with rails.ledger.engine.begin() as connection:
            for stage in ("governor", "features"):
                connection.execute(runs.update().where(runs.c.stage == stage).values(summary={"night": "never"}))
            kept = ledger_tables.night_document
            connection.execute(kept.update().values(body={"metrics": 7, "freshness": 7}))
    night = overview.night(broken, str(NIGHT))
    assert night is not None and len(night.models) == 3 and "has not decided" in view.night_page(night)
    source = overview.source(broken, "subscription")
    assert source is not None and source.problem is not None and "cannot be read" in source.problem
    for part in overview.PARTS:
        entry = overview.entry(broken, "churn", overview.ModelQuery(part=part))
        assert entry is not None and view.model_page(entry)


def test_a_reason_that_is_the_same_for_many_tables_is_said_once_and_every_instant_is_to_the_minute(
    view: ModuleType,
) -> None:
    why = "raw.login.age_hours: 12408, at most 168. Such a silence is another world."
    held = TableState(night=NIGHT, table="raw.login", state="held", reason=why, cause="raw.login", good_night=NIGHT)
    tables = [row(held, newest=datetime(2025, 5, 29, 23, 50, 1, 4711, UTC))]
    tables += [
        row(replace(held, table=name, state="blocked", good_night=None, reason=f"it is made of raw.login: {why}"))
        for name in ("stg_subscription__login", "ftr_customer__activity")
    ]
    source = SourcePage(source="subscription", is_active=True, dag="subscription__features", schedule=None, due_by=None,
                        deadline=None, models=(), nights=(), tables=tuple(tables), quarantined=(), incidents=(),
                        problem=None)  # fmt: skip
    page = view._render("source.html", source=source, paused=())
    said = " ".join(re.sub(r"<[^>]+>", " ", page).split())
    assert said.count("Such a silence") == 1
    assert f"is another world; stands as of {NIGHT}" in said
    assert said.count("it is made of raw.login ; was never good") == 2
    assert "2025-05-29 23:50 UTC" in said
    assert "4711" not in said
    assert "in time" in said, "and not the word of the record"


def row(state: TableState, newest: datetime | None = None) -> SourceTable:
    latency = Embargo(table=state.table, kind="source", nights=9, rows=9, observed_rows=9, untimed=0,
                      promised_p99_s=None, claimed_p99_s=1, observed_p99_s=1, observed_max_s=1, missed_nights=0,
                      late_rows=0, verdict="kept")  # fmt: skip
    fresh = Freshness(newest=newest, age_hours=1) if newest else None
    return SourceTable(table=state.table, state=state, freshness=fresh, latency=latency, readers=())


def test_dags_that_are_paused_are_named(view: ModuleType) -> None:
    from airflow.models.dag import DagModel
    from sqlalchemy.orm import Session

    engine = sa.create_engine("sqlite://")
    DagModel.metadata.create_all(engine, tables=[DagModel.__table__])
    with Session(engine) as session:
        for name, is_paused, is_stale in (("governor", True, False), ("shadow", False, False), ("drift", True, True)):
            session.add(DagModel(dag_id=name, is_paused=is_paused, is_stale=is_stale, bundle_name="dags-folder"))
        session.flush()
        assert view.paused_dags(session) == {"governor"}
    assert view.paused() == frozenset(), "Airflow's database is away here"


def test_a_paused_dag_is_on_the_page_of_whom_it_concerns(settings: Settings, view: ModuleType) -> None:
    paused = {"governor", "churn__training", "somebody_elses"}
    found = overview.glance(settings, paused)
    assert found.paused == ("churn__training", "governor")
    assert "2 DAGs paused in Airflow" in view.board_page(found.board, {}, found.head, found.paused)
    entry = overview.entry(settings, "churn", paused=paused)
    assert entry is not None and entry.paused == ("churn__training",)
    assert "Paused in Airflow" in view.model_page(entry)


def test_three_hundred_models_are_a_light_page_and_years_of_nights_cost_no_queries(
    tmp_path: Path, postgres_url: str, view: ModuleType
) -> None:
    many = troubled.settings_of(tmp_path, postgres_url, 297)
    with rails_module.opened(many, lake_at_once=False) as rails:
        for spec in overview.portfolio(many):
            troubled._night(rails, spec.name, NIGHT)
        before = [len(overview.timeline.read(rails, spec).moments) for spec in overview.portfolio(many)[:1]]
        troubled._night(rails, "churn", NIGHT - 5 * troubled.DAY)
        troubled.years_of_nights(rails, "churn", 700)
        after = [len(overview.timeline.read(rails, spec).moments) for spec in overview.portfolio(many)[:1]]
        assert after[0] - before[0] <= 3, "what did not change is told once"
    found = overview.glance(many)
    assert len(found.board.models) == 300
    assert len(view.board_page(found.board, {}, found.head).encode()) < 200_000
    night = overview.night(many, str(NIGHT))
    assert night is not None and len(night.models) == 300
    assert len(view.night_page(night).encode()) < 200_000 and len(view.night_page(night, "3").encode()) < 200_000
    entry = overview.entry(many, "churn")
    assert entry is not None and len(view.model_page(entry).encode()) < 100_000
