"""A person is erased: from deliveries, lake, answers, frames, pages and databases, at every snapshot; nobody else's
scores change, and nothing of them comes back."""

import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from datetime import date, timedelta
from functools import partial
from pathlib import Path

import duckdb
import orjson
import pandas as pd
import pytest
import yaml

from tests.conftest import know_project, make_settings
from tests.homes import cursor
from tiltyard import clock, tombstones
from tiltyard import rails as rails_module
from tiltyard.edge import board
from tiltyard.errors import BadInput
from tiltyard.govern import look, routine
from tiltyard.judge import shadow
from tiltyard.lake import identifier, put, stored
from tiltyard.online import fill, streams
from tiltyard.online.connection import connect
from tiltyard.online.store import TableNote, table_note
from tiltyard.prepare import features
from tiltyard.prepare.frame import TrainingFrame
from tiltyard.prepare.simulator import Simulator
from tiltyard.rails import Rails
from tiltyard.records import Operation
from tiltyard.serve.spool import Spool
from tiltyard.settings import ROOT, Settings
from tiltyard.spec import find
from tiltyard.tables import CHECK_RESULT, PREDICTION, REQUEST, REQUEST_SHADOW
from tiltyard.train import replay, training
from tiltyard.upkeep.erasing import home_places
from tiltyard.upkeep.erasing.erase import erase
from tiltyard.upkeep.erasing.places import PLACES
from tiltyard.upkeep.erasing.subject import subject

FIRST = date(2025, 1, 1)
DAYS = 40
AS_OF = clock.midnight(FIRST + timedelta(days=DAYS))
DAY = timedelta(days=1)
FAR = 7_000_000_000
"""Added to the simulator's numbers: what has ten digits is nothing else by chance."""


STOPPED_WRITER = """
import os, signal, sys
from pathlib import Path
from tiltyard.files import whole
path = Path(sys.argv[1])
with whole(path) as part:
    part.write_bytes(path.read_bytes())
    print(part, flush=True)
    os.kill(os.getpid(), signal.SIGKILL)
"""
"""Copies a file beside itself, and is killed before the copy has its name."""


def deliver(near: Path, landing: Path, days: int) -> None:
    """The simulated business of the first so many days, with numbers of ten digits."""
    for path in sorted(near.glob("*/*.parquet")):
        place = landing / path.relative_to(near)
        if place.exists() or date.fromisoformat(path.stem) >= FIRST + timedelta(days=days):
            continue
        place.parent.mkdir(parents=True, exist_ok=True)
        duckdb.execute(
            f"copy (select * replace (customer_id + {FAR} as customer_id) from read_parquet('{path}')) "
            f"to '{place}' (format parquet)"
        )


@pytest.fixture(scope="module")
def near(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The business of a day more than the home begins with."""
    folder = tmp_path_factory.mktemp("near")
    Simulator(customers=400, start=FIRST, days=DAYS + 1).land(folder)
    return folder


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two models about the same customers, of which one asks for a retrain."""
    folder = tmp_path_factory.mktemp("models")
    for name in ("churn", "leaving"):
        shutil.copytree(ROOT / "models" / "churn", folder / name)
        spec = yaml.safe_load((folder / name / "spec.yaml").read_text())
        spec["estimator"] |= {"tune": {"trials": 2}, "window": "14d"}
        spec["gate"] |= {"min_matured": 50, "min_shadow": "1d"}
        if name == "leaving":
            spec["privacy"] = {"on_erasure": "retrain"}
        (folder / name / "spec.yaml").write_text(yaml.safe_dump(spec))
    return folder


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory, postgres_url: str, models: Path, near: Path) -> Settings:
    """Two nights built and scored, two versions trained, the store filled, one answered online; a file in quarantine, a
    check that failed, an event that was put aside, a reason and a page that name them."""
    folder = tmp_path_factory.mktemp("erasing")
    settings = make_settings(folder, postgres_url, models=models, sources=("subscription",))
    deliver(near, settings.landing / "subscription", DAYS)
    know_project(settings, postgres_url)
    with rails_module.opened(settings) as rails:
        for as_of in (AS_OF - DAY, AS_OF):
            features.build_night(rails, as_of, render=False)
            for name in ("churn", "leaving"):
                shadow.shadow_night(rails, find(models, name), as_of)
        for name in ("churn", "leaving"):
            training.train(rails, find(models, name), AS_OF, requested_by="tests", reasons=("first",))
        fill.materialise(rails, AS_OF)
        for place, who in enumerate(people(rails)):
            name_everywhere(rails, who, place)
    return settings


@pytest.fixture
def rails(home: Settings) -> Iterator[Rails]:
    with rails_module.opened(home) as opened:
        yield opened


def people(rails: Rails) -> list[str]:
    """Customers who were scored and are in a frame and have rows in every table but of cancellations."""
    rows = rails.lake.connection.execute(
        f"""
        select distinct entity_id from {identifier(PREDICTION)} where entity_id in (
            select customer_id from {identifier("labels.lbl_churn")}
        ) order by 1 limit 4
        """
    ).fetchall()
    return [str(who) for (who,) in rows]


def name_everywhere(rails: Rails, who: str, place: int) -> None:
    """What a night leaves of somebody in places that are of no table."""
    settings = rails.settings
    lies = settings.quarantine / "subscription" / "login" / f"2025-01-0{place + 1}.csv"
    lies.parent.mkdir(parents=True, exist_ok=True)
    lies.write_text(f"login_id;customer_id\n1;{who}\n2;12\n")
    lies.with_name(f"{lies.name}.reason.json").write_text(json.dumps({"reason": f"column is '{who}' in row 1"}))
    aside = settings.home / "streams" / "kinesis.x.jsonl"
    aside.parent.mkdir(exist_ok=True)
    with aside.open("a") as file:
        file.write(json.dumps({"place": "1", "content": json.dumps({"key": who})}) + "\n")
        file.write(json.dumps({"place": "2", "content": "{}"}) + "\n")
    page = settings.reports / "checks" / f"{place}.html"
    page.parent.mkdir(parents=True, exist_ok=True)
    page.write_text(f"<p>{who} failed<table><tr><td>{who}</td><td>FR</td></tr><tr><td>8</td></tr></table>")
    called = settings.reports / f"of {who}" / f"{who}.html"
    called.parent.mkdir(parents=True)
    called.write_text("<p>a page that is called like them")
    lies.with_name(f"2025-01-09-{who}.csv").write_text("nothing of them")
    log_of = settings.home / "logs" / "x.log"
    log_of.parent.mkdir(exist_ok=True)
    with log_of.open("a") as file:
        file.write(f"done with customer={who} in 3 s\n")
    rails.ledger.add_event("noted", "churn", None, {"text": f"looked at {who}, twice"})
    asked_for = Operation(
        model="churn", action="freeze", reason=f"complaint of {who}", requested_by="tests", source="command line",
        requested_at=clock.now(), until=clock.now() + DAY,
    )  # fmt: skip
    rails.ledger.operations.ask("churn", lambda: asked_for)
    row = {
        "suite": "s",
        "table_name": "raw.login",
        "check_name": "c",
        "success": False,
        "detail": f"row of {who} failed",
    }
    rails.lake.ensure(CHECK_RESULT)
    rails.lake.commit(lambda connection: put(connection, CHECK_RESULT, {}, pd.DataFrame([row])), message="check")
    rails.lake.ensure(REQUEST)
    rails.lake.ensure(REQUEST_SHADOW)
    asked = {"request_id": f"r{place}", "row": 0, "model": "churn", "entity_id": who, "score": 0.5, "features": "{}"}
    shadowed = {"request_id": f"r{place}", "row": 0, "model": "churn", "version": 1, "score": 0.25}

    def answered(connection: duckdb.DuckDBPyConnection) -> None:
        put(connection, REQUEST, {}, pd.DataFrame([asked]))
        put(connection, REQUEST_SHADOW, {}, pd.DataFrame([shadowed]))

    rails.lake.commit(answered, message="requests")
    log = Spool(settings.spool)
    log.write([request(f"s{place}", who), request(f"t{place}", "somebody else")])
    log.close()


def request(name: str, who: str) -> bytes:
    """A record of the request log."""
    at = "2025-02-10T00:00:00+00:00"
    return orjson.dumps(
        {"kind": "request", "request_id": name, "row": 0, "model": "churn", "arm": "champion", "version": 1,
         "tier": "champion", "reason": "in_service", "score": 0.5, "entity_id": who, "prediction_time": at,
         "scored_at": at, "latency_us": 900, "snapshot": None, "features": {}, "given": [], "views": {}, "key": None}
    )  # fmt: skip


def features_of_others(rails: Rails) -> dict[str, list[tuple[object, ...]]]:
    """View → its rows of everybody who is not erased in these tests, of the days that the home begins with."""
    gone = ", ".join(f"'{who}'" for who in PEOPLE)
    return {
        view: rails.lake.connection.execute(
            f"select * exclude (built_at) from {stored(view)} where customer_id not in ({gone}) "
            f"and event_time < timestamptz '{AS_OF - DAY}' and available_at < timestamptz '{AS_OF - DAY}' order by all"
        ).fetchall()
        for view in find(rails.settings.models, "churn").tables
    }


def scores(rails: Rails, at: int | None = None) -> list[tuple[object, ...]]:
    """The scores of everybody who is not erased in these tests."""
    gone = ", ".join(f"'{who}'" for who in PEOPLE)
    return rails.lake.connection.execute(
        f"select * exclude (scored_at) from {stored(PREDICTION, at)} "
        f"where entity_id is not null and entity_id not in ({gone}) order by all"
    ).fetchall()


PEOPLE: list[str] = []
"""Who is erased here, one after the other."""
MADE: dict[str, list[tuple[object, ...]]] = {}
"""View → its rows of everybody else, before anybody was erased."""


def found_by_bytes(rails: Rails, who: str) -> list[str]:
    """Where somebody still is, looked for with nothing of what erases: every file of the home, what it is called and
    what is packed in it, and every column of every table of PostgreSQL."""
    settings, hits, keys = rails.settings, [], keys_of_files(rails.settings)
    for path in sorted(settings.home.rglob("*")):
        if who in path.name:
            hits.append(str(path))
        if not path.is_file() or who in path.name:
            continue
        content = path.read_bytes()
        if who.encode() in content or int(who).to_bytes(8, "little") in content:
            hits.append(str(path))
        elif path.name in keys or (content[:4] == b"PAR1" and content[-4:] == b"PAR1"):  # whatever it is called
            key = keys.get(path.name)
            opened = f", encryption_config = {{footer_key_value: from_base64('{key}')}}" if key else ""
            rows = duckdb.execute(f"select * from read_parquet('{path}', file_row_number = true{opened})").df()
            if who in rows.to_csv():
                hits.append(str(path))
    for name in ("ledger", "lake", "mlflow"):  # nothing has started Airflow here
        dump = dumped(settings, name)
        if who in dump or "\\x" + who.encode().hex() in dump:
            hits.append(name)
    return hits


def keys_of_files(settings: Settings) -> dict[str, str | None]:
    """Name of a file of the lake → its key. An encrypted one that is not here, and waits to go, nobody reads."""
    with cursor(settings, settings.database("lake")) as database:
        database.execute(
            "select path, encryption_key from ducklake_data_file union all "
            "select path, encryption_key from ducklake_delete_file"
        )
        return {path.rpartition("/")[2]: key for path, key in database.fetchall()}


def dumped(settings: Settings, name: str) -> str:
    """Every row of a database as text."""
    rows = []
    with cursor(settings, settings.database(name)) as database:
        database.execute("select schemaname, tablename from pg_tables where schemaname not like 'pg_%'")
        for schema, table in database.fetchall():
            if schema != "information_schema":
                database.execute(f'select t::text from "{schema}"."{table}" t')
                rows += [row for (row,) in database.fetchall()]
    return "\n".join(rows)


def test_nobody_is_erased_by_a_slip_of_the_pen(rails: Rails) -> None:
    PEOPLE[:] = people(rails)
    MADE.update(features_of_others(rails))
    before = rails.lake.snapshot()
    ask = partial(erase, rails, by="tests")
    with pytest.raises(BadInput, match="Nobody here knows this one"):
        ask(["7999999999"], entity="customer", reason="request 17")
    with pytest.raises(BadInput, match="No model is about a 'ticket'"):
        ask([PEOPLE[0]], entity="ticket", reason="request 17")
    with pytest.raises(BadInput, match="for a reason"):
        ask([PEOPLE[0]], entity="customer", reason=" ")
    with pytest.raises(BadInput, match="The reason names who is to be erased"):
        ask([PEOPLE[0]], entity="customer", reason=f"request of {PEOPLE[0]}")
    with pytest.raises(BadInput, match="1,000 at most"):
        ask([str(FAR + number) for number in range(1_001)], entity="customer", reason="request 17")
    assert rails.lake.snapshot() == before
    assert rails.ledger.erasures.hashes() == ({}, set())


def test_what_a_person_may_know_is_what_would_be_erased(rails: Rails) -> None:
    who = PEOPLE[0]
    found = subject(rails, who, entity=None, most=3)
    held = {place.place: {part.part: part for part in place.parts} for place in found.places}
    assert held["lake"]["raw.login"].count > 3
    assert len(held["lake"]["raw.login"].rows) == 3
    assert held["lake"]["raw.login"].rows[0]["customer_id"] == int(who)
    assert held["lake"][PREDICTION.name].count == 2
    assert held["lake"][REQUEST.name].rows[0]["entity_id"] == who
    assert held["lake"][REQUEST_SHADOW.name].count == 1
    assert held["lake"]["ops.check_result.detail"].count == 1
    assert {"landing zone", "quarantine"} <= held["deliveries"].keys()
    assert held["spool"]["segments"].count == 1
    assert held["ledger"]["event.detail"].count == 2
    assert held["streams"] and held["frames"] and held["online"] and held["files"]
    assert {(one.model, one.version) for one in found.learned} == {("churn", 1), ("leaving", 1)}
    assert json.dumps(found.to_json())
    with pytest.raises(BadInput, match="Nobody here knows"):
        subject(rails, "7999999999", entity="customer", most=1)


def test_a_person_is_erased_everywhere_and_nobody_else_at_any_snapshot(rails: Rails) -> None:
    who = PEOPLE[0]
    before, snapshot = scores(rails), rails.lake.snapshot()
    old = {number: scores(rails, number) for number in (snapshot - 6, snapshot - 3)}
    head = rails.ledger.verify().head
    assert len(found_by_bytes(rails, who)) > 20
    done = erase(rails, [who], entity="customer", by="tests", reason="request 17")
    receipt = done.receipt
    assert receipt.left == ()
    assert found_by_bytes(rails, who) == []
    assert who not in json.dumps(receipt.to_json())
    assert receipt.counts["lake"]["raw.login"] > 0 and receipt.counts["frames"]
    assert {(one.model, one.version, one.follows) for one in receipt.learned} == {
        ("churn", 1, "record"), ("leaving", 1, "retrain"),
    }  # fmt: skip
    assert scores(rails) == before
    assert {number: scores(rails, number) for number in old} == old
    assert rails.ledger.verify(head).faults == ()
    assert [one.erasure for one in rails.ledger.erasures.receipts(done=True)] == [receipt.erasure]
    kept = rails.settings.quarantine / "subscription" / "login" / "2025-01-01.csv"
    assert kept.read_text() == "login_id;customer_id\n2;12\n"
    asked = rails.lake.connection.execute(f"select request_id from {identifier(REQUEST)} order by 1").fetchall()
    assert [name for (name,) in asked] == [
        "r1",
        "r2",
        "r3",
        "s1",
        "s2",
        "s3",
        "t0",
        "t1",
        "t2",
        "t3",
    ], "with what was on its way, without theirs"
    with pytest.raises(BadInput, match="was erased"):
        frame_of(rails).read()


def frame_of(rails: Rails) -> TrainingFrame:
    facts = rails.ledger.versions("churn")[0].facts
    path = rails.settings.frames / f"{facts.frame}.parquet"
    return TrainingFrame(path, str(facts.frame), 0, 0, 0, AS_OF, AS_OF, (), 0)


def test_twice_is_once(rails: Rails) -> None:
    first = rails.ledger.erasures.receipts()[-1]
    again = erase(rails, [PEOPLE[0]], entity="customer", by="others", reason="request 18")
    assert again.was_before and again.receipt == first


def test_a_retrain_is_due_where_the_spec_asks_for_it(rails: Rails) -> None:
    models = rails.settings.models
    since = {
        name: look.since_training(rails, find(models, name), AS_OF, before=date.max) for name in ("churn", "leaving")
    }
    assert (since["churn"].is_erased, since["leaving"].is_erased) == (False, True)
    [reason] = routine.due(find(models, "leaving").retrain, since["leaving"], AS_OF.date())
    assert "privacy.on_erasure is retrain" in reason


def test_they_do_not_come_back_and_the_next_night_is_green(rails: Rails, near: Path) -> None:
    who, landing = PEOPLE[0], rails.settings.landing / "subscription"
    shutil.rmtree(landing)
    deliver(near, landing, DAYS + 1)  # all that was delivered comes again, under its names, with the next day
    shutil.copy(landing / "login" / "2025-01-20.parquet", landing / "login" / "2025-02-10T00.parquet")
    night = AS_OF + DAY
    built = features.build_night(rails, night, render=False)
    source = built.sources["subscription"]
    assert source.error is None and source.checks is not None and not source.checks.unpublished
    landed = source.ingest
    assert landed is not None and landed.erased > 50 and not landed.quarantined
    assert landed.repeated == 1
    assert any("of those who were erased" in note for note in landed.notes)
    assert features_of_others(rails) == MADE and all(MADE.values())
    for name in ("churn", "leaving"):
        assert shadow.shadow_night(rails, find(rails.settings.models, name), night).rows > 10
    assert found_by_bytes(rails, who) == []
    verdict = replay.replay_nights(rails, find(rails.settings.models, "churn"), [(AS_OF, night)])
    assert verdict.verdict in ("pass", "untestable") and not [c for c in verdict.changes if c.severity]
    store = connect(rails.settings)
    sink = streams.Sink(store, "x", rails.settings.home / "streams", erased=partial(tombstones.copied, rails.settings))
    columns = store.read_note(table_note("ftr_customer__profile"), TableNote).columns
    values = dict.fromkeys(columns)
    event = {"view": "ftr_customer__profile", "values": values, "event_time": "2025-02-11T00:00:00Z",
             "available_at": "2025-02-11T00:00:00Z"}  # fmt: skip
    sink.take([("1", orjson.dumps({**event, "key": who})), ("2", orjson.dumps({**event, "key": PEOPLE[3]}))])
    assert (sink.counts["erased"], sink.counts["written"]) == (1, 1)
    assert store.get([("ftr_customer__profile", who)]) == [None]


def test_whoever_is_killed_goes_on(home: Settings) -> None:
    """Killed at five moments, the sixth call ends what the others began, and counts what the first one has found."""
    who, rng = PEOPLE[1:3], random.Random(46)
    names = home.home.parent / "names.txt"
    names.write_text("\n".join(who))
    environment = {
        "TILTYARD_HOME": str(home.home), "TILTYARD_MODELS": str(home.models), "TILTYARD_SOURCES": "subscription",
        "TILTYARD_DATABASE_URL": home.database_url or "", "TILTYARD_DATABASE_PREFIX": home.database_prefix,
    }  # fmt: skip
    command = [sys.executable, "-m", "tiltyard.cli", "erase", "--from", str(names), "--reason", "request 19"]
    places = [place.name for place in PLACES]
    for label in sorted(rng.sample([f"erasing: {name}" for name in places], 5), key=lambda one: places.index(one[9:])):
        running = subprocess.Popen(command, env=os.environ | environment, stderr=subprocess.PIPE, text=True)
        assert running.stderr is not None
        for line in running.stderr:
            if label in line:
                time.sleep(rng.uniform(0, 0.5))
                running.send_signal(signal.SIGKILL)
        running.wait()
        assert running.returncode in (-signal.SIGKILL, 0)
    ended = subprocess.run([*command, "--json"], env=os.environ | environment, capture_output=True, text=True)
    assert ended.returncode == 0, ended.stderr
    receipt = json.loads(ended.stdout)["receipt"]
    with rails_module.opened(home) as rails:
        for one in who:
            assert found_by_bytes(rails, one) == []
        assert rails.ledger.verify().faults == ()
        assert rails.ledger.erasures.unfinished() == []
    assert receipt["left"] == [] and receipt["counts"]["lake"][PREDICTION.name] >= 4
    assert receipt["counts"]["lake"]["raw.login"] > 10


def test_what_is_left_is_said_and_shown(rails: Rails, monkeypatch: pytest.MonkeyPatch) -> None:
    who = PEOPLE[3]
    named = next(path for path in found_by_bytes(rails, who) if "/landing/" in path)
    stopped = subprocess.run([sys.executable, "-c", STOPPED_WRITER, named], stdout=subprocess.PIPE, text=True)
    part = Path(stopped.stdout.strip())
    assert stopped.returncode == -signal.SIGKILL and part.exists()
    kept = rails.settings.home / "cache" / "kept.bin"
    kept.parent.mkdir(exist_ok=True)
    kept.write_bytes(b"x" + b"\0" + who.encode() + b"\0")
    failed = erase(rails, [who], entity="customer", by="tests", reason="request 20")
    assert not part.exists()
    assert failed.receipt.left == ("files: cache (1)",)
    assert any(str(kept) in note for note in failed.receipt.notes)
    item = [one for one in board.read(rails, [], clock.now()).inbox if one.kind == "unerased"]
    assert "failed erasure" in item[0].reason and who not in item[0].reason
    kept.write_bytes(b"nobody")
    monkeypatch.setattr(home_places, "_cannot_be_read", lambda path: "Input/output error" if path == kept else None)
    unread = erase(rails, [who], entity="customer", by="tests", reason="request 20")
    assert unread.receipt.left == ("files: cache (1)",)
    assert any(f"{kept} cannot be read (Input/output error)" in note for note in unread.receipt.notes)
    kept.unlink()
    done = erase(rails, [who], entity="customer", by="tests", reason="request 20")
    assert done.receipt.left == () and done.receipt.attempt == 3
    assert done.receipt.counts["lake"]["raw.login"] == failed.receipt.counts["lake"]["raw.login"]
    assert not [one for one in board.read(rails, [], clock.now()).inbox if one.kind == "unerased"]
    assert found_by_bytes(rails, who) == []
