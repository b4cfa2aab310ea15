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
    rates: tuple[str, ...] | None = None
    loads: tuple[str, ...] | None = None
    owner: str = "nobody-yet"
    untold: Literal["no", "unknown"] | None = None
    """What a row is of which no outcome is told in time; None: as the rows have it."""


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
