"""What the columns of anybody's table are, as the user says."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from tiltyard.errors import BadInput

EVERY = "*"
"""In `available_at`: every feature that has no column of its own there."""


@dataclass(frozen=True)
class Roles:
    """Which column plays which part. A column that plays none is a feature."""

    label: str
    prediction_time: str
    entity: str | None = None
    """None: no column says whom a row is about."""
    label_time: str | None = None
    """None: no column says when the outcome happened, or was known."""
    available_at: Mapping[str, str] = field(default_factory=dict)
    """Feature, or `EVERY` → the column that says since when its value was known."""
    planned: tuple[str, ...] = ()
    """Features with instants that are known ahead, like a due date."""
    ignore: tuple[str, ...] = ()
    """Columns that are not judged."""
    history_as_of: str | None = None
    """The column of the log that says when a row was known; None without a log."""

    def check(self, history: Path | None) -> None:
        """Raises BadInput for what is wrong whatever the file holds."""
        options = {"--label": self.label, "--prediction-time": self.prediction_time}
        options |= {"--entity": self.entity} if self.entity else {}
        options |= {"--label-time": self.label_time} if self.label_time else {}
        for option, column in options.items():
            twin = next((name for name, twin in options.items() if twin == column and name != option), None)
            if twin:
                raise BadInput(f"{option} and {twin} both name the column '{column}'; each has a column of its own.")
        if bool(history) != bool(self.history_as_of):
            raise BadInput("--history and --as-of-column belong together: a log, and the column with its times.")
        for feature in self.available_at:
            role = next((option for option, column in options.items() if column == feature), None)
            if role:
                raise BadInput(f"--available-at: '{feature}' is the column of {role}, and no feature.")
        if history and not self.entity:
            raise BadInput("--history needs --entity: the column that both files have in common.")

    @property
    def times(self) -> dict[str, str]:
        """Columns that must hold times → the option that says so."""
        columns = dict.fromkeys(self.available_at.values(), "--available-at")
        columns |= {self.label_time: "--label-time"} if self.label_time else {}
        return columns | {self.prediction_time: "--prediction-time"}

    @property
    def columns(self) -> dict[str, str]:
        """Columns that must be there → the option that says so."""
        columns = {self.label: "--label"}
        columns |= {self.entity: "--entity"} if self.entity else {}
        columns |= {feature: "--available-at" for feature in self.available_at if feature != EVERY}
        columns |= dict.fromkeys(self.planned, "--planned") | dict.fromkeys(self.ignore, "--ignore")
        return columns | self.times

    def features(self, columns: Iterable[str]) -> tuple[str, ...]:
        """The columns to judge: all that have no other part."""
        parts = {self.label, self.prediction_time, self.entity, self.label_time, *self.ignore}
        parts |= {column for column in self.available_at.values() if column not in self.available_at}
        return tuple(column for column in columns if column not in parts)

    def availability(self, features: Iterable[str]) -> dict[str, str]:
        """Feature → the column that says since when it was known, for those that have one."""
        every = self.available_at.get(EVERY)
        return {
            feature: column for feature in features if (column := self.available_at.get(feature, every)) is not None
        }


def parse_available_at(words: Iterable[str]) -> dict[str, str]:
    """`feature=column` words as a mapping; a word without `=` is the column of every other feature.

    Raises BadInput for a word of another form, and for a feature that is named twice.
    """
    columns: dict[str, str] = {}
    for word in words:
        feature, _, column = word.rpartition("=")
        if not column or word.startswith("=") or feature in columns:
            raise BadInput(f"--available-at is FEATURE=COL, once for each feature, not '{word}'.")
        columns[feature or EVERY] = column
    return columns
