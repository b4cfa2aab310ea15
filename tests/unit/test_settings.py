"""Settings: the environment, the defaults, and which sources are active."""

from pathlib import Path

import pytest

from tiltyard.settings import Settings


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


def test_only_the_four_databases_have_names() -> None:
    with pytest.raises(ValueError, match="is not one of"):
        Settings().database("postgres")
