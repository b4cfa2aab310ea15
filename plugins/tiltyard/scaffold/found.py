"""What a table looks like, and what each of its columns is taken for. Records only."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import date
from typing import Literal

Kind = Literal["text", "whole", "number", "yes_no", "day", "instant"]
"""What the values of a column are."""
Known = str | float | bool | date


@dataclass(frozen=True)
class FileForm:
    """How a file is written."""

    kind: Literal["csv", "jsonl", "parquet"]
    delimiter: str = ","
    encoding: str = "utf-8"
    decimal: Literal[".", ","] = "."
    thousands: str | None = None
    """What stands between the thousands of a number; None: nothing."""
    null_values: tuple[str, ...] = ()
    """Spellings of "missing", beside the empty field."""


@dataclass(frozen=True)
class Column:
    """A column, and what its values look like."""

    header: str
    """As the file spells it."""
    name: str
    """As we do."""
    data_type: str
    """Its type in a contract, like varchar."""
    kind: Kind
    format: str | None = None
    """strptime format of a time that is text."""
    parts: tuple[str, ...] = ()
    """The columns that it is made of, by our names; of a column of the file none."""
    is_zoned: bool = False
    """An instant that carries its zone."""
    rows: int = 0
    missing: int = 0
    distinct: int = 0
    least: str = ""
    most: str = ""
    low: float | None = None
    """1st percentile of a number."""
    high: float | None = None
    """99th percentile of a number."""
    early: str = ""
    """1st percentile of a time, as a day: what is before it may be mistyped."""
    values: tuple[str, ...] = ()
    """The values of a column that has twenty at most, the most frequent first."""

    @property
    def is_time(self) -> bool:
        """Whether it tells a day or an instant."""
        return self.kind in ("day", "instant")

    @property
    def is_unique(self) -> bool:
        """Whether it tells every row from every other."""
        return self.rows > 1 and not self.missing and self.distinct == self.rows


@dataclass(frozen=True)
class Table:
    """A file: how it is written, and its columns."""

    form: FileForm
    rows: int
    columns: tuple[Column, ...]

    def column(self, name: str) -> Column | None:
        """The column that is called so, by us or in the file."""
        return next((column for column in self.columns if name in (column.name, column.header)), None)


@dataclass(frozen=True)
class Roles:
    """What the columns of a table are taken for; all by our names."""

    event_time: str
    """When a row happened."""
    available_at: str | None
    """When it was known; None: nothing in the file says it."""
    key: str | None
    """What names a row; None: nothing does."""
    planned: tuple[str, ...] = ()
    """Known ahead, like a due date."""
    written_later: Mapping[str, str | None] = field(default_factory=dict)
    """Column that is filled in later → the one that tells when; None: none does."""
    identifies: tuple[str, ...] = ()
    """Columns that identify a person."""
    missing_with: Mapping[str, str] = field(default_factory=dict)
    """Column → one that is written later, in whose empty rows it is empty as well."""
    has_versions: bool = False
    """Rows of one key are its versions, each as it was written at `available_at`."""


@dataclass(frozen=True)
class Cohorts:
    """Since when, and until when, all rows of a day are there."""

    sampled_by: str
    """The column that the rows were chosen by."""
    first: date
    """From this day on every row of a day is there."""
    last: date
    """Up to this day."""
    earliest: date
    """Day of the oldest row."""
    latest: date
    """Day of the newest."""


@dataclass(frozen=True)
class Rhythm:
    """How many rows a day brings."""

    first: date
    last: date
    closed: tuple[str, ...]
    """Days on which there is nothing: weekdays, dates, and `holidays: BR`, as a contract says them."""
    warn_below: float
    warn_above: float
    hold_below: float
    """As in a contract, in parts of what is usual on a weekday."""
    per_day: float
    """Median number of rows of a day that is not closed."""


@dataclass(frozen=True)
class Findings:
    """All that is known of a table before anything is written."""

    table: Table
    roles: Roles
    zone: str
    rhythm: Rhythm
    cohorts: Cohorts | None
    notes: tuple[str, ...] = ()
    """What was inferred and somebody should look at, a sentence each."""
