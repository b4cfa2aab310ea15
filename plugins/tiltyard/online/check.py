"""What requests were served from the store, held against the lake's own point-in-time join, every night."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Literal, NamedTuple, get_args

import orjson
import pandas as pd

from tiltyard.clock import NIGHT, night_closing
from tiltyard.lake import quoted, stored
from tiltyard.online.fill import finite
from tiltyard.online.lookup import iso, plan
from tiltyard.online.store import FeatureRow
from tiltyard.prepare import frame, transform
from tiltyard.rails import Rails
from tiltyard.records import JsonObject, LookupCheck, Publication
from tiltyard.spec import Spec, feature_key
from tiltyard.tables import REQUEST

DIFFERS = "online_differs"
"""Kind of the ledger's event on a night on which a request was served what the lake does not say."""
MOST = 20_000
"""Requests of a model and night that are held against the lake; of more, those that a hash picks."""
EXAMPLES = 5

LookupVerdict = Literal["equal", "stale", "ahead", "different"]
"""equal; stale: the lake knew a newer row that the store did not have yet; ahead: the row was not known yet, or the
lake does not know it; different: the same row says something else."""
VERDICTS: tuple[LookupVerdict, ...] = get_args(LookupVerdict)


@dataclass(frozen=True)
class LoggedLookup:
    """A request of the log that asked the store."""

    request_id: str
    entity_id: str | None
    """The entity's key; None where the request named none."""
    at: float
    """The request's prediction time, in epoch seconds."""
    features: Mapping[str, Any]
    """Feature → the value that the model was given."""
    given: frozenset[str]
    """Features that the caller gave."""
    views: Mapping[str, tuple[str, str, str] | None]
    """View → key, event_time and available_at of the row that was used, times as ISO texts; None where none was."""


@dataclass(frozen=True)
class ServedRow:
    """A view's row as a request was served it."""

    request_id: str
    key: str
    at: float
    """The request's prediction time, in epoch seconds."""
    row: FeatureRow | None
    """What was served; None where the store had no row that it might use."""
    names: tuple[str, ...]
    """The features to compare: those that the caller did not give."""


class LookupComparison(NamedTuple):
    """How a row that was served stands to the lake's."""

    verdict: LookupVerdict
    feature: str | None
    """The first feature that differs; None where it is the times that differ, or nothing."""


def check_lookups(rails: Rails, spec: Spec, as_of: datetime) -> LookupCheck | None:
    """Hold what requests of the night were served from the store against the lake's point-in-time join at the same key
    and instant.

    A row of a view that was ahead or different is an event in the ledger, told once. None where nothing was looked up.
    """
    if not rails.lake.has(REQUEST):
        return None
    lookups = _logged_lookups(rails, spec, as_of)
    if not lookups:
        return None
    night, publication = night_closing(as_of), rails.publication()
    spec = frame.readable(rails, spec, publication)
    features = frame.features(rails, spec, publication)
    views: dict[str, dict[str, int]] = {}
    examples: list[JsonObject] = []
    for view, key in plan(spec).views:
        kinds: dict[str, str] = {feature.name: feature.kind for feature in features if feature.view == view}
        served_rows = list(_served_rows(lookups, view, list(kinds), is_entitys=key == spec.key))
        counts: dict[str, int] = dict.fromkeys(VERDICTS, 0)
        offline_rows = _offline(rails, spec, kinds, view, served_rows, publication)
        for served, offline in zip(served_rows, offline_rows, strict=True):
            comparison = compare_rows(served, offline)
            counts[comparison.verdict] += 1
            if comparison.verdict in ("ahead", "different") and len(examples) < EXAMPLES:
                examples.append(_example(served, offline, view, comparison))
        views[view] = counts
    total: dict[str, int] = {verdict: sum(counts[verdict] for counts in views.values()) for verdict in VERDICTS}
    result = LookupCheck(requests=len(lookups), **total, views=views, examples=tuple(examples))
    if result.ahead or result.different:
        detail = result.to_json()
        events = rails.ledger.events(model=spec.name, kind=DIFFERS)
        if not any(event.night == night and event.detail == detail for event in events):
            rails.ledger.add_event(DIFFERS, spec.name, night, detail)
    return result


def compare_rows(served: ServedRow, offline: FeatureRow | None) -> LookupComparison:
    """How a row that was served stands to the row that the lake's join gives, if any.

    Pure. Rows of other times are told apart by their times, also where they say the same: `stale` is harmless.
    """
    online = served.row
    if online is None:
        return LookupComparison("equal" if offline is None else "stale", None)
    if offline is None or max(online.event_time, online.available_at) > served.at:
        return LookupComparison("ahead", None)
    online_times, offline_times = (online.event_time, online.available_at), (offline.event_time, offline.available_at)
    if online_times != offline_times:
        return LookupComparison("stale" if online_times < offline_times else "ahead", None)
    differing = (name for name in served.names if online.values.get(name) != offline.values.get(name))
    feature = next(differing, None)
    return LookupComparison("equal" if feature is None else "different", feature)


def _logged_lookups(rails: Rails, spec: Spec, as_of: datetime) -> list[LoggedLookup]:
    """The night's requests that asked the store, MOST of them."""
    rows = rails.lake.connection.execute(
        f"""
        select request_id, entity_id, epoch_us(prediction_time), features, given, views
        from {stored(REQUEST)}
        where model = $model and prediction_time >= $start and prediction_time < $end and views != '{{}}'
        order by hash(request_id, "row"), request_id, "row" limit {MOST}
        """,
        {"model": spec.name, "start": as_of - NIGHT, "end": as_of},
    ).fetchall()
    return [
        LoggedLookup(
            request_id,
            entity_id,
            at_us / 1e6,
            orjson.loads(features),
            frozenset(orjson.loads(given)),
            orjson.loads(views),
        )
        for request_id, entity_id, at_us, features, given, views in rows
    ]


def _served_rows(
    lookups: Iterable[LoggedLookup], view: str, names: Sequence[str], *, is_entitys: bool
) -> Iterator[ServedRow]:
    """The rows of one view, of the requests that needed it. `is_entitys`: the view's key is the entity's."""
    for lookup in lookups:
        compared = tuple(name for name in names if name not in lookup.given)
        if view not in lookup.views or not compared:
            continue
        used = lookup.views[view]
        if used is not None:
            key, event_time, available_at = used
            row = FeatureRow(
                {name: lookup.features.get(name) for name in compared},
                datetime.fromisoformat(event_time).timestamp(),
                datetime.fromisoformat(available_at).timestamp(),
            )
            logged = tuple(name for name in compared if name in lookup.features)
            yield ServedRow(lookup.request_id, str(key), lookup.at, row, logged)
        elif is_entitys and lookup.entity_id is not None:  # of other keys nobody knows what was asked for
            yield ServedRow(lookup.request_id, lookup.entity_id, lookup.at, None, compared)


def _offline(
    rails: Rails,
    spec: Spec,
    kinds: Mapping[str, str],
    view: str,
    served_rows: Sequence[ServedRow],
    publication: Publication,
) -> list[FeatureRow | None]:
    """What the lake's point-in-time join gives for the same keys and instants, in the order of `served_rows`."""
    if not served_rows:
        return []
    key, age = feature_key(view), spec.prediction.max_feature_age
    joined = frame.point_in_time_sql(
        transform.macro_path(rails.settings),
        spine="_served",
        view=stored(view, publication),
        pruned=False,
        key=key,
        columns=list(kinds),
        spine_key=["_place"],
        prefix=view,
        max_age_s=None if age is None else int(age.total_seconds()),
    )
    columns = "".join(
        f", cast({quoted(name)} as double)" if kind == "numeric" else f", {quoted(name)}"
        for name, kind in kinds.items()
    )
    spine = pd.DataFrame(
        {
            "_place": range(len(served_rows)),
            key: [served.key for served in served_rows],
            "prediction_time": pd.to_datetime([round(served.at * 1e6) for served in served_rows], unit="us", utc=True),
        }
    )
    connection = rails.lake.connection
    connection.register("_served", spine)
    try:
        rows = connection.execute(
            f'select epoch_us("{view}__event_time"), epoch_us("{view}__available_at"){columns} '
            f"from ({joined}) order by _place"
        ).fetchall()
    finally:
        connection.unregister("_served")
    return [
        None if event_us is None else FeatureRow(finite(kinds, values), event_us / 1e6, available_us / 1e6)
        for event_us, available_us, *values in rows
    ]


def _example(served: ServedRow, offline: FeatureRow | None, view: str, comparison: LookupComparison) -> JsonObject:
    def side(row: FeatureRow | None) -> JsonObject | None:
        if row is None:
            return None
        times: JsonObject = {"event_time": iso(row.event_time), "available_at": iso(row.available_at)}
        return times if comparison.feature is None else times | {"value": row.values.get(comparison.feature)}

    return {
        "verdict": comparison.verdict,
        "view": view,
        "feature": comparison.feature,
        "request_id": served.request_id,
        "key": served.key,
        "prediction_time": iso(served.at),
        "online": side(served.row),
        "offline": side(offline),
    }
