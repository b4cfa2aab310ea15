"""What is held against a column: the kinds of leakage, a suspicion of one, and what could not be looked for. Pure."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

Severity = Literal["critical", "warning"]
LeakVerdict = Literal["pass", "warn", "fail", "untestable"]
"""What an audit of a table, or a replay of predictions, comes to."""
Want = Literal[
    "prediction_time", "label_time", "entity", "history", "available_at", "rows_per_entity", "outcomes", "rows"
]
"""What a kind of leakage cannot be looked for without: a column or a log that somebody may name, or other rows."""
Cell = str | int | float | bool | None
"""A value of a row, fit for JSON; instants are ISO 8601 text."""
Example = Mapping[str, Cell]
"""A row to look up: title or column → value."""

KINDS_OF_EVIDENCE: Mapping[str, str] = {
    "instant_after_prediction": "It holds instants that lie after the prediction: they were not known yet.",
    "clock_of_outcome": "It is a clock reading, and how far it lies from the prediction's own clock tells the label.",
    "part_of_outcome_time": "It is the time from the prediction to the outcome, or a part of it that tells the label.",
    "grows_until_outcome": "It counts what happened until the outcome, not until the prediction.",
    "future_in_aggregate": "It is an aggregate over rows of its entity that lie after the prediction.",
    "changes_only_after_outcome": "It never changes in an entity's life, but for after the outcome.",
    "constant_over_life": "It is the same all through an entity's life, and tells how that life ends: back-filled.",
    "too_good": "By itself it tells the label better than honest features do.",
    "default_tracks_label": "Whether it is filled in, or holds one certain value, all but decides the label.",
    "revised_copy": "It is a later version of another column: where the two differ, the label is told.",
}
"""What a table's own data may show: kind → what it means, in a sentence."""
KINDS: Mapping[str, str] = {
    "point_in_time": "The value became known only after the prediction that uses it.",
    "used_without_available_at": "A value is there, but nothing says since when it was known; it must not be used.",
    "later_than_available_at": "It tells a time after the moment at which the value is said to have been known.",
    "instant_after_prediction": KINDS_OF_EVIDENCE["instant_after_prediction"],
    "repeated_prediction": "The same entity stands in the table more than once for the same moment.",
    **KINDS_OF_EVIDENCE,
}
"""Every kind of leakage that an audit looks for: those that write times prove, then those that the data shows."""


@dataclass(frozen=True)
class Rates:
    """Plot: a share per value, as bars; at most 60 numbers."""

    x: tuple[str, ...]
    """Names of the k bars: values, or ranges of them."""
    rate: tuple[float, ...]
    """k shares of rows, from 0 to 1."""
    rows: tuple[int, ...]
    """k numbers of rows."""
    base: float
    """Share in all rows."""
    xlabel: str
    title: str = ""
    """What the share is of, where it is not the share of positives; '' where it is."""


@dataclass(frozen=True)
class Offsets:
    """Plot: lengths of time, of the positive and of the negative rows apart."""

    unit: str
    edges: tuple[float, ...]
    """k + 1 edges of the bars, in `unit`."""
    positive: tuple[float, ...]
    """k shares of the positive rows."""
    negative: tuple[float, ...]
    """k shares of the negative rows."""


@dataclass(frozen=True)
class Lateness:
    """Plot: rows by how far before or after, on a scale that grows: minutes and years in one picture."""

    names: tuple[str, ...]
    """Of the k bars."""
    rows: tuple[int, ...]
    """k numbers of rows."""
    late: int
    """Place of the first bar that breaks the rule."""
    than: str
    """The column that the rows are compared with."""


@dataclass(frozen=True)
class Suspicion:
    """One kind of leakage that a column is suspected of, with the numbers that say so."""

    feature: str
    severity: Severity
    """critical: the evidence is about time and leaves no doubt; warning: it is statistical, or leaves one."""
    kind: str
    """A key of `KINDS`, or of the replay's own (train/replay.py)."""
    effect: float
    """Size of the effect, in the unit that `evidence` names."""
    interval: tuple[float, float] | None
    """Lower and upper end of the effect, holding for all features at once; None for exact counts."""
    evidence: str
    """One sentence with the numbers."""
    examples: tuple[Example, ...] = ()
    """At most five rows: the entity, the prediction time, the value, what it should be compared with."""
    plot: Rates | Offsets | Lateness | None = None
    """The picture that shows it; None where the effect on its scale is all there is to see."""


@dataclass(frozen=True)
class Untested:
    """What could not be judged, and why."""

    feature: str
    """A column, or '*' for all."""
    kind: str
    """A key of `KINDS`, or '*' for all."""
    why: str
    """A sentence."""
    want: Want | None = None
    """What the kind could not be looked for without; None where some rows, columns or pairs were left out of it."""

    def __str__(self) -> str:
        subject = " ".join(part for part in (self.feature, self.kind) if part != "*") or "all"
        return f"{subject}: {self.why}"


@dataclass(frozen=True)
class Weighed:
    """What the data of one sample shows."""

    suspicions: tuple[Suspicion, ...]
    """Critical before warning, and the largest effects first."""
    untested: tuple[Untested, ...]
    looked_for: tuple[str, ...]
    """The keys of `KINDS_OF_EVIDENCE` that were looked for in every way there is, in their order."""
    notes: tuple[str, ...] = ()
    """How the sample was read, where that was a decision."""

    @property
    def idle(self) -> str:
        """Why no statistic could be tried on any column; '' when one could."""
        return next((gap.why for gap in self.untested if gap.feature == "*" and gap.kind == "too_good"), "")
