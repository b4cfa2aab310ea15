"""A question about the rows of a source: what is asked, and what the deliveries say of it. Records, and pure sums."""

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import date, timedelta
from typing import Literal

from tiltyard.errors import BadInput
from tiltyard.scaffold import naming
from tiltyard.scaffold.found import Cohorts
from tiltyard.target import FEWEST_CLASSES, MOST_CLASSES, literal, names_a_class
from tiltyard.words import counted

HORIZONS = (1, 2, 3, 5, 7, 10, 14, 21, 30, 45, 60, 90, 120, 180, 365)
"""Days among which a horizon is chosen."""
KNOWN = 0.95
"""Share of the outcomes that should be known within the horizon."""
UNTOLD = 0.01
"""Share of rows without any outcome from which on they are unknown, where a no is told as such."""
LATELY_DAYS = 28
MOST_RATED = 6
"""Classes of which past rates are kept."""
MOST_NIGHTS = 100
"""Nights of a hindcast that is proposed: a quarter of an hour or so."""


@dataclass(frozen=True)
class Due:
    """Until when the outcome of each row is told, where a planned column says it."""

    column: str
    """The planned column."""
    is_day: bool
    """It tells a day, which is over with its last moment."""
    longest_days: int
    """Days after a row in which it is over, whatever the row."""
    usual_days: int
    """The same of 95 in 100 rows."""
    delay_days: int
    """Days after it within which the outcome is written."""
    known: float
    """Share of the outcomes that are written by then."""
    positive: float
    """Share of the rows that have a positive outcome by then; 0 of a number."""


@dataclass(frozen=True)
class Question:
    """What a model is to tell."""

    model: str
    source: str
    table: str
    entity: str
    """Whom a prediction is about: the key is <entity>_id."""
    label: str
    """The column of the outcome."""
    truth: str
    """SQL of the truth, from the label column as `versions` has it."""
    positive: str
    """What a positive outcome is, in words; empty for a number."""
    is_number: bool
    classes: tuple[str, ...]
    """Of an outcome of which every text is asked for: these; else empty."""
    horizon_days: int
    rates: tuple[str, ...]
    """Columns for whose values the past rate of the outcome is kept."""
    loads: tuple[str, ...]
    """Columns for whose values rows are counted."""
    owner: str
    zone: str
    untold_is_no: bool = True
    """A row of which no outcome is told in time counts as no; else it has no label, as of a number."""
    due: Due | None = None
    """Until when it is told, where a column says it of each row; `horizon_days` is the longest then."""

    @property
    def is_yes_no(self) -> bool:
        """The outcome is a yes or no."""
        return not self.is_number and not self.classes

    @property
    def rated(self) -> Mapping[str, str]:
        """What a past rate is called in its column, and what it is, in words."""
        if not self.classes:
            return {self.label: "Their mean" if self.is_number else f"Share of them in which {self.positive}"}
        return {
            f"{self.label}_{name}": f"Share of them in which {self.label} is {value}"
            for name, value in self.slugs.items()
        }

    @property
    def slugs(self) -> Mapping[str, str]:
        """Of classes of which past rates are kept: plain name → class."""
        most = self.classes[:MOST_RATED]
        return dict(zip(naming.aliases(most), most, strict=True))

    @property
    def key(self) -> str:
        """The key of spine, feature views and label table."""
        return f"{self.entity}_id"

    @property
    def staging(self) -> str:
        """The table that all of it is made of."""
        return f"stg_{self.source}__{self.table}"

    @property
    def spine(self) -> str:
        """Name of the spine."""
        return f"spn_{self.model}"

    @property
    def labels(self) -> str:
        """Name of the label table."""
        return f"lbl_{self.model}"

    @property
    def horizon(self) -> str:
        """The horizon, as spec and label table promise it."""
        return f"until {self.due.column}, at most {self.horizon_days}d" if self.due else f"{self.horizon_days}d"

    @property
    def in_time(self) -> str:
        """Within what the outcome counts, in words."""
        if self.due is None:
            return f"within {counted(self.horizon_days, 'day')}"
        end = f"by {self.due.column}"
        return f"{end} or {counted(self.due.delay_days, 'day')} later" if self.due.delay_days else end

    @property
    def matures(self) -> str:
        """SQL of when the outcome of a row of the spine has had its time, from the spine's columns."""
        longest = f"prediction_time + interval '{self.horizon_days} days'"
        if self.due is None:
            return longest
        end = f"cast({self.due.column}{' + 1' if self.due.is_day else ''} as timestamptz)"
        decided = f"greatest(prediction_time, least({end}, {longest}))"
        return f"{decided} + interval '{self.due.delay_days} days'" if self.due.delay_days else decided

    def view(self, entity: str, topic: str) -> str:
        """Name of a feature view."""
        return f"ftr_{entity}__{self.model}_{topic}"

    @property
    def beside(self) -> frozenset[str]:
        """Names that no feature of the row itself may have: the keys of all views, and what is in the others."""
        keys = {self.key, *(f"{naming.entity_of(column)}_id" for column in (*self.rates, *self.loads))}
        rated = [
            (f"{entity}_matured_count_{LATELY_DAYS}d", *(f"{entity}_{name}_rate{end}" for name in self.rated))
            for entity in map(naming.entity_of, self.rates)
            for end in ("", f"_{LATELY_DAYS}d")
        ]
        loaded = [
            (f"{entity}_rows_1d", f"{entity}_rows_{LATELY_DAYS}d") for entity in map(naming.entity_of, self.loads)
        ]
        return frozenset(keys.union(*rated, *loaded))


@dataclass(frozen=True)
class Feature:
    """A feature of the row itself."""

    name: str
    sql: str
    """From the columns of its first version."""
    data_type: str
    description: str
    kind: Literal["text", "whole", "number", "yes_no"]
    low: float | None = None
    high: float | None = None
    """1st and 99th percentile of a number."""
    values: tuple[str, ...] = ()
    """Of a text with twenty values at most: these."""
    missing: float = 0.0
    """Share of rows without it."""


def told_apart(features: Sequence[Feature], beside: Iterable[str]) -> tuple[Feature, ...]:
    """The features, each under a name of its own: a column that is a key of another view, too, is its value here. Pure.
    `beside`: names that are taken."""
    columns = {feature.name for feature in features if feature.sql == feature.name}
    others, found = frozenset(beside), list[Feature]()
    taken = set(others)
    for feature in features:
        is_made = feature.sql != feature.name and feature.name in columns
        name = f"{feature.name}_value" if feature.name in others else feature.name
        name = naming.free(name, taken | columns if is_made or name != feature.name else taken)
        taken.add(name)
        found.append(feature if name == feature.name else replace(feature, name=name))
    return tuple(found)


@dataclass(frozen=True)
class Outcomes:
    """What the deliveries say of the outcomes."""

    rows: int
    """Rows there is a first version of."""
    told: int
    """Rows of which the outcome has been written."""
    known_by: Mapping[int, float]
    """Days → share of the outcomes that were written within so many days of the row."""
    positive_by: Mapping[int, float]
    """Days → share of rows that had a positive outcome by then."""
    base: float
    """Share of positives among all outcomes; of a number its median, of classes the share of the commonest."""
    shares: Mapping[str, float]
    """Of classes: class → its share of the outcomes that are one; else empty."""
    first_told: date
    """First day of whose rows outcomes are told as usual."""
    usual: float
    """Share of the rows of a day of which an outcome is told, of nine in ten days since then at least."""
    percentiles: tuple[float, float] | None
    """1st and 99th percentile of a number; else None."""

    @property
    def untold(self) -> float:
        """Share of the rows of which no outcome was ever told."""
        return 1 - self.told / self.rows

    @property
    def shown(self) -> tuple[tuple[int, float], ...]:
        """Days, and share of the outcomes that are known by then, up to the first at which all are."""
        pairs = list(self.known_by.items())
        end = next((place for place, (_, share) in enumerate(pairs) if share >= 0.9995), len(pairs) - 1)
        return tuple(pairs[: end + 1])


@dataclass(frozen=True)
class Facts:
    """All that a model's texts are made of, beside the question."""

    features: tuple[Feature, ...]
    left_out: Mapping[str, str]
    """Column → why it is no feature."""
    outcomes: Outcomes
    cohorts: Cohorts | None
    first: date
    """First day whose rows are predicted for."""
    last: date
    """Day of the newest row."""
    landed: date
    """Day of the newest delivery."""
    per_day: float
    """Median number of rows of a day that has any."""
    has_silent_days: bool
    """There are days without rows."""


@dataclass(frozen=True)
class Calendar:
    """When something can come of a model."""

    first_trainable: date
    """as_of of the first night whose matured cohorts carry a training."""
    with_history: date
    """as_of of the first night on which half of what is learned from has a past; the same where none is asked for."""
    last_rows: date
    """as_of of the night of the newest rows."""
    last_night: date
    """as_of of the last night that tells something: it has landed, and the last rows have matured by it."""
    window_days: int
    """How far its training cohorts reach back."""
    min_matured: int

    @property
    def begin(self) -> date:
        """Where a hindcast best begins: with a past to learn from, where two weeks of nights are left then; and a
        hundred nights before the end, which tell as much as more."""
        first = self.with_history if self.last_night - self.with_history >= timedelta(days=14) else self.first_trainable
        return max(first, self.last_night - timedelta(days=MOST_NIGHTS))

    @property
    def end(self) -> date:
        """Where a hindcast best ends: the night before that of the newest rows, which is left for Airflow; or, where
        four weeks of truth would not have come by then, the last that tells something."""
        before = self.last_rows - timedelta(days=1)
        still_to_come = self.last_night - self.last_rows
        return before if before - self.begin >= timedelta(days=28) + still_to_come else self.last_night


def horizon(outcomes: Outcomes, span_days: int) -> tuple[int, str]:
    """The fewest days in which nearly all outcomes are known, at most a quarter of those that there are; and why."""
    most = max(1, span_days // 4)
    fitting = [days for days in HORIZONS if days <= most] or [1]
    for days in fitting:
        if outcomes.known_by.get(days, 0.0) >= KNOWN:
            return days, f"{100 * outcomes.known_by[days]:.3g} % of the outcomes are known by then"
    days = fitting[-1]
    return days, (
        f"only {100 * outcomes.known_by.get(days, 0.0):.3g} % of the outcomes are known by then, and more would leave "
        f"too few of the {span_days} days to learn from"
    )


def calendar(
    facts: Facts, horizon_days: int, fewest_rows: int, *, has_rates: bool, usual_days: int | None = None
) -> Calendar:
    """The first night to train on: two weeks of whole cohorts, and `fewest_rows` of them, have matured. A past rate
    begins when the first cohort has matured, so that only what came after it can have one. `usual_days`: the days that
    most rows wait, where they do not all wait `horizon_days`, so that the first rates come at once."""
    usual = horizon_days if usual_days is None else usual_days
    cohorts = max(14, -(-fewest_rows // max(1, int(facts.per_day))))
    begin = max(facts.first, facts.outcomes.first_told)
    first = begin + timedelta(days=cohorts + usual)
    span = (facts.last - begin).days + 1
    return Calendar(
        first_trainable=first,
        with_history=max(first, begin + timedelta(days=3 * usual)) if has_rates and usual_days is None else first,
        last_rows=facts.last + timedelta(days=1),
        last_night=min(facts.landed, facts.last + timedelta(days=horizon_days)) + timedelta(days=1),
        window_days=max(30, min(90, span)),
        min_matured=int(min(500, max(100, 5 * facts.per_day))),
    )


def positive_sql(column: str, kind: str, values: Sequence[str], positive: str | None) -> tuple[str, str]:
    """SQL of the truth of a yes-or-no label, and what a positive is in words.

    Raises BadInput where one value is all there is, or nobody says which of several is meant.
    """
    if len(values) < 2:
        what = f"only {values[0]!r}" if values else "nothing"
        raise BadInput(f"--label: '{column}' holds {what}, so that there is nothing to learn; give another column.")
    if kind == "yes_no":
        wanted = _boolean(positive)
        return (f"versions.{column}", f"{column} is yes") if wanted else (f"not versions.{column}", f"{column} is no")
    is_number = kind in ("whole", "number")
    limit = _LIMIT.fullmatch(positive or "") if is_number else None
    if limit is not None:
        return f"versions.{column} {limit[1]} {limit[2]}", f"{column} is {_BEYOND[limit[1]]} {limit[2]}"
    if positive is None:
        positive = usual_positive(values)
    if positive is None:
        shown = ", ".join(values[:6])
        raise BadInput(
            f"--label: '{column}' has the values {shown}; say which is meant with --positive"
            + (", like '>15', or --number for the amount." if is_number else ", or --classes for each of them.")
        )
    if positive not in values:
        raise BadInput(f"--positive: '{column}' is never {positive!r}; it is {', '.join(values[:6])}.")
    return f"versions.{column} = {positive if is_number else literal(positive)}", f"{column} is {positive}"


def usual_positive(values: Sequence[str]) -> str | None:
    """Which of two values is asked for where they say it: the yes of YES and NO; None: they do not."""
    spelled = {value.strip().lower(): value for value in values}
    return next((spelled[yes] for yes, no in _PAIRS if set(spelled) == {yes, no}), None)


_PAIRS = (
    ("yes", "no"), ("y", "n"), ("true", "false"), ("t", "f"), ("1", "0"), ("ja", "nein"), ("j", "n"), ("oui", "non"),
    ("sí", "no"), ("si", "no"), ("sì", "no"), ("sim", "não"), ("tak", "nie"), ("ja", "nee"), ("ja", "nej"),
)  # fmt: skip
_LIMIT = re.compile(r"(>=|<=|>|<) *(-?[0-9]+(?:\.[0-9]+)?)")
_BEYOND = {">": "above", "<": "below", ">=": "at least", "<=": "at most"}


def class_sql(
    column: str, kind: str, counts: Mapping[str, int], fewest: float
) -> tuple[str, tuple[str, ...], tuple[str, ...]]:
    """SQL of an outcome of which every text is asked for, its classes, the commonest first, and those texts that are
    too rare to be one, or can name none: put together as `other`, or, where that is too rare as well, none. `counts`:
    text → rows.

    Raises BadInput where fewer than three are left.
    """
    if kind not in ("text", "whole"):
        raise BadInput(f"--classes: '{column}' holds no texts; say which value is meant with --positive, or --number.")
    ordered = sorted(counts, key=lambda value: (-counts[value], value))
    usual = [value for value in ordered if counts[value] >= fewest and names_a_class(value) and value != OTHER]
    usual = usual[: MOST_CLASSES - 1]
    rare = tuple(value for value in ordered if value not in usual)
    value = f"versions.{column}" if kind == "text" else f"cast(versions.{column} as varchar)"
    if len(rare) == 1 and len(usual) == MOST_CLASSES - 1 and counts[rare[0]] >= fewest and names_a_class(rare[0]):
        return value, (*usual, *rare), ()
    if sum(counts[name] for name in rare) < fewest:
        classes, truth = tuple(usual), value
    else:
        classes = (*usual, OTHER)
        truth = f"case when {value} in ({', '.join(map(literal, usual))}) then {value} else '{OTHER}' end"
    if len(classes) < FEWEST_CLASSES:
        shown = ", ".join(ordered[:6]) or "nothing"
        raise BadInput(
            f"--classes: of {shown} fewer than {FEWEST_CLASSES} come often enough in two weeks to be told apart; "
            "ask for one of them with --positive."
        )
    return truth, classes, tuple(name for name in rare if name != OTHER)


OTHER = "other"
"""What classes are called that are too rare to stand alone."""


def _boolean(positive: str | None) -> bool:
    text = (positive or "true").strip().lower()
    if text in ("true", "yes", "y", "t", "1"):
        return True
    if text in ("false", "no", "n", "f", "0"):
        return False
    raise BadInput(f"--positive: the label is a yes or no, and '{positive}' is neither; write yes or no.")
