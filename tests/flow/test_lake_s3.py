"""The lake on S3, by settings alone: the same commits and reads, dbt too, the files in a bucket; and no secret in any
text that comes of it."""

import shutil
import traceback
from collections.abc import Iterator
from datetime import UTC, date, datetime, timedelta
from pathlib import Path

import boto3
import duckdb
import pandas as pd
import pytest
from moto.server import ThreadedMotoServer
from sqlalchemy.engine import make_url

from tiltyard import clock, damage, postgres
from tiltyard import lake as lakes
from tiltyard import rails as rails_module
from tiltyard.errors import BadInput, TiltyardError, Unavailable
from tiltyard.lake import Lake
from tiltyard.prepare import ingest, transform
from tiltyard.prepare.simulator import Simulator
from tiltyard.rails import Rails
from tiltyard.settings import Settings
from tiltyard.tables import PROFILE, Table
from tiltyard.upkeep import maintenance, scrub

AS_OF = datetime(2016, 4, 2, tzinfo=UTC)
KEY = "wJalr'XUtn\\FEMI/K7MDENG\"+bPx=RfiCYEXAMPLE"
"""A secret key with everything that one of SQL, JSON, YAML and libpq has to escape."""
NIGHT = datetime(2025, 1, 1, tzinfo=UTC) + timedelta(days=9)
PASSWORD = "pX7!qc'ata\\log@uE9zW"
SPELLINGS = [part for secret in (KEY, PASSWORD) for part in (secret, secret[-6:], secret[:6])]
"""Beginnings and ends, too: they read the same however the middle is escaped."""


@pytest.fixture
def endpoint(monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "key")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", KEY)
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    yield f"{host}:{port}"
    server.stop()


@pytest.fixture
def on_s3(endpoint: str, settings: Settings) -> Settings:
    boto3.client("s3", endpoint_url=f"http://{endpoint}", region_name="us-east-1").create_bucket(Bucket="tiltyard")
    assert settings.database_url
    changed = {
        "database_url": make_url(settings.database_url).set(password=PASSWORD).render_as_string(hide_password=False),
        "lake_data": "s3://tiltyard/lake",
        "s3_endpoint": endpoint,
        "s3_insecure": True,
    }
    return Settings(**{**settings.model_dump(), **changed})


@pytest.fixture
def business(on_s3: Settings) -> Iterator[Rails]:
    """Eight days of a small business in the raw tables of a lake on S3."""
    settings = Settings(**{**on_s3.model_dump(), "sources": ("subscription",)})
    Simulator(customers=40, start=date(2025, 1, 1), days=8).land(settings.landing / "subscription")
    with rails_module.opened(settings) as rails:
        assert not ingest.land_night(rails, "subscription", NIGHT).quarantined
        yield rails


def test_commits_and_reads_go_to_the_bucket(on_s3: Settings, endpoint: str, tmp_path: Path) -> None:
    rows = pd.DataFrame({"value": range(1000), "available_at": [AS_OF] * 1000})
    with Lake(on_s3) as lake:
        lake.ensure(Table("ops.x", {"value": "integer", "available_at": "timestamptz"}))
        first = lake.replace("ops.x", {"available_at": AS_OF}, rows, message="test")
        lake.replace("ops.x", {"available_at": AS_OF}, rows.head(10), message="test")
    with Lake(on_s3) as lake:
        assert len(lake.query("select * from {ops.x}", AS_OF)) == 10
        assert len(lake.query("select * from {ops.x}", AS_OF, at=first)) == 1000
    s3 = boto3.client("s3", endpoint_url=f"http://{endpoint}", region_name="us-east-1")
    names = [entry["Key"] for entry in s3.list_objects_v2(Bucket="tiltyard")["Contents"]]

    assert any(name.startswith("lake/") and name.endswith(".parquet") for name in names)
    assert not list(tmp_path.rglob("*.parquet"))


def test_dbt_builds_on_the_bucket(business: Rails, endpoint: str) -> None:
    with transform.alone(business):
        transform.invoke(business.settings, "build", "--select", "+ftr_customer__profile")
    features = business.lake.query("select * from {features.ftr_customer__profile}", NIGHT)
    assert features["customer_id"].nunique() == 40
    s3 = boto3.client("s3", endpoint_url=f"http://{endpoint}", region_name="us-east-1")
    names = [entry["Key"] for entry in s3.list_objects_v2(Bucket="tiltyard", Prefix="lake/features")["Contents"]]
    assert any("ftr_customer__profile" in name for name in names)
    assert (business.settings.home / "dbt" / "logs" / "dbt.log").exists()
    assert_no_secret_under(business.settings.home)


def test_the_lake_on_the_bucket_is_put_in_order(on_s3: Settings, endpoint: str) -> None:
    """In a place of its own: the server keeps what earlier tests have put into the bucket."""
    s3 = boto3.client("s3", endpoint_url=f"http://{endpoint}", region_name="us-east-1")
    alone = Settings(**{**on_s3.model_dump(), "lake_data": "s3://tiltyard/in-order"})

    def names() -> set[str]:
        return {entry["Key"] for entry in s3.list_objects_v2(Bucket="tiltyard", Prefix="in-order/ops/")["Contents"]}

    with rails_module.opened(alone) as rails:
        rails.lake.ensure(PROFILE)
        for number in range(10):
            rows = pd.DataFrame({"version": range(number, number + 20), "available_at": [AS_OF] * 20})
            rails.lake.replace(PROFILE, {"model": f"model_{number}"}, rows, message="test")
        was = rails.lake.query(f"select version from {{{PROFILE}}} order by all", AS_OF)
        s3.put_object(Bucket="tiltyard", Key="in-order/ops/profile/ducklake-left-behind.parquet", Body=b"half a file")

        young = maintenance.maintain(rails, AS_OF, now=clock.now())
        assert (young.merged, young.removed, young.orphans) == ({"ops.profile": 10}, 0, 0)
        assert len(names()) == 12, "readers may be at the ten, and a writer at the one that nothing names"
        old = maintenance.maintain(rails, AS_OF, now=clock.now() + timedelta(days=3))
        assert (old.removed, old.orphans) == (10, 1)
        assert len(names()) == 1
        assert rails.lake.query(f"select version from {{{PROFILE}}} order by all", AS_OF).equals(was)


def test_what_dbt_says_when_the_bucket_is_away_holds_no_secret(business: Rails, capfd: pytest.CaptureFixture) -> None:
    away = business.settings.model_copy(update={"s3_endpoint": "127.0.0.1:1"})
    with pytest.raises(TiltyardError, match="dbt") as caught:
        transform.invoke(away, "build", "--select", "+ftr_customer__profile")
    assert_no_secret("".join(traceback.format_exception(caught.value)))
    assert_no_secret("".join(capfd.readouterr()))
    assert_no_secret_under(away.home)


def test_what_dbt_says_of_a_profile_that_it_cannot_read_holds_no_secret(
    on_s3: Settings, tmp_path: Path, capfd: pytest.CaptureFixture
) -> None:
    project = tmp_path / "dbt"
    shutil.copytree(on_s3.dbt, project, ignore=shutil.ignore_patterns("target", "logs"))
    profile = (project / "profiles.yml").read_text()
    (project / "profiles.yml").write_text(profile.replace("      plugins:", "      plugins: no list\n      ignored:"))
    with pytest.raises(BadInput, match=r"dbt does not run: .*dbt\.log") as caught:
        transform.invoke(on_s3.model_copy(update={"dbt": project}), "build")
    assert_no_secret("".join(traceback.format_exception(caught.value)))
    assert_no_secret("".join(capfd.readouterr()))
    assert_no_secret_under(on_s3.home)


def test_a_catalogue_that_is_away_is_told_without_its_password(
    on_s3: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    there = make_url(on_s3.database_url or "").set(host="127.0.0.1", port=1, query={}, database="lake")
    monkeypatch.setattr(postgres, "url", lambda *_: there)
    with pytest.raises(Unavailable, match=r"The lake does not open: .*127\.0\.0\.1") as caught:
        Lake(on_s3)
    assert_no_secret("".join(traceback.format_exception(caught.value)))


def test_a_secret_that_duckdb_does_not_take_is_not_quoted(on_s3: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lakes, "text", lambda value: f"'{value}'")  # nothing escaped: the statement does not parse
    with pytest.raises(Unavailable, match="DuckDB does not take the password") as caught:
        lakes.create_secrets(duckdb.connect(), on_s3)
    assert_no_secret("".join(traceback.format_exception(caught.value)))


def test_duckdb_shows_nobody_the_secrets(on_s3: Settings) -> None:
    with Lake(on_s3) as lake:
        for view in ("duckdb_databases()", "duckdb_secrets()"):
            assert_no_secret(str(lake.connection.execute(f"select * from {view}").fetchall()))


def test_missing_keys_are_told_in_one_sentence(on_s3: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("AWS_SECRET_ACCESS_KEY")
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    for name in ("AWS_SHARED_CREDENTIALS_FILE", "AWS_CONFIG_FILE"):
        monkeypatch.setenv(name, str(on_s3.home / "nothing"))
    with pytest.raises(BadInput, match="set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or give it a profile"):
        Lake(on_s3)


def test_a_profile_or_a_role_will_do_and_its_token_is_handed_on(
    on_s3: Settings, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.delenv(name)
    profile = tmp_path / "credentials"
    keys = f"aws_access_key_id = key\naws_secret_access_key = {KEY}\naws_session_token = for-now\n"
    profile.write_text(f"[default]\n{keys}")
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(profile))
    assert "session_token 'for-now'" in lakes.s3_secret(on_s3)
    with Lake(on_s3) as lake:
        lake.connection.execute("create table lake.main.one as select * from range(100) t(number)")
        assert lake.connection.execute("select count(*) from lake.main.one").fetchone() == (100,)
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "key")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", KEY)
    monkeypatch.setenv("AWS_SESSION_TOKEN", "for-a-while")
    assert "session_token 'for-a-while'" in lakes.s3_secret(on_s3), "the environment comes first"


def assert_no_secret(text: str) -> None:
    assert [part for part in SPELLINGS if part in text] == []


def assert_no_secret_under(home: Path) -> None:
    for path in filter(Path.is_file, home.rglob("*")):
        content = path.read_bytes()
        assert [part for part in SPELLINGS if part.encode() in content] == [], path


def test_a_bit_that_turns_in_the_bucket_is_found_by_reads_and_by_the_scrub(business: Rails, endpoint: str) -> None:
    s3 = boto3.client("s3", endpoint_url=f"http://{endpoint}", region_name="us-east-1")
    assert scrub.scrub_all(business, lambda label, share: None).damaged == ()
    file = next(file for file in damage.files(business.lake) if file.table == "raw.login")
    place = {"Bucket": "tiltyard", "Key": file.path.removeprefix("s3://tiltyard/")}
    whole = s3.get_object(**place)["Body"].read()
    other = bytearray(whole)
    other[len(other) // 2] ^= 1
    s3.put_object(**place, Body=bytes(other))
    with pytest.raises(damage.Damaged, match=file.name), rails_module.opened(business.settings) as reader:
        reader.lake.connection.execute("select max(hash(*columns(*))) from lake.raw.login")
    assert [one.file for one in scrub.scrub_all(business, lambda label, share: None).damaged] == [file.name]
    s3.delete_object(**place)
    [gone] = scrub.scrub_all(business, lambda label, share: None).damaged
    assert gone.reason == "it is gone"
    s3.put_object(**place, Body=whole)
    assert scrub.scrub_night(business).damaged == ()
