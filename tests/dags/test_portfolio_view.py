"""The portfolio page: for those who are logged in, and nothing outside the reports folder."""

import html
import importlib.util
import json
import re
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import UTC, date, datetime
from types import ModuleType
from typing import Any

import pytest
import sqlalchemy as sa
from fastapi.routing import APIRoute
from fastapi.testclient import TestClient

from tiltyard import ledger_tables
from tiltyard.answered.report import FallbackReport, OnDefault, TaskReport
from tiltyard.edge import airflow_settings, overview, reports
from tiltyard.edge.board import Asked, Board, MeasuredLoss, ModelRow
from tiltyard.edge.document import ModelStatus, Realized
from tiltyard.edge.overview import Entry
from tiltyard.edge.reports import find_report
from tiltyard.errors import Unavailable
from tiltyard.judge.arrival import ArrivalReport, ArrivalShares
from tiltyard.rails import Rails
from tiltyard.records import DataIncident, EstimatedVersion, MeasuredVersion, OpenIncident, ShadowSummary
from tiltyard.settings import ROOT


@pytest.fixture
def view(rails: Rails, monkeypatch: pytest.MonkeyPatch) -> Iterator[ModuleType]:
    """The plugin as Airflow executes it, on this test's settings."""
    for name, value in airflow_settings.tiltyard_env(rails.settings).items():
        monkeypatch.setenv(name, value)
    source = importlib.util.spec_from_file_location("portfolio_view", ROOT / "plugins" / "portfolio_view.py")
    assert source
    assert source.loader
    module = importlib.util.module_from_spec(source)
    source.loader.exec_module(module)
    reports = rails.settings.reports
    (reports / "drift" / "sla_breach").mkdir(parents=True)
    (reports / "data_docs").mkdir()
    (reports / "drift" / "sla_breach" / "2016-04-02.html").write_text("<h1>drift</h1>")
    (reports / "data_docs" / "index.html").write_text("<h1>checks</h1>")
    (reports / ".hidden").write_text("no")
    (rails.settings.home / "secret").write_text("no")
    (reports / "way-out").symlink_to(rails.settings.home / "secret")
    yield module
    module._app.cache_clear()


@pytest.fixture
def logged_in(view: ModuleType) -> TestClient:
    app = view._app()
    app.dependency_overrides[app.router.dependencies[0].dependency] = lambda: None
    return TestClient(app)


def test_without_a_login_there_is_nothing_to_see(view: ModuleType) -> None:
    client = TestClient(view._app(), follow_redirects=False)
    for path in ("/", "/reports/", "/reports/drift/sla_breach/2016-04-02.html", "/reports/none"):
        assert client.get(path).status_code == 401
    for accept in ("text/html", "Text/HTML;q=0.9, */*"):
        answer = client.get("/", headers={"accept": accept})
        assert (answer.status_code, answer.headers["location"]) == (303, "/api/v2/auth/login?next=/")
    for accept in ("text/htmlx", "application/json, text/html;q=0"):
        assert client.get("/", headers={"accept": accept}).status_code == 401


def test_every_address_asks_who_it_is_and_none_changes_anything(view: ModuleType) -> None:
    app = view._app()
    client = TestClient(app, follow_redirects=False)
    routes = [route for route in app.routes if isinstance(route, APIRoute)]
    assert len(routes) > 15
    for route in routes:
        assert route.methods == {"GET"}, "what is only looked at cannot be forged into doing something"
        address = re.sub(r"\{[^}]*\}", "inbox", route.path)
        assert client.get(address).status_code == 401, address
        assert client.post(address).status_code == 405, address


def test_a_reason_without_end_does_not_fill_the_page(view: ModuleType) -> None:
    """As a library may give it, of forty columns; whole it is on the page of what it is about, and in the JSON."""
    asked = Asked(kind="quarantined", subject="payment/2025-05-29.csv", reason="a < b. " * 9_000, since=None, link="/x")
    page = view.board_page(Board(models=(), sources=(), inbox=(asked,) * 12, incidents=(), trainings=0), {})
    assert page.count("a &lt; b.") >= 12 * 50
    assert len(page) < 40_000


def test_reports_are_served_without_power(logged_in: TestClient) -> None:
    checks = logged_in.get("/reports/data_docs/")
    assert checks.text == "<h1>checks</h1>"
    assert "script-src 'none'" in checks.headers["content-security-policy"]
    drift = logged_in.get("/reports/drift/sla_breach/2016-04-02.html")
    assert drift.text == "<h1>drift</h1>"
    assert drift.headers["content-security-policy"].startswith("sandbox allow-scripts;")
    assert "2016-04-02.html" in logged_in.get("/reports/drift/sla_breach").text


def test_what_is_there_is_served_while_another_report_is_drawn(logged_in: TestClient) -> None:
    with reports._turn, ThreadPoolExecutor(1) as pool:
        answer = pool.submit(logged_in.get, "/reports/drift/sla_breach/2016-04-02.html")
        assert answer.result(timeout=30).text == "<h1>drift</h1>"


def test_a_folder_lists_the_pages_that_opening_draws(logged_in: TestClient, rails: Rails) -> None:
    folder = rails.settings.reports / "drift" / "sla_breach"
    (folder / "2016-04-03.json").write_text(json.dumps({"report": str(folder / "2016-04-03.html")}))
    (folder / "2016-04-04.json").write_text(json.dumps({"report": None}))
    listed = logged_in.get("/reports/drift/sla_breach").text
    assert "2016-04-03.html" in listed
    assert "2016-04-04.html" not in listed, "nothing was compared on that night"
    assert logged_in.get("/reports/drift/sla_breach/2016-04-05.html").status_code == 404


@pytest.mark.parametrize(
    "path", ["../secret", "..%2Fsecret", "drift/../../secret", "/etc/passwd", "%2Fetc%2Fpasswd", ".hidden", "way-out",
             "a%00b", "x" * 5000]
)  # fmt: skip
def test_nothing_outside_the_reports(logged_in: TestClient, view: ModuleType, rails: Rails, path: str) -> None:
    assert logged_in.get(f"/reports/{path}").status_code == 404
    assert find_report(rails.settings.reports, path) is None


@pytest.mark.parametrize(
    ("path", "status"),
    [("/models/sla_breach?night=0001-01-01", 200), ("/models/sla_breach?night=9999-12-31", 200),
     ("/models/sla_breach?part=drift&night=0001-01-02", 200), ("/models/sla_breach?part=decisions&on=0001-01-01", 200),
     ("/models/sla_breach?part=nights&until=9999-12-31", 200), ("/models/%00", 404), ("/sources/%00", 404),
     ("/incidents/%00", 404), ("/incidents/%ED%A0%80", 404), ("/nights/0001-01-01", 404), ("/nights/%00", 404),
     ("/api/v1/models/sla_breach?night=0001-01-01", 404), ("/api/v1/models/sla_breach/decisions?page=-1", 200),
     ("/api/v1/models/sla_breach/decisions?page=99999999999999999999", 200), ("/api/v1/incidents/%00", 404),
     ("/api/v1/models/sla_breach/versions?compare=99999999999999999999", 200), ("/api/v1/nights/9999-12-31", 404)],
)  # fmt: skip
def test_an_address_that_nobody_means_is_answered(logged_in: TestClient, path: str, status: int) -> None:
    assert logged_in.get(path).status_code == status


def test_a_page_that_cannot_be_drawn_says_why(logged_in: TestClient, monkeypatch: pytest.MonkeyPatch) -> None:
    """The database is away, or goes away while the page is read, or what it holds cannot be read."""
    client = TestClient(logged_in.app, raise_server_exceptions=False)
    for broken, status, says in (
        (Unavailable("PostgreSQL is away; start it."), 503, "PostgreSQL is away; start it."),
        (sa.exc.OperationalError("select 1", {}, OSError("<b>secret</b>")), 503, "has gone away; see that PostgreSQL"),
        (KeyError("secret"), 500, "cannot be read (KeyError); the log"),
    ):

        def read(*_: object, broken: Exception = broken) -> None:
            raise broken

        monkeypatch.setattr(overview.boards, "read", read)
        for path, accept in (("/", "text/html"), ("/api/v1/models", "application/json"), ("/metrics", "*/*")):
            answer = client.get(path, headers={"accept": accept})
            assert answer.status_code == status
            assert says in html.unescape(answer.text) and "secret" not in answer.text
            assert ('href="/tiltyard/"' in answer.text) == (accept == "text/html"), "with a way back"


def test_a_model_without_a_night_says_what_to_do(logged_in: TestClient) -> None:
    page = logged_in.get("/").text
    assert "sla_breach" in page
    assert "no night yet; tiltyard hindcast --model sla_breach plays past ones" in page


def shown(view: ModuleType, model: str, **changes: Any) -> str:
    """The page of one model whose document is plain but for `changes`."""
    plain = ModelStatus(
        model=model, owner="service-desk", tier=2, measure="brier", as_of=datetime(2016, 5, 1, tzinfo=UTC),
        champion=1, previous=None, challengers=(), first=1, shadow_nights={}, served_by={},
        fallback=FallbackReport(model=model, night=None, audit_after="3d"), popular=(),
        matured=0, immature=812, early=3, outside=None, metrics={}, gate=None, promotions=(), watch=None, rollbacks=(),
        retrains=(), online={}, drift=None, governor=None, freshness={}, latency=(), incidents=(), label_arrival=None,
        estimated={}, checks=None, training=None, replay=None, realized=None, events=0,
    )  # fmt: skip
    entry = Entry(
        name=model, owner="service-desk", tier=2, source="incident", dags={"explanation": f"{model}__explanation"},
        status=replace(plain, **changes),
    )  # fmt: skip
    page: str = view.model_page(entry)
    return page


def test_label_arrival_and_estimates_are_shown_as_what_they_are(view: ModuleType) -> None:
    stopped = DataIncident(table="lbl_sla_breach", column="", what="labels_stopped", reason="", since=date(2016, 4, 30))
    labels = ArrivalReport(
        half_after=6,
        most_after=None,
        waiting_rows=812,
        waiting_cohorts=9,
        last_arrived=date(2016, 4, 29),
        curve=ArrivalShares(labels=(), positives=(), negatives=()),
        incidents=(stopped,),
    )
    estimate = EstimatedVersion(
        role="champion", rows=812, is_calibrated=False, calibration_rows=0, brier=0.1234, brier_low=0.11,
        brier_high=0.13, log_loss=None, auc=None, positive_rate=None,
    )  # fmt: skip
    page = shown(view, "sla_breach", label_arrival=labels, estimated={"1": estimate})
    assert "half after 6 nights, 95 % after – " in page
    assert "labels stopped since 2016-04-30" in page
    assert "Estimated, where truth has not come" in page
    assert "<em>0.1234</em>" in page
    assert "nothing, raw scores" in page


def test_incidents_are_those_of_the_list_with_the_night_that_closes_them(view: ModuleType) -> None:
    since = date(2016, 4, 30)
    incident = OpenIncident("raw.login", "broken", ("sla_breach",), ("device",), "device went null", since, since)
    link = 'href="/tiltyard/incidents/raw.login">raw.login</a> broken since 2016-04-30'
    assert f'<a class="bad" {link} <' in shown(view, "sla_breach", open_incidents=(incident,))
    closing = replace(incident, closing="mended, closes with the night of 2016-05-01")
    page = shown(view, "sla_breach", open_incidents=(closing,))
    assert f'<a class="wait" {link}, mended, closes with the night of' in page
    assert "none open" in shown(view, "sla_breach")


def test_a_number_is_shown_by_its_absolute_error_and_a_yes_or_no_by_its_brier_score(view: ModuleType) -> None:
    error = {"absolute_error": 1.2345, "absolute_error_low": 1.1, "absolute_error_high": None}
    brier = {"brier": 0.1234, "brier_low": 0.11, "brier_high": 0.13, "log_loss": 0.4567, "auc": 0.8}
    pages = []
    for measure, figures in (("absolute_error", error), ("brier", brier)):
        realized = Realized(
            rows=90, promoted_line=1.5, never_retrained=1.6, safe_default=2.0, metric=measure,
            first=date(2016, 4, 1), last=date(2016, 4, 30), since_first_promotion=None,
        )  # fmt: skip
        metrics = {"1": MeasuredVersion(role="champion", matured=90, **figures)}
        pages.append(shown(view, "logins", measure=measure, metrics=metrics, realized=realized, matured=90))
    number, yes_or_no = pages
    assert '1.2345 <span class="soft">(1.1000 to –)</span>' in number
    assert "Realized absolute error on the same 90 rows" in number
    assert not [word for word in ("Brier", "AUC", "log loss") if word in number]
    assert '0.1234 <span class="soft">(0.1100 to 0.1300)</span>' in yes_or_no
    assert "Realized Brier score on the same 90 rows" in yes_or_no
    assert "0.4567" in yes_or_no


def test_a_safe_default_that_lasts_is_shown_with_what_was_said_of_it(view: ModuleType) -> None:
    opened = TaskReport(opened=date(2016, 4, 3), since=date(2016, 4, 1), state="open")
    answered = replace(
        opened, state="answered", answered_by="bob", cause="<no labels>", owner="ann", until=date(2016, 5, 2)
    )
    pages = []
    for task in (opened, answered):
        report = FallbackReport(
            model="sla_breach",
            night=date(2016, 4, 3),
            on_default=OnDefault(since=date(2016, 4, 1), nights=3, share=1.0),
            audit_after="3d",
            tasks=(task,),
        )
        pages.append(shown(view, "sla_breach", champion=None, fallback=report))
    asked, said = pages
    assert '<a href="/dags/sla_breach__explanation" target="_top">a person is asked why</a>' in asked
    assert "bob: &lt;no labels&gt; (owner ann, until 2016-05-02)" in said


def test_a_record_that_cannot_be_read_is_one_models_and_hides_no_other(
    rails: Rails, caplog: pytest.LogCaptureFixture
) -> None:
    night = date(2016, 4, 2)
    for model in ("sla_breach", "churn"):
        rails.ledger.record_stage(model, night, "done", ShadowSummary(night=night))
    with rails.ledger.engine.begin() as connection:
        runs = ledger_tables.stage_run
        connection.execute(runs.update().where(runs.c.model == "sla_breach").values(summary={"rows": "a secret"}))
    settings = rails.settings.model_copy(update={"sources": ("incident", "subscription")})
    entry = overview.entry(settings, "sla_breach")
    assert entry is not None and entry.problem is not None and entry.row is not None
    assert entry.problem == "The status of sla_breach cannot be read: ValidationError; the log says where."
    assert "a secret" in caplog.text, "what the record holds is in the log alone"
    other = overview.entry(settings, "churn")
    assert other is not None and other.problem is None and other.status is not None
    assert {row.model for row in overview.board(settings).models} == {"sla_breach", "churn"}


def glance(view: ModuleType, *rows: ModelRow, inbox: tuple[Asked, ...] = (), **asked: str) -> str:
    """The page of these models."""
    found = Board(models=rows, sources=(), inbox=inbox, incidents=(), trainings=0)
    page: str = view.board_page(found, asked)
    return page


def test_nothing_of_the_data_acts_on_the_page(view: ModuleType) -> None:
    """Names, owners and reasons are whatever people and data bring."""
    evil = '"><script>alert(1)</script>'
    rows = [
        ModelRow(
            model=name, owner=evil, tier=1, source=evil, state="held", reason=evil, needs=evil, measure="brier",
            gate="hold", gate_reason=evil, drift=evil,
        )
        for name in ("index", "a" * 200)
    ]  # fmt: skip
    item = Asked(kind="table", subject=evil, reason=evil, since=None, link=f"/dags/{evil}")
    page = glance(view, *rows, inbox=(item,), q=evil, owner=evil)
    assert "<script>alert" not in page and "&lt;script&gt;alert(1)" in page
    assert "2 models" in glance(view, *rows) and "/tiltyard/models/index" in glance(view, *rows)


def test_the_cell_of_the_gate_names_the_version_that_the_verdict_is_about(view: ModuleType) -> None:
    row = ModelRow(model="churn", owner="ann", tier=1, source="s", state="approve", reason="why", measure="brier",
                   challengers=(1, 2, 3), gate="promote", judged=2)  # fmt: skip
    page = glance(view, row)
    assert '<span class="promote">promote</span> v2</td>' in page


def test_a_hundred_models_are_four_pages_of_a_light_document(view: ModuleType) -> None:
    losses = tuple(
        MeasuredLoss(night=date(2025, 5, day + 1), champion=0.1 + day / 1000, safe_default=0.2) for day in range(30)
    )
    ends = tuple((date(2025, 5, day + 1), "done") for day in range(7))
    rows = [
        ModelRow(model=f"churn_{place:03}", owner="risk", tier=2, source="shop", state="hold", reason="waits " * 60,
                 measure="brier", losses=losses, ends=ends, champion=3)
        for place in range(100)
    ]  # fmt: skip
    page = glance(view, *rows)
    assert len(page.encode()) < 100_000
    assert "100 models found, 25 a page" in page and page.count('<svg class="spark"') == 25
    assert "churn_099" in glance(view, *rows, page="4")
    assert "Nothing waits for a person" in page
    assert "No model is like that" in glance(view, *rows, q="nobody")


def test_what_stands_on_the_page_is_had_as_json(logged_in: TestClient) -> None:
    models = logged_in.get("/api/v1/models").json()
    assert {row["model"]: row["state"] for row in models}["sla_breach"] == "new"
    assert logged_in.get("/api/v1/models?state=held").json() == []
    assert logged_in.get("/api/v1/models/sla_breach").json()["model"] == "sla_breach"
    for part in ("inbox", "sources", "incidents"):
        assert isinstance(logged_in.get(f"/api/v1/{part}").json(), list)
    metrics = logged_in.get("/metrics")
    assert metrics.headers["content-type"].startswith("text/plain; version=0.0.4")
    assert 'tiltyard_models{state="new",tier="2"} 1.0' in metrics.text
    assert logged_in.get("/api/v1/secrets").status_code == 422
    assert logged_in.get("/api/v1/models/nobody").status_code == 404
    assert logged_in.get("/models/nobody").status_code == 404
    assert "no night yet" in logged_in.get("/models/sla_breach").text


def test_a_card_is_a_page_and_nothing_in_it_runs(view: ModuleType) -> None:
    card = "# Churn\n\n| a | b |\n|---|---|\n| 1 | 2 |\n\n<script>x()</script> [run](javascript:x()) [read](https://a.example)"
    page = view._environment().from_string("{{ card | markdown }}").render(card=card)
    assert "<h1>Churn</h1>" in page and "<td>2</td>" in page and '<a href="https://a.example">' in page
    assert "<script" not in page and 'href="javascript' not in page and "&lt;script&gt;" in page
