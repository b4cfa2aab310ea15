"""The processes of a hindcast: side by side, each model's failure its own, and a process that is killed."""

import os
import signal
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import pytest

from tiltyard.errors import BadInput, Unavailable
from tiltyard.rails import Rails
from tiltyard.rewind.crew import Crew, Killed
from tiltyard.settings import ROOT
from tiltyard.spec import Spec, load

AS_OF = datetime(2025, 2, 3, tzinfo=UTC)


def specs(*names: str) -> list[Spec]:
    churn = load(ROOT / "models" / "churn")
    return [churn.model_copy(update={"name": name}) for name in names]


def done_here(rails: Rails, spec: Spec, as_of: datetime) -> int:
    """Leaves a file behind that says so, and returns its process."""
    (rails.settings.home / f"{spec.name}.done").touch()
    if spec.name.startswith("refused"):
        raise BadInput(f"{spec.name} is refused")
    if spec.name.startswith("away"):
        raise Unavailable("the database is away")
    if spec.name.startswith("doomed"):
        os.kill(os.getpid(), signal.SIGKILL)
    if spec.name.startswith("shaky") and not (rails.settings.home / "shaken").exists():
        (rails.settings.home / "shaken").touch()
        os.kill(os.getpid(), signal.SIGKILL)
    return os.getpid()


def finished(home: Path) -> set[str]:
    return {path.stem for path in home.glob("*.done")}


@pytest.mark.parametrize("jobs", [1, 2])
def test_what_a_model_raises_is_its_own(rails: Rails, jobs: int) -> None:
    models = specs("first", "refused", "second", "third")
    with Crew(rails, [spec.name for spec in models], jobs) as crew:
        for _ in range(2):
            done, failed = crew.each(models, AS_OF, done_here)
            assert done.keys() == {"first", "second", "third"}
            assert {name: str(error) for name, error in failed.items()} == {"refused": "refused is refused"}
        assert len(set(done.values())) == jobs
        assert crew.each(models[:1], AS_OF, done_here)[0]["first"] == done["first"], "a model stays with its process"
    assert (os.getpid() in done.values()) == (jobs == 1)


def test_a_database_that_is_away_ends_the_night_after_everybody_has_tried(rails: Rails) -> None:
    models = specs("away", "first", "second")
    with Crew(rails, [spec.name for spec in models], 2) as crew, pytest.raises(Unavailable):
        crew.each(models, AS_OF, done_here)
    assert finished(rails.settings.home) == {"away", "first", "second"}


def test_a_database_that_is_away_when_a_process_begins_kills_nobody(rails: Rails) -> None:
    """A process that cannot open its rails looks like one that was killed to whoever only sees that it ended."""
    nowhere = rails.settings.model_copy(update={"database_url": "postgresql://nobody@127.0.0.1:1"})
    models = specs("first", "second")
    away = pytest.raises(Unavailable, match="PostgreSQL does not answer")
    with Crew(replace(rails, settings=nowhere), [spec.name for spec in models], 2) as crew, away:
        crew.each(models, AS_OF, done_here)
    assert finished(rails.settings.home) == set()


def test_a_killed_process_takes_nobody_with_it(rails: Rails) -> None:
    models = specs("doomed", "first", "second", "third", "shaky")
    with Crew(rails, [spec.name for spec in models], 2) as crew:
        done, failed = crew.each(models, AS_OF, done_here)
        assert done.keys() == {"first", "second", "third", "shaky"}
        assert isinstance(failed["doomed"], Killed)
        assert crew.each(models[1:], AS_OF, done_here)[0].keys() == done.keys(), "the next night has all it needs"
