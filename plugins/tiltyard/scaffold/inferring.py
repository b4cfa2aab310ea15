"""What a table's columns are taken for, from their names and values, where nobody said it. Pure.

Nothing here is certain, and all of it is shown before it is written. What somebody said stands.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import date, timedelta
from itertools import pairwise
from statistics import median

from tiltyard.errors import BadInput
from tiltyard.prepare.closed_days import WEEKDAYS, ClosedDay, PublicHolidays, why_closed
from tiltyard.scaffold.found import Cohorts, Column, Rhythm, Roles, Table
from tiltyard.words import ended, meant

_HAPPENED = ("created", "scheduled", "opened", "ordered", "booked", "placed", "event", "start", "registered", "invoice")
_BIRTH = re.compile(r"birth|(^|_)dob($|_)|expir|valid")
_PERSON = re.compile(
    r"(^|_)(patient\w{0,2}|customer|client|user|person\w{0,2}|member|employee|caller|guest|student|passenger|ssn|email|"
    r"e_mail|phone|mobile|first_name|last_name|full_name|surname|passport|iban|address|kund\w{1,2}|benutzer|mitarbeiter)"
    r"($|_)"
)
_LATER = re.compile(
    r"(^|_)(status|outcome|result|no_?show|show|cancel\w*|churn\w*|returned|resolved|closed|paid|reminded|sms\w*|"
    r"defaulted|converted|delivered|approved|response|target|delay\w*|actual|elapsed)($|_)"
)
_AHEAD = re.compile(
    r"(^|_)(due|sched\w*|plan\w*|appointment\w*|expect\w*|promised|deadline|expir\w*|valid\w*|until|booked_for|"
    r"reserved|check_?in|departure|start\w*|begin\w*|target)($|_)"
)
_OVER = re.compile(
    r"(^|_)(arriv\w*|actual\w*|clos\w*|deliver\w*|finish\w*|end|ended|return\w*|resolv\w*|complet\w*|paid|"
    r"cancel\w*|left|exit\w*|done|sold|shipped|answered|updated|changed|modified|status\w*)($|_)"
)
FEWEST_OF_A_DAY = 10
"""Rows of a usual day below which one without any is no closed day."""
_WHOLE = 0.99
"""Share of rows for which something holds that is taken to hold."""


@dataclass(frozen=True)
class Said:
    """What somebody said of a table, by header or by name; None and empty: nothing."""

    event_time: str | None = None
    available_at: str | None = None
    key: str | None = None
    planned: tuple[str, ...] = ()
    written_later: Mapping[str, str | None] = field(default_factory=dict)
    """Column → the column that tells when."""
    identifies: tuple[str, ...] = ()


@dataclass(frozen=True)
class Lead:
    """How a column's times lie to when the rows happened, in days."""

    filled: int
    """Rows that have one."""
    before: int
    """Rows in which it is earlier, by its day."""
    after: int
    """Rows in which it is later."""
    usual: float
    """95th percentile."""
    first: date
    last: date


def event_time(table: Table, said: Said) -> Column:
    """The column that tells when a row happened. Raises BadInput where there is none."""
    if said.event_time is not None:
        column = named(table, said.event_time, "--event-time")
        if not column.is_time:
            raise BadInput(f"--event-time: '{column.header}' holds {_kind(column)}, and no times; give another column.")
        return column
    times = [column for column in table.columns if column.is_time and column.missing <= 0.01 * column.rows]
    times = [column for column in times if not _BIRTH.search(column.name)]
    outcomes = [column for column in times if _LATER.search(column.name)]
    times = [column for column in times if column not in outcomes]
    if outcomes and not times:
        raise BadInput(
            f"The only times are those of {outcomes[0].header}, which by its name is written later; say --event-time "
            f"where it does tell when a row happened{_parts(table)}."
        )
    if not times:
        raise BadInput(
            "No column tells when a row happened: none that is filled in holds days or instants; add one to the "
            f"export, since without it nothing can be predicted from what was known{_parts(table)}."
        )
    hinted = [column for column in times if any(word in column.name for word in _HAPPENED)]
    return min(hinted or times, key=lambda column: (column.early or column.least[:10], column.kind == "day"))


def _parts(table: Table) -> str:
    """The end of a sentence, where a date stands in several columns."""
    parts = [column.header for column in table.columns if re.search(r"(^|_)(year|month|day(_of_month)?)$", column.name)]
    return f", or name those that tell it together, like --event-time {','.join(parts)}" if len(parts) >= 2 else ""


def roles(
    table: Table, happened: Column, leads: Mapping[str, Lead], said: Said, changing: Sequence[str] | None = None
) -> Roles:
    """What every column is taken for. `changing`: the columns that change between versions of a key; None: there is
    one of each. Raises BadInput for a column that is not there, or is said to be two things."""
    known = named(table, said.available_at, "--available-at") if said.available_at else None
    later: dict[str, str | None] = {}
    for name, when in said.written_later.items():
        column = named(table, name, "--written-later")
        told = named(table, when, "--written-later") if when else column
        later[column.name] = told.name if when or column.is_time else None  # a time is known when it has come
    planned = [named(table, name, "--planned").name for name in said.planned]
    both = sorted(set(planned) & set(later))
    if both:
        raise BadInput(f"'{both[0]}' is said to be planned, known ahead, and written later; say one of both.")
    for name in sorted({happened.name} & {*planned, *later}):
        raise BadInput(f"'{name}' tells when a row happened; it is neither planned nor written later.")
    if changing is not None and known is not None:
        own = {happened.name, known.name, *planned, *later}
        later |= {name: known.name for name in changing if name not in own}
    spoken = {happened.name, *planned, *later, *([known.name] if known else [])}
    for column in table.columns:
        lead = leads.get(column.name)
        if column.name in spoken or lead is None or not lead.after:
            continue
        if column.missing > 0.001 * column.rows or not is_ahead(column):
            later[column.name] = column.name
        else:
            planned.append(column.name)
    key = _key(table, said) if changing is None else named(table, said.key or "", "--key").name
    if not said.written_later and changing is None:
        times = [name for name in (*later, *planned) if name in leads]
        when = max(times, key=lambda name: leads[name].usual, default=None)  # by the last of all, everything is known
        for column in table.columns:
            is_free = column.name not in {*spoken, *planned, *later, key}
            if is_free and (column.distinct <= 20 or column.missing) and _LATER.search(column.name):
                later[column.name] = when
    people = [named(table, name, "--identifies").name for name in said.identifies] or [
        column.name for column in table.columns if _PERSON.search(column.name) and column.distinct > 50
    ]
    found = Roles(happened.name, known.name if known else None, key, tuple(planned), later, tuple(people))
    return replace(found, has_versions=changing is not None)


def with_missing(roles: Roles, table: Table, missing: Mapping[str, str], said: Said) -> Roles:
    """The roles, with what is missing in the same rows as what is written later: where nobody said what is, it is
    written later itself, by the same time. `missing`: column → that one."""
    free = {
        name: other
        for name, other in missing.items()
        if name not in {roles.event_time, roles.available_at, roles.key, *roles.planned, *roles.written_later}
    }
    later = dict(roles.written_later)
    if not said.written_later:
        later |= {name: later[other] for name, other in free.items()}
    ordered = {column.name: later[column.name] for column in table.columns if column.name in later}
    return replace(roles, written_later=ordered, missing_with=free)


def is_ahead(column: Column) -> bool:
    """Whether a time after its row may be one that was known ahead: by its name, or a day that nothing says is over.

    Any other is taken to be written when it has come. A time that is wrongly called planned would be a leak that no
    check accuses; one that is wrongly called written later costs a feature."""
    return bool(_AHEAD.search(column.name)) or (column.kind == "day" and not _OVER.search(column.name))


def named(table: Table, name: str, option: str) -> Column:
    """The column of that header or name. Raises BadInput, with the one that was meant."""
    column = table.column(name)
    if column is None:
        near = meant(name, [spelling for column in table.columns for spelling in (column.header, column.name)])
        raise BadInput(ended(f"{option}: the file has no column '{name}'{near}"))
    return column


def _key(table: Table, said: Said) -> str | None:
    if said.key is not None:
        column = named(table, said.key, "--key")
        if not column.is_unique:
            repeated = column.rows - column.distinct
            raise BadInput(
                f"--key: '{column.header}' does not name a row: {repeated:,} of {column.rows:,} rows repeat one or "
                "have none; give another column, or none, and the rows are numbered."
            )
        return column.name
    unique = [column for column in table.columns if column.is_unique and column.kind in ("whole", "text")]
    by_name = [column for column in unique if re.search(r"(^|_)(id|no|nr|number|key|code|uuid)($|_)", column.name)]
    return by_name[0].name if by_name else None


def _kind(column: Column) -> str:
    return {"yes_no": "yes or no", "whole": "numbers", "number": "numbers"}.get(column.kind, "text")


# -- days -------------------------------------------------------------------------------------

APART = timedelta(days=90)
"""Days without a delivery beyond which a handful of rows is not of the same export: a mistyped year."""
HANDFUL = 0.001
"""Share of all rows that is one."""


def whole_span(counts: Mapping[date, int], today: date) -> tuple[date, date]:
    """The first and the last day of an export, without the few rows that lie far from all others, or after today.
    Pure. `counts`: day → rows that were written on it."""
    days = sorted(day for day in counts if day <= today) or sorted(counts)
    few = HANDFUL * sum(counts.values())
    gaps = [place for place, (before, after) in enumerate(pairwise(days), start=1) if after - before >= APART]
    first = max((place for place in gaps if sum(counts[day] for day in days[:place]) <= few), default=0)
    last = min((place for place in gaps if sum(counts[day] for day in days[place:]) <= few), default=len(days))
    return days[first], days[last - 1]


def cohorts(happened: Sequence[tuple[date, int]], planned: Mapping[str, Lead]) -> Cohorts | None:
    """Since when all rows of a day are there, where the rows were chosen by a planned time and not by their own; None
    where nothing speaks for it. `happened`: day → rows, in order.

    Rows that were chosen by a planned day between two days have older ones among them only where they were made long
    ahead, and of the newest only those made shortly before: both ends grow thin.
    """
    earliest, latest = happened[0][0], happened[-1][0]
    for name, lead in planned.items():
        early = [count for day, count in happened if day < lead.first]
        within = [count for day, count in happened if day >= lead.first]
        if not early or not within or lead.first - earliest < timedelta(days=3):
            continue
        span_early, span_within = (lead.first - earliest).days, (latest - lead.first).days + 1
        if sum(early) / span_early < 0.5 * sum(within) / span_within and lead.after > 0.2 * lead.filled:
            last = max(lead.first, min(latest, lead.last - timedelta(days=round(lead.usual))))
            return Cohorts(name, lead.first, last, earliest, latest)
    return None


def rhythm(happened: Sequence[tuple[date, int]], country: str | None = None) -> Rhythm:
    """On which days there is nothing, and how far a day's rows lie from what is usual on its weekday."""
    counts = dict(happened)
    first, last = happened[0][0], happened[-1][0]
    days = [first + timedelta(days=number) for number in range((last - first).days + 1)]
    by_weekday = [[counts.get(day, 0) for day in days if day.weekday() == weekday] for weekday in range(7)]
    closed: list[ClosedDay] = [
        WEEKDAYS[weekday]
        for weekday, rows in enumerate(by_weekday)
        if len(rows) >= 4 and sum(1 for count in rows if count) <= 0.1 * len(rows)
    ]
    if country is not None:
        kept = PublicHolidays(holidays=country)
        off = [day for day in days if why_closed([kept], day) and not why_closed(closed, day)]
        if sum(1 for day in off if counts.get(day)) <= 0.5 * len(off):
            closed.append(kept)
    usually = [median(rows or [0]) for rows in by_weekday]  # on a weekday of few rows a day without one is chance
    silent = [
        day
        for day in days
        if not counts.get(day) and not why_closed(closed, day) and usually[day.weekday()] >= FEWEST_OF_A_DAY
    ]
    if len(silent) <= max(3, 0.1 * len(days)):
        closed += silent
    usual = [median([count for count in rows if count] or [0]) for rows in by_weekday]
    open_days = [day for day in days if not why_closed(closed, day) and counts.get(day)]
    whole = open_days[1:-1]  # of the first and the last day an export may have a part only
    shares = sorted(counts[day] / usual[day.weekday()] for day in whole if usual[day.weekday()] >= 20)
    low, high = (shares[len(shares) // 100], shares[-1 - len(shares) // 100]) if shares else (1.0, 1.0)
    return Rhythm(
        first=first,
        last=last,
        closed=tuple(_spelled(day) for day in closed),
        warn_below=min(0.4, _two_digits(low * 0.8)),
        warn_above=max(2.2, _two_digits(high * 1.25)),
        hold_below=min(0.02, _two_digits(low * 0.2)),
        per_day=median([counts[day] for day in open_days] or [0]),
    )


def _spelled(day: ClosedDay) -> str:
    if isinstance(day, PublicHolidays):
        return f"holidays: {day.holidays}"
    return day.isoformat() if isinstance(day, date) else day


def _two_digits(value: float) -> float:
    return float(f"{max(value, 0.0001):.2g}")
