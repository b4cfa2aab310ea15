"""Settings: the environment, the defaults, and which sources are active."""

import re
from pathlib import Path

import pytest
from pydantic import ValidationError

from tiltyard.settings import ROOT, Settings, unknown_variables


def test_the_environment_wins_over_the_defaults(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("TILTYARD_HOME", str(tmp_path / "a folder with a space"))
    monkeypatch.setenv("TILTYARD_API_PORT", "8099")
    settings = Settings()
    assert settings.api_port == 8099
    assert settings.landing == tmp_path / "a folder with a space" / "landing"


def test_active_sources_are_the_landed_ones_unless_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delenv("TILTYARD_SOURCES", raising=False)
    assert Settings(home=tmp_path).sources == ("incident",)
    (tmp_path / "landing" / "subscription").mkdir(parents=True)
    assert Settings(home=tmp_path).sources == ("subscription",)
    monkeypatch.setenv("TILTYARD_SOURCES", "incident, subscription")
    assert Settings(home=tmp_path).sources == ("incident", "subscription")


def test_the_runtime_folder_is_short_enough_for_a_unix_socket(tmp_path: Path) -> None:
    deep = tmp_path / ("x" * 120)
    assert len(str(Settings(home=deep).runtime)) < 80


def test_no_text_of_the_settings_shows_a_secret(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TILTYARD_DATABASE_URL", "postgresql://me:hidden-1@there:5432")
    monkeypatch.setenv("TILTYARD_SERVE_KEYS", "ann:hidden-2")
    monkeypatch.setenv("TILTYARD_ONLINE_URL", "redis://:hidden-3@there")
    monkeypatch.setenv("TILTYARD_KAFKA_OPTIONS", "sasl.password=hidden-4")
    assert "hidden" not in repr(Settings()) + str(Settings())
    monkeypatch.setenv("TILTYARD_API_PORT", "hidden-5")  # what was meant for another setting
    with pytest.raises(ValidationError) as caught:
        Settings()
    assert "hidden" not in str(caught.value)


@pytest.mark.parametrize(
    ("name", "good", "bad"),
    [
        ("s3_endpoint", ["s3:8333", "minio.example.org", "[::1]:9000", ""], ["http://s3:8333", "s3:x", "s 3", "s3\0"]),
        ("lake_data", ["s3://bucket/lake", "/a folder", "file:///a"], ["s3://", "gs://bucket", "/a\0"]),
        ("mlflow_artifacts", ["s3://bucket", "here"], ["s3:///prefix", "ftp://there", "/a\nb"]),
    ],
)
def test_an_address_of_files_is_looked_at_before_it_is_used(name: str, good: list[str], bad: list[str]) -> None:
    for value in good:
        assert getattr(Settings.model_validate({name: value}), name) == value
    for value in bad:
        with pytest.raises(ValidationError, match="written like"):
            Settings.model_validate({name: value})


def test_only_the_four_databases_have_names() -> None:
    with pytest.raises(ValueError, match="is not one of"):
        Settings().database("postgres")


def test_a_variable_that_is_no_setting_is_named_with_the_one_that_was_meant() -> None:
    (sentence,) = unknown_variables(["TILTYARD_SHCEDULE", "TILTYARD_HOME", "TILTYARD_USER", "PATH"])
    assert sentence == "TILTYARD_SHCEDULE is no setting and has no effect; did you mean TILTYARD_SCHEDULE?"


def test_no_variable_of_the_project_itself_is_unknown() -> None:
    files = [
        *(ROOT / "plugins" / "tiltyard").rglob("*.py"), *(ROOT / "dbt").glob("*.yml"), *(ROOT / "docs").rglob("*.md"),
        ROOT / "README.md", ROOT / "Dockerfile", ROOT / "Makefile", ROOT / "docker-compose.yml",
    ]  # fmt: skip
    names = {name for file in files for name in re.findall(r"TILTYARD_[A-Z0-9_]*[A-Z0-9]", file.read_text())}
    assert "TILTYARD_SERVE_CLOCK" in names
    assert unknown_variables(names) == ()
