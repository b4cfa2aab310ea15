"""Records of a Kinesis stream, from moto's server, become rows of a raw table: every sequence number once."""

import json
from collections.abc import Iterator, Mapping
from datetime import timedelta
from typing import Any

import boto3
import pytest
from moto.server import ThreadedMotoServer

from tiltyard import clock
from tiltyard.errors import BadInput
from tiltyard.prepare import contracts, features, ingest
from tiltyard.prepare.fetch import stream
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
              available_at: {{column: visited_at}}
              fetch: {fetch}
        columns:
          - {{name: who, data_type: varchar, config: {{meta: {{tiltyard: {{header: Wer}}}}}}}}
          - {{name: basket, data_type: double}}
          - {{name: visited_at, data_type: timestamptz}}
          - {{name: shard, data_type: varchar}}
          - {{name: place, data_type: varchar}}
"""
NIGHT = clock.parse_as_of("2025-03-04")


@pytest.fixture(scope="module")
def client() -> Iterator[Any]:
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    with pytest.MonkeyPatch.context() as patch:
        for name, value in {
            "AWS_ENDPOINT_URL_KINESIS": f"http://{host}:{port}", "AWS_REGION": "eu-central-1",
            "AWS_DEFAULT_REGION": "eu-central-1", "AWS_ACCESS_KEY_ID": "test", "AWS_SECRET_ACCESS_KEY": "test",
        }.items():  # fmt: skip
            patch.setenv(name, value)
        patch.setattr(stream, "ASK_S", 0.0)
        yield boto3.client("kinesis")
    server.stop()


def contract(
    rails: Rails, name: str, fetch: str = "{{from: 'kinesis://{name}', shard: shard, sequence: place}}"
) -> None:
    folder = rails.settings.dbt / "models" / "staging" / "shop"
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "_shop__sources.yml").write_text(CONTRACT.format(fetch=fetch.format(name=name)))


def send(client: Any, name: str, *records: Mapping[str, object] | bytes) -> None:
    for number, record in enumerate(records):
        content = record if isinstance(record, bytes) else json.dumps(record).encode()
        client.put_record(StreamName=name, Data=content, PartitionKey=f"key {number * 7919}")


def visit(day: int, who: str = "ann", **more: object) -> dict[str, object]:
    return {"Wer": who, "basket": 1.5, "visited_at": f"2025-03-0{day}T10:00:00", "not_asked_for": [1]} | more


def night(rails: Rails, days: int = 0) -> IngestSummary:
    return features.ingest(rails, NIGHT + timedelta(days=days), ["shop"])["shop"]


def names(rails: Rails) -> list[str]:
    return [row[0] for row in rails.lake.connection.execute("select who from lake.raw.visit order by 1").fetchall()]


def test_records_land_once_through_splits_of_their_shards(rails: Rails, client: Any) -> None:
    client.create_stream(StreamName="visits", ShardCount=2)
    contract(rails, "visits")
    send(client, "visits", *(visit(1 + number % 3, f"first {number:02}") for number in range(12)))
    assert night(rails).rows == 12
    assert night(rails).rows == 0, "twice is once"
    shards = rails.lake.connection.execute("select distinct shard from lake.raw.visit order by 1").fetchall()
    assert len(shards) == 2
    shard = client.describe_stream(StreamName="visits")["StreamDescription"]["Shards"][0]
    low, high = (int(shard["HashKeyRange"][name]) for name in ("StartingHashKey", "EndingHashKey"))
    send(client, "visits", *(visit(3, f"then {number:02}") for number in range(6)))
    client.split_shard(StreamName="visits", ShardToSplit=shard["ShardId"], NewStartingHashKey=str((low + high) // 2))
    send(client, "visits", *(visit(4, f"last {number:02}") for number in range(8)))
    assert night(rails, 1).rows == 14
    assert night(rails, 2).rows == 0
    assert names(rails) == sorted(
        [
            *(f"first {n:02}" for n in range(12)),
            *(f"then {n:02}" for n in range(6)),
            *(f"last {n:02}" for n in range(8)),
        ]
    )
    [row] = rails.lake.connection.execute(
        "select basket, event_time::varchar, source_file from lake.raw.visit where who = 'first 00'"
    ).fetchall()
    assert row == (1.5, "2025-03-01 09:00:00+00", "2025-03-01.parquet")


def test_what_waits_in_the_landing_zone_is_not_read_again(rails: Rails, client: Any) -> None:
    client.create_stream(StreamName="waits", ShardCount=1)
    contract(rails, "waits")
    send(client, "waits", visit(5))
    assert night(rails).fetched[0].files == ("2025-03-05.parquet",), "it is not due yet"
    send(client, "waits", visit(5, "bea"))
    assert night(rails).fetched[0].rows == 1
    assert night(rails, 5).rows == 2
    assert names(rails) == ["ann", "bea"]


def test_records_that_cannot_be_used_hold_nobody_up_and_are_told(rails: Rails, client: Any) -> None:
    client.create_stream(StreamName="mixed", ShardCount=1)
    contract(rails, "mixed")
    send(client, "mixed", visit(1), b"no json", visit(2, "bea", basket="dear"), visit(3, "cid"))
    landed = night(rails)
    assert names(rails) == ["ann", "cid"]
    said = landed.fetched[0].unusable
    assert said is not None and said.startswith(
        "2 of 4 messages of kinesis://mixed cannot be used: it is no JSON object"
    )
    [told] = ingest.quarantined(rails, "shop", NIGHT.date())
    lines = [json.loads(line) for line in (rails.settings.quarantine / "shop" / told.file).read_text().splitlines()]
    assert [line["reason"] for line in lines] == ["it is no JSON object", "basket is no double"]
    assert lines[0]["partition"] == "shardId-000000000000"


def test_a_sequence_number_of_more_digits_is_the_newer_one(rails: Rails, client: Any) -> None:
    """Numbers are texts of up to 56 digits: by their letters 9 would come after 10."""
    client.create_stream(StreamName="digits", ShardCount=1)
    contract(rails, "digits")
    send(client, "digits", *(visit(1, f"{number:02}") for number in range(12)))
    assert night(rails).rows == 12
    numbers = rails.lake.connection.execute("select place, who from lake.raw.visit").fetchall()
    assert [who for _, who in sorted(numbers, key=lambda row: int(row[0]))] == [f"{number:02}" for number in range(12)]
    send(client, "digits", visit(4, "new"))
    assert night(rails, 1).rows == 1


def test_a_stream_that_is_not_there_is_refused_and_one_that_is_away_is_late(
    rails: Rails, client: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    contract(rails, "nowhere")
    with pytest.raises(BadInput, match=r"kinesis://nowhere refuses to be read \(ResourceNotFoundException\)"):
        night(rails)
    monkeypatch.setenv("AWS_ENDPOINT_URL_KINESIS", "http://127.0.0.1:1")
    monkeypatch.setenv("AWS_MAX_ATTEMPTS", "1")
    [away] = night(rails).away
    assert "kinesis://nowhere does not answer" in away


@pytest.mark.parametrize(
    ("fetch", "why"),
    [
        ("{{from: 'kinesis://{name}', shard: shard}}", "a stream needs sequence"),
        ("{{from: 'kinesis://{name}', shard: shard, sequence: basket}}", "is DOUBLE, and has to be a varchar"),
        ("{{from: 'kinesis://{name}/x', shard: shard, sequence: place}}", "written like kinesis://stream"),
        ("{{from: 'kinesis://{name}', partition: shard, offset: place}}", "leads to none; take it away"),
    ],
)
def test_a_contract_that_cannot_be_is_refused(rails: Rails, fetch: str, why: str) -> None:
    contract(rails, "visits", fetch)
    with pytest.raises(BadInput, match=why):
        contracts.read(rails.settings, "shop")
