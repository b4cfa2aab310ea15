"""The lake on S3, by settings alone: the same commits and reads, the files in a bucket."""

from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import boto3
import pandas as pd
import pytest
from moto.server import ThreadedMotoServer

from tiltyard.errors import BadInput
from tiltyard.lake import Lake
from tiltyard.settings import Settings
from tiltyard.tables import Table

AS_OF = datetime(2016, 4, 2, tzinfo=UTC)


@pytest.fixture
def endpoint(monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "key")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "secret")
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    yield f"{host}:{port}"
    server.stop()


@pytest.fixture
def on_s3(endpoint: str, settings: Settings) -> Settings:
    boto3.client("s3", endpoint_url=f"http://{endpoint}", region_name="us-east-1").create_bucket(Bucket="tiltyard")
    return Settings(
        **{**settings.model_dump(), "lake_data": "s3://tiltyard/lake", "s3_endpoint": endpoint, "s3_insecure": True}
    )


def test_commits_and_reads_go_to_the_bucket(on_s3: Settings, endpoint: str, tmp_path: Path) -> None:
    rows = pd.DataFrame({"value": range(1000), "available_at": [AS_OF] * 1000})
    with Lake(on_s3) as lake:
        lake.ensure(Table("ops.x", {"value": "integer", "available_at": "timestamptz"}))
        first = lake.replace("ops.x", {"available_at": AS_OF}, rows, message="test")
        lake.replace("ops.x", {"available_at": AS_OF}, rows.head(10), message="test")
    with Lake(on_s3) as lake:
        assert len(lake.query("select * from {ops.x}", AS_OF)) == 10
        assert len(lake.query("select * from {ops.x}", AS_OF, snapshot=first)) == 1000
    s3 = boto3.client("s3", endpoint_url=f"http://{endpoint}", region_name="us-east-1")
    names = [entry["Key"] for entry in s3.list_objects_v2(Bucket="tiltyard")["Contents"]]

    assert any(name.startswith("lake/") and name.endswith(".parquet") for name in names)
    assert not list(tmp_path.rglob("*.parquet"))


def test_missing_keys_are_told_in_one_sentence(on_s3: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("AWS_SECRET_ACCESS_KEY")
    with pytest.raises(BadInput, match="set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY"):
        Lake(on_s3)
