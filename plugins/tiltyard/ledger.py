"""The decisions database: what was claimed, trained, decided, approved and promoted, and by whom.

The ledger decides, MLflow's aliases follow. Roles at a past night are derived from it, so that a rerun of
that night sees the champion of that night. Rows are added, not rewritten; a stage's run record is the one
exception (it says how the last attempt went).
"""

from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import date
from typing import Any, Literal

import sqlalchemy as sa
from sqlalchemy.dialects import postgresql as pg

from tiltyard import clock, postgres
from tiltyard.errors import Fenced
from tiltyard.govern.governor import Finding, Incident
from tiltyard.settings import Settings

metadata = sa.MetaData()
_json = pg.JSONB
_instant = sa.DateTime(timezone=True)

fence = sa.Table(
    "fence",
    metadata,
    sa.Column("key", sa.Text, primary_key=True),
    sa.Column("token", sa.BigInteger, nullable=False),
)
stage_run = sa.Table(
    "stage_run",
    metadata,
    sa.Column("stage", sa.Text, primary_key=True),
    sa.Column("model", sa.Text, primary_key=True),  # '' for the portfolio-wide features stage
    sa.Column("night", sa.Date, primary_key=True),
    sa.Column("status", sa.Text, nullable=False),  # done | stopped | failed
    sa.Column("summary", _json, nullable=False),
    sa.Column("recorded_at", _instant, nullable=False),
)
version = sa.Table(
    "version",
    metadata,
    sa.Column("model", sa.Text, primary_key=True),
    sa.Column("version", sa.Integer, primary_key=True),
    sa.Column("night", sa.Date, nullable=False),  # trained as of
    sa.Column("inputs", sa.Text, nullable=False),  # digest of frame, spec and seed: same inputs, same version
    sa.Column("run_id", sa.Text, nullable=False),  # MLflow
    sa.Column("digests", _json, nullable=False),  # file → sha256
    sa.Column("facts", _json, nullable=False),  # frame, snapshot, spec digest, git commit, metrics, reason
    sa.Column("requested_by", sa.Text, nullable=False),
    sa.Column("recorded_at", _instant, nullable=False),
)
decision = sa.Table(
    "decision",
    metadata,
    sa.Column("model", sa.Text, primary_key=True),
    sa.Column("night", sa.Date, primary_key=True),
    sa.Column("challenger", sa.Integer, primary_key=True),
    sa.Column("champion", sa.Integer),  # NULL: against the safe default
    sa.Column("verdict", sa.Text, nullable=False),  # promote | hold | reject
    sa.Column("reasons", _json, nullable=False),
    sa.Column("evidence", _json, nullable=False),
    sa.Column("recorded_at", _instant, nullable=False),
)
promotion = sa.Table(
    "promotion",
    metadata,
    sa.Column("model", sa.Text, primary_key=True),
    sa.Column("version", sa.Integer, primary_key=True),
    sa.Column("night", sa.Date, nullable=False),
    sa.Column("replaced", sa.Integer),
    sa.Column("requested_by", sa.Text, nullable=False),
    sa.Column("approved_by", sa.Text),  # NULL: the tier needs no person
    sa.Column("approval", _json, nullable=False),
    sa.Column("recorded_at", _instant, nullable=False),
    sa.UniqueConstraint("model", "night", name="one_promotion_per_night"),
)
watch = sa.Table(
    "watch",
    metadata,
    sa.Column("model", sa.Text, primary_key=True),
    sa.Column("night", sa.Date, primary_key=True),
    sa.Column("champion", sa.Integer, nullable=False),  # the one that was promoted, and is watched
    sa.Column("previous", sa.Integer),  # NULL: it replaced the safe default
    sa.Column("verdict", sa.Text, nullable=False),  # keep | rollback
    sa.Column("reasons", _json, nullable=False),
    sa.Column("evidence", _json, nullable=False),
    sa.Column("recorded_at", _instant, nullable=False),
)
sa.Index(
    "one_rollback_per_version",
    watch.c.model,
    watch.c.champion,
    unique=True,
    postgresql_where=watch.c.verdict == "rollback",
)
retrain = sa.Table(
    "retrain",
    metadata,
    sa.Column("model", sa.Text, primary_key=True),
    sa.Column("night", sa.Date, primary_key=True),
    sa.Column("reasons", _json, nullable=False),
    sa.Column("recorded_at", _instant, nullable=False),
)
finding = sa.Table(
    "finding",
    metadata,
    sa.Column("model", sa.Text, primary_key=True),
    sa.Column("night", sa.Date, primary_key=True),
    sa.Column("body", _json, nullable=False),  # governor.Finding
    sa.Column("recorded_at", _instant, nullable=False),
)
incident = sa.Table(
    "incident",
    metadata,
    sa.Column("night", sa.Date, primary_key=True),  # a row for every night on which it was open
    sa.Column("node", sa.Text, primary_key=True),
    sa.Column("kind", sa.Text, primary_key=True),  # broken | missing | shared_shift
    sa.Column("since", sa.Date, nullable=False),
    sa.Column("models", _json, nullable=False),
    sa.Column("columns", _json, nullable=False),
    sa.Column("said", sa.Text, nullable=False),
    sa.Column("recorded_at", _instant, nullable=False),
)
event = sa.Table(
    "event",
    metadata,
    sa.Column("id", sa.BigInteger, sa.Identity(), primary_key=True),
    sa.Column("kind", sa.Text, nullable=False),
    sa.Column("model", sa.Text, nullable=False),
    sa.Column("night", sa.Date),
    sa.Column("detail", _json, nullable=False),
    sa.Column("recorded_at", _instant, nullable=False),
)
default_task = sa.Table(
    "default_task",
    metadata,
    sa.Column("model", sa.Text, primary_key=True),
    sa.Column("opened", sa.Date, primary_key=True),  # the night whose audit asked
    sa.Column("since", sa.Date, nullable=False),  # the first night on the safe default
    sa.Column("repeats", sa.Date),  # NULL: asked for the first time; else when the answer was asked for that ran out
    sa.Column("said", _json, nullable=False),  # nights, share and reasons when it was opened
    sa.Column("recorded_at", _instant, nullable=False),
)
default_task_end = sa.Table(
    "default_task_end",
    metadata,
    sa.Column("model", sa.Text, primary_key=True),
    sa.Column("opened", sa.Date, primary_key=True),
    sa.Column("how", sa.Text, primary_key=True),  # answered | recovered
    sa.Column("night", sa.Date, nullable=False),  # the newest audited night when it ended
    sa.Column("cause", sa.Text),
    sa.Column("owner", sa.Text),
    sa.Column("until", sa.Date),
    sa.Column("answered_by", sa.Text),
    sa.Column("source", sa.Text),  # airflow | command line
    sa.Column("answered_at", _instant),
    sa.Column("recorded_at", _instant, nullable=False),
)


@dataclass(frozen=True)
class Fence:
    """A claim on one piece of work, e.g. `shadow/sla_breach/2016-04-02`. A later claim outdates it."""

    ledger: "Ledger"
    key: str
    token: int

    @contextmanager
    def held(self) -> Iterator[None]:
        """Hold the claim while committing. Raises Fenced when a newer attempt has claimed the work.

        The row lock keeps a newer claim waiting until this commit is done; PostgreSQL lets it go when
        the process dies.
        """
        with self.ledger.engine.begin() as connection:
            current = connection.scalar(sa.select(fence.c.token).where(fence.c.key == self.key).with_for_update())
            if current != self.token:
                raise Fenced(
                    f"A newer attempt has taken over {self.key} (token {current}, this one holds {self.token}); "
                    "nothing of this attempt was written."
                )
            yield


@dataclass(frozen=True)
class Change:
    """A night on which the champion changed, and who was who from the next night on."""

    night: date
    kind: Literal["promotion", "rollback"]
    version: int
    """The version that was promoted, or sent back."""
    champion: int | None
    previous: int | None


def succession(promotions: Sequence[dict[str, Any]], rollbacks: Sequence[dict[str, Any]]) -> list[Change]:
    """Promotions and rollbacks of one model as changes, in the order of nights.

    A rollback puts things back to what they were before the promotion that it undoes.
    """
    earlier: dict[int, int | None] = {}
    changes: list[Change] = []
    rows = [(row["night"], False, row) for row in promotions] + [(row["night"], True, row) for row in rollbacks]
    for night, is_rollback, row in sorted(rows, key=lambda entry: entry[:2]):
        if is_rollback:
            demoted = row["champion"]
            changes.append(Change(night, "rollback", demoted, row["previous"], earlier.get(demoted)))
        else:
            earlier[row["version"]] = changes[-1].previous if changes else None
            changes.append(Change(night, "promotion", row["version"], row["version"], row["replaced"]))
    return changes


@dataclass(frozen=True)
class Roles:
    """Who does what at a night, from decisions of earlier nights. Versions are MLflow's numbers."""

    champion: int | None
    previous: int | None
    challengers: tuple[int, ...]
    first: int | None
    """The first version there was: it scores on whatever the gate said, to show what retraining earned."""

    @property
    def scored(self) -> dict[int, str]:
        """version → role, for every version that scores this night."""
        challengers = [(number, "challenger") for number in self.challengers]
        named = [(self.champion, "champion"), (self.previous, "previous"), *challengers, (self.first, "first")]
        roles: dict[int, str] = {}
        for number, role in named:
            if number is not None:
                roles.setdefault(number, role)
        return roles


def cast(trained: Mapping[int, date], changes: Sequence[Change], rejected: Collection[int], night: date) -> Roles:
    """Who does what at a night. `trained`: version → night of its training; `rejected` on nights before this one.

    Challengers are the versions trained before `night`, newer than every version that was promoted, and not
    rejected; of two trained on the same night the later one counts. What was promoted once, or was passed over
    by a promotion, does not challenge again when the promotion is undone.
    """
    earlier = [change for change in changes if change.night < night]
    trained = {number: when for number, when in trained.items() if when < night}
    latest_of_night = {when: number for number, when in sorted(trained.items())}
    promoted = {change.version for change in earlier}
    newest = max((trained[number] for number in promoted if number in trained), default=None)
    challengers = tuple(
        number
        for when, number in sorted(latest_of_night.items())
        if number not in rejected and number not in promoted and (newest is None or when > newest)
    )
    return Roles(
        champion=earlier[-1].champion if earlier else None,
        previous=earlier[-1].previous if earlier else None,
        challengers=challengers,
        first=min(trained, default=None),
    )


class Ledger:
    """An open ledger. Thread-safe; one per process."""

    def __init__(self, settings: Settings) -> None:
        self.engine = sa.create_engine(
            postgres.url(settings, "ledger"), pool_size=2, max_overflow=4, pool_pre_ping=True
        )
        with self.engine.begin() as connection:
            connection.execute(sa.text("select pg_advisory_xact_lock(hashtext('tiltyard/ledger'))"))
            metadata.create_all(connection)

    def close(self) -> None:
        self.engine.dispose()

    # -- work ---------------------------------------------------------------------------------

    def claim(self, key: str) -> Fence:
        """Claim a piece of work; every earlier claim on it is outdated from now on."""
        insert = pg.insert(fence).values(key=key, token=1)
        statement = insert.on_conflict_do_update(index_elements=["key"], set_={"token": fence.c.token + 1})
        with self.engine.begin() as connection:
            token = connection.scalar(statement.returning(fence.c.token))
        assert token is not None
        return Fence(self, key, token)

    def record_stage(self, stage: str, model: str, night: date, status: str, summary: dict[str, Any]) -> None:
        self._upsert(stage_run, stage=stage, model=model, night=night, status=status, summary=summary)

    def stage_runs(self, stage: str, model: str = "") -> dict[date, dict[str, Any]]:
        """night → run record of a stage, in night order."""
        query = sa.select(stage_run).where(stage_run.c.stage == stage, stage_run.c.model == model)
        return {row["night"]: row for row in self._rows(query.order_by(stage_run.c.night))}

    def stage_run(self, stage: str, model: str, night: date) -> dict[str, Any] | None:
        where = (stage_run.c.stage == stage, stage_run.c.model == model, stage_run.c.night == night)
        return next(iter(self._rows(sa.select(stage_run).where(*where))), None)

    def last_stage_run(self, stage: str, model: str = "", before: date | None = None) -> dict[str, Any] | None:
        """The run record of the newest night, or of the newest one before a night."""
        query = sa.select(stage_run).where(stage_run.c.stage == stage, stage_run.c.model == model)
        if before is not None:
            query = query.where(stage_run.c.night < before)
        return next(iter(self._rows(query.order_by(stage_run.c.night.desc()).limit(1))), None)

    def newest_published(self) -> dict[str, Any] | None:
        """The run record of the features that were published last, whatever their night."""
        query = sa.select(stage_run).where(stage_run.c.stage == "features", stage_run.c.status == "done")
        return next(iter(self._rows(query.order_by(stage_run.c.recorded_at.desc()).limit(1))), None)

    # -- versions and roles -------------------------------------------------------------------

    def add_version(self, **values: Any) -> None:
        self._insert(version, **values)

    def versions(self, model: str) -> list[dict[str, Any]]:
        return self._rows(sa.select(version).where(version.c.model == model).order_by(version.c.version))

    def version(self, model: str, number: int) -> dict[str, Any] | None:
        rows = self._rows(sa.select(version).where(version.c.model == model, version.c.version == number))
        return rows[0] if rows else None

    def version_of_inputs(self, model: str, inputs: str) -> dict[str, Any] | None:
        rows = self._rows(sa.select(version).where(version.c.model == model, version.c.inputs == inputs))
        return rows[0] if rows else None

    def roles(self, model: str, night: date) -> Roles:
        """Roles in force while `night` is scored and judged: decided on strictly earlier nights. See `cast`."""
        rejections = sa.select(decision).where(
            decision.c.model == model, decision.c.night < night, decision.c.verdict == "reject"
        )
        trained = {row["version"]: row["night"] for row in self.versions(model)}
        return cast(trained, self.changes(model), {row["challenger"] for row in self._rows(rejections)}, night)

    def changes(self, model: str) -> list[Change]:
        """Every promotion and rollback of the model, in the order of nights."""
        return succession(self.promotions(model), self.watches(model, verdict="rollback"))

    def tide(self) -> str:
        """Changes whenever something does that decides who is in service: asked often, costs one query."""
        counted = [sa.select(sa.func.count()).select_from(t).scalar_subquery() for t in (version, promotion, decision)]
        undone = sa.select(sa.func.count()).where(watch.c.verdict == "rollback").scalar_subquery()
        features = sa.select(sa.func.max(stage_run.c.recorded_at)).where(
            stage_run.c.stage == "features", stage_run.c.status == "done"
        )
        with self.engine.connect() as connection:
            return str(connection.execute(sa.select(*counted, undone, features.scalar_subquery())).one())

    # -- decisions ----------------------------------------------------------------------------

    def add_decision(self, **values: Any) -> dict[str, Any]:
        """Record a verdict once per (model, night, challenger); a rerun gets the first one back."""
        with self.engine.begin() as connection:
            values["recorded_at"] = clock.now()
            connection.execute(pg.insert(decision).values(**values).on_conflict_do_nothing())
        return self.decision(values["model"], values["night"], values["challenger"])

    def decision(self, model: str, night: date, challenger: int) -> dict[str, Any]:
        where = (decision.c.model == model, decision.c.night == night, decision.c.challenger == challenger)
        return self._rows(sa.select(decision).where(*where))[0]

    def decisions(self, model: str, until: date | None = None) -> list[dict[str, Any]]:
        query = sa.select(decision).where(decision.c.model == model)
        if until is not None:
            query = query.where(decision.c.night <= until)
        return self._rows(query.order_by(decision.c.night, decision.c.challenger))

    def claim_promotion(self, **values: Any) -> bool:
        """True for exactly one caller per (model, version) and per (model, night), and for none once that night, or
        a later one, has rolled back."""
        values["recorded_at"] = clock.now()
        statement = pg.insert(promotion).values(**values).on_conflict_do_nothing().returning(promotion.c.version)
        undone = sa.select(watch.c.night).where(
            watch.c.model == values["model"], watch.c.night >= values["night"], watch.c.verdict == "rollback"
        )
        with self._changing(values["model"]) as connection:
            if connection.scalar(undone) is not None:
                return False
            return connection.scalar(statement) is not None

    def promotions(self, model: str, until: date | None = None) -> list[dict[str, Any]]:
        query = sa.select(promotion).where(promotion.c.model == model)
        if until is not None:
            query = query.where(promotion.c.night <= until)
        return self._rows(query.order_by(promotion.c.night))

    def add_watch(self, **values: Any) -> dict[str, Any] | None:
        """Record what the rollback watch of a night says, once; a rerun gets the first record back.

        None, with nothing recorded, for a rollback that may not be: the night or a later one has promoted, or the
        version was sent back on another night.
        """
        values["recorded_at"] = clock.now()
        promoted = sa.select(promotion.c.night).where(
            promotion.c.model == values["model"], promotion.c.night >= values["night"]
        )
        with self._changing(values["model"]) as connection:
            if values["verdict"] == "rollback" and connection.scalar(promoted) is not None:
                return None
            statement = pg.insert(watch).values(**values).on_conflict_do_nothing().returning(watch.c.night)
            is_new = connection.scalar(statement) is not None
            if is_new and values["verdict"] == "rollback":  # in the same transaction: once, whoever dies after it
                detail = {"version": values["champion"], "back": values["previous"]}
                entry = {name: values[name] for name in ("model", "night", "recorded_at")}
                connection.execute(event.insert().values(kind="rolled_back", detail=detail, **entry))
        rows = self.watches(values["model"], night=values["night"])
        return rows[0] if rows else None

    def watches(
        self, model: str, until: date | None = None, *, night: date | None = None, verdict: str | None = None
    ) -> list[dict[str, Any]]:
        """What the rollback watch has said of the model, in the order of nights."""
        query = sa.select(watch).where(watch.c.model == model)
        if until is not None:
            query = query.where(watch.c.night <= until)
        if night is not None:
            query = query.where(watch.c.night == night)
        if verdict is not None:
            query = query.where(watch.c.verdict == verdict)
        return self._rows(query.order_by(watch.c.night))

    # -- retrains and events ------------------------------------------------------------------

    def request_retrain(self, model: str, night: date, reasons: list[str]) -> None:
        self._upsert(retrain, model=model, night=night, reasons=reasons)

    def retrains(self, model: str | None = None, until: date | None = None) -> list[dict[str, Any]]:
        """The retrains that were granted, of one model or of all."""
        query = sa.select(retrain)
        if model is not None:
            query = query.where(retrain.c.model == model)
        if until is not None:
            query = query.where(retrain.c.night <= until)
        return self._rows(query.order_by(retrain.c.night))

    def add_finding(self, found: Finding) -> None:
        """What drift found of a model on a night; found again, it replaces what was there."""
        self._upsert(finding, model=found.model, night=found.night, body=found.to_json())

    def findings(self, first: date, last: date | None = None) -> list[Finding]:
        """The findings of a night, or of the nights from `first` to `last`, by night and model.

        One that cannot be read any more, as an older version wrote it, is none: its model waits to be looked at.
        """
        query = sa.select(finding.c.body).where(finding.c.night.between(first, last or first))
        found = []
        for row in self._rows(query.order_by(finding.c.night, finding.c.model)):
            with suppress(TypeError, KeyError):
                found.append(Finding.from_json(row["body"]))
        return found

    def looked_at(self, night: date) -> set[str]:
        """The models that have a finding of a night."""
        return {row["model"] for row in self._rows(sa.select(finding.c.model).where(finding.c.night == night))}

    def set_incidents(self, night: date, found: Sequence[Incident]) -> None:
        """The portfolio's incidents of a night, in place of those that it had."""
        values = [
            {
                "night": night, "node": one.node, "kind": one.kind, "since": one.since, "models": list(one.models),
                "columns": list(one.columns), "said": one.said, "recorded_at": clock.now(),
            }
            for one in found
        ]  # fmt: skip
        with self.engine.begin() as connection:
            connection.execute(incident.delete().where(incident.c.night == night))
            if values:
                connection.execute(incident.insert(), values)

    def incidents(self, night: date) -> tuple[Incident, ...]:
        """The portfolio's incidents that were open on a night, by node."""
        query = sa.select(incident).where(incident.c.night == night).order_by(incident.c.node, incident.c.kind)
        return tuple(
            Incident(
                node=row["node"],
                kind=row["kind"],
                models=tuple(row["models"]),
                columns=tuple(row["columns"]),
                said=row["said"],
                since=row["since"],
            )
            for row in self._rows(query)
        )

    def open_default_task(self, **values: Any) -> bool:
        """Ask a person why a model is on its safe default. True for exactly one caller per (model, night)."""
        return self._once(default_task, **values)

    def end_default_task(self, **values: Any) -> bool:
        """A task was `answered`, or its model has `recovered`. True for the first of each per task."""
        return self._once(default_task_end, **values)

    def default_tasks(self, model: str | None = None) -> list[dict[str, Any]]:
        """Every task in the order in which they were opened, with `ends`: how → its row."""
        tasks, ends = sa.select(default_task), sa.select(default_task_end)
        if model is not None:
            tasks = tasks.where(default_task.c.model == model)
            ends = ends.where(default_task_end.c.model == model)
        ended: dict[tuple[str, date], dict[str, Any]] = {}
        for row in self._rows(ends):
            ended.setdefault((row["model"], row["opened"]), {})[row["how"]] = row
        rows = self._rows(tasks.order_by(default_task.c.opened, default_task.c.model))
        return [{**row, "ends": ended.get((row["model"], row["opened"]), {})} for row in rows]

    def add_event(self, kind: str, model: str, night: date | None, detail: dict[str, Any]) -> None:
        """Something a person should find later: a forged approval, a fenced attempt, an alias moved by hand."""
        self._insert(event, kind=kind, model=model, night=night, detail=detail)

    def events(self, model: str | None = None, kind: str | None = None) -> list[dict[str, Any]]:
        query = sa.select(event).order_by(event.c.id)
        if model is not None:
            query = query.where(event.c.model == model)
        if kind is not None:
            query = query.where(event.c.kind == kind)
        return self._rows(query)

    # -- plumbing -----------------------------------------------------------------------------

    @contextmanager
    def _changing(self, model: str) -> Iterator[sa.Connection]:
        """A transaction in which nobody else changes the champion of `model`."""
        with self.engine.begin() as connection:
            lock = sa.text("select pg_advisory_xact_lock(hashtext(:name))")
            connection.execute(lock, {"name": f"tiltyard/champion/{model}"})
            yield connection

    def _rows(self, query: sa.Select[Any]) -> list[dict[str, Any]]:
        with self.engine.connect() as connection:
            return [dict(row) for row in connection.execute(query).mappings()]

    def _once(self, table: sa.Table, **values: Any) -> bool:
        insert = pg.insert(table).values(recorded_at=clock.now(), **values).on_conflict_do_nothing()
        with self.engine.begin() as connection:
            return connection.scalar(insert.returning(table.c.model)) is not None

    def _insert(self, table: sa.Table, **values: Any) -> None:
        with self.engine.begin() as connection:
            connection.execute(table.insert().values(recorded_at=clock.now(), **values))

    def _upsert(self, table: sa.Table, **values: Any) -> None:
        values["recorded_at"] = clock.now()
        keys = [column.name for column in table.primary_key]
        insert = pg.insert(table).values(**values)
        update = {name: insert.excluded[name] for name in values if name not in keys}
        with self.engine.begin() as connection:
            connection.execute(insert.on_conflict_do_update(index_elements=keys, set_=update))
