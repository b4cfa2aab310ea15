"""What is known of the data that came: how late it was, what of it fell silent, and what one prediction was made of;
and of the answers that were brought out."""

from dataclasses import dataclass, field
from datetime import date
from pathlib import Path
from typing import Annotated, Literal, NamedTuple

from tiltyard.records.base import Instant, Record, formerly

LatencyVerdict = Literal["kept", "over", "late", "unknown"]


@dataclass(frozen=True, kw_only=True)
class RefusedFile(Record):
    """A delivered file that could not be taken."""

    file: str
    """Folder and name of the file, like `login/2025-02-05.parquet`."""
    reason: str
    """What is wrong with it, in words."""


@dataclass(frozen=True, kw_only=True)
class FetchedTable(Record):
    """What was brought of one table from the place that its contract names."""

    table: str
    """The raw table, like `raw.visit`."""
    files: tuple[str, ...] = ()
    """Names of the deliveries that were laid into the landing zone."""
    rows: int | None = None
    """Number of rows in them; None where files were brought as they are."""
    unusable: str | None = None
    """That messages could not be used, how many, and where they are; None where all could."""
    away: str | None = None
    """Why nothing could be had there, a sentence; None where the place answered."""


@dataclass(frozen=True, kw_only=True)
class QuarantinedFile(RefusedFile):
    """A delivered file that could not be taken and was put into quarantine."""

    source: str
    """Name of the source."""
    night: date
    """The newest night on which it was refused."""

    def __str__(self) -> str:
        return f"{self.file} on {self.night}: {self.reason}"


@dataclass(frozen=True, kw_only=True)
class Embargo(Record):
    """What the latencies of the last nights say of one table, over all its rows."""

    table: str
    """The table with its schema, like `raw.login`."""
    kind: str
    """source, for a table of a source, or view."""
    nights: int
    """Number of nights that were measured."""
    rows: int
    """Number of rows that came in them."""
    observed_rows: int
    """Number of those whose delivery the nights themselves observed."""
    untimed: int
    """Number of rows of the table's first delivery, which say nothing."""
    promised_p99_s: float | None
    """The source's promise, in seconds; None without one."""
    claimed_p99_s: float | None
    """99th percentile of available_at - event_time, in seconds; None without rows."""
    observed_p99_s: float | None
    """99th percentile of the time of delivery - event_time, in seconds; None without rows."""
    observed_max_s: float | None
    """Its maximum, in seconds; None without rows."""
    missed_nights: int
    """The embargo: number of nights after the first that could have read it until 99 of 100 rows are there."""
    late_rows: int
    """Number of rows that missed a night or more."""
    verdict: LatencyVerdict
    """late: more than a hundredth of the rows miss nights. over: slower than promised. kept: neither. unknown: no
    rows."""


@dataclass(frozen=True, kw_only=True)
class LatencyReport(Record):
    """What a person sees of how late rows are."""

    as_of: Instant
    """Instant at which the last night that was looked at closes."""
    nights: int
    """Number of nights that were looked at."""
    tables: tuple[Embargo, ...]
    """Embargo of every table that was measured."""
    plot: Path | None
    """The picture of these nights; None when there was nothing to draw."""


@dataclass(frozen=True, kw_only=True)
class Freshness(Record):
    """How old the newest row of a source's table is."""

    newest: Instant | None
    """When it became known; None for a table without rows."""
    age_hours: float | None
    """Hours from then until the end of the night; None for a table without rows."""


@dataclass(frozen=True, kw_only=True)
class LandedFile(Record):
    """A delivery that has landed."""

    file: str
    """Folder and name of the file, like `login/2025-02-05.parquet`."""
    rows: int
    """Number of its rows."""
    landed_at: Instant
    """When it was landed, wall clock."""
    repeated: int = 0
    """Number of its rows that came before, word for word, and were dropped."""
    corrections: int = 0
    """Number of its rows whose key came before with other values."""


class DataIncidentKey(NamedTuple):
    """What tells one data incident of a source from another."""

    table: str
    """A raw table like `raw.login`, or a label table like `lbl_churn`."""
    column: str
    """Name of the column; '' where it is the whole table."""
    what: str
    """What happened to it, in one word: a rule of `prepare.outage`, arrived_late, or what happened to a truth."""


@dataclass(frozen=True, kw_only=True)
class DataIncident(Record):
    """A data incident that is open."""

    table: str
    """A raw table like `raw.login`, or a label table like `lbl_churn`."""
    column: str
    """Name of the column; '' where it is the whole table."""
    what: str
    """What happened to it, in one word, like went_null."""
    reason: Annotated[str, formerly("said", now="reason")]
    """What was seen, in words; may be empty."""
    since: date
    """Night on which it was first seen."""

    @property
    def key(self) -> DataIncidentKey:
        """By what it is told from every other."""
        return DataIncidentKey(self.table, self.column, self.what)

    @property
    def place(self) -> str:
        """Table and column, like `raw.login.device`."""
        return f"{self.table}.{self.column}" if self.column else self.table

    def __str__(self) -> str:
        reason = f": {self.reason}" if self.reason else ""
        return f"data incident since {self.since}, {self.place} {self.what.replace('_', ' ')}{reason}"


@dataclass(frozen=True, kw_only=True)
class DataIncidentChange(DataIncident):
    """What the ledger keeps of a data incident: on one night it opened or closed."""

    source: str
    """Name of the source that it belongs to."""
    state: Literal["open", "closed"]
    """What it is from this night on."""


@dataclass(frozen=True, kw_only=True)
class FeatureValue(Record):
    """What one input of a prediction was, and since when."""

    feature: str
    """Name of the feature."""
    value: bool | int | float | str | None
    """Its value; None where there was none."""
    view: str
    """Feature view that it comes from."""
    event_time: Instant | None
    """When the row happened that it was read from; None where there was no row."""
    available_at: Instant | None
    """When that row could first be known; None where there was no row."""


@dataclass(frozen=True, kw_only=True)
class DeliverySummary(Record):
    """What an attempt to deliver a model's nights came to."""

    to: str
    """The destination."""
    delivered: dict[date, int] = field(default_factory=dict)
    """Night → number of its answers, of the nights that were brought there now."""
    owed: tuple[date, ...] = ()
    """The nights that are scored and not there yet."""
    reason: str | None = None
    """Why a night is not there, and what to do; None where all are."""
