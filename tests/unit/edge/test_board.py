"""The portfolio at a glance: what state a model is in, what waits for a person; a hundred models cost what one does."""

import re
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from datetime import date, timedelta
from pathlib import Path
from typing import get_args, get_type_hints

import pytest
import sqlalchemy as sa

from tiltyard import clock, ledger_tables, postgres
from tiltyard.edge import board, board_query, logins, night_metrics
from tiltyard.edge.board import Board, MeasuredLoss, ModelRow
from tiltyard.edge.board_query import BoardQuery
from tiltyard.judge import operate
from tiltyard.operating import Target
from tiltyard.portfolio_rules import AlertKind
from tiltyard.prepare import ingest
from tiltyard.rails import Rails
from tiltyard.records import (
    Cost,
    Decision,
    DefaultTask,
    DriftSummary,
    EvidenceRecord,
    FeaturesSummary,
    ModelWorth,
    Operation,
    OperationAction,
    PromotionSummary,
    QuarantinedFile,
    ShadowSummary,
    TableState,
    Usage,
    Version,
    VersionFacts,
    VersionFigures,
    WatchVerdict,
)
from tiltyard.settings import ROOT
from tiltyard.spec import Spec, find

NIGHT = date(2025, 5, 30)
SPEC = find(ROOT / "models", "churn")
"""Its source is `subscription`."""


def read(rails: Rails, *specs: Spec) -> Board:
    return board.read(rails, specs or [SPEC], clock.now())


def done(rails: Rails, model: str = "churn", night: date = NIGHT, **shadow: object) -> None:
    """A night on which all went well."""
    figures = VersionFigures(role="champion", matured=900, immature=90, early=3, brier=0.08)
    summary = ShadowSummary(night=night, tiers={"champion": 90}, metrics={"1": figures}, default_loss=0.1, **shadow)  # type: ignore[arg-type]
    rails.ledger.record_stage(model, night, "done", summary)
    rails.ledger.record_stage(model, night, "done", PromotionSummary(night=night, model=model))
    rails.ledger.record_stage(model, night, "done", DriftSummary(night=night, model=model, verdict="steady"))


def published(rails: Rails, *states: TableState, night: date = NIGHT) -> None:
    rails.ledger.publish(states, night, "done", FeaturesSummary(snapshot=1), "subscription")


def promoted(rails: Rails, model: str = "churn", night: date = NIGHT - timedelta(days=9)) -> None:
    """Version 1 is in service."""
    rails.ledger.add_version(
        Version(model=model, version=1, night=night, inputs=model, run_id=model, digests={}, facts=VersionFacts(),
                requested_by="test")
    )  # fmt: skip
    with rails.ledger.engine.begin() as connection:
        connection.execute(
            ledger_tables.promotion.insert().values(
                model=model, version=1, night=night, requested_by="test", approval={}, recorded_at=clock.now()
            )
        )


def test_a_model_without_a_night_is_new_and_one_that_nobody_beats_is_steady(rails: Rails) -> None:
    [row] = read(rails).models
    assert (row.state, row.night, row.champion, row.loss, row.ends) == ("new", None, None, None, ())
    assert "tiltyard hindcast --model churn" in row.reason
    published(rails)
    done(rails)
    assert read(rails).models[0].state == "default"
    promoted(rails)
    [row] = read(rails).models
    assert (row.state, row.champion, row.since) == ("steady", 1, NIGHT - timedelta(days=9))
    assert row.loss == MeasuredLoss(night=NIGHT, champion=0.08, safe_default=0.1)
    assert row.against_default == pytest.approx(-0.2)
    assert row.ends == ((NIGHT, "done"),) and row.tiers == {"champion": 90}
    assert not read(rails).inbox


def test_what_cannot_be_read_of_one_model_hides_no_other(rails: Rails) -> None:
    """As another version may have written it: a question to a person, what a model is worth, and the gate's word."""
    other = SPEC.model_copy(update={"name": "other"})
    published(rails)
    for name in ("churn", "other"):
        done(rails, name)
        promoted(rails, name)
        rails.ledger.open_default_task(DefaultTask(model=name, opened=NIGHT, since=NIGHT, repeats=None, facts={}))
        rails.ledger.accounts.set_worths([ModelWorth(model=name, advice="open", reason="too early")])
    with rails.ledger.engine.begin() as connection:
        for table, column in (("default_task", "said"), ("worth", "body")):
            connection.execute(sa.text(f"update {table} set {column} = '[]' where model = 'churn'"))
    found = read(rails, SPEC, other)
    assert {row.model: row.state for row in found.models} == {"churn": "failed", "other": "asked"}
    assert "its safe default cannot be read" in found.models[0].reason
    assert [(item.kind, item.subject) for item in found.inbox] == [("explain", "other")]
    assert [worth.model for worth in rails.ledger.accounts.worths(["churn", "other"])] == ["other"]
    with rails.ledger.engine.begin() as connection:
        connection.execute(sa.text("update stage_run set summary = '[]' where model = 'churn' and stage = 'promotion'"))
    told = night_metrics.text(found, night_metrics.beside(rails, [SPEC, other])).decode()
    assert 'state="asked"' in told


def test_a_table_that_is_not_good_is_trouble_although_every_stage_is_done(rails: Rails) -> None:
    """The night before was published; tonight a check held the spine, and shadow scored from what stands."""
    promoted(rails)
    published(rails, night=NIGHT - timedelta(days=1))
    done(rails, night=NIGHT - timedelta(days=1))
    spine = SPEC.prediction.spine
    state = TableState(night=NIGHT, table=spine, state="held", since=NIGHT, reason="3 of 55 rows undated.", cause=spine)
    published(rails, state)
    done(rails)
    found = read(rails)
    [row] = found.models
    assert row.state == "held" and "3 of 55 rows undated" in row.reason
    assert row.ends == ((NIGHT - timedelta(days=1), "done"), (NIGHT, "stopped"))
    assert [(item.kind, item.subject, item.link) for item in found.inbox] == [
        ("table", spine, "/tiltyard/sources/subscription")
    ]
    page = rails.settings.reports / "checks" / "subscription" / f"{NIGHT}.html"
    page.parent.mkdir(parents=True)
    page.write_text("<p>rows</p>")
    assert read(rails).inbox[0].link == f"/tiltyard/reports/checks/subscription/{NIGHT}.html"
    assert found.sources[[source.source for source in found.sources].index("subscription")].tables == (state,)
    assert found.sources[[source.source for source in found.sources].index("subscription")].worst == "stopped"
    assert (row.data_night, row.nights_behind) == (None, None), "it was never good"


def test_the_age_of_a_models_data_is_that_of_its_oldest_table(rails: Rails) -> None:
    published(rails)
    done(rails)
    [row] = read(rails).models
    assert (row.data_night, row.nights_behind) == (NIGHT, 0)
    ages = zip(SPEC.tables, (2, 5, 1), strict=False)
    states = [
        TableState(night=NIGHT, table=table, state="held", since=NIGHT, reason="rows.", cause=table, snapshot=1,
                   good_night=NIGHT - timedelta(days=days)) for table, days in ages
    ]  # fmt: skip
    published(rails, *states)
    [row] = read(rails).models
    assert (row.data_night, row.nights_behind) == (NIGHT - timedelta(days=5), 5)


def test_a_row_says_what_a_night_of_its_model_costs_and_what_a_month_comes_to(rails: Rails, tmp_path: Path) -> None:
    """Half of what the source's features take is another model's, whichever of them is asked for."""
    other = SPEC.model_copy(update={"name": "other"})
    models = shutil.copytree(ROOT / "models", tmp_path / "models")
    for folder in models.iterdir():
        if folder.is_dir() and folder.name != "churn":
            shutil.rmtree(folder)
    shutil.copytree(models / "churn", models / "other")
    (models / "portfolio.yaml").unlink()
    done(rails)
    rails.ledger.accounts.add([
        Cost(stage="features", name="subscription", night=NIGHT, usage=Usage(cpu_s=4.0)),
        Cost(stage="shadow", name="churn", night=NIGHT, usage=Usage(cpu_s=3.0)),
    ])  # fmt: skip
    here = replace(rails, settings=rails.settings.model_copy(update={"models": models, "sources": ("subscription",)}))
    rows = {row.model: row for row in board.read(here, [SPEC, other], clock.now()).models}
    assert (rows["churn"].cpu_s, rows["other"].cpu_s, rows["churn"].price) == (5.0, 2.0, None)
    (models / "portfolio.yaml").write_text("prices: {currency: EUR, cpu_hour: 0.36, gb_hour: 0, gb_month: 0}\n")
    found = board.read(here, [SPEC], clock.now())
    assert (found.currency, found.models[0].price) == ("EUR", pytest.approx(5.0 / 3600 * 0.36 * 30))


def test_a_failed_stage_comes_before_all_and_anchors_the_row(rails: Rails) -> None:
    """The newest night was attempted and failed: the row is of that night, and not of the one before that went well."""
    promoted(rails)
    published(rails)
    done(rails, night=NIGHT - timedelta(days=1))
    rails.ledger.record_bad_end("churn", NIGHT, "failed", ShadowSummary(night=NIGHT, reason="The lake is away."))
    [row] = read(rails).models
    assert (row.state, row.night) == ("failed", NIGHT)
    assert row.reason == f"its shadow (The lake is away) failed on {NIGHT}"
    assert row.ends[-1] == (NIGHT, "failed")


def test_a_model_that_lies_behind_its_source_is_late(rails: Rails) -> None:
    promoted(rails)
    done(rails, night=NIGHT - timedelta(days=2))
    published(rails)
    assert read(rails).models[0].state == "late"


def test_what_waits_for_a_person_is_listed_until_it_has_an_answer(rails: Rails) -> None:
    """A night on which a person is asked has no record of the gate until it is closed; the decisions are there."""
    spec = SPEC.model_copy(update={"tier": 1})
    published(rails)
    done(rails, night=NIGHT - timedelta(days=1))
    rails.ledger.record_stage("churn", NIGHT, "done", ShadowSummary(night=NIGHT))
    for challenger, low in ((2, 0.01), (3, 0.002), (4, None)):
        decided(rails, challenger, low)
    found = read(rails, spec)
    [item] = found.inbox
    assert (item.kind, item.subject, item.link) == ("approve", "churn v2", "/dags/churn__promotion")
    assert item.reason == "Better by 0.01. Its form is being opened.", "the one that the form is about"
    assert (item.until, item.is_opening) == (None, True), "nobody can answer yet, and nobody is told when it closes"
    assert (found.models[0].state, found.models[0].gate) == ("approve", "promote")
    assert found.models[0].reason == "version 2 may be promoted; its form is being opened"
    [waits] = board.read(rails, [spec], clock.now() + timedelta(minutes=40)).inbox
    assert not waits.is_opening, "somebody has to be told"
    assert waits.reason.endswith("Its form has not been opened in 40 minutes: look into what its DAG waits for.")
    subject, until = "Promote churn version 2 on the night of 2025-05-30?", clock.now() + timedelta(hours=22)
    body = logins.conditions(until, "**Only one** can: bob.", ["v3 (promote)"])
    asked_in_airflow(rails, "churn__promotion", "approval", subject, body)
    [item] = read(rails, spec).inbox
    assert item.link == "/dags/churn__promotion/runs/asset%2F1/tasks/approval/required_actions"
    assert (item.until, item.is_opening) == (until.replace(second=0, microsecond=0), False), "as the form says"
    assert item.reason == "Better by 0.01. Only one can: bob."
    later = board.read(rails, [spec], clock.now() + timedelta(days=2))
    assert not later.inbox, "silence was a no"
    rails.ledger.record_stage("churn", NIGHT, "done", PromotionSummary(night=NIGHT, model="churn", verdict="promote"))
    assert not read(rails, spec).inbox, "it was refused, and the night is closed"
    task = DefaultTask(model="churn", opened=NIGHT, since=NIGHT - timedelta(days=3), repeats=None, facts={})
    rails.ledger.open_default_task(task)
    file = QuarantinedFile(source="subscription", night=NIGHT, file="payment/2025-05-29.csv", reason="no header")
    detail = {name: value for name, value in file.to_json().items() if name != "night"}
    rails.ledger.add_event(ingest.QUARANTINED, "", NIGHT, detail)
    lies = rails.settings.quarantine / "subscription" / "payment" / "2025-05-29.csv"
    lies.parent.mkdir(parents=True)
    lies.write_text("x")
    assert [item.kind for item in board.read(rails, [spec], clock.now() + timedelta(days=2)).inbox] == [
        "explain", "quarantined",
    ]  # fmt: skip
    assert read(rails, spec).models[0].state == "asked"


def test_a_question_that_silence_answers_comes_before_one_that_waits(rails: Rails) -> None:
    spec = SPEC.model_copy(update={"tier": 1})
    published(rails)
    done(rails, night=NIGHT - timedelta(days=1))
    rails.ledger.record_stage("churn", NIGHT, "done", ShadowSummary(night=NIGHT))
    task = DefaultTask(model="churn", opened=NIGHT, since=NIGHT - timedelta(days=3), repeats=None, facts={})
    rails.ledger.open_default_task(task)
    assert read(rails, spec).models[0].state == "asked"
    decided(rails, 2, 0.01)
    assert read(rails, spec).models[0].state == "approve"
    assert [*board.STATES].index("approve") < [*board.STATES].index("asked")


def decided(rails: Rails, challenger: int, low: float | None) -> None:
    """What the gate said of a challenger on the night."""
    rails.ledger.add_decision(
        Decision(
            model="churn", night=NIGHT, challenger=challenger, champion=None, verdict="promote" if low else "hold",
            reasons=(f"Better by {low}." if low else "Not yet.",),
            evidence=EvidenceRecord(model="churn", night=NIGHT, low=low),
        )
    )  # fmt: skip


def asked_in_airflow(rails: Rails, dag_id: str, task_id: str, subject: str, body: str = "") -> None:
    """What Airflow keeps of a form that waits."""
    engine = sa.create_engine(postgres.url(rails.settings, "airflow"), poolclass=sa.NullPool)
    with engine.begin() as connection:
        for statement in (
            "create table task_instance (id int, dag_id text, run_id text, task_id text, map_index int, state text)",
            "create table hitl_detail (ti_id int, subject text, body text, created_at timestamptz,"
            " responded_at timestamptz)",
            "insert into task_instance values (1, :dag_id, 'asset/1', :task_id, -1, 'awaiting_input')",
            "insert into hitl_detail values (1, :subject, :body, now(), null)",
        ):
            values = {"dag_id": dag_id, "task_id": task_id, "subject": subject, "body": body}
            connection.execute(sa.text(statement), values)


def answered_in_airflow(rails: Rails) -> None:
    """What Airflow keeps of the forms that wait once they are answered."""
    engine = sa.create_engine(postgres.url(rails.settings, "airflow"), poolclass=sa.NullPool)
    with engine.begin() as connection:
        connection.execute(sa.text("update hitl_detail set responded_at = now()"))
        connection.execute(sa.text("update task_instance set state = 'success'"))


def by_hand(rails: Rails, spec: Spec, action: OperationAction, to: Target = None, by: str = "ann") -> Operation:
    made = operate.request(
        rails, spec, action, to=to, reason="an audit", by=by, source="command line", now=clock.now()
    ).operation
    assert made
    return made


def test_what_persons_hold_is_a_state_and_a_retired_model_comes_last_and_asks_nobody(rails: Rails) -> None:
    specs = [SPEC.model_copy(update={"name": name}) for name in ("aged", "cold", "moored", "plain")]
    published(rails)
    for spec in specs:
        done(rails, spec.name)
        promoted(rails, spec.name)
    by_hand(rails, specs[0], "retire")
    by_hand(rails, specs[1], "freeze")
    by_hand(rails, specs[2], "pin")
    rails.ledger.open_default_task(
        DefaultTask(model="aged", opened=NIGHT, since=NIGHT - timedelta(days=3), repeats=None, facts={})
    )
    found = read(rails, *specs)
    assert [(row.model, row.state) for row in found.models] == [
        ("cold", "frozen"), ("moored", "pinned"), ("plain", "steady"), ("aged", "retired"),
    ]  # fmt: skip
    assert (
        found.models[1].held
        == found.models[1].reason.removeprefix("it is ")
        == ("pinned to version 1 since the night of 2025-05-30 by ann (an audit)")
    )
    assert not found.inbox, "nobody has to explain what is retired"
    assert found.counts == {"frozen": 1, "pinned": 1, "steady": 1, "retired": 1}
    rails.ledger.record_stage("cold", NIGHT, "failed", ShadowSummary(reason="The lake is away."))
    assert {row.model: row.state for row in read(rails, *specs).models}["cold"] == "failed", "trouble comes first"
    rows = {row.model: row for row in read(rails, *specs).models}
    assert {name: row.hold for name, row in rows.items()} == {
        "cold": "frozen", "moored": None, "plain": None, "aged": None,
    }, "it is seen beside what is worse"  # fmt: skip
    assert rows["aged"].reason.endswith(
        "(an audit); tiltyard unretire aged takes it back into work, with version 1 in service"
    )
    by_hand(rails, specs[1], "pin")
    both = next(row for row in read(rails, *specs).models if row.model == "cold").held
    assert both and both.startswith("pinned to version 1") and ", and frozen since" in both, "one hides no other"


def test_what_waits_for_a_second_person_is_in_the_inbox_until_it_is_decided(rails: Rails) -> None:
    spec = SPEC.model_copy(update={"tier": 1})
    published(rails)
    done(rails)
    promoted(rails)
    asked = by_hand(rails, spec, "freeze")
    found = read(rails, spec)
    [item] = found.inbox
    assert (item.kind, item.subject, item.reason) == (
        "operate",
        f"freeze churn ({asked.id})",
        "ann asks for it: an audit. These may answer: anybody else. Not ann, who asked for it.",
    )
    assert (item.until, item.link) == (asked.until, "/dags/operate"), "no form was opened for it"
    assert found.models[0].state == "approve"
    assert f"tiltyard operations approve {asked.id}" in found.models[0].reason
    assert not board.read(rails, [spec], clock.now() + timedelta(days=2)).inbox, "silence was a no"
    operate.refuse(rails, asked.id, by="bob", reason="no", now=clock.now())
    assert not read(rails, spec).inbox


def test_a_tier_1_that_one_person_sent_to_its_safe_default_is_told_for_a_week(rails: Rails) -> None:
    spec = SPEC.model_copy(update={"tier": 1})
    published(rails)
    done(rails)
    promoted(rails)
    by_hand(rails, spec, "rollback", "default")
    [item] = read(rails, spec).inbox
    assert (item.kind, item.subject, item.until) == ("operate", "churn on its safe default", None)
    assert item.reason.startswith("ann rolled churn back to the safe default on the night of 2025-05-30")
    assert not board.read(rails, [spec], clock.now() + timedelta(days=8)).inbox


def test_a_held_champion_that_does_worse_is_in_the_inbox_as_long_as_it_is_held(rails: Rails) -> None:
    published(rails)
    done(rails)
    promoted(rails)
    by_hand(rails, SPEC, "freeze")
    watch = WatchVerdict(champion=1, previous=None, verdict="keep", reasons=("It does worse.",), is_held=True)
    rails.ledger.record_stage("churn", NIGHT, "done", PromotionSummary(night=NIGHT, model="churn", watch=watch))
    [item] = read(rails).inbox
    assert (item.kind, item.subject, item.reason) == ("worse", "churn v1", "It does worse.")
    by_hand(rails, SPEC, "unfreeze")
    assert not read(rails).inbox


@contextmanager
def counted(rails: Rails) -> Iterator[list[str]]:
    """The statements that are sent meanwhile."""
    sent: list[str] = []

    def note(connection: object, cursor: object, statement: str, *rest: object) -> None:
        sent.append(statement)

    sa.event.listen(rails.ledger.engine, "before_cursor_execute", note)
    try:
        yield sent
    finally:
        sa.event.remove(rails.ledger.engine, "before_cursor_execute", note)


def clones(number: int) -> list[Spec]:
    return [SPEC.model_copy(update={"name": f"churn_{place:03}"}) for place in range(number)]


def test_thirty_models_and_fifty_nights_cost_as_many_queries_as_one_of_one(rails: Rails) -> None:
    published(rails)
    many = clones(30)
    for spec in many:
        for back in range(2):
            done(rails, spec.name, NIGHT - timedelta(days=back))
        promoted(rails, spec.name)
    with counted(rails) as of_one:
        board.read(rails, many[:1], clock.now())
    with counted(rails) as of_all:
        assert len(board.read(rails, many, clock.now()).models) == 30
    assert len(of_all) == len(of_one)


def test_a_record_that_cannot_be_read_is_its_models_problem_alone(rails: Rails) -> None:
    published(rails)
    good, bad = clones(2)
    for spec in (good, bad):
        done(rails, spec.name)
        promoted(rails, spec.name)
    with rails.ledger.engine.begin() as connection:
        connection.execute(
            ledger_tables.stage_run.update()
            .where(ledger_tables.stage_run.c.model == bad.name, ledger_tables.stage_run.c.stage == "drift")
            .values(summary={"night": "never", "evidence": "much"})
        )
    rows = {row.model: row for row in read(rails, good, bad).models}
    assert rows[good.name].state == "steady"
    assert rows[bad.name].state == "failed" and "its drift cannot be read" in rows[bad.name].reason


# -- what somebody asks to see ----------------------------------------------------------------


def row(model: str, **values: object) -> ModelRow:
    plain: dict[str, object] = {"owner": "ann", "tier": 2, "source": "shop", "state": "steady", "reason": "fine"}
    return ModelRow(**{**plain, "model": model, "measure": "brier", **values})  # type: ignore[arg-type]


ROWS = [
    row("a", state="hold", owner="Zoë 🦊"),
    row("b", state="held", tier=1, reason="raw.payment is held"),
    row("c", losses=(MeasuredLoss(night=NIGHT, champion=0.12, safe_default=0.1),)),
    row("d", losses=(MeasuredLoss(night=NIGHT, champion=0.08, safe_default=0.1),)),
]


@pytest.mark.parametrize(
    ("asked", "models"),
    [
        ({}, "bacd"),
        ({"order": "model"}, "abcd"),
        ({"order": "worth"}, "cdab"),
        ({"order": "; drop table"}, "bacd"),
        ({"q": "PAYMENT"}, "b"),
        ({"owner": "Zoë 🦊"}, "a"),
        ({"tier": "1"}, "b"),
        ({"tier": "one"}, ""),
        ({"state": "steady", "source": "shop"}, "cd"),
        ({"state": "<script>"}, ""),
    ],
)
def test_filters_and_order_are_those_of_the_address(asked: dict[str, str], models: str) -> None:
    assert "".join(found.model for found in BoardQuery.of(asked).chosen(ROWS)) == models


def test_pages_keep_what_was_asked_for() -> None:
    rows = [row(f"m{place:03}") for place in range(60)]
    query = BoardQuery.of({"q": "m0", "state": "steady", "page": "3"})
    found = query.chosen(rows)
    assert (len(found), board_query.pages(found)) == (60, 3)
    assert [entry.model for entry in query.shown(found)] == [f"m{place:03}" for place in range(50, 60)]
    assert BoardQuery.of({"page": "99"}).shown(found) == query.shown(found)
    assert BoardQuery.of({"page": "-1"}).page == 1
    assert query.address(2) == "?q=m0&state=steady&page=2"


def test_the_course_of_a_loss_is_drawn_from_numbers_alone() -> None:
    losses = tuple(
        MeasuredLoss(night=NIGHT + timedelta(days=back), champion=value, safe_default=0.1)
        for back, value in enumerate((0.08, None, 0.12))
    )
    drawn = board_query.sparkline(row("a", losses=losses))
    assert 'aria-label="loss of the last 2 nights, 0.08 to 0.12"' in drawn
    assert 'class="champion" points="0.0,18.0 72.0,2.0"' in drawn
    assert board_query.sparkline(row("a")) == ""


def test_a_table_that_a_model_does_not_stand_on_is_no_trouble_of_its(rails: Rails) -> None:
    table = SPEC.prediction.features[-1]
    other = SPEC.model_copy(
        update={
            "name": "other",
            "prediction": SPEC.prediction.model_copy(update={"features": SPEC.prediction.features[:1]}),
        }
    )
    held = TableState(table=table, night=NIGHT, state="held", since=NIGHT, reason="3 rows undated", cause=table)
    rails.ledger.publish([held], NIGHT, "stopped", FeaturesSummary(snapshot=1), "subscription")
    for name in ("churn", "other"):
        promoted(rails, name)
        done(rails, name)
    rows = {row.model: row for row in read(rails, SPEC, other).models}
    assert (rows["churn"].state, rows["churn"].ends) == ("held", ((NIGHT, "stopped"),))
    assert (rows["other"].state, rows["other"].ends) == ("steady", ((NIGHT, "done"),))


def test_every_kind_of_the_inbox_and_of_messages_is_in_the_docs() -> None:
    inbox = set(get_args(get_type_hints(board.Asked)["kind"]))
    pages = (ROOT / "docs" / "reference" / "pages.md").read_text()
    [table] = re.findall(r"(?s)## The inbox\n(.*?)\n## ", pages)
    assert set(re.findall(r"(?m)^\| `(\w+)` \|", table)) == inbox
    told = (ROOT / "docs" / "how-to" / "be-told.md").read_text()
    assert not {kind for kind in inbox | {*get_args(AlertKind)} if f"`{kind}`" not in told}
    states = re.findall(r"(?m)^\| `(\w+)` \|", pages.split("## How a model stands")[1].split("## The inbox")[0])
    assert tuple(states) == tuple(board.STATES), "in the order of their trouble"
