"""After a night of the real commands nothing of a home is for anybody but its owner, and an older home becomes so."""

import os
import shutil
import stat
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tiltyard import postgres, private
from tiltyard.settings import Settings

NIGHT = "2025-02-10"


@pytest.fixture(scope="module")
def home(eager_models: Path, deliveries: Path) -> Iterator[Settings]:
    """A home in which a night was done by commands, started with the usual umask."""
    folder = Path(tempfile.mkdtemp(prefix="tiltyard-private-"))
    settings = Settings(
        home=folder / "home", models=eager_models, landing_zone=folder / "landing", sources=("subscription",),
        runtime_folder=folder, database_url=None,
    )  # fmt: skip
    shutil.copytree(deliveries, settings.landing / "subscription")
    try:
        for words in (["features"], ["train", "churn"], ["shadow", "churn"], ["predictions", "churn"]):
            done = tiltyard(settings, *words, night=NIGHT)
            assert done.returncode == 0, done.stderr
        yield settings
    finally:
        postgres.stop(settings)
        shutil.rmtree(folder, ignore_errors=True)


def tiltyard(settings: Settings, *words: str, night: str) -> "subprocess.CompletedProcess[str]":
    option = ["--night", night] if words[0] == "predictions" else ["--as-of", night]
    environment = {
        **{name: value for name, value in os.environ.items() if not name.startswith("TILTYARD_")},
        "TILTYARD_HOME": str(settings.home), "TILTYARD_MODELS": str(settings.models),
        "TILTYARD_LANDING_ZONE": str(settings.landing), "TILTYARD_RUNTIME_FOLDER": str(settings.runtime_folder),
    }  # fmt: skip
    return subprocess.run(
        [sys.executable, "-m", "tiltyard.cli", *words, *option],
        env=environment, umask=0o022, capture_output=True, text=True, check=False, timeout=600,
    )  # fmt: skip


def open_to_others(home: Path) -> list[str]:
    """Files and folders with a bit for group or others, but for the way through that one user has."""
    found = []
    for folder, folders, files in os.walk(home):
        for path in (Path(folder), *(Path(folder, name) for name in (*folders, *files))):
            mode = path.lstat().st_mode
            if not stat.S_ISLNK(mode) and mode & private.MASK and not private.is_passage(path):
                found.append(f"{path.relative_to(home)} {stat.filemode(mode)}")
    return sorted(set(found))


def test_nothing_of_a_home_is_for_others(home: Settings) -> None:
    assert any(home.frames.iterdir())
    assert any((home.home / "lake").rglob("*.parquet"))
    assert open_to_others(home.home) == []
    assert stat.S_IMODE(home.runtime.stat().st_mode) == 0o700


def test_only_the_home_itself_is_a_passage_and_for_the_database_alone(home: Settings) -> None:
    passages = [path for path in home.home.rglob("*") if path.is_dir() and private.is_passage(path)]
    assert passages == []
    assert home.home.stat().st_mode & 0o007 == 0


def test_a_home_that_was_open_is_tightened_by_the_next_start_which_says_so_once(home: Settings) -> None:
    (home.home / "frames").chmod(0o755)
    (home.home / "serving").mkdir(exist_ok=True)
    (home.home / "serving").chmod(0o755)
    sentence = private.told(home.home, home.landing)
    assert sentence is not None
    assert "2 files and folders" in sentence
    assert open_to_others(home.home) == []
    assert private.told(home.home, home.landing) is None
