"""Messages of a topic, from librdkafka's mock brokers, become rows of a raw table: every offset once."""

import json
from collections.abc import Iterator, Mapping
from datetime import date, timedelta
from typing import Any

import pytest
from confluent_kafka import Producer
from pydantic import SecretStr

from tiltyard import clock
from tiltyard.errors import BadInput
from tiltyard.prepare import features, ingest
from tiltyard.prepare.fetch import topic
from tiltyard.prepare.ingest import IngestSummary
from tiltyard.rails import Rails

CONTRACT = """
sources:
  - name: shop
    tables:
      - name: visit
        config:
          meta:
            tiltyard:
              event_time: {{column: visited_at, zone: Europe/Vienna}}
              available_at: {available_at}
              fetch: {{from: 'kafka://{servers}/{topic}', partition: part, offset: place, connection: {connection}}}
        columns:
          - {{name: who, data_type: varchar, config: {{meta: {{tiltyard: {{header: Wer}}}}}}}}
          - {{name: basket, data_type: double}}
          - {{name: visited_at, data_type: timestamptz}}
          - {{name: part, data_type: bigint}}
          - {{name: place, data_type: bigint}}
"""
NIGHT = clock.parse_as_of("2025-03-04")


@pytest.fixture(scope="module")
def kafka() -> Iterator[tuple[Producer, str]]:
    """Mock brokers that live in a producer, and their address. A topic of theirs has four partitions."""
    producer = Producer({"test.mock.num.brokers": 2, "bootstrap.servers": "mock", "log_level": 0})
    brokers = producer.list_topics(timeout=10).brokers.values()
    yield producer, ",".join(f"{broker.host}:{broker.port}" for broker in brokers)


def contract(
    rails: Rails, servers: str, name: str, available_at: str = "{column: visited_at}", connection: str = "null"
) -> None:
    folder = rails.settings.dbt / "models" / "staging" / "shop"
    folder.mkdir(parents=True, exist_ok=True)
    text = CONTRACT.format(servers=servers, topic=name, available_at=available_at, connection=connection)
    (folder / "_shop__sources.yml").write_text(text)


def send(producer: Producer, name: str, *messages: Mapping[str, object] | bytes) -> None:
    for number, message in enumerate(messages):
        producer.produce(
            name, message if isinstance(message, bytes) else json.dumps(message).encode(), partition=number % 3
        )
    assert producer.flush(10) == 0


def visit(day: int, who: str = "ann", **more: object) -> dict[str, object]:
    return {"Wer": who, "basket": 1.5, "visited_at": f"2025-03-0{day}T10:00:00", "not_asked_for": [1]} | more


def night(rails: Rails, days: int = 0) -> IngestSummary:
    return features.ingest(rails, NIGHT + timedelta(days=days), ["shop"])["shop"]


def rows(rails: Rails, columns: str = "who, part, place, source_file") -> list[tuple[Any, ...]]:
    return rails.lake.connection.execute(f"select {columns} from lake.raw.visit order by all").fetchall()


def test_messages_land_once_with_the_night_of_their_day(rails: Rails, kafka: tuple[Producer, str]) -> None:
    producer, servers = kafka
    contract(rails, servers, "visits")
    send(producer, "visits", visit(1), visit(3, "bea", basket=None), visit(3, "cid", basket="2.5"))
    assert night(rails).rows == 3
    assert rows(rails, "who, basket, event_time::varchar, source_file") == [
        ("ann", 1.5, "2025-03-01 09:00:00+00", "2025-03-01.parquet"),
        ("bea", None, "2025-03-03 09:00:00+00", "2025-03-03.parquet"),
        ("cid", 2.5, "2025-03-03 09:00:00+00", "2025-03-03.parquet"),
    ]
    assert night(rails).rows == 0, "twice is once"
    send(producer, "visits", visit(4, "dan"), visit(3, "eve"))
    assert night(rails, 1).rows == 2
    assert rows(rails)[-2:] == [("dan", 0, 1, "2025-03-04.parquet"), ("eve", 1, 1, "2025-03-04.parquet")]


def test_what_waits_in_the_landing_zone_is_not_read_again(rails: Rails, kafka: tuple[Producer, str]) -> None:
    producer, servers = kafka
    contract(rails, servers, "waits")
    send(producer, "waits", visit(5))
    assert night(rails).fetched[0].files == ("2025-03-05.parquet",), "it is not due yet"
    send(producer, "waits", visit(5, "bea"))
    assert night(rails).fetched[0].rows == 1
    assert night(rails, 5).rows == 2
    assert [row[:3] for row in rows(rails)] == [("ann", 0, 0), ("bea", 0, 1)]


def test_messages_that_cannot_be_used_hold_nobody_up_and_are_told_once(
    rails: Rails, kafka: tuple[Producer, str]
) -> None:
    producer, servers = kafka
    contract(rails, servers, "mixed", available_at="ingested_at")
    send(producer, "mixed", visit(1), b"no json", visit(2, "bea", basket="dear"), visit(3, "cid"), b"[1]", b"")
    as_of = clock.midnight(clock.now().date())
    landed = features.ingest(rails, as_of, ["shop"])["shop"]
    assert [row[0] for row in rows(rails)] == ["ann", "cid"]
    assert landed.fetched[0].rows == 2
    assert landed.fetched[0].unusable is not None
    assert landed.fetched[0].unusable.startswith(f"4 of 6 messages of kafka://{servers}/mixed cannot be used: it is no")
    again = features.ingest(rails, as_of, ["shop"])["shop"]
    assert (again.rows, len(rows(rails))) == (0, 2)
    [told] = ingest.quarantined(rails, "shop", as_of.date())
    assert told.file == "visit/messages-1-0.jsonl"
    assert told.reason == f"4 of 4 messages of kafka://{servers}/mixed cannot be used: it is no JSON object"
    path = rails.settings.quarantine / "shop" / "visit" / "messages-1-0.jsonl"
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    assert [(line["partition"], line["offset"], line["reason"]) for line in lines] == [
        (1, 0, "it is no JSON object"), (1, 1, "it is no JSON object"),
        (2, 0, "basket is no double"), (2, 1, "it is no JSON object"),
    ]  # fmt: skip
    assert json.loads(lines[2]["content"])["basket"] == "dear"
    day = date.fromisoformat(rows(rails)[0][3].removesuffix(".parquet"))
    assert day == (as_of - timedelta(days=1)).date()


def test_a_topic_that_was_made_anew_is_refused_and_brokers_that_are_away_are_late(
    rails: Rails, kafka: tuple[Producer, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    producer, servers = kafka
    contract(rails, servers, "before")
    send(producer, "before", visit(1), visit(1), visit(1), visit(1))
    assert night(rails).rows == 4
    contract(rails, servers, "after")
    send(producer, "after", visit(1))
    with pytest.raises(BadInput, match="ends at offset 1, and 1 was fetched: the topic was made anew"):
        night(rails)
    monkeypatch.setattr(topic, "WAIT_S", 0.5)
    contract(rails, "127.0.0.1:1", "visits")
    [away] = night(rails).away
    assert "kafka://127.0.0.1:1/visits does not answer" in away


def test_options_of_a_connection_are_used_and_shown_to_nobody(
    rails: Rails, kafka: tuple[Producer, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    text = json.dumps(
        {"conn_type": "kafka", "login": "me", "password": "ab,cd9", "extra": {"security.protocol": "cd9"}}
    )
    monkeypatch.setenv("AIRFLOW_CONN_STREAMS", text)
    contract(rails, kafka[1], "visits", connection="streams")
    with pytest.raises(BadInput, match="Kafka does not take") as caught:
        night(rails)
    assert "cd9" not in str(caught.value)
    given = rails.settings.model_copy(update={"kafka_options": SecretStr("client.id=me, sasl.username=you")})
    from tiltyard.prepare.fetch import credentials

    found = topic.options(given, credentials.find("streams", credentials.from_environment))
    assert found == {
        "client.id": "me", "sasl.username": "me", "sasl.password": "ab,cd9", "security.protocol": "cd9",
    }  # fmt: skip
