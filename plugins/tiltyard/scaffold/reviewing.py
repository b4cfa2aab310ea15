"""A question about whoever rows are of, a customer or a shop and no single row: what comes of them next.

Each is reviewed every few days, and the outcome is in the rows that come within the horizon: whether one does, how many
do, or what they sum up to. Records, and what the deliveries say of the question.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import date, timedelta
from typing import Literal

from tiltyard.errors import BadInput
from tiltyard.lake import quoted, text
from tiltyard.prepare import project
from tiltyard.scaffold import naming
from tiltyard.scaffold.asked import HORIZONS, Calendar
from tiltyard.scaffold.delivered import Delivered, useless
from tiltyard.scaffold.delivered import column as delivered_column

MANY = 300
"""So many that are reviewed fill a night by a seventh of them; fewer are reviewed every day."""
SAMPLED = 20_000
"""Of more than so many, this many are looked at, and what is counted is scaled."""
WINDOWS = (7, 28, 90)
"""Days over which the past is counted."""
MOST_COLUMNS = 6
"""So many columns of a kind become features."""

Sort = Literal["comes", "count", "sum"]
"""Whether a row comes, how many do, or what a column of them sums up to."""


@dataclass(frozen=True)
class Review:
    """What a model is to tell of whoever rows are of."""

    model: str
    source: str
    staging: str
    row: str
    """The key of a row of the staging table."""
    entity: str
    columns: tuple[str, ...]
    """The columns that name whom a prediction is about; of several a key is made."""
    sort: Sort
    measure: str | None
    """The column that is summed up."""
    condition: str | None
    """SQL that a row has to meet to count, from the staging table's columns."""
    what: str
    """What comes, in words."""
    horizon_days: int
    every_days: int
    """Days between two reviews of the same."""
    active_days: int
    """They are reviewed while their last row is no older."""
    owner: str

    @property
    def key(self) -> str:
        """The key of spine, feature view and label table."""
        return f"{self.entity}_id"

    @property
    def spine(self) -> str:
        """Name of the spine."""
        return f"spn_{self.model}"

    @property
    def labels(self) -> str:
        """Name of the label table."""
        return f"lbl_{self.model}"

    @property
    def view(self) -> str:
        """Name of the feature view."""
        return f"ftr_{self.entity}__{self.model}_past"

    @property
    def is_number(self) -> bool:
        """Whether the outcome is an amount."""
        return self.sort != "comes"


def key_sql(columns: Sequence[str]) -> str:
    """SQL of a key: the column as text; of several columns their texts, parted by a bar that none of them can feign."""
    if len(columns) == 1:
        return f"cast({columns[0]} as varchar)"
    parts = (rf"replace(replace(cast({name} as varchar), '\', '\\'), '|', '\|')" for name in columns)
    return " || '|' || ".join(parts)


_NO_AMOUNT = re.compile(
    r"(^|_)(lat\w*|lon\w*|long|age|rate|ratio|share|score|percent\w*|price|temp\w*|code|zip\w*|precinct|year|month|day|"
    r"hour|minute|week\w*|number|nr|no|index|level|grade|rank|version)($|_)"
)


def is_additive(name: str) -> bool:
    """Whether the sum of a number over rows says something, by its name: a sum of latitudes does not."""
    return not _NO_AMOUNT.search(name)


def is_whole(columns: Sequence[str]) -> str:
    """SQL of the rows that have a whole key."""
    return " and ".join(f"{name} is not null" for name in columns)


@dataclass(frozen=True)
class Comings:
    """How rows come of those whom they are of."""

    rows: int
    entities: int
    first: date
    """Day of the first row."""
    last: date
    """Day of the newest row."""
    gap_days: float
    """95 of 100 times the next row comes within so many days."""

    @property
    def span_days(self) -> int:
        """Days from the first row to the newest."""
        return (self.last - self.first).days

    @property
    def every_days(self) -> int:
        """Days between two reviews of the same."""
        return 7 if self.entities > MANY else 1

    def active_days(self, horizon_days: int) -> int:
        """They are reviewed while their last row is no older: as long as nearly every next row takes to come."""
        return int(max(2 * horizon_days, 14, min(self.gap_days + 1, self.span_days / 2, 365)))


@dataclass(frozen=True)
class PastColumn:
    """A column whose past is a feature."""

    name: str
    kind: Literal["number", "text", "yes_no"]
    missing: float
    """Share of rows without it."""


@dataclass(frozen=True)
class ReviewFacts:
    """What the deliveries say of the question."""

    comings: Comings
    landed: date
    """Day of the newest delivery."""
    per_night: float
    """Reviews that are due on a night, on average."""
    base: float
    """Share of reviews after which a row comes; of a number its median."""
    percentiles: tuple[float, float]
    """1st and 99th percentile of a number."""
    by_horizon: Mapping[int, float]
    """Days → the same share or median, of other horizons."""
    columns: tuple[PastColumn, ...]
    windows: tuple[int, ...]
    """Days over which the past is counted."""
    has_code: bool
    """Whether which one it is is a feature: there are few of them, and none is a person."""
    left_out: Mapping[str, str]
    """Column → why nothing is made of it."""


# -- what is asked ----------------------------------------------------------------------------


def named(delivered: Delivered, wanted: str) -> tuple[str, tuple[str, ...]]:
    """Entity and columns of `[NAME=]COLUMN[,COLUMN…]`, headers allowed. Raises BadInput for what names nobody."""
    name, _, listed = wanted.rpartition("=")
    chosen = []
    for part in (part.strip() for part in listed.split(",")):
        column = delivered_column(delivered, part, "--entity")
        if delivered.said.written_later(delivered.staging.name, column):
            raise BadInput(f"--entity: '{part}' is written later, so that nobody knows whose row it is; give another.")
        chosen.append(column)
    entity = name.strip() or "_".join(naming.entity_of(column) for column in chosen)
    if naming.plain(entity) != entity or entity in naming.RESERVED or entity == "id":
        why = "a word of SQL" if entity in naming.RESERVED else "no plain name"
        raise BadInput(f"--entity: '{entity}' is {why}; say who it is with NAME=COLUMN, like customer={listed}.")
    return entity, tuple(dict.fromkeys(chosen))


def default_horizon(span_days: int) -> int:
    """Four weeks, where the rows go on for half a year; else a sixth of them."""
    most = max(1, span_days // 6)
    return max(days for days in (1, *HORIZONS) if days <= min(28, most))


def calendar(facts: ReviewFacts, horizon_days: int, fewest_rows: int) -> Calendar:
    """The first night to train on: two weeks of reviews, and `fewest_rows` of them, have matured."""
    comings = facts.comings
    cohorts = max(14, -(-fewest_rows // max(1, int(facts.per_night))))
    first = comings.first + timedelta(days=cohorts + horizon_days + comings.every_days)
    return Calendar(
        first_trainable=first,
        with_history=max(first, min(comings.first + timedelta(days=3 * horizon_days), comings.last)),
        last_rows=comings.last + timedelta(days=1),
        last_night=min(facts.landed, comings.last) + timedelta(days=1),
        window_days=max(30, min(120, comings.span_days)),
        min_matured=int(min(500, max(100, 5 * facts.per_night))),
    )


# -- what the rows say ------------------------------------------------------------------------


def comings(delivered: Delivered, columns: Sequence[str], measure: str | None, counts: str | None) -> Comings:
    """How rows come of those whom `columns` name; `measure` is summed up, `counts` is SQL of the rows that count.

    Leaves them in the table `happened`. Raises BadInput where hardly anybody comes twice.
    """
    connection = delivered.connection
    connection.execute(
        f"create or replace table happened as select {key_sql(columns)} as who, event_time, available_at, "
        f"{f'coalesce({quoted(measure)}, 0)' if measure else '1'}::double as worth, "
        f"coalesce({counts or 'true'}, false) as counts from first_known where {is_whole(columns)}"
    )
    rows, entities, first, last = connection.execute(
        "select count(*), count(distinct who), min(available_at)::date, max(event_time)::date from happened"
    ).fetchone() or (0, 0, None, None)
    if not entities or rows < 2 * entities:
        raise BadInput(
            f"--entity: {rows:,} rows of {entities:,} different {', '.join(columns)}: hardly anybody comes twice, so "
            "that there is no past to learn from; give a column that rows share, or ask of the row itself."
        )
    row = connection.execute(
        "select quantile_cont(days, 0.95) from (select epoch(event_time - lag(event_time) over "
        "(partition by who order by event_time)) / 86400 as days from happened) where days > 0"
    ).fetchone()
    gap = float(row[0]) if row and row[0] is not None else 1.0
    return Comings(rows, entities, first, last, gap)


def look(delivered: Delivered, review: Review, found: Comings) -> ReviewFacts:
    """What the deliveries say of the question; `found` is what `comings` gave, whose table is read."""
    most = max(review.horizon_days, found.span_days // 4)
    horizons = [days for days in HORIZONS if days <= most and days != review.horizon_days]
    per_night, base, low, high = _outcomes(delivered, review, review.horizon_days)
    columns, left_out = _columns(delivered, review)
    return ReviewFacts(
        comings=found,
        landed=delivered.landed,
        per_night=per_night,
        base=base,
        percentiles=(low, high),
        by_horizon=dict(
            sorted(
                {
                    review.horizon_days: base,
                    **{days: _outcomes(delivered, review, days)[1] for days in horizons},
                }.items()
            )
        ),
        columns=columns,
        windows=tuple(days for days in WINDOWS if days <= max(WINDOWS[0], found.span_days // 3)),
        has_code=found.entities <= MANY
        and not any(delivered.said.identifies(delivered.staging.name, name) for name in review.columns),
        left_out=left_out,
    )


def _outcomes(delivered: Delivered, review: Review, horizon: int) -> tuple[float, float, float, float]:
    """Reviews per night; share of those after which a row comes, or the median of a number; its 1st and 99th
    percentile."""
    row = delivered.connection.execute(
        f"""
        with everybody as (
            select who, min(available_at) as since, count(*) over () as many from happened group by who
        ),
        known as (select who, since from everybody where many <= {SAMPLED} or hash(who) % many < {SAMPLED}),
        reviews as (
            select who, unnest(generate_series(
                since + interval '{review.every_days} days',
                (select max(event_time) from happened) - interval '{horizon} days',
                interval '{review.every_days} days'
            )) as due from known
        ),
        active as (
            select reviews.* from reviews asof inner join happened
                on reviews.who = happened.who and reviews.due >= happened.available_at
            where reviews.due < happened.event_time + interval '{review.active_days} days'
        ),
        outcomes as (
            select active.who, due, coalesce(sum(worth), 0) as worth, count(happened.who) as came
            from active left join happened on active.who = happened.who and happened.counts
                and happened.event_time > due and happened.available_at <= due + interval '{horizon} days'
            group by all
        )
        select count(*) * (select max(many) from everybody) / (select count(*) from known)
                / (date_diff('day', min(due), max(due)) + 1),
            {"median(worth)" if review.is_number else "avg((came > 0)::int)"},
            quantile_cont(worth, 0.01) filter (isfinite(worth)), quantile_cont(worth, 0.99) filter (isfinite(worth))
        from outcomes
        """
    ).fetchone()
    if row is None or row[1] is None:
        return 0.0, 0.0, 0.0, 1.0
    return float(row[0]), float(row[1]), float(row[2]), float(row[3])


def _columns(delivered: Delivered, review: Review) -> tuple[tuple[PastColumn, ...], dict[str, str]]:
    """The columns whose past becomes features, and column → why it does not."""
    found: dict[str, list[PastColumn]] = {"number": [], "text": [], "yes_no": []}
    left_out: dict[str, str] = {}
    staging, said = delivered.staging.name, delivered.said
    for name in delivered.staging.columns:
        if name in (*project.RESERVED, delivered.key, *review.columns, *delivered.contract.timing.event_time.columns):
            continue
        kind = delivered.kind(name)
        if said.written_later(staging, name):
            left_out[name] = "it is written later"
        elif said.identifies(staging, name):
            left_out[name] = "it identifies a person"
        elif kind in ("day", "instant"):
            left_out[name] = "it is a time"
        elif not delivered.has_values(name):
            left_out[name] = "the deliveries do not have it as staging does"
        elif reason := useless(delivered, name, kind):
            left_out[name] = reason
        else:
            sort: Literal["number", "text", "yes_no"] = (
                "number" if kind in ("whole", "number") else "text" if kind == "text" else "yes_no"
            )
            if len(found[sort]) < MOST_COLUMNS:
                found[sort].append(PastColumn(name, sort, _missing(delivered, name)))
            else:
                left_out[name] = f"{MOST_COLUMNS} columns like it are used already"
    return (*found["number"], *found["text"], *found["yes_no"]), left_out


def _missing(delivered: Delivered, name: str) -> float:
    row = delivered.connection.execute(f"select avg(({quoted(name)} is null)::int) from first_known").fetchone()
    return float(row[0]) if row and row[0] is not None else 0.0


def condition(column: str, kind: str, values: Sequence[str], positive: str) -> str:
    """SQL of the rows that count. Raises BadInput for a value that a column never has."""
    if kind == "yes_no":
        wanted = positive.strip().lower()
        if wanted in ("true", "yes", "1", "false", "no", "0"):
            return column if wanted in ("true", "yes", "1") else f"not {column}"
    if positive not in values:
        raise BadInput(f"--positive: '{column}' is never {positive!r}; it is {', '.join(values[:6])}.")
    return f"{column} = {positive if kind in ('whole', 'number') else text(positive)}"
