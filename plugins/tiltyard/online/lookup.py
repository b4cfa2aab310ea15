"""What a request finds: the features known at its instant, none older than `prediction.max_feature_age`.

A lookup says of every view which row it used; every night `check` holds that against the lake's own point-in-time
join. On the way of a request: no pandas, no DuckDB, no SQLAlchemy.
"""

import asyncio
import math
from collections.abc import Generator, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import lru_cache
from itertools import chain, islice
from typing import NamedTuple

from tiltyard.online.store import FeatureRow, Place, Store, TableNote, Value, table_note
from tiltyard.spec import Spec, feature_key


@dataclass(frozen=True, slots=True)
class LookupPlan:
    """What a model asks the store for. Made once per model."""

    entity: str
    """The column of the entity's key, like ticket_id."""
    spine: str
    """The table of the model's spine."""
    other_keys: tuple[str, ...]
    """Columns of the keys beside the entity's, which the spine's row knows."""
    views: tuple[tuple[str, str], ...]
    """View and the column of its key, each."""
    max_age_s: int | None
    """Longest age of a row that is served, in seconds; None: any."""


class Lookup(NamedTuple):
    """What a lookup gave."""

    values: dict[str, Value]
    """Feature → value, of the views with a row that may be used."""
    views: dict[str, list[str] | None]
    """View → [key, event_time, available_at] of the row that was used, times as ISO texts; None where none was."""
    missing: tuple[str, ...]
    """Views without a row that was known."""
    stale: tuple[str, ...]
    """Views whose row is older than max_feature_age, and refused."""
    refused: tuple[str, ...]
    """Features of the stale views."""
    absent: tuple[str, ...]
    """Of the missing views of an entity that is known those with nothing under its key, or without a key: where the
    store is up to date there is nothing to know, and the lake's join gives nulls."""


def plan(spec: Spec) -> LookupPlan:
    """What a model asks the store for."""
    views = tuple((view, feature_key(view)) for view in spec.prediction.features)
    age = spec.prediction.max_feature_age
    return LookupPlan(
        entity=spec.key,
        spine=spec.prediction.spine,
        other_keys=tuple(dict.fromkeys(key for _, key in views if key != spec.key)),
        views=views,
        max_age_s=None if age is None else int(age.total_seconds()),
    )


def find(store: Store, plan: LookupPlan, keys: Mapping[str, str], at: float) -> Lookup:
    """The features known at `at` (epoch seconds) under `keys` (key column → value).

    Keys that are not given are looked up in the spine by the entity's. Raises Unavailable.
    """
    turns = _turns(plan, keys, at)
    places = next(turns)
    while True:
        try:
            places = turns.send(store.get(places))
        except StopIteration as end:
            lookup: Lookup = end.value
            return lookup


async def afind(store: Store, plan: LookupPlan, keys: Mapping[str, str], at: float) -> Lookup:
    """`find` on an event loop."""
    return (await afind_many(store, plan, [(keys, at)]))[0]


async def afind_many(
    store: Store, plan: LookupPlan, questions: Sequence[tuple[Mapping[str, str], float]]
) -> list[Lookup]:
    """Many lookups, (keys, at) each, in one or two turns to the store for all of them together, `read_s` at most."""
    until = asyncio.get_running_loop().time() + store.read_s
    lookups: dict[int, Lookup] = {}
    turns = [_turns(plan, keys, at) for keys, at in questions]
    open_places = {number: next(turn) for number, turn in enumerate(turns)}
    while open_places:
        rows = iter(await store.aget(list(chain.from_iterable(open_places.values())), until))
        answers = {number: list(islice(rows, len(places))) for number, places in open_places.items()}
        open_places = {}
        for number, answer in answers.items():
            try:
                open_places[number] = turns[number].send(answer)
            except StopIteration as end:
                lookups[number] = end.value
    return [lookups[number] for number in range(len(questions))]


def _turns(
    plan: LookupPlan, keys: Mapping[str, str], at: float
) -> Generator[list[Place], list[FeatureRow | None], Lookup]:
    """Yields what to get and is sent what was there: one turn, or two where the spine has to say the other keys."""
    key_of = {view: keys[column] for view, column in plan.views if column in keys}
    spine_keys: Mapping[str, Value] | None = None
    if len(key_of) < len(plan.views) and plan.entity in keys:
        spine_row, *rows = yield [(plan.spine, keys[plan.entity]), *key_of.items()]
        if spine_row is not None and spine_row.event_time <= at and spine_row.available_at <= at:
            spine_keys = spine_row.values
            later = {
                view: str(spine_keys[column])
                for view, column in plan.views
                if column not in keys and spine_keys.get(column) is not None
            }
            if later:
                rows += yield [*later.items()]
                key_of |= later
    else:
        rows = yield [*key_of.items()]
    row_of = dict(zip(key_of, rows, strict=True))
    oldest = -math.inf if plan.max_age_s is None else at - plan.max_age_s
    values: dict[str, Value] = {}
    views: dict[str, list[str] | None] = {}
    missing: list[str] = []
    stale: list[str] = []
    refused: list[str] = []
    absent: list[str] = []
    for view, column in plan.views:
        row = row_of.get(view)
        views[view] = None
        if row is None:
            missing.append(view)
            # its key is known, or it is a null in the spine
            if view in key_of or (spine_keys is not None and column in spine_keys and column not in keys):
                absent.append(view)
            continue
        content, event_time, available_at = row
        if event_time > at or available_at > at:
            missing.append(view)
        elif event_time < oldest:
            stale.append(view)
            refused += content
        else:
            values.update(content)
            views[view] = [key_of[view], iso(event_time), iso(available_at)]
    is_known = spine_keys is not None or len(missing) < len(plan.views)
    return Lookup(values, views, tuple(missing), tuple(stale), tuple(refused), tuple(absent) if is_known else ())


def nulls(store: Store, plans: Iterable[LookupPlan], now: float) -> dict[str, dict[str, None]]:
    """View → its features, all null, of every view that is up to date at `now`: what it does not have is not there.

    Up to date is what was filled within `max_feature_age`, of several models the shortest. Raises Unavailable.
    """
    ages: dict[str, float] = {}
    for plan in plans:
        for view, _ in plan.views:
            age = math.inf if plan.max_age_s is None else plan.max_age_s
            ages[view] = min(age, ages.get(view, math.inf))
    null_rows: dict[str, dict[str, None]] = {}
    for view, age in ages.items():
        note = store.read_note(table_note(view), TableNote)
        if note is not None and note.as_of >= now - age:
            null_rows[view] = dict.fromkeys(note.columns)
    return null_rows


@lru_cache(maxsize=65_536)
def iso(seconds: float) -> str:
    """Epoch seconds as ISO text, UTC."""
    return datetime.fromtimestamp(seconds, UTC).isoformat()
