"""What the columns of anybody's table are, as the user says."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from tiltyard import arguments
from tiltyard.errors import BadInput

COMMAND: Mapping[str, str] = {
    "label": "--label",
    "prediction_time": "--prediction-time",
    "entity": "--entity",
    "label_time": "--label-time",
    "available_at": "--available-at",
    "planned": "--planned",
    "ignore": "--ignore",
    "history": "--history",
    "history_as_of": "--as-of-column",
}
"""What a role is called by whoever types a command."""
ARGUMENTS: Mapping[str, str] = {name: name for name in COMMAND}
"""The same by whoever calls `audit` or `audit_frame`."""
EVERY = "*"
"""In `available_at`: every feature that has no column of its own there."""


@dataclass(frozen=True)
class ColumnRoles:
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
    """Features that are known ahead, like a due date: nothing is held against them."""
    ignore: tuple[str, ...] = ()
    """Columns that are not judged."""
    history_as_of: str | None = None
    """The column of the log that says when a row was known; None without a log."""
    words: Mapping[str, str] = field(default_factory=lambda: ARGUMENTS)
    """What each role is called by whoever gave it: `ARGUMENTS` or `COMMAND`."""

    def check(self, history: Path | None) -> None:
        """Raises BadInput for what is wrong whatever the file holds."""
        words = self.words
        options = {words["label"]: self.label, words["prediction_time"]: self.prediction_time}
        options |= {words["entity"]: self.entity} if self.entity else {}
        options |= {words["label_time"]: self.label_time} if self.label_time else {}
        for option, column in options.items():
            twin = next((name for name, twin in options.items() if twin == column and name != option), None)
            if twin:
                raise BadInput(f"{option} and {twin} both name the column '{column}'; each has a column of its own.")
        if bool(history) != bool(self.history_as_of):
            pair = f"{words['history']} and {words['history_as_of']}"
            raise BadInput(f"{pair} belong together: a log, and the column with its times.")
        for feature in self.available_at:
            role = next((option for option, column in options.items() if column == feature), None)
            if role:
                raise BadInput(f"{words['available_at']}: '{feature}' is the column of {role}, and no feature.")
        if history and not self.entity:
            raise BadInput(f"{words['history']} needs {words['entity']}: the column that both have in common.")

    @property
    def times(self) -> dict[str, str]:
        """Columns that must hold times → the option that says so."""
        columns = dict.fromkeys(self.available_at.values(), self.words["available_at"])
        columns |= {self.label_time: self.words["label_time"]} if self.label_time else {}
        return columns | {self.prediction_time: self.words["prediction_time"]}

    @property
    def columns(self) -> dict[str, str]:
        """Columns that must be there → the option that says so."""
        words = self.words
        columns = {self.label: words["label"]}
        columns |= {self.entity: words["entity"]} if self.entity else {}
        columns |= {feature: words["available_at"] for feature in self.available_at if feature != EVERY}
        columns |= dict.fromkeys(self.planned, words["planned"]) | dict.fromkeys(self.ignore, words["ignore"])
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


def roles_of(
    label: str,
    prediction_time: str,
    entity: str | None,
    label_time: str | None,
    available_at: Mapping[str, str] | None,
    planned: Iterable[str],
    ignore: Iterable[str],
    history_as_of: str | None,
    *,
    words: Mapping[str, str],
) -> ColumnRoles:
    """The roles that are given. Raises BadInput for what is no name, no list of names, or no mapping."""
    given = {"label": label, "prediction_time": prediction_time}
    optional = {"entity": entity, "label_time": label_time, "history_as_of": history_as_of}
    for role, name in {**given, **{role: name for role, name in optional.items() if name is not None}}.items():
        arguments.check_name(name, words[role])
    if available_at is not None and not isinstance(available_at, Mapping):
        shown = f"{words['available_at']} is a mapping, like {{'feature': 'since when its value was known'}}"
        raise BadInput(f"{shown}, not {arguments.kind(available_at)}.")
    columns = dict(available_at or {})
    for name in (*columns, *columns.values()):
        arguments.check_name(name, f"Every part of {words['available_at']}")
    planned, ignore = arguments.names(planned, words["planned"]), arguments.names(ignore, words["ignore"])
    return ColumnRoles(label, prediction_time, entity, label_time, columns, planned, ignore, history_as_of, words)


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
