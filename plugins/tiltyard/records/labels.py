"""Whether the newest labels of a model are what they seem, as the shadow stage finds and the gate reads it."""

from dataclasses import dataclass
from datetime import date
from typing import Literal

from tiltyard.records.base import Record


@dataclass(frozen=True, kw_only=True)
class LabelCount(Record):
    """How many labels contradict what a version had said before they were known."""

    cell: str
    """Of which rows: `all rows`, `column=value`, or `labels known on` a night."""
    says: str
    """What was counted, in words that follow `N of M rows`."""
    rows: int
    """Number of rows of which something was said."""
    found: int
    """Number of those whose label contradicts it."""
    expected: float
    """Number that the windows before lead to expect."""
    chance: float
    """Probability of a count as far off by chance."""
    is_suspect: bool = False
    """Whether that is too little to be chance, within the budget of false alarms."""

    def __str__(self) -> str:
        return f"{self.cell}: {self.found} of {self.rows} rows {self.says}, {self.expected:g} were to be expected"


@dataclass(frozen=True, kw_only=True)
class LabelCheck(Record):
    """The newest window of matured cohorts held against what an older version said of its rows."""

    first: date
    """First cohort of the window."""
    last: date
    """Last cohort of the window."""
    version: int | None = None
    """The version whose word it was; None where there was none."""
    untested: str | None = None
    """Why the labels could not be tested, as half a sentence; None where they were."""
    looked_at: int = 0
    """How much was counted: the level is shared by so many counts."""
    suspect: tuple[LabelCount, ...] = ()
    """What is no chance, the least likely first."""
    overall: tuple[LabelCount, ...] = ()
    """The counts of all rows."""

    @property
    def reason(self) -> str:
        """What was found, in words: the window, whose word it was, and up to three counts."""
        more = f"; and {len(self.suspect) - 3} more" if len(self.suspect) > 3 else ""
        told = "; ".join(map(str, self.suspect[:3]))
        return (
            f"labels of {self.first} to {self.last} contradict what version {self.version} said of them: {told}{more}"
        )


@dataclass(frozen=True)
class Labelled(Record):
    """What is known of the labels that a challenger has learned from."""

    state: Literal["sound", "suspect", "untested"]
    """`suspect`: nothing that learned from them is promoted; `untested`: nobody could tell."""
    note: str
    """Why, as a sentence."""
