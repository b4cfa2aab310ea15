"""What somebody asks a model for, and what would be written for it. Records."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Literal

from tiltyard.scaffold.asked import Calendar


@dataclass(frozen=True)
class ModelRequest:
    """What somebody asks for; None and empty: what is inferred."""

    name: str
    source: str
    table: str | None = None
    label: str | None = None
    positive: str | None = None
    is_number: bool = False
    entity: str | None = None
    """`[NAME=]COLUMN[,COLUMN]`: the columns that name whom a prediction is about; None: a row."""
    horizon_days: int | None = None
    """With `until` the longest."""
    rates: tuple[str, ...] | None = None
    loads: tuple[str, ...] | None = None
    owner: str = "nobody-yet"
    untold: Literal["no", "unknown"] | None = None
    """What a row is of which no outcome is told in time; None: as the rows have it."""
    asks_each: bool | None = None
    """Every text of the outcome is asked for; None: where there are several, and nobody says which."""
    until: str | None = None
    """The planned column until which the outcome of each row is told; None, without `horizon_days`: the one that the
    contract says it is written with."""


@dataclass(frozen=True)
class ModelPlan:
    """What would be written, and what it rests on."""

    texts: Mapping[PurePosixPath, str]
    """Path below the checkout → what stands there."""
    exposure: str
    """The entry among the exposures."""
    nights: Calendar
    rows_per_night: float
    horizon_days: int
    until: str | None
    """The column that tells the horizon of each row; `horizon_days` is the longest then."""
    base: float
    """The share of yes among the outcomes; of a number their median."""
    features: tuple[str, ...]
    left_out: Mapping[str, str]
    """Column → why nothing is made of it."""
    found: tuple[str, ...]
    """What was found, a line each."""
    by_horizon: tuple[str, ...]
    """What a horizon would mean, a line each."""
    notes: tuple[str, ...]
    """What somebody should know, a sentence each."""
