"""Airflow itself on free ports: two nights through the chain, the same rows as a hindcast, pages behind the login; and
whatever is started can be started again: up, up, down, up."""

import json
import shutil
import socket
import time
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass, replace
from datetime import timedelta
from pathlib import Path
from typing import Any, Literal
from urllib.parse import quote

import httpx
import pandas as pd
import pytest
import sqlalchemy as sa
import yaml

from tests import chromium, homes
from tests.conftest import business_home
from tiltyard import clock, postgres
from tiltyard import rails as rails_module
from tiltyard.answered import predictions
from tiltyard.edge import board, open_forms, processes, quickstart, services, starting
from tiltyard.edge.airflow_api import Airflow, Run
from tiltyard.edge.airflow_settings import SECOND_USER, address
from tiltyard.errors import CheckFailed, Unavailable
from tiltyard.portfolio_rules import load_portfolio
from tiltyard.prepare import releasing
from tiltyard.rails import Rails
from tiltyard.records import ShadowSummary
from tiltyard.rewind import hindcast
from tiltyard.settings import GPU_POOL, TRAINING_POOL, Settings
from tiltyard.spec import Spec, find, portfolio
from tiltyard.stages import IN_CHUNKS

FIRST = clock.parse_as_of("2025-02-03")
NIGHT = FIRST + timedelta(days=1)
AUDIT = ["snapshot", "scored_at", "note"]


@dataclass(frozen=True)
class Night:
    settings: Settings
    spec: Spec
    rails: Rails
    twin: Rails
    airflow: Airflow
    ups: tuple[services.Started, services.Started]
    """What the first start started, and the last one, when the nights were through."""
    crm: dict[str, Any]
    """A database of somebody else's, as Airflow's connection `crm` names it: there the answers are delivered."""


def live_nights(spec: Spec) -> list[quickstart.LiveNight]:
    return [quickstart.LiveNight(as_of, (spec.source,), (spec,)) for as_of in (FIRST, NIGHT)]


@pytest.fixture(scope="module")
def night(
    tmp_path_factory: pytest.TempPathFactory, postgres_url: str, eager_models: Path, deliveries: Path
) -> Iterator[Night]:
    """Two homes and two nights: in Airflow here, in a hindcast in the twin. The first night trains the first model."""
    spec = find(eager_models, "churn")
    folder = tmp_path_factory.mktemp("a home with spaces")
    models = shutil.copytree(eager_models, folder / "models")
    settings = business_home(
        folder / "one", postgres_url, models, deliveries, api_port=free_port(), schedule="none", chunk_models=1
    )
    twin_settings = business_home(folder / "two", postgres_url, eager_models, deliveries)
    with rails_module.opened(settings) as rails, rails_module.opened(twin_settings) as twin:
        hindcast.hindcast(twin, [spec], FIRST, NIGHT)
        deliver(models / "churn" / "spec.yaml")
        crm = database(settings)
        try:
            with pytest.MonkeyPatch.context() as patch:
                to_file = {"type": "file", "log_file_path": str(folder / "lineage.jsonl"), "append": True}
                patch.setenv("AIRFLOW__OPENLINEAGE__TRANSPORT", json.dumps(to_file))
                first = services.start(settings)
            with Airflow(settings) as airflow:
                airflow.call("POST", "/api/v2/connections", json={"connection_id": "crm", **crm})
                _, second = (quickstart.nights_in_airflow(rails, live_nights(spec)) for _ in range(2))
                yield Night(settings, spec, rails, twin, airflow, (first, second), crm)
        finally:
            services.stop(settings)


def deliver(path: Path) -> None:
    """Let a model deliver into a table of the database that Airflow's connection `crm` names."""
    content = yaml.safe_load(path.read_text())
    path.write_text(yaml.safe_dump(content | {"deliver": {"table": "churn_scores", "connection": "crm"}}))


def database(settings: Settings) -> dict[str, Any]:
    """A database of somebody else's, as Airflow's form of a connection says it."""
    server = postgres.server_url(settings)
    name = f"{settings.database_prefix}crm"
    with homes.cursor(settings, "postgres") as cursor:
        cursor.execute(f"create database {name}")
    host = str(server.query.get("host", server.host))
    return {"conn_type": "postgres", "host": host, "login": server.username, "password": "p@ss w/ord", "schema": name}


def test_every_run_of_the_chain_is_green(night: Night) -> None:
    for dag_id in ("subscription__features", *IN_CHUNKS, "governor"):
        runs = night.airflow.runs(dag_id)
        assert len(runs) == 2, dag_id
        for run in runs:
            night.airflow.wait(dag_id, run.dag_run_id, timeout_s=120)


def test_openlineage_hears_of_every_stage_which_tables_it_has_read_and_written(night: Night) -> None:
    lines = (night.settings.models.parent / "lineage.jsonl").read_text().splitlines()
    ended = [event for event in map(json.loads, lines) if event["eventType"] == "COMPLETE"]
    made: dict[str, set[str]] = {}
    for event in ended:
        assert event["job"]["namespace"] == "tiltyard"
        made.setdefault(event["job"]["name"], set()).update(entry["name"] for entry in event.get("outputs", ()))
    assert made["subscription__features.transform"] == set(night.spec.tables)
    assert made["shadow.plan"] == {"ops.prediction", "ops.evaluation"}
    assert made["churn__training.train"] == {"models/churn"}
    assert {"drift", "promotion", "governor"} <= made.keys(), "and when the runs of their DAGs ended"


def test_what_fits_into_one_chunk_takes_one_task(night: Night) -> None:
    for dag_id in IN_CHUNKS:
        for run in night.airflow.runs(dag_id):
            states = {task.task_id: task.state for task in night.airflow.tasks(dag_id, run.dag_run_id)}
            assert states.pop("plan") == "success"
            assert set(states.values()) == {"skipped"}, dag_id


def test_the_governor_starts_the_training_that_it_granted_and_no_other(night: Night) -> None:
    """Through its alias: the training DAG is scheduled on the model's own asset, which another DAG announces."""
    [run] = night.airflow.runs("churn__training")
    assert run.run_type == "asset_triggered"
    night.airflow.wait("churn__training", run.dag_run_id, timeout_s=120)
    assert [retrain.night for retrain in night.rails.ledger.retrains("churn")] == [FIRST.date()]
    [version] = night.rails.ledger.versions("churn")
    assert version.night == FIRST.date()
    assert version.inputs == night.twin.ledger.versions("churn")[0].inputs


def test_so_many_train_at_once_as_the_portfolio_says(night: Night) -> None:
    trainings = load_portfolio(night.settings.models).trainings
    assert night.airflow.pool(TRAINING_POOL).slots == trainings.at_once
    assert night.airflow.pool(GPU_POOL).slots == trainings.on_gpu


def test_the_stages_were_started_by_assets(night: Night) -> None:
    for dag_id in (*IN_CHUNKS, "governor"):
        assert {run.run_type for run in night.airflow.runs(dag_id)} == {"asset_triggered"}
    names = {asset["name"] for asset in night.airflow.get("/api/v2/assets", limit=100)["assets"]}
    assert {
        "features/ftr_customer__profile",
        "portfolio/evaluation",
        "portfolio/finding",
        "churn/drift",
    } <= names


@pytest.mark.parametrize("table", ["ops.prediction", "ops.evaluation", "ops.drift"])
def test_airflow_writes_the_rows_that_a_hindcast_writes(night: Night, table: str) -> None:
    pd.testing.assert_frame_equal(rows(night.rails, table), rows(night.twin, table))


def test_the_answers_of_both_nights_are_in_the_table_of_airflows_connection(night: Night) -> None:
    with homes.cursor(night.settings, night.crm["schema"]) as cursor:
        cursor.execute("select night, entity_id, score, tier from churn_scores order by night, entity_id")
        there = cursor.fetchall()
    expected = [
        (row["night"], row["entity_id"], row["score"], row["tier"])
        for as_of in (FIRST, NIGHT)
        for row in predictions.of_night(night.twin, "churn", as_of.date()).to_pylist()
    ]
    assert there == expected != []


def test_the_gate_said_the_same(night: Night) -> None:
    here, there = (
        [
            (decision.night, decision.challenger, decision.champion, decision.verdict, decision.reasons)
            for decision in rails.ledger.decisions("churn")
        ]
        for rails in (night.rails, night.twin)
    )
    assert here == there != []


def test_a_safe_default_that_lasts_is_asked_about_until_a_person_answers(night: Night) -> None:
    """Nothing was promoted yet. The first answer is none and is told so in the next question, the second one counts:
    that of the second login."""
    questions = "/api/v2/dags/churn__explanation/dagRuns/~/hitlDetails"

    def next_question(before: str = "") -> dict[str, Any]:
        deadline = time.monotonic() + 120
        while time.monotonic() < deadline:
            for question in night.airflow.get(questions)["hitl_details"]:
                task = question["task_instance"]
                if task["state"] == "awaiting_input" and task["id"] != before:
                    return question
            time.sleep(0.5)
        raise AssertionError("nobody was asked")

    def answer(airflow: Airflow, question: dict[str, Any], **given: str) -> None:
        run = f"/api/v2/dags/churn__explanation/dagRuns/{question['task_instance']['dag_run_id']}"
        body = {"chosen_options": question["options"], "params_input": given}
        airflow.call("PATCH", f"{run}/taskInstances/explain/-1/hitlDetails", json=body)

    first = next_question()
    assert first["defaults"] is None
    assert "never had a champion" in first["body"]
    answer(night.airflow, first, cause=" ", owner="ann", until="2025-02-20")
    second = next_question(before=first["task_instance"]["id"])
    tasks = night.airflow.tasks("churn__explanation", first["task_instance"]["dag_run_id"])
    assert {task.task_id: task.state for task in tasks} == {"explain": "success", "kept": "failed"}, "it is seen"
    assert second["body"].startswith("**Your last answer does not count.** The cause is empty")
    if chromium.is_here():
        run = second["task_instance"]["dag_run_id"]
        link = f"/dags/churn__explanation/runs/{quote(run, safe='')}/tasks/explain/required_actions"
        require_in_sight(night.airflow, link, "Your last answer does not count", "Explain")
    with Airflow(night.settings, user=SECOND_USER) as other:
        answer(other, second, cause="its labels take three weeks", owner="ann", until="2025-02-20")
    night.airflow.wait("churn__explanation", second["task_instance"]["dag_run_id"], timeout_s=120)
    [task] = night.rails.ledger.default_tasks("churn")
    assert task.explanation
    assert (task.opened, task.explanation.answered_by, task.explanation.source) == (
        FIRST.date(),
        SECOND_USER,
        "airflow",
    )


def asked_for(night: Night, form: dict[str, str], until: float) -> str:
    """The run of `operate` that a form has started. The form knows a new model once its file was parsed again."""
    while True:
        night.airflow.parse_again()
        try:
            return night.airflow.trigger("operate", form)
        except Unavailable:
            assert time.monotonic() < until, "the form does not know the model"
            time.sleep(1)


def test_what_is_done_by_hand_takes_the_name_of_whoever_is_logged_in_and_at_tier_1_another_one(night: Night) -> None:
    """What `admin` has asked for it cannot confirm; the second login can."""

    def form(action: str, model: str) -> dict[str, str]:
        return {"model": model, "action": action, "reason": "an audit"}

    for action, is_frozen in (("freeze", True), ("unfreeze", False)):
        run = night.airflow.trigger("operate", form(action, "churn"))
        night.airflow.wait("operate", run, timeout_s=120)
        assert bool(night.rails.ledger.operations.standing("churn").frozen) is is_frozen
    assert {one.requested_by for one in night.rails.ledger.operations.of(["churn"])["churn"]} == {"admin"}

    models = night.settings.models
    shutil.copytree(models / "churn", models / "high")
    path = models / "high" / "spec.yaml"
    path.write_text(yaml.safe_dump(yaml.safe_load(path.read_text()) | {"tier": 1}))
    releasing.accept(night.rails, clock.now(), by="tests")
    night.rails.ledger.record_stage("high", FIRST.date(), "done", ShadowSummary())
    try:
        night.airflow.wait_for_dags(["high__promotion"])
        deadline = time.monotonic() + 120
        run = asked_for(night, form("retire", "high"), deadline)
        while not (waiting := [one for one in open_forms.waiting(night.settings) if one.dag_id == "operate"]):
            assert time.monotonic() < deadline, "nobody was asked"
            time.sleep(0.5)
        assert waiting[0].subject.endswith(": retire high?")
        found = board.read(night.rails, portfolio(night.settings), clock.now())
        assert waiting[0].link in {item.link for item in found.inbox if item.kind == "operate"}
        if chromium.is_here():
            approve_in_a_browser(night.airflow, waiting[0].link, comment="looks fine")
        else:
            answer = {"chosen_options": ["Approve"], "params_input": {"comment": "looks fine"}}
            task = f"/api/v2/dags/operate/dagRuns/{run}/taskInstances/second_person/-1/hitlDetails"
            night.airflow.call("PATCH", task, json=answer)
        with pytest.raises(CheckFailed):
            night.airflow.wait("operate", run, timeout_s=120)
        tasks = {task.task_id: task.state for task in night.airflow.tasks("operate", run)}
        assert tasks == {"ask": "success", "second_person": "success", "confirm": "failed"}
        [asked] = night.rails.ledger.operations.of(["high"])["high"]
        assert asked.outcome is None
        with Airflow(night.settings, user=SECOND_USER) as other:
            run = other.trigger("operate", form("confirm", "high") | {"version": str(asked.id)})
            other.wait("operate", run, timeout_s=120)
        [asked] = night.rails.ledger.operations.of(["high"])["high"]
        assert (asked.outcome, asked.requested_by, asked.decided_by) == ("done", "admin", SECOND_USER)
    finally:
        shutil.rmtree(models / "high")
        releasing.accept(night.rails, clock.now(), by="tests")


def approve_in_a_browser(airflow: Airflow, link: str, comment: str) -> None:
    """Answer a form as a person does, with the question and the buttons in sight of a laptop's screen."""
    with chromium.opened() as browser:
        page = browser.new_page(
            viewport={"width": 1440, "height": 900}, extra_http_headers=airflow.authorization(),
            timezone_id="America/Los_Angeles",
        )  # fmt: skip
        page.set_default_timeout(60_000)
        page.goto(airflow.address + link)
        page.locator("textarea").fill(comment)
        buttons = {name: page.get_by_role("button", name=name, exact=True) for name in ("Approve", "Reject")}
        told = f"These may answer: {SECOND_USER}. Not admin, who asked for it."
        for seen in (page.get_by_text("How the model stands"), page.get_by_text(told), *buttons.values()):
            box = seen.bounding_box()
            assert box and box["y"] + box["height"] <= 900, "nobody has to scroll"
        colours = {button.evaluate("own => getComputedStyle(own).backgroundColor") for button in buttons.values()}
        assert len(colours) == 1, "the form presses for neither"
        buttons["Approve"].click()
        page.get_by_text("Awaiting Input").first.wait_for(state="hidden")


def require_in_sight(airflow: Airflow, link: str, text: str, button: str) -> None:
    """The text of a form and its button are seen on a laptop's screen without scrolling."""
    with chromium.opened() as browser:
        page = browser.new_page(viewport={"width": 1440, "height": 900}, extra_http_headers=airflow.authorization())
        page.set_default_timeout(60_000)
        page.goto(airflow.address + link)
        for seen in (page.get_by_text(text), page.get_by_role("button", name=button, exact=True)):
            seen.wait_for()
            box = seen.bounding_box()
            assert box and box["y"] + box["height"] <= 900, "nobody has to scroll"


def test_the_pages_lie_in_airflows_own_frame_and_lead_out_of_it(night: Night) -> None:
    with chromium.opened() as browser:
        for width in (1280, 400):
            page = browser.new_page(
                viewport={"width": width, "height": 900}, extra_http_headers=night.airflow.authorization()
            )
            page.set_default_timeout(60_000)
            page.goto(night.airflow.address)
            page.get_by_text("Tiltyard", exact=True).first.click()
            inside = page.frame_locator("iframe")
            inside.locator("table.models").get_by_role("link", name="churn", exact=True).click()
            inside.get_by_role("link", name="Decisions").wait_for()
            cut_off = "document.documentElement.scrollWidth > document.documentElement.clientWidth"
            assert not page.frames[-1].evaluate(cut_off), width
            inside.get_by_role("link", name="drift", exact=True).first.click()
            page.wait_for_url("**/dags/drift*")


REPORTS = (
    f"checks/subscription/{NIGHT.date()}.html", f"drift/churn/{NIGHT.date()}.html",
    f"training_frame/churn/{FIRST.date()}.html",
)  # fmt: skip
EVIDENTLYS = {"aria-required-parent", "button-name"}
"""What axe-core finds in the parts of a drift report that Evidently draws."""


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_whoever_opens_a_report_can_read_it(night: Night, scheme: Literal["light", "dark"]) -> None:
    """Narrow in the dark, wide in the light."""
    width, airflow = (400 if scheme == "dark" else 1280), night.airflow
    with chromium.opened() as browser:
        context = browser.new_context(
            viewport={"width": width, "height": 900}, color_scheme=scheme, extra_http_headers=airflow.authorization()
        )
        for report in REPORTS:
            seen = chromium.visit(context, f"{airflow.address}/tiltyard/reports/{report}")
            found = [line for line in chromium.serious(seen.page) if line.split(":")[0] not in EVIDENTLYS]
            assert (found, seen.complaints) == ([], []), report
            assert seen.page.evaluate("document.documentElement.scrollWidth") <= width, report
            assert seen.page.get_by_role("link", name="Portfolio").is_visible(), report


def test_the_portfolio_page_is_behind_the_login(night: Night) -> None:
    url = address(night.settings) + "/tiltyard/"
    assert httpx.get(url, trust_env=False).status_code in (302, 303, 307, 401)
    page = night.airflow.page("/tiltyard/")
    assert "churn" in page and "paused in Airflow" not in page


def test_the_pages_of_a_night_are_told_by_what_its_stages_kept(night: Night) -> None:
    """A DAG that somebody pauses is named where it matters."""
    page = night.airflow.page(f"/tiltyard/nights/{NIGHT.date()}")
    assert f"/tiltyard/models/churn?night={NIGHT.date()}" in page
    source = night.airflow.page("/tiltyard/sources/subscription")
    assert "landed" in source and "raw.payment" in source
    night.airflow.call("PATCH", "/api/v2/dags/churn__training", json={"is_paused": True})
    try:
        model = night.airflow.page("/tiltyard/models/churn?part=data")
        assert "Paused in Airflow" in model and "filled at training" in model
        assert "1 DAG paused in Airflow" in night.airflow.page("/tiltyard/")
    finally:
        night.airflow.call("PATCH", "/api/v2/dags/churn__training", json={"is_paused": False})


def test_nothing_listens_beyond_loopback(night: Night) -> None:
    import psutil

    marked = {process.pid for process in processes.marked(night.settings)}
    listening = [
        connection.laddr.ip
        for connection in psutil.net_connections("inet")
        if connection.status == psutil.CONN_LISTEN and connection.pid in marked
    ]
    assert listening
    assert set(listening) <= {"127.0.0.1", "::1"}


def test_a_second_up_starts_nothing_and_runs_no_night_again(night: Night) -> None:
    first, second = night.ups
    assert first.started == tuple(processes.COMPONENTS)
    assert second == replace(first, started=())


def test_one_model_that_fails_is_red_under_its_name_and_the_others_go_on(night: Night) -> None:
    """Two models, of which one has a champion that there is not: each is a chunk."""
    models, as_of = night.settings.models, NIGHT + timedelta(days=1)
    shutil.copytree(models / "churn", models / "broken")
    releasing.accept(night.rails, clock.now(), by="tests")
    specs = portfolio(night.settings)
    with night.rails.ledger.engine.begin() as connection:
        connection.execute(
            sa.text(
                "insert into promotion (model, version, night, requested_by, approval, recorded_at)"
                " values ('broken', 1, '2025-01-01', 'tests', '[]', now())"
            )
        )
    try:
        night.airflow.wait_for_dags(["broken__training"])
        with pytest.raises(CheckFailed, match="failed in drift"):
            quickstart.night_in_airflow(night.rails, night.airflow, specs, as_of)
        deadline = time.monotonic() + 300
        while {stage for name, stage in quickstart.unfinished(night.rails, specs, as_of.date()) if name == "churn"}:
            assert time.monotonic() < deadline, "the other model waits"
            time.sleep(0.5)
        ended_runs(night)
    finally:
        shutil.rmtree(models / "broken")
        with night.rails.ledger.engine.begin() as connection:
            for statement in (  # past the triggers: nothing orders that a promotion goes
                "alter table promotion disable trigger user",
                "delete from promotion where model = 'broken'",
                "alter table promotion enable always trigger tiltyard_chain",
                "alter table promotion enable always trigger tiltyard_truncate",
            ):
                connection.execute(sa.text(statement))
        night.rails.ledger.accept_as_found("tests", "the broken model was made for a test")
    assert quickstart.unfinished(night.rails, specs, as_of.date()) == {
        ("broken", "drift"), ("broken", "governor"),
    }  # fmt: skip
    runs = {run.state: run for run in night.airflow.runs("drift")[:1]}
    tasks = night.airflow.tasks("drift", runs["failed"].dag_run_id)
    states = {(task.task_id, task.rendered_map_index): task.state for task in tasks}
    assert states == {
        ("plan", None): "success",
        ("chunk", "broken"): "success",
        ("chunk", "churn"): "success",
        ("left", None): "success",
        ("alone", "broken"): "failed",
        ("settle", None): "success",
        ("all_done", None): "upstream_failed",
    }


def test_what_was_stopped_starts_again_with_all_that_it_had(night: Night) -> None:
    """Last in this file: whoever comes after it meets an Airflow that was down."""
    before = ended_runs(night)
    assert set(services.stop(night.settings).stopped) == set(processes.COMPONENTS)
    assert set(services.status(night.settings).pids.values()) == {None}
    assert services.stop(night.settings).stopped == ()

    again = starting.start(night.settings, [FIRST, NIGHT], services.silent, by="tests")
    assert again.started == night.ups[0].started
    assert (again.airflow.url, again.resting, again.refused) == (night.ups[0].url, (), ())
    assert [(source.name, source.schedule, source.models) for source in again.sources] == [
        ("subscription", None, ("churn",))
    ]
    assert services.status(night.settings).healthy
    assert {dag_id: night.airflow.runs(dag_id) for dag_id in before} == before
    assert night.airflow.pool(TRAINING_POOL).slots == load_portfolio(night.settings.models).trainings.at_once


def ended_runs(night: Night) -> dict[str, list[Run]]:
    """Every run there is, by DAG, once all have ended: a stage that ends may have started the next one."""
    deadline = time.monotonic() + 300
    runs: dict[str, list[Run]] = {}
    while True:
        before, runs = (
            runs,
            {name: night.airflow.runs(name) for name in quickstart.dag_ids(night.settings, (night.spec,))},
        )
        if runs == before and all(run.end_date for of_dag in runs.values() for run in of_dag):
            return runs
        assert time.monotonic() < deadline, "a run does not end"
        time.sleep(2)


def rows(rails: Rails, table: str) -> pd.DataFrame:
    found = rails.lake.query(f"select * from {{{table}}}", NIGHT + timedelta(days=1))
    found = found.drop(columns=[column for column in AUDIT if column in found])
    return found.sort_values(list(found.columns), ignore_index=True)


def free_port() -> int:
    with closing(socket.socket()) as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port
