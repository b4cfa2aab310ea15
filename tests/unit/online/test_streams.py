"""Consumers against endpoints that speak the protocols: moto's server (Kinesis), librdkafka's mock brokers (Kafka)."""

import json
import os
import random
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import boto3
import pytest
from confluent_kafka import Producer
from moto.server import ThreadedMotoServer
from pydantic import SecretStr

from tests.servers import RedisServer
from tiltyard.errors import BadInput, Unavailable
from tiltyard.online import streams
from tiltyard.online.connection import connect
from tiltyard.online.lmdb_store import LmdbStore
from tiltyard.online.store import FeatureRow, Store, TableNote, table_note
from tiltyard.records import Record
from tiltyard.settings import ROOT, Settings

VIEW = "ftr_shop__state"
COLUMNS = {"size": "numeric", "mood": "categorical", "is_open": "boolean"}
NOW = datetime(2024, 2, 1, tzinfo=UTC).timestamp()
SHOPS = [f"s{number}" for number in range(40)]


def iso(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, UTC).isoformat()


def event(shop: str, happened: float, available: float, size: float | None = 1.0, **changes: Any) -> bytes:
    content = {
        "view": VIEW,
        "key": shop,
        "values": {"is_open": True, "size": size, "mood": None},
        "event_time": iso(happened),
        "available_at": iso(available),
    }
    return json.dumps(content | changes).encode()


def drawn(seed: int, count: int) -> list[tuple[str, float, float, float | None]]:
    """Rows out of order, some of them twice, some of them full ties, some corrections."""
    rng = random.Random(seed)
    rows = []
    for _ in range(count):
        happened = NOW - rng.randrange(60)
        rows.append((rng.choice(SHOPS), happened, happened + rng.randrange(3), rng.choice([None, 1.0, 2.5, 4.0])))
    return rows + rng.sample(rows, count // 5)


def newest(rows: list[tuple[str, float, float, float | None]]) -> dict[str, FeatureRow]:
    """Slow and obvious: the later event, then the later knowledge, then the greater value."""
    best: dict[str, tuple[float, float, float]] = {}
    for key, happened, available, size in rows:
        rank = (happened, available, float("-inf") if size is None else size)
        best[key] = max(best.get(key, rank), rank)
    return {
        key: FeatureRow(
            {"size": None if size == float("-inf") else size, "mood": None, "is_open": True}, happened, available
        )
        for key, (happened, available, size) in best.items()
    }


def stored(store: Store) -> dict[str, FeatureRow]:
    rows = store.get([(VIEW, key) for key in SHOPS])
    return {key: row for key, row in zip(SHOPS, rows, strict=True) if row is not None}


def filled(store: Store) -> Store:
    """A store that the features stage has told of the view."""
    store.write_note(table_note(VIEW), TableNote(as_of=NOW, columns=COLUMNS))
    return store


@pytest.fixture
def home(tmp_path: Path) -> Settings:
    made = Settings(home=tmp_path)
    filled(connect(made))
    return made


def sink(settings: Settings, name: str) -> streams.Sink:
    return streams.Sink(connect(settings), name, settings.home / "streams")


def consumer(settings: Settings, environment: dict[str, str], *arguments: str) -> subprocess.Popen[str]:
    """`tiltyard stream …` in a process of its own."""
    return subprocess.Popen(
        [sys.executable, "-m", "tiltyard.cli", "stream", *arguments, "--json"],
        env={**os.environ, **environment, "TILTYARD_HOME": str(settings.home), "PYTHONPATH": str(ROOT / "plugins")},
        stdout=subprocess.PIPE,
        text=True,
    )


def kill_in_mid_stream(process: subprocess.Popen[str], store: Store) -> None:
    """SIGKILL as soon as something has been written."""
    deadline = time.monotonic() + 60
    while not stored(store) and time.monotonic() < deadline and process.poll() is None:
        time.sleep(0.005)
    process.kill()
    process.wait()
    assert stored(store), "it was killed before it began"


# -- events -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"", "no_event"),
        (b"\xff\xfe", "no_event"),
        (b"[1]", "no_event"),
        (b'{"view": "\\ud800"}', "no_event"),
        (event("s", NOW, NOW, more=1), "no_event"),
        (event("s", NOW, NOW, view="ftr_shop__unknown"), "unknown_view"),
        (event("s", NOW, NOW, view="stream/x"), "unknown_view"),
        (event("s", NOW, NOW, view=None), "unknown_view"),
        (event("s", NOW, NOW, key=7), "no_key"),
        (event("", NOW, NOW), "no_key"),
        (event("s", NOW, NOW, values=None), "wrong_values"),
        (event("s", NOW, NOW, values={"size": 1}), "wrong_values"),
        (event("s", NOW, NOW, values={"size": 1, "mood": None, "is_open": None, "new": 1}), "wrong_values"),
        (event("s", NOW, NOW, values={"size": "1", "mood": None, "is_open": None}), "wrong_values"),
        (event("s", NOW, NOW, values={"size": True, "mood": None, "is_open": None}), "wrong_values"),
        (event("s", NOW, NOW, values={"size": 1, "mood": None, "is_open": 1}), "wrong_values"),
        (event("s", NOW, NOW).replace(b'"size": 1.0', b'"size": NaN'), "no_event"),
        (event("s", NOW, NOW, event_time="2024-01-01T00:00:00"), "no_time"),
        (event("s", NOW, NOW, event_time=NOW), "no_time"),
        (event("s", NOW, NOW, available_at="soon"), "no_time"),
        (event("s", NOW, NOW, event_time="0001-01-01T00:00:00+14:00"), "no_time"),  # the store could not give it back
        (event("s", NOW, NOW, available_at="9999-12-31T23:59:59.999999Z"), "no_time"),
        (event("s", NOW + 3600, NOW), "ahead"),
        (event("s", NOW, NOW + 3600), "ahead"),
    ],
)
def test_an_event_that_cannot_be_used_is_put_aside_and_holds_up_nobody(
    home: Settings, content: bytes, reason: str
) -> None:
    into = sink(home, "kinesis/shops")
    into.now = lambda: NOW
    assert into.take([("shard/1", content), ("shard/2", event("s1", NOW, NOW))])
    assert dict(into.counts) == {"events": 2, "written": 1, "repeated": 0, f"aside_{reason}": 1}
    assert set(stored(into.store)) == {"s1"}
    (line,) = (home.home / "streams" / "kinesis.shops.jsonl").read_text().splitlines()
    aside = json.loads(line)
    assert aside["reason"]
    assert (aside["place"], aside["kind"], aside["content"]) == ("shard/1", reason, content.decode(errors="replace"))


def test_what_was_put_aside_does_not_fill_the_disk_and_a_full_one_holds_up_nobody(home: Settings, monkeypatch) -> None:
    monkeypatch.setattr(streams, "ASIDE_BYTES", 1_000)
    into = sink(home, "kafka/shops")
    into.take([(f"0/{place}", b"no event" * 20) for place in range(20)])
    path = home.home / "streams" / "kafka.shops.jsonl"
    assert path.stat().st_size < 1_500
    assert into.counts["aside_no_event"] == 20
    assert into.counts["not_kept"] == 20 - len(path.read_text().splitlines()) > 0
    path.unlink()
    path.mkdir()  # nothing can be written there
    assert into.take([("0/20", b"no event"), ("0/21", event("s1", NOW, NOW))])
    assert set(stored(into.store)) == {"s1"}


def test_a_store_that_is_away_is_waited_for_and_nothing_is_skipped(tmp_path: Path) -> None:
    server = RedisServer(tmp_path)
    server.start()
    settings = Settings(home=tmp_path, online_url=server.url)
    filled(connect(settings))
    into = sink(settings, "kafka/shops")
    assert into.take([("0/1", event("s1", NOW, NOW))])
    server.kill()
    rows = drawn(5, 50)
    results: list[bool] = []
    taking = threading.Thread(target=lambda: results.append(into.take([("0/2", event(*row)) for row in rows])))
    taking.start()
    while not into.counts["retries"]:
        time.sleep(0.01)
    server.start()
    taking.join()
    assert results == [True]
    assert stored(into.store) == newest(rows)  # the first one went with the Redis, which had no disk
    server.kill()
    into.stop.set()
    assert not into.take([("0/3", event("s1", NOW, NOW))])  # stopped: its place must not be kept


# -- Kinesis ------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def aws() -> Iterator[dict[str, str]]:
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    environment = {
        "AWS_ENDPOINT_URL_KINESIS": f"http://{host}:{port}",
        "AWS_REGION": "eu-central-1",
        "AWS_DEFAULT_REGION": "eu-central-1",
        "AWS_ACCESS_KEY_ID": "test",
        "AWS_SECRET_ACCESS_KEY": "test",
    }
    with pytest.MonkeyPatch.context() as patch:
        for name, value in environment.items():
            patch.setenv(name, value)
        yield environment
    server.stop()


@pytest.fixture
def fast(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(streams, "ASK_S", 0.0)


def send(client: Any, stream: str, rows: list[tuple[str, float, float, float | None]]) -> None:
    for first in range(0, len(rows), 400):
        records = [{"Data": event(*row), "PartitionKey": f"{row[0]}{row[1]}"} for row in rows[first : first + 400]]
        assert client.put_records(StreamName=stream, Records=records)["FailedRecordCount"] == 0


def drain(settings: Settings, stream: str) -> dict[str, int]:
    return streams.kinesis(stream, sink(settings, f"kinesis/{stream}")).consume(drain=True)


def test_kinesis_goes_on_where_it_was_left_through_splits_and_merges(home: Settings, aws: Any, fast: None) -> None:
    client = boto3.client("kinesis")
    client.create_stream(StreamName="shops", ShardCount=2)
    rows = drawn(1, 400)
    send(client, "shops", rows[:150])
    assert drain(home, "shops")["events"] == 150
    assert drain(home, "shops").get("events", 0) == 0  # the notes say that all of it was read
    send(client, "shops", rows[150:250])
    first, second = (shard["ShardId"] for shard in client.list_shards(StreamName="shops")["Shards"])
    client.split_shard(StreamName="shops", ShardToSplit=first, NewStartingHashKey="7")
    send(client, "shops", rows[250:350])
    assert drain(home, "shops")["events"] == 200  # what was left in the parent, and what is in its children
    children = [
        shard["ShardId"]
        for shard in client.list_shards(StreamName="shops")["Shards"]
        if shard["ShardId"] not in (first, second)
    ]
    client.merge_shards(StreamName="shops", ShardToMerge=children[0], AdjacentShardToMerge=children[1])
    send(client, "shops", rows[350:])
    assert drain(home, "shops")["events"] == len(rows) - 350
    assert drain(home, "shops").get("events", 0) == 0
    assert stored(connect(home)) == newest(rows)


def test_a_stream_that_is_made_again_is_read_from_its_beginning(home: Settings, aws: Any, fast: None) -> None:
    client = boto3.client("kinesis")
    for seed in (1, 2):
        client.create_stream(StreamName="again", ShardCount=1)
        send(client, "again", rows := drawn(seed, 30))
        assert drain(home, "again")["events"] == len(rows)
        client.delete_stream(StreamName="again")
        time.sleep(1.0)  # the time of creation is told in seconds
    with pytest.raises(BadInput, match="no stream 'again'"):
        drain(home, "again")


def test_a_kinesis_consumer_that_is_killed_loses_nothing(home: Settings, aws: dict[str, str], fast: None) -> None:
    client = boto3.client("kinesis")
    client.create_stream(StreamName="killed", ShardCount=3)
    rows = drawn(3, 3_000)
    send(client, "killed", rows[:2_000])
    kill_in_mid_stream(consumer(home, aws, "kinesis", "killed"), connect(home))
    send(client, "killed", rows[2_000:])
    drain(home, "killed")
    assert stored(connect(home)) == newest(rows)


def test_a_note_is_written_after_the_rows_it_speaks_of(home: Settings, aws: Any, fast: None) -> None:
    client = boto3.client("kinesis")
    client.create_stream(StreamName="order", ShardCount=1)
    send(client, "order", rows := drawn(4, 50))

    class Dies(LmdbStore):
        """Dies between the write and the note, as a process may."""

        def write_note(self, name: str, note: Record) -> None:
            if isinstance(note, streams.ShardNote):
                raise KeyboardInterrupt
            super().write_note(name, note)

    dying = streams.Sink(Dies(home.home / "online"), "kinesis/order", home.home / "streams")
    with pytest.raises(KeyboardInterrupt):
        streams.kinesis("order", dying).consume(drain=True)
    assert stored(connect(home)) == newest(rows)
    again = drain(home, "order")
    assert (again["events"], again["written"], again["repeated"]) == (len(rows), 0, len(rows))
    assert stored(connect(home)) == newest(rows)


# -- Kafka --------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def kafka() -> Iterator[tuple[Producer, str]]:
    """Mock brokers that live in a producer, and their address."""
    producer = Producer({"test.mock.num.brokers": 2, "bootstrap.servers": "mock", "log_level": 0})
    brokers = producer.list_topics(timeout=10).brokers.values()
    yield producer, ",".join(f"{broker.host}:{broker.port}" for broker in brokers)


def produce(producer: Producer, topic: str, rows: list[tuple[str, float, float, float | None]]) -> None:
    for row in rows:
        producer.produce(topic, event(*row), key=f"{row[0]}{row[1]}")
    assert producer.flush(10) == 0


def drain_kafka(settings: Settings, topic: str, servers: str) -> dict[str, int]:
    return streams.kafka(settings, topic, servers, "tiltyard", sink(settings, f"kafka/{topic}")).consume(drain=True)


@pytest.mark.parametrize("options", ["client.id=me,sasl.password=ab,cd9=x", "client.id=me,security.protocol=cd9"])
def test_an_option_that_kafka_does_not_take_is_named_by_its_place(home: Settings, options: str) -> None:
    """Its name or value may be a piece of a password."""
    given = home.model_copy(update={"kafka_options": SecretStr(options)})
    with pytest.raises(BadInput, match=r"Kafka does not take entry [23] of TILTYARD_KAFKA_OPTIONS") as caught:
        drain_kafka(given, "shops", "127.0.0.1:1")
    assert "cd9" not in str(caught.value)


@pytest.mark.parametrize(
    "options",
    [
        "client.id=me,error_cb=x",
        "client.id=me,stats_cb=",
        "a=b,default.topic.config=cd9",
        "client.id=me,throttle_cb=cd9",
    ],
)
def test_an_option_that_is_no_text_is_refused(home: Settings, options: str) -> None:
    given = home.model_copy(update={"kafka_options": SecretStr(options)})
    with pytest.raises(BadInput, match=r"Kafka does not take (entry \d of )?TILTYARD_KAFKA_OPTIONS") as caught:
        drain_kafka(given, "shops", "127.0.0.1:1")
    assert "cd9" not in str(caught.value)


def test_a_group_without_a_name_is_refused(home: Settings) -> None:
    """Kafka's binding would end the process (abort)."""
    with pytest.raises(BadInput, match="--group"):
        streams.kafka(home, "shops", "127.0.0.1:1", "", sink(home, "kafka/shops"))


def test_an_address_that_is_none_makes_no_kinesis_client(home: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_REGION", "us-east-1")
    monkeypatch.setenv("AWS_DEFAULT_REGION", "us-east-1")
    monkeypatch.setenv("AWS_ENDPOINT_URL_KINESIS", "here and there")
    with pytest.raises(BadInput, match="AWS_ENDPOINT_URL_KINESIS"):
        streams.kinesis("shops", sink(home, "kinesis/shops"))


def test_kafka_goes_on_where_it_was_left(home: Settings, kafka: tuple[Producer, str]) -> None:
    producer, servers = kafka
    rows = drawn(6, 300)
    produce(producer, "shops", rows[:200])
    assert drain_kafka(home, "shops", servers)["events"] == 200
    produce(producer, "shops", rows[200:])
    assert drain_kafka(home, "shops", servers)["events"] == len(rows) - 200
    assert stored(connect(home)) == newest(rows)


def test_a_kafka_consumer_that_dies_before_its_commit_reads_again_and_changes_nothing(
    home: Settings, kafka: tuple[Producer, str]
) -> None:
    producer, servers = kafka
    produce(producer, "dies", rows := drawn(7, 100))

    class Dies(streams.Sink):
        def take(self, records: Any) -> bool:
            super().take(records)
            raise KeyboardInterrupt

    dying = Dies(connect(home), "kafka/dies", home.home / "streams")
    with pytest.raises(KeyboardInterrupt):
        streams.kafka(home, "dies", servers, "tiltyard", dying).consume(drain=True)
    again = drain_kafka(home, "dies", servers)
    assert again["events"] == len(rows)
    assert again["repeated"] > 0
    assert stored(connect(home)) == newest(rows)


def test_a_kafka_consumer_that_is_killed_loses_nothing(home: Settings, kafka: tuple[Producer, str]) -> None:
    producer, servers = kafka
    rows = drawn(8, 3_000)
    produce(producer, "killed", rows[:2_000])
    store = connect(home)
    kill_in_mid_stream(consumer(home, {}, "kafka", "killed", "--servers", servers), store)
    produce(producer, "killed", rows[2_000:])
    drain_kafka(home, "killed", servers)
    assert stored(store) == newest(rows)


def test_a_consumer_that_is_told_to_stop_says_what_it_did(
    home: Settings, kafka: tuple[Producer, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    producer, servers = kafka
    produce(producer, "stops", rows := drawn(9, 200))
    store = connect(home)
    process = consumer(home, {}, "kafka", "stops", "--servers", servers, "--group", "others")
    deadline = time.monotonic() + 60
    while stored(store) != newest(rows) and time.monotonic() < deadline:
        time.sleep(0.05)
    process.send_signal(signal.SIGTERM)
    counts = json.loads(process.communicate(timeout=30)[0])
    assert stored(store) == newest(rows)
    assert counts["events"] == len(rows)
    note = store.read_note("stream/kafka/stops", streams.StreamNote)
    assert note is not None
    assert note.counts == counts
    monkeypatch.setattr(streams, "WAIT_S", 0.5)
    with pytest.raises(Unavailable, match="check --servers"):
        drain_kafka(home, "stops", "127.0.0.1:1")
