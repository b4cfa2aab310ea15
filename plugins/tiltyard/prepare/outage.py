"""Silent outages: rows still come, but they stopped saying anything. Each night is held against its own past.

Of every raw table and night a profile is kept (`ops.column_profile`): per column how many values are missing or zero,
whether all are the same, how many kinds there are and, where few, how often each; and a digest of the rows without
their times. `judge` compares a night with the same weekday in the last weeks, or with all nights while weekdays are
few. A finding needs both a large effect and a chance below `CHANCE` that a night like the worst of the past shows it.

What is found is a *data incident*: the batch is served, and no model is retrained on it. It opens in the ledger on the
night it is first seen and closes on the first night that is clean. Nights of an open incident are no past to compare
with, so a column that is gone for good stays an incident until no clean night is left in the window; then what was
broken is the new usual, and drift takes over.
"""

import functools
import json
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import date, datetime, timedelta
from typing import Any

import pandas as pd

from tiltyard import suites
from tiltyard.clock import night_closing
from tiltyard.lake import identifier, put, stored, text
from tiltyard.prepare import ingest, latency
from tiltyard.prepare.latency import DAY, Arrival, Landed, Latency
from tiltyard.rails import Rails
from tiltyard.spec import Spec
from tiltyard.tables import COLUMN_PROFILE, FEATURE_LATENCY

INCIDENT = "data_incident"
"""The kind of event in the ledger."""

RULES = {
    "went_null": "expect_no_column_to_go_null",
    "went_zero": "expect_no_column_to_go_zero",
    "went_constant": "expect_no_column_to_go_constant",
    "category_vanished": "expect_no_category_to_vanish",
    "repeated_partition": "expect_no_partition_to_repeat",
}
"""Rule → the Great Expectations type that wraps it."""
LATE = "arrived_late"
"""A delivery that earlier nights had looked for, with rows that claim to have been known then: no rule on columns,
but an incident as well."""

WINDOW = 35
"""Nights of the past that are looked at."""
FEW_ROWS = 20
"""Nights with fewer rows are neither judged nor a past to compare with."""
SAME_WEEKDAYS = 4
"""From so many nights of the same weekday on, only those are the past."""
RECENT = 3
"""A category that vanished was there on the last nights, too, whatever their weekday."""
NIGHTS = 14
"""Fewer nights of past than this, and nothing is usual yet: two weekends, which are unlike the week."""
CHANCE = 1e-9
"""40 columns, four rules and 200 nights are 32,000 looks; what chance shows once in 30,000 times that is no chance."""
NEARLY_ALL = 0.99
"""A column has gone missing, or zero, from this share on. Less is common in honest data: a party that books 500 rooms,
a bulk of invoices without a customer; such a night is drift's to judge."""
MARGIN = 0.2
"""By so much that share has to exceed the worst night of the past."""
BUNCH = 2
"""Rows of a night come in bunches: chance is reckoned with so many times fewer."""
KEPT = 50
"""Columns with more kinds of values than this have no categories."""
COMMON = 0.02
"""A category with less than this share of any past night may be absent."""
REPEATS = 14
"""A night is compared with the content of so many nights before it."""
LATE_SHARE = 0.2
"""From this share of a night's rows on, those of a late delivery are an incident, and not only a warning."""


@dataclass(frozen=True)
class Column:
    """What a night's values of one column look like."""

    nulls: int
    zeros: int
    """Of the values that are there: 0, as number or text."""
    kinds: int
    """Distinct values, about."""
    is_constant: bool
    """All values that are there are the same one."""
    categories: Mapping[str, int] = field(default_factory=dict)
    """Value → rows, where there are few kinds."""


@dataclass(frozen=True)
class Profile:
    """One night of one table."""

    night: date
    rows: int
    content: str
    """Digest of the rows without their times, whatever their order."""
    columns: Mapping[str, Column]
    broken: frozenset[tuple[str, str]] = frozenset()
    """(rule, column) of what was found: such a night is no past for that column."""


@dataclass(frozen=True)
class Outage:
    """One thing that stopped saying anything. `column` is '' where it is the whole table."""

    rule: str
    column: str
    said: str


@dataclass(frozen=True)
class Verdict:
    """What a night's profile shows, and which (rule, column) it shows to be well."""

    found: tuple[Outage, ...]
    clean: frozenset[tuple[str, str]]
    unusual: frozenset[tuple[str, str]] = frozenset()
    """(rule, column) that cannot be judged because no past is left: what was broken is the new usual."""

    @property
    def broken(self) -> frozenset[tuple[str, str]]:
        return frozenset((outage.rule, outage.column) for outage in self.found)


# -- judging --------------------------------------------------------------------------------------


def judge(past: Sequence[Profile], tonight: Profile) -> Verdict:
    """Hold a night against its past. Pure; the order of `past` is free, and nights after this one are none of it."""
    past = [night for night in past if night.night < tonight.night]
    found: list[Outage] = []
    clean: set[tuple[str, str]] = set()
    unusual: set[tuple[str, str]] = set()
    if tonight.rows < FEW_ROWS:
        return Verdict((), frozenset())
    for name, now in tonight.columns.items():
        seen: list[Outage] = []
        for rule, check in _CHECKS.items():
            nights = _comparable(past, tonight, rule, name)
            if nights is None:
                unusual.add((rule, name))
                continue
            if seen:
                continue  # a column of nothing but NULL has lost its categories, too: once is enough
            said = check(now, tonight.rows, [(night.columns[name], night.rows) for night in nights])
            if said:
                seen.append(Outage(rule, name, f"{said} ({_against(nights, tonight)})"))
            elif said is None:
                clean.add((rule, name))
        found += seen
    again = _repeats(past, tonight)
    if again:
        found.append(
            Outage("repeated_partition", "", f"its {tonight.rows} rows are those of {again} but for the times")
        )
    else:
        clean.add(("repeated_partition", ""))
    return Verdict(tuple(found), frozenset(clean), frozenset(unusual))


def _comparable(past: Sequence[Profile], tonight: Profile, rule: str, column: str) -> list[Profile] | None:
    """The nights to compare with: of the same weekday where there are enough, else all; None when there are too few."""
    nights = [
        night
        for night in past
        if night.rows >= FEW_ROWS and column in night.columns and column not in {of for _, of in night.broken}
    ]
    same = [night for night in nights if night.night.weekday() == tonight.night.weekday()]
    if len(same) >= SAME_WEEKDAYS:
        if rule != "category_vanished":
            return same
        # what fades over the days, like the name of a month that ends, has not vanished
        return same + [night for night in sorted(nights, key=lambda night: night.night)[-RECENT:] if night not in same]
    return nights if len(nights) >= NIGHTS else None


def _against(nights: Sequence[Profile], tonight: Profile) -> str:
    same = all(night.night.weekday() == tonight.night.weekday() for night in nights)
    return f"against {len(nights)} {tonight.night:%A}s" if same else f"against {len(nights)} nights"


Past = Sequence[tuple[Column, int]]
"""Columns of other nights, each with the night's rows. Of the four checks, None means well, "" cannot tell."""


def _went_null(now: Column, rows: int, past: Past) -> str | None:
    return _jumped(now.nulls, rows, [(column.nulls, of) for column, of in past], "missing")


def _went_zero(now: Column, rows: int, past: Past) -> str | None:
    values = [(column.zeros, of - column.nulls) for column, of in past if of - column.nulls >= FEW_ROWS]
    if rows - now.nulls < FEW_ROWS or not values:
        return ""
    return _jumped(now.zeros, rows - now.nulls, values, "zero")


def _jumped(hits: int, of: int, past: Sequence[tuple[int, int]], what: str) -> str | None:
    """Is the share far above every share of the past, beyond chance even at the highest of them?"""
    share, worst = hits / of, max((before + 1) / (rows + 2) for before, rows in past)
    if share < max(worst + MARGIN, NEARLY_ALL):
        return None
    if tail(of // BUNCH, hits // BUNCH, worst) > CHANCE:
        return ""
    return f"{hits} of {of} values are {what}, at most {max(before / rows for before, rows in past):.1%} usually"


def _went_constant(now: Column, rows: int, past: Past) -> str | None:
    values = rows - now.nulls
    before = [(column, of - column.nulls) for column, of in past if of - column.nulls >= FEW_ROWS]
    if values < FEW_ROWS or not before:
        return ""
    if not now.is_constant or any(column.is_constant for column, _ in before):
        return None
    commonest = max(_commonest(column, of) for column, of in before)
    if values / BUNCH * math.log(commonest) > math.log(CHANCE):
        return ""
    kinds = sorted(column.kinds for column, _ in before)
    only = f" ({next(iter(now.categories))})" if len(now.categories) == 1 else ""
    return f"all {values} values are the same one{only}, of usually {kinds[len(kinds) // 2]} kinds"


def _commonest(column: Column, values: int) -> float:
    """The share of the commonest value, or what it is at most where only the number of kinds is known."""
    if column.categories:
        return min(max(column.categories.values()) / values, 1 - 1e-9)
    return max(values - column.kinds + 1, 1) / (values + 1)


def _category_vanished(now: Column, rows: int, past: Past) -> str | None:
    values = rows - now.nulls
    if now.kinds > KEPT or values < FEW_ROWS or not all(column.categories for column, _ in past):
        return ""
    if any(column.is_constant for column, _ in past):  # a month: one value for weeks, and then the next
        return ""
    shares: dict[str, float] = {}
    for name in set.intersection(*(set(column.categories) for column, _ in past)) - set(now.categories):
        share = min(column.categories[name] / max(of - column.nulls, 1) for column, of in past)
        if share >= COMMON:
            shares[name] = share
    if not shares:
        return None
    gone = [
        name
        for name, share in sorted(shares.items(), key=lambda item: -item[1])
        if values / BUNCH * math.log1p(-share) < math.log(CHANCE)
    ]
    if not gone:
        return ""
    named = ", ".join(f"{name!r} (at least {shares[name]:.1%} usually)" for name in gone[:3])
    return f"none of {values} values is {named}"


_CHECKS = {
    "went_null": _went_null,
    "went_zero": _went_zero,
    "went_constant": _went_constant,
    "category_vanished": _category_vanished,
}


def tail(rows: int, hits: int, share: float) -> float:
    """A bound on the chance of at least `hits` of `rows` at a true `share` (Hoeffding 1963, theorem 1)."""
    seen = hits / rows
    if seen <= share:
        return 1.0
    divergence = seen * math.log(seen / share)
    if seen < 1:
        divergence += (1 - seen) * math.log((1 - seen) / (1 - share))
    return math.exp(-rows * divergence)


def _repeats(past: Sequence[Profile], tonight: Profile) -> date | None:
    since = tonight.night - timedelta(days=REPEATS)
    same = [night.night for night in past if night.night >= since and night.rows == tonight.rows]
    alike = {night.night for night in past if night.content == tonight.content}
    return max((night for night in same if night in alike), default=None)


# -- profiles -------------------------------------------------------------------------------------


def _scan(
    rails: Rails, table: ingest.TableContract, nights: Mapping[date, Mapping[str, Arrival]], snapshot: int | None
) -> list[Profile]:
    """The profiles of these nights (night → its files), in one pass, and another for the columns with few kinds."""
    files = {file: arrival for arrived in nights.values() for file, arrival in arrived.items()}
    if not files:
        return []
    of = {file: night for night, arrived in nights.items() for file in arrived}
    when = ", ".join(f"({text(file)}, date {text(night.isoformat())})" for file, night in sorted(of.items()))
    source = f"""
        from (select * from {stored(table.raw, snapshot)}) as raw
        inner join (values {when}) as arrived (file, night) on raw.source_file = arrived.file
    """
    values = {name: _value(name, kind) for name, kind in table.columns.items()}
    told = {time.column for time in (table.timing.event_time, table.timing.available_at) if not isinstance(time, str)}
    said = [
        value
        for name, value in values.items()
        if name not in told and not table.columns[name].startswith(("TIMESTAMP", "DATE"))
    ]
    content = f"sum(hash({', '.join(said)}))::varchar" if said else "''"
    parts = ", ".join(
        f"count(*) - count({value}), count(*) filter ({_zero(value, table.columns[name])}), "
        f"approx_count_distinct({value}), coalesce(min({value}) = max({value}), false)"
        for name, value in values.items()
    )
    connection = rails.lake.connection
    rows = connection.execute(f"select night, count(*), {content}, {parts} {source} group by night").fetchall()
    few = [
        name
        for place, name in enumerate(values)
        if table.columns[name] in ("VARCHAR", "BOOLEAN") and all(row[3 + 4 * place + 2] <= KEPT for row in rows)
    ]
    counted: dict[date, tuple[Any, ...]] = {}
    if few:
        listed = ", ".join(f"histogram({values[name]}::varchar)" for name in few)
        counted = {night: found for night, *found in connection.execute(
            f"select night, {listed} {source} group by night"
        ).fetchall()}  # fmt: skip
    profiles = []
    for night, count, digest, *figures in rows:
        kinds = dict(zip(few, counted.get(night, ()), strict=False))
        columns = {
            name: Column(*figures[4 * place : 4 * place + 4], categories=dict(kinds.get(name) or {}))
            for place, name in enumerate(values)
        }
        profiles.append(Profile(night, count, str(digest), columns))
    return sorted(profiles, key=lambda profile: profile.night)


def _value(name: str, kind: str) -> str:
    """A blank text is no value."""
    return f"nullif(trim(raw.\"{name}\"), '')" if kind == "VARCHAR" else f'raw."{name}"'


def _zero(value: str, kind: str) -> str:
    if kind == "VARCHAR":
        return f"{value} in ('0', '0.0')"
    return f"{value} = 0" if kind in ("BIGINT", "INTEGER", "DOUBLE") else "false"


def _kept(rails: Rails, table: str, since: date, until: date) -> list[Profile]:
    """Stored profiles of the nights in [since, until)."""
    rows = rails.lake.connection.execute(
        f"select night, rows, content, column_name, nulls, zeros, kinds, is_constant, categories, broken "
        f"from {identifier(COLUMN_PROFILE)} where table_name = ? and night >= ? and night < ?",
        [table, since, until],
    ).fetchall()
    nights: dict[date, tuple[int, str, dict[str, Column], set[tuple[str, str]]]] = {}
    for night, count, content, name, nulls, zeros, kinds, constant, categories, broken in rows:
        _, _, columns, found = nights.setdefault(night, (count, content, {}, set()))
        if name:
            columns[name] = Column(nulls, zeros, kinds, constant, json.loads(categories))
        found.update((rule, name) for rule in broken.split())
    return [Profile(night, *parts[:3], frozenset(parts[3])) for night, parts in sorted(nights.items())]


def _rows(table: str, profile: Profile, as_of: datetime) -> list[dict[str, Any]]:
    """A row per column, and one for the table as a whole under the name ''."""
    whole = Column(0, 0, 0, False)
    return [
        {
            "night": profile.night, "table_name": table, "rows": profile.rows, "content": profile.content,
            "column_name": name, "nulls": column.nulls, "zeros": column.zeros, "kinds": column.kinds,
            "is_constant": column.is_constant, "categories": json.dumps(dict(column.categories)),
            "broken": " ".join(sorted(rule for rule, of in profile.broken if of == name)),
            "available_at": as_of,
        }
        for name, column in {"": whole, **profile.columns}.items()
    ]  # fmt: skip


# -- a night --------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Watch:
    """What a night brought of one source: per raw table how long it took, and what stopped saying anything."""

    source: str
    latencies: Mapping[str, Latency]
    verdicts: Mapping[str, Verdict]
    profiles: tuple[tuple[str, Profile], ...]
    """(table, profile) that were not kept yet, or are kept anew."""

    def columns(self, table: str) -> str:
        """SQL of what a freshness suite sees of a table: figures, and the findings for the expectations below."""
        one = self.latencies[table]
        observed = one.observed.p99 / 3600 if one.observed else None
        promised = one.promised.total_seconds() / 3600 if one.promised else None
        over = one.over
        served = over if one.late_share >= 0.5 else None
        found = ", ".join(
            f"{{'rule': {text(outage.rule)}, 'column_name': {text(outage.column)}, 'said': {text(outage.said)}}}"
            for outage in self.verdicts[table].found
        )
        figures = {
            "latency_p99_hours": observed,
            "promised_p99_hours": promised,
            "latency_ratio": over,
            "late_share": one.late_share,
            "late_latency_ratio": served,
        }
        listed = ", ".join(f"{_number(value)}::double as {name}" for name, value in figures.items())
        return f"{listed}, [{found}]::struct(rule varchar, column_name varchar, said varchar)[] as outages"


WATCHED = (
    "latency_p99_hours", "promised_p99_hours", "latency_ratio", "late_share", "late_latency_ratio", "outages",
)  # fmt: skip


def _number(value: float | None) -> str:
    return "null" if value is None else repr(float(value))


def watch(rails: Rails, source: str, as_of: datetime, snapshot: int | None = None) -> Watch:
    """Measure and judge what arrived of a source in the night that closes at `as_of`. Keeps nothing of it.

    Nights of the window that were never profiled (before the first one that was checked) are profiled and judged
    on the way, oldest first.
    """
    rails.lake.ensure(COLUMN_PROFILE)
    contract = ingest.contract(rails.settings, source)
    deliveries = latency.landed(rails, source, as_of)
    latencies = latency.of_source(rails, source, as_of, snapshot, deliveries)
    night = night_closing(as_of)
    verdicts: dict[str, Verdict] = {}
    fresh: list[tuple[str, Profile]] = []
    for table in contract.tables:
        past = _kept(rails, table.raw, night - timedelta(days=WINDOW), night)
        due = _due(deliveries[table.raw], as_of, {profile.night for profile in past})
        verdicts[table.raw] = Verdict((), frozenset())
        for profile in _scan(rails, table, due, snapshot):
            verdict = judge(past, profile)
            judged = Profile(profile.night, profile.rows, profile.content, profile.columns, verdict.broken)
            fresh.append((table.raw, judged))
            past.append(judged)
            if profile.night == night:
                verdicts[table.raw] = verdict
    return Watch(source, latencies, verdicts, tuple(fresh))


def _due(deliveries: Landed, as_of: datetime, known: set[date]) -> dict[date, dict[str, Arrival]]:
    """Night → what arrived in it: this night, and those of the window that have no profile."""
    nights: dict[date, dict[str, Arrival]] = {}
    for back in range(WINDOW + 1):
        end = as_of - back * DAY
        if back and night_closing(end) in known:
            continue
        arrived = deliveries.between(end - DAY, end)
        if arrived:
            nights[night_closing(end)] = arrived
    return nights


def record(rails: Rails, watched: Watch, views: Mapping[str, Latency], as_of: datetime) -> list[dict[str, Any]]:
    """Keep what a night showed: latencies and profiles in the lake, incidents in the ledger. Returns those open now."""
    rails.lake.ensure(FEATURE_LATENCY)
    rails.lake.ensure(COLUMN_PROFILE)
    night = night_closing(as_of)
    rows = [row for table, profile in watched.profiles for row in _rows(table, profile, as_of)]

    def work(connection: Any) -> None:
        latency.store(connection, [*watched.latencies.values(), *views.values()], as_of)
        if rows:
            listed = ", ".join(f"({text(table)}, date {text(str(one.night))})" for table, one in watched.profiles)
            connection.execute(f"delete from {identifier(COLUMN_PROFILE)} where (table_name, night) in ({listed})")
            put(connection, COLUMN_PROFILE, {}, pd.DataFrame(rows, columns=list(COLUMN_PROFILE.columns)))

    with rails.lake.exclusive(f"outage/{watched.source}"):  # two attempts at a night leave its rows and events once
        rails.lake.commit(work, message=f"latency and profiles of {watched.source}, {night}")
        return _settle(rails, watched, night)


# -- incidents ------------------------------------------------------------------------------------


def incidents(rails: Rails, source: str, night: date) -> list[dict[str, Any]]:
    """The data incidents of a source that are open after `night`: {table, column, what, said, since}, oldest first."""
    return sorted(opened(rails, source, night).values(), key=lambda one: (one["since"], one["table"], one["column"]))


def opened(rails: Rails, source: str, night: date) -> dict[tuple[str, str, str], dict[str, Any]]:
    """(table, column, what) → the incident, of those that are open after `night`.

    Events are added, never rewritten: of one night the last word counts, and nights in their order.
    """
    events = [event for event in rails.ledger.events(kind=INCIDENT) if event["night"] <= night]
    found: dict[tuple[str, str, str], dict[str, Any]] = {}
    for event in sorted(events, key=lambda event: (event["night"], event["id"])):
        detail = event["detail"]
        if detail["source"] != source:
            continue
        key = (detail["table"], detail["column"], detail["what"])
        if detail["state"] == "open":
            found[key] = {name: detail[name] for name in ("table", "column", "what", "said", "since")}
        else:
            found.pop(key, None)
    return found


def _settle(rails: Rails, watched: Watch, night: date) -> list[dict[str, Any]]:
    """Open what was found and is not open, close what is open and was seen to be well."""
    before, after = opened(rails, watched.source, night - DAY), opened(rails, watched.source, night)
    for table, verdict in watched.verdicts.items():
        found = {(outage.column, outage.rule): outage.said for outage in verdict.found}
        well = {(column, rule): "" for rule, column in verdict.clean}
        well |= {(column, rule): "no clean night is left: it is the new usual" for rule, column in verdict.unusual}
        one = watched.latencies[table]
        if one.late_files and one.late >= max(FEW_ROWS, LATE_SHARE * one.rows):
            named = ", ".join(one.late_files[:3])
            found["", LATE] = f"{named}: {one.late} of {one.rows} rows missed up to {max(one.missed)} night(s)"
        elif one.rows:
            well["", LATE] = ""
        for (column, rule), said in found.items():
            if (table, column, rule) not in after:
                since = before.get((table, column, rule), {}).get("since", str(night))
                tell(rails, watched.source, night, table, column, rule, "open", said, since)
        for key in after:
            if key[0] == table and key[1:] in well and key[1:] not in found:
                tell(rails, watched.source, night, *key, "closed", well[key[1:]], after[key]["since"])
    return incidents(rails, watched.source, night)


def tell(
    rails: Rails, source: str, night: date, table: str, column: str, what: str, state: str, said: str, since: str
) -> None:
    """Keep in the ledger that an incident is `open` or `closed`."""
    detail = {"source": source, "table": table, "column": column, "what": what}
    rails.ledger.add_event(INCIDENT, "", night, {**detail, "state": state, "said": said, "since": since})


def mended(rails: Rails, night: date) -> list[tuple[str, str | None, date]]:
    """(table, column, last night on which it was open) of every data incident that is closed on `night`, by table."""
    last: dict[tuple[str, str, str], date | None] = {}
    events = [event for event in rails.ledger.events(kind=INCIDENT) if event["night"] <= night]
    for event in sorted(events, key=lambda event: (event["night"], event["id"])):
        detail = event["detail"]
        key = (detail["table"], detail["column"], detail["what"])
        last[key] = event["night"] - DAY if detail["state"] == "closed" else None
    return sorted({(table, column or None, day) for (table, column, _), day in last.items() if day}, key=str)


def in_words(incident: Mapping[str, Any]) -> str:
    where = ".".join(part for part in (incident["table"], incident["column"]) if part)
    said = f": {incident['said']}" if incident["said"] else ""
    return f"data incident since {incident['since']}, {where} {incident['what'].replace('_', ' ')}{said}"


def holding(rails: Rails, spec: Spec, night: date) -> tuple[dict[str, Any], ...]:
    """The incidents open after `night` that a model stands on: of its source's columns, and of its own truth."""
    found = incidents(rails, spec.source, night)
    return tuple(one for one in found if touches(rails, spec.source, one, spec.label.table))


def touches(rails: Rails, source: str, incident: Mapping[str, Any], label: str | None = None) -> bool:
    """Does anything stand on what is broken? A column that no staging model reads is shown, and holds nothing up.

    `label`: the label table of the model that asks; a truth that stopped is that of another where it is not this one.
    """
    if incident["table"].startswith("lbl_") and label is not None:
        return bool(incident["table"] == label)
    if not incident["column"]:
        return True
    folder = rails.settings.dbt / "models" / "staging" / source
    code = " ".join(path.read_text(encoding="utf-8") for path in sorted(folder.glob("*.sql")))
    word = re.escape(incident["column"])
    return (
        re.search(rf"\b{word}\b", code) is not None
        or re.search(r"select\s+\*\s+from\s+\{\{\s*source", code) is not None
    )


def during(rails: Rails, source: str, first: date, last: date) -> tuple[str, ...]:
    """The incidents that were open on any night in [first, last], in words, for the record of a training."""
    opened = {}
    for event in rails.ledger.events(kind=INCIDENT):
        detail = event["detail"]
        if detail["source"] == source and detail["state"] == "open" and first <= event["night"] <= last:
            opened[detail["table"], detail["column"], detail["what"], detail["since"]] = detail
    still = {(one["table"], one["column"], one["what"], one["since"]): one for one in incidents(rails, source, first)}
    return tuple(in_words(one) for one in (still | opened).values())


# -- Great Expectations ---------------------------------------------------------------------------


@functools.cache
def expectations() -> Mapping[str, type]:
    """The rules as Great Expectations types: no finding of the rule among the table's `outages`."""
    query = (
        "select found.column_name, found.said from (select unnest(outages) as found from {{batch}}) "
        "where found.rule = {rule}"
    )
    return {
        kind: suites.no_rows(kind, query.format(rule=text(rule)), f"No finding of the rule {rule}.")
        for rule, kind in RULES.items()
    }
