"""What refers to the lake's snapshots, one query a kind. What counts, and why, is decision 19."""

from collections.abc import Mapping, Sequence
from datetime import date, datetime, timedelta

from tiltyard import clock
from tiltyard.lake import catalogue, identifier
from tiltyard.prepare import data_incidents
from tiltyard.rails import Rails
from tiltyard.records import Publication
from tiltyard.spec import Spec, portfolio
from tiltyard.tables import LANDED_FILE, PREDICTION, REQUEST, Table
from tiltyard.train import replay
from tiltyard.train.history import MOVES
from tiltyard.upkeep import holds
from tiltyard.upkeep.references import KeptReason, References, Snapshot

WITNESSES = ("raw", "spines", "features")
"""Schemas of the tables whose history a replay, and a frame that takes kept answers, ask the lake's record for."""
NIGHT = timedelta(days=1)


def snapshots(rails: Rails) -> list[Snapshot]:
    """The versions that the lake has, by number."""
    connection = rails.lake.connection
    tables = connection.execute(
        f"select tables.table_id, schemas.schema_name || '.' || tables.table_name "
        f"from {catalogue('ducklake_table')} as tables "
        f"inner join {catalogue('ducklake_schema')} as schemas on tables.schema_id = schemas.schema_id"
    ).fetchall()
    strangers = {str(number) for number, name in tables if not _is_witness(name)}
    rows = connection.execute("select snapshot_id, snapshot_time, changes from ducklake_snapshots('lake')").fetchall()
    return sorted(
        (
            Snapshot(
                number,
                at,
                frozenset(
                    table.replace('"', "")
                    for what, changed in changes.items()
                    if what not in MOVES
                    for table in changed
                    if table not in strangers and ("." not in table or _is_witness(table.replace('"', "")))
                ),
            )
            for number, at, changes in rows
        ),
        key=lambda snapshot: snapshot.number,
    )


def _is_witness(table: str) -> bool:
    """A number that stands for no table any more may have been one."""
    return table.split(".")[0] in WITNESSES or table == LANDED_FILE.name


def references(rails: Rails, recent_since: datetime) -> References:
    """Everything that refers to snapshots, as lake and ledger say now."""
    publications = rails.ledger.publications()
    newest = max(publications, default=None)
    window = _replay_window(portfolio(rails.settings), newest) if newest else None
    incident = _incident_since(rails, newest)
    published = _since(publications, window)
    predicted = _predicted(rails, PREDICTION)
    answered = _predicted(rails, REQUEST)
    in_service = rails.ledger.publication()
    named: dict[KeptReason, set[int]] = {
        "in_service": set(in_service.snapshots) if in_service else set(),
        "published": published,
        "predicted": set(predicted) | _apart(rails),
        "answered": set(answered),
        "trained": rails.ledger.trained_snapshots(),
        "decided": _on(publications, rails.ledger.nights_decided()),
        "incident": _since(publications, incident),
    }
    replayed = [number for number, night in (*predicted.items(), *answered.items()) if window and night >= window]
    return References(
        recent_since=recent_since,
        named=named,
        replayed_since=min((*replayed, *published), default=None),
        held=[(hold.first, hold.last) for hold in holds.open_ones(rails)],
    )


def _since(publications: Mapping[date, set[int]], first: date | None) -> set[int]:
    """The snapshots of publications from a night on; none without one."""
    return _on(publications, {night for night in publications if first is not None and night >= first})


def _on(publications: Mapping[date, set[int]], nights: set[date]) -> set[int]:
    """The snapshots of the publications of some nights."""
    return {snapshot for night in nights & publications.keys() for snapshot in publications[night]}


def _replay_window(specs: Sequence[Spec], newest: date) -> date | None:
    """The first night that a replay before a training may ask for, tonight or later, of any model; None without one.

    It looks at the newest nights and at the newest that have matured; those between will have matured, too.
    """
    as_of = clock.midnight(newest)
    return min((clock.night_closing(replay.windows(spec, as_of)[0][0]) for spec in specs), default=None)


def _predicted(rails: Rails, table: Table) -> dict[int, date]:
    """Snapshot → the newest night of a row that names it. Empty when nothing was answered yet."""
    if not rails.lake.has(table):
        return {}
    rows = rails.lake.connection.execute(
        f"select snapshot, coalesce(max(night), date '1970-01-01') from {identifier(table)} "
        "where snapshot is not null group by 1"
    )
    return dict(rows.fetchall())


def _apart(rails: Rails) -> set[int]:
    """The snapshots at which predictions read a table that was not good on their night."""
    if not rails.lake.has(PREDICTION):
        return set()
    rails.lake.ensure(PREDICTION)
    rows = rails.lake.connection.execute(
        f"select distinct snapshot, apart from {identifier(PREDICTION)} where apart is not null"
    )
    return {
        number for snapshot, apart in rows.fetchall() for number in Publication.made_from(snapshot, apart).snapshots
    }


def _incident_since(rails: Rails, newest: date | None) -> date | None:
    """The night before the oldest incident that is open, of a source or of the portfolio; None when there is none."""
    portfolio_since = rails.ledger.incident_since()
    since = [portfolio_since] if portfolio_since else []
    if newest:
        for source in rails.settings.sources:
            since += [incident.since for incident in data_incidents.open_after(rails, source, newest).values()]
    return min(since) - NIGHT if since else None
