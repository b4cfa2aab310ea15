"""What is in service survives its disk, its ledger and its store of files; nobody waits for a file that is far away."""

import json
import logging
import shutil
import subprocess
import threading
import time
import uuid
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from urllib.parse import unquote, urlparse

import pytest
import sqlalchemy as sa
from fastapi.testclient import TestClient
from pydantic import SecretStr

from tests import served
from tests.unit.serve.test_serving import ask, told, until
from tiltyard import clock
from tiltyard import rails as rails_module
from tiltyard.judge import operate
from tiltyard.operating import Target
from tiltyard.rails import Rails
from tiltyard.records import OperationAction, ShadowSummary
from tiltyard.serve import servable, serving
from tiltyard.serve.servable import Servables
from tiltyard.serve.web import App
from tiltyard.settings import Settings
from tiltyard.train import registry

NOW = served.FIRST + timedelta(days=20)
ROW = {"features": served.ROW}


@pytest.fixture
def rails(tmp_path: Path, postgres_url: str) -> Iterator[Rails]:
    """`far` with a champion, `near` with a champion and a challenger; nothing is in the cache."""
    settings = served.home(tmp_path, postgres_url, f"kept{uuid.uuid4().hex[:8]}_", serve_refresh_s=0.05)
    with rails_module.opened(settings) as opened:
        for name, versions in (("far", 1), ("near", 2)):
            spec = served.written(settings.models, name)
            for day in range(versions):
                served.register(opened, spec, served.FIRST + day * served.DAY, served.model(day), served.model(9))
            served.promote(opened, spec, 1, served.FIRST + 5 * served.DAY)
        yield opened


def fetched(settings: Settings) -> Servables:
    """In service with all of its files."""
    made = Servables(settings)
    assert made.refresh()
    made.fetch()
    return made


def store_of(rails: Rails, model: str, version: int) -> Path:
    row = rails.ledger.version(model, version)
    assert row is not None
    return Path(unquote(urlparse(registry._absolute(rails.settings, row.facts.artifacts)).path))


def test_a_file_that_cannot_be_kept_fails_for_its_model_only(rails: Rails) -> None:
    made = Servables(rails.settings)
    blocked = made.folder / "far.json"
    (blocked / "in the way").mkdir(parents=True)
    assert made.refresh()
    made.fetch()
    assert [one.champion.number for one in made.current.values() if one.champion] == [1, 1]
    assert "does not take far (Is a directory)" in (made.trouble or "")
    assert [path.name for path in made.folder.iterdir()] == ["far.json", "near.json"]
    shutil.rmtree(blocked)
    made.refresh()
    assert made.trouble is None
    assert Servables(rails.settings).restore() == 2


def test_a_version_that_the_ledger_lost_leaves_the_others(rails: Rails) -> None:
    made = fetched(rails.settings)
    path = made.folder / "far.json"
    kept = servable.Roster.from_json(path.read_text())
    path.write_text(servable.Roster(**{**vars(kept), "versions": {}}).to_json())
    again = Servables(rails.settings)
    again.restore()
    assert again.current["far"].champion is None
    assert "no row" in again.current["far"].unloaded[1]
    assert again.current["near"].champion is not None


@pytest.mark.parametrize(
    ("before_it", "after_it", "told"),
    [
        (("alter table promotion disable trigger user",),
         ("alter table promotion enable always trigger tiltyard_chain",
          "alter table promotion enable always trigger tiltyard_truncate"),
         "promotion (model near, version 2) was put in by another way"),
        ((), (), "promotion (model near, version 2) follows from no decision"),
    ],
)  # fmt: skip
def test_what_somebody_wrote_into_the_ledger_serves_nobody(
    rails: Rails, caplog: Any, before_it: tuple[str, ...], after_it: tuple[str, ...], told: str
) -> None:
    """A promotion that no gate has made, past the triggers or with an entry in the chain: who was in service stays, and
    whoever begins to serve then has the safe default; the other model is as it was."""
    before = fetched(rails.settings)
    spec = served.written(rails.settings.models, "near")
    with rails.ledger.engine.begin() as connection:
        for statement in (
            *before_it,
            "insert into promotion (model, version, night, requested_by, approval, recorded_at) "
            "values ('near', 2, '2024-03-01', 'nobody', '[]', now())",
            *after_it,
        ):
            connection.execute(sa.text(statement))
    rails.ledger.record_stage(spec.name, (served.FIRST + 8 * served.DAY).date(), "done", ShadowSummary())
    before.refresh()
    champion = before.current["near"].champion
    assert champion is not None and champion.number == 1
    assert told in caplog.text
    shutil.rmtree(before.folder)
    fresh = fetched(rails.settings)
    assert fresh.current["near"].champion is None
    assert fresh.current["far"].champion is not None


def test_what_a_person_did_is_not_undone_by_taking_it_out(rails: Rails, caplog: Any) -> None:
    """Of an operation that is gone nobody knows which model it was of: whoever was in service of any stays."""
    spec = served.written(rails.settings.models, "near")
    served.promote(rails, spec, 2, served.FIRST + 6 * served.DAY, replaced=1)
    rails.ledger.record_stage(spec.name, (served.FIRST + 7 * served.DAY).date(), "done", ShadowSummary())
    asked = {"reason": "it answers too high", "by": "ann", "source": "test", "now": NOW}
    operate.request(rails, spec, "rollback", to=1, **asked)
    before = fetched(rails.settings)
    assert before.current["near"].champion is not None
    with rails.ledger.engine.begin() as connection:
        for statement in (
            "insert into erasure (entity, hashes, reason, requested_by, recorded_at) "
            "values ('customer', '[]', 'none', 'mallory', now())",
            "set local tiltyard.ordered_by = 'erasure 1'", "delete from operation_end", "delete from operation",
        ):  # fmt: skip
            connection.execute(sa.text(statement))
    assert before.refresh()
    champions = [one.champion.number for one in before.current.values() if one.champion]
    assert champions == [1, 1]
    assert "operation (id 1) was taken out, and nothing ordered it" in caplog.text


def test_a_start_reads_the_cache_alone_and_a_slow_file_holds_nobody(rails: Rails, monkeypatch: Any) -> None:
    fetched(rails.settings)
    shutil.rmtree(rails.settings.home / "cache" / "far")
    may_end, asked, copy = threading.Event(), [], registry._copy

    def slow(settings: Settings, source: str, file: str, target: Path) -> None:
        asked.append(source)
        may_end.wait(60)
        copy(settings, source, file, target)

    monkeypatch.setattr(registry, "_copy", slow)
    began = time.monotonic()
    with TestClient(App(rails.settings, now=NOW.timestamp)) as opened:
        assert time.monotonic() - began < 5
        assert told(ask(opened, ROW, "far")) == ("safe_default", "champion_not_loaded")
        until(lambda: asked)
        spec = served.written(rails.settings.models, "near")
        served.promote(rails, spec, 2, served.FIRST + 6 * served.DAY, replaced=1)
        until(lambda: ask(opened, ROW, "near")["version"] == 2)
        assert "fetched" in opened.get("/readyz").json()["refused"]["far"]["1"]
        began = time.monotonic()
    assert time.monotonic() - began < 5  # nor does the end wait for it
    may_end.set()
    with TestClient(App(rails.settings, now=NOW.timestamp)) as opened:
        until(lambda: told(ask(opened, ROW, "far")) == ("champion", "in_service"))


def test_what_a_person_puts_in_service_answers_within_a_refresh(rails: Rails) -> None:
    spec = served.written(rails.settings.models, "near")
    served.promote(rails, spec, 2, served.FIRST + 6 * served.DAY, replaced=1)
    rails.ledger.record_stage("near", (served.FIRST + 8 * served.DAY).date(), "done", ShadowSummary())
    fetched(rails.settings)

    def by_hand(action: OperationAction, to: Target = None) -> None:
        done = operate.request(
            rails, spec, action, to=to, reason="it answers too high", by="ann", source="command line", now=clock.now()
        )
        assert done.operation

    def answers(*expected: object) -> bool:
        prediction = ask(opened, ROW, "near")
        return (prediction["served_by"], prediction["version"]) == expected

    with TestClient(App(rails.settings, now=NOW.timestamp)) as opened:
        until(lambda: answers("champion", 2))
        by_hand("rollback")
        until(lambda: answers("champion", 1))
        by_hand("retire")
        until(lambda: answers("safe_default", None))
        assert told(ask(opened, ROW, "near")) == ("safe_default", "no_champion")
        by_hand("unretire")
        until(lambda: answers("champion", 1))
        by_hand("pin", 2)
        until(lambda: answers("champion", 2))


def test_a_refused_file_is_told_once_and_tried_less_and_less(rails: Rails, monkeypatch: Any, caplog: Any) -> None:
    path = store_of(rails, "far", 1) / "model.onnx"
    path.write_bytes(path.read_bytes()[:-1] + b"?")
    tries, fill = [], registry._fill
    monkeypatch.setattr(registry, "_fill", lambda *some: (tries.append(some[2]), fill(*some)))
    caplog.set_level(logging.WARNING, logger="tiltyard.serve.servable")
    monkeypatch.setattr(servable, "PAUSE_S", 60.0)  # also on a machine where a look takes seconds
    made = fetched(rails.settings)
    tries.clear()
    kept = (made.folder / "far.json").stat().st_mtime_ns
    for _ in range(3):
        made.refresh()
        made.fetch()
    assert tries == []
    assert "SHA-256" in made.current["far"].unloaded[1]
    monkeypatch.setattr(servable, "PAUSE_S", 0.0)
    key = next(iter(made._failures))
    made._failures[key] = servable.Failure(made._failures[key].reason, 1, 0.0)
    for _ in range(3):
        made.fetch()
    Servables(rails.settings).refresh()  # another worker
    assert len(tries) == 3
    assert len(rails.ledger.events("far", "corrupt_artifact")) == 1
    assert len([one for one in caplog.records if "far version 1" in one.getMessage()]) == 1
    assert (made.folder / "far.json").stat().st_mtime_ns == kept


def test_the_pause_doubles_up_to_its_limit() -> None:
    made, key, pauses = Servables(Settings()), ("far", 1, ""), []
    for _ in range(9):
        made._failed(key, OSError("gone"))
        pauses.append(round(made._failures[key].again_at - time.monotonic()))
    assert pauses == [5, 10, 20, 40, 80, 160, 300, 300, 300]


def test_a_background_thread_survives_whatever_it_meets(rails: Rails, monkeypatch: Any) -> None:
    app = App(rails.settings.model_copy(update={"serve_deliver_s": 0.05}), now=NOW.timestamp, delivers=True)
    outcomes: list[Any] = [OSError("no more processes"), subprocess.TimeoutExpired("deliver", 1)]
    limits = []

    def deliver(command: list[str], **options: Any) -> Any:
        limits.append(options["timeout"])
        if outcomes:
            raise outcomes.pop(0)
        return SimpleNamespace(returncode=0, stderr="")

    monkeypatch.setattr(serving, "subprocess", SimpleNamespace(run=deliver))
    with TestClient(app) as opened:

        def full(_: Any) -> None:
            raise OSError("No space left on device")

        look = app.service.metrics.look
        app.service.metrics.look = full  # type: ignore[method-assign]
        until(lambda: "refresh: No space left" in (opened.get("/readyz").json()["trouble"] or ""))
        spec = served.written(rails.settings.models, "near")
        served.promote(rails, spec, 2, served.FIRST + 6 * served.DAY, replaced=1)
        until(lambda: ask(opened, ROW, "near")["version"] == 2)
        app.service.metrics.look = look  # type: ignore[method-assign]
        until(lambda: len(limits) > 3 and opened.get("/readyz").json()["trouble"] is None)
    assert limits[0] == serving.DELIVER_S


def test_what_is_kept_comes_back_as_it_was(rails: Rails) -> None:
    made = fetched(rails.settings)
    text = (made.folder / "near.json").read_text()
    assert servable.Roster.from_json(text).to_json() == text
    with pytest.raises(ValueError, match="digest"):
        servable.Roster.from_json(json.dumps({**json.loads(text), "sha256": "0"}))


def test_who_writes_into_the_folder_without_the_key_serves_nobody(rails: Rails, caplog: Any) -> None:
    """The same roster with another champion, with its digest right: believed where there is no key, and told where
    there is."""
    sealed = rails.settings.model_copy(update={"serve_seal": SecretStr("a key of the service")})
    made = fetched(sealed)
    path = made.folder / "near.json"
    kept = servable.Roster.from_json(path.read_text(), "a key of the service")
    forged = servable.Roster(**{**vars(kept), "champion": None})
    for text, why in (
        (forged.to_json(), "nobody has sealed it"),
        (forged.to_json("another key"), "its digest is another one"),
    ):
        path.write_text(text)
        again = Servables(sealed)
        again.restore()
        assert "near" not in again.current
        assert why in caplog.text
    path.write_text(forged.to_json())
    open_to_all = Servables(rails.settings)
    open_to_all.restore()
    assert open_to_all.current["near"].champion is None
    path.write_text(kept.to_json("a key of the service"))
    again = Servables(sealed)
    again.restore()
    assert again.current["near"].champion is not None
