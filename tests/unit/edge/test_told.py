"""Somebody hears of it: facts of the board, sent to a hook that listens here, once, and once more when it is over."""

import base64
import contextlib
import hmac
import json
import os
import re
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from dataclasses import replace
from datetime import date, datetime, timedelta
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import pytest
import sqlalchemy as sa

from tests.conftest import make_settings
from tests.unit.edge.test_board import NIGHT, done, promoted, published
from tiltyard import clock, outbox
from tiltyard import rails as rails_module
from tiltyard.edge import board, table_faults
from tiltyard.edge.told import deciding, facts, telling, texts, webhook
from tiltyard.errors import BadInput
from tiltyard.judge import operate
from tiltyard.outbox import Look
from tiltyard.portfolio_rules import Pages, load_portfolio
from tiltyard.rails import Rails
from tiltyard.records import DefaultTask, Fact, Message, Sending, ShadowSummary, TableState
from tiltyard.settings import ROOT, Settings
from tiltyard.spec import Spec, find, portfolio

ROUTES = """
routes:
  - {owners: [subscriptions], to: [env:HOOK_OF_DESK]}
  - {tiers: [1], to: [env:HOOK_OF_PAGER]}
"""
NOW = datetime.combine(NIGHT, datetime.min.time(), clock.now().tzinfo) + timedelta(hours=9)


class Hook:
    """A service that listens on loopback, takes what is posted, or is away."""

    def __init__(self) -> None:
        self.posted: list[dict[str, str]] = []
        self.raw: list[tuple[dict[str, str], bytes]] = []
        self.status = 200
        hook = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["content-length"]))
                if hook.status == 200:
                    hook.posted.append(json.loads(body) | {"path": self.path})
                    hook.raw.append((dict(self.headers.items()), body))
                self.send_response(hook.status)
                self.end_headers()

            def log_message(self, *_: object) -> None:
                pass

        self.server = HTTPServer(("127.0.0.1", 0), Handler)
        threading.Thread(target=self.server.serve_forever, daemon=True).start()

    def url(self, path: str) -> str:
        return f"json://secret-user:secret-word@127.0.0.1:{self.server.server_port}/{path}"

    def titles(self) -> list[str]:
        titles = [entry["title"] for entry in self.posted]
        self.posted.clear()
        return titles


@pytest.fixture
def hook(monkeypatch: pytest.MonkeyPatch) -> Iterator[Hook]:
    hook = Hook()
    monkeypatch.setenv("HOOK_OF_DESK", hook.url("desk"))
    monkeypatch.setenv("HOOK_OF_PAGER", hook.url("pager"))
    yield hook
    hook.server.shutdown()
    hook.server.server_close()


@pytest.fixture
def home(tmp_path: Path, postgres_url: str) -> Iterator[Rails]:
    """The portfolio's rules with two routes; churn, of tier 2, is the one active model."""
    models = tmp_path / "models"
    (models / "churn").mkdir(parents=True)
    for name in ("spec.yaml", "card.md"):
        (models / "churn" / name).write_text((ROOT / "models" / "churn" / name).read_text())
    (models / "portfolio.yaml").write_text((ROOT / "models" / "portfolio.yaml").read_text() + ROUTES)
    settings = make_settings(tmp_path, postgres_url, sources=("subscription",), models=models)
    with rails_module.opened(settings) as rails:
        published(rails)
        done(rails)
        promoted(rails)
        yield rails


def on_default(rails: Rails) -> None:
    """A person has to say why the model is on its safe default."""
    rails.ledger.open_default_task(
        DefaultTask(model="churn", opened=NIGHT, since=NIGHT - timedelta(days=4), repeats=None, facts={})
    )


def test_a_fact_is_told_once_and_its_end_once(home: Rails, hook: Hook) -> None:
    assert telling.tell(home, NOW) == telling.Told(standing=0, paged=0, later=0, ended=0, sent=0)
    on_default(home)
    told = telling.tell(home, NOW)
    assert (told.standing, told.paged, told.sent, told.unsent, told.unrouted) == (1, 1, 1, {}, ())
    [posted] = hook.posted
    assert (posted["path"], posted["title"]) == ("/desk", "still on its safe default: churn")
    assert posted["message"].splitlines() == [
        f"What: on its safe default since {NIGHT - timedelta(days=4)}.",
        f"Since: the night of {NIGHT}.",
        "Do: Say why it is still on its safe default, in the form of its explanation.",
        "http://127.0.0.1:8080/dags/churn__explanation/required_actions",
    ]
    for hours in (1, 30):
        assert telling.tell(home, NOW + timedelta(hours=hours)).sent == 0
    home.ledger.recover_default_task("churn", NIGHT, NIGHT)
    hook.titles()
    assert telling.tell(home, NOW + timedelta(hours=49)).sent == 1
    [over] = hook.posted
    assert over["title"] == "over: still on its safe default: churn"
    assert over["message"].startswith("It is over after 2 nights.")
    assert telling.tell(home, NOW + timedelta(hours=50)).sent == 0


def test_what_waits_for_an_answer_goes_to_whoever_stands_in_and_is_called_to_mind(
    home: Rails, hook: Hook, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The operation of a tier 1: the route of its owner, that of its tier, and of two delegates the one whose time has
    not passed."""
    for name in ("deputy", "former"):
        monkeypatch.setenv(f"HOOK_OF_{name.upper()}", hook.url(name))
    models = home.settings.models
    now = clock.now()
    rules = f"""
approvers:
  subscriptions:
    people: [ann, bob]
    delegates:
      - {{from: bob, to: cid, until: {now.date() + timedelta(days=1)}, tell: [env:HOOK_OF_DEPUTY]}}
      - {{from: ann, to: dora, until: {now.date() - timedelta(days=1)}, tell: [env:HOOK_OF_FORMER]}}
"""
    (models / "portfolio.yaml").write_text((models / "portfolio.yaml").read_text() + rules)
    text = (models / "churn" / "spec.yaml").read_text()
    (models / "churn" / "spec.yaml").write_text(re.sub(r"(?m)^tier:.*$", "tier: 1", text))
    operate.request(home, find(models, "churn"), "freeze", reason="an audit", by="ann", source="command line", now=now)
    assert telling.tell(home, now).sent == 3
    assert {posted["path"] for posted in hook.posted} == {"/desk", "/pager", "/deputy"}
    posted = hook.posted[0]
    assert posted["title"] == "done by hand: tier 1, freeze churn (1), closes in 24 h"
    assert posted["message"].splitlines() == [
        "What: ann asks for it: an audit. These may answer: cid, bob. Not ann, who asked for it.",
        f"Since: the night of {NIGHT}.",
        "Concerned: churn.",
        f"Closes: {now + timedelta(days=1):%Y-%m-%d %H:%M} UTC.",
        "Do: Look at it; where it waits for a second person, choose Approve or Reject in its form, or run tiltyard "
        "operations approve or refuse. Silence is a no.",
        "http://127.0.0.1:8080/dags/operate",
    ]
    hook.titles()
    for hours, sent in ((11, 0), (13, 3), (14, 0), (22, 3), (23, 0)):
        assert telling.tell(home, now + timedelta(hours=hours)).sent == sent, hours
    assert {title.split(":")[0] for title in hook.titles()} == {"reminder"}
    assert telling.tell(home, now + timedelta(hours=25)).ended == 1, "nobody has confirmed it"
    assert {title.split(":")[0] for title in hook.titles()} == {"over"}


def high(home: Rails) -> Spec:
    """churn, of tier 1."""
    path = home.settings.models / "churn" / "spec.yaml"
    path.write_text(re.sub(r"(?m)^tier:.*$", "tier: 1", path.read_text()))
    return find(home.settings.models, "churn")


def test_what_is_over_before_it_could_be_sent_is_never_sent_to_them_nor_its_end(home: Rails, hook: Hook) -> None:
    now = clock.now()
    hook.status = 503
    operate.request(home, high(home), "freeze", reason="an audit", by="ann", source="command line", now=now)
    assert telling.tell(home, now).sent == 0
    operate.refuse(home, 1, by="bob", reason="no", now=now)
    hook.status = 200
    later = now + timedelta(minutes=10)
    assert (telling.tell(home, later).sent, hook.titles()) == (0, [])
    assert telling.listing(home, later).unsent == ()
    assert [message.ended_at for message in telling.listing(home, later).messages] == [later], "the record stays"


def test_what_has_waited_for_its_address_says_how_much_time_is_left_when_it_is_sent(
    home: Rails, hook: Hook, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One who takes it at once and one whose address is missing for sixteen hours, in which a reminder is due."""
    now = clock.now()
    monkeypatch.delenv("HOOK_OF_PAGER")
    operate.request(home, high(home), "freeze", reason="an audit", by="ann", source="command line", now=now)
    assert telling.tell(home, now).sent == 1
    assert telling.tell(home, now + timedelta(hours=13)).sent == 1
    assert [title.split(":")[0] for title in hook.titles()] == ["done by hand", "reminder"]
    monkeypatch.setenv("HOOK_OF_PAGER", hook.url("pager"))
    assert telling.tell(home, now + timedelta(hours=16)).sent == 1, "and no reminder of what was not told"
    [posted] = hook.posted
    assert (posted["path"], posted["title"]) == ("/pager", "done by hand: tier 1, freeze churn (1), closes in 8 h")
    assert f"Closes: {now + timedelta(days=1):%Y-%m-%d %H:%M} UTC." in posted["message"]


def test_a_digest_takes_the_place_of_one_that_was_never_sent(home: Rails, hook: Hook) -> None:
    for day in range(3):
        at = NOW + timedelta(days=day)
        entry = Sending(occasion="digest", owner="a", to="env:HOOK_OF_DESK", title=str(day), body="x", created_at=at)
        home.ledger.outbox.look(lambda standing, entry=entry: Look(sendings=(entry,)), at)
    home.ledger.outbox.send(lambda entry: telling.post(entry, lambda name: None), NOW + timedelta(days=2, hours=1))
    assert hook.titles() == ["2"]


def test_a_service_that_is_away_loses_nothing_and_its_address_is_in_no_text(
    home: Rails, hook: Hook, caplog: pytest.LogCaptureFixture, capfd: pytest.CaptureFixture[str]
) -> None:
    hook.status = 503
    on_default(home)
    told = telling.tell(home, NOW)
    assert told.sent == 0 and told.paged == 1
    assert told.unsent == {"env:HOOK_OF_DESK": "env:HOOK_OF_DESK did not take it; it is tried again at the next look."}
    assert [(entry.attempts, entry.to) for entry in telling.listing(home, NOW).unsent] == [(1, "env:HOOK_OF_DESK")]
    [waits] = [item for item in board.read(home, portfolio(home.settings), NOW).inbox if item.kind == "untold"]
    assert (waits.subject, waits.reason) == ("env:HOOK_OF_DESK", told.unsent["env:HOOK_OF_DESK"])
    long_after = board.read(home, portfolio(home.settings), NOW + timedelta(days=15))
    assert not [item for item in long_after.inbox if item.kind == "untold"], "it was given up"
    hook.status = 200
    assert telling.tell(home, NOW + timedelta(minutes=10)).sent == 1
    assert hook.titles() == ["still on its safe default: churn"]
    assert telling.listing(home, NOW).unsent == ()
    shown = caplog.text + "".join(capfd.readouterr()) + str(telling.listing(home, NOW).to_json())
    assert "secret-word" not in shown


def test_an_address_that_is_not_there_is_named_and_costs_the_others_nothing(
    home: Rails, hook: Hook, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("HOOK_OF_PAGER")
    spec = home.settings.models / "churn" / "spec.yaml"
    spec.write_text(spec.read_text().replace("tier: 3", "tier: 1").replace("tier: 2", "tier: 1"))
    on_default(home)
    told = telling.tell(home, NOW)
    assert told.sent == 1 and hook.titles() == ["still on its safe default: tier 1, churn"]
    assert told.unsent == {
        "env:HOOK_OF_PAGER": "HOOK_OF_PAGER is not set; put an address of Apprise there, like mailto://user:secret@host."
    }
    monkeypatch.setenv("HOOK_OF_PAGER", "no address")
    assert "holds no address that Apprise knows" in telling.tell(home, NOW).unsent["env:HOOK_OF_PAGER"]
    monkeypatch.setenv("HOOK_OF_PAGER", hook.url("pager"))
    assert telling.tell(home, NOW).sent == 1


def test_a_connection_of_airflow_is_an_address(home: Rails, hook: Hook, monkeypatch: pytest.MonkeyPatch) -> None:
    rules = home.settings.models / "portfolio.yaml"
    rules.write_text(rules.read_text().replace("env:HOOK_OF_DESK", "connection:desk"))
    monkeypatch.setenv("AIRFLOW_CONN_DESK", json.dumps({"conn_type": "generic", "password": hook.url("of-airflow")}))
    told = telling.test(home, "subscriptions", NOW)
    assert (told.sent, len(told.to)) == (2, 2), "the page of tier 1 goes to its pager as well"
    assert {entry["path"] for entry in hook.posted} == {"/of-airflow", "/pager"}
    with pytest.raises(BadInput, match="No model is desk's; the owners are: subscriptions"):
        telling.test(home, "desk", NOW)


def test_whoever_is_killed_while_sending_sends_again(home: Rails, hook: Hook) -> None:
    """Put down, and not sent: the next sender does it."""
    on_default(home)
    code = (
        "import os, signal\nfrom datetime import datetime\nfrom tiltyard import rails\n"
        "from tiltyard.edge.told import telling\n"
        "telling.post = lambda *_: os.kill(os.getpid(), signal.SIGKILL)\n"
        f"with rails.opened() as opened: telling.tell(opened, datetime.fromisoformat('{NOW.isoformat()}'))\n"
    )
    settings = home.settings
    names = {"TILTYARD_HOME": settings.home, "TILTYARD_DATABASE_URL": settings.database_url or "",
             "TILTYARD_DATABASE_PREFIX": settings.database_prefix, "TILTYARD_MODELS": settings.models,
             "TILTYARD_SOURCES": "subscription", "PYTHONPATH": ROOT / "plugins"}  # fmt: skip
    environment = {**os.environ, **{name: str(value) for name, value in names.items()}}
    killed = subprocess.run([sys.executable, "-c", code], env=environment, check=False, capture_output=True)
    assert killed.returncode == -signal.SIGKILL, killed.stderr.decode()
    assert len(home.ledger.outbox.standing()) == 1 and not hook.posted
    assert telling.tell(home, NOW + timedelta(minutes=10)).sent == 1
    assert hook.titles() == ["still on its safe default: churn"]


def test_two_who_look_at_once_tell_it_once(home: Rails, hook: Hook) -> None:
    on_default(home)
    threads = [threading.Thread(target=telling.tell, args=(home, NOW)) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert hook.titles() == ["still on its safe default: churn"]


def test_one_cause_is_one_message_however_many_models_stand_on_it(home: Rails) -> None:
    specs = [replace_name(home.settings, name) for name in ("ant", "bee", "cat", "dog")]
    held = TableState(
        table="ftr_customer__activity", night=NIGHT, state="held", since=NIGHT, reason="3 of 55 rows undated"
    )
    published(home, held)
    for spec in specs:
        done(home, spec.name)
    found = facts.facts(board.read(home, specs, NOW), specs)
    assert [(fact.kind, fact.subject, fact.owner, fact.models) for fact in found] == [
        ("table", "ftr_customer__activity", "subscriptions", ("ant", "bee", "cat", "dog"))
    ]
    unbuilt = TableState(
        table=held.table, night=NIGHT, state="failed", since=NIGHT, reason="Could not convert", cause=held.table
    )
    published(home, unbuilt)
    rows = board.read(home, specs, NOW)
    assert {(row.state, row.reason) for row in rows.models} == {
        ("failed", f"ftr_customer__activity (Could not convert) failed on {NIGHT}")
    }
    assert [(fact.kind, fact.subject) for fact in facts.facts(rows, specs)] == [("table", "ftr_customer__activity")]
    after = NIGHT + timedelta(days=1)
    published(home, TableState(table=held.table, night=after, state="published", snapshot=1), night=after)
    for spec in specs:
        reason = f"{spec.name}: MLflow is away on {NIGHT}"
        home.ledger.record_stage(spec.name, after, "failed", ShadowSummary(reason=reason))
    [fact] = facts.facts(board.read(home, specs, NOW), specs)
    assert (fact.kind, fact.models) == ("failed", ("ant", "bee", "cat", "dog"))
    assert str(NIGHT) not in fact.subject and "ant" not in fact.subject.split(), "it is the same one tomorrow"


def silent(table: str, hours: int) -> TableState:
    reason = (
        f"{table}.age_hours: column_values_to_be_between: {hours}, at most 168. The features speak of another world."
    )
    return TableState(table=table, night=NIGHT, state="held", since=NIGHT, reason=reason, cause=table)


def route_all(home: Rails) -> None:
    """Whatever there is goes to the desk: what is before dbt has built anything is no model's."""
    rules = (ROOT / "models" / "portfolio.yaml").read_text() + "routes: [{to: [env:HOOK_OF_DESK]}]\n"
    (home.settings.models / "portfolio.yaml").write_text(rules)


def test_the_tables_of_a_silent_source_are_one_line_of_the_inbox_and_one_message(home: Rails, hook: Hook) -> None:
    """Beside it a table of another fault."""
    route_all(home)
    tables = ("raw.cancellation", "raw.login", "raw.payment")
    view = "ftr_customer__activity"
    other = TableState(table=view, night=NIGHT, state="held", since=NIGHT, reason="3 rows undated", cause=view)
    published(home, *(silent(table, 12_000 + place) for place, table in enumerate(tables)), other)
    found = board.read(home, portfolio(home.settings), NOW)
    lines = {item.subject: item for item in found.inbox}
    assert set(lines) == {"subscription", view}
    assert lines["subscription"].tables == tables
    assert lines["subscription"].reason.startswith(f"nothing new has come of 3 tables: {', '.join(tables)}. raw.cancel")
    assert telling.tell(home, NOW).standing == 2
    assert telling.tell(home, NOW + timedelta(hours=3)).paged == 2
    assert sorted(hook.titles()) == [f"table held: {view}", "table held: subscription"]


def test_what_is_alike_but_for_names_and_numbers_is_one_cause() -> None:
    def failed(table: str, reason: str, since: date = NIGHT) -> TableState:
        return TableState(table=table, night=NIGHT, state="failed", since=since, reason=reason, cause=table)

    states = [
        failed("raw.a", "raw.a: 3 of 55 rows undated"), failed("raw.b", "raw.b: 14 of 90 rows undated"),
        failed("raw.c", "raw.c has no column x"),
        failed("raw.d", "raw.d: 3 of 5 rows undated", NIGHT - timedelta(days=1)),
        failed("other.e", "other.e: 3 of 55 rows undated"),
    ]  # fmt: skip
    source_of = dict.fromkeys(("raw.a", "raw.b", "raw.c", "raw.d"), "shop") | {"other.e": "web"}
    told = {
        fault.subject: [state.table for state in fault.tables] for fault in table_faults.together(states, source_of)
    }
    assert told == {"raw.a": ["raw.a", "raw.b"], "raw.c": ["raw.c"], "raw.d": ["raw.d"], "other.e": ["other.e"]}


def test_the_list_says_who_was_told_and_until_when_and_why_who_was_not(
    home: Rails, system: Hook, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A table that waits: other systems know of it at once, people when its two hours are over; with no pages left in
    the morning, with the digest."""
    published(home, silent("raw.payment", 12_000))

    def said(now: datetime) -> str:
        [how] = telling.listing(home, now).how
        return texts.how(how)

    telling.tell(home, NOW)
    assert said(NOW) == f"told webhook:OPS_HOOK; people not before {NIGHT} 11:00 UTC: it may end by itself"
    later = NOW + timedelta(hours=3)
    telling.tell(home, later)
    morning = NIGHT + timedelta(days=1)
    assert said(later) == (
        f"told webhook:OPS_HOOK; people not before {morning} 07:00 UTC: it is told in the morning with the others"
    )
    at_eight = NOW + timedelta(hours=23)
    telling.tell(home, at_eight)
    assert said(at_eight) == "told webhook:OPS_HOOK, env:HOOK_OF_DESK"


def test_who_did_not_take_it_and_who_is_in_no_route_is_said(home: Rails, hook: Hook) -> None:
    on_default(home)
    hook.status = 503
    telling.tell(home, NOW)
    [how] = telling.listing(home, NOW).how
    assert texts.how(how) == "not taken yet by env:HOOK_OF_DESK"
    rules = (ROOT / "models" / "portfolio.yaml").read_text() + "routes: [{owners: [others], to: [env:HOOK_OF_DESK]}]\n"
    (home.settings.models / "portfolio.yaml").write_text(rules)
    home.ledger.recover_default_task("churn", NIGHT, NIGHT)
    telling.tell(home, NOW)
    published(home, silent("raw.payment", 12_000))
    telling.tell(home, NOW)
    assert texts.how(telling.listing(home, NOW).how[-1]) == "no route takes it to anybody"


def test_a_table_that_is_held_for_another_reason_is_listed_with_it_and_told_anew_of_another_night(
    home: Rails, hook: Hook
) -> None:
    route_all(home)
    first = silent("raw.payment", 12_000)
    published(home, first)
    telling.tell(home, NOW)
    telling.tell(home, NOW + timedelta(hours=3))
    assert hook.titles() == ["table held: raw.payment"]
    published(home, replace(first, reason="3 rows undated"))
    telling.tell(home, NOW + timedelta(hours=4))
    [message] = telling.listing(home, NOW).messages
    assert (message.fact.reason, hook.titles()) == ("3 rows undated", []), "it is the same fault, as it is now"
    after = NIGHT + timedelta(days=1)
    published(home, TableState(table="raw.payment", night=after, state="published", snapshot=1), night=after)
    late = NIGHT + timedelta(days=2)
    published(home, replace(first, night=late, since=late, reason="9 rows undated"), night=late)
    tomorrow = NOW + timedelta(days=2)
    telling.tell(home, tomorrow)
    telling.tell(home, tomorrow + timedelta(hours=3))
    assert hook.titles() == ["table held: raw.payment"], "and no end of what goes on"
    assert [own.ended_at is None for own in telling.listing(home, tomorrow).messages] == [False, True]


def replace_name(settings: Settings, name: str) -> Spec:
    """The model under another name."""
    return find(settings.models, "churn").model_copy(update={"name": name})


def test_pages_are_judged_by_those_who_were_paged(home: Rails, hook: Hook) -> None:
    on_default(home)
    telling.tell(home, NOW)
    [message] = telling.listing(home, NOW).messages
    assert home.ledger.outbox.judge(message.id, False, "ann").judged_by == "ann"
    counts = telling.listing(home, NOW).precision
    assert (counts.pages, counts.judged, counts.needed) == (1, 1, 0)
    with pytest.raises(BadInput, match="There is no page 999; tiltyard alerts list"):
        home.ledger.outbox.judge(999, True, "ann")


def test_what_a_text_may_hold_is_posted_as_it_is(home: Rails, hook: Hook) -> None:
    """Long names, letters of all scripts, and markup: plain text to the service, and whole."""
    subject = "<script>alert(1)</script> ✨ {{ x }} " + "l" * 300
    fact = Fact(kind="incident", subject=subject, owner="subscriptions", tier=2, reason="a <b> & \0 c", link="/x")
    title, body = telling.texts.title(fact, NOW), telling.texts.body(fact, "http://x")
    to = {"occasion": "begun", "owner": "subscriptions", "to": "env:HOOK_OF_DESK"}
    entry = Sending.from_json({**to, "title": title, "body": body, "created_at": NOW.isoformat()})
    home.ledger.outbox.look(lambda standing: Look(opened=((fact, "page", (entry,)),)), NOW)
    [sent] = home.ledger.outbox.send(lambda each: telling.post(each, lambda name: None), NOW)
    assert sent.error is None
    assert subject in hook.posted[0]["title"]


def test_a_text_of_somebodys_is_one_line_of_a_message(home: Rails) -> None:
    """The name of a file, or what a delivery holds, can neither be a line of ours nor end the subject of a mail."""
    evil = "a.csv\r\nBcc: all@example.org\x1b[2J"
    fact = Fact(kind="quarantined", subject=evil, owner="x", tier=2, needs=evil, link="/x",
                reason="no rows.\nDo: approve it at http://evil.example")  # fmt: skip
    message = Message(id=1, fact=fact, weight="digest", opened_at=NOW)
    for title, body in (
        (telling.texts.title(fact, NOW), telling.texts.body(fact, "http://x")),
        telling.texts.over(message, NOW, "http://x"),
        telling.texts.digest([message], "http://x"),
    ):
        assert not {"\r", "\n", "\x1b"} & {*title}
        assert not re.search(r"(?m)^(Bcc|Do: approve)", body) and "\x1b" not in body


def test_a_message_that_cannot_be_read_keeps_no_other_from_being_told(home: Rails, hook: Hook) -> None:
    on_default(home)
    assert telling.tell(home, NOW).sent == 1
    with home.ledger.engine.begin() as connection:
        connection.execute(sa.text("update message set fact = '{}'"))
    assert telling.tell(home, NOW + timedelta(hours=1)).sent == 1, "it is told anew"
    assert telling.tell(home, NOW + timedelta(hours=2)).sent == 0, "and once"
    assert len(telling.listing(home, NOW).messages) == 1


def test_a_question_that_is_asked_anew_when_its_time_was_over_is_told_anew() -> None:
    """A promotion that the next night proposes again, whether the first question is closed by then or not; and one
    whose form came a while after it was proposed, which is the same question."""
    asked = Fact(kind="approve", subject="churn v2", owner="x", tier=1, reason="r", link="/x", since=NIGHT,
                 until=NOW + timedelta(hours=24))  # fmt: skip
    told = Message(id=1, fact=asked, weight="page", opened_at=NOW, weighed_at=NOW, reminders=2)
    standing = outbox.Standing(messages=(told,), paged={"x": 1}, digests={})
    next_night = replace(asked, since=NIGHT + timedelta(days=1), until=NOW + timedelta(hours=46))
    for fact, hours, opened in (
        (next_night, 25, 1), (next_night, 23, 1), (replace(asked, until=NOW + timedelta(hours=24.2)), 24.1, 0),
    ):  # fmt: skip
        decided = deciding.decide([fact], standing, Pages(), NOW + timedelta(hours=hours))
        assert len(decided.opened) == len(decided.replaced) == opened
        assert all((weight, new.until) == ("page", fact.until) for new, weight in decided.opened)


def test_one_who_is_told_anew_has_the_place_of_the_one_before(home: Rails) -> None:
    fact = Fact(kind="approve", subject="churn v2", owner="x", tier=1, reason="r", link="/x", since=NIGHT)
    box = home.ledger.outbox
    box.look(lambda standing: Look(opened=((fact, "page", ()),)), NOW)
    [first] = box.standing()
    box.look(lambda standing: Look(opened=((fact, "page", ()),), ended=(first.id,)), NOW)
    assert [message.id > first.id for message in box.standing()] == [True]


def test_a_table_keeps_nothing_else_from_being_told(home: Rails) -> None:
    """A table is held; stages of models fail, for another table whose name begins alike, and without standing on it."""
    published(home, TableState(table="ftr_customer__activity", night=NIGHT, state="held", since=NIGHT, reason="3 rows"))
    done(home)
    found = board.read(home, portfolio(home.settings), NOW)
    row = replace(found.models[0], state="failed")

    def told(model: str, reason: str) -> set[str]:
        rows = replace(found, models=(replace(row, model=model, reason=reason),))
        specs = [find(home.settings.models, "churn").model_copy(update={"name": name}) for name in ("churn", "other")]
        return {fact.kind for fact in facts.facts(rows, specs)}

    assert told("churn", "ftr_customer__activity (3 rows) failed on 2025-05-30") == {"table"}
    assert told("churn", "ftr_customer__activity_of_shops failed on 2025-05-30") == {"table", "failed"}
    assert told("other", "its shadow (ftr_customer__activity is away) failed") == {"table", "failed"}


@pytest.mark.parametrize(
    ("line", "says"),
    [
        ("routes: [{to: [https://hooks.example.org/secret]}]", "routes"),
        ("routes: [{owners: [x]}]", "to"),
        ("routes: [{to: [env:A], kinds: [nothing]}]", "kinds"),
        ("pages: {per_owner_week: -1}", "per_owner_week"),
        ("pages: {digest: '25:00'}", "digest"),
    ],
)
def test_routes_that_cannot_be_are_refused_with_their_line(tmp_path: Path, line: str, says: str) -> None:
    (tmp_path / "portfolio.yaml").write_text(f"\n{line}\n")
    with pytest.raises(BadInput, match=rf"portfolio.yaml:2: .*{says}"):
        load_portfolio(tmp_path)


SECRET = "whsec_" + base64.b64encode(b"a secret of both").decode()


@pytest.fixture
def system(hook: Hook, home: Rails, monkeypatch: pytest.MonkeyPatch) -> Hook:
    """Another system is told of everything, beside the people; of people nobody may be paged."""
    monkeypatch.setenv("OPS_HOOK", f"http://127.0.0.1:{hook.server.server_port}/system")
    monkeypatch.setenv("OPS_HOOK_SECRET", SECRET)
    rules = (ROOT / "models" / "portfolio.yaml").read_text()
    rules += "routes: [{to: [webhook:OPS_HOOK, env:HOOK_OF_DESK]}]\npages: {per_owner_week: 0}\n"
    (home.settings.models / "portfolio.yaml").write_text(rules)
    return hook


def test_another_system_is_told_of_all_that_begins_and_ends_whatever_people_are_spared(
    home: Rails, system: Hook
) -> None:
    on_default(home)
    assert telling.tell(home, NOW).sent == 1
    [posted] = system.posted
    assert (posted["path"], posted["type"], posted["subject"]) == ("/system", "tiltyard.explain.begun", "churn")
    assert posted["link"].startswith("http://") and "/dags/churn__explanation" in posted["link"]
    home.ledger.recover_default_task("churn", NIGHT, NIGHT)
    assert telling.tell(home, NOW + timedelta(hours=1)).sent == 1
    assert system.posted[1]["type"] == "tiltyard.explain.ended"


def test_what_is_posted_is_signed_and_sent_again_under_the_same_id(home: Rails, system: Hook) -> None:
    system.status = 503
    on_default(home)
    told = telling.tell(home, NOW)
    assert told.unsent == {"webhook:OPS_HOOK": "webhook:OPS_HOOK answered 503; it is tried again at the next look."}
    system.status = 200
    assert telling.tell(home, NOW + timedelta(minutes=10)).sent == 1
    [(headers, body)] = system.raw
    signed = b".".join((headers["webhook-id"].encode(), headers["webhook-timestamp"].encode(), body))
    expected = base64.b64encode(hmac.new(b"a secret of both", signed, "sha256").digest()).decode()
    assert headers["webhook-signature"] == f"v1,{expected}"
    assert abs(int(headers["webhook-timestamp"]) - clock.now().timestamp()) < 60
    assert SECRET not in str(system.raw)


def test_a_signature_is_that_of_the_standard() -> None:
    """The example of https://github.com/standard-webhooks/standard-webhooks/blob/main/libraries/python/tests."""
    secret = base64.b64decode("MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw")
    body = b'{"test": 2432232314}'
    expected = "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE="
    assert webhook.signature(secret, "msg_p5jXN8AQM9LWM0D4loKWxJek", "1614265330", body) == expected


@pytest.mark.parametrize(
    ("url", "secret", "sentence"),
    [("", SECRET, "OPS_HOOK is not set"), ("https://example.org", "", "OPS_HOOK_SECRET is not set"),
     ("http://example.org/x", SECRET, "holds no https:// address"), ("https://example.org", "whsec_!", "is no base64")],
)  # fmt: skip
def test_a_webhook_that_cannot_be_is_told_in_a_sentence(
    home: Rails, system: Hook, monkeypatch: pytest.MonkeyPatch, url: str, secret: str, sentence: str
) -> None:
    monkeypatch.setenv("OPS_HOOK", url)
    monkeypatch.setenv("OPS_HOOK_SECRET", secret)
    on_default(home)
    assert sentence in telling.tell(home, NOW).unsent["webhook:OPS_HOOK"]


@pytest.mark.parametrize(
    "url",
    ["https://[::", "https://\udcff/", "https://xn--/", f"https://{'a' * 300}.org/", "https://nowhere.invalid\n/"],
)
def test_an_address_that_no_library_reads_costs_the_others_nothing(
    home: Rails, system: Hook, monkeypatch: pytest.MonkeyPatch, url: str
) -> None:
    monkeypatch.setenv("OPS_HOOK", url)
    told = telling.test(home, "subscriptions", NOW)
    assert told.sent == 1 and "webhook:OPS_HOOK" in told.unsent, "the desk hears of it"
    assert url not in str(told)


class Slow:
    """A service that listens on loopback and answers a byte of its headers at a time, until it is ended: the threads
    that wait for the rest are waited for where the process ends."""

    def __init__(self) -> None:
        self.asked, self.is_over = 0, False
        self.listener = socket.create_server(("127.0.0.1", 0))
        threading.Thread(target=self.listen, daemon=True).start()

    def listen(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                connection, _ = self.listener.accept()
                self.asked += 1
                threading.Thread(target=self.answer, args=(connection,), daemon=True).start()

    def answer(self, connection: socket.socket) -> None:
        with contextlib.suppress(OSError), connection:
            connection.sendall(b"HTTP/1.1 200 OK\r\nx: ")
            while not self.is_over:
                connection.sendall(b"x")
                time.sleep(0.1)

    def end(self) -> None:
        self.is_over = True
        self.listener.close()


@pytest.mark.parametrize("to", ["webhook:OPS_HOOK", "env:HOOK_OF_PAGER"])
def test_who_answers_slowly_and_has_hundreds_waiting_holds_nobody_up(
    home: Rails, system: Hook, monkeypatch: pytest.MonkeyPatch, to: str
) -> None:
    slow = Slow()
    monkeypatch.setenv("OPS_HOOK", f"http://127.0.0.1:{slow.listener.getsockname()[1]}/")
    monkeypatch.setenv("HOOK_OF_PAGER", f"json://127.0.0.1:{slow.listener.getsockname()[1]}/")
    monkeypatch.setattr(telling, "PATIENCE_S", 0.5)
    queued = Sending(occasion="begun", owner="x", to=to, title="t", body="{}", created_at=NOW)
    mine = replace(queued, to="env:HOOK_OF_DESK", title="for the desk")
    home.ledger.outbox.put([queued] * 300)
    home.ledger.outbox.put([mine])
    tried = home.ledger.outbox.send(lambda entry: telling.post(entry, lambda name: None), NOW)
    slow.end()
    assert system.titles() == ["for the desk"]
    assert slow.asked == len(tried) - 1 == outbox.AWAY, "one that is away is left alone until the next look"
    assert {entry.error for entry in tried if entry.to == to} == {
        f"{to} had not answered after 0.5 s; it is tried again."
    }


def test_a_redirected_webhook_is_not_followed(home: Rails, system: Hook) -> None:
    system.status = 307
    on_default(home)
    assert "answered 307" in telling.tell(home, NOW).unsent["webhook:OPS_HOOK"]
    assert not system.raw


def test_a_test_reaches_other_systems_as_well(home: Rails, system: Hook) -> None:
    assert telling.test(home, "subscriptions", NOW).sent == 2
    assert {entry.get("type") for entry in system.posted} == {None, "info", "tiltyard.test"} - {None}


def test_a_cause_that_many_share_is_one_fact_whatever_its_figures_are_tonight() -> None:
    def failed(model: str, reason: str, night: date) -> board.ModelRow:
        return board.ModelRow(
            model=model,
            owner="desk",
            tier=2,
            source="shop",
            state="failed",
            reason=reason,
            measure="brier",
            night=night,
        )

    def keys(night: date, least: int) -> set[str]:
        why = f"of 55 rows of a table are undated on {night})"
        rows = [failed(f"m{place}", f"its shadow of m{place} ({least + place} {why}", night) for place in range(4)]
        other = failed("other", "its training (no column x)", night)
        groups = facts._alike([*rows, other])
        assert [len(group) for group in groups] == [4, 1]
        return {fact.key for group in groups for fact in facts._of_rows(group, {})}

    assert keys(NIGHT, 3) == keys(NIGHT + timedelta(days=1), 21)
