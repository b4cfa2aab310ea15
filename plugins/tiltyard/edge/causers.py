"""Who is behind a run that names no user, by Airflow's own log of what people have done through its pages and API.

A run that events have started has no user. An event that a task sent says itself who had asked (`task_run.about`); one
that came by the API says whatever its sender wrote, and Airflow puts down who that was.
"""

import logging
from collections.abc import Iterable, Sequence
from datetime import datetime, timedelta
from typing import NamedTuple

from tiltyard.settings import Settings
from tiltyard.words import UNKNOWN

log = logging.getLogger(__name__)

LOGGED_WITHIN = timedelta(minutes=1)
"""The log's entry of an event is older than the event by no more than this: the same request has written both."""

_POSTED = """
    select distinct l.owner from log l join asset a on a.name = :name and a.uri = :uri
    where l.event = 'create_asset_event' and l.dttm between :earliest and :latest
    and case when l.event = 'create_asset_event' then cast(l.extra as json) ->> 'asset_id' end = cast(a.id as text)
"""
_REPEATED = """
    select distinct owner from log
    where dag_id = :dag_id and (run_id = :run_id or run_id is null and dttm >= :since)
    and event in ('post_clear_task_instances', 'clear_dag_run', 'clear_dag_runs', 'patch_task_instance',
                  'patch_dag_run', 'bulk_task_instances', 'cli_task_clear')
"""


class Posted(NamedTuple):
    """An event that no task has sent."""

    name: str
    """Name of its asset."""
    uri: str
    """The asset's address."""
    at: datetime
    """When it came."""


def posters(settings: Settings, events: Iterable[Posted]) -> tuple[str, ...]:
    """Who posted these events; UNKNOWN stands for each of whom Airflow's log says nothing."""
    found: set[str] = set()
    for event in events:
        window = {"earliest": event.at - LOGGED_WITHIN, "latest": event.at + LOGGED_WITHIN}
        found |= set(_asked(settings, _POSTED, {"name": event.name, "uri": event.uri, **window})) or {UNKNOWN}
    return tuple(sorted(found))


def repeaters(settings: Settings, dag_id: str, run_id: str, since: datetime) -> tuple[str, ...]:
    """Who had tasks of this run done again, or said how they ended. What has no run is about all runs of its DAG from
    then on. UNKNOWN where the log cannot be asked."""
    return _asked(settings, _REPEATED, {"dag_id": dag_id, "run_id": run_id, "since": since})


def _asked(settings: Settings, query: str, values: dict[str, object]) -> tuple[str, ...]:
    import sqlalchemy as sa  # seconds, at every parse of a DAG file

    from tiltyard import postgres

    engine = postgres.engine(settings, "airflow")
    try:
        with engine.connect() as connection:
            owners: Sequence[str | None] = connection.execute(sa.text(query), values).scalars().all()
            return tuple(sorted(owner for owner in owners if owner))
    except sa.exc.SQLAlchemyError as error:
        log.warning("Airflow's log of who did what cannot be read, so that nobody knows who asked: %s", error)
        return (UNKNOWN,)
