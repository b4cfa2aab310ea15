"""A night's answers come to where the spec says, exactly once: a folder, a bucket, a table; whoever is away or dies."""

import io
import json
import threading
from collections.abc import Iterator
from dataclasses import replace
from datetime import date, timedelta
from pathlib import Path
from typing import Any

import boto3
import pandas as pd
import psycopg2
import pytest
import yaml
from moto.server import ThreadedMotoServer
from sqlalchemy.engine import make_url

from tests.lakes import FEATURES, LABELS, SPINES, fill, instant, small_spec
from tests.unit.answered.test_predictions import tiltyard
from tiltyard import clock
from tiltyard import rails as rails_module
from tiltyard import spec as specs
from tiltyard.answered import delivery, destination, predictions
from tiltyard.edge import board, describe, work
from tiltyard.edge.board import Asked
from tiltyard.edge.told import facts
from tiltyard.errors import BadInput, OutOfTime, Stopped, Unavailable
from tiltyard.judge import shadow
from tiltyard.prepare.fetch import credentials
from tiltyard.rails import Rails
from tiltyard.records import FeaturesSummary
from tiltyard.settings import Settings
from tiltyard.spec import Spec

NIGHT = instant("2024-03-03")
DAY = timedelta(days=1)
KEY, PASSWORD = "wJalr'XUtn\\FEMI/K7MDENG\"+bPx=RfiCYEXAMPLE", "pX7!qc'ata\\log@uE9zW"


@pytest.fixture
def shop(settings: Settings, tmp_path: Path) -> Iterator[Rails]:
    """Two nights of visits to a shop, and a model that is on its safe default."""
    own = settings.model_copy(update={"models": tmp_path / "models", "sources": ("shops",)})
    with rails_module.opened(own) as rails:
        small_spec(tmp_path)
        rows = [
            {"visit_id": f"v{day}{place}", "shop_id": "s1", "prediction_time": NIGHT + day * DAY - place * DAY / 24}
            for day in range(3)
            for place in range(1, 4)
        ]
        fill(rails, SPINES, rows)
        fill(rails, FEATURES, [{"shop_id": "s1", "size": 3, "event_time": instant("2024-03-01")}])
        fill(rails, LABELS, [])
        rails.ledger.record_stage("shops", NIGHT.date(), "done", FeaturesSummary(snapshot=rails.lake.snapshot()))
        yield rails


@pytest.fixture
def bucket(monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "key")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", KEY)
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    client = boto3.client("s3", endpoint_url=f"http://{host}:{port}", region_name="us-east-1")
    client.create_bucket(Bucket="scores")
    yield client
    server.stop()


def delivering(rails: Rails, **deliver: object) -> Spec:
    """The model with this `deliver` in its spec."""
    path = rails.settings.models / "small" / "spec.yaml"
    content = yaml.safe_load(path.read_text())
    path.write_text(yaml.safe_dump({**content, "deliver": deliver}))
    return specs.load(path.parent)


def on_s3(rails: Rails, bucket: Any) -> Rails:
    host = str(bucket.meta.endpoint_url).removeprefix("http://")
    return replace(rails, settings=rails.settings.model_copy(update={"s3_endpoint": host, "s3_insecure": True}))


def night(rails: Rails, spec: Spec, *nights: Any) -> delivery.DeliverySummary | None:
    """What the shadow stage does for a model on some nights."""
    days = [as_of.date() for as_of in nights]
    delivery.owe(rails, spec, days)
    for as_of in nights:
        shadow.shadow_night(rails, spec, as_of)
    return delivery.deliver(rails, spec, scored=days)


def database(rails: Rails, monkeypatch: pytest.MonkeyPatch) -> Any:
    """A connection to a database of somebody else's, which Airflow's connection `crm` names."""
    url = make_url(rails.settings.database_url or "")
    name = f"{rails.settings.database_prefix}crm"
    server = psycopg2.connect(host=url.query.get("host", url.host), user=url.username, dbname="postgres")
    server.autocommit = True
    with server.cursor() as cursor:
        cursor.execute(f"create database {name}")
    server.close()
    connection = {
        "conn_type": "postgres", "host": url.query.get("host", url.host), "login": url.username, "schema": name,
        "password": PASSWORD,
    }  # fmt: skip
    monkeypatch.setenv("AIRFLOW_CONN_CRM", json.dumps(connection))
    opened = psycopg2.connect(host=connection["host"], user=url.username, dbname=name)
    opened.autocommit = True
    return opened


def test_a_folder_gets_a_file_per_night_and_twice_is_once(shop: Rails) -> None:
    spec = delivering(shop, folder="out/scores", format="csv")
    assert night(shop, spec, NIGHT, NIGHT + DAY).delivered == {NIGHT.date(): 3, (NIGHT + DAY).date(): 3}
    folder = shop.settings.home / "out" / "scores"
    first = {path.name: path.read_bytes() for path in folder.iterdir()}
    assert first.keys() == {"small_2024-03-03.csv", "small_2024-03-04.csv"}
    rows = pd.read_csv(io.BytesIO(first["small_2024-03-03.csv"]))
    assert list(rows.columns) == list(predictions.COLUMNS)
    assert set(rows["tier"]) == {"safe_default"}
    assert rows["reason"].notna().all()
    assert night(shop, spec, NIGHT).delivered == {NIGHT.date(): 3}
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == first
    assert delivery.deliver(shop, spec) == delivery.DeliverySummary(to="out/scores")


def test_a_bucket_gets_the_same_bytes_as_a_folder(shop: Rails, bucket: Any) -> None:
    rails = on_s3(shop, bucket)
    assert night(rails, delivering(shop, folder="s3://scores/daily"), NIGHT).owed == ()
    body = bucket.get_object(Bucket="scores", Key="daily/small_2024-03-03.parquet")["Body"].read()
    assert len(pd.read_parquet(io.BytesIO(body))) == 3
    night(rails, delivering(shop, folder="out"), NIGHT)
    assert (shop.settings.home / "out" / "small_2024-03-03.parquet").read_bytes() == body
    night(rails, delivering(shop, folder="s3://scores/daily"), NIGHT)
    assert [entry["Key"] for entry in bucket.list_objects_v2(Bucket="scores")["Contents"]] == [
        "daily/small_2024-03-03.parquet"
    ]


def test_the_keys_of_a_bucket_may_be_those_of_a_connection(
    shop: Rails, bucket: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("AWS_SECRET_ACCESS_KEY")
    uri = f"aws://me:secret%40@/?endpoint_url={bucket.meta.endpoint_url.replace(':', '%3A').replace('/', '%2F')}"
    monkeypatch.setenv("AIRFLOW_CONN_LAKE_OUT", uri)
    spec = delivering(shop, folder="s3://scores/theirs", format="csv", connection="lake_out")
    assert night(shop, spec, NIGHT).delivered == {NIGHT.date(): 3}
    assert bucket.get_object(Bucket="scores", Key="theirs/small_2024-03-03.csv")["Body"].read().count(b"\n") == 4


def test_a_table_gets_the_rows_of_a_night_once_however_often_and_by_how_many(
    shop: Rails, monkeypatch: pytest.MonkeyPatch
) -> None:
    theirs = database(shop, monkeypatch)
    spec = delivering(shop, table="public.small_scores", connection="crm")
    assert night(shop, spec, NIGHT).delivered == {NIGHT.date(): 3}
    assert night(shop, spec, NIGHT, NIGHT + DAY).delivered == {NIGHT.date(): 3, (NIGHT + DAY).date(): 3}

    def once_more() -> None:
        with rails_module.opened(shop.settings) as rails:
            delivery.again(rails, spec, NIGHT.date())

    threads = [threading.Thread(target=once_more) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    with theirs.cursor() as cursor:
        cursor.execute("select night, entity_id, score, version, tier, reason from small_scores order by 1, 2")
        rows = cursor.fetchall()
    assert [(row[0], row[1]) for row in rows] == [
        (date(2024, 3, 3 + day), f"v{day}{place}") for day in range(2) for place in range(1, 4)
    ]
    assert {row[2:5] for row in rows} == {(0.5, None, "safe_default")}
    theirs.close()


def test_a_destination_that_is_away_stops_nobody_and_is_caught_up_with_by_the_next_night(
    shop: Rails, bucket: Any
) -> None:
    rails = on_s3(shop, bucket)
    spec = delivering(shop, folder="s3://scores/late", format="csv")
    away = replace(rails, settings=rails.settings.model_copy(update={"s3_endpoint": "127.0.0.1:1"}))
    first = night(away, spec, NIGHT)
    assert (first.delivered, first.owed) == ({}, (NIGHT.date(),))
    assert "s3://scores/late/small_2024-03-03.csv was not written" in (first.reason or "")
    assert [part for part in (KEY, KEY[:6], KEY[-6:]) if part in (first.reason or "")] == []
    assert shop.ledger.finished("shadow", "small") == {NIGHT.date()}, "the night itself is done"
    [event] = shop.ledger.events("small", delivery.FAILED)
    assert event.detail["reason"] == first.reason
    standing = delivery.standing(shop, spec)
    assert standing.owed == (NIGHT.date(),)
    assert "owed: 2024-03-03: s3://scores/late" in describe.delivery(standing)
    [told] = undelivered(shop, spec)
    assert (told.subject, told.since, told.models) == ("small", NIGHT.date(), ("small",))
    assert told.reason.startswith("s3://scores/late") and told.reason.endswith(first.reason or "nothing")
    assert facts.facts(board.read(shop, [spec], clock.now()), [spec])[0].kind == "undelivered"
    second = night(rails, spec, NIGHT + DAY)
    assert second.delivered == {NIGHT.date(): 3, (NIGHT + DAY).date(): 3}
    assert delivery.standing(shop, spec).owed == ()
    assert undelivered(shop, spec) == []


def undelivered(rails: Rails, spec: Spec) -> list[Asked]:
    """What is told of answers that are not where they are to be."""
    return [item for item in board.read(rails, [spec], clock.now()).inbox if item.kind == "undelivered"]


def test_who_dies_between_a_night_and_its_delivery_owes_it(shop: Rails, monkeypatch: pytest.MonkeyPatch) -> None:
    """As the task does it: the next night's delivers both."""
    spec = delivering(shop, folder="out")

    def die(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(destination, "send", die)
        with pytest.raises(KeyboardInterrupt):
            work.shadow_model(shop, spec, [NIGHT])
    assert shop.ledger.finished("shadow", "small") == {NIGHT.date()}
    assert delivery.owed(shop, "small") == (NIGHT.date(),)
    work.shadow_model(shop, spec, [NIGHT + DAY])
    assert {path.name for path in (shop.settings.home / "out").iterdir()} == {
        "small_2024-03-03.parquet", "small_2024-03-04.parquet",
    }  # fmt: skip
    assert delivery.owed(shop, "small") == ()


def test_a_night_that_is_stopped_keeps_no_other_from_being_delivered(
    shop: Rails, monkeypatch: pytest.MonkeyPatch
) -> None:
    spec, score = delivering(shop, folder="out", format="csv"), shadow.score

    def held(rails: Rails, spec: Spec, as_of: Any) -> Any:
        if as_of == NIGHT:
            raise Stopped("small has no rows of 2024-03-03: its spine is held.")
        return score(rails, spec, as_of)

    monkeypatch.setattr(shadow, "score", held)
    with pytest.raises(Stopped):
        work.shadow_model(shop, spec, [NIGHT, NIGHT + DAY])
    assert [path.name for path in (shop.settings.home / "out").iterdir()] == ["small_2024-03-04.csv"]
    monkeypatch.setattr(shadow, "score", score)
    work.shadow_model(shop, spec, [NIGHT])
    assert len(list((shop.settings.home / "out").iterdir())) == 2


def test_what_nobody_foresaw_of_a_destination_is_an_event_and_a_limit_ends_it(
    shop: Rails, monkeypatch: pytest.MonkeyPatch
) -> None:
    spec = delivering(shop, folder="out")
    monkeypatch.setattr(destination, "send", lambda *_: 1 / 0)
    assert night(shop, spec, NIGHT).reason == "ZeroDivisionError, which nobody foresaw; the log says more."

    def late(*_: object) -> None:
        raise OutOfTime("shadow of small took longer than 30m")

    monkeypatch.setattr(destination, "send", late)
    with pytest.raises(OutOfTime):
        delivery.deliver(shop, spec)


def test_a_night_that_is_not_scored_is_not_delivered_and_a_hindcast_owes_nothing(shop: Rails) -> None:
    spec = delivering(shop, folder="out")
    delivery.owe(shop, spec, [NIGHT.date()])
    assert delivery.deliver(shop, spec).delivered == {}
    shadow.shadow_night(shop, spec, NIGHT + DAY)
    assert delivery.deliver(shop, spec).delivered == {}
    with pytest.raises(BadInput, match="no answers of 2024-03-03"):
        delivery.again(shop, spec, NIGHT.date())


@pytest.mark.parametrize(
    ("told", "sentence"),
    [
        (None, "There is no connection 'crm'; make one in Airflow"),
        ("no uri at all", "is neither a URI nor JSON"),
        ('{"host": ', "is neither a URI nor JSON"),
        (f"postgresql://me:{PASSWORD}@127.0.0.1:notaport/x", "is neither a URI nor JSON"),
        ("postgresql://me:pX7secret@127.0.0.1:1/x", "was not written"),
    ],
)
def test_a_connection_that_is_none_is_told_in_a_sentence_without_anything_of_it(
    shop: Rails, monkeypatch: pytest.MonkeyPatch, told: str | None, sentence: str
) -> None:
    monkeypatch.delenv("AIRFLOW_CONN_CRM", raising=False)
    if told is not None:
        monkeypatch.setenv("AIRFLOW_CONN_CRM", told)
    summary = night(shop, delivering(shop, table="scores", connection="crm"), NIGHT)
    assert sentence in (summary.reason or "")
    said = repr(summary) + repr([event.detail for event in shop.ledger.events("small")])
    assert "pX7" not in said


def test_a_table_that_is_somebody_elses_is_left_as_it_is(shop: Rails, monkeypatch: pytest.MonkeyPatch) -> None:
    theirs = database(shop, monkeypatch)
    with theirs.cursor() as cursor:
        cursor.execute("create table orders (number integer)")
        cursor.execute("insert into orders values (1)")
    spec = delivering(shop, table="orders", connection="crm")
    summary = night(shop, spec, NIGHT)
    assert "a table of that name has the columns model, night" in (summary.reason or "")
    with theirs.cursor() as cursor:
        cursor.execute("select * from orders")
        assert cursor.fetchall() == [(1,)]
    theirs.close()


def test_a_folder_that_is_not_mounted_is_not_made_up(shop: Rails, tmp_path: Path) -> None:
    spec = delivering(shop, folder=str(tmp_path / "mount" / "scores"))
    assert "cannot be had" in (night(shop, spec, NIGHT).reason or "")
    assert not (tmp_path / "mount").exists()
    (tmp_path / "mount").mkdir()
    assert delivery.deliver(shop, spec).delivered == {NIGHT.date(): 3}


def test_the_command_delivers_a_night_again_and_says_what_is_owed(shop: Rails) -> None:
    spec = delivering(shop, folder="out", format="csv")
    shadow.shadow_night(shop, spec, NIGHT)
    done = tiltyard(shop.settings, "deliver", "small", "--night", "2024-03-03", "--json")
    assert (done.returncode, json.loads(done.stdout)["delivered"]) == (0, {"2024-03-03": 3}), done.stderr
    (shop.settings.home / "out" / "small_2024-03-03.csv").unlink()
    (shop.settings.home / "out").rmdir()
    (shop.settings.home / "out").write_text("in the way")
    failed = tiltyard(shop.settings, "deliver", "small", "--night", "2024-03-03")
    assert failed.returncode == 1
    assert b"is not delivered" in failed.stderr
    assert b"Traceback" not in failed.stderr


def test_a_spec_names_one_place_and_never_a_secret(tmp_path: Path) -> None:
    for wrong, sentence in (
        ({}, "either a folder"),
        ({"folder": "a", "table": "b", "connection": "c"}, "either a folder"),
        ({"table": "b"}, "a table needs connection"),
        ({"table": "b", "connection": "c", "format": "csv"}, "a table has no format"),
        ({"table": 'b"; drop', "connection": "c"}, "String should match"),
        ({"folder": "s3://key:secret@bucket/x"}, "never holds credentials"),
        ({"folder": "https://somewhere/x"}, "written like s3://bucket/prefix"),
        ({"folder": "/srv/x", "connection": "c"}, "needs no connection"),
    ):
        with pytest.raises(ValueError, match=sentence):
            specs.Deliver(**wrong)
    assert "deliver" not in small_spec(tmp_path).model_dump(), "what delivers nowhere is the promise that it was"


def test_unavailable_is_what_a_destination_raises(shop: Rails, bucket: Any) -> None:
    rails = on_s3(shop, bucket)
    spec = delivering(shop, folder="s3://nobodys/x")
    shadow.shadow_night(rails, spec, NIGHT)
    rows = predictions.of_night(rails, "small", NIGHT.date())
    with pytest.raises(Unavailable, match="the bucket exists"):
        destination.send(rails.settings, spec.deliver, rows, "small", NIGHT.date(), credentials.from_environment)
