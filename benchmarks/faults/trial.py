"""A kind of fault on a night of its own: put in, played, held against the undisturbed night, mended, played again."""

import ctypes
import os
import pickle
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated

from pydantic import Field

from faults import base, business, rows
from faults.kind import Kind, Place, in_a_process
from faults.player import Player
from tiltyard import rails as rails_module
from tiltyard import release
from tiltyard.edge import reports
from tiltyard.edge.airflow_settings import tiltyard_env
from tiltyard.records import Record
from tiltyard.serve.web import App
from tiltyard.settings import Settings
from tiltyard.spec import portfolio

Online = dict[str, dict[str, int]]
"""Model → `tier (reason)` → rows that the service answered."""
CLONE_NEWNS = 0x00020000
"""A mount namespace of its own (man 2 unshare)."""
NIGHT = base.LAST + base.NIGHT
"""The night of the fault."""


@dataclass(frozen=True, kw_only=True)
class Result(Record):
    """What a kind of fault did."""

    kind: str
    group: str
    what: str
    downstream: int
    """Models that stand on what it broke."""
    touched: int
    """Those of them whose rows are others than on the undisturbed night."""
    collateral: dict[str, tuple[str, ...]]
    """Model that does not → what differs from the undisturbed night."""
    collateral_tables: tuple[str, ...]
    """Tables that do not stand on it and are not published."""
    unanswered: dict[str, str]
    """Model → why it has no answer for some row."""
    left: dict[str, tuple[str, ...]]
    """Model → what differs from the undisturbed night once the fault was mended."""
    unseen: str = ""
    """Why nobody has to see it; empty where somebody must."""
    lasting: str
    """Why the downstream models' night stays another one; empty where it must not."""
    tables: dict[str, str]
    """Table that was not published → how it stood."""
    answers: dict[str, int]
    """How the downstream models answered → rows."""
    waiting: int
    """Downstream models of which the night has no row, or lacks some: the service answered these."""
    seen: Annotated[tuple[str, ...], Field(description="Where a person sees it.")]
    seconds: float

    @property
    def is_good(self) -> bool:
        is_seen = bool(self.seen or self.unseen) or self.group == "nothing"
        return is_seen and not (self.collateral or self.collateral_tables or self.unanswered or self.left)


@dataclass
class Bench:
    """A folder with a base home, in which one kind after the other is tried.

    The home lies at one path, since the lake's catalogue holds it. Jobs beside each other see a folder of their own
    there (`apart`).
    """

    folder: Path

    @property
    def place(self) -> Path:
        return self.folder / "place"

    @property
    def at(self) -> Settings:
        return business.settings(self.place)

    @property
    def _base(self) -> Path:
        return self.folder / "base"

    @property
    def _built(self) -> Path:
        """The base, and the features of the night."""
        return self.folder / "built"

    @property
    def _undisturbed(self) -> Path:
        return self.folder / "undisturbed.pickle"

    @property
    def is_prepared(self) -> bool:
        return self._base.is_dir() and self._built.is_dir() and self._undisturbed.exists()

    def apart(self, number: int) -> None:
        """Let this process, and what it starts, see a folder of its own at the home's path."""
        own = self.folder / f"job-{number}"
        runtime = self.folder / f"tmp-{number}"  # of PostgreSQL's socket, which is named by the path
        for folder in (own, runtime, self.place):
            folder.mkdir(exist_ok=True)
            folder.chmod(0o755)
        if ctypes.CDLL(None, use_errno=True).unshare(CLONE_NEWNS) != 0:
            raise SystemExit("Jobs beside each other need the right to mount; run with --jobs 1.")
        for arguments in (["--make-rprivate", "/"], ["--bind", str(own), str(self.place)]):
            subprocess.run(["mount", *arguments], check=True)
        os.environ["TMPDIR"] = str(runtime)
        tempfile.tempdir = str(runtime)

    def prepare(self, jobs: int, say: base.SAYS) -> None:
        """Play the base and the undisturbed night, where that was not done before."""
        self.place.mkdir(parents=True, exist_ok=True)
        for folder in (self.folder, self.place):
            folder.chmod(0o755)  # run as root, PostgreSQL drops to a user of its own
        if not self._base.is_dir():
            base.make(self.at, jobs, say)
            self._keep(self._base)
        if not self._built.is_dir():
            self.restore(self._base)
            player = self._player(Place(self.at, NIGHT))
            in_a_process(lambda: player.build(NIGHT, business.SOURCES))
            self.stop()
            self._keep(self._built)
        if not self._undisturbed.exists():
            begun = time.perf_counter()
            self.restore(self._base)
            written, player = self.play(Place(self.at, NIGHT), business.SOURCES)
            self.stop()
            bad = [f"{outcome.job}: {outcome.error}" for outcome in player.outcomes if outcome.is_bad]
            if bad or player.import_errors:
                raise SystemExit(f"The undisturbed night went wrong: {bad or player.import_errors}")
            with self._undisturbed.open("wb") as file:
                pickle.dump(written, file)
            tasks: dict[str, float] = {}
            for outcome in player.outcomes:
                name = f"{outcome.job.dag_id.rpartition('__')[2]}.{outcome.job.task_id}"
                tasks[name] = tasks.get(name, 0.0) + outcome.seconds
            told = ", ".join(f"{name} {seconds:.0f}" for name, seconds in tasks.items())
            say(f"the undisturbed night took {time.perf_counter() - begun:.0f} s ({told})")

    def restore(self, kept: Path) -> None:
        """Put a home that is kept where it was."""
        self.stop()
        self._empty()
        subprocess.run(["cp", "-a", f"{kept}/.", str(self.place)], check=True)

    def _keep(self, kept: Path) -> None:
        part = kept.with_name(f"{kept.name}.part")
        shutil.rmtree(part, ignore_errors=True)
        subprocess.run(["cp", "-a", str(self.place), str(part)], check=True)
        part.rename(kept)

    def _empty(self) -> None:
        for path in self.place.iterdir():
            if path.is_dir() and not path.is_symlink():
                shutil.rmtree(path)
            else:
                path.unlink()

    def stop(self) -> None:
        """Stop PostgreSQL. Not by `postgres.stop`, which knows a server by its folder: jobs have theirs at one path."""
        marker = self.place / "home" / "postgres" / "postmaster.pid"
        if not marker.exists():
            return
        os.kill(int(marker.read_text().splitlines()[0]), signal.SIGINT)
        deadline = time.monotonic() + 60
        while marker.exists():
            if time.monotonic() > deadline:
                raise SystemExit(f"PostgreSQL does not stop; see {marker.parent / 'server.log'}.")
            time.sleep(0.05)

    def play(
        self, place: Place, sources: Sequence[str], kind: Kind | None = None, *, by_hand: bool = False
    ) -> tuple[rows.Written, Player]:
        """Play the night, and read what it wrote. `sources` come by their schedule, or are started by hand."""
        disturbed = kind is not None and not by_hand
        player = self._player(place, kind if disturbed else None)
        player.by_hand = by_hand
        player.models = tuple(sorted(kind.downstream)) if kind and by_hand and kind.again else ()
        trains, is_built = (kind.trains, kind.late) if kind and disturbed else ("", False)
        player = in_a_process(lambda: _played(player, place, () if is_built else sources, trains, is_built))
        if kind and disturbed and kind.opens:
            path = kind.opens.format(night=place.night)
            player.unopened = in_a_process(lambda: _unopened(player.environment, path))
        return in_a_process(lambda: _read(place)), player

    def _player(self, place: Place, kind: Kind | None = None) -> Player:
        """Who plays the night, with the kind's settings and traps."""
        environment = in_a_process(lambda: tiltyard_env(place.at)) | {"TILTYARD_SOURCES": ",".join(business.SOURCES)}
        logs = self.place / "task_logs"
        logs.mkdir(exist_ok=True)
        return Player(environment | _environment(kind, place), logs, kind.traps if kind else ())

    def try_out(self, kind: Kind) -> Result:
        """Put a kind of fault in, play, compare, mend, play again and compare again."""
        begun = time.perf_counter()
        with self._undisturbed.open("rb") as file:
            undisturbed: rows.Written = pickle.load(file)  # noqa: S301  # written by `prepare`
        self.restore(self._built if kind.late else self._base)
        place = Place(self.at, NIGHT)
        try:
            kind.put_in(place)
            written, player = self.play(place, business.SOURCES, kind)
            lacking = lacks(kind, undisturbed, written)
            online = in_a_process(lambda: asked(player.environment, lacking)) if lacking else {}
        finally:
            place.mend()
        mended, again = self.play(place, kind.sources, kind, by_hand=True)
        self.stop()
        return judged(kind, undisturbed, written, online, player, mended, again, time.perf_counter() - begun)


def _environment(kind: Kind | None, place: Place) -> dict[str, str]:
    return {name: text.format(home=place.at.home) for name, text in kind.environment.items()} if kind else {}


def _played(player: Player, place: Place, sources: Sequence[str], trains: str, is_built: bool) -> Player:
    player.night(place.as_of, sources, is_built=is_built)
    if trains:
        player.one(f"{trains}__training", "train", [place.as_of.isoformat()], place.as_of)
    return replace(player, traps=(), _dags={})


def _unopened(environment: Mapping[str, str], path: str) -> str:
    """What a person who opens a report is told instead of it, or on it; empty where it is there."""
    os.environ.update(environment)
    page = reports.opened(release.in_force(Settings()), path)
    if page is None:
        return f"the report {path} is not drawn, and the log says why"
    text = page.read_text(encoding="utf-8")
    return f"the report {path} says that there are no pictures, and why" if "There are no pictures" in text else ""


def _read(place: Place) -> rows.Written:
    at = release.in_force(place.at)
    with rails_module.opened(at) as rails:
        return rows.written(rails, portfolio(at), place.as_of)


def lacks(kind: Kind, undisturbed: rows.Written, written: rows.Written) -> dict[str, tuple[str, ...]]:
    """Downstream model → those whom the undisturbed night has an answer for, and this one has not."""
    lacking = {}
    for model in sorted(kind.downstream):
        answered = written.answers.get(model)
        missing = undisturbed.answers[model].entities - (answered.entities if answered else frozenset())
        if missing:
            lacking[model] = tuple(sorted(missing))
    return lacking


def asked(environment: Mapping[str, str], lacking: Mapping[str, Sequence[str]]) -> Online:
    """What the service says of these, as the home is: model → `tier (reason)` → rows."""
    from fastapi.testclient import TestClient

    os.environ.update(environment)
    answers: Online = {}
    with TestClient(App(release.in_force(Settings()), now=NIGHT.timestamp)) as client:
        for model, entities in lacking.items():
            body = {"rows": [{"entity_id": entity} for entity in entities]}
            answer = client.post(f"/v1/models/{model}/predict", json=body)
            told = answers.setdefault(model, {})
            for row in answer.json()["predictions"] if answer.status_code == 200 else ():
                tier = f"{row['served_by']} ({row['reason']})" if row.get("reason") else str(row["served_by"])
                told[tier] = told.get(tier, 0) + 1
    shutil.rmtree(Settings().spool, ignore_errors=True)  # these requests are ours, and nobody's night is about them
    return answers


def judged(
    kind: Kind,
    undisturbed: rows.Written,
    written: rows.Written,
    online: Online,
    player: Player,
    mended: rows.Written,
    again: Player,
    seconds: float,
) -> Result:
    """What the two plays say of a kind."""
    collateral = {
        model: tuple(differs)
        for model in business.every_model()
        if model not in kind.downstream and (differs := written.differs(undisturbed, model))
    }
    if player.import_errors:
        collateral |= {f"dags/{name}": (text,) for name, text in player.import_errors.items()}
    clean = {source for source in business.SOURCES if not set(business.models_of(source)) & kind.downstream}
    strays = {
        table: f"{state}: {reason}"
        for table, (state, reason) in written.states.items()
        if state != "published" and any(f"{source}_" in table for source in clean)
    }
    unanswered = {}
    answers: dict[str, int] = {}
    for model in sorted(kind.downstream):
        answered = written.answers.get(model)
        if answered is None:
            unanswered[model] = "it is not there"
            continue
        for tier, count in answered.tiers.items():
            read = f", {'+'.join(answered.apart)} as of an earlier night" if answered.apart else ""
            answers[tier + read] = answers.get(tier + read, 0) + count
        for tier, count in online.get(model, {}).items():
            answers[f"online: {tier}"] = answers.get(f"online: {tier}", 0) + count
        lacking = len(lacks(kind, undisturbed, written).get(model, ()))
        silent = max(lacking, answered.unanswered) - sum(online.get(model, {}).values())
        if silent > 0 or answered.twice:
            unanswered[model] = (
                f"{answered.unanswered} of {answered.rows} rows of its spine without an answer, {answered.twice} "
                f"twice, {silent} neither by night nor online"
            )
    left = {}
    for model in business.every_model():
        answered = mended.answers.get(model)
        if kind.lasting and model in kind.downstream:
            if answered is None or answered.unanswered or answered.twice or answered.waits:
                left[model] = (f"not every row is answered: {answered}",)
        else:
            differs = mended.differs(undisturbed, model)
            if model in kind.downstream:
                differs = [text for text in differs if text.partition(":")[0] not in rows.STANDS]
            if differs:
                left[model] = tuple(differs)
    for outcome in again.outcomes:
        if outcome.is_bad:
            left[f"{outcome.job.dag_id}.{outcome.job.task_id}"] = (outcome.error,)
    return Result(
        kind=kind.name,
        group=kind.group,
        what=kind.what,
        downstream=len(kind.downstream),
        touched=sum(bool(written.differs(undisturbed, model)) for model in kind.downstream),
        collateral=collateral,
        collateral_tables=tuple(f"{table} is {how}" for table, how in strays.items()),
        unanswered=unanswered,
        left=left,
        unseen=kind.unseen,
        lasting=kind.lasting,
        tables={table: state for table, (state, _) in sorted(written.states.items()) if state != "published"},
        answers=dict(sorted(answers.items())),
        waiting=len(online),
        seen=seen(kind, undisturbed, written, player),
        seconds=round(seconds, 1),
    )


def seen(kind: Kind, undisturbed: rows.Written, written: rows.Written, player: Player) -> tuple[str, ...]:
    """Where a person sees a fault: red tasks, records of stages, events."""
    told = [
        f"{outcome.job.dag_id}.{outcome.job.task_id} is red: {(outcome.error.splitlines() or [''])[0][:300]}"
        for outcome in player.outcomes
        if outcome.state == "failed"
    ]
    told += [
        f"{outcome.job.dag_id}.{outcome.job.task_id} took {outcome.tried} attempts"
        for outcome in player.outcomes
        if outcome.state != "failed" and outcome.tried > 1
    ]
    for model in sorted(kind.downstream):
        for stage, status in written.stages.get(model, {}).items():
            if status != undisturbed.stages.get(model, {}).get(stage):
                told.append(f"{stage} of {model} is {status}")
        events = written.models.get(model, {}).get("event", [])
        if events != undisturbed.models.get(model, {}).get("event", []):
            told.append(f"an event of {model}: {events[0][:300] if events else ''}")
    for source in business.SOURCES:
        if differs := written.source_differs(undisturbed, source):
            told.append(f"the features' record of {source}: {differs[0][:200]}")
    if player.unopened:
        told.append(player.unopened)
    told += written.models.get("", {}).get("event", [])[:3]
    return tuple(dict.fromkeys(told))
