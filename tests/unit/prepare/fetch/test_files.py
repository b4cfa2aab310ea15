"""Files of a folder and of a bucket become deliveries, each once, by names that follow from them alone."""

import gzip
import os
import re
import shutil
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import boto3
import pytest
from moto.server import ThreadedMotoServer

from tiltyard import clock
from tiltyard.errors import BadInput
from tiltyard.prepare import features
from tiltyard.prepare.fetch import files, step
from tiltyard.prepare.ingest import IngestSummary
from tiltyard.rails import Rails
from tiltyard.settings import Settings

CONTRACT = """
sources:
  - name: shop
    tables:
      - name: visit
        config:
          meta:
            tiltyard:
              event_time: {{column: visited_at}}
              available_at: {{column: visited_at}}
              fetch: {fetch}
        columns:
          - {{name: who, data_type: varchar}}
          - {{name: visited_at, data_type: timestamptz}}
"""
NIGHT = clock.parse_as_of("2025-03-04")
SECRET = "wJalr'XUtn\\FEMI/K7MDENG\"+bPx=RfiCYEXAMPLE"


def text(day: int, who: str = "ann") -> bytes:
    return f"who,visited_at\n{who},2025-03-0{day}T10:00:00Z\n".encode()


def contract(rails: Rails, **keys: str) -> None:
    folder = rails.settings.dbt / "models" / "staging" / "shop"
    folder.mkdir(parents=True, exist_ok=True)
    fetch = "{" + ", ".join(f"{name}: '{value}'" for name, value in keys.items()) + "}"
    (folder / "_shop__sources.yml").write_text(CONTRACT.format(fetch=fetch))


def night(rails: Rails, days: int = 0) -> IngestSummary:
    return features.ingest(rails, NIGHT + timedelta(days=days), ["shop"])["shop"]


def rows(rails: Rails) -> list[tuple[Any, ...]]:
    return rails.lake.connection.execute("select who, source_file from lake.raw.visit order by all").fetchall()


def test_files_of_a_folder_land_once_by_the_day_in_their_name(
    rails: Rails, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    exports = tmp_path / "exports [1]"
    (exports / "north").mkdir(parents=True)
    contract(rails, **{"from": f"{tmp_path}/exports ?1?/**/*.csv.gz", "day": "%Y%m%d"})
    (exports / "north" / "visits_20250302.csv.gz").write_bytes(gzip.compress(text(2)))
    (exports / "visits 20250303 é.csv.gz").write_bytes(gzip.compress(text(3, "bea")))
    (exports / "visits_20250304.csv.gz").write_bytes(gzip.compress(text(4, "cid")))
    (exports / ".hidden_20250303.csv.gz").write_bytes(b"")
    (exports / "readme.csv.gz").write_bytes(b"")
    (exports / "visits_20250303.csv").write_bytes(text(3))
    landed = night(rails)
    first, second = landed.fetched[0].files
    assert re.fullmatch(r"2025-03-02-exports-1-north-visits_20250302-[0-9a-f]{8}\.csv\.gz", first)
    assert re.fullmatch(r"2025-03-03-exports-1-visits-20250303-[0-9a-f]{8}\.csv\.gz", second)
    assert rows(rails) == [("ann", first), ("bea", second)]
    assert "readme.csv.gz has no day like %Y%m%d in its name" in caplog.text
    assert night(rails).fetched[0].files == (), "twice is once"
    shutil.rmtree(rails.settings.landing / "shop" / "visit")
    assert [name[:10] for name in night(rails, 1).fetched[0].files] == ["2025-03-04"]
    assert [who for who, _ in rows(rails)] == ["ann", "bea", "cid"], "what has landed may be taken away here"


def test_two_files_of_like_names_are_two(rails: Rails, tmp_path: Path) -> None:
    contract(rails, **{"from": f"{tmp_path}/**/*.csv", "day": "%Y-%m-%d"})
    for number, name in enumerate(("a b", "a  b", "a-b", "a/b")):
        path = tmp_path / f"{name}-2025-03-02.csv"
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(text(2, f"who{number}"))
    assert night(rails).rows == 4
    assert "2025-03-02-a-b-2025-03-02.csv" in {name for _, name in rows(rails)}


def test_a_file_without_a_day_is_of_the_day_on_which_it_was_written(rails: Rails, tmp_path: Path) -> None:
    contract(rails, **{"from": f"{tmp_path}/*.csv"})
    path = tmp_path / "visits.csv"
    path.write_bytes(text(2))
    written = datetime(2025, 3, 2, 23, 30, tzinfo=UTC).timestamp()
    os.utime(path, (written, written))
    assert night(rails).fetched[0].files == ("2025-03-02-visits.csv",)


def test_a_file_that_changes_after_it_landed_is_refused_once_and_a_mended_one_lands(
    rails: Rails, tmp_path: Path
) -> None:
    contract(rails, **{"from": f"{tmp_path}/*.csv", "day": "%Y-%m-%d"})
    path, other = tmp_path / "visits-2025-03-02.csv", tmp_path / "more-2025-03-02.csv"
    path.write_bytes(text(2))
    other.write_bytes(text(2, "bea").rstrip())
    refused = night(rails).quarantined
    assert [file.reason for file in refused] == ["its last line is cut off (no line break at the end)"]
    assert not night(rails).fetched[0].files, "it lies in quarantine as it is"
    other.write_bytes(text(2, "bea"))
    path.write_bytes(text(2) + b"cid,2025-03-02T11:00:00Z\n")
    landed = night(rails, 1)
    assert (landed.rows, [file.file for file in landed.quarantined]) == (1, ["visit/2025-03-02-visits-2025-03-02.csv"])
    assert "in place of that" in landed.quarantined[0].reason
    assert not night(rails, 2).fetched[0].files
    assert [who for who, _ in rows(rails)] == ["ann", "bea"]


def test_a_folder_that_is_not_there_is_away(rails: Rails, tmp_path: Path) -> None:
    contract(rails, **{"from": f"{tmp_path}/mount/*.csv"})
    assert night(rails).away == (f"{tmp_path}/mount is not there, or may not be read; mount it, or mend the contract.",)


def test_a_landing_zone_that_takes_no_files_makes_the_table_late_until_it_does(rails: Rails, tmp_path: Path) -> None:
    exports = tmp_path / "exports"
    exports.mkdir()
    (exports / "2025-03-02.csv").write_bytes(text(2))
    contract(rails, **{"from": f"{exports}/*.csv", "day": "%Y-%m-%d"})
    folder = rails.settings.landing / "shop" / "visit"
    folder.parent.mkdir(parents=True)
    folder.write_text("where the deliveries should lie")
    assert night(rails).away == (f"{folder.parent} takes no files (File exists); make room, or mend the folder.",)
    assert set(step.away(rails, "shop", NIGHT.date())) == {"raw.visit"}
    folder.unlink()
    landed = night(rails)
    assert (landed.away, landed.rows, step.away(rails, "shop", NIGHT.date())) == ((), 1, {})
    with files.listed(f"{exports}/*.csv", None, rails.settings) as found, pytest.raises(OSError, match="No space left"):
        found[0].fetch(Path("/dev/full"))


@pytest.mark.parametrize(
    ("path", "pattern", "fits"),
    [
        ("/a/b.csv", "/a/*.csv", True),
        ("/a/c/b.csv", "/a/*.csv", False),
        ("/a/c/b.csv", "/a/**/*.csv", True),
        ("/a/b.csv", "/a/**/*.csv", True),
        ("/a/b.csv.gz", "/a/*.csv", False),
        ("/a/2025/03/b.csv", "/a/*/??/b.csv", True),
    ],
)
def test_a_star_stays_in_its_folder_and_two_do_not(path: str, pattern: str, fits: bool) -> None:
    assert files._matches(path, pattern) is fits


# -- S3 ---------------------------------------------------------------------------------------


@pytest.fixture
def bucket(monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple[str, Any]]:
    """A server of S3 and a client of it."""
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    address = f"http://{host}:{port}"
    client = boto3.client(
        "s3", endpoint_url=address, region_name="us-east-1", aws_access_key_id="key", aws_secret_access_key=SECRET
    )
    client.create_bucket(Bucket="exports")
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.delenv(name, raising=False)
    yield address, client
    server.stop()


def test_files_of_a_bucket_by_the_keys_of_a_connection(
    rails: Rails, bucket: tuple[str, Any], monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    address, client = bucket
    quoted = "wJalr%27XUtn%5CFEMI%2FK7MDENG%22%2BbPx%3DRfiCYEXAMPLE"
    endpoint = address.replace(":", "%3A").replace("/", "%2F")
    monkeypatch.setenv("AIRFLOW_CONN_EXPORTS", f"aws://key:{quoted}@/?endpoint_url={endpoint}&region_name=us-east-1")
    contract(rails, **{"from": "s3://exports/visits/*/*.csv", "day": "%Y/%m-%d", "connection": "exports"})
    for number in range(1, 1_203):  # more than a page
        client.put_object(Bucket="exports", Key=f"visits/2024/{number}.csv", Body=b"")
    client.put_object(Bucket="exports", Key="visits/2025/03-02.csv", Body=text(2))
    client.put_object(Bucket="exports", Key="visits/2025/03-03.csv", Body=text(3, "bea"))
    client.put_object(Bucket="exports", Key="other/2025/03-03.csv", Body=text(3, "dan"))
    assert [name[:22] for name in night(rails).fetched[0].files] == ["2025-03-02-2025-03-02-", "2025-03-03-2025-03-03-"]
    assert night(rails).fetched[0].files == ()
    assert [who for who, _ in rows(rails)] == ["ann", "bea"]
    contract(rails, **{"from": "s3://gone/visits/*.csv", "connection": "exports"})
    with pytest.raises(BadInput, match=r"s3://gone/visits/\*.csv refuses to be read \(NoSuchBucket\)"):
        night(rails)
    assert SECRET not in caplog.text
    assert quoted not in caplog.text


def test_a_bucket_without_keys_is_refused_and_one_that_is_away_is_late(
    rails: Rails, bucket: tuple[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", "/dev/null")
    contract(rails, **{"from": "s3://exports/*.csv"})
    monkeypatch.setenv("AWS_ENDPOINT_URL_S3", bucket[0])
    with pytest.raises(BadInput, match="Unable to locate credentials"):
        night(rails)
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "key")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", SECRET)
    assert night(rails).away == ()
    monkeypatch.setenv("AWS_ENDPOINT_URL_S3", "http://127.0.0.1:1")
    monkeypatch.setenv("AWS_MAX_ATTEMPTS", "1")
    [away] = night(rails).away
    assert "s3://exports/*.csv does not answer" in away
    assert SECRET not in away


def test_the_endpoint_of_the_lake_is_that_of_its_sources(
    tmp_path: Path, bucket: tuple[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    address, client = bucket
    client.put_object(Bucket="exports", Key="a.csv", Body=text(2))
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "key")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", SECRET)
    settings = Settings(home=tmp_path, s3_endpoint=address.removeprefix("http://"), s3_insecure=True)
    with files.listed("s3://exports/*.csv", None, settings) as found:
        assert [(file.path, file.size) for file in found] == [("a.csv", len(text(2)))]
