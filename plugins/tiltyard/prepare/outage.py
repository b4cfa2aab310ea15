"""Silent outages: rows still come, but they stopped saying anything. Each night is held against its own past. Pure.

Of every raw table and night there is a profile (`column_profile`): per column how many values are missing or zero,
whether all are the same, how many kinds there are and, where few, how often each; and a digest of the rows without
their times. `verdict_on` compares a night with the same weekday in the last weeks, or with all nights while weekdays
are few. An outage needs both a large effect and a chance below `CHANCE` that a night like the worst of the past shows
it.

A fault that follows the day which rows are *about* is diluted among those that come in a night: reminders that were not
sent for the appointments of a week, made over a month. So rows are also taken by the days of every column that is
planned, each day once it is over: with its last row, what it lacks is no longer a matter of who books late.

What is found becomes a *data incident* (`data_incidents`). Nights of an open incident are no past to compare with, so a
column that is gone for good stays an incident until no clean night is left in the window; then what was broken is the
new usual, and drift takes over.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import date, timedelta
from itertools import pairwise
from typing import NamedTuple

from tiltyard.words import listed

WINDOW = 35
"""Number of nights of the past that are looked at."""
FEW_ROWS = 20
"""Number of rows below which a night is neither judged nor a past to compare with."""
SAME_WEEKDAYS = 4
"""Number of nights of the same weekday from which on only those are the past."""
RECENT = 3
"""Number of last nights, whatever their weekday, on which a category that vanished was there, too."""
NIGHTS = 14
"""Number of nights of past below which nothing is usual yet: two weekends, which are unlike the week."""
RISES = 3
"""So many times the least value of a text has risen that only ever goes on."""
CHANCE = 1e-9
"""Probability below which a night is not explained by chance. 40 columns, four rules and 200 nights are 32,000 looks;
what chance shows once in 30,000 times that is no chance."""
NEARLY_ALL = 0.99
"""Share of values from which on a column has gone missing, or zero. Less is common in honest data: a party that books
500 rooms, a bulk of invoices without a customer; such a night is drift's to judge."""
MARGIN = 0.2
"""By so much that share has to exceed the worst night of the past."""
BUNCH = 2
"""Rows of a night come in bunches: chance is reckoned with so many times fewer."""
MOST_KINDS = 50
"""Number of kinds of values up to which a column has categories."""
COMMON = 0.02
"""Share of every past night below which a category may be absent."""
REPEATS = 14
"""Number of nights before it that a night's content is compared with."""


@dataclass(frozen=True)
class ColumnProfile:
    """What a night's values of one column look like."""

    nulls: int
    """Number of values that are missing."""
    zeros: int
    """Number of values that are there and are 0, as number or text."""
    kinds: int
    """Number of distinct values, about."""
    is_constant: bool
    """Whether all values that are there are the same one."""
    categories: Mapping[str, int] = field(default_factory=dict)
    """Value → number of rows, where there are few kinds; empty otherwise."""


RuleOnColumn = tuple[str, str]
"""(rule, column); the column is '' where it is the whole table."""


@dataclass(frozen=True)
class TableProfile:
    """One night of one table."""

    night: date
    """Date that names the night."""
    rows: int
    """Number of rows that came in it."""
    content: str
    """Digest of the rows without their times, whatever their order."""
    columns: Mapping[str, ColumnProfile]
    """Name → profile of the column."""
    broken: frozenset[RuleOnColumn] = frozenset()
    """(rule, column) of the outages that were found: such a night is no past for that column."""
    along: str = ""
    """The planned column whose day ended with this night, where the rows are those of that day; '' where they are those
    that came in the night."""


class Looked(NamedTuple):
    """What of a table a night's profile is of."""

    table: str
    """Raw table."""
    along: str = ""
    """The planned column whose day had ended; '': what came in the night."""

    @property
    def prefix(self) -> str:
        """How a reason begins."""
        return f"by {self.along}: " if self.along else ""

    def what(self, rule: str) -> str:
        """What an incident of a rule is called: both ways of looking at a table have incidents of their own."""
        return f"{rule}_by_{self.along}" if self.along else rule


@dataclass(frozen=True)
class Outage:
    """One thing that stopped saying anything."""

    rule: str
    """Name of the rule that it breaks, like went_null."""
    column: str
    """Name of the column; '' where it is the whole table."""
    reason: str
    """What was seen, in words."""


@dataclass(frozen=True)
class OutageVerdict:
    """What a night's profile shows."""

    outages: tuple[Outage, ...]
    """What stopped saying anything."""
    clean: frozenset[RuleOnColumn]
    """(rule, column) that it shows to be well."""
    unusual: frozenset[RuleOnColumn] = frozenset()
    """(rule, column) that cannot be judged because no past is left: what was broken is the new usual."""

    @property
    def broken(self) -> frozenset[RuleOnColumn]:
        """(rule, column) of the outages."""
        return frozenset((outage.rule, outage.column) for outage in self.outages)


# -- judging --------------------------------------------------------------------------------------


def verdict_on(tonight: TableProfile, past: Sequence[TableProfile]) -> OutageVerdict:
    """Hold a night against its past. The order of `past` is free, and nights after this one are none of it."""
    past = [night for night in past if night.night < tonight.night]
    outages: list[Outage] = []
    clean: set[RuleOnColumn] = set()
    unusual: set[RuleOnColumn] = set()
    if tonight.rows < FEW_ROWS:
        return OutageVerdict((), frozenset())
    for name, column in tonight.columns.items():
        is_broken = False
        for rule, check in _CHECKS.items():
            nights = _comparable(past, tonight, rule, name)
            if nights is None:
                unusual.add((rule, name))
                continue
            if is_broken:
                continue  # a column of nothing but NULL has lost its categories, too: once is enough
            nights = sorted(nights, key=lambda night: night.night)
            reason = check(column, tonight.rows, [(night.columns[name], night.rows) for night in nights])
            if reason:
                outages.append(Outage(rule, name, f"{reason} ({_against(nights, tonight)})"))
                is_broken = True
            elif reason is None:
                clean.add((rule, name))
    twin = _repeats(past, tonight)
    if twin:
        reason = f"its {tonight.rows} rows are those of {twin} but for the times"
        outages.append(Outage("repeated_partition", "", reason))
    else:
        clean.add(("repeated_partition", ""))
    return OutageVerdict(tuple(outages), frozenset(clean), frozenset(unusual))


def _comparable(
    past: Sequence[TableProfile], tonight: TableProfile, rule: str, column: str
) -> list[TableProfile] | None:
    """The nights to compare with: of the same weekday where there are enough, else all; None when there are too few."""
    nights = [
        night
        for night in past
        if night.rows >= FEW_ROWS and column in night.columns and column not in {name for _, name in night.broken}
    ]
    same = [night for night in nights if night.night.weekday() == tonight.night.weekday()]
    if len(same) >= SAME_WEEKDAYS:
        if rule != "category_vanished":
            return same
        # what fades over the days, like the name of a month that ends, has not vanished
        return same + [night for night in sorted(nights, key=lambda night: night.night)[-RECENT:] if night not in same]
    return nights if len(nights) >= NIGHTS else None


def _against(nights: Sequence[TableProfile], tonight: TableProfile) -> str:
    same = all(night.night.weekday() == tonight.night.weekday() for night in nights)
    return f"against {len(nights)} {tonight.night:%A}s" if same else f"against {len(nights)} nights"


Past = Sequence[tuple[ColumnProfile, int]]
"""A column on other nights, the oldest first, each with the night's number of rows."""
Check = Callable[[ColumnProfile, int, Past], str | None]
"""(column, rows of the night, past) → what is wrong, in words; None when all is well, "" when it cannot be told."""


def _went_null(tonight: ColumnProfile, rows: int, past: Past) -> str | None:
    return _jumped(tonight.nulls, rows, [(column.nulls, total) for column, total in past], "missing")


def _went_zero(tonight: ColumnProfile, rows: int, past: Past) -> str | None:
    values = rows - tonight.nulls
    before = [(column.zeros, count) for column, count in _with_values(past)]
    if values < FEW_ROWS or not before:
        return ""
    return _jumped(tonight.zeros, values, before, "zero")


def _with_values(past: Past) -> list[tuple[ColumnProfile, int]]:
    """The nights on which the column had enough values, each with how many."""
    return [(column, rows - column.nulls) for column, rows in past if rows - column.nulls >= FEW_ROWS]


def _jumped(hits: int, total: int, past: Sequence[tuple[int, int]], what: str) -> str | None:
    """Is the share far above every share of the past, beyond chance even at the highest of them?

    `past` is (hits, total) of other nights, `what` the word for a hit.
    """
    share, worst = hits / total, max((before + 1) / (rows + 2) for before, rows in past)
    if share < max(worst + MARGIN, NEARLY_ALL):
        return None
    if tail(total // BUNCH, hits // BUNCH, worst) > CHANCE:
        return ""
    return f"{hits} of {total} values are {what}, at most {max(before / rows for before, rows in past):.1%} usually"


def _went_constant(tonight: ColumnProfile, rows: int, past: Past) -> str | None:
    values = rows - tonight.nulls
    before = _with_values(past)
    if values < FEW_ROWS or not before:
        return ""
    if not tonight.is_constant or any(column.is_constant for column, _ in before):
        return None
    commonest = max(_commonest(column, count) for column, count in before)
    if values / BUNCH * math.log(commonest) > math.log(CHANCE):
        return ""
    kinds = sorted(column.kinds for column, _ in before)
    only = f" ({next(iter(tonight.categories))})" if len(tonight.categories) == 1 else ""
    return f"all {values} values are the same one{only}, of usually {kinds[len(kinds) // 2]} kinds"


def _commonest(column: ColumnProfile, values: int) -> float:
    """The share of the commonest value, or what it is at most where only the number of kinds is known."""
    if column.categories:
        return min(max(column.categories.values()) / values, 1 - 1e-9)
    return max(values - column.kinds + 1, 1) / (values + 1)


def _category_vanished(tonight: ColumnProfile, rows: int, past: Past) -> str | None:
    values = rows - tonight.nulls
    if tonight.kinds > MOST_KINDS or values < FEW_ROWS or not all(column.categories for column, _ in past):
        return ""
    if any(column.is_constant for column, _ in past):  # a month: one value for weeks, and then the next
        return ""
    if _grows([column for column, _ in past], tonight):
        return None
    shares: dict[str, float] = {}
    for name in set.intersection(*(set(column.categories) for column, _ in past)) - set(tonight.categories):
        share = min(column.categories[name] / max(total - column.nulls, 1) for column, total in past)
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
    named = listed([f"{name!r} (at least {shares[name]:.1%} usually)" for name in gone])
    return f"none of {values} values is {named}"


def _grows(past: Sequence[ColumnProfile], tonight: ColumnProfile) -> bool:
    """Whether a text only ever goes on, like a day that is written as one: its least value never falls, has risen
    several times, and what tonight lacks lies below all that it has."""
    least = [min(column.categories) for column in past] + [min(tonight.categories, default="")]
    rises = sum(later > earlier for earlier, later in pairwise(least))
    return rises >= RISES and all(later >= earlier for earlier, later in pairwise(least))


_CHECKS: dict[str, Check] = {
    "went_null": _went_null,
    "went_zero": _went_zero,
    "went_constant": _went_constant,
    "category_vanished": _category_vanished,
}


def tail(rows: int, hits: int, share: float) -> float:
    """A bound on the chance of at least `hits` of `rows` at a true `share` (Hoeffding 1963, theorem 1)."""
    rate = hits / rows
    if rate <= share:
        return 1.0
    divergence = rate * math.log(rate / share)
    if rate < 1:
        divergence += (1 - rate) * math.log((1 - rate) / (1 - share))
    return math.exp(-rows * divergence)


def _repeats(past: Sequence[TableProfile], tonight: TableProfile) -> date | None:
    """The newest of the last nights that had the same rows; None when none had."""
    since = tonight.night - timedelta(days=REPEATS)
    return max(
        (
            night.night
            for night in past
            if night.night >= since and night.rows == tonight.rows and night.content == tonight.content
        ),
        default=None,
    )
