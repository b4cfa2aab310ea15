"""What has been delivered of a table, read as its staging makes it, and what it says of a question."""

import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import date
from pathlib import Path

import duckdb

from tiltyard import casts
from tiltyard.errors import BadInput
from tiltyard.lake import one_row, quoted
from tiltyard.prepare import contracts, delivery_rows, landing, project
from tiltyard.prepare.columns import Columns
from tiltyard.prepare.contracts import TableContract
from tiltyard.prepare.delivery_rows import NAME, NONE_OF_THEIRS
from tiltyard.prepare.landing import LandingFile, first_line
from tiltyard.scaffold import inferring, naming, sample
from tiltyard.scaffold.asked import HORIZONS, KNOWN, Due, Feature, Outcomes
from tiltyard.scaffold.found import Cohorts
from tiltyard.scaffold.inferring import Lead
from tiltyard.settings import Settings
from tiltyard.words import counted, ended, meant

FEWEST_DAYS = 14
"""Days below which nothing is said of how a column goes on with them."""
TELLING = 0.85
"""Correlation with the outcome from which on a column is asked about."""
_NUMBERS = ("whole", "number", "yes_no")
MOST_VALUES = 1_000
"""Different texts up to which a column is a feature."""
_KINDS = {"bigint": "whole", "integer": "whole", "double": "number", "boolean": "yes_no", "varchar": "text"}


@dataclass(frozen=True)
class Delivered:
    """The rows that a source has delivered."""

    connection: duckdb.DuckDBPyConnection
    """Has `versions`, every row at every time at which it was written, and `first_known`, each as known first."""
    contract: TableContract
    staging: project.Model
    key: str
    said: Columns
    landed: date
    """Day of the newest delivery."""
    keyless: int
    """Rows that name nobody, since they have no key. No prediction is made of them, and they are in no table here."""
    unread: tuple[str, ...] = ()
    """Deliveries that are passed over, since ingest would refuse them, each with its reason."""

    def kind(self, column: str) -> str:
        """What the values of a column of the staging table are."""
        declared = self.staging.types.get(column, "")
        return _KINDS.get(declared, "day" if declared == "date" else "instant" if "time" in declared else "text")

    def has_values(self, column: str) -> bool:
        """Whether the deliveries have the column as the staging table has it."""
        return column in self.contract.columns


@contextmanager
def opened(settings: Settings, source: str, table: str | None) -> Iterator[Delivered]:
    """The deliveries of a table. Raises BadInput where there are none, or no staging that can be read."""
    contract = contracts.read(settings, source)
    chosen = contract.tables[0] if table is None else contract.table(table)
    if chosen is None or (table is None and len(contract.tables) > 1):
        names = ", ".join(entry.name for entry in contract.tables)
        raise BadInput(f"{source} has the tables {names}; say with --table which one holds the outcome.")
    described = project.read(settings)
    staging = described.models.get(f"stg_{source}__{chosen.name}")
    if staging is None or not {"event_time", "available_at"} <= set(staging.columns):
        raise BadInput(
            f"There is no stg_{source}__{chosen.name} with event_time and available_at, as `tiltyard new source` "
            "writes it; a model over another staging is written by hand (docs/tutorial/add-a-model.md)."
        )
    key = _key(settings, source, chosen, staging)
    with duckdb.connect() as connection:
        connection.execute("set TimeZone = 'UTC'")
        try:
            newest, unread = _read(connection, settings, source, chosen)
            _as_staged(connection, chosen, staging, described.queries[staging.name])
        except duckdb.Error as error:
            raise BadInput(f"The deliveries of {source} cannot be read ({first_line(error)}).") from None
        keyless = one_row(connection, f"select count(*) from versions where {quoted(key)} is null")[0]
        connection.execute(f"delete from versions where {quoted(key)} is null")
        connection.execute(
            f"create table first_known as select * from versions qualify "
            f"row_number() over (partition by {quoted(key)} order by available_at, event_time) = 1"
        )
        yield Delivered(connection, chosen, staging, key, described.said, newest, keyless, unread)


def _key(settings: Settings, source: str, table: TableContract, staging: project.Model) -> str:
    key = contracts.key_of(settings, table)
    if key is None or not key.endswith("_id") or staging.types.get(key) != "varchar":
        raise BadInput(
            f"{staging.name} names no key that ends in _id and is text, as the first column of its one_row_per."
        )
    return key


def _read(
    connection: duckdb.DuckDBPyConnection, settings: Settings, source: str, table: TableContract
) -> tuple[date, tuple[str, ...]]:
    """Fill `versions`; returns the day of the newest delivery, and what is passed over, each with its reason."""
    folder = settings.landing / source / table.name
    files, unread = [], []
    for path in sorted(folder.iterdir()) if folder.is_dir() else ():
        if contracts.day_of(path.name) is not None and path.is_file():
            file = LandingFile.of(path, table)
            file.inspect(connection)
            if file.reason is None:
                files.append(file)
            else:
                unread.append(f"{path.name}: {file.reason}")
    if not files:
        if unread:
            raise BadInput(f"No delivery in {folder} can be read, like {unread[-1]}; mend them.")
        raise BadInput(
            f"Nothing of {source} lies in {folder}; lay an export there with tiltyard data cut {source} FILE."
        )
    due = f"cast(left({NAME}, 10) as timestamptz) + interval '1 day'"
    parts = []
    with landing.in_utf8(files) as paths:
        shapes: dict[tuple[bool, tuple[str, ...]], list[int]] = {}
        for place, file in enumerate(files):
            shapes.setdefault((file.is_parquet, file.header), []).append(place)
        for places in shapes.values():
            rows = delivery_rows.sql(
                [files[place] for place in places], [paths[place] for place in places], due, names_file=len(files) > 1
            )
            parts.append(f"select * exclude ({', '.join(NONE_OF_THEIRS)}) from ({rows})")
        connection.execute(
            f"create table versions as select * from ({' union all by name '.join(parts)}) "
            "where available_at is not null"
        )
    return max(day for file in files if (day := contracts.day_of(file.path.name))), tuple(unread)


def _as_staged(
    connection: duckdb.DuckDBPyConnection, table: TableContract, staging: project.Model, query: Path
) -> None:
    """Give the columns that are text in a delivery, and times in the staging table, the types that they have there:
    in the format that its SQL, at `query`, reads them by."""
    formats = dict(re.findall(r"strptime\((\w+), '([^']+)'\)", query.read_text(encoding="utf-8")))
    for name, kind in table.columns.items():
        declared = staging.types.get(name, "")
        if kind == "VARCHAR" and (declared == "date" or declared.startswith("timestamp")):
            column = quoted(name)
            form = formats.get(name) or sample.time_format(connection, "versions", column)
            value = casts.in_format(column, form) if form else f"try_cast({column} as timestamp)"
            wanted = "date" if declared == "date" else "timestamp"
            connection.execute(f"alter table versions alter {column} type {wanted} using cast({value} as {wanted})")


def column(rows: Delivered, name: str, option: str) -> str:
    """A column of the staging table, by its name or by its header. Raises BadInput, with the one that was meant."""
    by_header = {header: column for column, header in rows.contract.headers.items()}
    chosen = by_header.get(name, name)
    if chosen not in rows.staging.columns or chosen in project.RESERVED:
        near = meant(chosen, rows.staging.columns)
        raise BadInput(ended(f"{option}: {rows.staging.name} has no column '{name}'{near}"))
    if not rows.has_values(chosen):
        raise BadInput(f"{option}: '{name}' is not in the deliveries as {rows.staging.name} has it.")
    return chosen


# -- what the rows say ------------------------------------------------------------------------


def left_out(delivered: Delivered) -> tuple[str, ...]:
    """What of the deliveries is not looked at, in sentences: rows without a key, and files that cannot be read."""
    sentences = []
    if delivered.keyless:
        rows = f"Rows of the deliveries that have no {delivered.key}: {delivered.keyless:,}"
        sentences.append(
            f"{rows}. They can be nobody's prediction and are left out, and the checks of a night count them; ask "
            f"{delivered.contract.source} what they are of."
        )
    if unread := delivered.unread:
        sentences.append(
            f"{counted(len(unread), 'file')} that a night would put into quarantine left out, like {unread[0]}."
        )
    return tuple(sentences)


def days(delivered: Delivered) -> list[tuple[date, int]]:
    """Day (UTC) → rows that were known first on it, in order."""
    return delivered.connection.execute(
        "select cast(available_at as date) as day, count(*) from first_known group by 1 order by 1"
    ).fetchall()


def cohorts(delivered: Delivered, per_day: Sequence[tuple[date, int]]) -> Cohorts | None:
    """Since when all rows of a day are there, where they were chosen by a planned time."""
    planned = {}
    for name in delivered.staging.columns:
        if (
            delivered.kind(name) == "day"
            and delivered.has_values(name)
            and delivered.said.is_planned(delivered.staging.name, name)
        ):
            ahead = f"({quoted(name)} - cast(event_time as date))"
            row = delivered.connection.execute(
                f"select count({quoted(name)}), count(*) filter ({ahead} < 0), count(*) filter ({ahead} > 0), "
                f"quantile_cont({ahead}, 0.95), min({quoted(name)}), max({quoted(name)}) from first_known"
            ).fetchone()
            if row and row[0]:
                planned[name] = Lead(row[0], row[1], row[2], float(row[3]), row[4], row[5])
    return inferring.cohorts(per_day, planned) if planned else None


def label_values(delivered: Delivered, label: str) -> tuple[str, ...]:
    """The values that a label has been told as, the most frequent first; thirty at most."""
    rows = delivered.connection.execute(
        f"select {quoted(label)}::varchar from versions where {quoted(label)} is not null group by 1 "
        "order by count(*) desc, 1 limit 30"
    ).fetchall()
    return tuple(value for (value,) in rows)


def outcomes(delivered: Delivered, label: str, truth: str, *, is_number: bool) -> Outcomes:
    """When outcomes were told, and how often they are positive."""
    key = quoted(delivered.key)
    connection = delivered.connection
    connection.execute(
        f"create or replace table told as select first_known.{key}, "
        f"first_known.available_at as since, versions.available_at as told_at, {truth} as truth "
        f"from first_known inner join versions on first_known.{key} = versions.{key} "
        f"where versions.{quoted(label)} is not null "
        f"qualify row_number() over (partition by first_known.{key} order by versions.available_at) = 1"
    )
    rows = one_row(connection, "select count(*) from first_known")[0]
    told = one_row(connection, "select count(*) from told")[0]
    if not told:
        raise BadInput(f"--label: no delivery tells '{label}' of any row; give another column.")
    known = ", ".join(f"avg((told_at <= since + interval '{days} days')::int)" for days in HORIZONS)
    base = "median(truth)" if is_number else "avg(truth::int)"
    low = f"quantile_cont(truth, 0.01) {casts.finite('truth')}" if is_number else "null"
    high = f"quantile_cont(truth, 0.99) {casts.finite('truth')}" if is_number else "null"
    first, lowest, highest, *by = one_row(connection, f"select {base}, {low}, {high}, {known} from told")
    if is_number and lowest is None:
        raise BadInput(f"--label: '{label}' holds no number that has an end; give another column.")
    positive: Sequence[float] = ()
    if not is_number:
        listed = ", ".join(
            f"count(*) filter (truth and told_at <= since + interval '{days} days')" for days in HORIZONS
        )
        positive = [count / rows for count in one_row(connection, f"select {listed} from told")]
    first_told, usual = _told_by_day(delivered)
    return Outcomes(
        first_told=first_told,
        usual=usual,
        rows=rows,
        told=told,
        known_by=dict(zip(HORIZONS, (float(share) for share in by), strict=True)),
        positive_by=dict(zip(HORIZONS, positive, strict=False)),
        base=float(first),
        shares={},
        percentiles=(float(lowest), float(highest)) if is_number else None,
    )


def _told_by_day(delivered: Delivered) -> tuple[date, float]:
    """The first day of whose rows outcomes are told as usual, at half of what nine in ten days have or less; and the
    share that nine in ten days since then have at least. Of the last days, whose outcomes may still come, nothing is
    counted: as many as it takes until 95 in 100 outcomes are told."""
    key = quoted(delivered.key)
    return one_row(
        delivered.connection,
        f"""
        with lag as (select quantile_cont(epoch(told_at - since), 0.95) as seconds from told),
        days as (
            select cast(available_at as date) as day, count(told_at) / count(*) as share
            from first_known left join told using ({key})
            where available_at <= timestamptz '{delivered.landed} 00:00:00Z' + interval '1 day'
                - to_seconds((select seconds from lag))
            group by 1
        ),
        usual as (select quantile_cont(share, 0.9) as most from days)
        select
            coalesce(min(day) filter (share >= most / 2), (select min(cast(since as date)) from told)),
            coalesce(quantile_cont(share, 0.1) filter (share >= most / 2), 1.0)
        from days, usual
        """,
    )


def told_as(delivered: Delivered, truth: str, label: str) -> dict[str, int]:
    """What outcomes are told as first, each with its rows, the most frequent first. `truth`: SQL from `versions`."""
    key = quoted(delivered.key)
    rows = delivered.connection.execute(
        f"with told as (select cast({truth} as varchar) as outcome from versions where {quoted(label)} is not null "
        f"qualify row_number() over (partition by {key} order by available_at) = 1) "
        "select outcome, count(*) from told group by 1 order by 2 desc, 1"
    ).fetchall()
    return dict(rows)


DELAYS = (0, 1, 2, 3, 5, 7, 14, 28)
"""Days among which a delay is chosen."""


def due(delivered: Delivered, column: str, longest_days: int | None) -> Due:
    """Until when outcomes are told where a planned column says it (`outcomes` has filled the table `told`), with the
    shortest delay after which nearly all are. `longest_days`: as somebody gives them; None: what rows have.

    Raises BadInput where the column is no time that is known ahead.
    """
    kind, staging = delivered.kind(column), delivered.staging.name
    if kind not in ("day", "instant") or not delivered.said.is_planned(staging, column):
        raise BadInput(
            f"--until: '{column}' is no day or instant that is planned; say planned of it in the contract of "
            f"{delivered.contract.source}, or give --horizon in days."
        )
    end = f"cast({quoted(column)}{' + 1' if kind == 'day' else ''} as timestamptz)"
    ahead = f"epoch(greatest({end}, available_at) - available_at) / 86400"
    usual, longest = one_row(
        delivered.connection, f"select ceil(quantile_cont({ahead}, 0.95)), ceil(max({ahead})) from first_known"
    )
    if usual is None:
        raise BadInput(f"--until: '{column}' is missing in every row; give another column, or --horizon in days.")
    most = max(1, int(longest) if longest_days is None else longest_days)
    limit = f"available_at + interval '{most} days'"
    decided = f"greatest(available_at, least({end}, {limit}))"
    within = f"coalesce({end} <= {limit}, false)"  # what is due later is told later, whatever the delay
    parts = ", ".join(
        f"count(*) filter ({within} and told_at <= {decided} + interval '{days} days'), "
        f"count(*) filter (told_at <= {decided} + interval '{days} days'), "
        f"count(*) filter (truth::double = 1 and told_at <= {decided} + interval '{days} days')"
        for days in DELAYS
    )
    key = quoted(delivered.key)
    told, inside, *counts = one_row(
        delivered.connection,
        f"select count(*), count(*) filter ({within}), {parts} from first_known inner join told using ({key})",
    )
    shares = [count / max(inside, 1) for count in counts[::3]]
    place = next((place for place, share in enumerate(shares) if share >= KNOWN), len(shares) - 1)
    known, positive = counts[3 * place + 1] / told, counts[3 * place + 2]
    rows = one_row(delivered.connection, "select count(*) from first_known")[0]
    return Due(column, kind == "day", most, min(int(usual), most), DELAYS[place], known, positive / rows)


def told_by(delivered: Delivered, label: str) -> str | None:
    """The planned column of which it is said that an outcome is written with it; None where there is none."""
    staging = delivered.staging.name
    for origin in delivered.said.written_later(staging, label):
        when = origin.said.when if origin.said else None
        if when is None or when.further:
            continue
        for name in delivered.staging.columns:
            carried = delivered.said.keys(staging, name, origin.table)
            if when.column in carried and delivered.has_values(name) and delivered.said.is_planned(staging, name):
                return name
    return None


def telling(delivered: Delivered, columns: Sequence[str]) -> dict[str, float]:
    """The numbers among these columns that nearly are the outcome, with their correlation: of the rows of which it was
    told (`outcomes` has filled the table `told`)."""
    key = quoted(delivered.key)
    numbers = [name for name in columns if name in delivered.contract.columns and delivered.kind(name) in _NUMBERS]
    if not numbers:
        return {}
    parts = ", ".join(  # of numbers that can be squared
        f"corr({quoted(name)}::double, truth::double) filter (abs({quoted(name)}::double) < 1e150)" for name in numbers
    )
    found = one_row(delivered.connection, f"select {parts} from first_known inner join told using ({key})")
    return {name: value for name, value in zip(numbers, found, strict=True) if value and TELLING <= abs(value) <= 1}


def features(delivered: Delivered, label: str, zone: str) -> tuple[tuple[Feature, ...], Mapping[str, str]]:
    """The features that are in a row itself when it is known first, and column → why it is none."""
    found: list[Feature] = []
    left_out: dict[str, str] = {}
    staging, said = delivered.staging.name, delivered.said
    today = f"cast(timezone('{zone}', event_time) as date)" if zone != "UTC" else "cast(event_time as date)"
    for name in delivered.staging.columns:
        if name in (*project.RESERVED, delivered.key, *delivered.contract.timing.event_time.columns):
            continue
        kind = delivered.kind(name)
        if name == label:
            left_out[name] = "it is the outcome"
        elif said.written_later(staging, name):
            left_out[name] = "it is written later"
        elif said.identifies(staging, name):
            left_out[name] = "it identifies a person"
        elif kind == "day":
            found += _of_day(delivered, name, today)
        elif kind == "instant":
            found += _of_instant(delivered, name)
        elif not delivered.has_values(name):
            left_out[name] = "the deliveries do not have it as staging does"
        elif reason := useless(delivered, name, kind):
            left_out[name] = reason
        else:
            found.append(_as_is(delivered, name, kind))
    found.append(
        Feature(
            "event_weekday",
            f"cast(extract(isodow from {today}) as integer)",
            "integer",
            "Weekday on which it happened, 1 is Monday.",
            "whole",
            1,
            7,
        )
    )
    happened = delivered.contract.timing.event_time
    if not happened.is_day(delivered.contract.columns[happened.column]):
        hour = f"timezone('{zone}', event_time)" if zone != "UTC" else "event_time"
        found.append(
            Feature(
                "event_hour",
                f"cast(extract(hour from {hour}) as integer)",
                "integer",
                "Hour in which it happened.",
                "whole",
                0,
                23,
            )
        )
    return tuple(found), left_out


def useless(delivered: Delivered, name: str, kind: str) -> str | None:
    """Why a column tells nothing, as half a sentence; None where it may."""
    given, distinct, rows = one_row(
        delivered.connection,
        f"select count({quoted(name)}), count(distinct {quoted(name)}), count(*) from first_known",
    )
    if not given:
        return "it is missing in every row when the row is first known"
    if distinct == 1 and given == rows:
        return "it has one value only"
    if kind == "whole" and distinct == rows:
        return "it has another number in every row, as a name has"
    if kind in ("whole", "number") and (reason := _calendar(delivered, name)):
        return reason
    if kind == "text" and (distinct > MOST_VALUES or distinct > 0.5 * rows):
        return f"it has {distinct:,} different texts"
    return None


def _calendar(delivered: Delivered, name: str) -> str | None:
    """Why a number is a clock: it goes on with the days, so that every later night lies where training never was."""
    days, same, rises, falls = one_row(
        delivered.connection,
        f"""
        with days as (
            select cast(available_at as date) as day, median({quoted(name)}) as middle,
                min({quoted(name)}) = max({quoted(name)}) as is_same
            from first_known where {quoted(name)} is not null group by 1
        ),
        steps as (select is_same, middle - lag(middle) over (order by day) as step from days)
        select count(*), count(*) filter (is_same), count(*) filter (step > 0), count(*) filter (step < 0) from steps
        """,
    )
    if days < FEWEST_DAYS or not rises:
        return None
    if same >= 0.95 * days:
        return "it is the same in all rows of a day, as a calendar is"
    if rises >= 0.9 * (days - 1) and falls <= 0.05 * days:
        return "it goes on with the days, as a counter does"
    return None


def _as_is(delivered: Delivered, name: str, kind: str) -> Feature:
    column = quoted(name)
    declared = delivered.staging.types[name]
    missing = float(one_row(delivered.connection, f"select avg(({column} is null)::int) from first_known")[0])
    description = naming.words(name).capitalize() + "."
    if kind == "yes_no":
        return Feature(name, name, declared, description, "yes_no", missing=missing)
    if kind == "text":
        rows = delivered.connection.execute(
            f"select {column} from first_known where {column} is not null group by 1 order by count(*) desc, 1 limit 21"
        ).fetchall()
        values = tuple(value for (value,) in rows) if len(rows) <= 20 else ()
        return Feature(name, name, declared, description, "text", values=values, missing=missing)
    low, high = one_row(
        delivered.connection,
        f"select quantile_cont({column}, 0.01) {casts.finite(column)}, quantile_cont({column}, 0.99) "
        f"{casts.finite(column)} from first_known",
    )
    if low is None:
        return Feature(name, name, declared, description, "number", missing=missing)
    number = "whole" if kind == "whole" else "number"
    return Feature(name, name, declared, description, number, float(low), float(high), missing=missing)  # type: ignore[arg-type]


def _of_day(delivered: Delivered, name: str, today: str) -> list[Feature]:
    words = naming.words(name)
    ahead = Feature(
        f"{name}_days_ahead",
        f"cast({name} - {today} as bigint)",
        "bigint",
        f"Days until the {words}; less than 0 where it has passed.",
        "whole",
    )
    if not delivered.said.is_planned(delivered.staging.name, name):
        return [ahead]
    return [
        ahead,
        Feature(
            f"{name}_weekday",
            f"cast(extract(isodow from {name}) as integer)",
            "integer",
            f"Weekday of the {words}, 1 is Monday.",
            "whole",
            1,
            7,
        ),
    ]


def _of_instant(delivered: Delivered, name: str) -> list[Feature]:
    words = naming.words(name)
    ahead = f"cast(date_diff('hour', event_time, {name}) as bigint)"
    return [
        Feature(
            f"{name}_hours_ahead",
            ahead,
            "bigint",
            f"Hours until the {words}; less than 0 where it has passed.",
            "whole",
        )
    ]
